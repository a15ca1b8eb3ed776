from collections import Counter

import numpy as np
import pytest

from activegen.data.prompts import Prompts
from activegen.loop.mining import Judged
from activegen.loop.proposing import Origin, ProposalSettings, propose_guided, propose_plain
from activegen.records import UserError

CLASSES = ("forest", "river", "table")
PROMPTS = Prompts(("a photo of {word}",), {name: (f"a {name}",) for name in CLASSES})
ORIGIN = Origin(3, "active", "state")
REFERENCES = [Judged(f"image-{i}", i % 3, 1.0, True) for i in range(300)]


def guided(progress: float, settings: ProposalSettings | None = None):
    settings = settings or ProposalSettings()
    rng = np.random.default_rng(0)
    return propose_guided(REFERENCES, CLASSES, PROMPTS, settings, progress, ORIGIN, rng)


def test_shares_go_from_plain_to_adversarial():
    settings = ProposalSettings()
    assert settings.shares(0) == {"plain": 0.5, "guided": 0.5, "adversarial": 0.0}
    assert settings.shares(1) == {"plain": 0.0, "guided": 0.5, "adversarial": 0.5}
    halfway = settings.shares(0.5)
    assert halfway == {"plain": 0.25, "guided": 0.5, "adversarial": 0.25}


def test_a_request_keeps_the_label_and_the_reference_of_its_mistake():
    for request in guided(1.0):
        number = int(request.reference.removeprefix("image-"))
        assert request.target == number % 3
        assert request.prompt == f"a photo of a {CLASSES[request.target]}"
        assert request.word == CLASSES[request.target]
        assert (request.round, request.arm, request.state) == (3, "active", "state")


def test_ways_stand_together_and_plain_ones_have_no_reference():
    requests = guided(0.5)
    ways = [r.steering for r in requests]
    assert ways == sorted(ways, key=["plain", "guided", "adversarial"].index)
    assert all((r.reference == "") == (r.steering == "plain") for r in requests)
    counts = Counter(ways)
    assert counts["guided"] == pytest.approx(150, abs=40) and counts["plain"] > 40


def test_seeds_and_ids_differ():
    requests = guided(1.0)
    assert len({r.id for r in requests}) == len({r.seed for r in requests}) == len(requests)


def test_plain_requests_take_classes_in_turn():
    requests = propose_plain(7, CLASSES, PROMPTS, ORIGIN, np.random.default_rng(0))
    targets = [r.target for r in requests]
    assert [(t - targets[0]) % 3 for t in targets] == [0, 1, 2, 0, 1, 2, 0]
    assert all(r.steering == "plain" and not r.reference and not r.state for r in requests)


@pytest.mark.parametrize("wrong", [{"budget": -1}, {"plain_share": 1.5}])
def test_bad_settings(wrong):
    with pytest.raises(UserError):
        ProposalSettings(**wrong)
