"""What is informative: one pure, differentiable function per active-learning score.

Every score maps a prediction and the target to one number per image, higher = more informative, in
nats or probabilities as its docstring says. An image is the mean of its pixels; pixels of a mask
whose target is 255 do not count. All are computed from log-probabilities in float32, so value and
gradient are finite for certain models. One definition serves steering, ranking and the logged
number.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from activegen.records import IGNORE, Logits, Prediction, Score, Scores, Target, UserError


def entropy(prediction: Prediction, target: Target) -> Scores:
    """Entropy of the members' mean probabilities, in nats, 0 to log(classes).

    Settles (2009), Active Learning Literature Survey, section 3.1; for several members it is the
    consensus entropy of Dagan & Engelson (1995).
    """
    log_p = _consensus(prediction.logits)
    return _per_image(-(log_p.exp() * log_p).sum(1), target)


def least_confidence(prediction: Prediction, target: Target) -> Scores:
    """One minus the highest probability, 0 to 1. Settles (2009), section 3.1."""
    return _per_image(1 - _consensus(prediction.logits).amax(1).exp(), target)


def margin(prediction: Prediction, target: Target) -> Scores:
    """One minus the lead of the first class over the second, in probability, 0 to 1.

    Scheffer et al. (2001); Settles (2009), section 3.1.

    Raises:
        UserError: there is one class only.
    """
    log_p = _of_several(_consensus(prediction.logits))
    first, second = log_p.exp().topk(2, dim=1).values.unbind(1)
    return _per_image(1 - (first - second), target)


def disagreement(prediction: Prediction, target: Target) -> Scores:
    """Entropy of the mean minus mean of the entropies, in nats; 0 for a single member.

    The Jensen-Shannon divergence of a committee, and with dropout members BALD: Houlsby et al.
    (2011), https://arxiv.org/abs/1112.5745. Equal to the mean KL divergence to the consensus of
    McCallum & Nigam (1998).
    """
    log_p = F.log_softmax(prediction.logits.float(), dim=2)
    consensus = _consensus(prediction.logits)
    each = -(log_p.exp() * log_p).sum(2).mean(0)
    together = -(consensus.exp() * consensus).sum(1)
    return _per_image(together - each, target)


def cross_entropy(prediction: Prediction, target: Target) -> Scores:
    """Minus the log-probability of the target, in nats, not bounded.

    Raising it without an anchor may destroy the class: Kniesel et al. (2025),
    https://arxiv.org/abs/2503.09221, Figure 5.
    """
    log_p = _consensus(prediction.logits)
    return _per_image(-_of_target(log_p, target), target)


def label_margin(prediction: Prediction, target: Target) -> Scores:
    """Lead of the best other class over the target, in log-probability; above 0 = misclassified.

    Raises:
        UserError: there is one class only.
    """
    log_p = _of_several(_consensus(prediction.logits))
    own = F.one_hot(_counted(target), log_p.shape[1]).movedim(-1, 1).bool()
    other = log_p.masked_fill(own, -math.inf).amax(1)
    return _per_image(other - _of_target(log_p, target), target)


SCORES: dict[str, Score] = {
    "cross_entropy": cross_entropy,
    "disagreement": disagreement,
    "entropy": entropy,
    "label_margin": label_margin,
    "least_confidence": least_confidence,
    "margin": margin,
}


def _consensus(logits: Logits) -> Float[Tensor, "b classes *space"]:
    """Log of the members' mean probabilities."""
    log_p = F.log_softmax(logits.float(), dim=2)
    return torch.logsumexp(log_p, dim=0) - math.log(len(log_p))


def _of_several(log_p: Tensor) -> Tensor:
    if log_p.shape[1] < 2:
        raise UserError("a margin needs at least two classes, and the task model has one")
    return log_p


def _counted(target: Target) -> Tensor:
    """Class ids; ignored pixels count as class 0 here and are left out of the mean."""
    return (target if target.ndim == 1 else target.masked_fill(target == IGNORE, 0)).long()


def _of_target(log_p: Tensor, target: Target) -> Tensor:
    return log_p.gather(1, _counted(target).unsqueeze(1)).squeeze(1)


def _per_image(values: Tensor, target: Target) -> Scores:
    """Mean over the pixels that count; 0 for an image without any."""
    if target.ndim == 1:  # the class of a picture is never ignored: 255 is a class of many
        return values
    kept = (target != IGNORE).to(values.dtype).flatten(1)
    return (values.flatten(1) * kept).sum(1) / kept.sum(1).clamp_min(1)
