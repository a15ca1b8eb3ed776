"""The benchmark of text alone: what is compared with what."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def text_only():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("text_only")


def test_each_case_has_its_base(text_only):
    names = [
        "cross-entropy, one word of each class, 500",
        "ignore, one word of each class, 500",
        "cross-entropy, 500",
        "ignore, 500",
        "ignore, ranked alone, 500",
        "exact masks of real mosaics, 500",
        "cross-entropy, 8000 of 3 seeds",
        "co-training, 8000 of 3 seeds",
    ]
    bases = [text_only.compared_with(name, names) for name in names]
    assert bases == [
        "cross-entropy, 500",
        "ignore, 500",
        "",
        "cross-entropy, 500",
        "ignore, 500",
        "cross-entropy, 500",
        "cross-entropy, 500",
        "cross-entropy, 8000 of 3 seeds",
    ]
    assert text_only.compared_with("ignore, 500", ["ignore, 500"]) == ""
