"""The embedded world as a data set: rendered land-cover tiles whose attributes are known.

Train and val lack the rare modes that test has, so there is something true to find.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from activegen.data.images import Pixels, RealImages
from activegen.records import UserError, choose
from activegen.zoo import world

# Whether the rare modes are drawn. "pool" is what a user could label next; "judge" is what an
# independent judge of labels learns from.
TAIL = {"train": False, "val": False, "test": True, "pool": True, "judge": True}


def read_world(
    path: str,
    split: str,
    *,
    count: int = 50,
    tail: bool | None = None,
    seed: int = 0,
    size: int = 64,
) -> RealImages:
    """Tiles of one split, each rendered when it is first asked for and then kept.

    More tiles contain the fewer of the same seed. Splits never share a tile.

    Args:
        path: not used; the world is in the package.
        split: "train", "val", "test", "pool" or "judge".
        count: tiles of each class.
        tail: with the rare modes, at their natural share; by default `TAIL` of the split.
        seed: of the whole set.
        size: of the square images, pixels.

    Raises:
        UserError: unknown split; a count, seed or size that is too small.
    """
    if size < 8:
        raise UserError(f"size is {size}; give at least 8 pixels")
    drawn = _draw(split, count, tail, seed)
    return RealImages(
        name=f"world ({split})",
        classes=world.CLASSES,
        ids=tuple(tile.id for tile in drawn),
        labels=tuple(world.CLASSES.index(tile.tile.landcover) for tile in drawn),
        read=_Rendered(tuple(drawn), size),
    )


def tiles(
    split: str, *, count: int = 50, tail: bool | None = None, seed: int = 0
) -> dict[str, world.Tile]:
    """What each image of `read_world` shows, by its id; the options are the same.

    Raises:
        UserError: as `read_world` does.
    """
    return {drawn.id: drawn.tile for drawn in _draw(split, count, tail, seed)}


@dataclass(frozen=True)
class _Drawn:
    """A tile before it is rendered; ``seed`` draws the positions in it."""

    id: str
    tile: world.Tile
    seed: int


@dataclass(frozen=True)
class _Rendered:
    """Renders each tile once."""

    drawn: tuple[_Drawn, ...]
    size: int
    kept: dict[int, Pixels] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, index: int) -> Pixels:
        if index not in self.kept:
            drawn = self.drawn[index]
            pixels = world.render(drawn.tile, drawn.seed, self.size)
            self.kept[index] = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        return self.kept[index].clone()


def _draw(split: str, count: int, tail: bool | None, seed: int) -> list[_Drawn]:
    natural = choose(TAIL, split, "split of the world")
    if count < 1 or seed < 0:
        raise UserError(
            f"count is {count} and seed is {seed}; count is at least 1, seed at least 0"
        )
    return list(_tiles(split, count, natural if tail is None else tail, seed))


def _tiles(split: str, count: int, tail: bool, seed: int) -> Iterator[_Drawn]:
    of = f"world/{split}/{'tail' if tail else 'common'}-{seed}"
    for label, landcover in enumerate(world.CLASSES):
        for number in range(count):
            rng = np.random.default_rng((seed, salt(split), label, number))
            tile = world.draw_tile(rng, landcover, tail=tail)
            yield _Drawn(f"{of}/{landcover}/{number:06d}", tile, int(rng.integers(2**62)))


def salt(name: str) -> int:
    """Of a random number generator, so that other names have other numbers."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
