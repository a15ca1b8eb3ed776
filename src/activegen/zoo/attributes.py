"""What a land-cover tile can be: its attributes, which of them are rare, and what it is called.

Nothing here paints. A `Tile` says everything about a picture but the positions in it, which come
from a seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

CLASSES: tuple[str, ...] = (
    "field",
    "meadow",
    "forest",
    "lake",
    "river",
    "road",
    "houses",
    "industry",
)

SUBTYPES: dict[str, tuple[str, ...]] = {
    "field": ("wheat", "rapeseed", "ploughed", "vineyard", "paddy"),
    "meadow": ("plain", "hedges", "flowered"),
    "forest": ("broadleaf", "conifer", "plantation"),
    "lake": ("blue", "algae", "frozen"),
    "river": ("straight", "meander", "braided"),
    "road": ("highway", "crossing", "dirt"),
    "houses": ("suburb", "village", "blocks"),
    "industry": ("halls", "tanks", "solar"),
}
SEASONS: tuple[str, ...] = ("spring", "summer", "autumn", "winter")
LIGHTS: tuple[str, ...] = ("morning", "noon", "evening")
HAZES: tuple[str, ...] = ("clear", "hazy", "cloudy")
DENSITIES: tuple[str, ...] = ("sparse", "medium", "dense")

# Subtypes that are drawn in these seasons only; the others are drawn in all four.
SEASONS_OF: dict[str, tuple[str, ...]] = {
    "rapeseed": ("spring",),
    "paddy": ("spring", "summer"),
    "flowered": ("spring", "summer"),
    "algae": ("summer", "autumn"),
    "frozen": ("winter",),
}

# The long tail: a tile is rare when it agrees with all attributes of one of these modes of its
# class. Beside it stands what a small CNN that never saw rare tiles takes it for, if anything.
RARE: dict[str, tuple[Mapping[str, str], ...]] = {
    "field": (
        {"subtype": "ploughed", "season": "winter"},  # sometimes a road
        {"subtype": "vineyard", "season": "autumn"},  # sometimes a forest
        {"subtype": "paddy"},  # a forest, a river
    ),
    "meadow": (
        {"season": "winter"},  # a field, a road
        {"subtype": "flowered", "season": "summer"},  # houses, a road
    ),
    "forest": (
        {"season": "winter"},  # houses, a field
        {"subtype": "plantation", "season": "autumn"},
        {"subtype": "conifer", "density": "sparse"},  # sometimes houses
    ),
    "lake": (
        {"subtype": "frozen"},  # a meadow, a road, industry
        {"subtype": "algae"},  # a meadow
    ),
    "river": (
        {"subtype": "braided", "season": "spring"},  # a brown flood: a field, a road
        {"subtype": "straight", "season": "winter"},  # grey ice: a road
    ),
    "road": (
        {"subtype": "dirt", "season": "winter"},
        {"subtype": "dirt", "season": "spring"},  # puddles: a meadow
        {"subtype": "crossing", "light": "evening", "haze": "hazy"},
    ),
    "houses": (
        {"subtype": "blocks", "season": "winter"},  # sometimes industry
        {"subtype": "village", "density": "sparse"},
    ),
    "industry": (
        {"subtype": "solar"},  # a forest, houses
        {"subtype": "tanks", "season": "winter"},
        {"subtype": "halls", "light": "evening", "haze": "hazy"},
    ),
}
RARE_SHARE = 0.28  # of the tiles of a class, where the tail is drawn

TEMPLATE = "a rendered tile of {word}"

# Wordings of each class, with their article; the first is the canonical one.
WORDS: dict[str, tuple[str, ...]] = {
    "field": ("a field", "farmland", "a crop field"),
    "meadow": ("a meadow", "grassland", "a pasture"),
    "forest": ("a forest", "woodland", "woods"),
    "lake": ("a lake", "a pond", "a water reservoir"),
    "river": ("a river", "a stream", "a watercourse"),
    "road": ("a road", "a roadway", "a street"),
    "houses": ("houses", "a residential area", "housing"),
    "industry": ("industry", "an industrial site", "a factory area"),
}
HEADS: dict[str, str] = {
    word: word.removeprefix("a ").removeprefix("an ") for words in WORDS.values() for word in words
}

# How a subtype is said: an adjective (before the head) or a phrase (after it).
ADJECTIVES: dict[str, str] = {
    "ploughed": "ploughed",
    "flowered": "flowered",
    "plain": "plain",
    "broadleaf": "broadleaf",
    "conifer": "conifer",
    "blue": "blue",
    "frozen": "frozen",
    "straight": "straight",
    "meander": "meandering",
    "braided": "braided",
    "dirt": "unpaved",
    "suburb": "suburban",
    "village": "rural",
}
PHRASES: dict[str, str] = {
    "wheat": "with wheat",
    "rapeseed": "with yellow rapeseed",
    "vineyard": "with vine rows",
    "paddy": "with flooded rice",
    "hedges": "with hedges",
    "plantation": "with planted rows",
    "algae": "with green algae",
    "highway": "with several lanes",
    "crossing": "with a crossing",
    "blocks": "with apartment blocks",
    "halls": "with large halls",
    "tanks": "with storage tanks",
    "solar": "with solar panels",
}
LIGHT_PHRASES: dict[str, str] = {
    "morning": "morning light",
    "noon": "midday light",
    "evening": "evening light",
}
HAZE_PHRASES: dict[str, str] = {"clear": "clear", "hazy": "hazy", "cloudy": "with clouds"}


def _known(kind: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise ValueError(f"unknown {kind} {word!r}; choose one of: {', '.join(known)}")


@dataclass(frozen=True)
class Tile:
    """The attributes of one picture of one class; `orientation` is in degrees, 0 up to 180."""

    landcover: str
    season: str = "summer"
    light: str = "noon"
    haze: str = "clear"
    density: str = "medium"
    orientation: float = 0.0
    subtype: str = ""

    def __post_init__(self) -> None:
        """Check each word; no subtype means the first of the class."""
        _known("landcover", self.landcover, CLASSES)
        if not self.subtype:
            object.__setattr__(self, "subtype", SUBTYPES[self.landcover][0])
        _known(f"subtype of {self.landcover}", self.subtype, SUBTYPES[self.landcover])
        _known("season", self.season, SEASONS)
        _known("light", self.light, LIGHTS)
        _known("haze", self.haze, HAZES)
        _known("density", self.density, DENSITIES)
        if not 0 <= self.orientation < 180:
            raise ValueError(f"orientation is {self.orientation}; it must be in [0, 180)")


def is_rare(tile: Tile) -> bool:
    """Whether the tile belongs to the long tail: it agrees with a mode of `RARE`."""
    return any(
        all(getattr(tile, name) == value for name, value in mode.items())
        for mode in RARE[tile.landcover]
    )


def draw_tile(rng: np.random.Generator, landcover: str | None = None, tail: bool = True) -> Tile:
    """Draw the attributes of a tile, of a uniform class unless `landcover` is given.

    With `tail`, a share of `RARE_SHARE` is rare, all rare modes of a class alike; without, none.
    """
    if landcover is None:
        landcover = _pick(rng, CLASSES)
    _known("landcover", landcover, CLASSES)
    if tail and rng.random() < RARE_SHARE:
        modes = RARE[landcover]
        return _fill(rng, landcover, modes[rng.integers(len(modes))])
    while is_rare(tile := _fill(rng, landcover, {})):
        pass
    return tile


def _fill(rng: np.random.Generator, landcover: str, given: Mapping[str, str]) -> Tile:
    """Draw the attributes that are not given."""
    seasons = (given["season"],) if "season" in given else SEASONS
    subtypes = [
        subtype
        for subtype in SUBTYPES[landcover]
        if set(seasons) & set(SEASONS_OF.get(subtype, SEASONS))
    ]
    subtype = given.get("subtype") or _pick(rng, tuple(subtypes))
    season = given.get("season") or _pick(rng, SEASONS_OF.get(subtype, SEASONS))
    return Tile(
        landcover=landcover,
        season=season,
        light=given.get("light") or _pick(rng, LIGHTS),
        haze=given.get("haze") or str(rng.choice(HAZES, p=(0.6, 0.2, 0.2))),
        density=given.get("density") or _pick(rng, DENSITIES),
        orientation=float(rng.integers(180)),
        subtype=subtype,
    )


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[rng.integers(len(words))]


def caption(tile: Tile, rng: np.random.Generator | None = None, detail: int = 0) -> str:
    """Say what the tile shows.

    With full detail: "a rendered tile of a conifer forest in winter, midday light, hazy".

    Args:
        tile: what is shown.
        rng: draws the wording of the class; without it, the canonical wording.
        detail: 0 names the class only, 1 adds the subtype, 2 the season, 3 the light and the haze.
    """
    word = WORDS[tile.landcover][0] if rng is None else _pick(rng, WORDS[tile.landcover])
    if detail > 0:
        word = _qualify(word, tile.subtype)
    if detail > 1:
        word = f"{word} in {tile.season}"
    if detail > 2:
        word = f"{word}, {LIGHT_PHRASES[tile.light]}, {HAZE_PHRASES[tile.haze]}"
    return TEMPLATE.format(word=word)


def _qualify(word: str, subtype: str) -> str:
    """Put the adjective before the head, or the phrase after it: "an unpaved road"."""
    if subtype in PHRASES:
        return f"{word} {PHRASES[subtype]}"
    adjective, head = ADJECTIVES[subtype], HEADS[word]
    if head == word:
        return f"{adjective} {head}"
    return f"{'an' if adjective[0] in 'aeiou' else 'a'} {adjective} {head}"
