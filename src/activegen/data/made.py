"""Scenes that are made when they are first asked for, and then kept."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import UInt8
from numpy import ndarray

from activegen.data.images import Pixels
from activegen.data.masks import Mask

Pair = tuple[UInt8[ndarray, "h w 3"], UInt8[ndarray, "h w"]]


@dataclass(frozen=True)
class Made:
    """Pictures and masks by their place.

    Args:
        make: the picture, RGB, and the mask of class ids at a place; the same each time.
    """

    make: Callable[[int], Pair]
    kept: dict[int, tuple[Pixels, Mask]] = field(default_factory=dict, repr=False, compare=False)

    def image(self, index: int) -> Pixels:
        """(3, h, w)."""
        return self._both(index)[0].clone()

    def mask(self, index: int) -> Mask:
        """(h, w)."""
        return self._both(index)[1].clone()

    def _both(self, index: int) -> tuple[Pixels, Mask]:
        if index not in self.kept:
            pixels, mask = self.make(index)
            image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
            self.kept[index] = (image, torch.from_numpy(mask))
        return self.kept[index]
