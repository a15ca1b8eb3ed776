"""Learning curves: what so many images, or so many seconds, are good for."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from activegen.proof.intervals import LEVEL, RESAMPLES, SIDE, TINY, spread_over_seeds
from activegen.proof.student import quantile
from activegen.records import UserError

NORMAL = 1.959964  # Student's quantile with infinitely many seeds


@dataclass(frozen=True)
class Track:
    """One seed's way.

    Args:
        amounts: synthetic images, real images or seconds so far; rising.
        figures: what was reached with each, 0 to 1.

    Raises:
        UserError: no points, unequal numbers of them, amounts that do not rise, or no number.
    """

    amounts: tuple[float, ...]
    figures: tuple[float, ...]

    def __post_init__(self):
        if not self.amounts or len(self.amounts) != len(self.figures):
            raise UserError("a curve needs one figure for each amount, and at least one")
        if not np.isfinite(self.amounts + self.figures).all() or (np.diff(self.amounts) <= 0).any():
            raise UserError("the amounts of a curve must be rising, and its figures numbers")


@dataclass(frozen=True)
class Curve:
    """The mean over seeds, and its interval of 95 % at each amount alone.

    Args:
        amounts: rising.
        mean: of the figure.
        low: lower ends by Student's t; None with one seed.
        high: upper ends; None with one seed.
        seeds: those that it is over.
    """

    amounts: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Amount:
    """How much it takes.

    Args:
        value: None where it was not reached with all that was measured.
        low: it takes at least this, with 95 % confidence on both sides; None with one seed, or
            where not even that was reached.
        high: it takes at most this; None with one seed, or where that was not reached.
        at_most: the curve is there from its first amount on, so less than the value may do.
        at_least: so of a number that this is divided by.
    """

    value: float | None
    low: float | None
    high: float | None
    at_most: bool = False
    at_least: bool = False


def curve(tracks: Mapping[int, Track]) -> Curve:
    """Over seeds, at all their amounts that lie within what every seed has measured.

    Between its points a seed's way is straight; where all seeds have the same amounts, as they do
    for images though not for seconds, nothing is put in between.

    Raises:
        UserError: no seeds, or none of their amounts lies in what all have measured.
    """
    amounts, figures = _on_one_grid(tracks)
    mean, seeds = figures.mean(0), tuple(sorted(tracks))
    low = high = None
    if len(seeds) > 1:
        reach = np.array([spread_over_seeds(column).reach(1 - LEVEL) for column in figures.T])
        low, high = tuple((mean - reach).tolist()), tuple((mean + reach).tolist())
    return Curve(tuple(amounts.tolist()), tuple(mean.tolist()), low, high, seeds)


def amount_needed(
    tracks: Mapping[int, Track],
    figure: float | Mapping[int, float],
    resamples: int = RESAMPLES,
) -> Amount:
    """How much it takes to reach a figure: images, or seconds, as the tracks have it.

    Where the rising curve nearest to the mean over seeds (isotonic regression, Barlow et al.
    (1972)), straight between its points, first has the figure. The first crossing of the mean
    itself would come too early, by a point that is high by chance. A curve that starts there needs
    its first amount at most, and an interval that reaches down to it reaches to 0.

    The interval is a percentile bootstrap over seeds, whose curves are moved away from the mean by
    the factor t / z · sqrt(n / (n - 1)), because n seeds resampled vary too little. The factor is
    that of the expanded percentiles of Hesterberg (2015), "What Teachers Should Know About the
    Bootstrap"; that it widens the curves instead is ours. Covered 0.91 to 0.96 of simulated curves
    with 3 to 10 seeds, 0.86 to 0.92 with 2; with figures by seed 0.92 to 0.95 with 3 to 10.

    Args:
        tracks: of the arm whose amount it is.
        figure: to reach; by seed, it is the mean over them, and pairs of seeds are resampled
            together, so that the interval counts what is not known of the figure itself.

    Raises:
        UserError: as `curve`; or figures of other seeds than the tracks'.
    """
    amounts, figures = _on_one_grid(tracks)
    if isinstance(figure, Mapping):
        _check_paired(tracks, figure)
        aims = [figure[seed] for seed in sorted(tracks)]
    else:
        aims = [figure] * len(figures)
    drawn = _resampled(np.column_stack([figures, aims]), resamples)
    return _told(_crossing(amounts, drawn[:, :-1], drawn[:, -1]), amounts[0])


def times_fewer(needed: Amount, count: float) -> Amount | None:
    """How many times as many images as were needed a count is; None where none were needed.

    A lower end that is not known is 0.

    >>> times_fewer(Amount(200.0, 150.0, None), 600)
    Amount(value=3.0, low=0.0, high=4.0, at_most=False, at_least=False)
    """
    if needed.value == 0:
        return None

    def over(amount: float | None) -> float | None:
        return count / amount if amount else None

    low = over(needed.high)
    if needed.low is not None and low is None:
        low = 0.0
    return Amount(over(needed.value), low, over(needed.low), at_least=needed.at_most)


def worth(
    tracks: Mapping[int, Track],
    other: Mapping[int, Track],
    amount: float | None = None,
    resamples: int = RESAMPLES,
) -> Amount:
    """How many of the other's images one of these is worth.

    What the other needs to come as far as these have with ``amount``, over ``amount``. With an arm
    of more real images as the other: how many real images a synthetic one is worth. With unguided
    as the other: how many times as many images unguided needs. Pairs of seeds are resampled
    together; curves and interval are those of `amount_needed`.

    Args:
        tracks: of the arm whose images are valued.
        other: of the arm in whose images; where it begins above 0, a small worth is an upper bound.
        amount: by default the last that all seeds of ``tracks`` have.

    Raises:
        UserError: as `curve`; unpaired seeds, or an amount that is not above 0 or was not measured.
    """
    _check_paired(tracks, other)
    amounts, figures = _on_one_grid(tracks)
    other_amounts, other_figures = _on_one_grid(other)
    at = float(amounts[-1] if amount is None else amount)
    if not max(0.0, amounts[0]) <= at <= amounts[-1] or at == 0:
        raise UserError(
            f"the curve is measured from {amounts[0]:g} to {amounts[-1]:g}, not at {at:g}"
        )
    ways = isotonic(_resampled(figures, resamples))
    reached = np.array([np.interp(at, amounts, way) for way in ways])
    found = _crossing(other_amounts, _resampled(other_figures, resamples), reached)
    return _told(found / at, other_amounts[0] / at)


def isotonic(values: Float[np.ndarray, "b points"]) -> Float[np.ndarray, "b points"]:
    """The nearest rising values, by least squares, of each row.

        max over i <= k of min over j >= k of mean(values_i … values_j)

    for the k-th: the max-min formula of Robertson, Wright and Dykstra (1988), "Order Restricted
    Statistical Inference", chapter 1.
    """
    sums = np.concatenate([np.zeros((len(values), 1)), values.cumsum(1)], axis=1)
    highest = np.full(values.shape, -np.inf)
    for i in range(values.shape[1]):
        means = (sums[:, i + 1 :] - sums[:, i : i + 1]) / np.arange(1, values.shape[1] - i + 1)
        lowest = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        highest[:, i:] = np.maximum(highest[:, i:], lowest)
    return highest


def _check_paired(tracks: Mapping[int, Track], other: Mapping[int, object]) -> None:
    if set(tracks) != set(other):
        alone = ", ".join(map(str, sorted(set(tracks) ^ set(other))))
        raise UserError(f"seeds are not paired: only one of the two curves has {alone}")


def _on_one_grid(
    tracks: Mapping[int, Track],
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, "seeds points"]]:
    if not tracks:
        raise UserError("a curve needs at least one seed")
    ways = [tracks[seed] for seed in sorted(tracks)]
    first, last = (max(way.amounts[0] for way in ways), min(way.amounts[-1] for way in ways))
    grid = np.unique([a for way in ways for a in way.amounts if first <= a <= last]).astype(float)
    if not len(grid):
        raise UserError("the seeds have no range of amounts in common; give them the same amounts")
    return grid, np.stack([np.interp(grid, way.amounts, way.figures) for way in ways])


def _resampled(figures: Float[np.ndarray, "seeds points"], resamples: int) -> np.ndarray:
    """Mean curves, (resamples + 1, points), the measured one first; that alone with one seed."""
    count, mean = len(figures), figures.mean(0, keepdims=True)
    if count < 2:
        return mean
    picked = np.random.default_rng(0).integers(count, size=(resamples, count))
    factor = quantile(SIDE, count - 1) / NORMAL * math.sqrt(count / (count - 1))
    return np.concatenate([mean, mean + factor * (figures[picked].mean(1) - mean)])


def _crossing(
    amounts: Float[np.ndarray, " points"],
    curves: Float[np.ndarray, "b points"],
    figures: Float[np.ndarray, " b"],
) -> Float[np.ndarray, " b"]:
    """Where each rising curve has its figure; infinite where it has not."""
    ways, rows = isotonic(curves), np.arange(len(curves))
    there = ways >= figures[:, None] - TINY
    after = there.argmax(1)
    before = (after - 1).clip(0)
    rise = ways[rows, after] - ways[rows, before]
    part = np.where(rise > 0, (figures - ways[rows, before]) / np.where(rise > 0, rise, 1), 0)
    found = amounts[before] + part * (amounts[after] - amounts[before])
    return np.where(there.any(1), found, np.inf)


def _told(amounts: Float[np.ndarray, " b"], first: float) -> Amount:
    """The measured one first, then the resampled; ``first`` is the least that was measured."""

    def known(value: np.floating) -> float | None:
        return float(value) if np.isfinite(value) else None

    at_most = bool(0 < first and amounts[0] <= first)
    if len(amounts) == 1:
        return Amount(known(amounts[0]), None, None, at_most)
    ordered = np.sort(amounts[1:])
    low, high = (ordered[round(part * (len(ordered) - 1))] for part in (1 - SIDE, SIDE))
    return Amount(known(amounts[0]), 0.0 if low <= first else known(low), known(high), at_most)
