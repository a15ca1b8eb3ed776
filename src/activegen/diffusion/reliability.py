"""Which pixels of a pseudo-mask, and which of the images, can be trusted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from activegen.records import IGNORE, UserError

LOG_ODDS = 12.0  # the largest that is told apart: a share of 0.999994


def reliable(
    mask: UInt8[Tensor, "b h w"], margin: Float[Tensor, "b h w"], share: float = 0.5
) -> Bool[Tensor, "b h w"]:
    """In each image, the pixels of each class with the largest margins: floor(share * all) of it.

    Of equal margins the first in reading order is kept; pixels of 255 never are.

    Rong et al. (2023), BECO, CVPR: their mask M, with a share of 0.5. Differs from them in the
    margin, which is the attention's; theirs is of IRN's scores.

    Args:
        mask: class ids; 255 is no class.
        margin: larger is surer.
        share: 0 to 1.

    Raises:
        UserError: the share is outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise UserError(f"a share of {share} of the pixels is reliable; give one from 0 to 1")
    kept = torch.zeros_like(mask, dtype=torch.bool)
    for labels, margins, chosen in zip(mask, margin, kept, strict=True):
        order = margins.flatten().argsort(descending=True, stable=True)
        sorted_labels = labels.flatten()[order]
        for label in labels.unique().tolist():
            if label != IGNORE:
                of_class = order[sorted_labels == label]
                chosen.view(-1)[of_class[: math.floor(share * len(of_class) + 1e-9)]] = True
    return kept


def ranked(mask: UInt8[Tensor, "b h w"], margin: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Of each pixel, the share of the pixels of its class in its image that it is surer than.

    So the `reliable` ones of a share q are those from 1 - q on. 0 for the least sure, and at 255.
    Ours.

    Args:
        mask: class ids; 255 is no class.
        margin: larger is surer; of equal margins the first in reading order counts as surer.
    """
    ranks = torch.zeros(mask.shape, device=mask.device)
    for labels, margins, found in zip(mask.flatten(1), margin.flatten(1), ranks, strict=True):
        order = margins.argsort(descending=True, stable=True)
        for label in labels.unique().tolist():
            if label != IGNORE:
                of_class = order[labels[order] == label]
                count = len(of_class)
                found.view(-1)[of_class] = (
                    torch.arange(count - 1, -1, -1, device=mask.device) / count
                )
    return ranks


def log_odds(share: Float[Tensor, "*space"]) -> Float[Tensor, "*space"]:
    """A share of 0 to 1 as 1/2 + log(share / (1 - share)) / 24, cut to 0 to 1. Ours.

    A half stays a half, and what differs near 1, as most shares of attention are, still does in a
    byte.
    """
    return (0.5 + torch.logit(share, eps=1e-7) / (2 * LOG_ODDS)).clamp(0, 1)


def in_bytes(sure: Float[Tensor, "*space"]) -> UInt8[Tensor, "*space"]:
    """0 to 1 as 0 to 255; what is beyond is cut."""
    return (sure.clamp(0, 1) * 255).round().to(torch.uint8)


class Ranks:
    """Ranks each pixel among those of its class in all images of a set. Ours.

    `ranked` does so within an image, and half of the pixels of a class are sure there even where
    all of it is in the wrong place.

        ranks = Ranks()
        for mask, sure in images:
            ranks.add(mask, sure)
        ranks.of(mask, sure)
    """

    def __init__(self) -> None:
        """Of no image."""
        self._counts = torch.zeros(256, 256, dtype=torch.int64)  # by class id and byte

    def add(self, mask: UInt8[Tensor, "h w"], sure: UInt8[Tensor, "h w"]) -> None:
        """Counts the pixels of one image.

        Args:
            mask: class ids; 255 is no class.
            sure: larger is surer.
        """
        places = mask.long() * 256 + sure.long()
        self._counts += torch.bincount(places.flatten(), minlength=256 * 256).view(256, 256)

    def of(self, mask: UInt8[Tensor, "h w"], sure: UInt8[Tensor, "h w"]) -> UInt8[Tensor, "h w"]:
        """The share of the pixels of its class that each is as sure as, times 255; 0 at 255.

        Of equals each has their middle rank.
        """
        below = self._counts.cumsum(1) - self._counts / 2
        shares = below / self._counts.sum(1, keepdim=True).clamp_min(1)
        return in_bytes(shares[mask.long(), sure.long()]).masked_fill(mask == IGNORE, 0)


def reliability(
    mask: UInt8[Tensor, "b h w"], margin: Float[Tensor, "b h w"], background: int | None
) -> Float[Tensor, " b"]:
    """Of each image: the mean margin of its foreground; 0 without any.

    Args:
        mask: class ids; 255 is no class.
        margin: larger is surer.
        background: its class id; None where every class is foreground.
    """
    front = _foreground(mask, background)
    return (margin * front).sum((1, 2)) / front.sum((1, 2)).clamp_min(1)


@dataclass(frozen=True)
class Screen:
    """What an image with a pseudo-mask must have.

    The bounds of the area are our reconstruction of attn2mask; that of the peak is ours.

    Args:
        least: share of the pixels that are foreground; without a background, of each class.
        most: share of the pixels that are foreground; not asked without a background.
        peak: of the raw attention of each class, as a share of all that the picture looks at.

    Raises:
        UserError: shares that are none.
    """

    least: float = 0.01
    most: float = 0.95
    peak: float = 0.0

    def __post_init__(self) -> None:
        """Check the shares."""
        if not 0 <= self.least <= self.most <= 1 or not 0 <= self.peak <= 1:
            raise UserError(f"{self} has shares that are none; give 0 <= least <= most <= 1")


def screened(
    mask: UInt8[Tensor, "b h w"],
    classes: Int[Tensor, "b words"],
    presence: Float[Tensor, "b words"],
    background: int | None,
    screen: Screen,
) -> list[str]:
    """For each image why it is dropped, "" where it is kept.

    In this order: "unseen", a class's attention has no peak; "small" or "full", too little or too
    much foreground; "missing", without a background, a class has too few pixels.

    Args:
        mask: class ids; 255 is no class.
        classes: that the image shall show; 255 fills up.
        presence: their raw peaks.
        background: its class id; None where every pixel has a class.
        screen: the bounds.
    """
    unseen = ((presence < screen.peak) & (classes != IGNORE)).any(1)
    area = _foreground(mask, background).float().mean((1, 2))
    areas = (mask.flatten(1).unsqueeze(1) == classes.unsqueeze(2)).float().mean(2)
    lost = ((areas < screen.least) & (classes != IGNORE)).any(1)
    bounded = torch.full_like(lost, background is not None)
    failed = {
        "unseen": unseen,
        "small": (area < screen.least) & bounded,
        "full": (area > screen.most) & bounded,
        "missing": lost & ~bounded,
    }
    rows = zip(*(column.tolist() for column in failed.values()), strict=True)
    return [_first(row, list(failed)) for row in rows]


def _first(row: Sequence[bool], reasons: Sequence[str]) -> str:
    return next((reason for failed, reason in zip(row, reasons, strict=True) if failed), "")


def _foreground(mask: Tensor, background: int | None) -> Bool[Tensor, "b h w"]:
    front = mask != IGNORE
    return front if background is None else front & (mask != background)
