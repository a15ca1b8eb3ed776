"""The embedded generator's parts, untrained, in diffusers' own classes; and its folder."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TOKENS = 32
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY_START = {BEGIN: 0, END: 1}


# diffusers annotates its models' settings as tuples of one; hence Any
def autoencoder() -> Any:
    """64 pixels to 8 by 8 by 8."""
    settings: dict[str, Any] = {
        "block_out_channels": (24, 48, 64, 96),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    return AutoencoderKL(
        **settings,
        latent_channels=8,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
    )


def denoiser(width: int) -> Any:
    """Two levels, 8 by 8 and 4 by 4, each with attention to the text."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(96, 112),
        attention_head_dim=4,
        cross_attention_dim=width,
        norm_num_groups=16,
    )


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


def text_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
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
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)


def text_encoder(tokenizer: CLIPTokenizer) -> Any:
    """An untrained one."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        projection_dim=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=VOCABULARY_START[BEGIN],
        eos_token_id=VOCABULARY_START[END],
        pad_token_id=VOCABULARY_START[END],
    )
    return CLIPTextModel._from_config(config, attn_implementation="eager")


def export(parts: dict[str, Any], tokenizer: Path, out: Path) -> None:
    """Writes the folder: float16 safetensors, tokenizer, scheduler, index and checksums."""
    for name, part in parts.items():
        part.half().save_pretrained(out / name, safe_serialization=True)
        part.float()
    CLIPTokenizer.from_pretrained(tokenizer, model_max_length=TOKENS).save_pretrained(
        out / "tokenizer"
    )
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
