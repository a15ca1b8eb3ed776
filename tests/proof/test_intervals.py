import math
from statistics import NormalDist

import numpy as np
import pytest

from activegen.proof.intervals import (
    Spread,
    bootstrap_crossed,
    bootstrap_t,
    spread_over_images,
    spread_over_seeds,
)

MADE = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
}


def answers(rng, seeds=5, images=200, shift=0.0, of_images=1.0, of_seeds=0.1):
    """Right or wrong, of two arms whose images differ in how much they gain."""
    easy = rng.normal(0.8, 1.5, images)
    gain = rng.normal(shift, of_images, images)
    odds = np.stack([easy + gain, easy])[:, None] + rng.normal(0, of_seeds, (2, seeds, 1))
    right = (rng.random((2, seeds, images)) < 1 / (1 + np.exp(-odds))).astype(float)
    return right[0] - right[1]


def test_seeds_by_hand():
    spread = spread_over_seeds(np.array([0.01, 0.02, 0.03]))
    assert (spread.seeds, spread.of_images) == (3, 0)
    assert spread.of_seeds == pytest.approx(0.01**2 / 3)
    assert spread.reach(0.05) == pytest.approx(4.30265 * 0.01 / math.sqrt(3), rel=1e-5)
    assert spread.p_value(0.02) == pytest.approx(0.0742, abs=1e-4)


def test_images_by_hand():
    spread = spread_over_images(np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert (spread.of_seeds, spread.of_images) == (0, 0.25)
    assert spread.reach(0.05) == pytest.approx(1.959964 * 0.5)
    noise = spread_over_images(np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert noise.of_images == 0  # its mean squares are equal


def test_other_images_widen_never_narrow():
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = answers(rng)
        alone, both = spread_over_seeds(drawn.mean(1)), spread_over_images(drawn)
        assert both.of_seeds == pytest.approx(alone.of_seeds)
        assert both.reach(0.05) >= alone.reach(0.05)


def test_p_is_where_the_interval_begins_at_zero():
    spread = Spread(5, 1e-4, 2e-4)
    for mean in (0.01, 0.03, 0.1):
        assert spread.reach(spread.p_value(mean)) == pytest.approx(mean, rel=1e-6)
    nearly = Spread(5, 1e-4, 1e-16)
    assert nearly.p_value(0.03) == pytest.approx(Spread(5, 1e-4).p_value(0.03), rel=1e-6)


def test_what_resampling_seeds_and_images_covers():
    rng = np.random.default_rng(0)
    drawn = [answers(rng, of_images=2.0, of_seeds=0.02) for _ in range(400)]
    spreads = [spread_over_images(one) for one in drawn]
    away = np.array([one.mean() for one in drawn])
    truth = away.mean()  # of all seeds and images
    crossed = np.mean([abs(a - truth) <= s.reach(0.05) for a, s in zip(away, spreads, strict=True)])
    alone = [spread_over_seeds(one.mean(1)).reach(0.05) for one in drawn]
    assert 0.93 <= crossed <= 0.98
    assert (np.abs(away - truth) <= alone).mean() < 0.91  # why images count


def test_bootstrap_t_of_symmetric_figures_is_near_student():
    drawn = np.random.default_rng(0).normal(0.02, 0.01, 30)
    found, reach = bootstrap_t(drawn), spread_over_seeds(drawn).reach(0.05)
    assert found.low == pytest.approx(drawn.mean() - reach, abs=0.2 * reach)
    assert found.high == pytest.approx(drawn.mean() + reach, abs=0.2 * reach)


def test_bootstrap_t_leans_where_the_figures_do():
    drawn = np.random.default_rng(0).exponential(size=20)
    found = bootstrap_t(drawn)
    assert found.high - drawn.mean() > 1.3 * (drawn.mean() - found.low)


def test_bootstrap_of_seeds_and_images_has_their_deviation():
    drawn = answers(np.random.default_rng(0), seeds=40, images=600)
    found, spread = bootstrap_crossed(drawn), spread_over_images(drawn)
    width = 2 * NormalDist().inv_cdf(0.975) * math.sqrt(spread.of_seeds + spread.of_images)
    assert found.high - found.low == pytest.approx(width, rel=0.15)
    assert found.low < drawn.mean() < found.high
    assert bootstrap_crossed(drawn) == found


def test_few_seeds_are_not_resampled():
    assert bootstrap_t(np.array([0.1, 0.2, 0.4, 0.5])) is None
    assert bootstrap_t(np.array([0.1, 0.1, 0.1, 0.1, 0.5])) is None
    assert bootstrap_t(np.full(9, 0.1)) is None
    assert bootstrap_crossed(np.ones((4, 9))) is None


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


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize(
    ("of_seeds", "of_images"), [(0.1, 0.0), (0.1, 0.7), (0.02, 1.0), (0.3, 0.3)]
)
def test_coverage_of_seeds_and_images(seeds, of_seeds, of_images):
    rng = np.random.default_rng(seeds)
    drawn = [answers(rng, seeds, 400, 0.2, of_images, of_seeds) for _ in range(1500)]
    truth = np.mean([one.mean() for one in drawn])
    reach = np.array([spread_over_images(one).reach(0.05) for one in drawn])
    away = np.array([abs(one.mean() - truth) for one in drawn])
    assert 0.93 <= (away <= reach).mean() <= 0.985


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
