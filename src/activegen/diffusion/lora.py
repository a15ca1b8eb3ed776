"""LoRA: a small change of a model's attention layers, kept in a file of its own.

    W + scale B A

with A and B of a low rank. Files are diffusers' (what ``load_lora_weights`` reads: also those of
other trainers that it converts); layers are peft's. To draw, the change is added to the weights,
so it costs nothing.

Hu et al. (2021), https://arxiv.org/abs/2106.09685.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from activegen.records import UnknownWord, UserError

SUFFIX = ".safetensors"
FILE = f"pytorch_lora_weights{SUFFIX}"
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")  # of a denoiser's attention
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")  # of a text encoder's


@dataclass(frozen=True, eq=False)
class Lora:
    """A trained LoRA and how much of it to add.

    Args:
        weights: by their names in the file.
        scale: of the change; 0 is without it, 1 as it was trained.
        name: what to call it in provenance.
        content: names the file's bytes.
        file: where they are; it may say more, as alpha.
    """

    weights: Mapping[str, Tensor]
    scale: float = 1.0
    name: str = "unnamed"
    content: str = ""
    file: Path = Path(FILE)

    @classmethod
    def load(cls, path: str | Path, scale: float = 1.0) -> "Lora":
        """From a folder with one safetensors file, or the file.

        Raises:
            UserError: there is none, or it is no LoRA.
        """
        file = found(path)
        try:
            weights = load_file(file)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{file} holds no safetensors weights: {error}") from error
        if strange := [name for name in weights if "lora" not in name]:
            raise UserError(f"{file} is no LoRA: it has '{strange[0]}'")
        if file.suffix != SUFFIX:
            raise UserError(f"{file} is read by diffusers only if its name ends in {SUFFIX}")
        named = file.parent if file.name == FILE else file
        return cls(weights, scale, named.stem, content(file), file)

    def facts(self) -> dict[str, Any]:
        """What its effect depends on, for provenance."""
        return {"content": self.content, "scale": self.scale}


def found(path: str | Path) -> Path:
    """The weights' file at a path.

    Raises:
        UserError: there is none, or not one alone.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return place
    files = [place / FILE] if (place / FILE).is_file() else sorted(place.glob("*.safetensors"))
    if len(files) != 1:
        has = f"has {len(files)} safetensors files" if place.is_dir() else "is not there"
        raise UserError(f"model.lora: '{path}' {has}; give a folder with {FILE}, or a file")
    return files[0]


def content(path: str | Path) -> str:
    """Sixteen hex digits that name the bytes of a LoRA's file.

    Raises:
        UserError: as `found` does.
    """
    with found(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def fuse(lora: Lora, unet: Any, text_encoder: Any) -> None:
    """Adds it to the weights, in place; best in float32, where small changes are not rounded away.

    Raises:
        UserError: it was made for another model.
    """
    parts: Any = StableDiffusionPipeline(
        vae=None,  # pyright: ignore[reportArgumentType]
        text_encoder=text_encoder,
        tokenizer=None,  # pyright: ignore[reportArgumentType]
        unet=unet,
        scheduler=None,  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    try:
        with _silence():
            parts.load_lora_weights(
                lora.file.parent, weight_name=lora.file.name, local_files_only=True
            )
    except (ValueError, RuntimeError, KeyError, IndexError, TypeError) as error:
        first, *more = str(error).strip().splitlines()
        raise UserError(_unfit(lora, (more or [first])[0].strip())) from error
    given = sum(x.numel() for name, x in lora.weights.items() if not name.endswith("alpha"))
    taken = sum(x.numel() for part in (unet, text_encoder) for x in weights_of(part).values())
    if given != taken:
        raise UserError(_unfit(lora, f"of its {given} numbers {taken} have a place"))
    if lora.scale:
        parts.fuse_lora(lora_scale=lora.scale)
    parts.unload_lora_weights()


def add(network: Any, rank: int, targets: Sequence[str]) -> None:
    """An untrained one, whose weights alone are then trained; it changes nothing yet.

    A is Gaussian with spread 1 / rank, from torch's generator, B is 0, and the scale is 1.

    Args:
        network: a diffusers or transformers model.
        rank: of the change.
        targets: names, or ends of names, of the layers to change.

    Raises:
        UserError: there is no such layer, or one that cannot be changed.
    """
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            known = sorted({_end(name) for name in layers})
            raise UnknownWord("layer to adapt", target, known)
    network.add_adapter(
        LoraConfig(
            r=rank,
            lora_alpha=rank,
            init_lora_weights="gaussian",
            target_modules=list(targets),
        )
    )


def weights_of(network: Any) -> dict[str, Tensor]:
    """Of the LoRA in a network; none without one."""
    if not getattr(network, "peft_config", None):
        return {}
    adapter = next(iter(network.peft_config))
    return get_peft_model_state_dict(network, adapter_name=adapter, save_embedding_layers=False)


def save(folder: Path, unet: Any, text_encoder: Any) -> None:
    """Writes what the two have, as diffusers reads it, in float32."""
    unet_layers, text_layers = (
        {name: x.detach().cpu().float().contiguous() for name, x in weights_of(part).items()}
        for part in (unet, text_encoder)
    )
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers=unet_layers,  # pyright: ignore[reportArgumentType]
        text_encoder_lora_layers=text_layers,  # pyright: ignore[reportArgumentType]
    )


@contextmanager
def _silence() -> Iterator[None]:
    """The libraries tell at length what we say in one line."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _end(name: str) -> str:
    """The last word of a layer's name, and the one before a number."""
    words = name.split(".")
    return ".".join(words[-2:] if words[-1].isdigit() else words[-1:])


def _unfit(lora: Lora, why: str) -> str:
    return (
        f"the LoRA '{lora.name}' does not fit the model ({why}); take one that was trained for it"
    )
