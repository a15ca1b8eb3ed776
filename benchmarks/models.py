"""Parts of diffusion models to time: the embedded ones, and published sizes with random weights.

A model with random weights is as fast as a trained one, and draws nothing.

Settings of Stable Diffusion 1.5 and 2.1 (Rombach et al. 2022, https://arxiv.org/abs/2112.10752),
SDXL (Podell et al. 2023, https://arxiv.org/abs/2307.01952) and ControlNet (Zhang et al. 2023,
https://arxiv.org/abs/2302.05543), as their checkpoints' ``config.json`` have them.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from activegen.diffusion.control import Control
from activegen.diffusion.levels import scheduler
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.diffusion.stable_diffusion_xl import StableDiffusionXL
from activegen.zoo import LAND_COVER, LAND_COVER_SCENES, architecture

SEED = 0
QUICK = "cuda" if torch.cuda.is_available() else "cpu"  # to draw billions of weights on


@dataclass(frozen=True)
class Parts:
    """What diffusers' pipeline and our model share.

    Args:
        unet: denoiser.
        vae: autoencoder.
        text_encoder: CLIP text model.
        tokenizer: its tokenizer.
        noise: a scheduler whose settings have the noise levels.
        control: ControlNet, where there is one.
        text_encoder_2: of SDXL; its tokenizer is the first one's.
    """

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    noise: Any
    control: Any = None
    text_encoder_2: Any = None

    @property
    def modules(self) -> dict[str, nn.Module]:
        """By name."""
        return {name: of for name, of in vars(self).items() if isinstance(of, nn.Module)}

    def twin(self) -> "Parts":
        """The same weights in modules of their own."""
        return replace(self, **{name: twin(of) for name, of in self.modules.items()})

    def copied(self) -> "Parts":
        """The same with weights of their own."""
        return replace(self, **{name: copy.deepcopy(of) for name, of in self.modules.items()})

    def to(self, device: torch.device, dtype: torch.dtype) -> "Parts":
        """Moved as ``StableDiffusion.load`` does: the autoencoder is more precise where it must."""
        precise = torch.float32 if self.xl or dtype == torch.bfloat16 else dtype
        for name, of in self.modules.items():
            of.to(device, precise if name == "vae" else dtype)
        return self

    @property
    def xl(self) -> bool:
        """Is of the SDXL family."""
        return self.text_encoder_2 is not None


def twin(module: nn.Module) -> nn.Module:
    """Another module with the very same weights."""
    kept = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, kept)


def pipeline(parts: Parts, name: str) -> Callable[..., Tensor]:
    """Diffusers' own, with a scheduler of that name; to pictures, RGB 0 to 1."""
    own: dict[str, Any] = {
        "vae": parts.vae,
        "text_encoder": parts.text_encoder,
        "tokenizer": parts.tokenizer,
        "unet": parts.unet,
        "scheduler": scheduler(name, parts.noise.config),
    }
    plain = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if parts.xl:
        second = {"text_encoder_2": parts.text_encoder_2, "tokenizer_2": parts.tokenizer}
        made: Any = StableDiffusionXLPipeline(**own, **second, add_watermarker=False)
    elif parts.control is not None:
        made = StableDiffusionControlNetPipeline(**own, **plain, controlnet=parts.control)
    else:
        made = StableDiffusionPipeline(**own, **plain)
    made.set_progress_bar_config(disable=True)
    if parts.vae.dtype == parts.unet.dtype:
        return lambda **asked: made(**asked, output_type="pt").images

    @torch.no_grad()
    def decoded(**asked: Any) -> Tensor:
        # a pipeline's end, for an autoencoder in another number format, which it does not take
        latents = made(**asked, output_type="latent").images.to(parts.vae.dtype)
        pixels = parts.vae.decode(latents / parts.vae.config.scaling_factor, return_dict=False)[0]
        return made.image_processor.postprocess(pixels, output_type="pt")

    return decoded


def model(parts: Parts) -> StableDiffusion:
    """Ours of these parts."""
    controls = [] if parts.control is None else [Control(parts.control)]
    if parts.xl:
        text = parts.text_encoder, parts.text_encoder_2, parts.tokenizer, parts.tokenizer
        return StableDiffusionXL(parts.unet, parts.vae, *text, parts.noise, controls=controls)
    text = parts.text_encoder, parts.tokenizer
    return StableDiffusion(parts.unet, parts.vae, *text, parts.noise, controls=controls)


def weights(of: StableDiffusion) -> int:
    """Bytes of a model's parts."""
    nets = [getattr(of, name) for name in of.PARTS] + [control.net for control in of.controls]
    return sum(p.numel() * p.element_size() for net in nets for p in net.parameters())


def _hastened(compiled: bool, channels_last: bool) -> Callable[[Parts], StableDiffusion]:
    def made(parts: Parts) -> StableDiffusion:
        # the order in memory is the weights' own
        of = model(parts.copied() if channels_last else parts.twin())
        of.hasten(compiled, channels_last)
        return of

    return made


def _checkpointing(parts: Parts) -> StableDiffusion:
    made = model(parts.twin())
    made.checkpoint()
    return made


def _whole_softmax(parts: Parts) -> StableDiffusion:
    """Its attention layers have the whole softmax in memory, as in code before SDPA."""
    other = parts.twin()
    other.unet.set_attn_processor(AttnProcessor())
    return model(other)


def _other_format(parts: Parts) -> StableDiffusion:
    """Half precision of a model in float32, and the other way round."""
    dtype = torch.bfloat16 if parts.unet.dtype == torch.float32 else torch.float32
    return model(parts.copied().to(parts.unet.device, dtype))


VARIANTS: dict[str, Callable[[Parts], StableDiffusion]] = {
    "": _hastened(False, False),
    "compiled": _hastened(True, False),
    "channels_last": _hastened(False, True),
    "compiled, channels_last": _hastened(True, True),
    "checkpointing": _checkpointing,
    "whole_softmax": _whole_softmax,
    "other_format": _other_format,
}


@dataclass(frozen=True)
class Size:
    """A model to time, and the settings that it is used with.

    Args:
        make: its parts, on any device.
        prompt: of all images.
        word: of the prompt, which attention is read of.
        steps, cfg_scale, scheduler: of the packaged recipes.
        dtype: number format on a GPU; None, and on a CPU, is the fast one.
        learner: name of the classifier, or segmenter where there is a ControlNet.
        learner_size: of its pictures in pixels.
        recipes: packaged ones whose ways of drawing are timed.
        batch: images drawn together.
        batches: that unguided sampling is timed at.
    """

    make: Callable[[], Parts]
    prompt: str = "a photo of a forest"
    word: str = "forest"
    steps: int = 40
    cfg_scale: float = 7.5
    scheduler: str = "ddpm"
    dtype: torch.dtype | None = torch.float16
    learner: str = "timm:resnet50"
    learner_size: int = 224
    recipes: tuple[str, ...] = ("actgen_sd",)
    batch: int = 8
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)


def tiny_decoder(parts: Parts) -> Any:
    """TAESD's settings for these latents, with random weights."""
    levels = len(parts.vae.config.block_out_channels)
    return AutoencoderTiny(
        latent_channels=parts.vae.config.latent_channels,
        encoder_block_out_channels=(64,) * levels,
        decoder_block_out_channels=(64,) * levels,
        num_encoder_blocks=(1, 3, 3, 3)[:levels],
        num_decoder_blocks=(3, 3, 3, 1)[-levels:],
    )


def _embedded(folder: Path) -> Parts:
    loaded = StableDiffusion.load(folder)
    net = folder / "controlnet"
    control = ControlNetModel.from_pretrained(net) if net.is_dir() else None
    text = loaded.text_encoder, loaded.tokenizer
    parts = Parts(loaded.unet, loaded.vae, *text, loaded.scheduler, control)
    parts.unet.set_attn_processor(AttnProcessor2_0())  # without ours around them
    return parts


def _toy(controlled: bool) -> Parts:
    of = architecture.Architecture((4, 8), (8, 16), (16,), 32)
    torch.manual_seed(SEED)
    tokenizer = _tokenizer(of.tokens)
    text = architecture.text_encoder(tokenizer)
    unet = architecture.denoiser(of, text.config.hidden_size)
    control = architecture.control(of, unet) if controlled else None
    vae = architecture.autoencoder(of)
    return Parts(unet, vae, text, tokenizer, architecture.noise_schedule(), control)


def _tokenizer(length: int) -> Any:
    return architecture.text_tokenizer(["a photo of a forest"] * 9, length)


_FOUR: dict[str, Any] = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
}
_SD15: dict[str, Any] = {
    **_FOUR,
    "sample_size": 64,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
_SD21: dict[str, Any] = {
    **_FOUR,
    "sample_size": 96,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "upcast_attention": True,
}
_SDXL: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "sample_size": 128,
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_CLIP_L: dict[str, Any] = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_H: dict[str, Any] = {"hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16}
_CLIP_G: dict[str, Any] = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20}


def _text(kind: Any, settings: dict[str, Any], act: str) -> Any:
    """A text model with the published vocabulary's size; the tokenizer has a smaller one."""
    width = settings["hidden_size"]
    config = CLIPTextConfig(
        **settings,
        intermediate_size=4 * width,
        projection_dim=width,
        vocab_size=49408,
        max_position_embeddings=77,
        hidden_act=act,
        bos_token_id=architecture.VOCABULARY_START[architecture.BEGIN],
        eos_token_id=architecture.VOCABULARY_START[architecture.END],
        pad_token_id=architecture.VOCABULARY_START[architecture.END],
    )
    return kind(config)


def _published(
    unet: dict[str, Any], text: dict[str, Any], act: str, prediction: Any = "epsilon"
) -> Parts:
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
    }
    xl = "addition_embed_type" in unet
    noise = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    torch.manual_seed(SEED)
    with torch.device(QUICK):
        denoiser = UNet2DConditionModel(**unet)
        vae = AutoencoderKL(
            **settings,
            layers_per_block=2,
            sample_size=8 * unet["sample_size"],
            scaling_factor=0.13025 if xl else 0.18215,
        )
        first = _text(CLIPTextModel, text, act)
        second = _text(CLIPTextModelWithProjection, _CLIP_G, "gelu") if xl else None
    return Parts(denoiser, vae, first, _tokenizer(77), noise, text_encoder_2=second)


def _sd15() -> Parts:
    return _published(_SD15, _CLIP_L, "quick_gelu")


def _sd15_controlnet() -> Parts:
    parts = _sd15()
    return replace(parts, control=ControlNetModel.from_unet(parts.unet))


def _sd21() -> Parts:
    return _published(_SD21, _CLIP_H, "gelu", "v_prediction")


def _sdxl() -> Parts:
    return _published(_SDXL, _CLIP_L, "quick_gelu")


_SMALL: dict[str, Any] = {
    "dtype": None,
    "steps": 15,
    "scheduler": "ddim",
    "learner": "small",
    "learner_size": 64,
    "batch": 16,
}
_SEGMENTER: dict[str, Any] = {
    "learner": "smp:deeplabv3plus/resnet50",
    "learner_size": 512,
    "recipes": ("demo_segmentation",),
}
SIZES: dict[str, Size] = {
    "toy": Size(
        lambda: _toy(False),
        **_SMALL | {"steps": 4, "cfg_scale": 2.0, "batch": 2},
        recipes=("demo",),
        batches=(1, 2),
    ),
    "toy-controlnet": Size(
        lambda: _toy(True),
        **_SMALL | {"steps": 4, "cfg_scale": 2.0, "batch": 2},
        recipes=("demo_segmentation",),
        batches=(1, 2),
    ),
    "embedded": Size(
        lambda: _embedded(LAND_COVER),
        prompt="a satellite photo of a forest",
        cfg_scale=2.0,
        **_SMALL,
        recipes=("demo", "eurosat"),
        batches=(1, 2, 4, 8, 16, 32, 64),
    ),
    "scenes": Size(
        lambda: _embedded(LAND_COVER_SCENES),
        prompt="a rendered scene of water and a forest",
        cfg_scale=2.0,
        **_SMALL,
        recipes=("demo_segmentation",),
        batches=(1, 2, 4, 8, 16, 32),
    ),
    "sd15": Size(_sd15),
    "sd15-controlnet": Size(_sd15_controlnet, **_SEGMENTER),
    "sd21": Size(_sd21, batch=4, batches=(1, 2, 4, 8, 16)),
    "sdxl": Size(_sdxl, batch=4, batches=(1, 2, 4, 8)),
}
