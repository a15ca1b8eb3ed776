"""What becomes of pixels whose labels may be wrong.

The reliability of a pixel is a byte, 255 = certain. Where it is a rank, those at the top are the
surest share of the pixels; the others are unreliable. What is ignored stays ignored, whatever its
reliability.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor

from activegen.records import IGNORE

CERTAIN = 255
HALF = 0.5  # of the pixels is reliable: Rong et al. (2023), BECO
TRUST, IGNORED, TEACHER = "trust", "ignore", "teacher"  # names in UNRELIABLE
Masks = Integer[Tensor, "b h w"]
Reliability = UInt8[Tensor, "b h w"]
PixelWeights = Float[Tensor, "b h w"]
Answer = Callable[[], Masks]


@runtime_checkable
class Treatment(Protocol):
    """How unreliable pixels are learnt."""

    def __call__(
        self, masks: Masks, reliability: Reliability, teacher: Answer, share: float, /
    ) -> tuple[Masks, PixelWeights | None]:
        """What to learn, and how much each pixel counts (None: all alike).

        Args:
            masks: labels of the pixels.
            reliability: of each.
            teacher: gives the classes that a teacher sees in these images.
            share: of the ranks that is reliable.
        """
        ...


def reliable(reliability: Reliability, share: float = HALF) -> Bool[Tensor, "b h w"]:
    """At least one minus the share; what is certain always is."""
    return reliability >= CERTAIN * (1 - share)


def trusted(
    masks: Masks, reliability: Reliability, teacher: Answer, share: float = HALF
) -> tuple[Masks, PixelWeights | None]:
    """Every label as it is."""
    return masks, None


def weighted(
    masks: Masks, reliability: Reliability, teacher: Answer, share: float = HALF
) -> tuple[Masks, PixelWeights | None]:
    """Every label as it is; a pixel counts by its reliability, 0 to 1."""
    return masks, reliability.float() / CERTAIN


def ignored(
    masks: Masks, reliability: Reliability, teacher: Answer, share: float = HALF
) -> tuple[Masks, PixelWeights | None]:
    """Unreliable pixels are not learnt."""
    return masks.masked_fill(~reliable(reliability, share), IGNORE), None


def taught(
    masks: Masks, reliability: Reliability, teacher: Answer, share: float = HALF
) -> tuple[Masks, PixelWeights | None]:
    """Unreliable pixels have the class that the teacher sees."""
    kept = reliable(reliability, share) | (masks == IGNORE)
    return torch.where(kept, masks, teacher().to(masks.dtype)), None


UNRELIABLE: dict[str, Treatment] = {
    TRUST: trusted,
    "weight": weighted,
    IGNORED: ignored,
    TEACHER: taught,
}
