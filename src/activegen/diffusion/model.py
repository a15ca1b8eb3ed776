"""What sampling and steering ask of a diffusion model; one adapter per family meets it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from activegen.diffusion.attention import Join, Maps, Reading, Words
from activegen.diffusion.decoders import Decoder
from activegen.diffusion.levels import Level
from activegen.records import Images, Latents

Branch = Literal["both", "conditional"]


@dataclass(frozen=True)
class Conditioning:
    """What the images shall be: the text, and pictures that they shall keep to.

    Args:
        text: states of the prompts.
        negative: states of the negative prompts, for classifier-free guidance.
        focus: share of each token in the class word of its prompt; zeros where no map is wanted.
        control: a picture for each of the model's ControlNets, RGB 0..1, of the images' size.
        extra: channels that a denoiser which inpaints takes beside the latents.
        pooled: one state of each whole prompt, where the family has one.
        negative_pooled: the same of the negative prompts.
    """

    text: Float[Tensor, "b n d"]
    negative: Float[Tensor, "b n d"]
    focus: Float[Tensor, "b n"]
    control: tuple[Float[Tensor, "b 3 height width"], ...] = ()
    extra: Float[Tensor, "b c h w"] | None = None
    pooled: Float[Tensor, "b p"] | None = None
    negative_pooled: Float[Tensor, "b p"] | None = None

    def with_text(self, text: Float[Tensor, "b n d"]) -> "Conditioning":
        """The same with other states of the prompts."""
        return replace(self, text=text)

    def of(self, rows: Int[Tensor, " rows"]) -> "Conditioning":
        """Of some of the images."""
        return replace(
            self,
            text=self.text[rows],
            negative=self.negative[rows],
            focus=self.focus[rows],
            control=tuple(picture[rows] for picture in self.control),
            extra=None if self.extra is None else self.extra[rows],
            pooled=None if self.pooled is None else self.pooled[rows],
            negative_pooled=None if self.negative_pooled is None else self.negative_pooled[rows],
        )


@dataclass(frozen=True)
class Denoised:
    """One call of the denoiser.

    Args:
        output: what the scheduler takes, classifier-free guidance inside.
        clean: E[z_0 | z_t].
        attention: the class word's map where it was asked for, raw (softmax shares).
        maps: what a `Reading` asked for.
    """

    output: Latents
    clean: Latents
    attention: Float[Tensor, "b h_a w_a"] | None = None
    maps: Maps | None = None

    @classmethod
    def joined(cls, parts: "Sequence[Denoised]", join: Join) -> "Denoised":
        """Of calls for some images each."""
        attention = [part.attention for part in parts if part.attention is not None]
        maps = [part.maps for part in parts if part.maps is not None]
        return cls(
            join([part.output for part in parts], 0),
            join([part.clean for part in parts], 0),
            join(attention, 0) if attention else None,
            Maps.joined(maps, join) if maps else None,
        )


@runtime_checkable
class DiffusionModel(Protocol):
    """Text to conditioning, latents to a clean estimate, pictures to latents and back."""

    scheduler: Any

    @property
    def device(self) -> torch.device:
        """Where the latents live."""
        ...

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Of one latent."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        ...

    def made_by(self) -> dict[str, str]:
        """Name, content and versions, for provenance."""
        ...

    def condition(
        self,
        prompts: Sequence[str],
        words: Sequence[str],
        negative: str = "",
        control: Sequence[Tensor] = (),
    ) -> Conditioning:
        """Encodes prompts and finds their class words; "" is no word, and no map."""
        ...

    def words(
        self, prompts: Sequence[str], words: Sequence[Sequence[str]], attribution: bool = False
    ) -> Words:
        """Finds words in the images' prompts, or in ``attribution`` prompts that name them."""
        ...

    def inpainting(
        self, images: Images, masks: Float[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b c h_z w_z"] | None:
        """``Conditioning.extra`` to redraw where the masks are 1, if the denoiser takes any."""
        ...

    def denoise(
        self,
        latents: Latents,
        conditioning: Conditioning,
        level: Level,
        cfg_scale: float,
        attention: bool = False,
        reading: Reading | None = None,
        branch: Branch = "both",
    ) -> Denoised:
        """One call of the denoiser, differentiable in latents and conditioning.

        ``branch`` says which halves of classifier-free guidance a gradient passes through.
        """
        ...

    def encode(self, images: Images) -> Latents:
        """The most likely latents of pictures."""
        ...

    def checkpoint(self) -> bool:
        """Gradients keep less memory from now on; False where they already did."""
        ...

    @property
    def full(self) -> Decoder:
        """The model's own decoder, differentiable and not clamped."""
        ...

    def decode(self, latents: Latents) -> Images:
        """The finished pictures, 0 to 1."""
        ...
