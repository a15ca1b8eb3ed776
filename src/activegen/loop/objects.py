"""The objects of a mask: which there are, where they lie, and how a redrawn one is put back.

Kupyn & Rupprecht (2024), "Dataset Enhancement with Instance-Level Augmentations", redraw annotated
objects and leave the rest of the image as it is, so that its mask holds. Masks of classes have no
instances; here an object is a connected piece of one class. They put the redrawn objects of an
image into it from the back to the front. So does `layered` with those that are learnt together;
what is stored and judged has one redrawn object in each image.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import gaussian_blur

from activegen.records import IGNORE, UserError

Mask = Integer[Tensor, "h w"]  # class ids; 255 is ignored
Region = Bool[Tensor, "h w"]
SOFTNESS = 1.1  # standard deviation in pixels, see `composite`


@dataclass(frozen=True)
class ObjectSettings:
    """Which pieces of a mask are objects.

    Args:
        limit: so many of an image at most, the largest; Kupyn & Rupprecht (2024) take ten.
        min_area: of an object, as a share of the image. Theirs is 1,000 pixels where the long side
            has 768, about 0.002; a share holds for images of any size.
        dilation: pixels of the drawn picture around an object that are drawn anew with it, and
            judged with it, under the labels that they have. Theirs is 2, see `composite`.
        together: probability with which each other object of the same real image is redrawn too
            where a sample is learnt, 0 to 1; of those that have an accepted redraw. Theirs is 0.3,
            of every object; here the sample's own always is redrawn. 0 = that one alone.

    Raises:
        UserError: a value out of its range.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    limit: int = 10
    min_area: float = 0.002
    dilation: int = 0
    together: float = 0.0

    def __post_init__(self):
        if self.limit < 1 or not 0 <= self.min_area < 1 or self.dilation < 0:
            raise UserError(
                "objects: limit at least 1, min_area at least 0 and below 1, dilation at least 0"
            )
        if not 0 <= self.together <= 1:
            raise UserError(f"objects: together is {self.together}; give a probability, 0 to 1")


@dataclass(frozen=True)
class Object:
    """A connected piece of one class.

    Args:
        number: from 1; what a request calls ``part``.
        label: its class id.
        region: its pixels.
    """

    number: int
    label: int
    region: Region


def objects(mask: Mask, settings: ObjectSettings, background: Collection[int] = ()) -> list[Object]:
    """The objects of a mask, largest first; of two equally large ones, the upper one first.

    Pixels that touch, also at a corner, belong together. The same mask gives the same numbers.

    Args:
        mask: class ids; ignored pixels belong to no object.
        settings: how large and how many.
        background: class ids that are no objects.
    """
    flat = mask.cpu().numpy().ravel()
    piece_of = _pieces(mask)
    pieces, first, areas = np.unique(piece_of, return_index=True, return_counts=True)
    excluded = (*background, IGNORE)
    kept = (areas >= settings.min_area * flat.size) & ~np.isin(flat[first], excluded)
    order = sorted(np.flatnonzero(kept).tolist(), key=lambda k: (-areas[k], first[k]))
    return [
        Object(
            number,
            int(flat[first[k]]),
            torch.from_numpy(piece_of == pieces[k]).view(mask.shape),
        )
        for number, k in enumerate(order[: settings.limit], start=1)
    ]


def dilated(region: Region, radius: int) -> Region:
    """All pixels that are at most ``radius`` pixels away from the region."""
    if radius == 0:
        return region
    away = torch.arange(-radius, radius + 1)
    disc = away[:, None] ** 2 + away**2 <= radius**2
    near = functional.conv2d(region[None, None].float(), disc[None, None].float(), padding=radius)
    return near[0, 0] > 0.5


def edge_band(mask: Mask, width: int) -> Region:
    """Pixels at most ``width`` wide on both sides of each edge between two classes.

    For the edge of an object alone give its region as a mask: ``edge_band(region.int(), 2)``. The
    border to ignored pixels is no edge.
    """
    band = torch.zeros_like(mask, dtype=torch.bool)
    if width == 0:
        return band
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        a, b = mask[one], mask[other]
        edge = (a != b) & (a != IGNORE) & (b != IGNORE)
        band[one] |= edge
        band[other] |= edge
    return dilated(band, width - 1)


def composite(
    real: UInt8[Tensor, "3 h w"],
    drawn: UInt8[Tensor, "3 h w"],
    region: Region,
    softness: float = SOFTNESS,
) -> UInt8[Tensor, "3 h w"]:
    """The drawn image in the region, the real one elsewhere, with a soft edge between them.

        alpha * drawn + (1 - alpha) * real

    Kupyn & Rupprecht (2024), equation 2, with the region blurred as ``alpha``. Their code widens
    the region with an ellipse of 5 pixels and blurs with a Gaussian of 5 pixels, as a ``dilation``
    of 2 and a ``softness`` of 1.1 do nearly; then the edge lies outside the object, which is drawn
    up to its border. Without dilation half of the edge lies inside.

    Args:
        real: the image that is kept.
        drawn: the image whose object is wanted.
        region: of the object.
        softness: as `softened` has it.
    """
    alpha = softened(region, softness)
    mixed = alpha * drawn.float() + (1 - alpha) * real.float()
    return mixed.round().to(torch.uint8)


def layered(
    real: UInt8[Tensor, "3 h w"],
    redrawn: Sequence[tuple[UInt8[Tensor, "3 h w"], Float[Tensor, "1 h w"]]],
) -> UInt8[Tensor, "3 h w"]:
    """The real image with several redrawn objects in it, each in front of those before it.

        result_i = alpha_i * drawn_i + (1 - alpha_i) * result_(i-1), result_0 = real

    Kupyn & Rupprecht (2024), equation 2. A `composite` is enough for it, since that is
    composite_i = alpha_i * drawn_i + (1 - alpha_i) * real, and so

        result_i = composite_i + (1 - alpha_i) * (result_(i-1) - real)

    Args:
        real: the image that all of them were put into.
        redrawn: from the back to the front the `composite` of each object, and its alpha.
    """
    kept = real.float()
    result = kept
    for image, alpha in redrawn:
        result = image.float() + (1 - alpha) * (result - kept)
    return result.round().clamp(0, 255).to(torch.uint8)


def softened(region: Region, softness: float = SOFTNESS) -> Float[Tensor, "1 h w"]:
    """How much of each pixel is drawn, 0 to 1: the region with a soft edge.

    Args:
        region: of an object.
        softness: standard deviation of the Gaussian in pixels, which is cut at twice that; beyond
            it nothing changes. 0 = a hard edge.
    """
    alpha = region[None].float()
    radius = int(2 * softness)
    if radius == 0:
        return alpha
    radius = min(radius, min(region.shape) - 1)  # the image is mirrored at its border, once
    size = 2 * radius + 1
    return gaussian_blur(alpha, [size, size], [softness, softness]).clamp(0, 1)


def _pieces(mask: Mask) -> np.ndarray:
    """For each pixel the position of the first pixel of its connected piece.

    Every pixel points to an earlier one of its piece, at first to itself. Neighbours of one class
    agree on the earlier of their two, again and again, until all point to the first.
    """
    classes = mask.cpu().numpy()
    place = np.arange(classes.size).reshape(classes.shape)
    pairs = []
    for one, other in (
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[1:], np.s_[:-1]),
        (np.s_[1:, 1:], np.s_[:-1, :-1]),
        (np.s_[1:, :-1], np.s_[:-1, 1:]),
    ):
        alike = classes[one] == classes[other]
        pairs.append((place[one][alike], place[other][alike]))
    ones, others = (np.concatenate(side) for side in zip(*pairs, strict=True))
    first = place.ravel()
    while True:
        low = np.minimum(first[ones], first[others])
        agreed = first.copy()
        for pixels in (first[ones], first[others]):
            np.minimum.at(agreed, pixels, low)
        while (agreed[agreed] != agreed).any():
            agreed = agreed[agreed]
        if (agreed == first).all():
            return first
        first = agreed
