"""The shared values."""

import json
from dataclasses import FrozenInstanceError, asdict, replace

import pytest

from activegen.records import Request, UnknownWord, UserError, choose, fingerprint

REQUEST = Request(prompt="a photo of a river", word="river", target=3, seed=7)


def test_a_request_is_named_by_its_content():
    values = json.loads(json.dumps(asdict(REQUEST)))
    values |= {name: tuple(values[name]) for name in ("classes", "words")}
    assert REQUEST.id == Request(**values).id
    for change in (
        {"prompt": "a river"},
        {"word": "photo"},
        {"target": 4},
        {"seed": 8},
        {"reference": "a"},
        {"classes": (3, 1)},
        {"words": ("river", "forest")},
        {"round": 1},
        {"arm": "real"},
        {"steering": "guided"},
        {"state": "b"},
    ):
        assert replace(REQUEST, **change).id != REQUEST.id


def test_a_request_does_not_change():
    with pytest.raises(FrozenInstanceError):
        REQUEST.seed = 8  # pyright: ignore[reportAttributeAccessIssue]


def test_an_unknown_word_is_answered_with_the_known_ones():
    with pytest.raises(
        UnknownWord, match=r"unknown score 'enthropy'.*entropy, margin.*'entropy'\?"
    ):
        choose({"margin": 1, "entropy": 2}, "enthropy", "score")
    assert issubclass(UnknownWord, UserError)


def test_a_fingerprint_reads_content_not_order():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert len(fingerprint("é")) == 16
