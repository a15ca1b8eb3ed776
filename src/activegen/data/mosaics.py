"""Mosaics as a data set: masks of the embedded world filled with texture of real EuroSAT tiles.

Train and val lack the rare layouts that test has, as of the world's scenes. The texture of a split
comes from the rows of the same split.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from activegen.data.made import Made, Pair
from activegen.data.scenes import RealScenes
from activegen.data.world import TAIL, salt
from activegen.records import UserError, choose
from activegen.zoo.domains import eurosat
from activegen.zoo.layouts import SCENE_CLASSES, Layout, draw_layout, draw_mask
from activegen.zoo.mosaics import Textures, mosaic

TEXTURES = ("train", "val", "test")


def read_mosaics(
    path: str, split: str, *, count: int = 200, tail: bool | None = None, seed: int = 0
) -> RealScenes:
    """Mosaics of one split, each made when it is first asked for and then kept.

    More mosaics contain the fewer of the same seed. Splits never share a mask or a tile.

    Args:
        path: folder of EuroSAT's parquet files, ``eurosat_rgb_<split>.parquet``.
        split: "train", "val" or "test".
        count: mosaics in all.
        tail: with the rare layouts, at their natural share; by default `world.TAIL` of the split.
        seed: of the whole set.

    Raises:
        UserError: unknown split; a count or seed that is too small; the texture's file is missing.
    """
    choose(dict.fromkeys(TEXTURES), split, "split of the mosaics")
    if count < 1 or seed < 0:
        raise UserError(
            f"count is {count} and seed is {seed}; count is at least 1, seed at least 0"
        )
    tail = TAIL[split] if tail is None else tail
    tiles = eurosat(Path(path), split)
    textures = Textures.of(tiles.images, tiles.labels)
    drawn = tuple(_draw(split, count, tail, seed))

    def make(index: int) -> Pair:
        layout, position, filling = drawn[index]
        mask = draw_mask(layout, position)
        return mosaic(mask, textures, np.random.default_rng(filling)), mask

    made = Made(make)
    return RealScenes(
        name=f"mosaics ({split})",
        classes=SCENE_CLASSES,
        ids=tuple(
            f"mosaics/{split}/{'tail' if tail else 'common'}-{seed}/{k:06d}" for k in range(count)
        ),
        read=made.image,
        read_mask=made.mask,
    )


def _draw(split: str, count: int, tail: bool, seed: int) -> Iterator[tuple[Layout, int, int]]:
    """Layouts, and the seeds of their masks and textures."""
    for number in range(count):
        rng = np.random.default_rng((seed, salt(f"mosaics of {split}"), number))
        layout = draw_layout(rng, tail)
        yield layout, int(rng.integers(2**62)), int(rng.integers(2**62))
