"""How good a task model is on real images with masks.

All figures but the loss of an image are of all pixels together, not means over images. Pixels whose
target is 255 count nowhere.
"""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int, Integer, UInt8
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_confusion_matrix

from activegen.records import IGNORE, TaskModel, UserError
from activegen.tasks.evaluate import BINS, log_predictions
from activegen.tasks.pool import check_labels

BAND = 0.02  # of the diagonal: width of the inner boundaries


@dataclass(frozen=True)
class MaskEvaluation:
    """What came of an evaluation; all tensors on the CPU.

    Args:
        miou: mean of ``per_class`` over the classes that have one, 0 to 1.
        per_class: intersection over union of each class; nan for a class that is in no mask, also
            where it is predicted (its wrong pixels count with the classes that they have). So the
            mean is of the same classes for every model. Ours; usual is 0 once it is predicted.
        worst_class: id of the class with the lowest one.
        boundary_iou: mean of ``per_class_boundary`` over the classes that have one, 0 to 1.
        per_class_boundary: intersection over union of the inner boundaries of each class.
        accuracy: part of the pixels that is right, 0 to 1.
        ece: expected calibration error, 0 to 1, over 15 bins of equal width.
        losses: mean cross-entropy of each image's pixels, in nats; 0 for an image without any.
        class_losses: mean cross-entropy of each class's pixels; nan for a class without any.
        confusion: number of pixels by true class (rows) and predicted class.
    """

    miou: float
    per_class: tuple[float, ...]
    worst_class: int
    boundary_iou: float
    per_class_boundary: tuple[float, ...]
    accuracy: float
    ece: float
    losses: Float[Tensor, " n"]
    class_losses: Float[Tensor, " classes"]
    confusion: Int[Tensor, "classes classes"]


def evaluate_masks(
    model: TaskModel,
    images: UInt8[Tensor, "n 3 h w"],
    masks: Integer[Tensor, "n h w"],
    batch: int = 8,
) -> MaskEvaluation:
    """Judge the model, in evaluation mode; it comes back in the mode in which it came.

    Boundaries are those of Cheng et al. (2021), https://arxiv.org/abs/2103.16562: pixels of a class
    that are within 2 % of the image's diagonal from another class, or from the image's edge.
    Differs from them, who have no ignored pixels, in that these make no boundary. Ours.

    Raises:
        UserError: no pixel has a class, or one has a class that the model has not.
    """
    if not (masks != IGNORE).any():
        raise UserError("nothing to evaluate on: no pixel of a mask has a class")
    losses: list[Tensor] = []
    total: _Sums | None = None
    predictions = log_predictions(model, images, batch)
    for log_p, part in zip(predictions, masks.split(batch), strict=True):
        check_labels(part, log_p.shape[1])
        target = part.to(log_p.device).long()
        pixels = functional.nll_loss(log_p, target, ignore_index=IGNORE, reduction="none")
        counted = (target != IGNORE).flatten(1).sum(1)
        losses.append((pixels.flatten(1).sum(1) / counted.clamp_min(1)).cpu())
        sums = _Sums.of(log_p, target, pixels)
        total = sums if total is None else total + sums
    assert total is not None
    return total.told(torch.cat(losses))


@dataclass(frozen=True)
class _Sums:
    """Over all pixels so far.

    Args:
        confusion: number of pixels by true and predicted class.
        both: pixels in the inner boundary of a class in truth and prediction.
        either: those in one of them at least.
        gaps: of each bin of confidence, confidence minus right pixels.
        losses: cross-entropy of each class's pixels.
    """

    confusion: Int[Tensor, "classes classes"]
    both: Float[Tensor, " classes"]
    either: Float[Tensor, " classes"]
    gaps: Float[Tensor, " bins"]
    losses: Float[Tensor, " classes"]

    @staticmethod
    def of(
        log_p: Float[Tensor, "b classes h w"],
        target: Int[Tensor, "b h w"],
        pixels: Float[Tensor, "b h w"],
    ) -> "_Sums":
        classes, counted = log_p.shape[1], target != IGNORE
        highest, seen = log_p.max(1)
        confusion = multiclass_confusion_matrix(
            seen, target, classes, ignore_index=IGNORE, validate_args=False
        )
        confidence, right = highest.exp()[counted], (seen == target)[counted]
        bins = (confidence * BINS).long().clamp(max=BINS - 1)
        both, either = _boundaries(target, seen.where(counted, IGNORE), classes)
        return _Sums(
            confusion.cpu(),
            both.cpu(),
            either.cpu(),
            bins.bincount(confidence - right.float(), BINS).double().cpu(),
            target[counted].bincount(pixels[counted], classes).double().cpu(),
        )

    def __add__(self, other: "_Sums") -> "_Sums":
        names = [field.name for field in fields(self)]
        return _Sums(*(getattr(self, name) + getattr(other, name) for name in names))

    def told(self, losses: Float[Tensor, " n"]) -> MaskEvaluation:
        right, count = self.confusion.diag(), self.confusion.sum(1)
        per_class = right / (count + self.confusion.sum(0) - right)
        per_class_boundary = self.both / self.either
        for of in (per_class, per_class_boundary):
            of[count == 0] = torch.nan
        return MaskEvaluation(
            miou=float(per_class.nanmean()),
            per_class=tuple(per_class.tolist()),
            worst_class=int(per_class.nan_to_num(2.0).argmin()),
            boundary_iou=float(per_class_boundary.nanmean()),
            per_class_boundary=tuple(per_class_boundary.tolist()),
            accuracy=float(right.sum() / count.sum()),
            ece=float(self.gaps.abs().sum() / count.sum()),
            losses=losses,
            class_losses=(self.losses / count).float(),
            confusion=self.confusion,
        )


def _boundaries(
    target: Int[Tensor, "b h w"], seen: Int[Tensor, "b h w"], classes: int
) -> tuple[Float[Tensor, " classes"], Float[Tensor, " classes"]]:
    """Of each class, the pixels in both inner boundaries, and in either."""
    both, either = torch.zeros(2, classes, dtype=torch.float64)
    for label in torch.cat([target.unique(), seen.unique()]).unique().tolist():
        if label != IGNORE:
            true, found = _inner_boundary(target, label), _inner_boundary(seen, label)
            both[label], either[label] = (true & found).sum(), (true | found).sum()
    return both, either


def _inner_boundary(masks: Int[Tensor, "b h w"], label: int) -> Bool[Tensor, "b h w"]:
    """Pixels of a class that are near another class or the image's edge."""
    width = max(1, round(BAND * math.hypot(*masks.shape[1:])))
    others = ((masks != label) & (masks != IGNORE)).float()
    others = functional.pad(others, (width,) * 4, value=1.0)
    for window in ((2 * width + 1, 1), (1, 2 * width + 1)):
        others = functional.max_pool2d(others[:, None], window, stride=1)[:, 0]
    return (masks == label) & (others > 0)
