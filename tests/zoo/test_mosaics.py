"""Mosaics: every region is filled with a tile of its class, and the mask stays true."""

import numpy as np
import pytest

from activegen.records import UserError
from activegen.zoo.domains import EUROSAT_WORDS, Domain, mosaics
from activegen.zoo.layouts import SCENE_CLASSES, draw_layout, draw_mask
from activegen.zoo.mosaics import EUROSAT_CLASSES, Textures, mosaic, regions

COLOURS = np.random.default_rng(0).permutation(np.arange(10) * 25).astype(np.uint8)


def domain(labels: list[str]) -> Domain:
    """A tile of one grey for each label."""
    greys = [COLOURS[list(EUROSAT_WORDS).index(label)] for label in labels]
    images = np.stack([np.full((64, 64, 3), grey, dtype=np.uint8) for grey in greys])
    return Domain("eurosat", images, [("",)] * len(labels), labels, True)


EUROSAT = domain(list(EUROSAT_WORDS) * 2)
TEXTURES = Textures.of(EUROSAT.images, EUROSAT.labels)


def greys_of(name: str) -> list[int]:
    return [int(COLOURS[list(EUROSAT_WORDS).index(label)]) for label in EUROSAT_CLASSES[name]]


def test_every_class_has_textures_that_no_other_has() -> None:
    assert tuple(EUROSAT_CLASSES) == SCENE_CLASSES
    labels = [label for labels in EUROSAT_CLASSES.values() for label in labels]
    assert len(labels) == len(set(labels))
    assert set(labels) <= set(EUROSAT_WORDS)


@pytest.mark.parametrize("size", [64, 96])
def test_pixels_are_nearest_to_a_tile_of_their_class(size: int) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        mask = draw_mask(draw_layout(rng), seed, size)
        image = mosaic(mask, TEXTURES, rng).astype(int)
        inner = mask[1:-1, 1:-1]
        calm = np.ones(inner.shape, dtype=bool)  # pixels without another class beside
        for beside in (mask[:-2, 1:-1], mask[2:, 1:-1], mask[1:-1, :-2], mask[1:-1, 2:]):
            calm &= beside == inner
        for name in np.unique(mask):
            shown = set(image[1:-1, 1:-1, 0][calm & (inner == name)].tolist())
            assert shown <= set(greys_of(SCENE_CLASSES[name]))


def test_borders_are_soft_but_true() -> None:
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:, 32:] = SCENE_CLASSES.index("forest")
    mask[10, 10] = SCENE_CLASSES.index("water")  # even a single pixel
    tiles = np.stack([np.full((64, 64, 3), grey, dtype=np.uint8) for grey in (0, 100, 250)])
    places = {"field": np.array([0]), "forest": np.array([1]), "water": np.array([2])}
    grey = mosaic(mask, Textures(tiles, places), np.random.default_rng(0))[..., 0]
    assert grey[5, 31] == 10
    assert grey[5, 32] == 90
    assert grey[10, 10] == 150


def test_regions_are_connected() -> None:
    mask = np.array(
        [[0, 0, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [2, 0, 0, 0], [2, 2, 0, 2]], dtype=np.uint8
    )
    wanted = [[0, 0, 1, 2], [1, 0, 1, 2], [1, 1, 1, 2], [3, 2, 2, 2], [3, 3, 2, 4]]
    np.testing.assert_array_equal(regions(mask), wanted)


def test_regions_are_filled_apart_and_turned() -> None:
    noisy = np.random.default_rng(1).integers(0, 255, (1, 64, 64, 3), dtype=np.uint8)
    textures = Textures(noisy, {"field": np.array([0])})
    mask = np.zeros((64, 64), dtype=np.uint8)
    drawn = {mosaic(mask, textures, np.random.default_rng(seed)).tobytes() for seed in range(60)}
    assert len(drawn) == 8  # all turns of the square


def test_a_domain_of_mosaics_is_the_same_at_each_index() -> None:
    first, longer = mosaics(3, 5, EUROSAT), mosaics(6, 5, EUROSAT)
    np.testing.assert_array_equal(first.images, longer.images[:3])
    np.testing.assert_array_equal(first.masks, longer.masks[:3])
    assert first.captions == longer.captions[:3]
    assert all(text.startswith("a satellite mosaic of ") for text in sum(longer.captions, ()))


def test_a_missing_class_is_named() -> None:
    some = domain(["Forest", "SeaLake"])
    with pytest.raises(UserError, match="no tile for field, meadow, road, houses, industry"):
        Textures.of(some.images, some.labels)
