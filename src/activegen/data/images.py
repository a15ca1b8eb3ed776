"""Real labelled images of any origin, decoded one at a time into 8-bit RGB.

Whatever the file held (grey, palette, transparency, 16 bits, a turned camera), what is read is
uint8 RGB (3, h, w). A file that cannot be read is named before anything learns from the others.
"""

import contextlib
import functools
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from activegen.records import UserError

Pixels = UInt8[Tensor, "3 h w"]  # RGB
Images = TypeVar("Images", bound="RealImages")

MAX_PIXELS = 64_000_000
FULL_CHECK = 20_000  # images; larger sets are checked by their structure only
NAMED = 5  # files that one message names before it only counts
JPEG_END = b"\xff\xd9"
Image.init()  # until then Pillow knows some formats only
# what Pillow may open: no format of which a file can start another program
FORMATS = [
    kind for kind in ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP") if kind in Image.OPEN
]


class UnreadableImage(UserError):
    """An image that is corrupt, too large or of a kind we cannot show; the message names it."""


class Readable:
    """Named images that are decoded when they are asked for, whatever their labels are."""

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    read: Callable[[int], Pixels]
    skipped: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> Pixels:
        """The image at a position, 0 to 255.

        Raises:
            UnreadableImage: it was not checked, or has changed since.
        """
        return self.read(range(len(self))[index])

    def index_of(self, id: str) -> int:
        """The position of the image with this id.

        Raises:
            UserError: there is none.
        """
        if id not in self._positions:
            raise UserError(f"{self.name} has no image '{id}'")
        return self._positions[id]

    @functools.cached_property
    def _positions(self) -> dict[str, int]:
        return {id: index for index, id in enumerate(self.ids)}

    def _check_names(self) -> None:
        """Check what every reader promises."""
        if twice := repeated(self.ids):
            raise UserError(f"{self.name}: there twice: {listed(twice)}")
        if twice := repeated(self.classes):
            raise UserError(f"{self.name}: classes named twice: {listed(twice)}")


@dataclass(frozen=True)
class RealImages(Readable):
    """Images of one class each.

    Args:
        name: of the data set, for messages and reports.
        classes: their names; a label is a position in it.
        ids: stable and unique names of the images.
        labels: one for each image.
        read: decodes the image at a position.
        skipped: (id, reason) of the images that were left out because they cannot be read.

    Raises:
        UserError: ids and labels do not fit together, an id is there twice, a label has no class.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    read: Callable[[int], Pixels]
    skipped: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Check what a reader promises."""
        if len(self.ids) != len(self.labels):
            raise UserError(f"{self.name}: {len(self.ids)} images but {len(self.labels)} labels")
        self._check_names()
        if unknown := {label for label in self.labels if not 0 <= label < len(self.classes)}:
            raise UserError(
                f"{self.name}: label {min(unknown)} has no class; labels are 0 to "
                f"{len(self.classes) - 1}"
            )

    def target(self, index: int) -> Int[Tensor, ""]:
        """The label at a position."""
        return torch.tensor(self.labels[index])

    def subset(self: Images, indices: Iterable[int]) -> Images:
        """The images at these positions, in this order; all classes are kept."""
        chosen = tuple(range(len(self))[index] for index in indices)
        return replace(
            self,
            ids=tuple(self.ids[index] for index in chosen),
            labels=tuple(self.labels[index] for index in chosen),
            read=At(self.read, chosen),
        )

    def by_class(self) -> dict[int, list[int]]:
        """The positions of each class, of classes without an image too."""
        positions: dict[int, list[int]] = {label: [] for label in range(len(self.classes))}
        for index, label in enumerate(self.labels):
            positions[label].append(index)
        return positions


@dataclass(frozen=True)
class At:
    """Reads a choice of what another reader reads."""

    read: Callable[[int], Tensor]
    indices: tuple[int, ...]

    def __call__(self, index: int) -> Tensor:
        """Read what is at a position of the choice."""
        return self.read(self.indices[index])


@dataclass(frozen=True)
class Encoded:
    """Reads images from encoded bytes or files.

    Args:
        source: the file or the bytes at a position.
        ids: what to call the images in messages.
    """

    source: Callable[[int], bytes | Path]
    ids: tuple[str, ...]

    def __call__(self, index: int) -> Pixels:
        """Decode the image at a position."""
        return decode(self.source(index), self.ids[index])

    def verify(self, index: int) -> None:
        """Look at the structure of the image at a position."""
        verify(self.source(index), self.ids[index])


def decode(data: bytes | Path, name: str = "") -> Pixels:
    """An encoded image or image file as 8-bit RGB, upright.

    Transparency is laid over white, 16-bit grey keeps its upper eight bits, EXIF orientation is
    applied, an animation gives its first frame.

    Args:
        data: PNG, JPEG, WebP, ... bytes, or the path of a file.
        name: for messages; of a file, its path will do.

    Raises:
        UnreadableImage: corrupt, above `MAX_PIXELS` (known before it is decoded), or 32-bit.
    """
    name = name or called(data)
    with opened(data, name) as picture:
        rgb = _rgb(ImageOps.exif_transpose(picture), name)
        return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).contiguous()


def verify(data: bytes | Path, name: str = "") -> None:
    """Find corrupt and truncated images without decoding all of them.

    PNG is read to its end with all checksums, and JPEG must have its end mark; whatever else it is,
    and a JPEG without end mark, is decoded.

    Raises:
        UnreadableImage: as `decode` does.
    """
    name = name or called(data)
    data = data if isinstance(data, bytes) else _bytes(data, name)
    with opened(data, name) as picture:
        kind = picture.format
        picture.verify()
    if kind == "PNG" or (kind == "JPEG" and JPEG_END in data[-64:]):
        return
    decode(data, name)


def encoded(
    name: str,
    classes: Sequence[str],
    ids: Sequence[str],
    labels: Sequence[int],
    source: Callable[[int], bytes | Path],
    strict: bool = False,
) -> RealImages:
    """Checked images of files or bytes; every reader of outside data ends here.

    Raises:
        UserError: as `RealImages` and `check` do.
    """
    read = Encoded(source, tuple(ids))
    images = RealImages(name, tuple(classes), tuple(ids), tuple(labels), read)
    return check(images, strict, read.verify)


def check(
    images: RealImages, strict: bool = False, verify: Callable[[int], object] | None = None
) -> RealImages:
    """The images that can be read; the others are named in ``skipped``.

    Up to `FULL_CHECK` images are all decoded. Larger sets are checked by ``verify``, which sees
    truncated files but not every flipped bit of a JPEG.

    Args:
        images: to check.
        strict: an image that cannot be read is an error.
        verify: raises `UnreadableImage`; without it, images are decoded however many there are.

    Raises:
        UserError: unreadable images if ``strict``; a class without a readable image; no class.
    """
    look = images.read if verify is None or len(images) <= FULL_CHECK else verify
    good, bad = tried(images, look, strict)
    checked = replace(images.subset(good), skipped=(*images.skipped, *bad))
    if not images.classes:
        raise UserError(f"{images.name}: there is no class")
    if empty := [images.classes[label] for label, of in checked.by_class().items() if not of]:
        raise UserError(
            f"{images.name}: no readable image of class {listed(empty)}. "
            "Add images or remove the class"
        )
    return checked


def tried(
    images: Readable, look: Callable[[int], object], strict: bool
) -> tuple[list[int], list[tuple[str, str]]]:
    """The positions that can be looked at, and (id, reason) of the others.

    Raises:
        UserError: there are others, and ``strict``.
    """
    good: list[int] = []
    bad: list[tuple[str, str]] = []
    for index, id in enumerate(images.ids):
        try:
            look(index)
        except UnreadableImage as problem:
            bad.append((id, str(problem)))
        else:
            good.append(index)
    if bad and strict:
        raise UserError(
            f"{images.name}: {len(bad)} of {len(images)} images cannot be read: "
            f"{listed([reason for _, reason in bad], '; ')}. Mend or remove them, or read with "
            "strict=False to leave them out"
        )
    return good, bad


def listed(words: Iterable[str], between: str = ", ") -> str:
    """The first few words, and how many more there are.

    >>> listed("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    words = list(words)
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return between.join(words[:NAMED]) + more


def repeated(words: Iterable[str]) -> list[str]:
    """The words that are there more than once, each once.

    >>> repeated(["a", "b", "a"])
    ['a']
    """
    seen: set[str] = set()
    twice = {word: None for word in words if word in seen or seen.add(word)}
    return list(twice)


@contextlib.contextmanager
def opened(data: bytes | Path, name: str) -> Iterator[Image.Image]:
    """A picture of which the header is read, small enough to decode.

    Whatever goes wrong inside, also when it is decoded, names it.

    Raises:
        UnreadableImage: as `decode` does.
    """
    with _problems(name), _open(data, name) as picture:
        yield picture


@contextlib.contextmanager
def _problems(name: str) -> Iterator[None]:
    """Whatever a decoder raises names the image. Decoders raise far more kinds than OSError."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as problem:
        raise UnreadableImage(f"{name} cannot be read: {problem}") from problem


def _open(data: bytes | Path, name: str) -> Image.Image:
    """Read the header and refuse what is too large, before a pixel is decoded."""
    try:
        source = io.BytesIO(data) if isinstance(data, bytes) else data
        picture = Image.open(source, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise UnreadableImage(_too_large(name, str(problem))) from problem
    width, height = picture.size
    if width * height > MAX_PIXELS:
        picture.close()
        raise UnreadableImage(_too_large(name, f"{width} x {height}"))
    return picture


def _too_large(name: str, size: str) -> str:
    return f"{name} is too large ({size}); at most {MAX_PIXELS:,} pixels are read, make it smaller"


def _rgb(picture: Image.Image, name: str) -> Image.Image:
    if picture.mode.startswith("I"):
        levels = np.array(picture)
        if levels.min() < 0 or levels.max() > 0xFFFF:
            raise UnreadableImage(f"{name} has more than 16 bits; save it with 8 bits")
        return Image.fromarray((levels // 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise UnreadableImage(f"{name} holds floating-point numbers; save it with 8 bits")
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return picture.convert("RGB")


def _bytes(path: Path, name: str) -> bytes:
    with _problems(name):
        return path.read_bytes()


def called(data: bytes | Path) -> str:
    """What to call an image in messages, if nobody says."""
    return "an image" if isinstance(data, bytes) else str(data)
