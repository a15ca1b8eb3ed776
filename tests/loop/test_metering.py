import mmap
import pickle
from pathlib import Path

import pytest
import torch

from activegen.loop.flops import Flops
from activegen.loop.metering import (
    BACKWARD,
    DECODE,
    DENOISE,
    DRAW,
    KINDS,
    MEASURE,
    PLACES,
    PREDICT,
    REST,
    START,
    TRAIN,
    WAIT,
    Cost,
    Meter,
    peak_memory,
    reset_peak_memory,
)


class Hand:
    """A clock that is moved by hand."""

    def __init__(self):
        self.time, self.awaited = 0.0, 0

    def now(self) -> float:
        return self.time

    def seconds(self, earlier: float, later: float) -> float:
        return later - earlier

    def until(self, moment: float) -> None:
        self.awaited += 1


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def meter(hand: Hand) -> Meter:
    return Meter("cpu", clock=hand)


def test_time_belongs_to_the_innermost_place_and_nothing_is_lost(meter: Meter, hand: Hand):
    hand.time = 1
    with meter.at(WAIT):
        hand.time = 3
        with meter.at(DRAW):
            hand.time = 6
            with meter.at(DENOISE):
                hand.time = 10
        hand.time = 15
    hand.time = 21
    found = meter.take({}).seconds
    assert found == {DENOISE: 4, DRAW: 3, WAIT: 7, REST: 7}
    assert sum(found.values()) == 21


def test_a_place_may_go_on_until_the_next_begins(meter: Meter, hand: Hand):
    with meter.at(DRAW):
        with meter.at(PREDICT, then=BACKWARD):
            hand.time = 1
        hand.time = 3
        with meter.at(DENOISE):
            hand.time = 6
        hand.time = 10
    assert meter.take({}).seconds == {DENOISE: 3, BACKWARD: 2, PREDICT: 1, DRAW: 4, REST: 0}


def test_an_error_leaves_its_places(meter: Meter, hand: Hand):
    with pytest.raises(ValueError, match="lost"), meter.at(DRAW), meter.at(DENOISE):
        hand.time = 2
        raise ValueError("lost")
    hand.time = 5
    assert meter.take({}).seconds == {DENOISE: 2, DRAW: 0, REST: 3}


def test_nobody_waits_before_the_end(meter: Meter, hand: Hand):
    for _ in range(5):
        with meter.at(DENOISE):
            hand.time += 1
    assert hand.awaited == 0
    meter.settle()
    assert hand.awaited == 1
    assert meter.take({}).seconds[DENOISE] == 5


def test_what_was_taken_is_gone(meter: Meter, hand: Hand):
    hand.time = 2
    meter.count(TRAIN, 0, 3, lambda: Flops(10))
    meter.spent(START, 4.0)
    assert meter.take({}) == Cost({START: 4.0, MEASURE: 0, REST: 2}, {TRAIN: 30}, {})
    hand.time = 3
    assert meter.take({}) == Cost({REST: 1}, {}, {})


def test_flops_are_measured_once_for_each_kind(meter: Meter):
    asked: list[str] = []

    def measured(kind: str) -> Flops:
        asked.append(kind)
        return Flops(2)

    for kind in ("a", "b", "a"):
        meter.count(DENOISE, kind, 10, lambda kind=kind: measured(kind))
        meter.count(PREDICT, kind, 10, lambda kind=kind: measured(kind))
    assert asked == ["a", "a", "b", "b"]
    assert meter.take({}).flops == {DENOISE: 60, PREDICT: 60}
    for place in (DENOISE, PREDICT):  # another round may have other models, the denoiser stays
        meter.count(place, "a", 1, lambda: measured("again"))
    assert asked[4:] == ["again"]


def test_a_backward_counts_when_it_is_taken(meter: Meter):
    meter.count(DENOISE, "plain", 4, lambda: Flops(1, 1))
    meter.forget_graph()
    meter.count(DENOISE, "followed", 4, lambda: Flops(1, 10))
    meter.count(DECODE, "followed", 4, lambda: Flops(1, 5))
    meter.count_backward()
    meter.count_backward()
    assert meter.take({}).flops == {DENOISE: 8, BACKWARD: 60, DECODE: 4}


def test_a_meter_that_is_sent_away_begins_anew_and_rests_between_jobs(meter: Meter):
    meter.spent(START, 4.0)
    with meter.at(WAIT):
        sent = pickle.loads(pickle.dumps(meter))
    assert sent.away and not meter.away
    with sent.at(DRAW):
        pass
    assert list(sent.take({}).seconds) == [DRAW]


def test_utilisation_is_flops_of_what_was_possible():
    peaks = {"drawing": 100.0, "training": 10.0}
    hand = Hand()
    meter = Meter("cpu", clock=hand)
    meter.count(DENOISE, 0, 1, lambda: Flops(150))
    meter.count(TRAIN, 0, 1, lambda: Flops(12))
    for place, seconds in ((DENOISE, 2), (DRAW, 1), (TRAIN, 4)):
        with meter.at(place):
            hand.time += seconds
    cost = meter.take(peaks)
    assert cost.utilisation(DENOISE) == pytest.approx(150 / 200)
    assert cost.utilisation(DRAW) is None
    assert cost.mfu == {"drawing": pytest.approx(150 / 300), "training": pytest.approx(12 / 40)}
    assert cost.share(TRAIN) == pytest.approx(4 / 7)
    twice = Cost.of([{"cost": cost.plain()}, {"round": 1}, {"cost": cost.plain()}])
    assert twice.seconds[DENOISE] == 4 and twice.flops[DENOISE] == 300
    assert twice.mfu == pytest.approx(cost.mfu)
    assert Cost().mfu == dict.fromkeys(KINDS) and Cost().share(DRAW) == 0


def test_places_of_a_kind_are_places():
    assert {place for places in KINDS.values() for place in places} <= set(PLACES)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can reset it")
def test_the_peak_of_a_process_is_of_the_time_since_the_reset():
    here = {torch.device("cpu")}
    with mmap.mmap(-1, 2**28) as large:  # which malloc would not keep
        for page in range(0, 2**28, 2**12):
            large[page] = 1
    before = peak_memory(here)
    reset_peak_memory(here)
    after = peak_memory(here)
    assert before is not None and after is not None
    assert after < before - 2**27


def test_memory_is_that_of_the_named_gpus(monkeypatch: pytest.MonkeyPatch):
    reset: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda of: 100 + of.index)
    both = [torch.device("cuda:1"), torch.device("cuda:3"), torch.device("cpu")]
    reset_peak_memory(both)
    assert set(reset) == set(both[:2])
    assert peak_memory(both) == 103 and peak_memory(both[:1]) == 101
