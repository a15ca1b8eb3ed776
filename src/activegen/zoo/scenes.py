"""Scenes of the land-cover world: pictures of two to four classes, with their exact masks.

The same scene, seed and size give the same pixels; another size shows the same places.

>>> scene = Scene(Layout("bands", ("forest", "field"), line="river"))
>>> image, mask = render_scene(scene, seed=0)
>>> image.shape, mask.shape
((64, 64, 3), (64, 64))
>>> scene_caption(scene, present(mask))
'a rendered scene of a field, a forest and water'
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from activegen.zoo.attributes import (
    DENSITIES,
    HAZE_PHRASES,
    HAZES,
    LIGHT_PHRASES,
    LIGHTS,
    SEASONS,
    SEASONS_OF,
    WORDS,
    Tile,
)
from activegen.zoo.built import ASPHALT, paint_houses, paint_industry
from activegen.zoo.canvas import (
    UNITS,
    Colour,
    Plane,
    between,
    darken,
    edge,
    fill,
    grain,
    mix,
    noise,
    planes,
    repeat,
    shadow,
)
from activegen.zoo.ground import SNOW, SUNS, Painter
from activegen.zoo.layouts import (
    SCENE_CLASSES,
    Layout,
    Regions,
    Way,
    draw_layout,
    is_rare,
    place,
    present,
)
from activegen.zoo.nature import paint_field, paint_forest, paint_meadow
from activegen.zoo.world import OVERSAMPLING, illuminate

__all__ = [
    "MOSAIC_TEMPLATE",
    "SCENE_CLASSES",
    "SCENE_TEMPLATE",
    "SCENE_WORDS",
    "Layout",
    "Scene",
    "draw_scene",
    "is_rare",
    "listing",
    "present",
    "render_scene",
    "scene_caption",
]

SCENE_TEMPLATE = "a rendered scene of {word}"
MOSAIC_TEMPLATE = "a satellite mosaic of {word}"
# Wordings of each class, with their article; the first is the canonical one.
SCENE_WORDS: dict[str, tuple[str, ...]] = {
    "field": WORDS["field"],
    "meadow": WORDS["meadow"],
    "forest": WORDS["forest"],
    "water": ("water", "open water", "a body of water"),  # a lake, a river or a pond
    "road": WORDS["road"],
    "houses": WORDS["houses"],
    "industry": WORDS["industry"],
}

# The subtypes whose texture tells the class in a small region.
_SUBTYPES: dict[str, tuple[str, ...]] = {
    "field": ("wheat", "rapeseed", "ploughed", "vineyard"),
    "meadow": ("plain", "hedges"),
    "forest": ("broadleaf", "conifer", "plantation"),
    "houses": ("suburb", "suburb", "village", "blocks"),
    "industry": ("halls", "halls", "tanks"),
}
_PAINTERS: dict[str, Painter] = {
    "field": paint_field,
    "meadow": paint_meadow,
    "forest": paint_forest,
    "houses": paint_houses,
    "industry": paint_industry,
}
_HEIGHTS: dict[str, float] = {"forest": 3.0, "houses": 1.4, "industry": 1.8}  # units, of the edge


@dataclass(frozen=True)
class Scene:
    """A layout in a season, a light and a haze, words of `attributes`."""

    layout: Layout
    season: str = "summer"
    light: str = "noon"
    haze: str = "clear"

    def __post_init__(self) -> None:
        """Check each word, as a tile does."""
        Tile("meadow", season=self.season, light=self.light, haze=self.haze)


def draw_scene(rng: np.random.Generator, tail: bool = True) -> Scene:
    """Draw a scene; its layout is rare at times if `tail`, else never."""
    return Scene(
        layout=draw_layout(rng, tail),
        season=SEASONS[rng.integers(len(SEASONS))],
        light=LIGHTS[rng.integers(len(LIGHTS))],
        haze=str(rng.choice(HAZES, p=(0.7, 0.18, 0.12))),
    )


def render_scene(
    scene: Scene, seed: int, size: int = 64
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture, RGB (size, size, 3), and the mask of ids (size, size); the seed draws positions.

    Ids are places in `SCENE_CLASSES`.
    """
    regions = place(scene.layout, seed, size)
    rng = np.random.default_rng((seed, 2**31))
    fine = regions.classes[regions.numbers]
    image = np.empty((3, *fine.shape), dtype=np.float32)
    for name in scene.layout.classes:
        own = fine == SCENE_CLASSES.index(name)
        if name == "field":
            texture = _fields(scene, rng, regions)
        elif name == "water":
            texture = _water(scene, rng, own)
        elif name == "road":
            assert regions.way is not None  # a layout with a road has its course
            texture = _road(scene, rng, regions.way)
        else:
            texture = _PAINTERS[name](_tile(scene, rng, name), rng, len(fine))
        np.copyto(image, texture, where=own)
    _borders(image, scene, regions, fine)
    illuminate(image, _tile(scene, rng, "meadow"), rng)
    small = image.reshape(3, size, OVERSAMPLING, size, OVERSAMPLING).mean((2, 4))
    pixels = (np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0).copy()
    return pixels, regions.mask()


def _tile(scene: Scene, rng: np.random.Generator, name: str) -> Tile:
    """A tile of the class in the season and light of the scene."""
    subtypes = tuple(
        subtype for subtype in _SUBTYPES[name] if scene.season in SEASONS_OF.get(subtype, SEASONS)
    )
    subtype = subtypes[rng.integers(len(subtypes))]
    # Few trees hide nothing; a village without houses would be a meadow.
    sparse = 1 if subtype in ("village", "broadleaf", "conifer") else 0
    return Tile(
        name,
        season=scene.season,
        light=scene.light,
        haze=scene.haze,
        density=DENSITIES[rng.integers(sparse, len(DENSITIES))],
        orientation=float(rng.integers(180)),
        subtype=subtype,
    )


def _fields(scene: Scene, rng: np.random.Generator, regions: Regions) -> Plane:
    """Two crops; each region has one of them, turned or mirrored, in its own shade."""
    size = len(regions.numbers)
    crops = [paint_field(_tile(scene, rng, "field"), rng, size) for _ in range(2)]
    image = np.empty((3, size, size), dtype=np.float32)
    for number in np.flatnonzero(regions.classes == SCENE_CLASSES.index("field")):
        crop = crops[rng.integers(len(crops))] * np.float32(rng.uniform(0.9, 1.06))
        crop = crop.swapaxes(1, 2) if rng.random() < 0.5 else crop
        crop = crop[:, ::-1] if rng.random() < 0.5 else crop
        np.copyto(image, crop, where=regions.numbers == number)
    return image


_DEPTHS: dict[str, tuple[Colour, Colour]] = {  # at the shore, in the deep
    "spring": ((0.27, 0.47, 0.52), (0.09, 0.27, 0.43)),
    "summer": ((0.24, 0.50, 0.57), (0.06, 0.26, 0.46)),
    "autumn": ((0.25, 0.40, 0.45), (0.08, 0.22, 0.33)),
    "winter": ((0.27, 0.37, 0.45), (0.08, 0.17, 0.28)),
}


def _water(scene: Scene, rng: np.random.Generator, own: NDArray[np.bool_]) -> Plane:
    """Shallow at the shore, deep where there is water all around, with ripples."""
    size = len(own)
    image = between(*_DEPTHS[scene.season], 2.2 * _blurred(own, 6.0) - 1.1)
    image *= 1 + 0.025 * grain(rng, size) + 0.05 * noise(rng, size, 5)
    return image


def _road(scene: Scene, rng: np.random.Generator, way: Way) -> Plane:
    """A surface along the road: asphalt with marks, or earth with ruts; snow at its sides."""
    size = way.across.shape[0]
    winter = scene.season == "winter"
    inside = way.half - np.abs(way.across)
    if way.half > 1.8 and rng.random() < 0.75:
        image = fill(size, ASPHALT)
        image *= 1 + 0.05 * noise(rng, size, 12) + 0.03 * grain(rng, size)
        white: Colour = (0.93, 0.93, 0.90)
        dash = edge(np.abs(repeat(way.along, 6.0)) - 1.6)
        mix(image, white, 0.9 * dash * edge(np.abs(way.across) - 0.3))
        mix(image, SNOW if winter else white, 0.75 * edge(np.abs(inside - 0.55) - 0.28))
    else:
        earth: Colour = (0.60, 0.53, 0.48) if winter else (0.80, 0.71, 0.55)
        image = fill(size, earth)
        image *= 1 + 0.05 * noise(rng, size, 9) + 0.04 * grain(rng, size)
        rut = edge(np.abs(np.abs(way.across) - np.float32(way.half * 0.5)) - 0.3)
        mix(image, planes(earth) * 0.74, 0.7 * rut)
    return image


def _borders(image: Plane, scene: Scene, regions: Regions, fine: NDArray[np.uint8]) -> None:
    """Dark seams between regions, bright shores, and the shadows of what stands high, in place."""
    numbers = regions.numbers
    seam = np.zeros(numbers.shape, dtype=np.float32)
    seam[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
    seam[1:] += numbers[1:] != numbers[:-1]
    soft = ~np.isin(fine, [SCENE_CLASSES.index(name) for name in ("water", "road")])
    darken(image, np.minimum(seam, 1) * soft, 0.25)
    water = fine == SCENE_CLASSES.index("water")
    if water.any() and scene.season != "winter":
        shore = np.clip(4 * _blurred(water, 0.9), 0, 1) * ~water * soft
        mix(image, (0.72, 0.66, 0.48), 0.6 * shore)
    for name, height in _HEIGHTS.items():
        own = fine == SCENE_CLASSES.index(name)
        if own.any():
            darken(image, shadow(own.astype(np.float32), SUNS[scene.light], height), 0.5)


def _blurred(mask: NDArray[np.bool_], reach: float) -> Plane:
    """The share of the mask in a square of `reach` units to each side, continued at the border."""
    near = max(1, round(reach * len(mask) / UNITS))
    total = np.pad(mask.astype(np.float32), near + 1, mode="edge").cumsum(0).cumsum(1)
    width = 2 * near + 1
    rows = total[width:-1] - total[: -width - 1]
    return (rows[:, width:-1] - rows[:, : -width - 1]) / np.float32(width * width)


# --- captions -------------------------------------------------------------------------------------


def scene_caption(
    scene: Scene,
    names: Sequence[str],
    rng: np.random.Generator | None = None,
    detail: int = 0,
) -> str:
    """Say what the scene shows.

    With full detail: "a rendered scene of a forest and houses in winter, midday light, hazy".

    Args:
        scene: what is shown.
        names: the classes that its mask shows, as `present` tells.
        rng: draws the order and the wordings; without it, the given order and canonical wordings.
        detail: 0 names the classes only, 1 adds the season, 2 the light and the haze.
    """
    word = listing(wordings(names, rng))
    if detail > 0:
        word = f"{word} in {scene.season}"
    if detail > 1:
        word = f"{word}, {LIGHT_PHRASES[scene.light]}, {HAZE_PHRASES[scene.haze]}"
    return SCENE_TEMPLATE.format(word=word)


def wordings(names: Sequence[str], rng: np.random.Generator | None = None) -> list[str]:
    """A wording of each class: canonical and in order, or drawn and shuffled."""
    if rng is None:
        return [SCENE_WORDS[name][0] for name in names]
    drawn = [SCENE_WORDS[name][rng.integers(len(SCENE_WORDS[name]))] for name in names]
    return [drawn[i] for i in rng.permutation(len(drawn))]


def listing(words: Sequence[str]) -> str:
    """The words as English lists them.

    >>> listing(["a road"]), listing(["a road", "houses"]), listing(["a road", "houses", "woods"])
    ('a road', 'a road and houses', 'a road, houses and woods')
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
