"""Augmentations by name, for whole batches of images in 0..1, and of masks, on their device.

The transforms are torchvision's, which draw their random numbers once per call. Flips and turns
are drawn per image over the whole batch, erasing is called per image, a crop is shared by two
neighbours and a colour jitter by four, so that a CPU core keeps up with a small network. A mask
is moved with its image, by the nearest pixel; what an image has lost is ignored in its mask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Integer, UInt8
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import Mask

from activegen.records import IGNORE, Images, choose
from activegen.tasks.seeding import seeded

Views = tuple[Tensor, ...]  # images (b, 3, h, w), and masks and maps (b, h, w) where there are some


@runtime_checkable
class Change(Protocol):
    """One kind of change, drawn from torch's global generator."""

    def __call__(self, views: Views, /) -> Views:
        """The changed batch."""
        ...


@dataclass(frozen=True)
class Sometimes:
    """Apply ``change`` to each image with this probability, all of the chosen at once."""

    probability: float
    change: Callable[[Tensor], Tensor]

    def __call__(self, views: Views, /) -> Views:
        """The batch with some images changed."""
        chosen = (torch.rand(len(views[0]), 1, 1, 1) < self.probability).to(views[0].device)
        return tuple(
            torch.where(chosen.view(-1, *(1,) * (view.ndim - 1)), self.change(view), view)
            for view in views
        )


@dataclass(frozen=True)
class PerGroup:
    """Call a torchvision transform, made for the image size, on every ``group`` neighbours."""

    make: Callable[[tuple[int, int]], Callable[[Any], Any]]
    group: int = 1

    def __call__(self, views: Views, /) -> Views:
        """The changed batch."""
        height, width = views[0].shape[-2:]
        transform = self.make((height, width))
        groups = zip(*(view.split(self.group) for view in views), strict=True)
        changed = [transform((images, *map(Mask, masks))) for images, *masks in groups]
        return tuple(torch.cat(parts) for parts in zip(*changed, strict=True))


@dataclass(frozen=True)
class Augmentation:
    """Changes, made one after the other."""

    changes: tuple[Change, ...] = ()

    def __call__(self, images: Images, seed: int, step: int) -> Images:
        """Augmented images in 0..1; the same seed and step give the same ones."""
        return self._changed((images,), seed, step)[0].clamp(0, 1)

    def joint(
        self,
        images: Images,
        target: Integer[Tensor, "b *space"],
        seed: int,
        step: int,
        *beside: UInt8[Tensor, "b h w"],
    ) -> tuple[Tensor, ...]:
        """The same, and masks moved with their images; classes stay as they are.

        Args:
            images: in 0..1.
            target: classes, or masks of them.
            seed, step: of the randomness.
            beside: more maps that lie on the masks; they come back behind them. Where the image
                has lost something they hold any value: there the mask is ignored.
        """
        if target.ndim == 1:
            return self(images, seed, step), target
        changed, *masks = self._changed((images, target, *beside), seed, step)
        return changed.clamp(0, 1), *masks

    def _changed(self, views: Views, seed: int, step: int) -> Views:
        with seeded(seed, "augment", step):
            for change in self.changes:
                views = change(views)
        return views


class _Crop(v2.RandomResizedCrop):
    """A piece of this share of the area at least, of the image's proportions up to 3/4 and 4/3.

    Differs from torchvision, whose pieces have proportions of 3/4 to 4/3 whatever the image has and
    stretch one that is not square; and which takes masks by a rule that moves them up and left by
    half a pixel.
    """

    def __init__(self, size: tuple[int, int], smallest: float):
        own = size[1] / size[0]
        super().__init__(size, (smallest, 1.0), (3 / 4 * own, 4 / 3 * own), antialias=True)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, Mask):
            return super().transform(inpt, params)
        mask, size = inpt.as_subclass(Tensor), cast(list[int], self.size)
        nearest = v2.InterpolationMode.NEAREST_EXACT
        return functional.resized_crop(mask, **params, size=size, interpolation=nearest)


class _Erase(v2.RandomErasing):
    """torchvision leaves masks as they are, which would ask for what cannot be seen."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, Mask):
            return super().transform(inpt, params)
        mask, hidden = inpt.as_subclass(Tensor).clone(), params["v"] is not None
        top, left = params["i"], params["j"]
        if hidden:
            mask[..., top : top + params["h"], left : left + params["w"]] = IGNORE
        return mask


def _quarter_turn(view: Tensor) -> Tensor:
    square = view.shape[-1] == view.shape[-2]
    return view.rot90(1, (-2, -1)) if square else view


def _crop(smallest: float) -> Change:
    return PerGroup(lambda size: _Crop(size, smallest), group=2)


def _zoom(smallest: float, largest: float) -> Change:
    """Up to this much larger, or smaller with grey around: parts of the area before and after."""
    fill = {Mask: IGNORE, "others": 0.5}
    return PerGroup(
        lambda size: v2.Compose(
            [
                v2.RandomZoomOut(fill, (1.0, largest), p=0.5),
                _Crop(size, smallest),
            ]
        ),
        group=2,
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
    "land_cover_strong": Augmentation(
        (LEFT_RIGHT, UP_DOWN, TURN, _crop(0.35), _jitter(0.3), PerGroup(lambda _: _Erase(0.25)))
    ),
    "photo": Augmentation((LEFT_RIGHT, _crop(0.7), _jitter(0.3), PerGroup(lambda _: _Erase(0.25)))),
    "street": Augmentation((LEFT_RIGHT, _zoom(0.25, 1.5), _jitter(0.3))),
}


def augmentation(name: str) -> Augmentation:
    """The augmentation of that name.

    Raises:
        UnknownWord: there is none of that name.
    """
    return choose(AUGMENTATIONS, name, "augmentation")
