import math

import numpy as np
import pytest

from activegen.proof.statistics import (
    HELPS,
    HURTS,
    NO_DIFFERENCE,
    TOO_FEW,
    Comparison,
    compare,
    holm,
    seeds_needed,
)
from activegen.records import UnknownWord, UserError

REAL = dict(enumerate([0.70, 0.74, 0.71, 0.73, 0.72]))


def moved(*by):
    return {seed: REAL[seed] + part for seed, part in zip(REAL, by, strict=True)}


def table(*by, baseline=REAL):
    return {"guided": moved(*by), "real": baseline}


def simulated(rng, shift=0.0, seeds=5, images=800):
    """Accuracies on so many test images of two arms; the pairs' deviation is near 0.02."""
    rates = 0.75 + rng.normal(0, 0.01, (2, seeds)) + [[shift], [0]]
    ours, theirs = (rng.binomial(images, rates) / images).tolist()
    return {"guided": dict(enumerate(ours)), "real": dict(enumerate(theirs))}


def test_by_hand():
    found = compare({"a": {3: 0.51, 1: 0.62, 2: 0.43}, "b": {1: 0.6, 2: 0.4, 3: 0.5}}, "a", "b")
    assert found.seeds == (1, 2, 3)
    assert found.difference == pytest.approx(0.02)
    assert found.deviation == pytest.approx(0.01)
    assert found.p_value == pytest.approx(0.0742, abs=1e-4)
    assert found.interval.low == pytest.approx(0.02 - 0.024841, abs=1e-6)
    assert found.interval.high == pytest.approx(0.02 + 0.024841, abs=1e-6)
    assert found.verdict == NO_DIFFERENCE
    assert found.seeds_needed == 4
    assert found.bootstrap is None


def test_verdicts_and_their_words():
    helps = compare(table(0.02, 0.03, 0.025, 0.02, 0.03), "guided", "real")
    hurts = compare(table(0.02, 0.03, 0.025, 0.02, 0.03), "real", "guided")
    unclear = compare(table(0.02, -0.03, 0.025, -0.01, 0.01), "guided", "real")
    assert [one.verdict for one in (helps, hurts, unclear)] == [HELPS, HURTS, NO_DIFFERENCE]
    assert helps.words.startswith("guided against real: helps, +2.5 points, +1.9 to +3.1 with 95 %")
    assert hurts.interval.low == pytest.approx(-helps.interval.high)
    assert -0.04 < hurts.bootstrap.low < -0.025 < hurts.bootstrap.high < -0.01
    assert f"About {unclear.seeds_needed:.0f} seeds would show it" in unclear.words


def test_two_identical_arms_differ_by_nothing():
    found = compare(table(0, 0, 0, 0, 0), "guided", "real")
    assert found.verdict == NO_DIFFERENCE and found.p_value == 1
    assert found.seeds_needed == math.inf
    assert "No number of seeds" in found.words


@pytest.mark.parametrize("images", [20, 1000, 100_000])
def test_seeds_that_differ_by_rounding_alone_are_all_alike(images):
    def accuracy(right):
        return float(np.float32(right) / np.float32(images))

    for a, b in ((13, 11), (12, 7), (18, 3)):
        ours, theirs = {0: accuracy(a), 1: accuracy(b)}, {0: accuracy(a - 1), 1: accuracy(b - 1)}
        found = compare({"guided": ours, "real": theirs}, "guided", "real")
        assert found.p_value == 0.5 and found.verdict == NO_DIFFERENCE and found.interval is None


def test_an_arm_against_itself_helps_in_one_of_twenty():
    rng = np.random.default_rng(0)
    verdicts = [compare(simulated(rng), "guided", "real").verdict for _ in range(400)]
    scatter = math.sqrt(0.05 * 0.95 / 400)
    assert 0.95 - 2 * scatter <= verdicts.count(NO_DIFFERENCE) / 400 <= 0.95 + 2 * scatter


def test_a_difference_of_two_deviations_is_found():
    rng = np.random.default_rng(0)
    verdicts = [compare(simulated(rng, 0.05), "guided", "real").verdict for _ in range(200)]
    assert verdicts.count(HELPS) > 170 and verdicts.count(HURTS) == 0


def test_seeds_that_all_say_the_same_need_six():
    five = compare(table(*[0.01] * 5), "guided", "real")
    assert five.verdict == NO_DIFFERENCE and five.p_value == 2**-4 and five.seeds_needed == 6
    assert five.interval is None and "the same with all 5 seeds" in five.words
    figures = {"guided": dict.fromkeys(range(6), 0.8), "real": dict.fromkeys(range(6), 0.7)}
    assert compare(figures, "guided", "real").verdict == HELPS


def test_one_seed_is_too_few():
    found = compare({"guided": {0: 0.8}, "real": {0: 0.7}}, "guided", "real")
    assert found.verdict == TOO_FEW and found.interval is None and found.p_value is None
    assert found.difference == pytest.approx(0.1)
    assert "run at least two" in found.words


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        ({0: 0.1, 7: 0.1}, {0: 0.1, 8: 0.1, 9: 0.2}, "guided alone has 7; real alone has 8, 9"),
        ({}, {}, "have no seeds"),
        ({0: 0.1, 4: math.nan}, {0: 0.1, 4: 0.2}, "no number for seed 4"),
    ],
)
def test_what_cannot_be_compared(ours, theirs, told):
    with pytest.raises(UserError, match=told):
        compare({"guided": ours, "real": theirs}, "guided", "real")
    with pytest.raises(UnknownWord, match="Did you mean 'real'"):
        compare({"guided": ours, "real": theirs}, "guided", "reel")


@pytest.mark.parametrize("effect", [0.5, 1.0, 2.0])
def test_needed_seeds_show_it_in_four_of_five(effect):
    pairs = int(seeds_needed(effect, 1.0))
    rng = np.random.default_rng(0)
    for count, least, most in ((pairs, 0.68, 0.9), (math.ceil(pairs / 2), 0.1, 0.6)):
        drawn = [dict(enumerate(rng.normal(effect, 1, count).tolist())) for _ in range(150)]
        zeros = dict.fromkeys(range(count), 0.0)
        found = [compare({"a": one, "b": zeros}, "a", "b").verdict for one in drawn]
        assert least <= found.count(HELPS) / 150 <= most


def test_holm_by_hand():
    comparisons = []
    for p in (0.01, 0.04, 0.03):
        base = compare(table(0.02, 0.03, 0.025, 0.02, 0.03), "guided", "real")
        comparisons.append(type(base)(**{**vars(base), "p_value": p, "verdict": HELPS}))
    one_seed = compare({"guided": {0: 0.8}, "real": {0: 0.7}}, "guided", "real")
    *found, alone = holm([*comparisons, one_seed])
    assert [one.adjusted_p for one in found] == pytest.approx([0.03, 0.06, 0.06])
    assert [one.verdict for one in found] == [HELPS, NO_DIFFERENCE, NO_DIFFERENCE]
    assert "after Holm's correction for 3 comparisons" in found[0].words
    assert alone == one_seed


def test_holm_asks_for_as_many_seeds_as_it_wants_to_see():
    def ten(gain: float) -> Comparison:
        wobble = [gain + 0.01 * (-1) ** k for k in range(10)]
        return compare({"a": dict(enumerate(wobble)), "b": dict.fromkeys(range(10), 0.0)}, "a", "b")

    nearly, nothing = ten(0.0105), ten(0.0)
    assert nearly.verdict == HELPS and nearly.seeds_needed <= 10
    found, *_ = holm([nearly, *[nothing] * 9])
    assert found.verdict == NO_DIFFERENCE
    assert found.seeds_needed > max(10, nearly.seeds_needed)
    assert f"About {found.seeds_needed:.0f} seeds" in found.words


def test_holm_keeps_seven_equal_arms_from_helping():
    rng, false = np.random.default_rng(0), 0
    for _ in range(50):
        figures = {str(arm): dict(enumerate(rng.normal(size=5).tolist())) for arm in range(8)}
        corrected = holm([compare(figures, arm, "0") for arm in figures if arm != "0"])
        false += any(one.verdict != NO_DIFFERENCE for one in corrected)
    assert false <= 6  # of 50; without the correction about 12
