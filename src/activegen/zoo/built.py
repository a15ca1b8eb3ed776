"""How roads, houses and industry look from above: one painter for each class.

A painter fills a whole picture (3, size, size) with the texture of its class, before light
and haze. It reads the tile's attributes and draws all positions from the rng it is given.
"""

import numpy as np

from activegen.zoo.attributes import Tile
from activegen.zoo.canvas import (
    Colour,
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
    shadow,
    stripes,
)
from activegen.zoo.ground import GRASS, SNOW, SUNS, grass, level, scattered_trees, winding

ASPHALT: Colour = (0.36, 0.36, 0.38)
CONCRETE: Colour = (0.62, 0.61, 0.59)

# --- road -----------------------------------------------------------------------------------------

_CARS: tuple[Colour, ...] = (
    (0.92, 0.92, 0.93),
    (0.75, 0.14, 0.12),
    (0.15, 0.25, 0.5),
    (0.12, 0.12, 0.13),
    (0.8, 0.8, 0.82),
)


def paint_road(tile: Tile, rng: np.random.Generator, size: int) -> Plane:
    """A road along the orientation through grass: several lanes, a crossing, or a dirt track."""
    u, v = rotated(*coordinates(size), tile.orientation)
    v = v + np.float32(rng.uniform(-9, 9))
    u = u + np.float32(rng.uniform(-9, 9))
    image = grass(tile, rng, size)
    if tile.subtype == "dirt":
        _dirt_track(image, tile, rng, u, v)
        return image
    crossing = tile.subtype == "crossing"
    half = 4.6 if crossing else level(tile, 6.4, 7.6, 8.8)
    distance = np.abs(v) - np.float32(half)
    angle = rng.uniform(65, 115)
    across = u * np.float32(np.sin(np.radians(angle))) - v * np.float32(np.cos(np.radians(angle)))
    if crossing:
        distance = np.minimum(distance, np.abs(across) - np.float32(half))
        corner = np.hypot(u, v) - np.float32(half * 1.75)
        distance = np.minimum(distance, corner)
    scattered_trees(image, tile, rng, level(tile, 0.08, 0.2, 0.35), distance - 5.0)
    mix(image, (0.63, 0.58, 0.48) if tile.season != "winter" else SNOW, edge(distance - 1.2, 0.8))
    asphalt = fill(size, ASPHALT if not crossing else (0.43, 0.43, 0.45))
    asphalt *= 1 + 0.04 * noise(rng, size, 12) + 0.03 * grain(rng, size)
    mix(image, asphalt, edge(distance))
    white: Colour = (0.93, 0.93, 0.90)
    if crossing:
        _crossing_marks(image, tile, rng, u, v, across, half)
    else:
        mix(image, white, 0.8 * edge(np.abs(distance + 0.9) - 0.32))
        mix(image, (0.42, 0.52, 0.30) if tile.season != "winter" else SNOW, edge(np.abs(v) - 0.9))
        dash = edge(np.abs(repeat(u, 6.0)) - 1.6)
        mix(image, white, 0.9 * dash * edge(np.abs(np.abs(v) - np.float32(half / 2)) - 0.3))
    _cars(image, tile, rng, u, v, half)
    return image


def _crossing_marks(
    image: Plane,
    tile: Tile,
    rng: np.random.Generator,
    u: Plane,
    v: Plane,
    across: Plane,
    half: float,
) -> None:
    white: Colour = (0.93, 0.93, 0.90)
    away = np.hypot(u, v) - np.float32(half * 1.75)
    for along, beside in ((u, v), (across, u)):
        dash = edge(np.abs(repeat(along if beside is v else v, 6.0)) - 1.5)
        side = beside if beside is v else across
        mix(image, white, 0.9 * dash * edge(np.abs(side) - 0.3) * edge(-away + 1.0))
    if rng.random() < 0.5:  # a roundabout
        mix(image, ASPHALT, edge(away + 0.4) * 0.5)
        mix(image, grass(tile, rng, image.shape[1]), edge(np.hypot(u, v) - np.float32(half * 0.75)))
        mix(image, white, 0.8 * edge(np.abs(np.hypot(u, v) - np.float32(half * 0.75)) - 0.3))
    else:  # zebra crossings
        for along, side in ((u, v), (v, across)):
            zebra = edge(np.abs(np.abs(along) - np.float32(half * 1.95)) - 1.3)
            bars = edge(np.abs(repeat(side, 1.9)) - 0.5, 0.5)
            mix(image, white, 0.85 * zebra * bars * edge(np.abs(side) - np.float32(half - 0.4)))


def _cars(
    image: Plane, tile: Tile, rng: np.random.Generator, u: Plane, v: Plane, half: float
) -> None:
    lane = half / 2
    lots = Lots(u + np.float32(rng.uniform(0, 9)), v + np.float32(2 * lane), 9.0, lane)
    place = lots.u - lots.uniform(rng, -2, 2)
    mask = edge(box(place, lots.v, 1.5, 0.75), 0.5)
    mask *= (lots.uniform(rng) < level(tile, 0.2, 0.35, 0.5)) & (np.abs(v) < half)
    darken(image, shadow(mask, SUNS[tile.light], 0.9), 0.5)
    mix(image, lots.colours(rng, _CARS), mask)


def _dirt_track(image: Plane, tile: Tile, rng: np.random.Generator, u: Plane, v: Plane) -> None:
    size = image.shape[1]
    line, slope = winding(rng, u, rng.uniform(2, 6), rng.uniform(60, 90))
    centre = np.abs(v - line) / slope
    scattered_trees(image, tile, rng, level(tile, 0.1, 0.25, 0.45), centre - 7.5)
    rough = centre + 0.5 * noise(rng, size, 6)
    earth: Colour = {"winter": (0.56, 0.48, 0.42), "spring": (0.50, 0.38, 0.27)}.get(
        tile.season, (0.77, 0.66, 0.48)
    )
    mix(image, planes(earth) * (1 + 0.06 * grain(rng, size)), edge(rough - 4.0, 1.0))
    rut = edge(np.abs(centre - 2.0) - 0.8)
    mix(image, planes(earth) * 0.72, 0.75 * rut)
    verge = planes(GRASS[tile.season][0]) * 0.95
    mix(image, verge, 0.75 * edge(rough - 0.7, 0.6))
    if tile.season == "spring":
        mix(
            image,
            (0.55, 0.66, 0.74),
            0.95 * edge(rough - 3.4) * edge(0.9 - fractal(rng, size, 12, 2), 0.5),
        )


# --- houses ---------------------------------------------------------------------------------------

_TILED_ROOFS: tuple[Colour, ...] = (
    (0.70, 0.33, 0.23),
    (0.62, 0.27, 0.20),
    (0.76, 0.42, 0.30),
    (0.48, 0.34, 0.29),
    (0.44, 0.44, 0.47),
)
_FLAT_ROOFS: tuple[Colour, ...] = ((0.74, 0.72, 0.69), (0.80, 0.74, 0.66), (0.64, 0.63, 0.64))


def paint_houses(tile: Tile, rng: np.random.Generator, size: int) -> Plane:
    """Roofs, gardens and streets along the orientation."""
    u, v = rotated(*coordinates(size), tile.orientation)
    start = rng.uniform(0, 60, 2).astype(np.float32)
    u, v = u + start[0], v + start[1]
    if tile.subtype == "blocks":
        return _apartment_blocks(tile, rng, size, u, v)
    if tile.subtype == "village":
        return _village(tile, rng, size, u, v)
    return _suburb(tile, rng, size, u, v)


def _gabled(
    image: Plane, tile: Tile, rng: np.random.Generator, lots: Lots, u: Plane, v: Plane, half: Plane
) -> Plane:
    """Paint one gabled house in each lot, ridge along u; return where they stand."""
    light = SUNS[tile.light]
    half_v = np.float32(0.72) * half
    distance = box(u, v, half, half_v)
    mask = edge(distance, 0.5) * (half > 0.5)
    darken(image, shadow(mask, light, 3.0), 0.6)
    roof = lots.colours(rng, _TILED_ROOFS)
    if tile.season == "winter":
        roof = 0.45 * roof + 0.55 * planes(SNOW)
    roof *= 1 + 0.17 * np.sign(v) * np.float32(np.sign(light.sun[0] * 0.4 + light.sun[1]))
    mix(image, roof, mask)
    mix(image, planes((0.93, 0.88, 0.80)), 0.4 * mask * edge(np.abs(v) - 0.22, 0.4))
    return mask


def _street(image: Plane, tile: Tile, distance: Plane) -> None:
    mix(image, (0.70, 0.68, 0.63), edge(distance - 0.9))
    colour: Colour = (0.50, 0.50, 0.53) if tile.season != "winter" else (0.58, 0.59, 0.62)
    mix(image, colour, edge(distance))


def _suburb(tile: Tile, rng: np.random.Generator, size: int, u: Plane, v: Plane) -> Plane:
    width, depth = level(tile, 12.5, 10.5, 8.8), level(tile, 13.0, 12.0, 11.0)
    v = v + 1.2 * noise(rng, size, 60)
    lots = Lots(u, v, width, depth)
    image = grass(tile, rng, size)
    image *= lots.uniform(rng, 0.84, 1.08)
    towards_street = np.where(lots.row % 2 == 0, 1, -1).astype(np.float32)
    fence = edge(width / 2 - np.abs(lots.u) - 0.25, 0.4)
    mix(image, (0.30, 0.38, 0.20) if tile.season != "winter" else (0.55, 0.55, 0.55), 0.6 * fence)
    front = lots.v * towards_street
    _street(image, tile, depth / 2 - front - np.float32(1.6))
    _street(image, tile, np.abs(repeat(u, width * 6)) - np.float32(1.5))
    pool = edge(box(lots.u - width * 0.22, front + depth * 0.33, 1.3, 0.8))
    mix(image, (0.28, 0.68, 0.80), pool * (lots.uniform(rng) < 0.22) * (tile.season != "winter"))
    half = lots.uniform(rng, 0.29, 0.35) * np.float32(width)
    offset = lots.uniform(rng, -0.06, 0.06) * np.float32(width)
    clear = np.abs(repeat(lots.u - u, width * 6)) > width * 0.3
    drive = edge(box(lots.u - width * 0.33, front - depth * 0.25, 0.8, depth * 0.25)) * clear
    mix(image, (0.66, 0.64, 0.60), 0.8 * drive)
    roofs = _gabled(
        image, tile, rng, lots, lots.u + offset, lots.v - 0.6 * towards_street, half * clear
    )
    free = edge(front - depth * 0.3) - 2 * roofs - 0.5
    scattered_trees(image, tile, rng, 0.3, free, 3.9)
    return image


def _village(tile: Tile, rng: np.random.Generator, size: int, u: Plane, v: Plane) -> Plane:
    hidden = tile.density == "sparse"
    side = level(tile, 16.0, 13.0, 11.0)
    image = grass(tile, rng, size)
    line, slope = winding(rng, u, 5.0, 80)
    street = np.abs(repeat(v - line, 34.0)) / slope - np.float32(1.8)
    _street(image, tile, street)
    lots = Lots(u, v, side, side)
    turn = lots.uniform(rng, 0, np.pi)
    du = lots.u - lots.uniform(rng, -0.14, 0.14) * np.float32(side)
    dv = lots.v - lots.uniform(rng, -0.14, 0.14) * np.float32(side)
    cos, sin = np.cos(turn), np.sin(turn)
    half = lots.uniform(rng, 3.2, 4.3)
    roofs = _gabled(image, tile, rng, lots, du * cos + dv * sin, dv * cos - du * sin, half)
    free = np.minimum(street - 1.5, 0.5 - roofs)
    free = np.minimum(free, np.hypot(du, dv) - (4.0 if hidden else 5.0))
    scattered_trees(image, tile, rng, 1.0 if hidden else 0.42, free, 4.4 if hidden else 4.9)
    return image


def _apartment_blocks(tile: Tile, rng: np.random.Generator, size: int, u: Plane, v: Plane) -> Plane:
    light = SUNS[tile.light]
    width, depth = 30.0, level(tile, 21.0, 18.0, 15.5)
    lots = Lots(u, v, width, depth)
    image = grass(tile, rng, size)
    _street(image, tile, np.abs(repeat(u, width)) - np.float32(1.8))
    _street(image, tile, np.abs(repeat(v, depth)) - np.float32(1.5))
    parking = edge(box(lots.u, lots.v - depth * 0.28, 9.5, 1.7))
    mix(image, (0.53, 0.53, 0.55), parking)
    cars = Lots(u, v, 1.9, depth)
    mask = (
        edge(box(cars.u, cars.v - depth * 0.28, 0.55, 1.1), 0.4)
        * parking
        * (cars.uniform(rng) < 0.6)
    )
    mix(image, cars.colours(rng, _CARS), mask)
    lift = lots.v + np.float32(depth * 0.12)
    slab = box(lots.u, lift, lots.uniform(rng, 9.5, 11.5), 3.4)
    roofs = edge(slab, 0.5)
    darken(image, shadow(roofs, light, 6.0), 0.62)
    roof = lots.colours(rng, _FLAT_ROOFS)
    if tile.season == "winter":
        roof = 0.25 * roof + 0.75 * planes(SNOW)
    mix(image, roof, roofs)
    mix(image, planes((0.52, 0.40, 0.34)), 0.7 * roofs * edge(-slab - 0.7, 0.4))
    shafts = edge(box(repeat(lots.u, 5.5), lift, 0.9, 0.9), 0.4) * roofs
    mix(image, (0.42, 0.41, 0.42), shafts)
    scattered_trees(
        image, tile, rng, 0.45, 0.3 - roofs - parking - edge(-lots.v + depth * 0.4), 4.2
    )
    return image


# --- industry -------------------------------------------------------------------------------------

_HALL_ROOFS: tuple[Colour, ...] = (
    (0.86, 0.87, 0.88),
    (0.66, 0.70, 0.75),
    (0.42, 0.56, 0.72),
    (0.78, 0.76, 0.72),
    (0.56, 0.60, 0.60),
)


def paint_industry(tile: Tile, rng: np.random.Generator, size: int) -> Plane:
    """Large halls, storage tanks, or a solar park along the orientation."""
    u, v = rotated(*coordinates(size), tile.orientation)
    start = rng.uniform(0, 60, 2).astype(np.float32)
    u, v = u + start[0], v + start[1]
    if tile.subtype == "solar":
        return _solar_park(tile, rng, size, u, v)
    image = fill(size, CONCRETE if tile.season != "winter" else (0.72, 0.73, 0.76))
    image *= 1 + 0.05 * fractal(rng, size, 14, 3) + 0.03 * grain(rng, size)
    if tile.subtype == "tanks":
        _tanks(image, tile, rng, u, v)
    else:
        _halls(image, tile, rng, u, v)
    return image


def _halls(image: Plane, tile: Tile, rng: np.random.Generator, u: Plane, v: Plane) -> None:
    width, depth = level(tile, 44.0, 37.0, 31.0), level(tile, 32.0, 27.0, 23.0)
    lots = Lots(u, v, width, depth)
    _street(image, tile, np.abs(repeat(v, depth)) - np.float32(2.0))
    half_u = lots.uniform(rng, 0.36, 0.44) * np.float32(width)
    half_v = lots.uniform(rng, 0.27, 0.36) * np.float32(depth)
    distance = box(lots.u, lots.v, half_u, half_v)
    trucks = Lots(u, v, 3.4, depth)
    dock = edge(box(trucks.u, trucks.v - depth * 0.43, 0.8, 2.0), 0.4) * (trucks.uniform(rng) < 0.3)
    mix(image, trucks.colours(rng, (*_CARS, (0.9, 0.6, 0.15))), dock)
    mask = edge(distance, 0.5)
    darken(image, shadow(mask, SUNS[tile.light], 4.0), 0.6)
    roof = lots.colours(rng, _HALL_ROOFS)
    if tile.season == "winter":
        roof = 0.55 * roof + 0.45 * planes(SNOW)
    roof *= 0.95 + 0.10 * stripes(u, 2.6)
    mix(image, roof, mask)
    mix(image, planes((0.36, 0.38, 0.42)), 0.5 * mask * edge(-distance - 0.6, 0.4))
    inside = edge(distance + 2.2)
    skylight = edge(box(repeat(lots.u, 7.0), lots.v, 0.8, half_v), 0.5) * (lots.uniform(rng) < 0.6)
    mix(image, (0.38, 0.50, 0.60), 0.8 * inside * skylight)
    vents = edge(box(repeat(lots.u - 3.5, 7.0), repeat(lots.v, 6.0), 0.8, 0.8), 0.5)
    darken(image, shadow(vents * inside, SUNS[tile.light], 1.2), 0.5)
    mix(image, (0.93, 0.93, 0.92), 0.9 * inside * vents)


def _tanks(image: Plane, tile: Tile, rng: np.random.Generator, u: Plane, v: Plane) -> None:
    light = SUNS[tile.light]
    side = level(tile, 22.0, 18.0, 15.0)
    lots = Lots(u, v, side, side)
    winter = tile.season == "winter"
    basin: Colour = (0.66, 0.58, 0.47) if not winter else (0.88, 0.90, 0.93)
    wall = box(lots.u, lots.v, side * 0.45, side * 0.45)
    mix(image, basin, 0.8 * edge(wall))
    mix(image, (0.48, 0.46, 0.43), edge(np.abs(wall) - 0.35))
    pipe = edge(np.abs(repeat(lots.v, side * 0.5)) - 0.4)
    mix(image, (0.82, 0.80, 0.72), 0.8 * pipe)
    reach = lots.uniform(rng, 0.32, 0.41) * np.float32(side)
    distance = np.hypot(lots.u, lots.v)
    mask = edge(distance - reach)
    darken(image, shadow(mask, light, 5.0), 0.6)
    top = lots.colours(rng, ((0.92, 0.92, 0.90), (0.84, 0.86, 0.86), (0.84, 0.80, 0.74)))
    if winter:
        top = 0.4 * top + 0.6 * planes(SNOW)
    turned = np.radians(tile.orientation)
    sun_u = light.sun[0] * np.cos(turned) + light.sun[1] * np.sin(turned)
    sun_v = light.sun[1] * np.cos(turned) - light.sun[0] * np.sin(turned)
    top *= 0.94 + 0.13 * (lots.u * np.float32(sun_u) + lots.v * np.float32(sun_v)) / reach
    mix(image, top, mask)
    mix(image, (0.45, 0.45, 0.46), 0.7 * mask * edge(np.abs(distance - reach + 0.7) - 0.25))
    mix(image, (0.45, 0.45, 0.46), 0.6 * edge(distance - 0.9))


def _solar_park(tile: Tile, rng: np.random.Generator, size: int, u: Plane, v: Plane) -> Plane:
    image = grass(tile, rng, size)
    period = level(tile, 7.2, 6.2, 5.2)
    block = period * 5
    lots = Lots(u, v, 34.0, block)
    mix(image, (0.68, 0.63, 0.53), edge(17.0 - np.abs(lots.u) - 1.6))
    row = repeat(v - period / 2, period)
    panels = edge(box(row, lots.u, period * 0.29, 14.6), 0.5)
    panels *= np.abs(lots.v) < block * 0.5
    darken(image, shadow(panels, SUNS[tile.light], 1.5), 0.5)
    blue = between((0.10, 0.16, 0.36), (0.24, 0.34, 0.58), 0.5 + row / np.float32(period * 0.6))
    if tile.season == "winter":
        blue = 0.7 * blue + 0.3 * planes(SNOW)
    mix(image, blue, panels)
    seams = edge(np.abs(repeat(lots.u, 3.6)) - 0.2, 0.4)
    mix(image, (0.66, 0.72, 0.80), 0.6 * seams * panels)
    cabin = edge(box(lots.u - 16.8, lots.v, 1.2, 1.8), 0.5)
    mix(image, (0.93, 0.92, 0.88), cabin)
    return image
