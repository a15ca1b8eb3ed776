"""What all land-cover classes share: palettes, the sun, grass, trees and winding lines."""

from collections.abc import Callable

import numpy as np

from activegen.zoo.attributes import Tile
from activegen.zoo.canvas import (
    Colour,
    Crowns,
    Light,
    Plane,
    between,
    darken,
    edge,
    fractal,
    grain,
    mix,
    shadow,
)

Painter = Callable[[Tile, np.random.Generator, int], Plane]

SUNS: dict[str, Light] = {
    "morning": Light((0.85, 0.45), 1.1, (1.03, 0.98, 0.99), 1.0),
    "noon": Light((0.15, 0.95), 0.55, (1.04, 1.03, 1.01), 1.05),
    "evening": Light((-0.9, 0.35), 1.4, (1.12, 0.97, 0.82), 1.06),
}
SNOW: Colour = (0.88, 0.91, 0.96)
GRASS: dict[str, tuple[Colour, Colour]] = {
    "spring": ((0.33, 0.50, 0.20), (0.50, 0.62, 0.28)),
    "summer": ((0.34, 0.45, 0.20), (0.52, 0.56, 0.30)),
    "autumn": ((0.45, 0.42, 0.22), (0.60, 0.52, 0.30)),
    "winter": ((0.78, 0.82, 0.87), (0.93, 0.95, 0.98)),
}
LEAVES: dict[str, tuple[Colour, Colour]] = {
    "spring": ((0.26, 0.45, 0.14), (0.46, 0.62, 0.24)),
    "summer": ((0.13, 0.31, 0.11), (0.27, 0.45, 0.18)),
    "autumn": ((0.62, 0.24, 0.10), (0.86, 0.62, 0.18)),
    "winter": ((0.46, 0.43, 0.42), (0.82, 0.84, 0.88)),
}
NEEDLES: dict[str, tuple[Colour, Colour]] = {
    "spring": ((0.08, 0.26, 0.17), (0.18, 0.38, 0.22)),
    "summer": ((0.06, 0.22, 0.16), (0.15, 0.33, 0.21)),
    "autumn": ((0.07, 0.22, 0.14), (0.20, 0.33, 0.18)),
    "winter": ((0.16, 0.27, 0.25), (0.62, 0.70, 0.74)),
}


def level(tile: Tile, sparse: float, medium: float, dense: float) -> float:
    """The value that belongs to the tile's density."""
    return {"sparse": sparse, "medium": medium, "dense": dense}[tile.density]


def grass(tile: Tile, rng: np.random.Generator, size: int) -> Plane:
    """A picture of mottled grass, or snow in winter."""
    low, high = GRASS[tile.season]
    image = between(low, high, 0.5 + 0.22 * fractal(rng, size, 22, 4))
    image *= 1 + (0.015 if tile.season == "winter" else 0.035) * grain(rng, size)
    return image


def trees(
    image: Plane,
    tile: Tile,
    crowns: Crowns,
    radius: float,
    present: Plane,
    palette: tuple[Colour, Colour],
) -> None:
    """Paint lit crowns with their shadows on the image, where `present` is positive at the tree."""
    light = SUNS[tile.light]
    reach = np.float32(radius) * (0.7 + 0.6 * crowns.key)
    mask = edge(crowns.distance - reach) * (crowns.sample(present) > 0)
    darken(image, shadow(mask, light, radius * 1.1), 0.55)
    facing = (crowns.dx * light.sun[0] + crowns.dy * light.sun[1]) / reach
    hue = np.modf(crowns.key * 7.3)[0]
    crown = between(*palette, hue)
    crown *= 1.05 + 0.38 * np.clip(facing, -1, 1) - 0.22 * np.clip(crowns.distance / reach, 0, 1)
    mix(image, crown, mask)


def scattered_trees(
    image: Plane,
    tile: Tile,
    rng: np.random.Generator,
    share: float,
    allowed: Plane | None = None,
    spacing: float = 6.0,
) -> None:
    """Single trees: a share of the places of a loose lattice, only where `allowed` is positive."""
    size = image.shape[1]
    crowns = Crowns.scatter(rng, size, spacing)
    present = np.float32(share) - np.modf(crowns.key * 13.7)[0]
    if allowed is not None:
        present = np.minimum(present, crowns.sample(allowed))
    trees(image, tile, crowns, spacing * 0.36, present, LEAVES[tile.season])


def winding(
    rng: np.random.Generator, u: Plane, swing: float, wavelength: float
) -> tuple[Plane, Plane]:
    """A winding line v(u), and the factor from distance along v to distance across the line."""
    rate = np.float32(2 * np.pi / wavelength)
    phase = u * rate + np.float32(rng.uniform(0, 2 * np.pi))
    swing_, second = np.float32(swing), np.float32(rng.uniform(0.1, 0.25))
    line = swing_ * (np.sin(phase) + second * np.sin(2.3 * phase)) + np.float32(rng.uniform(-6, 6))
    slope = swing_ * rate * (np.cos(phase) + 2.3 * second * np.cos(2.3 * phase))
    return line, np.sqrt(1 + slope * slope)
