import pytest
import torch

from activegen.records import IGNORE
from activegen.tasks.unreliable import UNRELIABLE, reliable

MASKS = torch.tensor([[[0, 1, 2], [0, 1, IGNORE]]], dtype=torch.uint8)
RELIABILITY = torch.tensor([[[255, 128, 127], [0, 51, 0]]], dtype=torch.uint8)
SEEN = torch.full((1, 2, 3), 2)


def treated(name):
    return UNRELIABLE[name](MASKS, RELIABILITY, lambda: SEEN)


def test_a_half_is_reliable():
    assert reliable(RELIABILITY).tolist() == [[[True, True, False], [False] * 3]]


def test_another_share_may_be_reliable():
    assert reliable(RELIABILITY, 0.8).tolist() == [[[True] * 3, [False, True, False]]]
    assert reliable(RELIABILITY, 0.0).tolist() == [[[True, False, False], [False] * 3]]
    assert reliable(RELIABILITY, 1.0).all()
    learnt, _ = UNRELIABLE["ignore"](MASKS, RELIABILITY, lambda: SEEN, 0.8)
    assert learnt.tolist() == [[[0, 1, 2], [IGNORE, 1, IGNORE]]]
    learnt, _ = UNRELIABLE["teacher"](MASKS, RELIABILITY, lambda: SEEN, 0.8)
    assert learnt.tolist() == [[[0, 1, 2], [2, 1, IGNORE]]]


def test_what_is_learnt_of_unreliable_pixels():
    assert torch.equal(treated("trust")[0], MASKS)
    assert torch.equal(treated("weight")[0], MASKS)
    assert treated("ignore")[0].tolist() == [[[0, 1, IGNORE], [IGNORE] * 3]]
    assert treated("teacher")[0].tolist() == [[[0, 1, 2], [2, 2, IGNORE]]]


def test_how_much_it_counts():
    assert {name for name in UNRELIABLE if treated(name)[1] is not None} == {"weight"}
    expected = [1.0, 128 / 255, 127 / 255, 0.0, 0.2, 0.0]
    assert treated("weight")[1].flatten().tolist() == pytest.approx(expected)


def test_masks_stay_bytes():
    assert all(treated(name)[0].dtype == torch.uint8 for name in UNRELIABLE)
