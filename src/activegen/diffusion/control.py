"""Pictures that a denoiser keeps to: ControlNets.

A copy of the denoiser's encoder sees the picture beside the latents, and what it makes of them is
added to the denoiser's own features.

Zhang et al. (2023), https://arxiv.org/abs/2302.05543.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from activegen.diffusion.levels import Level
from activegen.records import UserError

SAME = (  # parts of the configuration that a ControlNet shares with its denoiser
    "cross_attention_dim",
    "block_out_channels",
    "layers_per_block",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "class_embed_type",
)


@dataclass(frozen=True)
class Control:
    """A ControlNet and how much it says.

    Args:
        net: sees RGB pictures in 0..1; one that was trained on BGR turns them itself.
        scale: of what it adds to the denoiser's features; 0 is without it.
        guess: only the half of classifier-free guidance with the prompt sees the picture, and what
            it adds is weighted by 0.1 for the finest features to 1 for the coarsest, in logarithmic
            steps. On for nets that pool their features, which are trained for it.
        start: share of the steps after which it begins.
        stop: share of the steps after which it ends.
        name: what to call it in provenance.

    Differs from the paper: there (section 3.4) the weights of ``guess`` are 64 / the features'
    height; these are the authors' code's and diffusers'.

    Differs from diffusers: ``guess`` is of each net, not of all together.

    Raises:
        UserError: a window that is not within 0 to 1, or is empty.
    """

    net: ControlNetModel
    scale: float = 1.0
    guess: bool = False
    start: float = 0.0
    stop: float = 1.0
    name: str = "unnamed"

    def __post_init__(self) -> None:
        """Check the window."""
        if not 0 <= self.start < self.stop <= 1:
            raise UserError(
                f"the ControlNet '{self.name}' works from {self.start} to {self.stop} of the "
                "steps; give shares with 0 <= start < stop <= 1"
            )

    @classmethod
    def load(
        cls,
        path: str | Path,
        scale: float = 1.0,
        guess: bool = False,
        start: float = 0.0,
        stop: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> "Control":
        """From a folder in diffusers' layout (or a Hub id where there is a network).

        Args:
            path: of the folder.
            scale: as the class has it, like the next three.
            guess: see there.
            start: see there.
            stop: see there.
            dtype: of the weights; the denoiser's is the fastest.

        Raises:
            UserError: there is none, it is something else, its weights are not safetensors, or as
                the class does.
        """
        folder = Path(path).expanduser()
        source = folder if folder.is_dir() else str(path)
        try:
            config: Any = ControlNetModel.load_config(source)
            kind = config.get("_class_name")
            if kind != ControlNetModel.__name__:
                raise ValueError(f"it has a {kind}")
            net: Any = ControlNetModel.from_pretrained(
                source, torch_dtype=dtype, use_safetensors=True
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(
                f"no ControlNet with safetensors weights at '{path}'; give a folder in diffusers' "
                f"layout: {error}"
            ) from error
        return cls(net, scale, guess, start, stop, folder.name)

    def facts(self) -> dict[str, Any]:
        """What its effect depends on besides the weights, for provenance."""
        net: Any = self.net
        return {
            "scale": self.scale,
            "guess": self.guess,
            "window": [self.start, self.stop],
            "pooled": net.config.global_pool_conditions,
            "order": net.config.controlnet_conditioning_channel_order,
        }

    def active(self, level: Level) -> bool:
        """Says something in the step that starts here."""
        ends = (level.index + 1) / level.count
        return self.scale != 0 and level.progress >= self.start and ends <= self.stop


def check_fit(control: Control, unet: Any, latent_channels: int, factor: int) -> None:
    """Looks for a ControlNet of another family.

    Args:
        control: with the net.
        unet: the denoiser.
        latent_channels: of the autoencoder, without what an inpainting denoiser takes besides.
        factor: pixels per latent.

    Raises:
        UserError: it does not fit the denoiser.
    """
    net: Any = control.net
    shrinks = 2 ** (len(net.config.conditioning_embedding_out_channels) - 1)
    pairs = {name: (net.config[name], unet.config[name]) for name in SAME} | {
        "in_channels": (net.config.in_channels, latent_channels),
        "conditioning_channels": (net.config.conditioning_channels, 3),
        "pixels per latent": (shrinks, factor),
    }
    for what, (has, needs) in pairs.items():
        if _plain(has) != _plain(needs):
            raise UserError(
                f"the ControlNet '{control.name}' does not fit the denoiser: its {what} is {has}, "
                f"and {needs} is needed; take one that was trained for this model"
            )


def check_pictures(
    controls: Sequence[Control], pictures: Sequence[Tensor], size: tuple[int, int]
) -> None:
    """Looks for pictures that are too many, too few, or of another size.

    Args:
        controls: the nets.
        pictures: one batch of each.
        size: height and width in pixels.

    Raises:
        UserError: there is such a picture.
    """
    if len(pictures) != len(controls):
        raise UserError(
            f"{len(pictures)} control pictures for {len(controls)} ControlNets; give one of each"
        )
    for control, picture in zip(controls, pictures, strict=True):
        if tuple(picture.shape[-2:]) != size:
            height, width = picture.shape[-2:]
            raise UserError(
                f"the picture for the ControlNet '{control.name}' is {height} by {width} pixels "
                f"and the images are {size[0]} by {size[1]}; give one of their size"
            )


def residuals(
    controls: Sequence[Control],
    pictures: Sequence[Float[Tensor, "b 3 height width"]],
    latents: Float[Tensor, "rows c h w"],
    text: Float[Tensor, "rows n d"],
    level: Level,
    prompted: bool = True,
    beside: Mapping[str, Float[Tensor, "rows _"]] | None = None,
) -> dict[str, Any]:
    """What the ControlNets add to the denoiser's features, as diffusers' UNet takes it.

    Differentiable in everything. Nets outside their window are not called.

    Args:
        controls: the nets; what they add is summed.
        pictures: one batch of each, RGB 0..1.
        latents: as the denoiser sees them; under classifier-free guidance twice the pictures' rows,
            those with the prompt last.
        text: states of the prompts of these rows.
        level: of noise.
        prompted: some rows are with the prompt; nets that guess do not see the others.
        beside: what the denoiser sees of these rows besides text and latents.
    """
    added = [
        _added(control, picture, latents, text, level, beside)
        for control, picture in zip(controls, pictures, strict=True)
        if control.active(level) and (prompted or not _guesses(control))
    ]
    if not added:
        return {}
    *down, middle = (reduce(torch.add, parts) for parts in zip(*added, strict=True))
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


def _added(
    control: Control,
    picture: Tensor,
    latents: Tensor,
    text: Tensor,
    level: Level,
    beside: Mapping[str, Tensor] | None,
) -> list[Tensor]:
    """By one net, finest features first; rows that do not see the picture have zeros."""
    net: Any = control.net
    guess, dtype = _guesses(control), net.conv_in.weight.dtype
    rows = len(picture) if guess else len(latents)
    down, middle = net(
        latents[-rows:].to(dtype),
        level.timestep,
        text[-rows:].to(dtype),
        picture.to(latents.device, dtype).repeat(rows // len(picture), 1, 1, 1),
        conditioning_scale=control.scale,
        guess_mode=guess,
        added_cond_kwargs=beside and {name: x[-rows:] for name, x in beside.items()},
        return_dict=False,
    )
    blind = len(latents) - rows
    seen = (x.to(latents.dtype) for x in (*down, middle))
    return [torch.cat([x.new_zeros(blind, *x.shape[1:]), x]) for x in seen]


def _guesses(control: Control) -> bool:
    """Acts on the half with the prompt alone."""
    net: Any = control.net
    return control.guess or net.config.global_pool_conditions


def _plain(value: Any) -> Any:
    """The same, whether a configuration was built or read from a file."""
    return tuple(value) if isinstance(value, list) else value
