"""What a learner pays for an answer: losses by name, some of which forgive wrong labels.

Each gives a number per pixel of a mask, or per image of a class, in float32; it is finite, with its
gradient, for logits up to 1e4 on either side. Pixels that are ignored have the loss 0; the class of
a picture is never ignored, because there 255 is a class like others.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional

from activegen.records import IGNORE

ClassLogits = Float[Tensor, "b classes *space"]
Labels = Integer[Tensor, "b *space"]  # class ids; 255 is ignored in masks
Losses = Float[Tensor, "b *space"]
CROSS_ENTROPY = "cross_entropy"


@runtime_checkable
class Loss(Protocol):
    """How wrong each answer is; lower is better."""

    def __call__(self, logits: ClassLogits, labels: Labels, /) -> Losses:
        """One number per pixel, or per image of a class."""
        ...


def cross_entropy(logits: ClassLogits, labels: Labels, smoothing: float = 0.0) -> Losses:
    """-log p of the label, in nats.

    Args:
        logits: of each class.
        labels: class ids.
        smoothing: share of the label that is spread evenly over all classes, 0 to below 1.
    """
    if labels.ndim == 1:
        return functional.cross_entropy(
            logits.float(), labels, reduction="none", label_smoothing=smoothing
        )
    return functional.cross_entropy(
        logits.float(),
        labels.long(),
        reduction="none",
        ignore_index=IGNORE,
        label_smoothing=smoothing,
    )


def generalised(logits: ClassLogits, labels: Labels, q: float = 0.7) -> Losses:
    """(1 - p^q) / q of the label's p, 0 to 1 / q: between cross-entropy (q -> 0) and 1 - p (q = 1).

    Zhang & Sabuncu (2018), https://arxiv.org/abs/1805.07836, equation 6, with their q.
    """
    log_p = _log_softmax(logits)
    return _counted(-torch.expm1(q * _of_label(log_p, labels)) / q, labels)


def symmetric(
    logits: ClassLogits,
    labels: Labels,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = -4.0,
) -> Losses:
    """alpha * cross-entropy + beta * reverse cross-entropy, which is -log_zero * (1 - p).

    Wang et al. (2019), https://arxiv.org/abs/1908.06112: in the reverse one prediction and label
    change places, and the logarithm of the label's zeros is the constant ``log_zero``, their A.
    The weights are those that they have for CIFAR-10.
    """
    own = _of_label(_log_softmax(logits), labels)
    return _counted(-alpha * own + beta * log_zero * torch.expm1(own), labels)


def bootstrapped(logits: ClassLogits, labels: Labels, beta: float = 0.8) -> Losses:
    """Cross-entropy with beta * label + (1 - beta) * likeliest class.

    Reed et al. (2015), https://arxiv.org/abs/1412.6596, equation 4: the "hard" of their two, which
    like co-training takes a network's own answer as one class; and their beta for it.
    """
    log_p = _log_softmax(logits)
    own, likeliest = _of_label(log_p, labels), log_p.amax(1)
    return _counted(-beta * own - (1 - beta) * likeliest, labels)


LOSSES: dict[str, Loss] = {
    CROSS_ENTROPY: cross_entropy,
    "generalised": generalised,
    "symmetric": symmetric,
    "bootstrapped": bootstrapped,
}


def mean_of_pixels(
    losses: Float[Tensor, "b *space"],
    labels: Integer[Tensor, "b *space"],
    weights: Float[Tensor, "b *space"] | None = None,
) -> Float[Tensor, " b"]:
    """For each image the mean of ``weights * losses`` over its pixels that are not ignored.

    0 where all are ignored. It is divided by the number of pixels, not by the sum of the weights:
    an image with little weight says little. Losses of classes come back as they are.
    """
    if labels.ndim == 1:
        return losses
    weighted = losses if weights is None else losses * weights
    counted = (labels != IGNORE).flatten(1).sum(1)
    return weighted.flatten(1).sum(1) / counted.clamp_min(1)


def _log_softmax(logits: ClassLogits) -> ClassLogits:
    return functional.log_softmax(logits.float(), dim=1)


def _of_label(log_p: ClassLogits, labels: Labels) -> Losses:
    """Log-probability of the label; ignored pixels count as class 0 here."""
    ids = labels.long() if labels.ndim == 1 else labels.long().masked_fill(labels == IGNORE, 0)
    return log_p.gather(1, ids.unsqueeze(1)).squeeze(1)


def _counted(losses: Losses, labels: Labels) -> Losses:
    return losses if labels.ndim == 1 else losses.masked_fill(labels == IGNORE, 0)
