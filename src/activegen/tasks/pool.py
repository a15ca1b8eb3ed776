"""What a learner trains on: real and synthetic images side by side, and which come in which batch.

Real and synthetic images are two endless streams, each shuffled anew in every epoch. A batch is a
function of the seed and the step, so a learner that goes on needs to remember the step alone.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from activegen.records import UserError
from activegen.tasks.seeding import derive


@runtime_checkable
class Labelled(Protocol):
    """Labelled images that are there already."""

    @property
    def labels(self) -> Any:
        """Class id of each image, a sequence or a tensor."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int, /) -> Tensor:
        """RGB (3, h, w), uint8 or float in 0..1."""
        ...


@dataclass(frozen=True)
class Pool:
    """Images of one size with their labels.

    Args:
        images: RGB, 0 to 255.
        labels: class ids.
        weights: how much an image counts in the loss; 0 is never drawn.
        synthetic: true where the image was generated.
    """

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    weights: Float[Tensor, " n"]
    synthetic: Bool[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def __add__(self, other: "Pool") -> "Pool":
        if self.images.shape[1:] != other.images.shape[1:]:
            mine, theirs = tuple(self.images.shape[2:]), tuple(other.images.shape[2:])
            raise UserError(f"cannot join images of size {mine} with images of size {theirs}")
        return Pool(
            torch.cat([self.images, other.images]),
            torch.cat([self.labels, other.labels]),
            torch.cat([self.weights, other.weights]),
            torch.cat([self.synthetic, other.synthetic]),
        )

    def reweighted(self, synthetic: float) -> "Pool":
        """The same images, with the weights of the synthetic ones times ``synthetic``."""
        weights = torch.where(self.synthetic, self.weights * synthetic, self.weights)
        return Pool(self.images, self.labels, weights, self.synthetic)

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


def gather(real: Labelled, size: int | tuple[int, int]) -> Pool:
    """All real images in memory, resized, each with weight 1."""
    if len(real) == 0:
        raise UserError("there is no real image to train on")
    images = torch.stack([_resize(real.image(index), _pair(size)) for index in range(len(real))])
    labels = torch.as_tensor(real.labels, dtype=torch.int64)
    return Pool(images, labels, torch.ones(len(images)), torch.zeros(len(images), dtype=torch.bool))


def generated(
    images: UInt8[Tensor, "n 3 h w"],
    labels: Int[Tensor, " n"],
    size: int | tuple[int, int],
    weight: float = 1.0,
) -> Pool:
    """Synthetic images, resized, each with this weight in the loss."""
    resized = [_resize(image, _pair(size)) for image in images]
    stacked = torch.stack(resized) if resized else images.new_zeros(0, 3, *_pair(size))
    weights = torch.full((len(images),), float(weight))
    return Pool(stacked, labels.long(), weights, torch.ones(len(images), dtype=torch.bool))


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


def _resize(image: Tensor, size: tuple[int, int]) -> UInt8[Tensor, "3 h w"]:
    values = image.float() if image.dtype == torch.uint8 else image.float() * 255
    if image.shape[-2:] != size:
        values = functional.interpolate(values[None], size, mode="bilinear", antialias=True)[0]
    return values.round().clamp(0, 255).to(torch.uint8)
