import time

import pytest
import torch

from activegen.loop.objects import (
    ObjectSettings,
    composite,
    dilated,
    edge_band,
    layered,
    objects,
    softened,
)
from activegen.records import UserError

ALL = ObjectSettings(limit=100, min_area=0)
PICTURE = """
    ..22....
    ..22...1
    ........
    1...1...
    11.1..3.
    11.1..3.
"""


def drawn(picture: str) -> torch.Tensor:
    """Digits are classes, a point is class 0, a cross is ignored."""
    rows = [row.strip() for row in picture.split()]
    return torch.tensor(
        [
            [{".": 0, "x": 255}.get(sign) or int(sign.strip(".") or 0) for sign in row]
            for row in rows
        ],
        dtype=torch.uint8,
    )


def pixels(where: torch.Tensor) -> set[tuple[int, int]]:
    return {(row, column) for row, column in where.nonzero().tolist()}


def test_pieces_of_a_class_are_objects_largest_first():
    found = objects(drawn(PICTURE), ALL, background=(0,))
    sizes = [(one.number, one.label, int(one.region.sum())) for one in found]
    assert sizes == [(1, 1, 5), (2, 2, 4), (3, 1, 3), (4, 3, 2), (5, 1, 1)]
    assert pixels(found[2].region) == {(3, 4), (4, 3), (5, 3)}  # they touch at a corner


def test_the_background_is_an_object_unless_it_is_excluded():
    first = objects(drawn(PICTURE), ALL)[0]
    assert (first.label, int(first.region.sum())) == (0, 48 - 15)


def test_ignored_pixels_are_in_no_object_and_part_what_they_cross():
    found = objects(drawn("1x11 1x11"), ALL)
    assert [(one.label, int(one.region.sum())) for one in found] == [(1, 4), (1, 2)]


def test_small_ones_and_those_beyond_the_limit_are_left_out():
    def numbers(settings: ObjectSettings) -> list[int]:
        return [int(one.region.sum()) for one in objects(drawn(PICTURE), settings, (0,))]

    assert numbers(ObjectSettings(limit=2, min_area=0)) == [5, 4]
    assert numbers(ObjectSettings(limit=9, min_area=3 / 48)) == [5, 4, 3]


def test_equally_large_ones_are_numbered_from_the_top():
    found = objects(drawn("..2 1.2 1.."), ALL, (0,))
    assert [one.label for one in found] == [2, 1]


def test_a_winding_piece_is_one():
    side = 128
    mask = torch.ones(side, side, dtype=torch.uint8)
    mask[1::2] = 2
    for row in range(1, side, 2):  # rows of class 1, joined at alternate ends
        mask[row, 0 if row % 4 == 1 else -1] = 1
    start = time.perf_counter()
    found = objects(mask, ALL)
    assert time.perf_counter() - start < 1
    assert [one.label for one in found].count(1) == 1
    assert torch.equal(found[0].region, mask == 1)


def test_dilated_reaches_as_far_as_it_says():
    point = torch.zeros(9, 9, dtype=torch.bool)
    point[4, 4] = True
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    away = ((rows - 4) ** 2 + (columns - 4) ** 2).sqrt()
    for radius in (0, 1, 2, 3):
        assert torch.equal(dilated(point, radius), away <= radius)


def test_edge_band_lies_on_both_sides_of_an_edge_between_classes():
    mask = drawn("...111x2 ...111x2")
    assert not edge_band(mask, 0).any()
    assert edge_band(mask, 1).int().tolist() == [[0, 0, 1, 1, 0, 0, 0, 0]] * 2
    assert edge_band(mask, 2).int().tolist() == [[0, 1, 1, 1, 1, 0, 0, 0]] * 2


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    both = torch.randint(0, 256, (2, 3, 24, 24), generator=rng).to(torch.uint8)
    return both[0], both[1]


def square(start: int, stop: int) -> torch.Tensor:
    where = torch.zeros(24, 24, dtype=torch.bool)
    where[start:stop, start:stop] = True
    return where


def test_a_hard_composite_takes_each_pixel_from_one_image():
    real, new = pictures()
    where = square(8, 16)
    assert torch.equal(composite(real, new, where, 0.0), torch.where(where, new, real))


def test_a_soft_composite_changes_nothing_far_away_and_is_between_at_the_edge():
    black, white = torch.zeros(3, 24, 24).byte(), torch.full((3, 24, 24), 255).byte()
    mixed = composite(black, white, square(8, 16), 1.1)[0, 12].tolist()
    assert mixed[:6] == [0] * 6 and mixed[10:14] == [255] * 4 and mixed[18:] == [0] * 6
    assert 0 < mixed[6] < mixed[7] < 128 < mixed[8] < mixed[9] < 255
    assert mixed == mixed[::-1]


def test_a_widened_region_draws_its_object_up_to_the_border():
    real, new = pictures()
    thing = square(8, 16)
    mixed = composite(real, new, dilated(thing, 2), 1.1)
    assert (mixed.int() - new.int())[:, thing].abs().max() <= 5
    rest = ~dilated(thing, 5)
    assert torch.equal(mixed[:, rest], real[:, rest])


def test_an_object_at_the_border_is_wholly_drawn_there():
    real, new = pictures()
    mixed = composite(real, new, square(0, 10), 1.1)  # nothing real shines through at the border
    assert torch.equal(mixed[:, :7, :7], new[:, :7, :7])


def test_composites_are_layered_as_what_was_drawn_would_be():
    rng = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (4, 3, 24, 24), generator=rng).to(torch.uint8)
    real, drawn = pictures[0], pictures[1:]
    # they touch, and two of them overlap
    alphas = [softened(where) for where in (square(0, 14), square(10, 18), square(18, 23))]
    assert all(((alpha > 0) & (alpha < 1)).any() for alpha in alphas)
    assert ((alphas[1] > 0) & (alphas[2] > 0)).any()
    result = real.float()  # equation 2
    for image, alpha in zip(drawn, alphas, strict=True):
        result = alpha * image + (1 - alpha) * result
    places = zip(drawn, (square(0, 14), square(10, 18), square(18, 23)), strict=True)
    stored = [composite(real, image, where) for image, where in places]
    found = layered(real, list(zip(stored, alphas, strict=True)))
    assert (found.float() - result).abs().max() < 1.5
    assert (found.float() - result).abs().mean() < 0.5
    assert torch.equal(layered(real, []), real)
    assert torch.equal(layered(real, [(stored[0], alphas[0])]), stored[0])


def test_the_last_layer_is_in_front():
    real, new = pictures()
    one, other = square(4, 16), square(10, 20)
    new_other = 255 - new
    back = composite(real, new, one, 0.0), softened(one, 0.0)
    front = composite(real, new_other, other, 0.0), softened(other, 0.0)
    found = layered(real, [back, front])
    assert torch.equal(found[:, other], new_other[:, other])
    assert torch.equal(found[:, one & ~other], new[:, one & ~other])
    assert torch.equal(found[:, ~one & ~other], real[:, ~one & ~other])


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_together_is_a_probability(wrong):
    with pytest.raises(UserError, match=f"together is {wrong}; give a probability, 0 to 1"):
        ObjectSettings(together=wrong)
    assert [ObjectSettings(together=of).together for of in (0.0, 1.0)] == [0, 1]


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"min_area": -0.1}, {"min_area": 1}, {"dilation": -1}]
)
def test_bad_settings(wrong):
    with pytest.raises(UserError):
        ObjectSettings(**wrong)
