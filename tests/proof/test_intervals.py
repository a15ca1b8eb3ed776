import math
from statistics import NormalDist

import numpy as np
import pytest

from activegen.proof.intervals import bootstrap_t, spread_over_seeds

MADE = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
}


def test_seeds_by_hand():
    spread = spread_over_seeds(np.array([0.01, 0.02, 0.03]))
    assert spread.seeds == 3 and spread.error == pytest.approx(0.01 / math.sqrt(3))
    assert spread.reach(0.05) == pytest.approx(4.30265 * 0.01 / math.sqrt(3), rel=1e-5)
    assert spread.p_value(0.02) == pytest.approx(0.0742, abs=1e-4)
    assert spread.reach(spread.p_value(0.02)) == pytest.approx(0.02)  # where it begins at 0


def test_bootstrap_t_of_symmetric_figures_is_near_student():
    drawn = np.random.default_rng(0).normal(0.02, 0.01, 30)
    found, reach = bootstrap_t(drawn), spread_over_seeds(drawn).reach(0.05)
    assert found.low == pytest.approx(drawn.mean() - reach, abs=0.2 * reach)
    assert found.high == pytest.approx(drawn.mean() + reach, abs=0.2 * reach)


def test_bootstrap_t_leans_where_the_figures_do():
    drawn = np.random.default_rng(0).exponential(size=20)
    found = bootstrap_t(drawn)
    assert found.high - drawn.mean() > 1.3 * (drawn.mean() - found.low)


def test_few_seeds_are_not_resampled():
    assert bootstrap_t(np.array([0.1, 0.2, 0.4, 0.5])) is None
    assert bootstrap_t(np.array([0.1, 0.1, 0.1, 0.1, 0.5])) is None
    assert bootstrap_t(np.full(9, 0.1)) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(MADE))
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_coverage_that_made_student_decide(kind, seeds):
    drawn = MADE[kind](np.random.default_rng(seeds), (3000, seeds))
    student = np.mean([abs(one.mean()) <= spread_over_seeds(one).reach(0.05) for one in drawn])
    percentile, bca = resampled(drawn)
    assert student >= (0.94 if kind == "normal" else 0.86)
    assert max(percentile, bca) < min(student, 0.93)
    if seeds >= 5:
        intervals = [bootstrap_t(one, 1000) for one in drawn]
        assert np.mean([found.low <= 0 <= found.high for found in intervals]) >= 0.9


def resampled(drawn):
    """Coverage of percentiles and of BCa (Efron 1987), about 0."""
    rng, normal = np.random.default_rng(0), NormalDist()
    covered = np.zeros(2)
    for one in drawn:
        means = np.sort(one[rng.integers(len(one), size=(1000, len(one)))].mean(1))
        low, high = np.quantile(means, [0.025, 0.975])
        below = ((means < one.mean()).mean() + (means <= one.mean()).mean()) / 2
        bias = normal.inv_cdf(min(max(below, 1e-3), 1 - 1e-3))
        rest = one - one.mean()
        bend = (rest**3).sum() / (6 * (rest**2).sum() ** 1.5)
        ends = [bias + (bias + z) / (1 - bend * (bias + z)) for z in (-1.959964, 1.959964)]
        bca = np.quantile(means, [normal.cdf(end) for end in ends])
        covered += [low <= 0 <= high, bca[0] <= 0 <= bca[1]]
    return covered / len(drawn)
