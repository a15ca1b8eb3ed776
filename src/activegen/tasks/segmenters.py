"""Segmenters by name: our small one, those of two libraries, or the user's own by import path."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import transformers
from jaxtyping import Float
from torch import Tensor, nn

from activegen.records import Images, UnknownWord, UserError, choose
from activegen.tasks.networks import imported, known_to_timm
from activegen.tasks.segmenter import Segmenter
from activegen.tasks.unet import SmallUNet

KNOWN = (
    "small",
    "smp:<architecture>/<encoder>",
    "transformers:<segformer or upernet>[/<size or path>]",
    "<module>:<factory>",
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
TIMM = "tu-"  # how segmentation-models-pytorch marks encoders of timm


@dataclass(frozen=True)
class _Size:
    """Of a backbone with four stages.

    Args:
        depths: blocks in each.
        widths: channels in each.
        head: channels of the decoder.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    head: int


# MiT-B0 to B5 of Xie et al. (2021), https://arxiv.org/abs/2105.15203
SEGFORMER = {
    "b0": _Size((2, 2, 2, 2), (32, 64, 160, 256), 256),
    "b1": _Size((2, 2, 2, 2), (64, 128, 320, 512), 256),
    "b2": _Size((3, 4, 6, 3), (64, 128, 320, 512), 768),
    "b3": _Size((3, 4, 18, 3), (64, 128, 320, 512), 768),
    "b4": _Size((3, 8, 27, 3), (64, 128, 320, 512), 768),
    "b5": _Size((3, 6, 40, 3), (64, 128, 320, 512), 768),
}
# ConvNeXt-T, S and B of Liu et al. (2022), https://arxiv.org/abs/2201.03545
UPERNET = {
    "tiny": _Size((3, 3, 9, 3), (96, 192, 384, 768), 512),
    "small": _Size((3, 3, 27, 3), (96, 192, 384, 768), 512),
    "base": _Size((3, 3, 27, 3), (128, 256, 512, 1024), 512),
}


def build_segmenter(
    name: str, classes: int, size: int | tuple[int, int] | None, pretrained: bool = False
) -> Segmenter:
    """The segmenter of that name, in training mode.

    New weights are drawn from torch's global generator: seed it, best in
    :func:`activegen.tasks.seeding.seeded`.

    Args:
        name: "small" (0.55 M parameters, made for 64 pixels);
            "smp:<architecture>/<encoder>" of segmentation-models-pytorch, whose encoders are also
            timm's as "tu-<model>"; "transformers:segformer" with a size "/b0" (the default) to
            "/b5", or "transformers:upernet" on a ConvNeXt "/tiny" (the default), "/small" or
            "/base", both also with the path of a JSON config or a folder; or
            "<module>:<factory>", a function that is called with the number of classes and gives a
            network for images in 0..1 whose sides are multiples of 32 (or a whole
            :class:`Segmenter`).
        classes: number of classes.
        size: height and width that images are resized to first, in pixels; None leaves them.
        pretrained: for "smp:...", start from an encoder of ImageNet; for "transformers:...", from
            the weights in the folder that is named.

    Raises:
        UserError: the network cannot be found, made, or does not give a map for each class.
    """
    sides = (size, size) if isinstance(size, int) else size
    family, _, rest = name.partition(":")
    if pretrained and family not in ("smp", "transformers"):
        raise UserError(f"the network '{name}' has no pretrained weights; set pretrained to false")
    if name == "small":
        small = SmallUNet(classes)
        return Segmenter(small, classes, sides, (0.5,) * 3, (0.25,) * 3, small.multiple)
    if not rest:
        raise UnknownWord("segmenter", name, KNOWN)
    if family == "smp":
        return _from_smp(rest, classes, sides, pretrained)
    if family == "transformers":
        return Segmenter(_from_transformers(rest, classes, pretrained), classes, sides, MEAN, STD)
    made = imported(family, rest, classes)
    return made if isinstance(made, Segmenter) else Segmenter(made, classes, sides)


def _from_smp(name: str, classes: int, size: tuple[int, int] | None, pretrained: bool) -> Segmenter:
    architecture, _, encoder = name.partition("/")
    choose(smp.MODEL_ARCHITECTURES_MAPPING, architecture, "architecture")
    if encoder.startswith(TIMM):
        known_to_timm(encoder.removeprefix(TIMM))
    else:
        choose(smp.encoders.encoders, encoder, f"encoder (or '{TIMM}' and a timm model)")
    weights: Any = None
    if pretrained:
        weights = True if encoder.startswith(TIMM) else "imagenet"
    mean, std = MEAN, STD
    try:
        network = smp.create_model(architecture, encoder, weights, classes=classes)
        if pretrained:
            wanted = smp.encoders.get_preprocessing_params(encoder)
            mean, std = wanted["mean"], wanted["std"]
    except (RuntimeError, OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"segmentation-models-pytorch could not make '{name}': {error}; without a network "
            "connection, set pretrained to false; if they do not fit together, take another "
            "encoder"
        ) from error
    return Segmenter(network, classes, size, mean, std)


class _Logits(nn.Module):
    """A model of transformers that gives its logits alone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Images) -> Float[Tensor, "b classes rows columns"]:
        return self.model(pixel_values=images).logits


def _from_transformers(name: str, classes: int, pretrained: bool) -> nn.Module:
    family, _, which = name.partition("/")
    make, sizes = choose(FAMILIES, family, "transformers segmenter")
    which = which or next(iter(sizes))
    path = Path(which)
    if pretrained and not path.is_dir():
        raise UserError(
            f"pretrained weights come from a local folder: name it 'transformers:{family}/<folder>'"
            f", or set pretrained to false; got '{which}'"
        )
    auto = transformers.AutoModelForSemanticSegmentation
    try:
        known = which in sizes or not path.exists()
        config = (
            make(choose(sizes, which, f"size or local path of {family}"))
            if known and not pretrained
            else _read(path, family)
        )
        config.num_labels = classes
        config.use_auxiliary_head = False  # of UPerNet: nothing here would train it
        model = (
            auto.from_pretrained(
                path,
                config=config,
                ignore_mismatched_sizes=True,
                local_files_only=True,
                use_safetensors=True,
            )
            if pretrained
            else auto.from_config(config)
        )
    except (RuntimeError, OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"transformers could not make '{name}': {error}") from error
    return _Logits(model)


def _segformer(size: _Size) -> Any:
    depths, widths = list(size.depths), list(size.widths)
    return transformers.SegformerConfig(
        depths=depths, hidden_sizes=widths, decoder_hidden_size=size.head
    )


def _upernet(size: _Size) -> Any:
    backbone = {
        "model_type": "convnext",
        "depths": list(size.depths),
        "hidden_sizes": list(size.widths),
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    return transformers.UperNetConfig(backbone_config=backbone, hidden_size=size.head)


FAMILIES: dict[str, tuple[Callable[[_Size], Any], dict[str, _Size]]] = {
    "segformer": (_segformer, SEGFORMER),
    "upernet": (_upernet, UPERNET),
}


def _read(path: Path, family: str) -> Any:
    file = path / "config.json" if path.is_dir() else path
    values = json.loads(file.read_text())
    found = values.get("model_type")
    if found != family:
        raise UserError(f"'{file}' is of the model type '{found}', not '{family}'")
    return transformers.AutoConfig.for_model(**values)
