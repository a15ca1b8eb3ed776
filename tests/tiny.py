"""Real diffusers parts at toy size, built from config with fixed seeds; nothing is downloaded.

model = tiny.model(prediction="v_prediction", latent_size=8)
pipeline = tiny.pipeline(model, scheduler)
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from activegen.diffusion.control import Control
from activegen.diffusion.sampling import Batch, Sampling, seeded
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.diffusion.stable_diffusion_xl import StableDiffusionXL

WHOLE = ("a", "photo", "of", "forest", "river", "table", "tv", "fish")  # the rest are letters
WIDTH = 32
WIDTH_2, POOLED = 48, 24  # of the second text encoder of SDXL
XL: dict[str, Any] = {  # text attention at the two lower resolutions only, as SDXL has it
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "block_out_channels": (16, 32, 32),
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (2, 4, 4),
    "cross_attention_dim": WIDTH + WIDTH_2,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + POOLED,
    "norm_num_groups": 8,
}


def tokenizer(tokens: int = 77) -> CLIPTokenizer:
    """A byte-pair tokenizer that knows the words of WHOLE and spells all others by letter."""
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = letters + [letter + "</w>" for letter in letters]
    merges = []
    for word in WHOLE:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pair, pieces = pieces[:2], ["".join(pieces[:2]), *pieces[2:]]
            if pieces[0] not in vocabulary:
                vocabulary.append(pieces[0])
                merges.append(" ".join(pair))
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        numbers = {token: i for i, token in enumerate(vocabulary)}
        Path(folder, "vocab.json").write_text(json.dumps(numbers))
        Path(folder, "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=tokens)


def noise_schedule(prediction: str = "epsilon", **changes: object) -> DDIMScheduler:
    """Stable Diffusion's noise levels."""
    settings = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": prediction,
        "timestep_spacing": "trailing",
        "clip_sample": False,
        "set_alpha_to_one": False,
    }
    return DDIMScheduler(**(settings | changes))


def model(
    prediction: str = "epsilon",
    latent_size: int = 8,
    tokens: int = 77,
    attention_size: int | None = None,
    channels: int = 4,
    controls: Sequence[Control] = (),
    size: tuple[int, int] | None = None,
) -> StableDiffusion:
    """Two levels with text attention in both; pictures have twice the latents' side.

    With 9 channels it inpaints.
    """
    words = tokenizer(tokens)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=latent_size,
            in_channels=channels,
            out_channels=4,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(16, 32),
            attention_head_dim=2,
            cross_attention_dim=WIDTH,
            norm_num_groups=8,
        )
        vae = autoencoder(latent_size)
        text_encoder = CLIPTextModel(text_config(words))
    make_text_matter(unet)
    schedule = noise_schedule(prediction)
    return StableDiffusion(
        unet,
        vae,
        text_encoder,
        words,
        schedule,
        "tiny",
        attention_size=attention_size,
        controls=controls,
        size=size,
    )


def autoencoder(latent_size: int, **changes: Any) -> AutoencoderKL:
    """Pictures have twice the latents' side."""
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=2 * latent_size,
        **changes,
    )


def text_config(
    words: CLIPTokenizer, width: int = WIDTH, layers: int = 1, pooled: int = WIDTH
) -> CLIPTextConfig:
    """Of a text encoder for this tokenizer."""
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=pooled,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=words.model_max_length,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )


def make_text_matter(unet: UNet2DConditionModel) -> None:
    """More of it, and pictures that stay in range under strong guidance."""
    for name, parameter in unet.named_parameters():
        if "attn2.to_q" in name or "attn2.to_v" in name or "attn2.to_out.0.weight" in name:
            parameter.data *= 4
        if "conv_out" in name:
            parameter.data /= 4


def xl(
    prediction: str = "epsilon",
    latent_size: int = 16,
    channels: int = 4,
    controls: Sequence[Control] = (),
    size: tuple[int, int] | None = None,
    zeros: bool = True,
) -> StableDiffusionXL:
    """SDXL's layout: three levels, the finest without text; two text encoders."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=latent_size,
            in_channels=channels,
            out_channels=4,
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            **XL,
        )
        vae = autoencoder(latent_size)
        first, second = tokenizer(), tokenizer()
        second.pad_token = "!"
        text_encoder = CLIPTextModel(text_config(first, layers=2))
        text_encoder_2 = CLIPTextModelWithProjection(text_config(second, WIDTH_2, 2, POOLED))
    make_text_matter(unet)
    for parameter in unet.add_embedding.parameters():
        parameter.data *= 4
    return StableDiffusionXL(
        unet,
        vae,
        text_encoder,
        text_encoder_2,
        first,
        second,
        noise_schedule(prediction),
        "tiny",
        controls=controls,
        size=size,
        zeros=zeros,
    )


def xl_parts(model: StableDiffusionXL, scheduler: object = None) -> dict[str, Any]:
    """For diffusers' pipelines of the same parts."""
    return {
        "vae": model.vae,
        "text_encoder": model.text_encoder,
        "text_encoder_2": model.text_encoder_2,
        "tokenizer": model.tokenizer,
        "tokenizer_2": model.tokenizer_2,
        "unet": model.unet,
        "scheduler": scheduler or model.scheduler,
        "force_zeros_for_empty_prompt": model.zeros,
        "add_watermarker": False,
    }


def save_xl(model: StableDiffusionXL, folder: Path) -> Path:
    """As diffusers' own pipeline saves itself."""
    StableDiffusionXLPipeline(**xl_parts(model)).save_pretrained(folder)
    return folder


def controlnet(seed: int = 2, **changes: Any) -> ControlNetModel:
    """One that fits `model`, with weights where a new one has zeros."""
    settings = {
        "in_channels": 4,
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "block_out_channels": (16, 32),
        "attention_head_dim": 2,
        "cross_attention_dim": WIDTH,
        "norm_num_groups": 8,
        "conditioning_embedding_out_channels": (8, 16),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = ControlNetModel(**(settings | changes))
        for name, parameter in net.named_parameters():
            if "controlnet" in name and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return net


def pipeline(model: StableDiffusion, scheduler: object = None) -> StableDiffusionPipeline:
    """Diffusers' own pipeline of the same parts."""
    made = StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=scheduler or model.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def save(model: StableDiffusion, folder: Path, safe: bool = True) -> Path:
    """Diffusers' folder layout; with ``safe`` False the weights are pickles."""
    for name in ("unet", "vae", "text_encoder"):
        getattr(model, name).save_pretrained(folder / name)
        if not safe:
            (weights,) = (folder / name).glob("*.safetensors")
            torch.save(getattr(model, name).state_dict(), pickle_path(name, folder))
            weights.unlink()
    model.tokenizer.save_pretrained(folder / "tokenizer")
    model.scheduler.save_pretrained(folder / "scheduler")
    return folder


def pickle_path(name: str, folder: Path) -> Path:
    """Where the libraries look for pickled weights."""
    kind = "pytorch_model.bin" if name == "text_encoder" else "diffusion_pytorch_model.bin"
    return folder / name / kind


def autoencoder_tiny() -> AutoencoderTiny:
    """Half the pictures' side, four channels."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            latent_channels=4,
        )


def batch(
    model: StableDiffusion,
    words: list[str],
    seeds: list[int] | None = None,
    sampling: Sampling | None = None,
    reference: torch.Tensor | None = None,
) -> Batch:
    """One image of each word: "a photo of <word>"."""
    sampling = sampling or Sampling(num_steps=4)
    seeds = list(range(len(words))) if seeds is None else seeds
    noise, rngs = seeded(seeds, model.noise_shape)
    prompts = [f"a photo of {word}" for word in words]
    conditioning = model.condition(prompts, words, sampling.negative_prompt)
    target = torch.arange(len(words))
    return Batch(model, sampling, noise, rngs, conditioning, target, reference)
