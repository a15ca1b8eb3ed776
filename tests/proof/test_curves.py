import numpy as np
import pytest

from activegen.proof.curves import (
    Amount,
    Track,
    amount_needed,
    curve,
    isotonic,
    times_fewer,
    worth,
)
from activegen.records import UserError

AMOUNTS = (0.0, 100.0, 200.0, 400.0)


def tracks(*figures, amounts=AMOUNTS):
    return {seed: Track(amounts, tuple(row)) for seed, row in enumerate(figures)}


def saturating(scale, rng, seeds=5, noise=0.003, amounts=(0.0, 100.0, 200.0, 400.0, 700.0, 1000.0)):
    """0.7 + 0.15 (1 - exp(-amount / scale)), seeds apart by 0.01."""
    true = 0.7 + 0.15 * (1 - np.exp(-np.array(amounts) / scale))
    rows = true + rng.normal(0, 0.01, (seeds, 1)) + rng.normal(0, noise, (seeds, len(amounts)))
    return tracks(*rows.tolist(), amounts=amounts), true


def test_mean_and_interval_by_hand():
    found = curve(tracks((0.5, 0.6, 0.7, 0.8), (0.5, 0.7, 0.7, 0.9), (0.5, 0.5, 0.7, 0.7)))
    assert found.amounts == AMOUNTS and found.seeds == (0, 1, 2)
    assert found.mean == pytest.approx((0.5, 0.6, 0.7, 0.8))
    assert found.high == pytest.approx((0.5, 0.6 + 0.24841, 0.7, 0.8 + 0.24841), abs=1e-5)
    assert found.low == pytest.approx((0.5, 0.6 - 0.24841, 0.7, 0.8 - 0.24841), abs=1e-5)


def test_seconds_are_brought_to_one_grid():
    seconds = {0: Track((1.0, 3.0), (0.2, 0.4)), 1: Track((2.0, 5.0), (0.3, 0.9))}
    found = curve(seconds)
    assert found.amounts == (2, 3)
    assert found.mean == pytest.approx((0.3, (0.4 + 0.5) / 2))


def test_one_seed_has_no_interval():
    one = tracks((0.5, 0.6, 0.7, 0.8))
    assert curve(one).low is None and curve(one).high is None
    found = amount_needed(one, 0.65)
    assert found == Amount(found.value, None, None) and found.value == pytest.approx(150)


def test_pooled_by_hand():
    values = np.array([[1.0, 3.0, 2.0, 4.0], [4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
    pooled = [[1, 2.5, 2.5, 4], [2.5, 2.5, 2.5, 2.5], [1, 2, 3, 4]]
    assert isotonic(values) == pytest.approx(np.array(pooled))


def test_images_needed():
    same = [(0.5, 0.6, 0.7, 0.8)] * 3
    assert amount_needed(tracks(*same), 0.75).value == pytest.approx(300)
    assert amount_needed(tracks(*same), 0.4).value == 0  # there from the beginning
    assert amount_needed(tracks(*same), 0.81) == Amount(None, None, None)
    flat = [(0.5, 0.6, 0.6, 0.6)] * 3
    assert amount_needed(tracks(*flat), 0.6).value == pytest.approx(100)


def test_what_was_there_from_the_first_amount_on_needs_that_at_most():
    later = [Track(AMOUNTS[1:], (0.6, 0.7, 0.8 + extra)) for extra in (0.0, 0.01)]
    found = amount_needed(dict(enumerate(later)), 0.55)
    assert found == Amount(100.0, 0.0, 100.0, at_most=True)
    assert amount_needed({0: later[0]}, 0.55) == Amount(100.0, None, None, at_most=True)
    assert not amount_needed(dict(enumerate(later)), 0.65).at_most
    assert not amount_needed(tracks((0.5, 0.6, 0.7, 0.8)), 0.4).at_most  # 0 is no bound
    early = tracks((0.5, 0.52, 0.54, 0.56), (0.5, 0.52, 0.54, 0.56))
    assert worth(early, dict(enumerate(later))) == Amount(0.25, 0.0, 0.25, at_most=True)


def test_a_point_that_is_high_by_chance_does_not_count():
    assert amount_needed(tracks((0.5, 0.72, 0.6, 0.8)), 0.7).value > 200


def test_the_end_of_an_interval_may_be_open():
    found = amount_needed(tracks((0.5, 0.6, 0.7, 0.8), (0.5, 0.62, 0.7, 0.7)), 0.74)
    assert found.value is not None and found.low is not None and found.high is None


def test_intervals_cover_the_truth():
    rng, covered, open_ = np.random.default_rng(0), 0, 0
    for _ in range(60):
        made, true = saturating(150, rng)
        found = amount_needed(made, float(np.interp(300, (200, 400), true[2:4])), 400)
        open_ += found.high is None
        covered += found.low <= 300 <= (np.inf if found.high is None else found.high)
    assert covered >= 53 and open_ <= 10


def test_what_is_not_known_of_the_figure_itself_counts():
    ways = tracks((0.5, 0.6, 0.7, 0.8), (0.5, 0.62, 0.7, 0.78), (0.5, 0.58, 0.7, 0.82))
    sure = amount_needed(ways, 0.65)
    vague = amount_needed(ways, {0: 0.60, 1: 0.65, 2: 0.70})
    assert vague.value == pytest.approx(sure.value)
    assert vague.low < sure.low - 20 and vague.high > sure.high + 20
    offsets = (0.0, 0.03, -0.03)  # of a seed, in both: pairs of seeds are drawn together
    apart = tracks(*[(0.5 + o, 0.6 + o, 0.7 + o, 0.8 + o) for o in offsets])
    paired = amount_needed(apart, {s: 0.65 + o for s, o in enumerate(offsets)})
    assert (paired.low, paired.high) == pytest.approx((150, 150))
    assert amount_needed(apart, 0.65).low < 140


def test_times_fewer_than_so_many():
    assert times_fewer(Amount(100.0, 50.0, 200.0), 400) == Amount(4.0, 2.0, 8.0)
    assert times_fewer(Amount(None, 320.0, None), 400) == Amount(None, 0.0, 1.25)
    assert times_fewer(Amount(100.0, None, None), 400) == Amount(4.0, None, None)  # one seed
    first = times_fewer(Amount(100.0, 0.0, 100.0, at_most=True), 400)
    assert first == Amount(4.0, 4.0, None, at_least=True)
    assert times_fewer(Amount(0.0, 0.0, 50.0), 400) is None  # none were needed


def test_worth_in_images_of_another_arm():
    guided = tracks((0.5, 0.7, 0.75, 0.8), (0.5, 0.7, 0.75, 0.8))
    unguided = tracks((0.5, 0.55, 0.6, 0.7), (0.5, 0.55, 0.6, 0.7))
    found = worth(guided, unguided, 100)
    assert (found.value, found.low, found.high) == pytest.approx((4, 4, 4))
    assert worth(unguided, guided).value == pytest.approx(1 / 4)
    assert worth(guided, unguided).value is None  # never as good as 400 guided ones
    worse = tracks((0.5, 0.45, 0.4, 0.4), (0.5, 0.45, 0.4, 0.4))
    assert worth(worse, guided).value == 0


def test_worth_pairs_the_seeds():
    rng = np.random.default_rng(1)
    offsets = rng.normal(0, 0.05, 6)
    synthetic = tracks(*[(0.5 + o, 0.55 + o, 0.6 + o, 0.65 + o) for o in offsets])
    real = tracks(*[(0.5 + o, 0.7 + o, 0.8 + o, 0.9 + o) for o in offsets])
    found = worth(synthetic, real)
    assert found.value == pytest.approx(0.75 / 4) and found.low == pytest.approx(found.high)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: Track((0.0, 0.0), (0.1, 0.2)), "rising"),
        (lambda: Track((0.0,), (0.1, 0.2)), "one figure for each"),
        (lambda: Track((0.0, 1.0), (0.1, float("nan"))), "numbers"),
        (lambda: curve({}), "at least one seed"),
        (lambda: curve({0: Track((0.0,), (0.1,)), 1: Track((1.0,), (0.1,))}), "in common"),
        (lambda: worth(tracks((0.1,) * 4), {7: Track((0.0,), (0.1,))}), "has 0, 7"),
        (lambda: amount_needed(tracks((0.1,) * 4), {7: 0.1}), "has 0, 7"),
        (lambda: worth(tracks((0.1,) * 4), tracks((0.1,) * 4), 500), "from 0 to 400, not at 500"),
        (lambda: worth(tracks((0.1,) * 4), tracks((0.1,) * 4), 0), "not at 0"),
    ],
)
def test_what_is_no_curve(call, told):
    with pytest.raises(UserError, match=told):
        call()


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("noise", [0.003, 0.01])
def test_coverage(seeds, noise):
    rng, needed, valued = np.random.default_rng(seeds), 0, 0
    for _ in range(400):
        (ours, true), (theirs, slower) = (saturating(s, rng, seeds, noise) for s in (150, 450))
        figure = float(np.interp(300, (200, 400), true[2:4]))
        needed += holds(amount_needed(ours, figure, 500), 300)
        amounts = next(iter(theirs.values())).amounts
        valued += holds(
            worth(ours, theirs, 300, 500), float(np.interp(figure, slower, amounts)) / 300
        )
    assert min(needed, valued) / 400 >= 0.89


def holds(found, truth):
    low, high = (np.inf if end is None else end for end in (found.low, found.high))
    return low <= truth <= high
