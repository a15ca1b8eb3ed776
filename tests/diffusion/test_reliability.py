"""Pixels and images by hand."""

import math

import pytest
import torch
from torch import Tensor

from activegen.diffusion.reliability import (
    Ranks,
    Screen,
    in_bytes,
    log_odds,
    ranked,
    reliability,
    reliable,
    screened,
)
from activegen.records import IGNORE, UserError
from activegen.tasks import unreliable


def world() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 4, (3, 9, 7), generator=rng).to(torch.uint8)
    mask[1, :2] = IGNORE
    return mask, torch.rand(3, 9, 7, generator=rng)


@pytest.mark.parametrize("share", [0.0, 0.29, 0.5, 0.7, 1.0])
def test_each_class_of_each_image_keeps_its_surest_pixels(share: float):
    mask, margin = world()
    kept = reliable(mask, margin, share)
    for labels, margins, chosen in zip(mask, margin, kept, strict=True):
        for label in range(4):
            of_class = labels == label
            count = int(of_class.sum())
            assert count > 3
            assert int((chosen & of_class).sum()) == math.floor(round(share * count, 6))
            best, rest = margins[of_class & chosen], margins[of_class & ~chosen]
            assert not len(best) or not len(rest) or best.min() > rest.max()
    assert not kept[mask == IGNORE].any()


def test_hundredths_are_not_lost_to_rounding():
    mask, margin = torch.zeros(1, 10, 10, dtype=torch.uint8), torch.rand(1, 10, 10)
    assert int(reliable(mask, margin, 0.29).sum()) == 29


def test_of_equal_margins_the_first_are_kept():
    mask = torch.tensor([[[0, 1, 0, 1], [0, 1, 0, 1]]], dtype=torch.uint8)
    kept = reliable(mask, torch.full((1, 2, 4), 0.3))
    assert kept.int().tolist() == [[[1, 1, 1, 1], [0, 0, 0, 0]]]


def test_an_image_does_not_depend_on_its_batch():
    mask, margin = world()
    assert torch.equal(reliable(mask, margin)[2:], reliable(mask[2:], margin[2:]))


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_that_is_none_is_said(share: float):
    with pytest.raises(UserError, match="from 0 to 1"):
        reliable(*world(), share)


def test_an_images_reliability_is_the_mean_margin_of_its_foreground():
    mask = torch.tensor([[[0, 1], [2, IGNORE]], [[0, 0], [0, IGNORE]]], dtype=torch.uint8)
    margin = torch.tensor([[[0.9, 0.2], [0.4, 0.7]]] * 2)
    torch.testing.assert_close(reliability(mask, margin, 0), torch.tensor([0.3, 0.0]))
    torch.testing.assert_close(reliability(mask, margin, None), torch.tensor([0.5, 0.5]))


def painted(*counts: int) -> Tensor:
    """10 by 10 pixels, so many of class 0, 1, ...; the rest are ignored."""
    flat = torch.full((100,), IGNORE, dtype=torch.uint8)
    flat[: sum(counts)] = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return flat.view(10, 10)


def test_images_are_dropped_for_their_area_or_their_peak():
    masks = torch.stack([painted(100), painted(99, 1), painted(5, 95), painted(4, 96)])
    classes, peaks = torch.tensor([[1, 2]] * 3 + [[1, IGNORE]]), torch.full((4, 2), 0.1)
    kept = Screen(peak=0.1)
    assert screened(masks, classes, peaks, 0, kept) == ["small", "", "", "full"]
    peaks[1, 0], peaks[3, 1] = 0.09, 0.0
    assert screened(masks, classes, peaks, 0, kept) == ["small", "unseen", "", "full"]
    assert screened(masks, classes, peaks, 0, Screen(least=0.0, most=1.0)) == [""] * 4


def test_ranks_are_of_the_class_in_its_image_and_give_every_share():
    rng = torch.Generator().manual_seed(0)
    mask = torch.zeros(2, 8, 8, dtype=torch.uint8)
    mask[:, :, 4:], mask[1, :4] = 1, IGNORE  # 32 pixels of each class, then 16
    margin = torch.rand(2, 8, 8, generator=rng).round(decimals=1)  # with ties
    ranks = ranked(mask, margin)
    assert (ranks[mask == IGNORE] == 0).all()
    for share in (0.25, 0.5, 0.75):
        kept = reliable(mask, margin, share)
        assert torch.equal((ranks >= 1 - share) & (mask != IGNORE), kept)
    only = torch.tensor([[[0, 0, 0, 0]]], dtype=torch.uint8)
    assert ranked(only, torch.tensor([[[0.1, 0.9, 0.5, 0.2]]])).tolist() == [[[0, 0.75, 0.5, 0.25]]]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 99, 100, 101, 254, 255, 256, 257, 4095, 4096])
def test_what_trains_keeps_the_surest_half_rounded_down(count: int):
    mask, margin = torch.zeros(1, 1, count, dtype=torch.uint8), torch.rand(1, 1, count)
    kept = unreliable.reliable(in_bytes(ranked(mask, margin)))
    assert torch.equal(kept, reliable(mask, margin))
    assert int(kept.sum()) == count // 2


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_what_trains_keeps_any_share_to_a_byte(share: float):
    mask, margin = torch.zeros(1, 1, 5000, dtype=torch.uint8), torch.rand(1, 1, 5000)
    kept = unreliable.reliable(in_bytes(ranked(mask, margin)), share)
    assert float(kept.float().mean()) == pytest.approx(share, abs=1 / 255)
    assert margin[kept].min() > margin[~kept].max()


def test_ranks_are_where_the_mask_is():
    mask, margin = world()
    with torch.device("meta"):
        ranks = ranked(mask, margin)
    assert torch.equal(ranks, ranked(mask, margin))


def test_without_a_background_each_class_needs_its_pixels():
    masks = torch.stack([painted(50, 50), painted(0, 100), painted(98, 2)])
    classes = torch.tensor([[0, 1], [0, 1], [1, IGNORE]])
    peaks = torch.ones(3, 2)
    assert screened(masks, classes, peaks, None, Screen()) == ["", "missing", ""]
    assert screened(masks, classes, peaks, None, Screen(least=0.03)) == ["", "missing", "missing"]


@pytest.mark.parametrize("wrong", [{"least": 0.96}, {"most": 1.1}, {"peak": -0.1}])
def test_bounds_that_are_none_are_said(wrong: dict[str, float]):
    with pytest.raises(UserError, match="shares that are none"):
        Screen(**wrong)


def test_log_odds_keep_order_and_the_half():
    share = torch.tensor([0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0])
    odds = log_odds(share)
    assert odds[2] == 0.5 and odds[0] == 0 and odds[-1] == 1
    assert odds.diff().min() > 0
    assert float(odds[3]) == pytest.approx(0.5 + math.log(9) / 24)
    assert ((odds * 255).round().diff() > 10).all()


def test_ranks_in_a_set_are_shares_of_the_pixels_of_a_class():
    ranks = Ranks()
    masks = torch.tensor([[[0, 0, 1, IGNORE]], [[0, 0, 1, 1]]], dtype=torch.uint8)
    sure = torch.tensor([[[10, 20, 7, 99]], [[30, 30, 5, 6]]], dtype=torch.uint8)
    for pair in zip(masks, sure, strict=True):
        ranks.add(*pair)
    found = [ranks.of(*pair)[0].tolist() for pair in zip(masks, sure, strict=True)]
    of_first = [1 / 8, 3 / 8, 3 / 4]  # each in the middle of its own quarter; two share a half
    of_second = [1 / 6, 3 / 6, 5 / 6]
    expected = [
        [of_first[0], of_first[1], of_second[2], 0],
        [of_first[2], of_first[2], of_second[0], of_second[1]],
    ]
    assert found == [[round(255 * share) for share in row] for row in expected]


def test_a_class_in_the_wrong_place_is_unsure_as_a_whole_in_a_set():
    mask = torch.zeros(2, 4, 4, dtype=torch.uint8)
    sure = torch.randint(100, 110, (2, 4, 4), dtype=torch.uint8)
    sure[0] += 100
    ranks = Ranks()
    for pair in zip(mask, sure, strict=True):
        ranks.add(*pair)
    right, wrong = (ranks.of(*pair) > 127 for pair in zip(mask, sure, strict=True))
    assert right.all() and not wrong.any()
    assert reliable(mask, sure.float())[1].float().mean() == 0.5
