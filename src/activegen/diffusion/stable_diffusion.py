"""Stable Diffusion 1.x and 2.x, and anything with the same parts: the adapter to diffusers.

A box of parts, never a pipeline's ``__call__``: tokenizer and text encoder, denoiser, autoencoder,
noise levels. Prediction of epsilon or v, classifier-free guidance, negative prompts, ControlNets,
denoisers that inpaint.

Rombach et al. (2022), https://arxiv.org/abs/2112.10752.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import snapshot_download
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from activegen.diffusion.attention import (
    Hearing,
    Reading,
    Recorder,
    Words,
    foci,
    focus,
    height_of_layers,
)
from activegen.diffusion.control import Control, check_fit, check_pictures, residuals
from activegen.diffusion.decoders import FullDecoder
from activegen.diffusion.levels import Level, configured
from activegen.diffusion.lora import Lora, fuse
from activegen.diffusion.model import Branch, Conditioning, Denoised
from activegen.records import Images, Latents, UserError, fingerprint

KINDS = ("json", "txt", "safetensors")  # of files; never a pickle


class StableDiffusion:
    """The parts. Frozen weights; gradients flow to latents and conditioning only.

    Args:
        unet: denoiser.
        vae: autoencoder.
        text_encoder: CLIP text model.
        tokenizer: its tokenizer.
        scheduler: the checkpoint's own scheduler; its config has the noise levels.
        name: what to call the model in provenance.
        attention_size: height of the attention maps to read; by default a quarter of the latents'
            height, 16 of 64 as in the three papers, but not under 8.
        controls: ControlNets; `condition` takes a picture for each.
        size: height and width of the pictures in pixels; by default what the denoiser was trained
            on.

    Raises:
        UserError: parts of another family or that do not fit each other, or a size that does not
            go into whole latents.
    """

    PARTS: tuple[str, ...] = ("unet", "vae", "text_encoder")  # with weights: their folders
    BESIDE: str | None = None  # the text: what diffusers calls ``addition_embed_type``

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: Any,
        name: str = "unnamed",
        attention_size: int | None = None,
        controls: Sequence[Control] = (),
        size: tuple[int, int] | None = None,
    ):
        self.unet: Any = unet.eval()
        self.vae: Any = vae.eval()
        self.text_encoder: Any = text_encoder.eval()
        self.tokenizer, self.scheduler, self.name = tokenizer, scheduler, name
        for part in self._parts:
            part.requires_grad_(False)
        _check_family(name, unet, vae, self._text_width, self.BESIDE)
        self.latent_channels: int = self.vae.config.latent_channels
        self.factor: int = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.size = size or self._trained_size
        _check_size(self.size, self.factor)
        self.attention_size = attention_size or height_of_layers(
            self.size[0] // self.factor, least=8
        )
        self.controls = tuple(controls)
        self.loras: tuple[Lora, ...] = ()
        for control in self.controls:
            check_fit(control, unet, self.latent_channels, self.factor)
            net: Any = control.net
            net.to(self.unet.device).eval().requires_grad_(False)
        self.full = FullDecoder(vae)
        self._recorder = Recorder(unet)
        self._compiled: Any = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        attention_size: int | None = None,
        controls: Sequence[Control] = (),
        size: tuple[int, int] | None = None,
        loras: Sequence[Lora] = (),
        compiled: bool = False,
        channels_last: bool = False,
    ) -> "StableDiffusion":
        """From a folder in diffusers' layout (or a Hub id where there is a network).

        In bfloat16 the autoencoder stays in float32: 8-bit pictures need more than its 8 bits.
        ``loras`` are added to the weights in float32, before these are rounded to ``dtype``.
        ``compiled`` and ``channels_last`` are for speed alone, as in :meth:`hasten`.

        Raises:
            UserError: a part is missing, a pickle instead of safetensors, a LoRA that does not fit,
                or as the class does.
        """
        folder = folder_of(path)
        safe: dict[str, Any] = {"use_safetensors": True}
        try:
            scheduler = _scheduler(folder)
            texts = cls._texts(folder)
            unet: Any = UNet2DConditionModel.from_pretrained(
                folder / "unet", torch_dtype=torch.float32 if loras else dtype, **safe
            )
            precise = cls._precise(folder, dtype)
            vae: Any = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=precise, **safe)
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(
                f"'{path}' cannot be loaded as Stable Diffusion with safetensors weights; give a "
                f"folder in diffusers' layout: {error}"
            ) from error
        tokenizer = texts["tokenizer"]
        if knows_no_word(tokenizer):
            raise UserError(f"'{path}' cannot be loaded: its tokenizer has no vocabulary")
        for lora in loras:
            fuse(lora, unet, texts["text_encoder"].float())
        if unet.dtype != dtype:
            unet.to(dtype)
        for part in texts.values():
            if isinstance(part, torch.nn.Module):
                part.to(device, dtype)
        made = cls(
            unet.to(device),
            vae.to(device),
            scheduler=scheduler,
            name=Path(path).name,
            attention_size=attention_size,
            controls=controls,
            size=size,
            **texts,
        )
        made.loras = tuple(loras)
        made.hasten(compiled, channels_last)
        return made

    def hasten(self, compiled: bool = False, channels_last: bool = False) -> None:
        """For speed alone; results agree within the tolerance of the number format.

        Args:
            compiled: by torch.compile, the denoiser's calls without a gradient in which nobody
                reads attention; on a GPU as CUDA graphs. The first call takes a minute.
            channels_last: memory in that order in denoiser, ControlNets and autoencoder.
        """
        if channels_last:
            for part in self._drawing:
                part.to(memory_format=torch.channels_last)
        if compiled:
            mode = "reduce-overhead" if self.device.type == "cuda" else "default"
            self._compiled = torch.compile(self.unet, mode=mode)

    @property
    def _drawing(self) -> list[Any]:
        """Parts that are called in each step, or that gradients pass through."""
        return [self.unet, self.vae, *(control.net for control in self.controls)]

    def checkpoint(self) -> bool:
        """From now on gradients recompute what they need instead of keeping it; False: they did.

        Chen et al. (2016), https://arxiv.org/abs/1604.06174: less memory for one more forward.
        """
        new = [part for part in self._drawing if not part.is_gradient_checkpointing]
        for part in new:
            part.enable_gradient_checkpointing()
        return bool(new)

    @property
    def _weight(self) -> Tensor:
        """One that stands for all: to ask diffusers walks through every module, in each call."""
        return self.unet.conv_in.weight

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """In which the denoiser computes."""
        return self._weight.dtype

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Of one latent."""
        return (self.latent_channels, self.size[0] // self.factor, self.size[1] // self.factor)

    @property
    def inpaints(self) -> bool:
        """Takes a mask and a masked picture beside the latents."""
        return self.unet.config.in_channels > self.latent_channels

    @property
    def _parts(self) -> list[Any]:
        return [getattr(self, name) for name in self.PARTS]

    @property
    def _text_width(self) -> int:
        return self.text_encoder.config.hidden_size

    @property
    def _trained_size(self) -> tuple[int, int]:
        side = self.unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return height * self.factor, width * self.factor

    def made_by(self) -> dict[str, str]:
        """Name, content and versions, for provenance."""
        facts: dict[str, Any] = {
            "weights": [weights for part in self._parts for weights in _some(part)],
            "levels": self.scheduler.alphas_cumprod[::100].tolist(),
            "prediction": self.scheduler.config.prediction_type,
        }
        controls = {}
        if self.loras:
            facts["loras"] = [lora.facts() for lora in self.loras]
            controls["loras"] = ", ".join(f"{of.name} {of.scale:g}" for of in self.loras)
        if self.controls:
            facts["controls"] = [c.facts() | {"weights": _some(c.net)} for c in self.controls]
            controls["controls"] = ", ".join(f"{c.name} {c.scale:g}" for c in self.controls)
        if self.size != self._trained_size:
            facts["size"] = self.size
        made_by = {"model": self.name, "revision": fingerprint(facts)}
        return made_by | {"diffusers": diffusers.__version__} | controls

    @torch.no_grad()
    def condition(
        self,
        prompts: Sequence[str],
        words: Sequence[str],
        negative: str = "",
        control: Sequence[Float[Tensor, "b 3 height width"]] = (),
    ) -> Conditioning:
        """Encodes prompts and finds their class words; "" is no word, and no map.

        Args:
            prompts: whole texts.
            words: of each prompt, the part that names its class.
            negative: what not to draw.
            control: for each ControlNet a picture of each prompt, RGB 0..1, of ``size``.

        Raises:
            UserError: a word is not in its prompt, or the pictures are not one of ``size`` for each
                ControlNet.
        """
        check_pictures(self.controls, control, self.size)
        text, pooled = self._encoded(list(prompts))
        without, of_all = self._encoded([negative])
        return Conditioning(
            text,
            without.expand_as(text),
            focus(self.tokenizer, prompts, words).to(self.device),
            tuple(picture.to(self.device) for picture in control),
            pooled=pooled,
            negative_pooled=None if of_all is None else of_all.expand(len(text), -1),
        )

    @torch.no_grad()
    def words(
        self, prompts: Sequence[str], words: Sequence[Sequence[str]], attribution: bool = False
    ) -> Words:
        """Finds words, for a `Reading`.

        Marcos-Manchón et al. (2024), OVAM, https://arxiv.org/abs/2403.14291, find words that the
        prompt does not have in the keys of another text, the attribution prompt. Differs from them
        in when: they keep the hidden states and ask later, we ask while they pass.

        Args:
            prompts: of the images, as they are drawn; with ``attribution`` other texts, one an
                image, that name the words.
            words: of each image, in its prompt.
            attribution: see there.

        Raises:
            UserError: a word is empty or not in its prompt, or an image has none.
        """
        text = self._encoded(list(prompts))[0] if attribution else None
        return Words(foci(self.tokenizer, prompts, words).to(self.device), text)

    @torch.no_grad()
    def inpainting(
        self,
        images: Images,
        masks: Float[Tensor, "b 1 h w"],
        rngs: Sequence[torch.Generator] | None = None,
    ) -> Float[Tensor, "b c h_z w_z"] | None:
        """``Conditioning.extra`` of a denoiser that inpaints: the mask, and the rest's latents.

        None where the denoiser does not. Masks are binary from 0.5 and resized by the nearest
        pixel; what is to be redrawn is grey in the picture that is encoded.

        Args:
            images: to keep where the mask is 0; other sizes are resized.
            masks: 1 where to redraw.
            rngs: one of each image, to draw latents from the encoder's distribution as diffusers
                does. Without, its most likely ones (ours): no randomness besides the noise.
        """
        if not self.inpaints:
            return None
        masks = (F.interpolate(masks, self.size) >= 0.5).to(images)
        kept = self._encode(torch.where(masks > 0, 0.5, self._resized(images)), rngs)
        return torch.cat([F.interpolate(masks, kept.shape[2:]).to(kept), kept], 1)

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

        Ho & Salimans (2022), https://arxiv.org/abs/2207.12598, with diffusers' convention:
        ``cfg_scale`` 1 or less is the prompt alone.

        Where the gradient does not pass through the half without the prompt, that half is computed
        without a graph: with ``branch`` "conditional", and always where it is the text's alone.

        Raises:
            UserError: pictures of ``conditioning`` that do not fit the model, or too few or many;
                or attention of a size that it does not have.
        """
        self._check(conditioning, latents)
        shape = (latents.shape[2], latents.shape[3])
        word = Words(conditioning.focus.unsqueeze(1))
        guide = Hearing(word, (self.attention_size,), shape) if attention else None
        heard = reading.hearing(shape) if reading else None
        hearings = tuple(one for one in (guide, heard) if one is not None)
        output = self._guided(latents, conditioning, level, cfg_scale, branch, hearings)
        return Denoised(
            output,
            level.clean(output, latents),
            guide.maps().words[0][:, 0] if guide else None,
            heard.maps() if heard else None,
        )

    @torch.no_grad()
    def encode(self, images: Images) -> Latents:
        """The most likely latents of pictures; other sizes are resized to the model's own."""
        return self._encode(self._resized(images))

    @torch.no_grad()
    def decode(self, latents: Latents) -> Images:
        """The finished pictures, RGB 0 to 1."""
        return self.full(latents).clamp(0, 1)

    def _guided(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        level: Level,
        cfg_scale: float,
        branch: Branch,
        hearings: Sequence[Hearing],
    ) -> Tensor:
        text, negative = conditioning.text, conditioning.negative
        if cfg_scale <= 1:
            return self._unet(latents, text, conditioning, level, hearings)
        followed = torch.is_grad_enabled() and (latents.requires_grad or text.requires_grad)
        if followed and (branch == "conditional" or not latents.requires_grad):
            with torch.no_grad():
                without = self._unet(latents, negative, conditioning, level, prompted=False)
            with_prompt = self._unet(latents, text, conditioning, level, hearings)
        else:
            both, twice = torch.cat([negative, text]), torch.cat([latents, latents])
            without, with_prompt = self._unet(twice, both, conditioning, level, hearings).chunk(2)
        return without + cfg_scale * (with_prompt - without)

    def _unet(
        self,
        latents: Tensor,
        text: Tensor,
        conditioning: Conditioning,
        level: Level,
        hearings: Sequence[Hearing] = (),
        prompted: bool = True,
    ) -> Tensor:
        latents, text = latents.to(self.dtype), text.to(self.dtype)
        extra = conditioning.extra
        beside = self._beside(conditioning, latents, prompted)
        added = residuals(
            self.controls, conditioning.control, latents, text, level, prompted, beside
        )
        if extra is not None:
            extra = extra.to(latents).repeat(len(latents) // len(extra), 1, 1, 1)
            latents = torch.cat([latents, extra], 1)
        hasty = self._compiled is not None and not hearings and not torch.is_grad_enabled()
        net: Any = self._compiled if hasty else self.unet
        with self._recorder.listening(*hearings):
            seen = net(latents, level.timestep, text, added_cond_kwargs=beside, **added)
        output = seen.sample.float()
        return output.clone() if hasty else output  # CUDA graphs write into the same memory again

    def _check(self, conditioning: Conditioning, latents: Tensor) -> None:
        height, width = latents.shape[-2] * self.factor, latents.shape[-1] * self.factor
        check_pictures(self.controls, conditioning.control, (height, width))
        if self.inpaints and conditioning.extra is None:
            raise UserError(
                f"the denoiser of '{self.name}' inpaints; give it a picture and a mask, or take a "
                "model that draws from noise alone"
            )
        if conditioning.extra is not None and not self.inpaints:
            raise UserError(
                f"the denoiser of '{self.name}' takes no picture to inpaint; give none, or take a "
                "model that was trained to inpaint"
            )

    def _resized(self, images: Tensor) -> Tensor:
        """To the model's own size."""
        if images.shape[-2:] == self.size:
            return images
        return F.interpolate(images, self.size, mode="bilinear", antialias=True)

    def _encode(self, images: Tensor, rngs: Sequence[torch.Generator] | None = None) -> Tensor:
        """The most likely latents, or one draw of each image."""
        found = self.vae.encode((images * 2 - 1).to(self.vae.dtype)).latent_dist
        latents = found.mode()
        if rngs is not None:
            drawn = [torch.randn(latents.shape[1:], generator=rng) for rng in rngs]
            latents = latents + found.std * torch.stack(drawn).to(latents)
        shift = self.vae.config.shift_factor or 0.0
        return ((latents - shift) * self.vae.config.scaling_factor).float()

    def _encoded(self, prompts: list[str]) -> tuple[Tensor, Tensor | None]:
        """States of the tokens, and of the whole prompt if the family has one."""
        tokens = self._tokens(self.tokenizer, prompts)
        use_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens["attention_mask"] if use_mask else None
        states = self.text_encoder(tokens["input_ids"], attention_mask=mask).last_hidden_state
        return states.float(), None

    def _tokens(self, tokenizer: Any, prompts: list[str]) -> Any:
        return tokenizer(
            prompts,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)

    def _beside(
        self, conditioning: Conditioning, latents: Tensor, prompted: bool
    ) -> dict[str, Tensor] | None:
        """What else the denoiser sees of these rows; those with the prompt are last."""
        return None

    @classmethod
    def _texts(cls, folder: Path) -> dict[str, Any]:
        """What the family's text needs, by its names in the class."""
        return {
            "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
            "text_encoder": CLIPTextModel.from_pretrained(
                folder / "text_encoder", use_safetensors=True
            ),
        }

    @classmethod
    def _precise(cls, folder: Path, dtype: torch.dtype) -> torch.dtype:
        """Of the autoencoder."""
        return torch.float32 if dtype == torch.bfloat16 else dtype


def folder_of(path: str | Path) -> Path:
    """The folder itself, or the Hub's files of that name, brought here or found in the cache.

    Raises:
        UserError: there is neither.
    """
    path = str(path)
    if Path(path).expanduser().is_dir():
        return Path(path).expanduser()
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise UserError(f"no model at '{path}'; give a folder in diffusers' layout")
    parts = ("scheduler", "tokenizer*", "unet", "vae", "text_encoder*")
    try:
        return Path(
            snapshot_download(
                path,
                allow_patterns=[
                    "model_index.json",
                    *(f"{part}/*.{kind}" for part in parts for kind in KINDS),
                ],
                ignore_patterns=["*.fp16.*", "*.non_ema.*"],
            )
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"no folder '{path}' here, and the Hub has or gives none of that name: {error}"
        ) from error


def _scheduler(folder: Path) -> Any:
    config: Any = diffusers.DDIMScheduler.load_config(folder / "scheduler")
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if kind is None:
        raise ValueError(f"unknown scheduler '{config.get('_class_name')}'")
    return configured(kind, config)


def _some(part: torch.nn.Module) -> list[tuple[str, list[float]]]:
    """A few values of each weight."""
    return [
        (name, parameter.flatten()[:: max(1, parameter.numel() // 8)].float().tolist())
        for name, parameter in part.named_parameters()
    ]


def _check_size(size: tuple[int, int], factor: int) -> None:
    """Refuses pictures that are not whole latents; the denoiser itself takes any number of them."""
    if any(side < factor or side % factor for side in size):
        smaller = tuple(max(side // factor, 1) * factor for side in size)
        larger = tuple(max(-(-side // factor), 1) * factor for side in size)
        raise UserError(
            f"pictures of {size[0]} by {size[1]} pixels do not go into latents of {factor}; the "
            f"nearest that do are {smaller[0]} by {smaller[1]} and {larger[0]} by {larger[1]}"
        )


def _check_family(name: str, unet: Any, vae: Any, text_width: int, beside: str | None) -> None:
    """Refuses denoisers that want other than latents, level, text and a picture to inpaint."""
    wrong = {
        "an embedded guidance scale": unet.config.time_cond_proj_dim is not None,
        f"{unet.config.addition_embed_type or 'nothing'} besides the text (SDXL: text_time)": (
            unet.config.addition_embed_type != beside
        ),
        "classes": unet.config.class_embed_type is not None,
        "other latents than its autoencoder's": unet.config.in_channels
        not in (vae.config.latent_channels, 2 * vae.config.latent_channels + 1),
        "another text encoder": unet.config.cross_attention_dim != text_width,
    }
    for what, found in wrong.items():
        if found:
            raise UserError(f"the denoiser of '{name}' wants {what}, which is not supported")


def knows_no_word(tokenizer: Any) -> bool:
    """Whether it is what transformers makes of a folder without a vocabulary."""
    return set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens)
