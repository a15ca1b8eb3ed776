"""Stable Diffusion 1.x and 2.x, and anything with the same parts: the adapter to diffusers.

A box of parts, never a pipeline's ``__call__``: tokenizer and text encoder, denoiser, autoencoder,
noise levels. Prediction of epsilon or v, classifier-free guidance, negative prompts.

Rombach et al. (2022), https://arxiv.org/abs/2112.10752.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from activegen.diffusion.attention import Recorder, focus
from activegen.diffusion.decoders import FullDecoder
from activegen.diffusion.levels import Level
from activegen.diffusion.model import Conditioning, Denoised
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
        attention_size: height of the attention maps to read; by default 16 for latents of 64, as in
            the three papers, in the same proportion for larger ones, and never under 8.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: Any,
        name: str = "unnamed",
        attention_size: int | None = None,
    ):
        self.unet: Any = unet.eval()
        self.vae: Any = vae.eval()
        self.text_encoder: Any = text_encoder.eval()
        self.tokenizer, self.scheduler, self.name = tokenizer, scheduler, name
        for part in (unet, vae, text_encoder):
            part.requires_grad_(False)
        _check_family(name, unet, vae, text_encoder)
        self.latent_channels: int = self.unet.config.in_channels
        self.latent_size: int = self.unet.config.sample_size
        self.attention_size = attention_size or max(min(8, self.latent_size), self.latent_size // 4)
        self.full = FullDecoder(vae)
        self._recorder = Recorder(unet, self.attention_size)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        attention_size: int | None = None,
    ) -> "StableDiffusion":
        """From a folder in diffusers' layout (or a Hub id where there is a network).

        In bfloat16 the autoencoder stays in float32: 8-bit pictures need more than its 8 bits.

        Raises:
            UserError: a part is missing, a pickle instead of safetensors, or of another family.
        """
        folder = _folder(str(path))
        safe: dict[str, Any] = {"use_safetensors": True}
        try:
            scheduler = _scheduler(folder)
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
            unet: Any = UNet2DConditionModel.from_pretrained(
                folder / "unet", torch_dtype=dtype, **safe
            )
            precise = torch.float32 if dtype == torch.bfloat16 else dtype
            vae: Any = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=precise, **safe)
            text_encoder: Any = CLIPTextModel.from_pretrained(folder / "text_encoder", **safe)
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(
                f"'{path}' cannot be loaded as Stable Diffusion with safetensors weights; give a "
                f"folder in diffusers' layout: {error}"
            ) from error
        if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
            raise UserError(f"'{path}' cannot be loaded: its tokenizer has no vocabulary")
        return cls(
            unet.to(device),
            vae.to(device),
            text_encoder.to(device, dtype),
            tokenizer,
            scheduler,
            Path(path).name,
            attention_size,
        )

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        return self.unet.device

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Of one latent."""
        return (self.latent_channels, self.latent_size, self.latent_size)

    def made_by(self) -> dict[str, str]:
        """Name, content and versions, for provenance."""
        weights = [
            (name, parameter.flatten()[:: max(1, parameter.numel() // 8)].float().tolist())
            for part in (self.unet, self.vae, self.text_encoder)
            for name, parameter in part.named_parameters()
        ]
        levels = self.scheduler.alphas_cumprod[::100].tolist()
        prediction = self.scheduler.config.prediction_type
        revision = fingerprint({"weights": weights, "levels": levels, "prediction": prediction})
        return {"model": self.name, "revision": revision, "diffusers": diffusers.__version__}

    @torch.no_grad()
    def condition(
        self, prompts: Sequence[str], words: Sequence[str], negative: str = ""
    ) -> Conditioning:
        """Encodes prompts and finds their class words.

        Raises:
            UserError: a word is not in its prompt.
        """
        text = self._encoded(list(prompts))
        return Conditioning(
            text,
            self._encoded([negative]).expand_as(text),
            focus(self.tokenizer, prompts, words).to(self.device),
        )

    def denoise(
        self,
        latents: Latents,
        conditioning: Conditioning,
        level: Level,
        cfg_scale: float,
        attention: bool = False,
    ) -> Denoised:
        """One call of the denoiser, differentiable in latents and conditioning.

        Ho & Salimans (2022), https://arxiv.org/abs/2207.12598, with diffusers' convention:
        ``cfg_scale`` 1 or less is the prompt alone.
        """
        if not attention:
            output = self._guided(latents, conditioning, level, cfg_scale)
            return Denoised(output, level.clean(output, latents))
        shape = (latents.shape[2], latents.shape[3])
        with self._recorder.listening(conditioning.focus, shape) as heard:
            output = self._guided(latents, conditioning, level, cfg_scale)
        return Denoised(output, level.clean(output, latents), heard.mean())

    @torch.no_grad()
    def encode(self, images: Images) -> Latents:
        """The most likely latents of pictures; other sizes are resized to the model's own."""
        side = self.latent_size * 2 ** (len(self.vae.config.block_out_channels) - 1)
        if images.shape[-2:] != (side, side):
            images = torch.nn.functional.interpolate(
                images, (side, side), mode="bilinear", antialias=True
            )
        posterior = self.vae.encode((images * 2 - 1).to(self.vae.dtype)).latent_dist
        shift = self.vae.config.shift_factor or 0.0
        return ((posterior.mode() - shift) * self.vae.config.scaling_factor).float()

    @torch.no_grad()
    def decode(self, latents: Latents) -> Images:
        """The finished pictures, RGB 0 to 1."""
        return self.full(latents).clamp(0, 1)

    def _guided(
        self, latents: Tensor, conditioning: Conditioning, level: Level, cfg_scale: float
    ) -> Tensor:
        if cfg_scale <= 1:
            return self._unet(latents, conditioning.text, level)
        both = torch.cat([conditioning.negative, conditioning.text])
        without, with_prompt = self._unet(torch.cat([latents, latents]), both, level).chunk(2)
        return without + cfg_scale * (with_prompt - without)

    def _unet(self, latents: Tensor, text: Tensor, level: Level) -> Tensor:
        dtype = self.unet.dtype
        return self.unet(latents.to(dtype), level.timestep, text.to(dtype)).sample.float()

    def _encoded(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            prompts,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        use_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens["attention_mask"] if use_mask else None
        return self.text_encoder(tokens["input_ids"], attention_mask=mask).last_hidden_state.float()


def _folder(path: str) -> Path:
    """The folder itself, or the Hub's files of that name, brought here or found in the cache."""
    if Path(path).expanduser().is_dir():
        return Path(path).expanduser()
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise UserError(f"no model at '{path}'; give a folder in diffusers' layout")
    parts = ("scheduler", "tokenizer", "unet", "vae", "text_encoder")
    try:
        return Path(
            snapshot_download(
                path,
                allow_patterns=[f"{part}/*.{kind}" for part in parts for kind in KINDS],
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
    return kind.from_config(config)


def _check_family(name: str, unet: Any, vae: Any, text_encoder: Any) -> None:
    """Refuses denoisers that want more than latents, level and one text."""
    wrong = {
        "an embedded guidance scale": unet.config.time_cond_proj_dim is not None,
        "more conditions than the text (SDXL and its like)": (
            unet.config.addition_embed_type is not None or unet.config.class_embed_type is not None
        ),
        "other latents than its autoencoder's (inpainting and its like)": (
            unet.config.in_channels != vae.config.latent_channels
        ),
        "another text encoder": (
            unet.config.cross_attention_dim != text_encoder.config.hidden_size
        ),
    }
    for what, found in wrong.items():
        if found:
            raise UserError(f"the denoiser of '{name}' wants {what}, which is not supported")
