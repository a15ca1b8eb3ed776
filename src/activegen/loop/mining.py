"""Which real images to draw more of: those that the learner gets wrong.

Huang et al. (2024), https://arxiv.org/abs/2403.06517, section 3: misclassified images of a part of
the training set that the learner did not see. Differs from their code, which draws uniformly and
never uses the losses that it computes: here classes share the budget, and the highest losses are
left out, because a mislabelled image is misclassified by construction and would be copied. That
learners judge in turns what the others saw, "cross_fit" and "bagging", is ours too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from activegen.data.scenes import Real
from activegen.data.splits import bags, folds, held_out
from activegen.loop.settings import ArmSettings
from activegen.records import UserError


@dataclass(frozen=True)
class MiningSettings:
    """How to look for mistakes.

    Args:
        split: "cross_fit" (every labelled image is judged by a learner that did not see it; all are
            trained on), "bagging" (the same with learners of bootstrap samples, see
            :func:`activegen.data.splits.bags`: (1 - 1/e)^folds of the images, 40 % with 2 and 10 %
            with 5, are in every sample and not mined in that run) or "held_out" (a share is kept
            from the learner and merged at half time).
        folds: of cross_fit; of bagging, how many samples. Each is a learner beside the main one.
        share: of held_out.
        drop_highest: share of a class's mistakes, those with the highest losses, that is taken for
            mislabelled and not used. Ours.
        max_repeats: how often one image may be a reference in one round.
        balance: 0 shares a round's images among the classes in proportion to their mistakes, as
            Huang et al. (2024) have it, 1 evenly; between, to the power of 1 - balance. Ours.

    Raises:
        UserError: a value out of its range.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    split: str = "cross_fit"
    folds: int = 2
    share: float = 0.1
    drop_highest: float = 0.05
    max_repeats: int = 8
    balance: float = 0.0

    def __post_init__(self):
        if self.split not in ("cross_fit", "bagging", "held_out"):
            raise UserError(
                f"mining.split is '{self.split}'; choose cross_fit, bagging or held_out"
            )
        if self.folds < 2 or not 0 < self.share < 1 or not 0 <= self.drop_highest < 1:
            raise UserError("mining: folds at least 2, share between 0 and 1, drop_highest below 1")
        if self.max_repeats < 1:
            raise UserError("mining.max_repeats must be at least 1")
        if not 0 <= self.balance <= 1:
            raise UserError(
                f"mining.balance is {self.balance}; give a number from 0, by mistakes, to 1, evenly"
            )

    def members(self, arm: ArmSettings) -> int:
        """Learners that an arm trains beside the main one."""
        return self.folds if arm.mines and arm.real and self.split != "held_out" else 0


@dataclass(frozen=True)
class Miner:
    """A learner that judges real images.

    Args:
        learner: its name; "main" is the one that is evaluated.
        seen: positions of the real images that it trains on, of a bag some several times.
        unseen: the images that it judges.
    """

    learner: str
    seen: Int[Tensor, " n"]
    unseen: Real


def miners(arm: ArmSettings, settings: MiningSettings, real: Real, seed: int) -> list[Miner]:
    """The learners that judge for an arm; none where it does not mine.

    Without real images in its training the main learner judges them all: it has seen none.

    Raises:
        UserError: there are too few images.
    """
    if not arm.mines:
        return []
    if not arm.real:
        return [Miner("main", torch.arange(0), real)]
    if settings.split == "held_out":
        rest, held = held_out(real, settings.share, seed)
        return [Miner("main", _positions(rest, real), held)]
    if settings.split == "bagging":
        drawn = bags(real, settings.folds, seed)
        return [Miner(f"bag-{k}", torch.tensor(bag), rest) for k, (bag, rest) in enumerate(drawn)]
    pieces = folds(real, settings.folds, seed)
    return [
        Miner(f"fold-{k}", _positions(rest, real), fold) for k, (rest, fold) in enumerate(pieces)
    ]


@dataclass(frozen=True)
class Judged:
    """A real image as a learner sees it that was not trained on it.

    Args:
        id: of the image.
        label: its class id.
        loss: cross-entropy, in nats.
        wrong: misclassified?
    """

    id: str
    label: int
    loss: float
    wrong: bool


def mine(
    judged: Sequence[Judged], budget: int, settings: MiningSettings, rng: np.random.Generator
) -> list[Judged]:
    """``budget`` references, no image much more often than others.

    A class's part of the budget goes by its mistakes and ``settings.balance``. Within a class the
    mistakes come in random order, again and again up to ``max_repeats``; where they do not suffice,
    the correctly classified ones with the highest losses follow. Fewer than ``budget`` come back
    only when every image was used ``max_repeats`` times.
    """
    queues = {
        label: _queue([j for j in judged if j.label == label], settings, rng)
        for label in sorted({j.label for j in judged})
    }
    mistakes = {
        label: max(sum(j.wrong for j in judged if j.label == label), 0.5) for label in queues
    }
    weights = {label: of ** (1 - settings.balance) for label, of in mistakes.items()}
    chosen: list[Judged] = []
    taken = dict.fromkeys(queues, 0)
    while len(chosen) < budget:
        open_labels = [label for label in queues if taken[label] < len(queues[label])]
        if not open_labels:
            break
        label = min(open_labels, key=lambda k: ((taken[k] + 1) / weights[k], k))
        chosen.append(queues[label][taken[label]])
        taken[label] += 1
    return chosen


def _queue(
    judged: list[Judged], settings: MiningSettings, rng: np.random.Generator
) -> list[Judged]:
    """One class's references in the order in which they are used."""
    wrong = sorted((j for j in judged if j.wrong), key=lambda j: (j.loss, j.id))
    wrong = wrong[: len(wrong) - int(len(wrong) * settings.drop_highest)]
    right = sorted((j for j in judged if not j.wrong), key=lambda j: (-j.loss, j.id))
    turns = [wrong[i] for _ in range(settings.max_repeats) for i in rng.permutation(len(wrong))]
    return turns + right * settings.max_repeats


def _positions(part: Real, whole: Real) -> Int[Tensor, " n"]:
    return torch.tensor([whole.index_of(id) for id in part.ids])
