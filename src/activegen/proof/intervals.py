"""Confidence intervals of 95 % for a mean over seeds, and over seeds and test images.

Few seeds are the rule, so coverage was measured, by simulation (3 to 10 seeds, thousands of draws):

    interval of the mean          normal, 3   5    10 seeds    skewed (exponential), 3   5    10
    Student's t                        0.95  0.94  0.95                         0.87  0.87  0.89
    percentile bootstrap               0.75  0.83  0.91                         0.69  0.77  0.85
    BCa (Efron 1987)                   0.72  0.84  0.91                         0.67  0.80  0.87
    bootstrap-t                        none  0.95  0.95                         none  0.93  0.93

What is resampled cannot leave the range of the seeds, so with n of them a percentile interval or
BCa covers at most 1 - 2^(1 - n), and in truth less. Student's t has true coverage for the
differences of arms, which are nearly symmetric, and decides. The bootstrap-t is beside it from 5
seeds on; with fewer, too many resamples hold one seed alone.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

from activegen.proof.student import p_value, quantile

LEVEL = 0.95
SIDE = (1 + LEVEL) / 2  # probability below the upper end
BOOTSTRAP_SEEDS = 5  # with fewer, a bootstrap over seeds says nothing
RESAMPLES = 2000
TINY = 1e-9  # deviations below this are rounding
BLOCK = 1 << 20  # numbers resampled at once


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``, of 95 %."""

    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """How far the mean difference may be from the truth, by cause.

    Args:
        seeds: number of pairs.
        of_seeds: variance of the mean that other seeds would show on the same test images.
        of_images: variance that other test images would add; 0 where they are taken as given.
    """

    seeds: int
    of_seeds: float
    of_images: float = 0.0

    def reach(self, p: float) -> float:
        """Half the width of the interval that leaves out the truth with probability ``p``.

        Of two independent parts, sqrt(reach_1² + reach_2²): Zou and Donner (2008), "Construction of
        confidence limits about effect measures". That of the seeds has Student's t, that of the
        images, which are many, the normal distribution. Covered 0.93 to 0.97 of simulated
        comparisons with 2 to 10 seeds and 200 or 800 images, of which Satterthwaite's degrees of
        freedom covered 0.91 to 0.98, and the seeds alone 0.87 to 0.97. The choice is ours.
        """
        return self._reach(quantile(1 - p / 2, self.seeds - 1), p)

    def p_value(self, mean: float) -> float:
        """The ``p`` whose interval about ``mean`` begins or ends at 0, to 1e-12."""
        low, high = 0.0, abs(mean) / math.sqrt(self.of_seeds)
        while self.of_images and high - low > 1e-9 * high:
            t = (low + high) / 2
            reached = self._reach(t, p_value(t, self.seeds - 1)) < abs(mean)
            low, high = (t, high) if reached else (low, t)
        return p_value(high, self.seeds - 1)

    def _reach(self, student: float, p: float) -> float:
        normal = NormalDist().inv_cdf(1 - max(p, 1e-12) / 2)
        return math.sqrt(student**2 * self.of_seeds + normal**2 * self.of_images)


def spread_over_seeds(differences: Float[np.ndarray, " seeds"]) -> Spread:
    """Of the mean over seeds; the test images are taken as given."""
    return Spread(len(differences), float(differences.var(ddof=1)) / len(differences))


def spread_over_images(differences: Float[np.ndarray, "seeds images"]) -> Spread:
    """Of the mean over seeds and images, every seed being tested on the same images.

    Variance components of the crossed design difference = mean + seed + image + rest, by the mean
    squares of the analysis of variance; a negative one is 0. Searle, Casella and McCulloch (1992),
    "Variance Components", chapter 4.
    """
    seeds, images = differences.shape
    mean, of_seed, of_image = differences.mean(), differences.mean(1), differences.mean(0)
    rest = differences - of_seed[:, None] - of_image + mean
    mean_square = (rest**2).sum() / ((seeds - 1) * (images - 1))
    excess = seeds * of_image.var(ddof=1) - mean_square
    of_images = max(0.0, float(excess)) / (seeds * images)
    return Spread(seeds, spread_over_seeds(of_seed).of_seeds, of_images)


def bootstrap_t(
    differences: Float[np.ndarray, " seeds"], resamples: int = RESAMPLES
) -> Interval | None:
    """Interval of the mean by resampled t statistics; None where it has no ends.

    Efron and Tibshirani (1993), "An Introduction to the Bootstrap", section 12.5. A resample of
    one value alone has an infinite t, so there are no ends with fewer than 5 seeds, nor where too
    many seeds have the same difference.
    """
    count = len(differences)
    if count < BOOTSTRAP_SEEDS:
        return None
    mean, error = differences.mean(), differences.std(ddof=1) / math.sqrt(count)
    drawn = differences[np.random.default_rng(0).integers(count, size=(resamples, count))]
    away = drawn.mean(1) - mean
    errors = drawn.std(1, ddof=1) / math.sqrt(count)
    t = np.where(errors > TINY, away / errors.clip(TINY), np.copysign(np.inf, away))
    low, high = np.quantile(t, [1 - SIDE, SIDE], method="inverted_cdf")
    if not np.isfinite([low, high]).all():
        return None
    return Interval(float(mean - high * error), float(mean - low * error))


def bootstrap_crossed(
    differences: Float[np.ndarray, "seeds images"], resamples: int = RESAMPLES
) -> Interval | None:
    """Interval of the mean by resampling seeds and, apart, images; None with fewer than 5 seeds.

    Percentiles of Owen (2007), "The pigeonhole bootstrap", for a crossed design: images are not
    nested in seeds, since all seeds are tested on the same ones. It is too wide where single
    answers are noise, which it counts three times, and too narrow where seeds differ most: with 5
    seeds it covered 0.95 to 0.99 of simulated comparisons, and tends to 0.83 where seeds are all.
    """
    seeds, images = differences.shape
    if seeds < BOOTSTRAP_SEEDS:
        return None
    rng = np.random.default_rng(0)
    means = []
    for start in range(0, resamples, BLOCK // images + 1):
        size = min(BLOCK // images + 1, resamples - start)
        seed_share = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size) / seeds
        image_share = rng.multinomial(images, np.full(images, 1 / images), size) / images
        means.append(((seed_share @ differences) * image_share).sum(1))
    low, high = np.quantile(np.concatenate(means), [1 - SIDE, SIDE])
    return Interval(float(low), float(high))
