"""The embedded generators' parts, untrained, in diffusers' own classes; and their folders."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY_START = {BEGIN: 0, END: 1}


@dataclass(frozen=True)
class Architecture:
    """Sizes of one generator for pictures of 64 pixels.

    Args:
        latents: channels and side.
        autoencoder: widths of its levels; each but the first halves the picture.
        denoiser: widths of its levels, each with attention to the text.
        tokens: that a prompt may have.
    """

    latents: tuple[int, int]
    autoencoder: tuple[int, ...]
    denoiser: tuple[int, ...]
    tokens: int


TILES = Architecture((8, 8), (24, 48, 64, 96), (96, 112), 32)
# masks need finer latents than a picture of one class, and prompts that list classes are longer
SCENES = Architecture((4, 16), (24, 48, 64), (64, 96, 96), 48)


# diffusers annotates its models' settings as tuples of one; hence Any
def autoencoder(of: Architecture) -> Any:
    """Without attention."""
    settings: dict[str, Any] = {
        "block_out_channels": of.autoencoder,
        "down_block_types": ("DownEncoderBlock2D",) * len(of.autoencoder),
        "up_block_types": ("UpDecoderBlock2D",) * len(of.autoencoder),
    }
    return AutoencoderKL(
        **settings,
        latent_channels=of.latents[0],
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
    )


def denoiser(of: Architecture, width: int) -> Any:
    """Reads text states of this width."""
    settings: dict[str, Any] = {
        "down_block_types": ("CrossAttnDownBlock2D",) * len(of.denoiser),
        "up_block_types": ("CrossAttnUpBlock2D",) * len(of.denoiser),
        "block_out_channels": of.denoiser,
    }
    channels, side = of.latents
    return UNet2DConditionModel(
        **settings,
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=width,
        norm_num_groups=16,
    )


def control(of: Architecture, unet: Any) -> Any:
    """From a picture of a mask to what the denoiser adds to its features."""
    halvings = len(of.autoencoder) - 1
    settings: dict[str, Any] = {
        "conditioning_embedding_out_channels": (16, 32, 64, 96)[: halvings + 1]
    }
    return ControlNetModel.from_unet(unet, load_weights_from_unet=False, **settings)


def noise_schedule() -> DDIMScheduler:
    """Stable Diffusion's noise levels, predicting v."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def text_tokenizer(captions: Iterable[str], length: int) -> CLIPTokenizer:
    """CLIP's byte-pair tokenizer with a small vocabulary, learned on the captions.

    Every byte is a token, inside and at the end of a word, so any text can be written.
    """
    learner: Any = CLIPTokenizer(vocab=VOCABULARY_START, merges=[]).backend_tokenizer
    alphabet = sorted(ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=1024,
        special_tokens=[BEGIN, END],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(sorted(set(captions)), trainer)
    learned = json.loads(learner.to_str())["model"]
    tokens = sorted(learned["vocab"], key=learned["vocab"].get)
    tokens += [byte + "</w>" for byte in alphabet if byte + "</w>" not in learned["vocab"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges: Any = [tuple(merge) for merge in learned["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def text_encoder(tokenizer: CLIPTokenizer) -> Any:
    """An untrained one."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        projection_dim=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=VOCABULARY_START[BEGIN],
        eos_token_id=VOCABULARY_START[END],
        pad_token_id=VOCABULARY_START[END],
    )
    return CLIPTextModel._from_config(config, attn_implementation="eager")


def export(parts: dict[str, Any], tokenizer: CLIPTokenizer, out: Path) -> None:
    """Writes the folder: float16 safetensors, tokenizer, scheduler, index and checksums."""
    for name, part in parts.items():
        part.half().save_pretrained(out / name, safe_serialization=True)
        part.float()
    tokenizer.save_pretrained(out / "tokenizer")
    noise_schedule().save_pretrained(out / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    weights = sorted(out.rglob("*.safetensors"))
    sums = {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in weights}
    (out / "checksums.json").write_text(json.dumps(sums, indent=2) + "\n")
