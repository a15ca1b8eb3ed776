"""What is informative: one pure definition per active-learning score, for images and for pixels.

Every score maps a prediction and the target to one number per image, higher = more informative, in
nats or probabilities as its docstring says; its ``map`` has the same for each pixel. An image is
the mean of its pixels where a docstring does not say otherwise; pixels of a mask whose target is
255 do not count, so a region is a target with 255 outside of it, see :func:`within`. All are
computed from log-probabilities in float32, so value and gradient are finite for certain models.
One definition serves steering, ranking, the logged number and the picture of it.
"""

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from activegen.records import IGNORE, Logits, Prediction, Scores, Target, UserError

Map = Float[Tensor, "b *space"]  # one number per pixel; without space one per image
TINY = 1e-20  # below this a square root has no slope
CAP = 2.3  # nats; the loss of a target at 10 % probability


class PerPixel:
    """A score of images that also knows where: ``score(...)``, ``score.map(...)``.

    Args:
        of_pixels: one number per pixel; what it says of ignored ones is not looked at.
        of_image: one number per image; by default the mean of its pixels.
        differentiable: may steer; without, it ranks finished images only.
        of_several: says something of several members alone, and 0 of one.
        of_teacher: its last member is a teacher.
    """

    __name__: str

    def __init__(
        self,
        of_pixels: Callable[[Prediction, Target], Tensor],
        of_image: Callable[[Prediction, Target], Tensor] | None = None,
        differentiable: bool = True,
        of_several: bool = False,
        of_teacher: bool = False,
    ):
        functools.update_wrapper(self, of_pixels)
        self._of_pixels, self._of_image = of_pixels, of_image
        self.differentiable = differentiable
        self.of_several, self.of_teacher = of_several, of_teacher

    def __call__(self, prediction: Prediction, target: Target) -> Scores:
        """One number per image, higher = more informative; 0 without a pixel that counts.

        Raises:
            UserError: prediction and target have different sizes, or the score needs what this
                prediction does not have.
        """
        if self._of_image is None:
            return per_image(self.map(prediction, target), target)
        _check_sizes(prediction, target)
        return self._of_image(prediction, target)

    def map(self, prediction: Prediction, target: Target) -> Map:
        """One number per pixel, 0 where the target is ignored; for a class, one per image.

        Raises:
            UserError: as above.
        """
        _check_sizes(prediction, target)
        return self._of_pixels(prediction, target).masked_fill(~counted(target), 0)

    def __reduce__(self) -> str:
        return self.__name__  # travels by name, as functions do

    def __repr__(self) -> str:
        return f"<score {self.__name__}>"


def counted(target: Target) -> Bool[Tensor, "b *space"]:
    """Which pixels count; the class of a picture always does: there 255 is one of many."""
    return target != IGNORE if target.ndim > 1 else torch.ones_like(target, dtype=torch.bool)


def per_image(values: Map, target: Target) -> Scores:
    """Mean over the pixels that count; 0 for an image without any."""
    kept = counted(target).unsqueeze(-1).flatten(1)
    values = values.unsqueeze(-1).flatten(1).masked_fill(~kept, 0)
    return values.sum(1) / kept.sum(1).clamp_min(1)


def within(target: Target, region: Float[Tensor, "b 1 height width"]) -> Target:
    """The target with 255 where the region, of the target's size, is below one half.

    Raises:
        UserError: the target is a class.
    """
    if target.ndim == 1:
        raise UserError("a region needs masks for targets; a class has no place in the picture")
    return target.masked_fill(region[:, 0] < 0.5, IGNORE)


@PerPixel
def entropy(prediction: Prediction, target: Target) -> Map:
    """Entropy of the members' mean probabilities, in nats, 0 to log(classes).

    Settles (2009), Active Learning Literature Survey, section 3.1; for several members it is the
    consensus entropy of Dagan & Engelson (1995).
    """
    log_p = consensus(prediction.logits)
    return -(log_p.exp() * log_p).sum(1)


@PerPixel
def least_confidence(prediction: Prediction, target: Target) -> Map:
    """One minus the highest probability, 0 to 1. Settles (2009), section 3.1."""
    return 1 - consensus(prediction.logits).amax(1).exp()


@PerPixel
def margin(prediction: Prediction, target: Target) -> Map:
    """One minus the lead of the first class over the second, in probability, 0 to 1.

    Scheffer et al. (2001); Settles (2009), section 3.1.

    Raises:
        UserError: there is one class only.
    """
    log_p = _of_several(consensus(prediction.logits))
    first, second = log_p.exp().topk(2, dim=1).values.unbind(1)
    return 1 - (first - second)


@functools.partial(PerPixel, of_several=True)
def disagreement(prediction: Prediction, target: Target) -> Map:
    """Entropy of the mean minus mean of the entropies, in nats; 0 for a single member.

    The Jensen-Shannon divergence of a committee, and with dropout members BALD: Houlsby et al.
    (2011), https://arxiv.org/abs/1112.5745. Equal to the mean KL divergence to the consensus of
    McCallum & Nigam (1998).
    """
    log_p = _of_members(prediction.logits)
    together = consensus(prediction.logits)
    each = -(log_p.exp() * log_p).sum(2).mean(0)
    return -(together.exp() * together).sum(1) - each


@functools.partial(PerPixel, differentiable=False, of_several=True)
def vote_entropy(prediction: Prediction, target: Target) -> Map:
    """Entropy of the members' votes, in nats, 0 to log(members); for ranking only.

        - sum_c v_c log v_c,   v_c = share of the members whose first class is c

    Dagan & Engelson (1995); Settles (2009), section 3.2. Votes have no slope: steer with
    ``disagreement``.
    """
    logits = prediction.logits
    votes = F.one_hot(logits.argmax(2), logits.shape[2]).movedim(-1, 2).float().mean(0)
    return -torch.xlogy(votes, votes).sum(1)


@PerPixel
def cross_entropy(prediction: Prediction, target: Target) -> Map:
    """Minus the log-probability of the target, in nats, not bounded.

    Raising it without an anchor may destroy the class: Kniesel et al. (2025),
    https://arxiv.org/abs/2503.09221, Figure 5.
    """
    return -_of_target(consensus(prediction.logits), target)


def hard_and_known(
    student: Prediction, teacher: Prediction, target: Target, weight: float = 1.0, cap: float = CAP
) -> Map:
    """What `teacher_student` says of each pixel, with its numbers free, of two predictions."""
    hard = cross_entropy.map(student, target).clamp(max=cap)
    return hard - weight * cross_entropy.map(teacher, target)


@functools.partial(PerPixel, of_teacher=True)
def teacher_student(prediction: Prediction, target: Target) -> Map:
    """Hard for the student and known to the teacher, in nats, at most 2.3.

        min(CE(student, target), 2.3) - CE(teacher, target)

    The last member is the teacher, the others together are the student; of a single member, which
    is both, it is 0 up to the cap and negative beyond. Ours; Kniesel et al. (2025),
    https://arxiv.org/abs/2503.09221, say of the student's loss alone that it destroys the class.
    """
    logits = prediction.logits
    student = Prediction(logits[:-1] if len(logits) > 1 else logits)
    return hard_and_known(student, Prediction(logits[-1:]), target)


@PerPixel
def label_margin(prediction: Prediction, target: Target) -> Map:
    """Lead of the best other class over the target, in log-probability; above 0 = misclassified.

    Raises:
        UserError: there is one class only.
    """
    log_p = _of_several(consensus(prediction.logits))
    other = log_p.masked_fill(_own(target, log_p.shape[1]), -math.inf).amax(1)
    return other - _of_target(log_p, target)


@PerPixel
def expected_model_change(prediction: Prediction, target: Target) -> Map:
    """Length of the last layer's gradient that is to be expected when nobody knows the label.

        sqrt(E_y ||(p - e_y) [h, 1]^T||²) = sqrt((1 - ||p||²) (||h||² + 1)),   y ~ p

    with features h: the root of Gini's impurity, weighed by the features. Mean of the members,
    each with its own last layer. Settles & Craven (2008), expected gradient length; the closed form
    is ours. Differs from them in the mean of squares, which bounds their mean of lengths from
    above; and in that pixels are averaged by length: the gradient of the mean loss would, for
    independent labels, shrink with the root of their number and so prefer small objects.

    Raises:
        UserError: the task model hands out no features of its last layer.
    """
    log_p = _of_members(prediction.logits)
    impurity = (log_p.exp() * -torch.expm1(log_p)).sum(2)
    return (impurity.clamp_min(TINY).sqrt() * _inputs(prediction).norm(dim=2)).mean(0)


def _gradient_length(prediction: Prediction, target: Target) -> Scores:
    """Of the mean over the pixels that count of (p - e_target) [h, 1]^T; mean of the members."""
    kept = counted(target).unsqueeze(-1).flatten(1)
    residuals = _residuals(prediction, target).unsqueeze(-1).flatten(3)
    inputs = _inputs(prediction).unsqueeze(-1).flatten(3)
    sums = torch.einsum("mbkn,mbdn->mbkd", residuals.masked_fill(~kept.unsqueeze(1), 0), inputs)
    return (sums.flatten(2).norm(dim=2) / kept.sum(1).clamp_min(1)).mean(0)


@functools.partial(PerPixel, of_image=_gradient_length)
def model_change(prediction: Prediction, target: Target) -> Map:
    """Length of the last layer's gradient for the target, its bias included.

        ||G||,   G = mean over pixels of (p - e_target) [h, 1]^T

    with features h. Of an image it is the gradient of the mean loss, in which pixels that pull in
    opposite directions cancel; the map is what each pixel could do alone, ||p - e_target||
    ||[h, 1]||, whose mean is never smaller. Mean of the members, each with its own last layer.
    Settles & Craven (2008), with the label known (ours). It grows with the cross-entropy and may
    destroy the class as that does: bound it.

    Raises:
        UserError: the task model hands out no features of its last layer.
    """
    residuals = _residuals(prediction, target)
    return (residuals.norm(dim=2) * _inputs(prediction).norm(dim=2)).mean(0)


SCORES: dict[str, PerPixel] = {
    "cross_entropy": cross_entropy,
    "disagreement": disagreement,
    "entropy": entropy,
    "expected_model_change": expected_model_change,
    "label_margin": label_margin,
    "least_confidence": least_confidence,
    "margin": margin,
    "model_change": model_change,
    "teacher_student": teacher_student,
    "vote_entropy": vote_entropy,
}


def consensus(logits: Logits) -> Float[Tensor, "b classes *space"]:
    """Log of the members' mean probabilities."""
    log_p = _of_members(logits)
    return torch.logsumexp(log_p, dim=0) - math.log(len(log_p))


def _of_members(logits: Logits) -> Logits:
    """Log-probabilities."""
    return F.log_softmax(logits.float(), dim=2)


def _of_several(log_p: Tensor) -> Tensor:
    if log_p.shape[1] < 2:
        raise UserError("a margin needs at least two classes, and the task model has one")
    return log_p


def _ids(target: Target) -> Tensor:
    """Class ids; ignored pixels are class 0 here and are left out later."""
    return target.masked_fill(~counted(target), 0).long()


def _own(target: Target, classes: int) -> Tensor:
    """True for the target's class, (b, classes, *space)."""
    return F.one_hot(_ids(target), classes).movedim(-1, 1).bool()


def _of_target(log_p: Tensor, target: Target) -> Tensor:
    return log_p.gather(1, _ids(target).unsqueeze(1)).squeeze(1)


def _residuals(prediction: Prediction, target: Target) -> Logits:
    """Gradients of the cross-entropy with respect to the logits."""
    p = _of_members(prediction.logits).exp()
    return p - _own(target, p.shape[2]).to(p)


def _inputs(prediction: Prediction) -> Float[Tensor, "members b inputs *space"]:
    """Features with a one for the bias, at the logits' size.

    Bilinear resizing commutes with a layer that acts on each pixel alone, so this is exact for a
    network that resizes its logits so.
    """
    logits, features = prediction.logits, prediction.features
    if features is None or features.ndim != logits.ndim or len(features) != len(logits):
        raise UserError(
            "model change needs the inputs of the task model's last layer, and its prediction has "
            "none that fit; end the network in a linear layer or 1x1 convolution, and give all "
            "members of a committee one width; or choose another score"
        )
    features = features.float()
    if features.shape[3:] != logits.shape[3:]:
        size = tuple(logits.shape[3:])
        resized = F.interpolate(features.flatten(0, 1), size, mode="bilinear", antialias=True)
        features = resized.unflatten(0, features.shape[:2])
    return torch.cat([features, torch.ones_like(features[:, :, :1])], dim=2)


def _check_sizes(prediction: Prediction, target: Target) -> None:
    predicted, wanted = tuple(prediction.logits.shape[3:]), tuple(target.shape[1:])
    if predicted != wanted:
        raise UserError(
            f"the task model answers at size {predicted} and the target has {wanted}; it must "
            "give logits at the size of the images (none for a class)"
        )
