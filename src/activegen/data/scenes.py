"""Real images with masks, decoded one at a time.

An image is uint8 RGB (3, h, w), its mask the class id of each pixel, uint8 (h, w), 255 ignored.
Masks that cannot be right are errors before anything learns from them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from jaxtyping import Int
from torch import Tensor

from activegen.data.images import (
    At,
    Encoded,
    Pixels,
    Readable,
    RealImages,
    UnreadableImage,
    tried,
)
from activegen.data.masks import EncodedMasks, Mask
from activegen.records import IGNORE, UserError

Scenes = TypeVar("Scenes", bound="RealScenes")


@dataclass(frozen=True)
class RealScenes(Readable):
    """Images of many classes, with a mask each.

    Args:
        name: of the data set, for messages and reports.
        classes: their names; an id in a mask is a position in it.
        ids: stable and unique names of the images.
        read: decodes the image at a position.
        read_mask: decodes its mask, of the same height and width.
        skipped: (id, reason) of the images that were left out because nothing can be learnt.
        read_reliability: how sure each pixel of a mask is, 255 = certain; None where all are.

    Raises:
        UserError: an id or a class is there twice, there is no class, or more than 255.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    read: Callable[[int], Pixels]
    read_mask: Callable[[int], Mask]
    skipped: tuple[tuple[str, str], ...] = ()
    read_reliability: Callable[[int], Mask] | None = None
    _counted: dict[str, tuple[int, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check what a reader promises."""
        self._check_names()
        if not 0 < len(self.classes) <= IGNORE:
            raise UserError(
                f"{self.name} has {len(self.classes)} classes; a mask has room for 1 to {IGNORE}, "
                "choose or join some"
            )

    def mask(self, index: int) -> Mask:
        """The mask at a position.

        Raises:
            UnreadableImage: it was not checked, or has changed since.
            UserError: a pixel is of no class.
        """
        return self.read_mask(range(len(self))[index])

    def target(self, index: int) -> Int[Tensor, "h w"]:
        """The mask at a position, for arithmetic."""
        return self.mask(index).long()

    def subset(self: Scenes, indices: Iterable[int]) -> Scenes:
        """The scenes at these positions, in this order; all classes are kept."""
        chosen = tuple(range(len(self))[index] for index in indices)
        some = replace(
            self,
            ids=tuple(self.ids[index] for index in chosen),
            read=At(self.read, chosen),
            read_mask=At(self.read_mask, chosen),
            read_reliability=self.read_reliability and At(self.read_reliability, chosen),
        )
        some._counted.update(self._counted)
        return some

    def pixels(self, index: int) -> tuple[int, ...]:
        """How many pixels of each class the mask at a position has; counted once."""
        id = self.ids[index]
        if id not in self._counted:
            counts = self.mask(index).flatten().bincount(minlength=len(self.classes))
            self._counted[id] = tuple(counts[: len(self.classes)].tolist())
        return self._counted[id]

    def by_class(self) -> dict[int, list[int]]:
        """The positions of the scenes with a pixel of each class; a scene is there for several."""
        positions: dict[int, list[int]] = {label: [] for label in range(len(self.classes))}
        for index in range(len(self)):
            for label, count in enumerate(self.pixels(index)):
                if count:
                    positions[label].append(index)
        return positions


Real = RealImages | RealScenes


def encoded_scenes(
    name: str,
    classes: Sequence[str],
    ids: Sequence[str],
    images: Callable[[int], bytes | Path],
    masks: EncodedMasks,
    strict: bool = False,
    reliability: Callable[[int], bytes | Path] | None = None,
) -> RealScenes:
    """Checked scenes of files or bytes.

    Raises:
        UserError: as `RealScenes` and `check_scenes` do.
    """
    read = Encoded(images, tuple(ids))
    known = None if reliability is None else Grey(Encoded(reliability, tuple(ids)))
    scenes = RealScenes(name, tuple(classes), tuple(ids), read, masks, read_reliability=known)
    return check_scenes(scenes, masks.names, strict)


@dataclass(frozen=True)
class Grey:
    """One channel of grey pictures."""

    read: Callable[[int], Pixels]

    def __call__(self, index: int) -> Mask:
        """(h, w)."""
        return self.read(index)[0]


def check_scenes(
    scenes: RealScenes, mask_names: Sequence[str] = (), strict: bool = False
) -> RealScenes:
    """The scenes that can be learnt from; the others are named in ``skipped``.

    All images and masks are decoded, however many there are. What cannot be read, and a mask of
    which all is ignored, is left out; what does not fit together is an error.

    Args:
        scenes: to check.
        mask_names: what to call the masks in messages; without, by the ids.
        strict: nothing is left out; it is an error.

    Raises:
        UserError: a mask has another size than its image, or a pixel of no class; nothing can be
            learnt from any scene, or from one if ``strict``.
    """
    names = mask_names or [f"the mask of {id}" for id in scenes.ids]

    def look(index: int) -> None:
        _, height, width = scenes.image(index).shape
        mask, classes = scenes.mask(index), len(scenes.classes)
        if mask.shape != (height, width):
            id, turn = scenes.ids[index], ""
            if mask.shape == (width, height):
                turn = f"; if {id} is turned by its EXIF orientation, turn the mask too or remove "
                turn += "the tag"
            raise UserError(
                f"{id} has {width} x {height} pixels, but {names[index]} has {mask.shape[1]} x "
                f"{mask.shape[0]}; give each image a mask of its own size{turn}"
            )
        strange = mask.flatten().bincount(minlength=IGNORE)[classes:IGNORE].nonzero()
        if len(strange):
            raise UserError(
                f"{names[index]} has the id {classes + int(strange[0])}, and there are {classes} "
                f"classes; ids go from 0 to {classes - 1}, and {IGNORE} is ignored"
            )
        if scenes.read_reliability and scenes.read_reliability(index).shape != mask.shape:
            raise UserError(f"{names[index]} and its reliability differ in size")
        if not any(scenes.pixels(index)):
            raise UnreadableImage(f"{names[index]} has no pixel of a class; all are ignored")

    good, bad = tried(scenes, look, strict)
    if not good:
        why = f": {bad[0][1]}" if bad else ""
        raise UserError(f"{scenes.name} has no image with a mask{why}. Add some")
    told = replace(scenes, skipped=(*scenes.skipped, *bad))
    told._counted.update(scenes._counted)
    return told.subset(good)
