import math

import numpy as np
import pytest

from activegen.proof.student import p_value, quantile


@pytest.mark.parametrize(
    ("freedom", "table"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)],
)
def test_the_table_of_every_textbook(freedom, table):
    assert quantile(0.975, freedom) == pytest.approx(table, abs=1e-4)
    assert p_value(-table, freedom) == pytest.approx(0.05, abs=1e-5)


def test_one_degree_is_cauchy_and_many_are_normal():
    assert p_value(3.0, 1) == pytest.approx(1 - 2 / math.pi * math.atan(3.0))
    assert p_value(1.959964, 100_000) == pytest.approx(0.05, abs=1e-5)


def test_nothing_is_certain_and_infinity_is():
    assert p_value(0.0, 4) == 1
    assert p_value(math.inf, 4) == p_value(math.inf, 5) == pytest.approx(0, abs=1e-13)


def test_draws_of_five_agree():
    drawn = np.random.default_rng(0).normal(size=(200_000, 5))
    t = drawn.mean(1) / drawn.std(1, ddof=1) * math.sqrt(5)
    assert (np.abs(t) < quantile(0.975, 4)).mean() == pytest.approx(0.95, abs=0.002)
    assert (np.abs(t) > 4).mean() == pytest.approx(p_value(4.0, 4), abs=0.001)
