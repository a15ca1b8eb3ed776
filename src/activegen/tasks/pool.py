"""What a learner trains on: real and synthetic images side by side, and which come in which batch.

Real and synthetic images are two endless streams, each shuffled anew in every epoch. A batch is a
function of the seed and the step, so a learner that goes on needs to remember the step alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Integer, UInt8
from torch import Tensor
from torch.nn import functional

from activegen.records import IGNORE, UserError
from activegen.tasks.seeding import derive
from activegen.tasks.unreliable import CERTAIN


@runtime_checkable
class Labelled(Protocol):
    """Labelled images that are there already."""

    def __len__(self) -> int: ...

    def image(self, index: int, /) -> Tensor:
        """RGB (3, h, w), uint8 or float in 0..1."""
        ...

    def target(self, index: int, /) -> Tensor:
        """Class id (), or the mask (h, w) of class ids, 255 where ignored."""
        ...


@dataclass(frozen=True)
class Pool:
    """Images of one size with their labels.

    Args:
        images: RGB, 0 to 255.
        labels: class ids, int64; or masks of them, uint8, 255 where ignored.
        weights: how much an image counts in the loss; 0 is never drawn.
        synthetic: true where the image was generated.
        reliability: of each pixel's label, 255 = certain; None is certain everywhere.
    """

    images: UInt8[Tensor, "n 3 h w"]
    labels: Integer[Tensor, "n *space"]
    weights: Float[Tensor, " n"]
    synthetic: Bool[Tensor, " n"]
    reliability: UInt8[Tensor, "n h w"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __add__(self, other: "Pool") -> "Pool":
        if self.images.shape[1:] != other.images.shape[1:]:
            mine, theirs = tuple(self.images.shape[2:]), tuple(other.images.shape[2:])
            raise UserError(f"cannot join images of size {mine} with images of size {theirs}")
        if self.labels.shape[1:] != other.labels.shape[1:]:
            raise UserError("cannot join images labelled by class with images labelled by mask")
        return Pool(
            torch.cat([self.images, other.images]),
            torch.cat([self.labels, other.labels]),
            torch.cat([self.weights, other.weights]),
            torch.cat([self.synthetic, other.synthetic]),
            None
            if self.reliability is None and other.reliability is None
            else torch.cat([self.reliabilities, other.reliabilities]),
        )

    @property
    def reliabilities(self) -> UInt8[Tensor, "n h w"]:
        """The reliability, written out where there is none."""
        if self.reliability is not None:
            return self.reliability
        return torch.full_like(self.images[:, 0], CERTAIN)

    def reweighted(self, synthetic: float) -> "Pool":
        """The same images, with the weights of the synthetic ones times ``synthetic``."""
        weights = torch.where(self.synthetic, self.weights * synthetic, self.weights)
        return replace(self, weights=weights)

    def subset(self, indices: Int[Tensor, " m"]) -> "Pool":
        """The images at these places, which may come more than once."""
        return Pool(
            self.images[indices],
            self.labels[indices],
            self.weights[indices],
            self.synthetic[indices],
            None if self.reliability is None else self.reliability[indices],
        )

    def batch(
        self, step: int, seed: int, size: int, synthetic_share: float | None = None
    ) -> Int[Tensor, " size"]:
        """Indices of the images of a step, real ones first; the same for the same arguments.

        Args:
            step: counted from 0.
            seed: of the order.
            size: images in a batch.
            synthetic_share: part of all drawn images that is synthetic, 0 to 1, kept to within one
                image at every step; None takes every image equally often. Where one of the
                two kinds is missing, the other fills the batch.

        Raises:
            UserError: no image has a weight.
        """
        drawable = self.weights > 0
        real = (drawable & ~self.synthetic).nonzero().flatten()
        synthetic = (drawable & self.synthetic).nonzero().flatten()
        if len(real) + len(synthetic) == 0:
            raise UserError("nothing to train on: the pool has no image with a weight above 0")
        share = len(synthetic) / (len(real) + len(synthetic))
        if synthetic_share is not None and 0 < share < 1:
            share = synthetic_share
        before, after = (math.floor(s * size * share + 0.5) for s in (step, step + 1))
        return torch.cat(
            [
                _stream(real, step * size - before, (step + 1) * size - after, seed, "real"),
                _stream(synthetic, before, after, seed, "synthetic"),
            ]
        )


def gather(
    real: Labelled,
    size: int | tuple[int, int],
    reliability: Callable[[int], UInt8[Tensor, "_ _"]] | None = None,
) -> Pool:
    """All real images in memory, resized with their masks, each with weight 1.

    Args:
        real: images with their labels.
        size: height and width, in pixels.
        reliability: of an image's mask, by its index, 255 = certain; None is certain everywhere.
    """
    if len(real) == 0:
        raise UserError("there is no real image to train on")
    images = torch.stack([_resize(real.image(index), _pair(size)) for index in range(len(real))])
    labels = torch.stack([_target(real.target(index), _pair(size)) for index in range(len(real))])
    known = None
    if reliability is not None:
        known = torch.stack([_nearest(reliability(k), _pair(size)) for k in range(len(real))])
    none = torch.zeros(len(images), dtype=torch.bool)
    return Pool(images, labels, torch.ones(len(images)), none, known)


def generated(
    images: UInt8[Tensor, "n 3 h w"],
    labels: Integer[Tensor, "n *space"],
    size: int | tuple[int, int],
    weight: float = 1.0,
    reliability: UInt8[Tensor, "n _ _"] | None = None,
) -> Pool:
    """Synthetic images, resized with their masks, each with this weight in the loss.

    Args:
        images, labels: of them.
        size: height and width, in pixels.
        weight: of each image.
        reliability: of the masks, 255 = certain; None is certain everywhere.
    """
    height, width = _pair(size)
    resized = [_resize(image, (height, width)) for image in images]
    targets = [_target(label, (height, width)) for label in labels]
    known = [] if reliability is None else [_nearest(of, (height, width)) for of in reliability]
    # without any, they still are of one kind
    none = (
        torch.zeros(0, dtype=torch.int64)
        if labels.ndim == 1
        else labels.new_zeros(0, height, width)
    )
    return Pool(
        torch.stack(resized) if resized else images.new_zeros(0, 3, height, width),
        torch.stack(targets) if targets else none,
        torch.full((len(images),), float(weight)),
        torch.ones(len(images), dtype=torch.bool),
        torch.stack(known) if known else None,
    )


def check_labels(labels: Integer[Tensor, "n *space"], classes: int) -> None:
    """See that there is a class for each label.

    Raises:
        UserError: there is none.
    """
    counted = labels if labels.ndim == 1 else labels[labels != IGNORE]
    if len(counted) == 0:
        return
    low, high = int(counted.min()), int(counted.max())
    if low < 0 or high >= classes:
        ignored = "" if labels.ndim == 1 else f", or {IGNORE} where they are ignored"
        raise UserError(
            f"labels must be 0 to {classes - 1}, as the model has {classes} classes{ignored}; "
            f"got {low} to {high}"
        )


def _stream(
    members: Int[Tensor, " n"], start: int, stop: int, seed: int, name: str
) -> Int[Tensor, " drawn"]:
    """Places ``start`` to ``stop`` of an endless row of shuffled epochs."""
    if start == stop:
        return members[:0]
    first, last = start // len(members), (stop - 1) // len(members)
    epochs = [members[_order(len(members), seed, name, e)] for e in range(first, last + 1)]
    return torch.cat(epochs)[start - first * len(members) :][: stop - start]


def _order(count: int, seed: int, name: str, epoch: int) -> Int[Tensor, " n"]:
    rng = torch.Generator().manual_seed(derive(seed, name, epoch))
    return torch.randperm(count, generator=rng)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _target(label: Integer[Tensor, "*space"], size: tuple[int, int]) -> Integer[Tensor, "*size"]:
    """A class as it is; a mask in this size, each pixel of the class that is nearest."""
    if label.ndim == 0:
        return label.long()
    if label.dtype != torch.uint8 and (label.min() < 0 or label.max() > IGNORE):
        raise UserError(
            f"a mask must hold class ids from 0, and {IGNORE} where it is ignored; "
            f"got {int(label.min())} to {int(label.max())}"
        )
    return _nearest(label.to(torch.uint8), size)


def _nearest(bytes_: UInt8[Tensor, "_ _"], size: tuple[int, int]) -> UInt8[Tensor, "height width"]:
    if bytes_.shape == size:
        return bytes_
    return functional.interpolate(bytes_[None, None], size, mode="nearest-exact")[0, 0]


def _resize(image: Tensor, size: tuple[int, int]) -> UInt8[Tensor, "3 h w"]:
    values = image.float() if image.dtype == torch.uint8 else image.float() * 255
    if image.shape[-2:] != size:
        values = functional.interpolate(values[None], size, mode="bilinear", antialias=True)[0]
    return values.round().clamp(0, 255).to(torch.uint8)
