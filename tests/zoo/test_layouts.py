"""Masks of scenes: same request, same mask; all classes in it; rare means rare."""

import numpy as np
import pytest

from activegen.zoo.layouts import (
    KINDS,
    LINES,
    RARE,
    RARE_SHARE,
    REGIONS,
    SCENE_CLASSES,
    SPOTS,
    Layout,
    draw_layout,
    draw_mask,
    is_rare,
    place,
    present,
)

LAYOUTS = [draw_layout(np.random.default_rng(seed)) for seed in range(1500)]


def test_same_layout_and_seed_give_the_same_mask() -> None:
    layout = Layout("cells", ("forest", "field"), line="river", spot="works")
    first = draw_mask(layout, seed=7)
    assert first.dtype == np.uint8
    assert first.shape == (64, 64)
    np.testing.assert_array_equal(first, draw_mask(layout, seed=7))
    assert (first != draw_mask(layout, seed=8)).mean() > 0.1  # positions are random


@pytest.mark.parametrize("seed", range(60))
def test_a_mask_shows_the_classes_of_its_layout(seed: int) -> None:
    layout = LAYOUTS[seed]
    assert 2 <= len(layout.classes) <= 4
    mask = draw_mask(layout, seed)
    assert present(mask) == layout.classes
    assert {SCENE_CLASSES[name] for name in np.unique(mask)} == set(layout.classes)


@pytest.mark.parametrize(
    ("layout", "seed"),
    [
        (Layout("blobs", ("field",), line="river", spot="copse"), 1095),
        (Layout("bands", ("forest", "field"), line="river", spot="works"), 1106),
    ],
)
def test_a_line_never_hides_a_spot(layout: Layout, seed: int) -> None:
    mask = draw_mask(layout, seed)  # the first places drawn lie below the river
    assert present(mask) == layout.classes
    large = draw_mask(layout, seed, size=128)
    assert (large[::2, ::2] == mask).mean() > 0.94


@pytest.mark.parametrize("seed", range(12))
def test_size_keeps_the_places(seed: int) -> None:
    mask = draw_mask(LAYOUTS[seed], seed)
    large = draw_mask(LAYOUTS[seed], seed, size=128)
    assert large.shape == (128, 128)
    assert (large[::2, ::2] == mask).mean() > 0.94  # they differ at borders only
    assert draw_mask(LAYOUTS[seed], seed, size=50).shape == (50, 50)


def test_a_pixel_has_the_class_that_covers_most_of_it() -> None:
    regions = place(Layout("bands", ("forest", "meadow"), line="lane"), seed=3)
    fine = regions.classes[regions.numbers]
    blocks = fine.reshape(64, 2, 64, 2).transpose(0, 2, 1, 3).reshape(64, 64, 4)
    mask = regions.mask()
    own = (blocks == mask[..., None]).sum(-1)
    for name in range(len(SCENE_CLASSES)):
        assert ((blocks == name).sum(-1) <= own).all()


def test_present_leaves_out_specks() -> None:
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[0, :20] = 3
    assert present(mask) == ("field",)
    mask[0, 20] = 3  # 21 of 4096 pixels
    assert present(mask) == ("field", "water")


def test_rare_layouts_have_their_share() -> None:
    share = np.mean([is_rare(layout) for layout in LAYOUTS])
    assert share == pytest.approx(RARE_SHARE, abs=0.035)


def test_without_the_tail_nothing_is_rare() -> None:
    rng = np.random.default_rng(0)
    assert not any(is_rare(draw_layout(rng, tail=False)) for _ in range(1000))


def test_everything_is_drawn() -> None:
    assert {layout.kind for layout in LAYOUTS} == set(KINDS)
    assert {layout.base for layout in LAYOUTS} == set(REGIONS)
    assert {layout.line for layout in LAYOUTS} == set(LINES)
    assert {layout.spot for layout in LAYOUTS} == {"none", *SPOTS}
    for mode in RARE:
        assert any(
            mode.items() <= vars(layout).items() | {("base", layout.base)} for layout in LAYOUTS
        )


def test_spots_lie_in_bases_that_have_them() -> None:
    for layout in LAYOUTS:
        assert layout.spot == "none" or layout.base in SPOTS[layout.spot].within


@pytest.mark.parametrize("name", ["puddles", "islands", "works"])
def test_small_regions_lie_within_their_base(name: str) -> None:
    layout = Layout("blobs", (SPOTS[name].within[0],), spot=name)
    for seed in range(5):
        small = draw_mask(layout, seed) == SCENE_CLASSES.index(SPOTS[name].landcover)
        assert 0.005 <= small.mean() < 0.12
        assert small[1:-1, 1:-1].sum() > 0.7 * small.sum()


def test_spots_have_their_base_around_them() -> None:
    forest, works = SCENE_CLASSES.index("forest"), SCENE_CLASSES.index("industry")
    shares = []
    for seed in range(10):
        mask = draw_mask(Layout("cells", ("forest", "field"), spot="works"), seed)
        rows, columns = np.nonzero(mask == works)
        around = mask[
            max(0, rows.min() - 1) : rows.max() + 2, max(0, columns.min() - 1) : columns.max() + 2
        ]
        shares.append((around[around != works] == forest).mean())
    assert np.mean(shares) > 0.9


def test_unknown_words_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown kind 'stars'.*cells, blobs, bands"):
        Layout("stars", ("forest", "field"))
    with pytest.raises(ValueError, match=r"unknown region 'road'.*field, meadow, forest"):
        Layout("cells", ("forest", "road"))
    with pytest.raises(ValueError, match="2 to 4 classes, not 1"):
        Layout("cells", ("forest",))
