"""Augmentations by name, for whole batches of images in 0..1 on their device.

The transforms are torchvision's, which draw their random numbers once per call. Flips and turns
are drawn per image over the whole batch, erasing is called per image, a crop is shared by two
neighbours and a colour jitter by four, so that a CPU core keeps up with a small network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from activegen.records import Images, choose
from activegen.tasks.seeding import seeded


@runtime_checkable
class Change(Protocol):
    """One kind of change, drawn from torch's global generator."""

    def __call__(self, images: Images, /) -> Images:
        """The changed batch."""
        ...


@dataclass(frozen=True)
class Sometimes:
    """Apply ``change`` to each image with this probability, all of the chosen at once."""

    probability: float
    change: Callable[[Tensor], Tensor]

    def __call__(self, images: Images, /) -> Images:
        """The batch with some images changed."""
        chosen = torch.rand(len(images), 1, 1, 1) < self.probability
        return torch.where(chosen.to(images.device), self.change(images), images)


@dataclass(frozen=True)
class PerGroup:
    """Call a torchvision transform, made for the image size, on every ``group`` neighbours."""

    make: Callable[[tuple[int, int]], Callable[[Tensor], Tensor]]
    group: int = 1

    def __call__(self, images: Images, /) -> Images:
        """The changed batch."""
        height, width = images.shape[-2:]
        transform = self.make((height, width))
        return torch.cat([transform(group) for group in images.split(self.group)])


@dataclass(frozen=True)
class Augmentation:
    """Changes, made one after the other."""

    changes: tuple[Change, ...] = ()

    def __call__(self, images: Images, seed: int, step: int) -> Images:
        """Augmented images in 0..1; the same seed and step give the same ones."""
        with seeded(seed, "augment", step):
            for change in self.changes:
                images = change(images)
        return images.clamp(0, 1)


def _quarter_turn(images: Tensor) -> Tensor:
    square = images.shape[-1] == images.shape[-2]
    return images.rot90(1, (-2, -1)) if square else images


def _crop(smallest: float) -> Change:
    return PerGroup(
        lambda size: v2.RandomResizedCrop(size, (smallest, 1.0), antialias=True), group=2
    )


def _jitter(strength: float) -> Change:
    return PerGroup(lambda _: v2.ColorJitter(strength, strength, strength), group=4)


LEFT_RIGHT = Sometimes(0.5, functional.horizontal_flip)
UP_DOWN = Sometimes(0.5, functional.vertical_flip)
TURN = Sometimes(0.5, _quarter_turn)  # with both flips: all eight views of a square from above

AUGMENTATIONS: dict[str, Augmentation] = {
    "none": Augmentation(),
    "flips": Augmentation((LEFT_RIGHT, UP_DOWN)),
    "land_cover": Augmentation((LEFT_RIGHT, UP_DOWN, TURN, _crop(0.7), _jitter(0.15))),
    "photo": Augmentation(
        (LEFT_RIGHT, _crop(0.7), _jitter(0.3), PerGroup(lambda _: v2.RandomErasing(0.25)))
    ),
}


def augmentation(name: str) -> Augmentation:
    """The augmentation of that name.

    Raises:
        UnknownWord: there is none of that name.
    """
    return choose(AUGMENTATIONS, name, "augmentation")
