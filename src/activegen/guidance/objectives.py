"""What is wanted: objectives map an estimate to one number per image, higher = more wanted.

Any score is an objective through :class:`Informative`; windows and weights are wrappers.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from activegen.diffusion.levels import Level
from activegen.diffusion.sampling import Estimate
from activegen.guidance.memory_bank import MemoryBank
from activegen.records import Score, TaskModel
from activegen.scores import cross_entropy


class Objective(ABC):
    """Something to climb."""

    def active(self, level: Level) -> bool:
        """Counts in the step that starts here."""
        return True

    @abstractmethod
    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """One number per image, higher = more wanted; differentiable."""


@dataclass(frozen=True)
class Informative(Objective):
    """Any active-learning score of the estimate under a task model."""

    task: TaskModel
    score: Score

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """The score."""
        return self.score(estimate.prediction(self.task), estimate.target)


@dataclass(frozen=True)
class Adversarial(Objective):
    """Cross-entropy of the classifier in training, up to a cap.

        min(CE(task(image), target), cap)

    Huang et al. (2024), https://arxiv.org/abs/2403.06517, whose L_adv is minus this.
    Differs from their paper in the cap (ours): beyond it an image is hard enough, and more would
    only leave the class. Differs from their code, which normalises the image twice.

    Args:
        task: the classifier.
        cap: in nats; the default is the loss of a target at 10 % probability.
    """

    task: TaskModel
    cap: float = 2.3

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """Capped cross-entropy, in nats."""
        return cross_entropy(estimate.prediction(self.task), estimate.target).clamp(max=self.cap)


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
        """0 when far from everything, negative when near."""
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


@dataclass(frozen=True)
class Weighted(Objective):
    """``weight`` times another objective; a negative weight descends."""

    weight: float
    inner: Objective

    def active(self, level: Level) -> bool:
        """As the inner one; never with weight 0."""
        return self.weight != 0 and self.inner.active(level)

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """Weighted."""
        return self.weight * self.inner.value(estimate)
