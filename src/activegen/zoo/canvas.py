"""Brushes of the land-cover world: coordinates, smooth noise, shapes, shadows.

A picture is 64 units wide at every size. Pictures are float32 planes (3, size, size), masks are
(size, size) in [0, 1].
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating]
Colour = tuple[float, float, float]

UNITS = 64.0
_TABLE = 64  # random values of lattice cells repeat after this many cells


@dataclass(frozen=True)
class Light:
    """Where the sun stands (x right, y down), shadow length per unit of height, and its colour."""

    sun: tuple[float, float]
    shadow: float
    tint: Colour
    contrast: float


@lru_cache(maxsize=8)
def coordinates(size: int) -> tuple[Plane, Plane]:
    """The x and y of the pixel centres, in units."""
    axis = ((np.arange(size) + 0.5) * (UNITS / size)).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    x.flags.writeable = y.flags.writeable = False
    return x, y


@lru_cache(maxsize=64)
def _spline(size: int, knots: int) -> Plane:
    """Cubic B-spline weights (size, knots + 3) of evenly spaced knots."""
    position = (np.arange(size) + 0.5) / size * knots
    distance = np.abs(position[:, None] - (np.arange(knots + 3)[None] - 1))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def noise(rng: np.random.Generator, size: int, wavelength: float) -> Plane:
    """Smooth noise of about unit standard deviation; `wavelength` is in units."""
    knots = max(1, round(UNITS / wavelength))
    weights = _spline(size, knots)
    values = rng.standard_normal((knots + 3, knots + 3), dtype=np.float32)
    return 2.1 * (weights @ values @ weights.T)


def fractal(
    rng: np.random.Generator, size: int, wavelength: float, octaves: int = 3, decay: float = 0.55
) -> Plane:
    """A sum of octaves of `noise`, each half as long and weaker by `decay`."""
    total = noise(rng, size, wavelength)
    for octave in range(1, octaves):
        total += decay**octave * noise(rng, size, wavelength / 2**octave)
    return total


def grain(rng: np.random.Generator, size: int) -> Plane:
    """White noise, one value for each pixel of a 64-pixel picture at least."""
    coarse = rng.standard_normal((64, 64), dtype=np.float32)
    scale = max(1, size // 64)
    index = np.minimum(np.arange(size) // scale, 63)
    return coarse[np.ix_(index, index)]


def rotated(x: Plane, y: Plane, degrees: float) -> tuple[Plane, Plane]:
    """Coordinates along and across the direction `degrees`, about the middle of the picture."""
    cos, sin = np.float32(np.cos(np.radians(degrees))), np.float32(np.sin(np.radians(degrees)))
    middle = np.float32(UNITS / 2)
    return (x - middle) * cos + (y - middle) * sin, (y - middle) * cos - (x - middle) * sin


def fill(size: int, colour: Colour) -> Plane:
    """A picture of one colour."""
    return np.tile(planes(colour), (1, size, size))


def planes(colour: Colour) -> Plane:
    """A colour that broadcasts over a picture."""
    return np.asarray(colour, dtype=np.float32)[:, None, None]


def between(first: Colour, second: Colour, amount: Plane) -> Plane:
    """The picture that goes from one colour to the other with `amount`, clipped to [0, 1]."""
    low = planes(first)
    return low + (planes(second) - low) * np.clip(amount, 0, 1)


def mix(image: Plane, paint: Plane | Colour, mask: Plane | np.floating) -> None:
    """Paint over the image, in place, where the mask is 1."""
    over = planes(paint) if isinstance(paint, tuple) else paint
    image += (over - image) * mask


def edge(distance: Plane, softness: float = 0.6) -> Plane:
    """A mask that is 1 where the signed distance is negative, with a soft border (units)."""
    return np.clip(0.5 - distance / np.float32(softness), 0, 1)


def box(u: Plane, v: Plane, half_u: Plane | float, half_v: Plane | float) -> Plane:
    """Signed distance (along the axes) to a rectangle about 0."""
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


def repeat(u: Plane, period: float) -> Plane:
    """The coordinate relative to the nearest multiple of `period`."""
    return u - np.float32(period) * np.round(u / np.float32(period))


def stripes(u: Plane, period: float) -> Plane:
    """Soft rows, 0 to 1."""
    return 0.5 + 0.5 * np.cos(u * np.float32(2 * np.pi / period))


def shift(mask: Plane, dx: int, dy: int) -> Plane:
    """The mask moved by whole pixels, repeated at the border."""
    size = mask.shape[0]
    rows = np.clip(np.arange(size) - dy, 0, size - 1)
    columns = np.clip(np.arange(size) - dx, 0, size - 1)
    return mask[rows].take(columns, axis=1)


def shadow(mask: Plane, light: Light, height: float) -> Plane:
    """Where things of this height (units) throw their shadow, themselves left out."""
    length = height * light.shadow * mask.shape[0] / UNITS
    total = np.zeros_like(mask)
    for part in (1 / 3, 2 / 3, 1.0):
        dx, dy = (round(-direction * length * part) for direction in light.sun)
        np.maximum(total, shift(mask, dx, dy), out=total)
    return total * (1 - mask)


def darken(image: Plane, mask: Plane, amount: float = 0.5) -> None:
    """Put the image in the (bluish) shade, in place."""
    image *= 1 - planes((amount, amount * 0.95, amount * 0.8)) * mask


class Lots:
    """A lattice of cells: for each pixel its place in the cell, and random values of the cell."""

    def __init__(self, u: Plane, v: Plane, width: float, depth: float) -> None:
        """Cells of `width` x `depth` units."""
        column, row = np.floor(u / np.float32(width)), np.floor(v / np.float32(depth))
        self.u = u - (column + np.float32(0.5)) * np.float32(width)
        self.v = v - (row + np.float32(0.5)) * np.float32(depth)
        self._cell = (row.astype(np.int32) % _TABLE) * _TABLE + column.astype(np.int32) % _TABLE
        self.row = row

    def uniform(self, rng: np.random.Generator, low: float = 0.0, high: float = 1.0) -> Plane:
        """A value for each cell, spread over its pixels."""
        return rng.uniform(low, high, _TABLE**2).astype(np.float32).take(self._cell)

    def colours(self, rng: np.random.Generator, palette: tuple[Colour, ...]) -> Plane:
        """A colour of the palette for each cell."""
        table = np.asarray(palette, dtype=np.float32)[rng.integers(len(palette), size=_TABLE**2)]
        table *= rng.uniform(0.9, 1.08, (_TABLE**2, 1)).astype(np.float32)
        return np.stack([table[:, channel].take(self._cell) for channel in range(3)])


@dataclass(frozen=True)
class Crowns:
    """For each pixel the offset (units) from the nearest tree, its distance, a key in [0, 1)."""

    dx: Plane
    dy: Plane
    distance: Plane
    key: Plane

    @classmethod
    def scatter(
        cls,
        rng: np.random.Generator,
        size: int,
        spacing: float,
        jitter: float = 0.38,
        degrees: float = 0.0,
    ) -> "Crowns":
        """Trees on a lattice with `jitter` (0: rows, 0.5: anywhere in the cell)."""
        u, v = rotated(*coordinates(size), degrees)
        offset = rng.uniform(0, _TABLE, 2).astype(np.float32)
        u, v = u / np.float32(spacing) + offset[0], v / np.float32(spacing) + offset[1]
        place = rng.uniform(-jitter, jitter, (2, _TABLE**2)).astype(np.float32)
        keys = rng.random(_TABLE**2, dtype=np.float32)
        base_u, base_v = np.floor(u - 0.5), np.floor(v - 0.5)
        column, row = base_u.astype(np.int32), base_v.astype(np.int32)
        part_u, part_v = u - base_u - 0.5, v - base_v - 0.5
        best = np.full(u.shape, np.inf, dtype=np.float32)
        found_u, found_v = np.empty_like(best), np.empty_like(best)
        found = np.empty(u.shape, dtype=np.int32)
        for down in (0, 1):
            for right in (0, 1):
                cell = ((row + down) % _TABLE) * _TABLE + (column + right) % _TABLE
                du = part_u - right - place[0].take(cell)
                dv = part_v - down - place[1].take(cell)
                square = du * du + dv * dv
                nearer = square < best
                for known, new in ((best, square), (found_u, du), (found_v, dv), (found, cell)):
                    np.copyto(known, new, where=nearer)
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        scale = np.float32(spacing)
        dx = (found_u * np.float32(cos) - found_v * np.float32(sin)) * scale
        dy = (found_u * np.float32(sin) + found_v * np.float32(cos)) * scale
        return cls(dx, dy, np.sqrt(best) * scale, keys.take(found))

    def sample(self, field: Plane) -> Plane:
        """The value of a field at the nearest tree, so that no crown is cut."""
        size = field.shape[0]
        x, y = coordinates(size)
        scale = np.float32(size / UNITS)
        column = np.clip((x - self.dx) * scale, 0, size - 1).astype(np.int32)
        row = np.clip((y - self.dy) * scale, 0, size - 1).astype(np.int32)
        return field.take(row * size + column)
