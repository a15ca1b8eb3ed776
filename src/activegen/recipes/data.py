"""The real images of a recipe, and what names their content."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from activegen.data.fingerprints import thumbnail
from activegen.data.images import RealImages
from activegen.data.readers import read_images
from activegen.data.splits import few_shot
from activegen.recipes.schema import DataSpec, SplitSpec
from activegen.records import UserError

Thumbnails = Float[Tensor, "n 3 16 16"]


@dataclass(frozen=True)
class Data:
    """The splits, as the recipe takes them.

    Args:
        train, test: what is learnt from, and what figures are measured on.
        real: fingerprints of the training images.
        forbidden: of all val and test images, also of those that no figure is measured on.
        fingerprint: of names, labels and pixels of all of them.
    """

    train: RealImages
    test: RealImages
    real: Thumbnails
    forbidden: Float[Tensor, "m 3 16 16"]
    fingerprint: str

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(id, reason) of the images that cannot be read."""
        return self.train.skipped + self.test.skipped


def read(spec: DataSpec, seed: int, progress: Callable[[int, int], None]) -> Data:
    """Reads and checks all splits; ``progress`` is told images done and in all.

    Raises:
        UserError: as the reader does, or splits of different classes.
    """
    whole, test = read_split(spec, spec.train), read_split(spec, spec.test)
    val = None if spec.val is None else read_split(spec, spec.val)
    others = [test] if val is None else [test, val]
    for other in others:
        if other.classes != whole.classes:
            raise UserError(
                f"{whole.name} has the classes {', '.join(whole.classes)}; {other.name} has "
                f"{', '.join(other.classes)}: they must be the same, in the same order"
            )
    train = whole
    if spec.train.per_class is not None:
        train = few_shot(whole, spec.train.per_class, seed)
    limited = test if spec.test.limit is None else _at_most(test, spec.test.limit, seed)
    digest = hashlib.sha256()
    count, total = 0, len(train) + sum(len(of) for of in others)
    prints: list[list[Tensor]] = []
    for images in (train, *others):
        prints.append([])
        for index, (id, label) in enumerate(zip(images.ids, images.labels, strict=True)):
            pixels = images.image(index)
            digest.update(f"{id}\n{images.classes[label]}\n{tuple(pixels.shape)}\n".encode())
            digest.update(pixels.contiguous().numpy().tobytes())
            prints[-1].append(thumbnail(pixels))
            count += 1
            progress(count, total)
    return Data(
        train=train,
        test=limited,
        real=_stacked(prints[0]),
        forbidden=_stacked(of for part in prints[1:] for of in part),
        fingerprint=digest.hexdigest()[:16],
    )


def read_split(spec: DataSpec, split: SplitSpec) -> RealImages:
    """All images of a split.

    Raises:
        UserError: as the reader does.
    """
    options: dict[str, Any] = {**spec.options, **split.options}
    if spec.strict:
        options.setdefault("strict", True)
    path = str(Path(spec.path).expanduser()) if spec.path.startswith("~") else spec.path
    return read_images(spec.layout, path, split.split, **options)


def _at_most(images: RealImages, limit: int, seed: int) -> RealImages:
    """The same choice for the same seed."""
    if limit < 1:
        raise UserError(f"data.test.limit is {limit}; give at least 1, or null for all")
    chosen: list[int] = []
    for label, positions in images.by_class().items():
        order = np.random.default_rng((seed, label)).permutation(len(positions))
        chosen += [positions[at] for at in order[:limit]]
    return images.subset(sorted(chosen))


def _stacked(prints: Iterable[Tensor]) -> Thumbnails:
    prints = list(prints)
    return torch.cat(prints) if prints else torch.zeros(0, 3, 16, 16)
