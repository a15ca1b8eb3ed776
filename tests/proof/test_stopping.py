import math

import numpy as np
import pytest

from activegen.proof.stopping import StopRule, standing
from activegen.records import UserError

RULE = StopRule(rounds=12, margin=0.01, least=3)


def stopped(gain, loops=150, seed=0, rule=RULE):
    """Part of simulated loops that the rule ends; a round's differences deviate by 0.01."""
    rng, ended = np.random.default_rng(seed), 0
    for _ in range(loops):
        guided = rng.normal(0.8 + gain, 0.01, rule.rounds).tolist()
        unguided = [0.8] * rule.rounds
        looks = range(1, rule.rounds + 1)
        ended += any(standing(guided[:k], unguided[:k], rule).stop for k in looks)
    return ended / loops


def test_by_hand():
    found = standing([0.50, 0.51, 0.52], [0.51, 0.51, 0.51], StopRule(3, 0.03, 3))
    assert found.difference == pytest.approx(0)
    assert found.upper == pytest.approx(2.91999 * 0.01 / math.sqrt(3), abs=1e-6)  # one look
    assert found.stop and "stop generating" in found.words
    assert not standing([0.50, 0.51, 0.52], [0.51, 0.51, 0.51], StopRule(3, 0.016, 3)).stop


def test_more_looks_are_more_careful():
    rounds = [0.50, 0.51, 0.52], [0.51, 0.51, 0.51]
    uppers = [standing(*rounds, StopRule(n, 0.01, 3)).upper for n in (3, 6, 12)]
    assert uppers == sorted(uppers) and uppers[0] < uppers[2]


def test_it_waits():
    found = standing([0.1, 0.1], [0.9, 0.9], RULE)
    assert not found.stop and found.upper is None and "too early" in found.words
    assert standing([0.1] * 3, [0.9] * 3, RULE).stop


def test_a_better_arm_is_rarely_stopped():
    assert stopped(0.01) <= 0.05  # ahead by just the margin
    assert stopped(0.02) == 0


def test_an_arm_that_gains_nothing_is_mostly_stopped():
    assert stopped(0.0) > 0.6
    assert stopped(-0.01) > 0.97


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: StopRule(2), "least <= rounds"),
        (lambda: StopRule(5, least=1), "least <= rounds"),
        (lambda: StopRule(5, margin=-0.1), "a gain"),
        (lambda: standing([0.1], [0.1, 0.2], RULE), "1 guided and 2 unguided"),
        (lambda: standing([], [], RULE), "0 guided"),
        (lambda: standing([0.1] * 13, [0.1] * 13, RULE), "1 to 12"),
        (lambda: standing([math.nan], [0.1], RULE), "a number for each round"),
    ],
)
def test_what_is_no_rule(call, told):
    with pytest.raises(UserError, match=told):
        call()


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [4, 8, 20])
def test_the_promise_of_five_percent(rounds):
    rule = StopRule(rounds, 0.01, 3)
    assert stopped(0.01, 3000, rule=rule) <= 0.05
    assert stopped(0.02, 3000, rule=rule) <= 0.005
