"""Whether the pixels of a sample keep their labels, in the opinion of an independent model.

FreeMask, Yang et al. (2023), https://arxiv.org/abs/2310.15160: a pixel on which a model trained on
real images does much worse than it usually does on that class is not learnt.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int, Integer, UInt8
from torch import Tensor, nn

from activegen.loop.judging import Opinion, Picture, as_batch
from activegen.loop.objects import Mask, Region, edge_band
from activegen.records import IGNORE, Request, Sample, TaskModel, UserError
from activegen.scores import consensus
from activegen.store import from_png, png
from activegen.tasks.classifier import modes_kept

NOTICED = 0.01  # share of the pixels below which a class may be overlooked. Ours.


@dataclass(frozen=True)
class MaskJudgeSettings:
    """What a sample with a mask must be.

    Args:
        network: of the independent model that checks masks; "" checks none.
        members: how many of it, with different starts; their mean decides.
        steps: of their training, on all labelled real images.
        loss_factor: a pixel is not learnt when its loss is more than so many times the mean loss
            of its class on real images; FreeMask has 1.25.
        min_agreement: share of the pixels that the independent model must label as the mask does.
            Ours.
        max_ignored: share of the pixels that may be left out by their loss. Ours.
        edge_band: width in pixels of what is not learnt on each side of an edge between classes,
            where drawn edges are least exact. Ours.

    Raises:
        UserError: a value out of its range.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    network: str = "small"
    members: int = 2
    steps: int = 400
    loss_factor: float = 1.25
    min_agreement: float = 0.5
    max_ignored: float = 0.5
    edge_band: int = 0

    def __post_init__(self):
        if self.members < 1 or self.steps < 1 or self.edge_band < 0 or self.loss_factor <= 0:
            raise UserError(
                "judge: members and steps at least 1, edge_band at least 0, loss_factor above 0"
            )
        if not 0 <= self.min_agreement <= 1 or not 0 <= self.max_ignored <= 1:
            raise UserError("judge: min_agreement and max_ignored between 0 and 1")


@dataclass(frozen=True)
class BelievedPixels:
    """The mask of an image is what a model sees in it; pixels of high loss are ignored.

    Yang et al. (2023), https://arxiv.org/abs/2310.15160, ignore single pixels; to refuse whole
    images is ours.

    Args:
        teacher: independent of the learner, in evaluation mode.
        thresholds: of each class, the `loss_thresholds`. Classes without one (infinite) are unknown
            to the teacher: their pixels are learnt without being judged.
        min_agreement: share of the judged pixels whose label is the teacher's likeliest class.
        max_ignored: share of the judged pixels whose loss is above the threshold, at most.
        edge_band: pixels on each side of edges between classes, ignored and not judged.
        where: the pixels that were drawn for a request, when the others are real; None = all.
    """

    teacher: TaskModel
    thresholds: Float[Tensor, " classes"]
    min_agreement: float
    max_ignored: float
    edge_band: int = 0
    where: Callable[[Request], Region] | None = None

    def __call__(self, image: Picture, sample: Sample) -> Opinion:
        """Refuses "label" or "unclear", or names the pixels to ignore.

        Measured among the judged pixels, 0 to 1: "label_agreement"; "ignored_share", those of high
        loss; "most_ignored", the same of the class with most of them. "label" is little agreement,
        or a class of the mask of which every pixel would be ignored: it was not drawn. One that the
        teacher does not find in real images either has a high threshold, and is no reason.
        "unclear" is much to ignore, or nothing to judge.
        """
        mask = from_png(sample.mask)[0].long()
        log_p = consensus(self.teacher.predict(as_batch(image, self.teacher)).logits)[0].cpu()
        losses, limits = pixel_losses(log_p, mask), self.thresholds.cpu()[known(mask)]
        drawn = mask != IGNORE
        if self.where is not None:
            drawn &= self.where(sample.request)
        edge = drawn & edge_band(mask, self.edge_band)
        judged = drawn & ~edge & limits.isfinite()
        doubted = judged & (losses > limits)
        left_out = edge | doubted
        ignored = png(left_out[None].to(torch.uint8) * 255) if left_out.any() else b""
        if not judged.any():
            return Opinion("unclear", {}, ignored)
        agreed = (log_p.argmax(0) == mask)[judged].float()
        numbers = {
            "label_agreement": float(agreed.mean()),
            "ignored_share": float(doubted.sum() / judged.sum()),
            "most_ignored": _most(doubted[judged], mask[judged]),
        }
        return Opinion(self._reason(numbers), numbers, ignored)

    def _reason(self, numbers: dict[str, float]) -> str:
        if numbers["label_agreement"] < self.min_agreement or numbers["most_ignored"] == 1:
            return "label"
        return "unclear" if numbers["ignored_share"] > self.max_ignored else ""


@torch.inference_mode()
def loss_thresholds(
    teacher: TaskModel,
    real: Iterable[tuple[UInt8[Tensor, "3 _ _"], Integer[Tensor, "_ _"]]],
    factor: float = 1.25,
) -> Float[Tensor, " classes"]:
    """Highest loss of a pixel that is learnt, in nats: factor * mean loss of its class.

    Yang et al. (2023), https://arxiv.org/abs/2310.15160, whose means are of the images that the
    teacher was trained on. Where it has learnt those by heart, these are too low; give others.

    Args:
        teacher: judged in evaluation mode; it comes back in its own mode.
        real: images and their masks, of any sizes.
        factor: how many times the mean.

    Returns:
        Infinity for a class without pixels.

    Raises:
        UserError: there are no images.
    """
    total: tuple[Tensor, Tensor] | None = None
    with modes_kept(teacher):
        if isinstance(teacher, nn.Module):
            teacher.eval()
        for image, mask in real:
            log_p = consensus(teacher.predict(as_batch(image, teacher)).logits)[0].cpu()
            sums, counts = class_losses(log_p, mask)
            total = (sums + total[0], counts + total[1]) if total else (sums, counts)
    if total is None:
        raise UserError("no real images to learn from how high losses are; give at least one")
    sums, counts = total
    return torch.where(counts > 0, factor * sums / counts, torch.inf).float()


def pixel_losses(log_p: Float[Tensor, "classes h w"], mask: Mask) -> Float[Tensor, "h w"]:
    """Cross-entropy of each pixel in nats; 0 where the mask is ignored."""
    losses = -log_p.gather(0, known(mask)[None])[0]
    return losses.masked_fill(mask == IGNORE, 0)


def class_losses(
    log_p: Float[Tensor, "classes h w"], mask: Mask
) -> tuple[Float[Tensor, " classes"], Float[Tensor, " classes"]]:
    """For each class the sum of its pixels' losses, in nats, and their number."""
    counted = mask != IGNORE
    labels, losses = known(mask)[counted], pixel_losses(log_p, mask)[counted].double()
    sums = labels.bincount(losses, len(log_p))
    return sums, labels.bincount(minlength=len(log_p)).double()


def known(mask: Mask) -> Mask:
    """Class ids to look things up with; ignored pixels count as class 0 here."""
    return mask.masked_fill(mask == IGNORE, 0).long()


def _most(doubted: Bool[Tensor, " n"], labels: Int[Tensor, " n"]) -> float:
    """The highest share of doubted pixels of a class; classes of hardly a pixel do not count."""
    pairs = zip(*labels.unique(return_counts=True), strict=True)
    large = [label for label, count in pairs if count >= NOTICED * len(labels)]
    return max((float(doubted[labels == label].float().mean()) for label in large), default=0.0)
