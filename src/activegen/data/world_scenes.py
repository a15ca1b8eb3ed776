"""Scenes of the embedded world as a data set: rendered land cover with exact masks.

Train and val lack the rare layouts that test has, so there is something true to find.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from activegen.data.made import Made
from activegen.data.scenes import RealScenes
from activegen.data.world import TAIL, salt
from activegen.records import UserError, choose
from activegen.zoo.scenes import SCENE_CLASSES, Scene, draw_scene, render_scene


def read_world_scenes(
    path: str,
    split: str,
    *,
    count: int = 200,
    tail: bool | None = None,
    seed: int = 0,
    size: int = 64,
) -> RealScenes:
    """Scenes of one split, each rendered when it is first asked for and then kept.

    More scenes contain the fewer of the same seed. Splits never share a scene.

    Args:
        path: not used; the world is in the package.
        split: "train", "val", "test", "pool" or "judge".
        count: scenes in all.
        tail: with the rare layouts, at their natural share; by default `world.TAIL` of the split.
        seed: of the whole set.
        size: of the square images, pixels.

    Raises:
        UserError: unknown split; a count, seed or size that is too small.
    """
    if size < 8:
        raise UserError(f"size is {size}; give at least 8 pixels")
    drawn = tuple(_draw(split, count, tail, seed))
    made = Made(lambda index: render_scene(drawn[index].scene, drawn[index].seed, size))
    return RealScenes(
        name=f"world scenes ({split})",
        classes=SCENE_CLASSES,
        ids=tuple(each.id for each in drawn),
        read=made.image,
        read_mask=made.mask,
    )


def scenes(
    split: str, *, count: int = 200, tail: bool | None = None, seed: int = 0
) -> dict[str, Scene]:
    """What each image of `read_world_scenes` shows, by its id; the options are the same.

    Raises:
        UserError: as `read_world_scenes` does.
    """
    return {drawn.id: drawn.scene for drawn in _draw(split, count, tail, seed)}


@dataclass(frozen=True)
class _Drawn:
    """A scene before it is rendered; ``seed`` draws the positions in it."""

    id: str
    scene: Scene
    seed: int


def _draw(split: str, count: int, tail: bool | None, seed: int) -> Iterator[_Drawn]:
    natural = choose(TAIL, split, "split of the world")
    tail = natural if tail is None else tail
    if count < 1 or seed < 0:
        raise UserError(
            f"count is {count} and seed is {seed}; count is at least 1, seed at least 0"
        )
    for number in range(count):
        rng = np.random.default_rng((seed, salt(f"scenes of {split}"), number))
        scene = draw_scene(rng, tail)
        id = f"world_scenes/{split}/{'tail' if tail else 'common'}-{seed}/{number:06d}"
        yield _Drawn(id, scene, int(rng.integers(2**62)))
