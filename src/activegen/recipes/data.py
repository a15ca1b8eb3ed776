"""The real images of a recipe, and what names their content."""

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from activegen.data.fingerprints import thumbnail
from activegen.data.images import RealImages
from activegen.data.readers import READERS, read_images, read_scenes, takes
from activegen.data.scenes import Real, RealScenes
from activegen.data.splits import few_shot
from activegen.recipes.schema import DataSpec, SplitSpec
from activegen.records import UserError, fingerprint

Thumbnails = Float[Tensor, "n 3 16 16"]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Data:
    """The splits, as the recipe takes them.

    Args:
        train, test: what is learnt from, and what figures are measured on.
        val: what may be looked at on the way; None where the recipe has none.
        real: fingerprints of the training images.
        forbidden: of all val and test images, also of those that no figure is measured on.
        fingerprint: of names, labels or masks, and pixels of all of them.
        whole: the training split, of which ``train`` are few.
        few: how many of each class, or of scenes in all; None where ``train`` is all of it.
        seed: of that choice.
    """

    train: Real
    test: Real
    val: Real | None
    real: Thumbnails
    forbidden: Float[Tensor, "m 3 16 16"]
    fingerprint: str
    whole: Real
    few: int | None
    seed: int

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(id, reason) of the images that cannot be read."""
        val = () if self.val is None else self.val.skipped
        return self.train.skipped + val + self.test.skipped

    def with_more(self, count: int) -> Real:
        """The training images and ``count`` more of each class, or of scenes in all.

        Raises:
            UserError: the split has no more.
        """
        if count == 0:
            return self.train
        if self.few is None:
            raise UserError(
                f"an arm asks for {count} more real images, but all of {self.whole.name} are "
                "trained on; set data.train.per_class (of masks data.train.count)"
            )
        return few_shot(self.whole, self.few + count, self.seed)


def contents(images: Real) -> dict[str, str]:
    """A name of the content of each image, by id: equal pixels have equal names."""
    named = {}
    for index, id in enumerate(images.ids):
        named[id] = _content(images.image(index))
    return named


def _content(pixels: UInt8[Tensor, "3 h w"]) -> str:
    digest = hashlib.sha256(f"{tuple(pixels.shape)}\n".encode())
    digest.update(pixels.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def labelled(images: Real) -> str:
    """Fingerprint of pixels and labels, in their order."""
    named = contents(images)
    pairs = [[named[id], _named(images, index)] for index, id in enumerate(images.ids)]
    return fingerprint(pairs)


def thumbnails(images: Real) -> Thumbnails:
    """Fingerprints of all of them."""
    return _stacked(thumbnail(images.image(index)) for index in range(len(images)))


def read(spec: DataSpec, seed: int, progress: Callable[[int, int], None]) -> Data:
    """Reads and checks all splits; ``progress`` is told images done and in all.

    Raises:
        UserError: as the reader does, splits of different classes, or val images that are test
            images or labelled ones too.
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
    train, few = whole, spec.train
    number = few.per_class if isinstance(whole, RealImages) else few.count
    if number is not None:
        train = few_shot(whole, number, seed)
    limited = test if spec.test.limit is None else at_most(test, spec.test.limit)
    digest = hashlib.sha256()
    count, total = 0, len(train) + sum(len(of) for of in others)
    prints: list[list[Tensor]] = []
    called: list[dict[str, str]] = []  # ids by content
    for images in (train, *others):
        prints.append([])
        called.append({})
        for index, id in enumerate(images.ids):
            pixels = images.image(index)
            digest.update(f"{id}\n{_named(images, index)}\n{tuple(pixels.shape)}\n".encode())
            digest.update(pixels.contiguous().numpy().tobytes())
            prints[-1].append(thumbnail(pixels))
            called[-1][_content(pixels)] = id
            count += 1
            progress(count, total)
    if val is not None:
        _refuse_shared(*called)
    _warn_shared(*called[:2])
    return Data(
        train=train,
        test=limited,
        val=val,
        real=_stacked(prints[0]),
        forbidden=_stacked(of for part in prints[1:] for of in part),
        fingerprint=digest.hexdigest()[:16],
        whole=whole,
        few=number,
        seed=seed,
    )


def _refuse_shared(train: dict[str, str], test: dict[str, str], val: dict[str, str]) -> None:
    """What val images decide on must be decided neither by test images nor by what is learnt."""
    for name, other in (("test", test), ("labelled", train)):
        if shared := [content for content in val if content in other]:
            raise UserError(
                f"{len(shared)} val images are {name} images too, such as {val[shared[0]]}, which "
                f"is the {name} image {other[shared[0]]}; name another split in data.val, take "
                "such images out, or set data.val to null"
            )


def _warn_shared(train: dict[str, str], test: dict[str, str]) -> None:
    """A run may have its reasons; a comparison refuses it."""
    if shared := [content for content in train if content in test]:
        _LOG.warning(
            "%d labelled images are test images too, such as %s, which is the test image %s: "
            "figures are higher than on new images, and compare refuses it",
            len(shared),
            train[shared[0]],
            test[shared[0]],
        )


def _named(images: Real, index: int) -> str:
    """What the label of an image is, as text."""
    if isinstance(images, RealImages):
        return images.classes[images.labels[index]]
    digest = hashlib.sha256(images.mask(index).contiguous().numpy().tobytes())
    if images.read_reliability:
        digest.update(images.read_reliability(index).contiguous().numpy().tobytes())
    return f"{images.classes} {digest.hexdigest()}"


def read_split(spec: DataSpec, split: SplitSpec) -> Real:
    """All images of a split.

    Raises:
        UserError: as the reader does.
    """
    layout, path, options = spec.of(split)
    options = dict(options)
    if spec.strict and takes(layout, "strict"):
        options.setdefault("strict", True)
    path = str(Path(path).expanduser()) if path.startswith("~") else path
    reader = read_images if layout in READERS else read_scenes
    return reader(layout, path, split.split, **options)


def at_most(images: Real, limit: int) -> Real:
    """Of each class, or of scenes in all; the same choice whatever the seed of the run is.

    So all seeds have the same test.

    Raises:
        UserError: ``limit`` is not positive.
    """
    if limit < 1:
        raise UserError(f"data.test.limit is {limit}; give at least 1, or null for all")
    if isinstance(images, RealScenes):
        order = np.random.default_rng(0).permutation(len(images))
        return images.subset(sorted(order[:limit].tolist()))
    chosen: list[int] = []
    for label, positions in images.by_class().items():
        order = np.random.default_rng((0, label)).permutation(len(positions))
        chosen += [positions[at] for at in order[:limit]]
    return images.subset(sorted(chosen))


def _stacked(prints: Iterable[Tensor]) -> Thumbnails:
    prints = list(prints)
    return torch.cat(prints) if prints else torch.zeros(0, 3, 16, 16)
