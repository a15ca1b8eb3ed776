"""Parts of a data set: few-shot, held out, folds, and train/val/test where a set has no split.

Every part depends on the images' order and the seed alone, and holds images of every class.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from activegen.data.images import RealImages
from activegen.records import UserError

SHARES = {"test": 0.2, "val": 0.1}  # of each class; train is the rest


def few_shot(images: RealImages, per_class: int, seed: int) -> RealImages:
    """``per_class`` images of each class; more of them contain the fewer of the same seed.

    Raises:
        UserError: a class has fewer, or ``per_class`` is not positive.
    """
    if per_class < 1:
        raise UserError(f"per_class is {per_class}; give at least 1")
    _require(images, per_class, f"{per_class} are asked for")
    return images.subset(
        sorted(index for order in _shuffled(images, seed) for index in order[:per_class])
    )


def held_out(images: RealImages, share: float, seed: int) -> tuple[RealImages, RealImages]:
    """The rest, and a ``share`` of each class, at least one image of it on either side.

    Raises:
        UserError: a class has one image, or ``share`` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise UserError(f"share is {share}; give a number between 0 and 1")
    _require(images, 2, "holding out needs one on either side")
    held: list[int] = []
    for order in _shuffled(images, seed):
        held += order[: min(max(round(share * len(order)), 1), len(order) - 1)]
    return _without(images, held), images.subset(sorted(held))


def folds(images: RealImages, k: int, seed: int) -> list[tuple[RealImages, RealImages]]:
    """``k`` times the rest and a fold; every image is in one fold, every class in all.

    Raises:
        UserError: a class has fewer than ``k`` images, or ``k`` is below 2.
    """
    if k < 2:
        raise UserError(f"k is {k}; give at least 2 folds")
    _require(images, k, f"{k} folds need one each")
    dealt = [index for order in _shuffled(images, seed) for index in order]
    return [
        (_without(images, dealt[fold::k]), images.subset(sorted(dealt[fold::k])))
        for fold in range(k)
    ]


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


def _shuffled(images: RealImages, seed: int) -> list[list[int]]:
    """The positions of each class in an order of their own."""
    return [
        [positions[at] for at in np.random.default_rng((seed, label)).permutation(len(positions))]
        for label, positions in images.by_class().items()
    ]


def _without(images: RealImages, left_out: Iterable[int]) -> RealImages:
    left_out = set(left_out)
    return images.subset(index for index in range(len(images)) if index not in left_out)


def _require(images: RealImages, count: int, why: str) -> None:
    for label, positions in images.by_class().items():
        if len(positions) < count:
            raise UserError(
                f"{images.name}: class '{images.classes[label]}' has {len(positions)} images, "
                f"but {why}. Ask for less or add images"
            )
