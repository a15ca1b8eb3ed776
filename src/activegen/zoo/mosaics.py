"""Mosaics: masks of the land-cover world, filled with the texture of real EuroSAT tiles.

Helber et al. (2019), EuroSAT, https://arxiv.org/abs/1709.00029.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from activegen.records import UserError
from activegen.zoo.canvas import Plane
from activegen.zoo.layouts import SCENE_CLASSES

EUROSAT_CLASSES: dict[str, tuple[str, ...]] = {
    "field": ("AnnualCrop", "PermanentCrop"),
    "meadow": ("Pasture", "HerbaceousVegetation"),
    "forest": ("Forest",),
    "water": ("SeaLake",),
    "road": ("Highway",),
    "houses": ("Residential",),
    "industry": ("Industrial",),
}


@dataclass(frozen=True)
class Textures:
    """Square tiles of each class of `SCENE_CLASSES`.

    Args:
        tiles: images (n, size, size, 3) uint8.
        places: for each class the places of its tiles in `tiles`.
    """

    tiles: NDArray[np.uint8]
    places: Mapping[str, NDArray[np.int64]]

    @classmethod
    def of(cls, tiles: NDArray[np.uint8], labels: Sequence[str]) -> "Textures":
        """EuroSAT's images and their labels, by `EUROSAT_CLASSES`.

        Raises:
            UserError: a class has no tile.
        """
        places = {
            name: np.flatnonzero(np.isin(labels, wanted))
            for name, wanted in EUROSAT_CLASSES.items()
        }
        if missing := [name for name, found in places.items() if not len(found)]:
            raise UserError(
                f"no tile for {', '.join(missing)}; give all of EuroSAT's classes, not a part"
            )
        return cls(tiles, places)

    def draw(self, name: str, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A random tile of the class, turned or mirrored, resized to (size, size, 3)."""
        tile = self.tiles[rng.choice(self.places[name])]
        tile = np.rot90(tile, int(rng.integers(4)))
        tile = tile[:, ::-1] if rng.random() < 0.5 else tile
        if len(tile) == size:
            return tile
        return np.asarray(Image.fromarray(tile).resize((size, size), Image.Resampling.LANCZOS))


def mosaic(
    mask: NDArray[np.uint8], textures: Textures, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Fill each connected region of a mask with one random tile of its class.

    Pixels at a border take a part of the neighbour, less than half; the mask stays true.

    Args:
        mask: ids (size, size), places in `SCENE_CLASSES`.
        textures: what to fill the regions with.
        rng: draws the tiles and their turns.

    Returns:
        The image, RGB (size, size, 3).
    """
    size = len(mask)
    numbers = regions(mask)
    total = np.zeros((size, size, 3), dtype=np.float32)
    for number, first in enumerate(np.unique(numbers, return_index=True)[1]):
        tile = textures.draw(SCENE_CLASSES[mask.flat[first]], size, rng)
        total += _softened(numbers == number)[..., None] * tile
    return (total + 0.5).astype(np.uint8)


def regions(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number the connected regions of equal id (by edges), from 0, in reading order."""
    height, width = mask.shape
    starts = np.ones(mask.shape, dtype=bool)  # of the runs of each row
    starts[:, 1:] = mask[:, 1:] != mask[:, :-1]
    runs = (starts.cumsum() - 1).reshape(height, width)
    touching = mask[1:] == mask[:-1]
    pairs = np.unique(np.stack([runs[:-1][touching], runs[1:][touching]], 1), axis=0)
    root = list(range(int(runs[-1, -1]) + 1))

    def find(run: int) -> int:
        while root[run] != run:
            root[run] = root[root[run]]
            run = root[run]
        return run

    for above, below in pairs.tolist():
        one, other = find(above), find(below)
        root[max(one, other)] = min(one, other)
    roots = np.array([find(run) for run in range(len(root))])
    return np.unique(roots, return_inverse=True)[1].reshape(-1)[runs]


def _softened(own: NDArray[np.bool_]) -> Plane:
    """How much of a region each pixel shows; borders lie between 1/2 and 1 inside of it.

    The weights of all regions of a mask add to 1 at each pixel.
    """
    weight = np.pad(own.astype(np.float32), 1, mode="edge")
    near = weight[:-2, 1:-1] + weight[2:, 1:-1] + weight[1:-1, :-2] + weight[1:-1, 2:]
    return np.float32(0.6) * weight[1:-1, 1:-1] + np.float32(0.1) * near
