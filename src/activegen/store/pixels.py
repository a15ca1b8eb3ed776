"""8-bit images to PNG bytes and back."""

import hashlib
import io

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from activegen.records import UserError

MAX_PIXELS = 1 << 26  # per image


def png(image: UInt8[Tensor, "c h w"]) -> bytes:
    """Lossless PNG of an 8-bit RGB (3 h w) or grey (1 h w) image; equal pixels, equal bytes."""
    pixels = np.ascontiguousarray(image.cpu().permute(1, 2, 0).numpy())
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
        file, "PNG", compress_level=4, optimize=False
    )
    return file.getvalue()


def from_png(data: bytes) -> UInt8[Tensor, "3 h w"]:
    """The RGB pixels of a PNG; grey becomes three equal channels.

    Raises:
        UserError: not a PNG, truncated, or of more than ``MAX_PIXELS`` pixels.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        if image.width * image.height > MAX_PIXELS:
            raise UserError(
                f"image of {image.width} x {image.height} pixels; at most {MAX_PIXELS} are read"
            )
        pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"not a whole PNG image: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def pixel_hash(image: bytes) -> str:
    """SHA-256 of the size and the pixels of a PNG, whatever encoder wrote it."""
    pixels = from_png(image)
    return hashlib.sha256(repr(tuple(pixels.shape)).encode() + pixels.numpy().tobytes()).hexdigest()
