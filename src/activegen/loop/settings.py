"""Settings of the rounds, and of the arms of a comparison."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from activegen.records import UserError, choose
from activegen.scores import SCORES


@dataclass(frozen=True)
class LoopSettings:
    """The rounds.

    Args:
        rounds: how often train and generate take turns; the last never generates.
        generate_until: share of the rounds, from the first, that generate; in the paper half.
        restart: each round trains a new learner for all steps, instead of going on.
        batch: images drawn together; does not change any image beyond float tolerance.
        micro_batch: images of these whose gradient is taken at once, 0 = all: less takes less
            memory, and does not change any image beyond float tolerance.
        evaluate_every: rounds between evaluations on the test images; the last always is one.
        drop_at: progress of the drawing at which the judge of labels looks at what would come of
            it; what it rejects is not finished. Null finishes all.
        overlap: draw the images of a round while the next one trains. They are trained on from the
            round after that one on: each learner lacks the images of one more round. Needs at
            least two rounds that only train.
        workers: processes that draw; 0 draws in this one, or with ``overlap`` in one more. They
            share this one's threads, and decide about no image.

    Raises:
        UserError: a value out of its range, or images that would come too late.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    rounds: int = 10
    generate_until: float = 0.5
    restart: bool = False
    batch: int = 16
    micro_batch: int = 4
    evaluate_every: int = 1
    drop_at: float | None = None
    overlap: bool = False
    workers: int = 0

    def __post_init__(self):
        if min(self.rounds, self.batch, self.evaluate_every) < 1:
            raise UserError("loop: rounds, batch and evaluate_every must be at least 1")
        if not 0 <= self.generate_until <= 1:
            raise UserError("loop.generate_until must be between 0 and 1")
        if self.micro_batch < 0:
            raise UserError(
                f"loop.micro_batch is {self.micro_batch}; give the images whose gradient is taken "
                "at once, or 0 for all of a batch"
            )
        if self.drop_at is not None and not 0 < self.drop_at < 1:
            raise UserError("loop.drop_at is a share of the drawing, between 0 and 1, or null")
        if self.workers < 0:
            raise UserError(f"loop.workers is {self.workers}; give 0 or more processes")
        if self.overlap and 0 < self.generating > self.rounds - 2:
            raise UserError(
                f"loop.overlap: images of the last of {self.generating} rounds that generate would "
                f"come too late for {self.rounds} rounds of training; give more loop.rounds or a "
                "smaller loop.generate_until, so that two rounds only train"
            )

    @property
    def generating(self) -> int:
        """How many rounds generate."""
        return min(int(self.rounds * self.generate_until + 0.5), self.rounds - 1)

    @property
    def staleness(self) -> int:
        """Rounds that a round's images wait before they are trained on."""
        return int(self.overlap)

    @property
    def processes(self) -> int:
        """How many draw, beside this one."""
        return max(self.workers, int(self.overlap))


@dataclass(frozen=True)
class ArmSettings:
    """What one arm of a comparison does; all have the same optimiser steps.

    All have the same labelled real images too, but those that say otherwise here.

    Args:
        generate: "none", "plain" (without knowing the learner), "selected" (the best of several
            plain ones, as in pool-based active learning) or "guided" (from mistakes).
        judge: check labels and copies; without, only what is no picture or leaks is rejected.
        pool: candidates for each image of a "selected" arm, as 4 or 2.5; `candidates` in all.
        by: the score that they are ranked by, a name in ``scores.SCORES``.
        of: whose score it is, the "learner" or the "committee" of it and those that mine.
        way: how a "guided" arm draws all that it does not draw plainly, a name in the recipe's
            guidance; None draws as the recipe's proposal says, in the ways "guided" and
            "adversarial".
        real: train on the real images. Without, they are only mined and prompted from, and by the
            learner itself, since it has seen none of them; it waits for the first images.
        more_real: labelled real images beyond the recipe's, of each class, or of masks in all.
        changes: values of the recipe's keys that are otherwise in this arm, as
            ``{"training.augmentation": "photo"}``; ``recipes.schema.CHANGEABLE`` has the keys.
        after: the arm that this one is a step from, in tables; empty is none. By default the last
            before it that generates, with the same real images and changed keys.

    Raises:
        UserError: a value out of its range, or one that says nothing of such an arm.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    generate: str = "guided"
    judge: bool = True
    pool: int | float = 4
    by: str = "entropy"
    of: str = "learner"
    way: str | None = None
    real: bool = True
    more_real: int = 0
    changes: dict[str, Any] = field(default_factory=dict, hash=False)
    after: str | None = field(default=None, compare=False)

    def __post_init__(self):
        if self.generate not in ("none", "plain", "selected", "guided"):
            raise UserError(
                f"an arm generates none, plain, selected or guided; not '{self.generate}'"
            )
        if not 1 <= self.pool < math.inf:
            raise UserError(f"an arm's pool is {self.pool}; give at least 1 candidate an image")
        if self.pool == int(self.pool):  # so that 4.0 and 4 are one fingerprint
            object.__setattr__(self, "pool", int(self.pool))
        if self.of not in ("learner", "committee"):
            raise UserError(f"a score is of the learner or the committee; not of '{self.of}'")
        if choose(SCORES, self.by, "score").of_several and self.of == "learner":
            raise UserError(f"the {self.by} of one learner is 0: rank by it 'of: committee'")
        if self.of == "committee" and not (self.generate == "selected" and self.real):
            raise UserError(
                "an arm ranks by the score of a committee where it generates 'selected' and has "
                "real images"
            )
        if self.way is not None and self.generate != "guided":
            raise UserError(f"an arm that generates {self.generate} has no way of guidance")
        if not self.real and (self.generate == "none" or self.more_real):
            raise UserError(
                "an arm without real images learns from generated ones alone: let it generate "
                "plain, selected or guided, and leave more_real at 0"
            )
        if self.more_real < 0:
            raise UserError(f"an arm's more_real is {self.more_real}; give 0 or more images")

    def candidates(self, budget: int) -> int:
        """Plain images of which a "selected" arm keeps so many, in each round that generates."""
        return round(self.pool * budget)

    @property
    def mines(self) -> bool:
        """Whether learners are trained that leave out a part of the real images."""
        return self.generate == "guided" or self.of == "committee"

    @property
    def ranked_by(self) -> str:
        """The name under which a sample has the score that a "selected" arm ranks by."""
        return self.by if self.of == "learner" else f"{self.by} of {self.of}"
