"""How fields, meadows, forests and waters look from above: one painter for each class.

A painter fills a whole picture (3, size, size) with the texture of its class, before light
and haze. It reads the tile's attributes and draws all positions from the rng it is given.
"""

import numpy as np

from activegen.zoo.attributes import Tile
from activegen.zoo.canvas import (
    Colour,
    Crowns,
    Lots,
    Plane,
    between,
    box,
    coordinates,
    darken,
    edge,
    fill,
    fractal,
    grain,
    mix,
    noise,
    planes,
    repeat,
    rotated,
    stripes,
)
from activegen.zoo.ground import (
    GRASS,
    LEAVES,
    NEEDLES,
    SNOW,
    grass,
    level,
    scattered_trees,
    trees,
    winding,
)

# --- field ----------------------------------------------------------------------------------------

# colour of the crop and of the soil between the rows; spring, summer, autumn, winter
_CROPS: dict[str, dict[str, tuple[Colour, Colour]]] = {
    "wheat": {
        "spring": ((0.36, 0.58, 0.20), (0.50, 0.50, 0.30)),
        "summer": ((0.87, 0.74, 0.40), (0.70, 0.55, 0.30)),
        "autumn": ((0.74, 0.63, 0.44), (0.56, 0.44, 0.31)),
        "winter": ((0.50, 0.58, 0.38), (0.84, 0.87, 0.90)),
    },
    "rapeseed": {season: ((0.92, 0.82, 0.24), (0.64, 0.66, 0.26)) for season in GRASS},
    "ploughed": {
        "spring": ((0.55, 0.41, 0.29), (0.37, 0.26, 0.18)),
        "summer": ((0.66, 0.51, 0.37), (0.47, 0.34, 0.24)),
        "autumn": ((0.50, 0.36, 0.26), (0.33, 0.23, 0.17)),
        "winter": ((0.90, 0.92, 0.96), (0.36, 0.29, 0.26)),
    },
    "vineyard": {
        "spring": ((0.38, 0.54, 0.22), (0.70, 0.60, 0.44)),
        "summer": ((0.20, 0.40, 0.15), (0.72, 0.62, 0.44)),
        "autumn": ((0.66, 0.18, 0.16), (0.66, 0.56, 0.36)),
        "winter": ((0.36, 0.29, 0.25), (0.86, 0.88, 0.91)),
    },
    "paddy": {season: ((0.34, 0.50, 0.34), (0.44, 0.56, 0.62)) for season in GRASS},
}


def paint_field(tile: Tile, rng: np.random.Generator, size: int) -> Plane:
    """Parcels with crop rows along the orientation."""
    u, v = rotated(*coordinates(size), tile.orientation)
    width, depth = (20.0, 13.0) if tile.subtype == "paddy" else (90.0, rng.uniform(30, 46))
    lots = Lots(
        u + np.float32(rng.uniform(0, 90)), v + np.float32(rng.uniform(0, 64)), width, depth
    )
    crop, soil = _CROPS[tile.subtype][tile.season]
    period = level(tile, 6.0, 4.6, 3.4)
    bend = 0.5 * noise(rng, size, 30)
    phase = lots.uniform(rng, 0, period)
    rows = stripes(v + bend + phase, period)
    patches = fractal(rng, size, 18, 3)
    if tile.subtype == "vineyard":
        rows = np.clip(rows * 1.6 - 0.4 + 0.25 * grain(rng, size), 0, 1)
    elif tile.subtype == "paddy":
        rows = rows * 0.6 * np.clip(0.6 + 0.3 * grain(rng, size), 0, 1)
    elif tile.subtype == "ploughed":
        rows = np.clip(rows + 0.12 * grain(rng, size), 0, 1)
    else:
        rows = np.clip(0.25 + 0.75 * rows + 0.08 * patches, 0, 1)
    image = between(soil, crop, rows)
    image *= lots.uniform(rng, 0.86, 1.1) * (1 + 0.05 * patches + 0.03 * grain(rng, size))
    if tile.subtype in ("wheat", "rapeseed"):  # the tracks of the sprayer
        track = np.abs(np.abs(repeat(v + phase, 21.0)) - 1.2)
        mix(image, planes(soil) * 0.82, 0.8 * edge(track - 0.45))
    border = -box(lots.u, lots.v, width / 2, depth / 2)
    if tile.subtype == "paddy":
        mix(image, (0.47, 0.45, 0.28), edge(border - 0.8))
    else:
        verge = grass(tile, rng, size)
        mix(image, verge, edge(border - 1.3))
    return image


# --- meadow ---------------------------------------------------------------------------------------


def paint_meadow(tile: Tile, rng: np.random.Generator, size: int) -> Plane:
    """Grass without rows: mottled, with hedges or with flowers."""
    image = grass(tile, rng, size)
    image *= 1 + 0.09 * fractal(rng, size, 10, 4)
    if tile.season == "winter":
        mix(image, (0.64, 0.60, 0.46), 0.55 * edge(0.9 - fractal(rng, size, 12, 4), 0.6))
    if tile.subtype == "hedges":
        _hedges(image, tile, rng)
    elif tile.subtype == "flowered":
        _flowers(image, tile, rng)
        scattered_trees(image, tile, rng, 0.03)
    else:
        scattered_trees(image, tile, rng, level(tile, 0.02, 0.05, 0.09))
    return image


def _hedges(image: Plane, tile: Tile, rng: np.random.Generator) -> None:
    size = image.shape[1]
    u, v = rotated(*coordinates(size), tile.orientation)
    warp = 2.0 * noise(rng, size, 32)
    side = level(tile, 52.0, 40.0, 30.0)
    start = rng.uniform(0, side, 2).astype(np.float32)
    lots = Lots(u + warp + start[0], v + warp + start[1], side, side * 0.8)
    image *= lots.uniform(rng, 0.9, 1.08)
    border = -box(lots.u, lots.v, side / 2, side * 0.4)
    crowns = Crowns.scatter(rng, size, 2.9)
    trees(image, tile, crowns, 1.5, 1.3 - border, LEAVES[tile.season])


def _flowers(image: Plane, tile: Tile, rng: np.random.Generator) -> None:
    size = image.shape[1]
    beds = fractal(rng, size, 16, 3)
    if tile.season == "summer":
        mix(image, (0.56, 0.34, 0.62), 0.85 * edge(-0.7 - beds, 1.2))
        heads = Crowns.scatter(rng, size, 1.7)
        bloom = edge(heads.distance - 0.6) * (np.modf(heads.key * 5.1)[0] < 0.45 + 0.2 * beds)
        mix(image, (0.80, 0.58, 0.86), 0.8 * bloom)
        return
    crowns = Crowns.scatter(rng, size, 1.9)
    bloom = edge(crowns.distance - 0.62) * (np.modf(crowns.key * 5.1)[0] < 0.25 + 0.25 * beds)
    white = np.modf(crowns.key * 31.7)[0] < 0.4
    mix(image, np.where(white, planes((0.97, 0.95, 0.93)), planes((0.97, 0.86, 0.22))), 0.9 * bloom)


# --- forest ---------------------------------------------------------------------------------------


def paint_forest(tile: Tile, rng: np.random.Generator, size: int) -> Plane:
    """Crown beside crown; plantations stand in rows along the orientation."""
    winter = tile.season == "winter"
    floor: Colour = (0.80, 0.83, 0.88) if winter else (0.13, 0.17, 0.09)
    image = fill(size, floor)
    image *= 1 + 0.08 * grain(rng, size)
    relief = fractal(rng, size, 26, 3)
    rows = tile.subtype == "plantation"
    spacing = level(tile, 6.0, 5.2, 4.4) * {"conifer": 0.78, "plantation": 0.9}.get(tile.subtype, 1)
    crowns = Crowns.scatter(
        rng,
        size,
        spacing,
        0.07 if rows else 0.42,
        tile.orientation if rows else rng.uniform(0, 180),
    )
    clearing = level(tile, 1.1, 1.9, 9.0)
    if tile.density != "dense":
        mix(image, grass(tile, rng, size), edge(clearing - 0.3 - relief, 0.5))
    present = clearing - relief
    if tile.subtype == "conifer" and tile.density == "sparse":  # an open, dry pine heath
        mix(image, grass(tile, rng, size), 0.9 * np.ones_like(relief))
        present = 0.42 - np.modf(crowns.key * 13.7)[0]
    palette = (NEEDLES if tile.subtype == "conifer" else LEAVES)[tile.season]
    if rows and tile.season == "autumn":
        palette = ((0.80, 0.52, 0.14), (0.90, 0.66, 0.24))
        mix(image, (0.50, 0.42, 0.28), np.ones_like(relief))
    shape = 0.43 if rows else 0.56
    if winter:
        darken(image, edge(crowns.distance - spacing * 0.75, 2.0) * (present > 0), 0.45)
    elif not rows and tile.density != "sparse":  # lower trees fill the gaps
        lower = Crowns.scatter(rng, size, spacing * 0.9, 0.42, rng.uniform(0, 180))
        trees(image, tile, lower, spacing * 0.5, clearing - relief, palette)
        image *= 0.82
    trees(image, tile, crowns, spacing * shape, present, palette)
    if tile.subtype == "conifer":  # a bright tip makes a cone
        tip = edge(crowns.distance - spacing * 0.16) * (crowns.sample(present) > 0)
        image *= 1 + 0.3 * tip
    elif not rows:  # leaves in clumps
        image *= 1 + 0.07 * grain(rng, size)
    image *= 1 + 0.08 * relief
    return image


# --- lake -----------------------------------------------------------------------------------------

_WATER: dict[str, tuple[Colour, Colour]] = {  # at the shore, in the deep
    "spring": ((0.26, 0.48, 0.55), (0.09, 0.27, 0.43)),
    "summer": ((0.22, 0.50, 0.58), (0.06, 0.26, 0.46)),
    "autumn": ((0.24, 0.40, 0.45), (0.08, 0.22, 0.33)),
    "winter": ((0.26, 0.36, 0.43), (0.08, 0.17, 0.27)),
}


def paint_lake(tile: Tile, rng: np.random.Generator, size: int) -> Plane:
    """One body of water with its shore; the orientation is its long axis."""
    u, v = rotated(*coordinates(size), tile.orientation)
    middle = rng.uniform(-7, 7, 2).astype(np.float32)
    reach = rng.uniform(22, 29)
    round_distance = np.hypot((u - middle[0]) / 1.25, v - middle[1]) - np.float32(reach)
    distance = round_distance + 3.6 * fractal(rng, size, 22, 4, 0.5)
    image = grass(tile, rng, size)
    if tile.season != "winter":
        mix(image, (0.76, 0.69, 0.50), edge(distance - 1.5, 1.5))
    scattered_trees(image, tile, rng, level(tile, 0.2, 0.45, 0.8), distance - 3.5, 4.6)
    mix(image, _lake_surface(tile, rng, size, distance), edge(distance, 0.8))
    return image


def _lake_surface(tile: Tile, rng: np.random.Generator, size: int, distance: Plane) -> Plane:
    x, y = coordinates(size)
    depth = -distance / 15
    if tile.subtype == "frozen":
        surface = between(
            (0.74, 0.84, 0.90), (0.58, 0.74, 0.84), depth + 0.2 * fractal(rng, size, 14)
        )
        for _ in range(2):
            crack = np.abs(fractal(rng, size, 26, 3, 0.4))
            mix(surface, (0.95, 0.98, 1.0), 0.9 * edge(crack - 0.045, 0.07))
        mix(surface, (0.93, 0.95, 0.98), 0.85 * edge(0.7 - fractal(rng, size, 18, 3), 0.7))
        return surface
    shallow, deep = _WATER[tile.season]
    surface = between(shallow, deep, depth)
    if tile.subtype == "algae":
        swirl = noise(rng, size, 20)
        bands = np.sin((x + y) * 0.16 + 3.2 * swirl + 1.2 * noise(rng, size, 9))
        green = between((0.20, 0.42, 0.20), (0.48, 0.66, 0.22), 0.5 + 0.5 * bands)
        mix(surface, green, np.clip(0.75 + 0.25 * swirl, 0.4, 0.95))
    surface *= 1 + 0.025 * grain(rng, size) + 0.05 * noise(rng, size, 5)
    return surface


# --- river ----------------------------------------------------------------------------------------


def paint_river(tile: Tile, rng: np.random.Generator, size: int) -> Plane:
    """Running water through the whole picture, along the orientation."""
    u, v = rotated(*coordinates(size), tile.orientation)
    width = level(tile, 8.0, 10.5, 13.0)
    flood = tile.subtype == "braided" and tile.season == "spring"
    ice = tile.subtype == "straight" and tile.season == "winter"
    image = grass(tile, rng, size)
    if tile.subtype == "braided":
        distance, bed = _braids(rng, u, v, width * (1.5 if flood else 1.0))
        gravel = between((0.62, 0.57, 0.48), (0.80, 0.76, 0.68), 0.5 + 0.3 * grain(rng, size))
        if tile.season == "winter":
            gravel = 0.5 * gravel + 0.5 * planes(SNOW)
        mix(image, gravel, edge(bed, 2.0))
        bank = bed
    else:
        swing = 1.0 if tile.subtype == "straight" else rng.uniform(9, 13)
        bend = winding(rng, u, swing, rng.uniform(40, 56))
        distance = np.abs(v - bend[0]) / bend[1] - np.float32(width / 2)
        if tile.subtype == "meander":
            distance = distance + 0.7 * noise(rng, size, 9)
        bank = distance
        mix(image, (0.70, 0.64, 0.50) if not ice else (0.7, 0.72, 0.75), edge(bank - 1.4, 1.2))
    scattered_trees(image, tile, rng, level(tile, 0.25, 0.4, 0.55), bank - 3.0, 4.8)
    shallow, deep = _WATER[tile.season]
    if flood:
        shallow, deep = (0.66, 0.52, 0.36), (0.50, 0.37, 0.25)
    elif ice:
        shallow, deep = (0.62, 0.66, 0.70), (0.52, 0.55, 0.59)
    elif tile.subtype != "straight":
        shallow, deep = (0.33, 0.50, 0.47), (0.16, 0.34, 0.38)
    water = between(shallow, deep, -distance / np.float32(width * 0.4))
    flow = np.sin(v * 1.5 + 2.0 * noise(rng, size, 14) + 0.2 * u)
    water *= 1 + (0.06 if flood else 0.035) * flow + 0.02 * grain(rng, size)
    mix(image, water, edge(distance, 0.8))
    return image


def _braids(rng: np.random.Generator, u: Plane, v: Plane, width: float) -> tuple[Plane, Plane]:
    """Signed distances to the channels of a braided river, and to its bed."""
    channels = []
    middle = np.float32(rng.uniform(-5, 5))
    for _ in range(4):
        line, slope = winding(rng, u, rng.uniform(5, 9), rng.uniform(34, 60))
        channels.append(
            np.abs(v - middle - line) / slope - np.float32(width * rng.uniform(0.14, 0.24))
        )
    edge_line, _ = winding(rng, u, 2.0, 40)
    bed = np.abs(v - middle - 0.4 * edge_line) - np.float32(17)
    return np.minimum.reduce(channels), bed
