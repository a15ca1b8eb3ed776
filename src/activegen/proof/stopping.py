"""When to stop steering: guided has been given its chance and is not beating unguided."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from activegen.proof.intervals import LEVEL
from activegen.proof.student import quantile
from activegen.records import UserError


@dataclass(frozen=True)
class StopRule:
    """Declared before the first round; ours.

    After each round from ``least`` on, stop where the upper end of the one-sided interval of the
    mean paired difference (Student's t over rounds) is below ``margin``. The error of 5 % is shared
    evenly by all looks there may be (Bonferroni), so a guided arm that is ahead by ``margin`` or
    more is stopped in at most 5 % of loops, however many rounds are looked at.

    Simulated with independent normal rounds, a margin of one standard deviation of the differences
    and 12 rounds: stopped were 2 % of guided arms that are ahead by the margin, none of those ahead
    by twice as much, 73 % of those no better than unguided and all that are worse by the margin.
    Rounds that hang together by a correlation of 0.5 from one to the next raise the 2 % to 13 %,
    so let the learner of each round start anew.

    Args:
        rounds: there will be at most.
        margin: smallest gain that is worth the steering, in units of the figure.
        least: rounds before the first look, at least 2.

    Raises:
        UserError: a value out of its range.
    """

    rounds: int
    margin: float = 0.005
    least: int = 3

    def __post_init__(self):
        if not 2 <= self.least <= self.rounds:
            raise UserError("a stop rule needs 2 <= least <= rounds")
        if not 0 <= self.margin < math.inf:
            raise UserError("the margin of a stop rule is a gain: 0 or more")


@dataclass(frozen=True)
class Standing:
    """How guided stands against unguided.

    Args:
        stop: guided is not beating unguided, and generating may end.
        rounds: seen so far.
        difference: mean of guided minus unguided.
        upper: it is not above this, as far as the rule can tell; None before the first look.
        margin: of the rule.
    """

    stop: bool
    rounds: int
    difference: float
    upper: float | None
    margin: float

    @property
    def words(self) -> str:
        """One sentence; a point is a hundredth."""
        told = (
            f"{100 * self.difference:+.1f} points from unguided as a mean of {self.rounds} rounds"
        )
        if self.upper is None:
            return f"{told}: too early to tell."
        told += f", at most {100 * self.upper:+.1f}"
        if self.stop:
            return f"{told}, less than {100 * self.margin:.1f}: not beating it, stop generating."
        return f"{told}: go on."


def standing(guided: Sequence[float], unguided: Sequence[float], rule: StopRule) -> Standing:
    """After the last of the rounds that are given, in their order.

    Raises:
        UserError: no rounds, more than the rule has, not as many of both, or a figure that is not
            a number.
    """
    if len(guided) != len(unguided) or not 1 <= len(guided) <= rule.rounds:
        raise UserError(
            f"the stop rule is for 1 to {rule.rounds} rounds of both arms;"
            f" there are {len(guided)} guided and {len(unguided)} unguided"
        )
    differences = np.subtract(guided, unguided, dtype=float)
    if not np.isfinite(differences).all():
        raise UserError("the stop rule needs a number for each round of both arms")
    count, mean = len(differences), float(differences.mean())
    if count < rule.least:
        return Standing(False, count, mean, None, rule.margin)
    looks = rule.rounds - rule.least + 1
    level = 1 - (1 - LEVEL) / looks
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    upper = mean + quantile(level, count - 1) * error
    return Standing(upper < rule.margin, count, mean, upper, rule.margin)
