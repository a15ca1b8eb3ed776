"""The benchmark of early dropping: its counting, by hand."""

import numpy as np
import pytest

from benchmark_scripts import script

early_dropping = script("early_dropping")


def test_what_is_saved_and_lost(early_dropping):
    bad = np.array([True, True, False, False, False])
    dropped = np.array([True, False, True, False, False])
    row = early_dropping.counted(dropped, bad, at=0.5, steps=15)
    assert row["dropped"][0] == pytest.approx(2 / 5)
    assert row["of the good, dropped"][0] == pytest.approx(1 / 3)
    assert row["of the bad, dropped"][0] == pytest.approx(1 / 2)
    assert row["calls"] == pytest.approx(0.84)  # two of five made 9 of 15, the first past a half
    assert row["a good image"] == pytest.approx(0.84 * 3 / 2)
    assert early_dropping.counted(~bad, bad, at=0.5, steps=15)["a good image"] == float("inf")


def test_wilson_intervals(early_dropping):
    assert early_dropping.share(np.zeros(10, bool)) == pytest.approx((0, 0, 0.2775), abs=1e-4)
    half = early_dropping.share(np.arange(10) < 5)
    assert half == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)
    nothing, low, high = early_dropping.share(np.zeros(0, bool))
    assert np.isnan(nothing) and (low, high) == (0, 1)
