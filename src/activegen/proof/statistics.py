"""Whether one arm is better than another: paired differences over seeds, and a plain verdict.

    verdicts = holm([compare(figures, arm, "unguided") for arm in ("guided", "guided + judge")])
    print(verdicts[0].words)

Pairs are two arms with the same seed, so what a seed does to both cancels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from activegen.proof.intervals import (
    LEVEL,
    TINY,
    Interval,
    Spread,
    bootstrap_t,
    spread_over_seeds,
)
from activegen.records import UserError, choose

Figures = Mapping[int, float]  # by seed

POWER = 0.8  # with which the needed seeds would show the difference
HELPS, NO_DIFFERENCE, HURTS = "helps", "no difference shown", "hurts"
TOO_FEW = "too few seeds"


@dataclass(frozen=True)
class Comparison:
    """What the figures of an arm say against those of a baseline.

    Args:
        arm: the one that is asked about.
        baseline: the one that it is compared with.
        seeds: the pairs.
        difference: mean of arm minus baseline.
        verdict: "helps", "no difference shown", "hurts" or "too few seeds" (one pair).
        interval: of the difference, by Student's t; of this comparison alone, whatever the others.
            None with one seed, and where all seeds show the same difference, which leaves nothing
            to tell its error by.
        bootstrap: the same by a bootstrap, to look at; None with fewer than 5 seeds, or too many
            that say the same.
        p_value: probability of a difference this far from 0 if there is none; of this alone.
        adjusted_p: the same, corrected for all comparisons given to `holm`; decides.
        comparisons: how many those are.
        deviation: standard deviation of the paired differences over seeds.
        seeds_needed: to show the measured difference in 80 % of repetitions, at the level that
            decided; infinite where there is no difference.
    """

    arm: str
    baseline: str
    seeds: tuple[int, ...]
    difference: float
    verdict: str = TOO_FEW
    interval: Interval | None = None
    bootstrap: Interval | None = None
    p_value: float | None = None
    adjusted_p: float | None = None
    comparisons: int = 1
    deviation: float | None = None
    seeds_needed: float | None = None

    @property
    def words(self) -> str:
        """One sentence; a point is a hundredth."""
        told = f"{self.arm} against {self.baseline}: {self.verdict}, {100 * self.difference:+.1f}"
        if self.adjusted_p is None:
            return f"{told} points with one seed; run at least two."
        told += f" points, {self._reach()}, p = {self.adjusted_p:.2g}"
        if self.comparisons > 1:
            told += f" after Holm's correction for {self.comparisons} comparisons"
        return f"{told}.{self._advice()}"

    def _reach(self) -> str:
        if self.interval is None:
            return f"the same with all {len(self.seeds)} seeds"
        ends = f"{100 * self.interval.low:+.1f} to {100 * self.interval.high:+.1f}"
        return f"{ends} with {100 * LEVEL:.0f} % confidence, {len(self.seeds)} seeds"

    def _advice(self) -> str:
        if self.verdict != NO_DIFFERENCE or self.seeds_needed is None:
            return ""
        if self.seeds_needed == math.inf:
            return " No number of seeds would show it on these test images."
        return f" About {self.seeds_needed:.0f} seeds would show it, if it is as measured."


def compare(figures: Mapping[str, Figures], arm: str, baseline: str) -> Comparison:
    """The figures of two arms; test images are taken as given, and of others nothing is said.

    Raises:
        UserError: an unknown arm; no seeds, others for one arm than for the other, or a figure
            that is not a number.
    """
    ours, theirs = (choose(figures, name, "arm") for name in (arm, baseline))
    seeds = _paired(ours, theirs, arm, baseline)
    differences = np.array([ours[seed] - theirs[seed] for seed in seeds], dtype=float)
    _check_finite(differences, seeds, arm, baseline)
    mean = float(differences.mean())
    if len(seeds) < 2:
        return Comparison(arm, baseline, seeds, mean)
    deviation = float(differences.std(ddof=1))
    spread = spread_over_seeds(differences)
    reach = spread.reach(1 - LEVEL)
    p = _p_value(mean, deviation, spread)
    telling = deviation > TINY or abs(mean) <= TINY
    found = Comparison(
        arm=arm,
        baseline=baseline,
        seeds=seeds,
        difference=mean,
        verdict=_verdict(mean, p),
        interval=Interval(mean - reach, mean + reach) if telling else None,
        bootstrap=bootstrap_t(differences),
        p_value=p,
        adjusted_p=p,
        deviation=deviation,
    )
    return replace(found, seeds_needed=_needed(found, 1 - LEVEL, p))


def holm(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The same with verdicts that hold together: in 95 % of cases none of them is false.

    Holm (1979), "A simple sequentially rejective multiple test procedure". Comparisons with too
    few seeds test nothing and do not count. The seeds that a comparison needs are those for its
    place among the others, as they are.
    """
    p_values = {i: c.p_value for i, c in enumerate(comparisons) if c.p_value is not None}
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    result, highest = list(comparisons), 0.0
    for rank, (i, p) in enumerate(ordered):
        left, of = len(ordered) - rank, comparisons[i]
        highest = max(highest, min(1.0, p * left))
        result[i] = replace(
            of,
            adjusted_p=highest,
            comparisons=len(ordered),
            verdict=_verdict(of.difference, highest),
            seeds_needed=_needed(of, (1 - LEVEL) / left, highest),
        )
    return tuple(result)


def seeds_needed(difference: float, deviation: float, level: float = 1 - LEVEL) -> float:
    """Pairs with which a true difference is shown, at 5 %, with a probability of 80 %.

        n = (z_0.975 + z_0.8)² (deviation / difference)² + z_0.975² / 2

    Guenther (1981), "Sample size formulas for normal theory t tests"; at most one pair too few.

    Args:
        difference: the true one.
        deviation: of the paired differences over seeds.
        level: at which it shall be shown.

    >>> seeds_needed(0.01, 0.01), seeds_needed(0.0, 0.01)
    (10.0, inf)
    """
    side, power = NormalDist().inv_cdf(1 - level / 2), NormalDist().inv_cdf(POWER)
    if difference == 0:
        return math.inf
    if deviation <= TINY:
        return float(1 + math.ceil(-math.log2(level)))
    return float(math.ceil(((side + power) * deviation / difference) ** 2 + side**2 / 2))


def _needed(of: Comparison, level: float, p: float) -> float | None:
    """More than there are, where these do not show it."""
    if of.deviation is None:
        return None
    found = seeds_needed(of.difference, of.deviation, level)
    return found if p <= 1 - LEVEL else max(found, len(of.seeds) + 1.0)


def _p_value(mean: float, deviation: float, spread: Spread) -> float:
    """Seeds that all say the same leave nothing to measure by; then the signs decide. Ours."""
    if deviation > TINY:
        return spread.p_value(mean)
    return 2.0 ** (1 - spread.seeds) if abs(mean) > TINY else 1.0


def _verdict(difference: float, p: float) -> str:
    if p > 1 - LEVEL:
        return NO_DIFFERENCE
    return HELPS if difference > 0 else HURTS


def _paired(ours: Mapping, theirs: Mapping, arm: str, baseline: str) -> tuple[int, ...]:
    alone = {arm: sorted(set(ours) - set(theirs)), baseline: sorted(set(theirs) - set(ours))}
    told = [f"{name} alone has {', '.join(map(str, s))}" for name, s in alone.items() if s]
    if told:
        raise UserError(f"seeds are not paired: {'; '.join(told)}; run both with the same seeds")
    if not ours:
        raise UserError(f"{arm} and {baseline} have no seeds; run them first")
    return tuple(sorted(ours))


def _check_finite(
    differences: Float[np.ndarray, " seeds"], seeds: tuple[int, ...], arm: str, baseline: str
) -> None:
    broken = [str(s) for s, of in zip(seeds, differences, strict=True) if not math.isfinite(of)]
    if broken:
        raise UserError(f"{arm} or {baseline} has no number for seed {', '.join(broken)}")
