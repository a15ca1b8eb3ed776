"""The land-cover world: same request, same pixels; rare means rare; classes can be told apart."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from activegen.zoo.attributes import HAZES, LIGHTS, SEASONS
from activegen.zoo.world import (
    CLASSES,
    HEADS,
    PAINTERS,
    RARE,
    RARE_SHARE,
    SUBTYPES,
    WORDS,
    Tile,
    caption,
    draw_tile,
    is_rare,
    render,
)

KINDS = [(landcover, subtype) for landcover in CLASSES for subtype in SUBTYPES[landcover]]


@pytest.mark.parametrize("landcover", CLASSES)
def test_same_tile_and_seed_give_the_same_pixels(landcover: str) -> None:
    tile = draw_tile(np.random.default_rng(3), landcover)
    first = render(tile, seed=7)
    assert first.dtype == np.uint8
    assert first.shape == (64, 64, 3)
    np.testing.assert_array_equal(first, render(tile, seed=7))
    assert np.abs(first.astype(int) - render(tile, seed=8)).mean() > 2  # positions are random


@pytest.mark.parametrize("size", [32, 50, 96])
def test_any_size(size: int) -> None:
    assert render(Tile("road"), seed=0, size=size).shape == (size, size, 3)


def test_size_keeps_the_layout() -> None:
    large = render(Tile("lake"), seed=4, size=128).astype(float)
    halved = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(halved - render(Tile("lake"), seed=4)).mean() < 6


@pytest.mark.parametrize(("landcover", "subtype"), KINDS)
def test_every_kind_is_painted_in_every_season(landcover: str, subtype: str) -> None:
    for season, density in zip(SEASONS, ("sparse", "medium", "dense", "dense"), strict=True):
        tile = Tile(landcover, season=season, density=density, subtype=subtype, orientation=40)
        painted = PAINTERS[landcover](tile, np.random.default_rng(1), 64)
        assert painted.shape == (3, 64, 64)
        assert np.isfinite(painted).all()
        assert render(tile, seed=1).std() > 8  # not flat


def test_seasons_light_and_haze_are_seen() -> None:
    tile = Tile("meadow")
    looks = [
        render(replace(tile, season=season, light=light, haze=haze), seed=2).mean((0, 1))
        for season, light, haze in itertools.product(SEASONS, LIGHTS, HAZES)
    ]
    gaps = [np.abs(one - other).max() for one, other in itertools.combinations(looks, 2)]
    assert min(gaps) > 0.5


def test_rare_tiles_have_their_share() -> None:
    rng = np.random.default_rng(0)
    share = np.mean([is_rare(draw_tile(rng)) for _ in range(4000)])
    assert share == pytest.approx(RARE_SHARE, abs=0.03)


def test_without_the_tail_nothing_is_rare() -> None:
    rng = np.random.default_rng(0)
    assert not any(is_rare(draw_tile(rng, tail=False)) for _ in range(2000))


@pytest.mark.parametrize("landcover", CLASSES)
def test_every_rare_mode_is_drawn_and_every_subtype(landcover: str) -> None:
    rng = np.random.default_rng(0)
    tiles = [draw_tile(rng, landcover) for _ in range(400)]
    assert {tile.landcover for tile in tiles} == {landcover}
    assert {tile.subtype for tile in tiles} == set(SUBTYPES[landcover])
    for mode in RARE[landcover]:
        assert any(mode.items() <= vars(tile).items() for tile in tiles)


def test_captions_name_their_class_and_no_other() -> None:
    rng = np.random.default_rng(0)
    for detail in range(4):
        for _ in range(400):
            tile = draw_tile(rng)
            said = caption(tile, rng, detail)
            assert said.startswith("a rendered tile of ")
            assert any(HEADS[word] in said for word in WORDS[tile.landcover])
            others = (word for name in CLASSES if name != tile.landcover for word in WORDS[name])
            spoken = f" {said.replace(',', ' ')} "
            assert not any(f" {HEADS[word]} " in spoken for word in others)


def test_captions_read_as_english() -> None:
    tile = Tile("road", season="winter", light="evening", haze="hazy", subtype="dirt")
    assert caption(tile) == "a rendered tile of a road"
    assert caption(tile, detail=3) == (
        "a rendered tile of an unpaved road in winter, evening light, hazy"
    )
    assert caption(Tile("houses"), detail=2) == "a rendered tile of suburban houses in summer"
    assert caption(Tile("industry"), detail=1) == ("a rendered tile of industry with large halls")


def test_unknown_words_are_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown landcover 'forrest'.*meadow, forest, lake"):
        draw_tile(np.random.default_rng(0), "forrest")
    with pytest.raises(ValueError, match=r"unknown subtype of lake 'conifer'.*blue, algae, frozen"):
        Tile("lake", subtype="conifer")
    with pytest.raises(ValueError, match="orientation"):
        Tile("lake", orientation=180)


def _statistics(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Colour means and deviations, and the quantiles of the gradient."""
    pixels = image / 255.0
    grey = pixels.mean(2)
    steps = np.hypot(np.diff(grey, axis=0)[:, :-1], np.diff(grey, axis=1)[:-1])
    quantiles = np.quantile(steps, (0.25, 0.5, 0.75, 0.95))
    return np.concatenate([pixels.mean((0, 1)), pixels.std((0, 1)), quantiles])


def test_classes_differ_in_simple_statistics() -> None:
    rng = np.random.default_rng(0)

    def sample(count: int) -> NDArray[np.float64]:
        tiles = [[draw_tile(rng, name) for _ in range(count)] for name in CLASSES]
        return np.array(
            [[_statistics(render(tile, seed)) for seed, tile in enumerate(row)] for row in tiles]
        )

    known, new = sample(30), sample(15)
    scale = known.std((0, 1))
    distances = np.linalg.norm((new[:, :, None] - known.mean(1)) / scale, axis=-1)
    right = distances.argmin(-1) == np.arange(len(CLASSES))[:, None]
    assert right.mean() > 3 / len(CLASSES)  # thrice chance
