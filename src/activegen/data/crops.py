"""Pieces of a picture's own shape, cut at random; a mask is cut with its image."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from activegen.data.images import Pixels
from activegen.data.masks import Mask

Box = tuple[int, int, int, int]  # top, left, height, width


def random_box(
    shape: tuple[int, int], size: tuple[int, int], smallest: float, rng: np.random.Generator
) -> Box:
    """A piece in the proportions of ``size``, anywhere inside.

    Its side is drawn evenly from ``smallest`` to 1, as a share of the largest that fits; but from
    no less than what it will get, so that nothing is enlarged that can be left as it is.

    Args:
        shape: height and width of the image.
        size: height and width that the piece will get.
        smallest: above 0, at most 1.
        rng: for the side and the place.
    """
    largest = min(shape[0] / size[0], shape[1] / size[1])
    fitting = largest * rng.uniform(min(1, max(smallest, 1 / largest)), 1)
    height, width = (
        max(1, min(side, round(wanted * fitting))) for side, wanted in zip(shape, size, strict=True)
    )
    top, left = rng.integers(shape[0] - height + 1), rng.integers(shape[1] - width + 1)
    return int(top), int(left), height, width


def cut(image: Pixels, box: Box, size: tuple[int, int]) -> Float[Tensor, "3 height width"]:
    """A piece of an image in this size, 0 to 1."""
    piece = functional.resized_crop(image.float() / 255, *box, list(size), antialias=True)
    return piece.clamp(0, 1)


def cut_mask(mask: Mask, box: Box, size: tuple[int, int]) -> UInt8[Tensor, "height width"]:
    """The same piece of its mask, by the nearest pixel."""
    nearest = InterpolationMode.NEAREST_EXACT
    return functional.resized_crop(mask[None], *box, list(size), interpolation=nearest)[0]


def shrunk(
    image: Pixels, mask: Mask | None, size: tuple[int, int], smallest: float
) -> tuple[UInt8[Tensor, "3 height width"], UInt8[Tensor, "height width"] | None]:
    """Image and mask as small as they may be if no piece of them shall be enlarged."""
    height, width = image.shape[1:]
    share = max(size[0] / height, size[1] / width) / smallest
    if share >= 1:
        return image, mask
    whole, less = (0, 0, height, width), (-(-height * share // 1), -(-width * share // 1))
    less = (int(less[0]), int(less[1]))
    small = (cut(image, whole, less) * 255).round().to(torch.uint8)
    return small, None if mask is None else cut_mask(mask, whole, less)
