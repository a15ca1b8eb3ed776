"""The land-cover world: tiles of one class, rendered by our own code, with known attributes.

The same tile, seed and size give the same pixels; another size shows the same layout.

>>> tile = Tile("forest", season="winter", subtype="conifer")
>>> is_rare(tile), caption(tile)
(True, 'a rendered tile of a forest')
>>> render(tile, seed=0).shape
(64, 64, 3)
"""

import numpy as np
from numpy.typing import NDArray

from activegen.zoo.attributes import (
    CLASSES,
    HEADS,
    RARE,
    RARE_SHARE,
    SUBTYPES,
    TEMPLATE,
    WORDS,
    Tile,
    caption,
    draw_tile,
    is_rare,
)
from activegen.zoo.built import paint_houses, paint_industry, paint_road
from activegen.zoo.canvas import Plane, darken, edge, fractal, mix, noise, planes, shift
from activegen.zoo.ground import SUNS, Painter
from activegen.zoo.nature import paint_field, paint_forest, paint_lake, paint_meadow, paint_river

__all__ = [
    "CLASSES",
    "HEADS",
    "PAINTERS",
    "RARE",
    "RARE_SHARE",
    "SUBTYPES",
    "TEMPLATE",
    "WORDS",
    "Tile",
    "caption",
    "draw_tile",
    "illuminate",
    "is_rare",
    "render",
]

OVERSAMPLING = 2
SATURATION = 0.86
PAINTERS: dict[str, Painter] = {
    "field": paint_field,
    "meadow": paint_meadow,
    "forest": paint_forest,
    "lake": paint_lake,
    "river": paint_river,
    "road": paint_road,
    "houses": paint_houses,
    "industry": paint_industry,
}


def render(tile: Tile, seed: int, size: int = 64) -> NDArray[np.uint8]:
    """The picture of a tile, RGB (size, size, 3); the seed draws all positions."""
    rng = np.random.default_rng(seed)
    image = PAINTERS[tile.landcover](tile, rng, size * OVERSAMPLING)
    illuminate(image, tile, rng)
    small = image.reshape(3, size, OVERSAMPLING, size, OVERSAMPLING).mean((2, 4))
    return (np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0).copy()


def illuminate(image: Plane, tile: Tile, rng: np.random.Generator) -> None:
    """Put the light and the haze of the tile on any painted picture, in place."""
    light = SUNS[tile.light]
    size = image.shape[1]
    mix(image, image.mean(0), np.float32(1 - SATURATION))
    image *= planes(light.tint)
    image -= np.float32(0.45)
    image *= np.float32(light.contrast)
    image += np.float32(0.45)
    if tile.haze == "hazy":
        veil = np.clip(0.32 + 0.07 * noise(rng, size, 40), 0.15, 0.5)
        mix(image, planes((0.80, 0.83, 0.87)) * planes(light.tint), veil)
    elif tile.haze == "cloudy":
        _clouds(image, rng, light.sun)


def _clouds(image: Plane, rng: np.random.Generator, sun: tuple[float, float]) -> None:
    """White patches over about a fifth of the picture, with their shadows on the ground."""
    size = image.shape[1]
    height = fractal(rng, size, 24, 4)
    level = np.quantile(height[::4, ::4], rng.uniform(0.76, 0.88))
    cover = edge(np.float32(level) - height, 1.1)
    away = (round(-direction * size * 0.14) for direction in sun)
    darken(image, shift(cover, *away) * (1 - cover), 0.38)
    mix(image, (0.97, 0.97, 0.98), 0.9 * cover)
