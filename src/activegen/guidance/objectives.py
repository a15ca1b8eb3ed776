"""What is wanted: objectives map an estimate to one number per image, higher = more wanted.

Any score is an objective through :class:`Informative`; windows and weights are wrappers.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from activegen.diffusion.levels import Level
from activegen.diffusion.sampling import Estimate
from activegen.guidance.memory_bank import MemoryBank
from activegen.guidance.regions import Region
from activegen.records import Score, Target, TaskModel, UserError
from activegen.scores import cross_entropy, per_image, within


class Objective(ABC):
    """Something to climb."""

    def active(self, level: Level) -> bool:
        """Counts in the step that starts here."""
        return True

    def wants_attention(self, level: Level) -> bool:
        """Reads ``estimate.attention`` in this step."""
        return False

    @abstractmethod
    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """One number per image, higher = more wanted; differentiable."""


@dataclass(frozen=True)
class Informative(Objective):
    """Any active-learning score of the estimate under a task model.

    Raises:
        UserError: the score has no gradient.
    """

    task: TaskModel
    score: Score

    def __post_init__(self):
        if not getattr(self.score, "differentiable", True):
            raise UserError(
                f"{self.score} has no gradient and cannot steer; rank finished images with it, or "
                "steer with 'disagreement'"
            )

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """The score."""
        return self.score(estimate.prediction(self.task), estimate.target)


@dataclass(frozen=True)
class Adversarial(Objective):
    """Cross-entropy of the model in training, up to a cap; of a mask, pixel by pixel.

        mean over pixels of min(CE(task(image), target), cap)

    Huang et al. (2024), https://arxiv.org/abs/2403.06517, whose L_adv is minus this.
    Differs from their paper in the cap (ours): beyond it an image is hard enough, and more would
    only leave the class. Differs from their code, which normalises the image twice.

    Args:
        task: the model in training.
        cap: in nats; the default is the loss of a target at 10 % probability.
    """

    task: TaskModel
    cap: float = 2.3

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """Capped cross-entropy, in nats."""
        values = cross_entropy.map(estimate.prediction(self.task), estimate.target)
        return per_image(values.clamp(max=self.cap), estimate.target)


@dataclass(frozen=True)
class Repulsion(Objective):
    """Away from earlier images of the same class.

        - mean_j relu(margin - d_j),   d_j = ||clean - b_j|| / (spread * sqrt(2 * c * h * w))

    Huang et al. (2024), https://arxiv.org/abs/2403.06517, L_contra, with the class's memory bank b.
    Differs from the paper and its code in the margin, 200 and 100 there in latent units of one
    resolution: ours is relative to the expected distance of two independent latents of a class, so
    1 is "as far apart as strangers".

    Args:
        bank: earlier latents by class; a class without any gives 0.
        margin: relative distance below which the bank repels.
    """

    bank: MemoryBank
    margin: float = 1.0

    def active(self, level: Level) -> bool:
        """Once there is something to stay away from."""
        return len(self.bank.latents) > 0

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """0 when far from everything, negative when near.

        Raises:
            UserError: the targets are masks.
        """
        if estimate.target.ndim > 1:
            raise UserError("repulsion compares images of one class, and a mask has several")
        values = []
        for clean, target in zip(estimate.clean, estimate.target.tolist(), strict=True):
            others = self.bank.of_class(target)
            if others is None:
                values.append(clean.sum() * 0)
                continue
            difference = (clean.float() - others.to(clean.device).float()).flatten(1)
            # the root's gradient is not finite at 0: an exact copy has no direction to flee in
            distance = difference.square().sum(1).clamp_min(1e-12).sqrt()
            expected = self.bank.spread * (2 * difference.shape[1]) ** 0.5
            values.append(-torch.relu(self.margin - distance / expected).mean())
        return torch.stack(values)


class Wrapped(Objective):
    """Something made of another objective, active when that is."""

    inner: Objective

    def active(self, level: Level) -> bool:
        """As the inner one."""
        return self.inner.active(level)

    def wants_attention(self, level: Level) -> bool:
        """As the inner one."""
        return self.inner.wants_attention(level)


@dataclass(frozen=True)
class Weighted(Wrapped):
    """``weight`` times another objective; a negative weight descends."""

    weight: float
    inner: Objective

    def active(self, level: Level) -> bool:
        """As the inner one; never with weight 0."""
        return self.weight != 0 and self.inner.active(level)

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """Weighted."""
        return self.weight * self.inner.value(estimate)


@dataclass(frozen=True)
class TargetWindow(Wrapped):
    """Minus the distance of another objective to a window; 0 inside.

        - relu(low - value) - relu(value - high)

    Against unbounded ascent, which Kniesel et al. (2025), https://arxiv.org/abs/2503.09221,
    Figure 5, saw destroy the class. Ours. ``high`` infinite stops where ``low`` is reached, ``low``
    equal to ``high`` aims at a number; moves have a fixed length, so the end is met to within one.

    Args:
        low: end of the window, in units of the inner objective.
        high: the other end.
        inner: what shall come into it.

    Raises:
        UserError: the ends are in the wrong order, or both infinite.
    """

    low: float
    high: float
    inner: Objective

    def __post_init__(self):
        if not self.low <= self.high:
            raise UserError(f"a window from {self.low} to {self.high} is empty; swap the two")
        if math.isinf(self.low) and math.isinf(self.high):
            raise UserError(f"a window from {self.low} to {self.high} wants nothing; give one end")

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """0 inside, negative outside."""
        value = self.inner.value(estimate)
        return -torch.relu(self.low - value) - torch.relu(value - self.high)


@dataclass(frozen=True)
class Inside(Wrapped):
    """Another objective of the pixels in a region alone; what is outside counts as ignored.

    Kniesel et al. (2025), https://arxiv.org/abs/2503.09221, measure "generated objects" in
    Figure 4. To keep the move inside as well, give the region to ``Ascend``.

    Args:
        region: where, at one half and above.
        inner: an objective of masks.

    Raises:
        UserError: in a step of a batch whose targets are no masks.
    """

    region: Region
    inner: Objective

    def wants_attention(self, level: Level) -> bool:
        """Where the region or the inner one does."""
        return self.region.wants_attention or self.inner.wants_attention(level)

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """Of the inner one."""
        return self.inner.value(estimate.aiming(self._target(estimate)))

    def _target(self, estimate: Estimate) -> Target:
        target = estimate.target
        if target.ndim != 3:
            raise UserError("Inside needs masks for targets; a class has no place in the picture")
        size = (target.shape[1], target.shape[2])
        return within(target, self.region.sized(estimate, size))
