"""Classifiers by name: our small one, any of timm's, or the user's own by import path."""

import difflib
import importlib
import os
import sys
from typing import Any

import timm
import timm.data
import torch
from jaxtyping import Float
from torch import Tensor, nn

from activegen.records import UnknownWord, UserError
from activegen.tasks.classifier import Classifier

KNOWN = ("small", "timm:<model>", "<module>:<factory>")
ELSEWHERE = ("local-dir:", "hf-hub:")  # timm's own words for models that are not in its list


def build(name: str, classes: int, size: int, pretrained: bool = False) -> Classifier:
    """The classifier of that name, for images of ``size`` pixels, in training mode.

    New weights are drawn from torch's global generator: seed it, best in
    :func:`activegen.tasks.seeding.seeded`.

    Args:
        name: "small" (0.55 M parameters, made for 64 pixels), "timm:<model>", or
            "<module>:<factory>", a function that is called with the number of classes and gives a
            network for images in 0..1 (or a whole :class:`Classifier`).
        classes: number of classes.
        size: height and width of the images that the network sees, in pixels.
        pretrained: start from timm's weights; only for "timm:...".

    Raises:
        UserError: the network cannot be found, made, or does not give one logit per class.
    """
    family, _, rest = name.partition(":")
    if pretrained and family != "timm":
        raise UserError(f"the network '{name}' has no pretrained weights; set pretrained to false")
    if name == "small":
        return Classifier(_Small(classes), classes, (size, size), (0.5,) * 3, (0.25,) * 3)
    if not rest:
        raise UnknownWord("network", name, KNOWN)
    if family == "timm":
        return _from_timm(rest, classes, size, pretrained)
    made = imported(family, rest, classes)
    return made if isinstance(made, Classifier) else Classifier(made, classes, (size, size))


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return nn.functional.relu(x + self.norm(self.convolution(x)))


def _halve(inputs: int, outputs: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class _Small(nn.Sequential):
    """Four strided convolutions and a residual one: quick on a CPU core, sees 64 pixels whole."""

    def __init__(self, classes: int, dropout: float = 0.1):
        super().__init__(
            *_halve(3, 24),
            *_halve(24, 48),
            *_halve(48, 96),
            *_halve(96, 192),
            _Residual(192),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(192, classes),
        )
        self.to(memory_format=torch.channels_last)  # a tenth to a quarter faster on a CPU

    def forward(self, input: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        return super().forward(input.contiguous(memory_format=torch.channels_last))


def _from_timm(model: str, classes: int, size: int, pretrained: bool) -> Classifier:
    if not model.startswith(ELSEWHERE):
        known_to_timm(model)
    known = timm.get_pretrained_cfg(model, allow_unregistered=True)
    fixed: dict[str, Any] = (
        {"img_size": size} if known is not None and known.fixed_input_size else {}
    )
    try:
        network = timm.create_model(model, pretrained=pretrained, num_classes=classes, **fixed)
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        raise UserError(
            f"timm could not make '{model}': {error}; without a network connection, set "
            "pretrained to false or name a local folder: 'timm:local-dir:<folder>'"
        ) from error
    data = timm.data.resolve_model_data_config(network)
    return Classifier(network, classes, (size, size), data["mean"], data["std"])


def known_to_timm(model: str) -> None:
    """See that timm has a model of that name.

    Raises:
        UnknownWord: it has not; names that are near are told.
    """
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=8, cutoff=0.5)
        raise UnknownWord("timm model (the nearest are shown)", model, near or ["resnet18"])


def imported(module: str, factory: str, classes: int) -> nn.Module:
    """What a function of the user gives for this number of classes.

    Raises:
        UserError: there is no such function, or it gives something else than a module.
    """
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        make = getattr(importlib.import_module(module), factory)
    except ImportError as error:
        raise UserError(
            f"cannot import '{module}': {error}; install it, or start from the folder it is in "
            "(the current directory is on the import path)"
        ) from error
    except AttributeError as error:
        raise UserError(
            f"the module '{module}' has no '{factory}'; name a function that is called with the "
            "number of classes and gives a torch.nn.Module"
        ) from error
    made = make(classes)
    if not isinstance(made, nn.Module):
        raise UserError(
            f"'{module}:{factory}' gave a {type(made).__name__}; it must give a torch.nn.Module"
        )
    return made
