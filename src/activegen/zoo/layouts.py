"""Where the land covers of a scene lie: exact masks of two to four classes.

Nothing here paints. A `Layout` says everything about a mask but the positions in it, which come
from a seed. The same layout, seed and size give the same mask; another size shows the same places.

>>> layout = Layout("cells", ("forest", "field"), line="lane")
>>> is_rare(layout), layout.classes
(True, ('field', 'forest', 'road'))
>>> draw_mask(layout, seed=0).shape
(64, 64)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from activegen.zoo.canvas import (
    UNITS,
    Plane,
    box,
    coordinates,
    fractal,
    noise,
    rotated,
)
from activegen.zoo.ground import winding
from activegen.zoo.world import OVERSAMPLING

SCENE_CLASSES: tuple[str, ...] = (
    "field",
    "meadow",
    "forest",
    "water",
    "road",
    "houses",
    "industry",
)
PRESENT = 0.005  # of the pixels; a class with fewer is not said to be in a mask

KINDS: tuple[str, ...] = ("cells", "blobs", "bands")
# The covers that regions may have, and how often each is drawn.
REGIONS: dict[str, float] = {
    "field": 0.24,
    "meadow": 0.18,
    "forest": 0.22,
    "water": 0.12,
    "houses": 0.14,
    "industry": 0.10,
}


@dataclass(frozen=True)
class Line:
    """A long thin region through the whole mask; half width and swing in units, low and high."""

    landcover: str
    half: tuple[float, float]
    swing: tuple[float, float]


@dataclass(frozen=True)
class Spot:
    """Small regions: the bases that have them, how many, their radius in units, their shape."""

    landcover: str
    within: tuple[str, ...]
    count: tuple[int, int]
    radius: tuple[float, float]
    square: bool = False


_RIVER = Line("water", (3.2, 5.4), (6.0, 12.0))
_ROAD = Line("road", (2.2, 3.2), (0.0, 5.0))
LINES: dict[str, tuple[Line, ...]] = {
    "none": (),
    "river": (_RIVER,),
    "road": (_ROAD,),
    "bridge": (_RIVER, _ROAD),
    "stream": (Line("water", (1.1, 1.5), (5.0, 10.0)),),
    "lane": (Line("road", (1.1, 1.5), (2.0, 7.0)),),
}
_LAND = ("field", "meadow", "forest", "houses", "industry")
SPOTS: dict[str, Spot] = {
    "pond": Spot("water", _LAND, (1, 1), (5.0, 8.5)),
    "farmstead": Spot("houses", ("field", "meadow", "forest"), (1, 1), (6.5, 9.0), square=True),
    "copse": Spot("forest", ("field", "meadow", "houses", "industry"), (1, 2), (5.0, 8.0)),
    "puddles": Spot("water", _LAND, (1, 2), (3.0, 3.8)),
    "islands": Spot("meadow", ("water",), (2, 3), (3.4, 6.0)),
    "works": Spot("industry", ("forest",), (1, 1), (6.0, 9.0), square=True),
}
_USUAL_LINES: dict[str, float] = {"none": 0.42, "river": 0.2, "road": 0.3, "bridge": 0.08}
_USUAL_SPOTS: dict[str, float] = {"none": 0.5, "pond": 0.16, "farmstead": 0.17, "copse": 0.17}

# The long tail: a layout is rare when it agrees with all attributes of one of these modes.
RARE: tuple[Mapping[str, str], ...] = (
    {"spot": "puddles"},
    {"spot": "islands"},
    {"spot": "works"},
    {"spot": "copse", "base": "industry"},
    {"spot": "farmstead", "base": "forest"},
    {"line": "stream"},
    {"line": "lane", "base": "forest"},
    {"line": "road", "base": "water"},
)
RARE_SHARE = 0.28  # of the layouts, where the tail is drawn


def _known(kind: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise ValueError(f"unknown {kind} {word!r}; choose one of: {', '.join(known)}")


@dataclass(frozen=True)
class Layout:
    """What a mask is made of.

    Args:
        kind: how the regions share the plane: "cells", "blobs" on a ground, or "bands".
        regions: their classes; the first, the base, takes most of the plane and has the spots.
        line: what runs through the plane, a name of `LINES`.
        spot: what lies within the base, a name of `SPOTS` or "none".
    """

    kind: str
    regions: tuple[str, ...]
    line: str = "none"
    spot: str = "none"
    classes: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Check each word and the number of classes; list the classes in their order."""
        _known("kind", self.kind, KINDS)
        for name in self.regions:
            _known("region", name, tuple(REGIONS))
        _known("line", self.line, tuple(LINES))
        _known("spot", self.spot, ("none", *SPOTS))
        names = {*self.regions, *(line.landcover for line in LINES[self.line])}
        if self.spot != "none":
            names.add(SPOTS[self.spot].landcover)
        if not 2 <= len(names) <= 4:
            raise ValueError(f"a layout has 2 to 4 classes, not {len(names)}: {sorted(names)}")
        ordered = tuple(name for name in SCENE_CLASSES if name in names)
        object.__setattr__(self, "classes", ordered)

    @property
    def base(self) -> str:
        """The class of most of the plane."""
        return self.regions[0]


def is_rare(layout: Layout) -> bool:
    """Whether the layout belongs to the long tail: it agrees with a mode of `RARE`."""
    return any(all(getattr(layout, name) == value for name, value in mode.items()) for mode in RARE)


def draw_layout(rng: np.random.Generator, tail: bool = True) -> Layout:
    """Draw a layout; with `tail`, a share of `RARE_SHARE` is rare, without it none.

    All rare modes are drawn alike.
    """
    if tail and rng.random() < RARE_SHARE:
        return _fill(rng, RARE[rng.integers(len(RARE))])
    while is_rare(layout := _fill(rng, {})):
        pass
    return layout


def _fill(rng: np.random.Generator, given: Mapping[str, str]) -> Layout:
    """Draw the attributes that are not given, until two to four classes come together."""
    while True:
        names, shares = list(REGIONS), np.array(list(REGIONS.values()))
        count = int(rng.choice((1, 2, 3), p=(0.2, 0.5, 0.3)))
        regions = [str(name) for name in rng.choice(names, count, replace=False, p=shares)]
        if base := given.get("base"):
            regions = [base, *(name for name in regions if name != base)]
        line = given.get("line") or _pick(rng, _USUAL_LINES)
        spot = given.get("spot") or _pick(rng, _USUAL_SPOTS)
        try:
            layout = Layout(KINDS[rng.integers(len(KINDS))], tuple(regions), line, spot)
        except ValueError:  # one class, or five
            continue
        if spot == "none" or layout.base in SPOTS[spot].within:
            return layout


def _pick(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    return str(rng.choice(list(shares), p=list(shares.values())))


# --- positions ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """For each pixel where it is on a road: along it, across it, and half the width (units)."""

    along: Plane
    across: Plane
    half: float


@dataclass(frozen=True)
class Regions:
    """A layout with positions, at `OVERSAMPLING` of the mask's size.

    Args:
        numbers: for each pixel its region, (fine, fine).
        classes: for each region its class id.
        way: the course of the road, if there is one.
    """

    numbers: NDArray[np.int64]
    classes: NDArray[np.uint8]
    way: Way | None

    def mask(self) -> NDArray[np.uint8]:
        """The class that covers most of each pixel, (size, size); the first of equals."""
        fine = self.classes[self.numbers]
        size = len(fine) // OVERSAMPLING
        blocks = fine.reshape(size, OVERSAMPLING, size, OVERSAMPLING)
        best = np.zeros((size, size), dtype=np.uint8)
        most = np.zeros((size, size), dtype=np.int64)
        for name in np.unique(self.classes):
            covered = (blocks == name).sum((1, 3))
            np.copyto(best, name, where=covered > most)
            np.maximum(most, covered, out=most)
        return best


def draw_mask(layout: Layout, seed: int, size: int = 64) -> NDArray[np.uint8]:
    """The mask (size, size) of ids, places in `SCENE_CLASSES`; the seed draws all positions."""
    return place(layout, seed, size).mask()


def present(mask: NDArray[np.uint8]) -> tuple[str, ...]:
    """The classes that a mask shows, with a share of `PRESENT` of its pixels at least."""
    counts = np.bincount(mask.ravel(), minlength=len(SCENE_CLASSES))
    return tuple(
        name
        for name, count in zip(SCENE_CLASSES, counts, strict=False)
        if count >= PRESENT * mask.size
    )


def place(layout: Layout, seed: int, size: int = 64) -> Regions:
    """Draw the positions again and again, at 64 pixels, until the mask shows all classes.

    Raises:
        RuntimeError: they cannot be placed together.
    """
    for attempt in range(100):
        spots = np.random.default_rng((seed, attempt, 1))
        centres: list[tuple[float, float]] = []
        rng = np.random.default_rng((seed, attempt))
        regions = _draw(layout, rng, round(UNITS) * OVERSAMPLING, centres, spots)
        if present(regions.mask()) == layout.classes:
            break
    else:
        raise RuntimeError(f"found no place for all classes of {layout}")
    if size == round(UNITS):
        return regions
    rng = np.random.default_rng((seed, attempt))
    return _draw(layout, rng, size * OVERSAMPLING, centres)


def _draw(
    layout: Layout,
    rng: np.random.Generator,
    size: int,
    centres: list[tuple[float, float]],
    spots: np.random.Generator | None = None,
) -> Regions:
    """Put regions, spots and lines upon one another; with `spots`, find the centres of spots."""
    numbers, names = _GROUNDS[layout.kind](layout.regions, rng, size)
    if layout.spot != "none":
        spot = SPOTS[layout.spot]
        sizes = rng.uniform(*spot.radius, int(rng.integers(*spot.count, endpoint=True)))
        turn, wobble = rng.uniform(0, 180), 0.16 * noise(rng, size, 12)
        if spots is not None:
            inside = np.array([name == layout.base for name in names])[numbers]
            centres += _centres(spots, inside, sizes)
        for centre, radius in zip(centres, sizes, strict=True):
            u, v = coordinates(size)
            u, v = u - np.float32(centre[0] - UNITS / 2), v - np.float32(centre[1] - UNITS / 2)
            u, v = rotated(u, v, turn)
            reach = float(radius)
            if spot.square:
                distance = box(u, v, reach, 0.75 * reach)
            else:
                distance = np.hypot(u, v * np.float32(1.2)) - reach * (1 + wobble)
            numbers[distance < 0] = len(names)
            names.append(spot.landcover)
    way = None
    for line in LINES[layout.line]:
        course = _course(line, rng, size)
        numbers[np.abs(course.across) < course.half] = len(names)
        names.append(line.landcover)
        if line.landcover == "road":
            way = course
    ids = np.array([SCENE_CLASSES.index(name) for name in names], dtype=np.uint8)
    return Regions(numbers, ids, way)


def _cells(
    names: tuple[str, ...], rng: np.random.Generator, size: int
) -> tuple[NDArray[np.int64], list[str]]:
    """Voronoi cells with wobbly borders, on a lattice that is shaken."""
    rows, columns = rng.integers(2, 4, 2)
    shaken = rng.uniform(-0.36, 0.36, (rows, columns, 2))
    down = (np.arange(rows)[:, None] + 0.5 + shaken[..., 0]) * UNITS / rows
    right = (np.arange(columns)[None] + 0.5 + shaken[..., 1]) * UNITS / columns
    x, y = coordinates(size)
    x, y = x + 0.9 * noise(rng, size, 16), y + 0.9 * noise(rng, size, 16)
    distances = np.hypot(
        x - right.reshape(-1, 1, 1).astype(np.float32),
        y - down.reshape(-1, 1, 1).astype(np.float32),
    )
    others = len(names) - 1
    weights = np.array([1.0] if not others else [0.5, *[0.5 / others] * others])
    count = int(rows * columns)
    drawn = np.concatenate(
        [np.arange(len(names)), rng.choice(len(names), count - len(names), p=weights)]
    )
    return distances.argmin(0), [names[i] for i in rng.permutation(drawn)]


def _blobs(
    names: tuple[str, ...], rng: np.random.Generator, size: int
) -> tuple[NDArray[np.int64], list[str]]:
    """Smooth shapes of the other classes on the base."""
    numbers = np.zeros((size, size), dtype=np.int64)
    for number in range(1, len(names)):
        height = fractal(rng, size, rng.uniform(26, 40), 3, 0.35)
        share = rng.uniform(0.14, 0.36)
        numbers[height < np.quantile(height[::2, ::2], share)] = number
    return numbers, list(names)


def _bands(
    names: tuple[str, ...], rng: np.random.Generator, size: int
) -> tuple[NDArray[np.int64], list[str]]:
    """Half-planes: bands beside one another, the base on both sides of three or more."""
    _, v = rotated(*coordinates(size), rng.uniform(0, 180))
    v = v + rng.uniform(0.3, 2.2) * noise(rng, size, 24)
    order = [*names, names[0]] if len(names) > 2 else list(names)
    if len(names) == 1:
        return np.zeros((size, size), dtype=np.int64), order
    cuts = (np.arange(1, len(order)) / len(order) - 0.5) * UNITS * 0.9
    cuts = cuts + rng.uniform(-5, 5, len(cuts))
    return np.searchsorted(np.sort(cuts).astype(np.float32), v).astype(np.int64), order


_GROUNDS = {"cells": _cells, "blobs": _blobs, "bands": _bands}


def _centres(
    rng: np.random.Generator, inside: NDArray[np.bool_], sizes: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """For each spot the place, of many, that has most of the base around it and is not taken."""
    size = len(inside)
    centres: list[tuple[float, float]] = []
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    for radius in sizes:
        places = rng.uniform(radius, UNITS - radius, (24, 2))
        ring = np.stack([np.cos(turn), np.sin(turn)], 1) * radius * 1.3
        around = np.clip((places[:, None] + ring) * size / UNITS, 0, size - 1).astype(int)
        merit = inside[around[..., 1], around[..., 0]].mean(1)
        for centre in centres:
            merit -= np.hypot(*(places - centre).T) < 2.4 * radius
        column, row = places[merit.argmax()]
        centres.append((float(column), float(row)))
    return centres


def _course(line: Line, rng: np.random.Generator, size: int) -> Way:
    u, v = rotated(*coordinates(size), rng.uniform(0, 180))
    bend, slope = winding(rng, u, rng.uniform(*line.swing), rng.uniform(48, 80))
    middle = np.float32(rng.uniform(-12, 12))
    return Way(u, (v - middle - bend) / slope, rng.uniform(*line.half))
