"""Small pictures for the page, as data URIs: samples, real images, maps and masks over them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from activegen.data.palettes import Colour
from activegen.records import IGNORE

LARGEST = 256  # pixels; larger pictures are made smaller for the page
SMALL = 128  # up to here pixels are shown as squares
LINED = 192  # pixels that a picture with lines has where it can
LINE = 2  # their width on each side of an edge
QUALITY = 88  # of the JPEGs
LEFT_OUT: Colour = (230, 97, 1)  # of pixels that are not learnt
NO_CLASS: Colour = (0, 0, 0)  # of pixels that have no label

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Picture:
    """An image as the page shows it.

    Args:
        uri: data URI.
        small: few pixels, to be shown as squares.
    """

    uri: str
    small: bool


def picture(image: UInt8[Tensor, "3 h w"]) -> Picture:
    """The image, made smaller when it is large."""
    return _photo(_image(image))


def overlay(image: UInt8[Tensor, "3 h w"], attention: UInt8[Tensor, "3 h_a w_a"]) -> Picture:
    """The attention in colours (dark = none, yellow = most) over the image in grey."""
    grey = _grey(image, _shown(image))
    height, width = grey.shape[:2]
    map_ = Image.fromarray(np.ascontiguousarray(attention[0].cpu().numpy()))
    weight = np.asarray(map_.resize((width, height), Image.Resampling.BILINEAR)) / 255
    opacity = (0.4 + 0.4 * weight)[..., None]
    return _mixed(grey, _heat(weight), opacity)


def heat(values: UInt8[Tensor, "h w"]) -> Picture:
    """A map of its own in the colours of `overlay`."""
    return _indexed(_resized(values, _shown(values)), _heat(np.arange(256) / 255))


def painted(
    mask: UInt8[Tensor, "h w"],
    colours: Sequence[Colour],
    under: UInt8[Tensor, "3 h_u w_u"] | None = None,
) -> Picture:
    """The colour of each pixel's class, black where it has none, over an image in grey.

    Args:
        mask: class ids, 255 = none.
        colours: by class id.
        under: the image, of any size; without, the colours are full.
    """
    size, table = _shown(mask), _table(colours)
    classes = _resized(mask, size)
    if under is None:
        return _indexed(classes, table)
    return _mixed(_grey(under, size), table[classes], 0.6)


def outlined(
    image: UInt8[Tensor, "3 h w"], mask: UInt8[Tensor, "h w"], colours: Sequence[Colour]
) -> Picture:
    """The image with a line along each side of every edge of the mask, in its class's colour."""
    height, width = _shown(mask)
    scale = max(1, LINED // max(height, width))
    size = (height * scale, width * scale)
    classes = _resized(mask, size)
    around = np.pad(classes, LINE, mode="edge")
    moved = [(LINE + step, LINE) for step in range(-LINE, LINE + 1)]
    moved += [(right, down) for down, right in moved]
    others = [around[y : y + size[0], x : x + size[1]] for y, x in moved]
    edge = np.any([classes != other for other in others], axis=0)[..., None]
    small = _image(image).resize((width, height), Image.Resampling.LANCZOS)
    large = small.resize((size[1], size[0]), Image.Resampling.NEAREST)
    return _photo(
        Image.fromarray(np.where(edge, _bytes(_table(colours)[classes]), np.asarray(large)))
    )


def marked(
    image: UInt8[Tensor, "3 h w"],
    mask: UInt8[Tensor, "h w"],
    ignored: UInt8[Tensor, "h w"] | None,
) -> Picture:
    """The image in grey, with what is not learnt in `LEFT_OUT`, and in `NO_CLASS` without label.

    Args:
        image: of a sample.
        mask: class ids, 255 = no label.
        ignored: above 0 where the judge left a pixel out; None = nowhere.
    """
    size = _shown(mask)
    flat = np.zeros((*size, 3))
    opacity = np.where(_resized(mask, size) == IGNORE, 0.85, 0.0)
    flat[:] = np.array(NO_CLASS) / 255
    if ignored is not None:
        left_out = _resized(ignored, size) > 0
        flat[left_out] = np.array(LEFT_OUT) / 255
        opacity[left_out] = 0.75
    return _mixed(_grey(image, size), flat, opacity[..., None])


def data_uri(data: bytes, kind: str) -> str:
    """The file in an address; ``kind`` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _photo(image: Image.Image) -> Picture:
    """Without loss where it is small; a large one would be many times a JPEG's bytes."""
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    if max(image.size) <= LINED:
        return _picture(image)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return Picture(data_uri(file.getvalue(), "image/jpeg"), False)


def _picture(image: Image.Image) -> Picture:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return Picture(data_uri(file.getvalue(), "image/png"), max(image.size) <= SMALL)


def _indexed(values: NDArray[np.uint8], table: NDArray[np.float64]) -> Picture:
    """One byte a pixel, and the colours once."""
    image = Image.fromarray(values)
    image.putpalette(_bytes(table).tobytes())
    return _picture(image)


def _mixed(
    under: NDArray[np.float64], over: NDArray[np.float64], opacity: NDArray[np.float64] | float
) -> Picture:
    return _photo(Image.fromarray(_bytes(under * (1 - opacity) + over * opacity)))


def _image(image: UInt8[Tensor, "3 h w"]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()))


def _shown(image: Tensor) -> Size:
    """The size of an image or a map on the page."""
    height, width = image.shape[-2:]
    scale = min(1.0, LARGEST / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _grey(image: UInt8[Tensor, "3 h w"], size: Size) -> NDArray[np.float64]:
    """From 0 to 1, with one channel."""
    resized = _image(image).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(resized).mean(2, keepdims=True) / 255


def _resized(values: UInt8[Tensor, "h w"], size: Size) -> NDArray[np.uint8]:
    """By the nearest pixel."""
    image = Image.fromarray(np.ascontiguousarray(values.cpu().numpy()))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.NEAREST))


def _heat(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    return matplotlib.colormaps["inferno"](weight)[..., :3]


def _table(colours: Sequence[Colour]) -> NDArray[np.float64]:
    """RGB from 0 to 1 of each number that a mask may hold; `NO_CLASS` where there is no class."""
    table = np.tile(np.array(NO_CLASS), (256, 1))
    table[: len(colours)] = np.array(colours)
    return table / 255


def _bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return (values * 255).round().astype(np.uint8)
