"""Small pictures for the page: PNG data URIs of samples, references and attention."""

import base64
import io
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

LARGEST = 256  # pixels; larger pictures are made smaller for the page
SMALL = 128  # up to here pixels are shown as squares


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
    return _picture(Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())))


def overlay(image: UInt8[Tensor, "3 h w"], attention: UInt8[Tensor, "3 h_a w_a"]) -> Picture:
    """The attention in colours (dark = none, yellow = most) over the image in grey."""
    grey = image.float().mean(0).cpu().numpy()[..., None] / 255
    height, width = grey.shape[:2]
    map_ = Image.fromarray(np.ascontiguousarray(attention[0].cpu().numpy()))
    weight = np.asarray(map_.resize((width, height), Image.Resampling.BILINEAR)) / 255
    colours = matplotlib.colormaps["inferno"](weight)[..., :3]
    opacity = (0.4 + 0.4 * weight)[..., None]
    mixed = grey * (1 - opacity) + colours * opacity
    return _picture(Image.fromarray((mixed * 255).round().astype(np.uint8)))


def data_uri(data: bytes, kind: str) -> str:
    """The file in an address; ``kind`` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _picture(image: Image.Image) -> Picture:
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return Picture(data_uri(file.getvalue(), "image/png"), max(image.size) <= SMALL)
