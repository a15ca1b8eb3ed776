"""How good a task model is on real labelled images."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
)

from activegen.records import Images, TaskModel, UserError
from activegen.tasks.pool import check_labels
from activegen.tasks.task_network import modes_kept

BINS = 15  # of the calibration error, equally wide in confidence


@dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation; all tensors on the CPU.

    Args:
        accuracy: part of the images that is right, 0 to 1.
        per_class: the same of each class; nan for a class without images.
        worst_class: id of the class with the lowest accuracy.
        ece: expected calibration error, 0 to 1, over 15 bins of equal width.
        losses: cross-entropy of each image, in nats.
        probabilities: of each class for each image, the mean over a committee's members.
        predictions: the likeliest class of each image.
    """

    accuracy: float
    per_class: tuple[float, ...]
    worst_class: int
    ece: float
    losses: Float[Tensor, " n"]
    probabilities: Float[Tensor, "n classes"]
    predictions: Int[Tensor, " n"]


def evaluate(
    model: TaskModel,
    images: UInt8[Tensor, "n 3 h w"],
    labels: Int[Tensor, " n"],
    batch: int = 256,
) -> Evaluation:
    """Judge the model, in evaluation mode; it comes back in the mode in which it came.

    Raises:
        UserError: there are no images, or a label that the model has no class for.
    """
    if len(images) == 0:
        raise UserError("nothing to evaluate on: there is no image")
    log_probabilities = log_predict(model, images, batch)
    classes = log_probabilities.shape[1]
    labels = labels.cpu().long()
    check_labels(labels, classes)
    probabilities = log_probabilities.exp()
    per_class = multiclass_accuracy(probabilities, labels, classes, average="none")
    per_class[labels.bincount(minlength=classes) == 0] = torch.nan
    return Evaluation(
        accuracy=float(multiclass_accuracy(probabilities, labels, classes, average="micro")),
        per_class=tuple(per_class.tolist()),
        worst_class=int(per_class.nan_to_num(2.0).argmin()),
        ece=float(multiclass_calibration_error(probabilities, labels, classes, n_bins=BINS)),
        losses=-log_probabilities.gather(1, labels[:, None]).squeeze(1),
        probabilities=probabilities,
        predictions=probabilities.argmax(1),
    )


def log_predict(
    model: TaskModel, images: UInt8[Tensor, "n 3 h w"], batch: int = 256
) -> Float[Tensor, "n classes"]:
    """Log-probabilities on the CPU, of the mean over members, in evaluation mode."""
    return torch.cat([part.cpu() for part in log_predictions(model, images, batch)])


def log_predictions(
    model: TaskModel, images: UInt8[Tensor, "n 3 h w"], batch: int
) -> Iterator[Float[Tensor, "b classes *space"]]:
    """The same batch by batch, on the model's device; its modes come back at the end."""
    device = _device(model, images)
    with modes_kept(model):
        if isinstance(model, nn.Module):
            model.eval()
        for part in images.split(batch):
            yield _log_consensus(model, part.to(device).float() / 255)


@torch.inference_mode()
def _log_consensus(model: TaskModel, images: Images) -> Float[Tensor, "b classes *space"]:
    members = model.predict(images).logits.log_softmax(2)
    return members.logsumexp(0) - torch.tensor(len(members)).log()


def _device(model: object, images: Tensor) -> torch.device:
    if not isinstance(model, nn.Module):
        return images.device
    return next(chain(model.parameters(), model.buffers()), images).device
