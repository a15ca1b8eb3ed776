"""Tiny images and masks as files hold them, and a network for them."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

MASK = np.arange(48, dtype=np.uint8).reshape(6, 8) // 16  # three bands: 0, 1, 2


def picture(seed: int = 0, size: tuple[int, int] = (6, 8), kind: str = "PNG") -> bytes:
    """Noise in RGB."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return held(Image.fromarray(pixels), kind)


def grey(mask: NDArray[np.uint8] | NDArray[np.uint16] = MASK) -> bytes:
    """A mask as a PNG in grey."""
    return held(Image.fromarray(mask))


def palette(mask: NDArray[np.uint8] = MASK) -> bytes:
    """A mask as a PNG with a palette of any colours."""
    image = Image.fromarray(mask)
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    return held(image)


def held(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write(file: Path, data: bytes) -> Path:
    """Writes a file and the folders that it is in."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


class Pixelwise(nn.Module):
    """Sees each pixel alone, and in near colours other classes; has a dropout layer."""

    def __init__(self, classes: int):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, classes, 1, bias=False)
        self.dropout = nn.Dropout2d(0.2)

    def forward(self, images: Tensor) -> Tensor:
        return 3 * self.last(self.dropout((10 * self.first(images)).sin()))
