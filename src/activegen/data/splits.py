"""Parts of a data set: few-shot, held out, folds, bags, and train/val/test if it has no split.

Every part depends on the images' order and the seed alone. Of images of one class each, every part
holds each class; images with masks are drawn as they come, since each of them shows several.
"""

import hashlib
from collections.abc import Iterable, Sequence
from statistics import median
from typing import TypeVar

import numpy as np

from activegen.data.images import RealImages
from activegen.data.scenes import RealScenes
from activegen.records import UserError

SHARES = {"test": 0.2, "val": 0.1}  # of each class; train is the rest
NOTICED = 0.5  # of a class's usual pixels in a scene

Real = TypeVar("Real", bound=RealImages | RealScenes)


def few_shot(real: Real, count: int, seed: int) -> Real:
    """``count`` images of each class, or scenes in all; more contain the fewer of the same seed.

    Scenes are drawn so that few of them show all classes that there are: first, one after the
    other, a scene that shows the most classes which no scene before it shows, until all are shown;
    then any. Of equal scenes the seed takes one. A scene shows a class with at least half the
    pixels that are usual, the median over the scenes that have the class at all. As many scenes as
    there are classes show all of them. Ours.

    Raises:
        UserError: there are fewer, or ``count`` is not positive.
    """
    if count < 1:
        raise UserError(f"count is {count}; give at least 1")
    _require(real, count, f"{count} are asked for")
    orders = [_covering(real, seed)] if isinstance(real, RealScenes) else _shuffled(real, seed)
    return real.subset(sorted(index for order in orders for index in order[:count]))


def held_out(real: Real, share: float, seed: int) -> tuple[Real, Real]:
    """The rest, and a ``share`` of each class, or of all scenes; at least one on either side.

    Raises:
        UserError: a class has one image, or ``share`` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise UserError(f"share is {share}; give a number between 0 and 1")
    _require(real, 2, "holding out needs one on either side")
    held: list[int] = []
    for order in _shuffled(real, seed):
        held += order[: min(max(round(share * len(order)), 1), len(order) - 1)]
    return _without(real, held), real.subset(sorted(held))


def folds(real: Real, k: int, seed: int) -> list[tuple[Real, Real]]:
    """``k`` times the rest and a fold; every image is in one fold, every class of images in all.

    Raises:
        UserError: a class, or all scenes, are fewer than ``k``, or ``k`` is below 2.
    """
    if k < 2:
        raise UserError(f"k is {k}; give at least 2 folds")
    _require(real, k, f"{k} folds need one each")
    dealt = [index for order in _shuffled(real, seed) for index in order]
    return [
        (_without(real, dealt[fold::k]), real.subset(sorted(dealt[fold::k]))) for fold in range(k)
    ]


def bags(real: Real, members: int, seed: int) -> list[tuple[list[int], Real]]:
    """For each member the positions of its bag, some several times, and the images that it judges.

    Breiman (1996), Bagging predictors: a bag is as many images as there are, drawn with
    replacement; of images of one class each, as many of each class, so that it holds them all
    (ours). The first members have the same bags and judge the same however many there are.

    Breiman (1996), Out-of-bag estimation: an image is judged by members that did not see it.
    Differs from it in that the first such member judges it, alone, so that the last ones judge few
    or none. An image is in a bag with a chance of about 1 - 1/e, so (1 - 1/e)^members of all, 40 %
    with 2 members and 10 % with 5, are in every bag and judged by nobody; few images of a class
    are so more often, one always.

    Raises:
        UserError: there is no member, or every image is in every bag.
    """
    if members < 1:
        raise UserError(f"members is {members}; give at least 1 bag")
    orders = _shuffled(real, seed)
    left, parts = set(range(len(real))), []
    for member in range(members):
        rng = np.random.default_rng((seed, member, 1))  # the 1: a stream of its own
        drawn = [order[at] for order in orders for at in rng.integers(len(order), size=len(order))]
        unseen = left.difference(drawn)
        left -= unseen
        parts.append((sorted(drawn), real.subset(sorted(unseen))))
    if len(left) == len(real):
        raise UserError(
            f"{real.name}: each of {len(real)} images is in all of {members} bags, and no member "
            "may judge what it saw. Add images or give more bags (mining.folds)"
        )
    return parts


def by_hash(ids: Sequence[str], labels: Sequence[int]) -> list[str]:
    """Train, val or test for each image of a set without splits, the same on every machine.

    Each class is ordered by the SHA-256 of its ids; the first 20 % are test, the next 10 % val, at
    least one image each, and the rest are train. A class of one or two images is train first, then
    test. Changing the files of a class can move others of it to another split.
    """
    split = ["train"] * len(ids)
    for label in sorted(set(labels)):
        of_class = [index for index, other in enumerate(labels) if other == label]
        of_class.sort(key=lambda index: hashlib.sha256(ids[index].encode()).digest())
        start = 0
        for name, share in SHARES.items():
            count = min(max(round(share * len(of_class)), 1), len(of_class) - start - 1)
            for index in of_class[start : start + count]:
                split[index] = name
            start += count
    return split


def _shuffled(real: RealImages | RealScenes, seed: int) -> list[list[int]]:
    """The positions of each class in an order of their own; scenes are one class."""
    if isinstance(real, RealScenes):
        return [np.random.default_rng(seed).permutation(len(real)).tolist()]
    return [
        [positions[at] for at in np.random.default_rng((seed, label)).permutation(len(positions))]
        for label, positions in real.by_class().items()
    ]


def _covering(scenes: RealScenes, seed: int) -> list[int]:
    """All positions, in the order in which `few_shot` takes them."""
    [left] = _shuffled(scenes, seed)
    shown = _shown(scenes)
    missing = set().union(*shown)
    order: list[int] = []
    while missing:
        best = max(left, key=lambda index: len(shown[index] & missing))
        order.append(best)
        left.remove(best)
        missing -= shown[best]
    return order + left


def _shown(scenes: RealScenes) -> list[set[int]]:
    """The classes that each scene shows well enough to learn from."""
    shown: list[set[int]] = [set() for _ in range(len(scenes))]
    for label, positions in scenes.by_class().items():
        pixels = {index: scenes.pixels(index)[label] for index in positions}
        usual = median(pixels.values()) if pixels else 0
        for index, count in pixels.items():
            if count >= NOTICED * usual:
                shown[index].add(label)
    return shown


def _without(real: Real, left_out: Iterable[int]) -> Real:
    left_out = set(left_out)
    return real.subset(index for index in range(len(real)) if index not in left_out)


def _require(real: RealImages | RealScenes, count: int, why: str) -> None:
    if isinstance(real, RealScenes):
        groups = {real.name: len(real)}
    else:
        groups = {
            f"{real.name}: class '{real.classes[label]}'": len(positions)
            for label, positions in real.by_class().items()
        }
    for group, there in groups.items():
        if there < count:
            raise UserError(f"{group} has {there} images, but {why}. Ask for less or add images")
