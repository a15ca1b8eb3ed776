"""Masks as files hold them: class ids as grey, as a place in a palette, or as a colour in RGB.

Pixels are looked up one by one and never interpolated: what is read is a class id or 255.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from activegen.data.images import called, listed, opened
from activegen.records import IGNORE, UserError, choose

Mask = UInt8[Tensor, "h w"]  # class ids; 255 is ignored
Colour = tuple[int, int, int]  # RGB, 0 to 255

SPREAD = {"L;2": 85, "L;4": 17}  # Pillow spreads grey of two and four bits over 0 to 255


@dataclass(frozen=True)
class Coding:
    """What the pixels of encoded masks mean.

    Args:
        ids: the class id, or 255, of each number that a grey or palette mask may hold.
        colours: the same for each colour of a mask in RGB; without ``ids``, of every mask.
        mend: what to do about a pixel that means nothing, for messages.
    """

    ids: Mapping[int, int]
    colours: Mapping[Colour, int]
    mend: str = "mend the mask"


@dataclass(frozen=True)
class EncodedMasks:
    """Reads masks from encoded bytes or files.

    Args:
        source: the file or the bytes at a position.
        names: what to call the masks in messages.
        coding: what their pixels mean.
    """

    source: Callable[[int], bytes | Path]
    names: tuple[str, ...]
    coding: Coding

    def __call__(self, index: int) -> Mask:
        """Decode the mask at a position."""
        return decode_mask(self.source(index), self.coding, self.names[index])


def decode_mask(data: bytes | Path, coding: Coding, name: str = "") -> Mask:
    """An encoded mask as class ids; 255 is ignored.

    Grey may have 1 to 16 bits and is taken as it was written; a palette gives places, not colours.
    Transparency says nothing. RGB that is grey in all pixels is grey, unless there are colours.

    Args:
        data: PNG, TIFF, BMP, GIF, ... bytes, or the path of a file.
        coding: what its pixels mean.
        name: for messages; of a file, its path will do.

    Raises:
        UnreadableImage: as `images.decode` does.
        UserError: a pixel means nothing, or the mask is a JPEG, a picture whose colours nobody
            explains, or holds floating-point numbers.
    """
    name = name or called(data)
    with opened(data, name) as picture:
        if picture.format == "JPEG":
            raise UserError(f"{name} is a JPEG, which blurs its ids; save masks as PNG")
        raw = _raw_mode(picture)
        picture = ImageOps.exif_transpose(picture)
        if ";16" in raw and not picture.mode.startswith("I"):
            raise UserError(f"{name} has 16 bits in each of several channels; save it with 8 bits")
        if picture.mode in ("LA", "PA"):
            picture = picture.getchannel(0)
        if picture.mode in ("L", "P", "1", "I") or picture.mode.startswith("I;16"):
            if coding.ids:
                return _meant(_numbers(picture, raw), coding.ids, name, coding.mend, False)
            if picture.mode.startswith("I"):
                raise UserError(f"{name} has no colours but numbers; give ids, not colours")
        elif picture.mode not in ("RGB", "RGBA", "RGBX"):
            raise UserError(f"{name} is of kind {picture.mode}, no mask; save it as a PNG")
        red, green, blue, _ = np.moveaxis(np.array(picture.convert("RGBA")).astype(np.int32), -1, 0)
        if coding.colours:
            codes = {(r << 16) + (g << 8) + b: of for (r, g, b), of in coding.colours.items()}
            return _meant((red << 16) + (green << 8) + blue, codes, name, coding.mend, True)
        if (red != green).any() or (red != blue).any():
            raise UserError(
                f"{name} is a picture in colours; say what they mean with layout mask_folder and "
                "its option colours, as {class: [red, green, blue]}, or save ids"
            )
        return _meant(red, coding.ids, name, coding.mend, False)


def coding_of(
    classes: Any = None, ids: Any = None, colours: Any = None, ignore: Any = ()
) -> tuple[tuple[str, ...], Coding]:
    """Class names, and what pixels mean, from options as somebody wrote them.

    Args:
        classes: list of names in the order of their ids; without, as ``ids`` or ``colours`` name
            them. One whose number is ignored is no class.
        ids: the class of each number in the masks, several numbers may be of one class; without,
            and without ``colours``, a number is the place of its class.
        colours: [red, green, blue] of each class; then masks are read by their colours.
        ignore: list of numbers, or of colours, that are ignored; the number 255 is, unless ``ids``
            names it.

    Raises:
        UserError: an option is of another kind, there is no name, numbers or colours are none or
            mean two things, ids and colours are given together.
        UnknownWord: ids or colours of a class that is not there.
    """
    for option, value, kind, example in (
        ("classes", classes, Sequence, "[sky, tree]"),
        ("ids", ids, Mapping, "{0: sky, 1: tree}"),
        ("colours", colours, Mapping, "{sky: [0, 0, 255], tree: [0, 255, 0]}"),
        ("ignore", ignore, Sequence, "[255]"),
    ):
        if value is not None and (not isinstance(value, kind) or isinstance(value, str)):
            raise UserError(f"{option} is {value!r}; give it as {example}")
    if ids and colours:
        raise UserError("masks have ids or colours; give one of the two options")
    named = list(dict.fromkeys((ids or {}).values())) + list(colours or {})
    names = list(classes or named)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(
            "the masks have no class names, or one that is no word; give classes, in the order of "
            "their ids, or ids, or colours"
        )
    for name in named:
        choose(dict.fromkeys(names), name, "class of the masks")
    left_out = list(ignore or ())
    if colours:
        table = {colour_of(colour): names.index(name) for name, colour in colours.items()}
        if len(table) < len(colours):
            raise UserError("two classes have one colour; give each class a colour of its own")
        ignored = [colour_of(colour) for colour in left_out]
        _apart(table, ignored)
        mend = "add its colour to colours or to ignore, or mend the mask"
        return tuple(names), Coding({}, {**table, **dict.fromkeys(ignored, IGNORE)}, mend)
    ignored = [_number(number) for number in left_out]
    if ids:
        table = {_number(key): names.index(name) for key, name in ids.items()}
        _apart(table, ignored)
    else:
        kept = [number for number in range(len(names)) if number not in ignored]
        names = [names[number] for number in kept]
        table = {number: label for label, number in enumerate(kept)}
    mend = "add its number to ids or to ignore, or its name to classes, or mend the mask"
    void = {} if IGNORE in table else {IGNORE: IGNORE}
    return tuple(names), Coding({**table, **void, **dict.fromkeys(ignored, IGNORE)}, {}, mend)


def listed_numbers(numbers: Iterable[int]) -> str:
    """Numbers, neighbours joined.

    >>> listed_numbers([2, 0, 1, 255])
    '0 to 2, 255'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in runs)


def _apart(table: Mapping[Any, int], ignored: Iterable[Any]) -> None:
    if both := [each for each in ignored if each in table]:
        raise UserError(f"{both[0]} is of a class and to ignore; take it out of one of the two")


def _number(value: object) -> int:
    """A number of a pixel, also as a key of JSON."""
    try:
        number = int(value) if isinstance(value, (int, str)) else -1
    except ValueError:
        number = -1
    if not 0 <= number < 2**31 or isinstance(value, bool):
        raise UserError(f"{value!r} is no number of a pixel; give a whole number from 0")
    return number


def colour_of(value: object) -> Colour:
    """Three levels of 0 to 255.

    Raises:
        UserError: it is something else.
    """
    levels = tuple(value) if isinstance(value, Sequence) else ()
    if len(levels) != 3 or not all(type(level) is int and 0 <= level <= 255 for level in levels):
        raise UserError(f"{value!r} is no colour; give [red, green, blue], each 0 to 255")
    red, green, blue = levels
    return red, green, blue


def _raw_mode(picture: Image.Image) -> str:
    """How the file holds a pixel, such as "L;4"."""
    tiles = picture.tile if isinstance(picture, ImageFile.ImageFile) else []
    held = tiles[0].args if tiles else ""
    held = held[0] if isinstance(held, tuple) and held else held
    return held if isinstance(held, str) else ""


def _numbers(picture: Image.Image, raw: str) -> NDArray[np.int32]:
    return np.array(picture).astype(np.int32) // SPREAD.get(raw, 1)


def _meant(
    codes: NDArray[np.int32], meaning: Mapping[int, int], name: str, mend: str, colours: bool
) -> Mask:
    """The class id of each number or colour."""
    known = np.array(sorted(meaning), dtype=np.int32)
    places = np.searchsorted(known, codes).clip(max=len(known) - 1)
    strange = np.unique(codes[known[places] != codes]).tolist()
    if strange:
        what = "colours" if colours else "ids"
        said, there = (
            listed(f"[{of >> 16}, {of >> 8 & 255}, {of & 255}]" for of in codes)
            if colours
            else listed_numbers(codes)
            for codes in (strange, meaning)
        )
        raise UserError(
            f"{name} has {what} that are no class: {said}; the known are {there}: {mend}"
        )
    labels = np.array([meaning[code] for code in known.tolist()], dtype=np.uint8)
    return torch.from_numpy(labels[places])
