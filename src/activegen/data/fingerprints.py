"""Fingerprints that tell near-copies of an image, but never teach a model anything.

Leaks of val and test images into synthetic data, memorised training images and images generated
twice are found by these 16 x 16 thumbnails alone.
"""

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

SIDE = 16
DIFFERENCE = 8 / 255  # root mean square of a near-copy's thumbnail, at most
DECORRELATION = 0.05  # one minus the correlation with a near-copy's thumbnail, at most
STRUCTURE = (0.25 / 255) ** 2  # variance; below, a thumbnail is flat
QUERIES, CHUNK = 64, 4096  # thumbnails compared at once

Thumbnails = Float[Tensor, "n 3 16 16"]  # 0 to 1


def thumbnail(images: UInt8[Tensor, "n 3 h w"] | UInt8[Tensor, "3 h w"]) -> Thumbnails:
    """Area averages, 0 to 1; a whole image whatever its shape."""
    images = images if images.dim() == 4 else images[None]
    return adaptive_avg_pool2d(images.float() / 255, SIDE)


def nearest(
    query: Thumbnails, bank: Float[Tensor, "m 3 16 16"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """How far the most similar of the bank is, and its position; `is_duplicate` draws the line.

        max(rms / DIFFERENCE, (1 - correlation) / DECORRELATION)

    for the best of the query's eight flips and turns. ``rms`` is over all values; ``correlation``
    is of the thumbnails without the mean of each colour, so two flat images of one colour are not
    alike unless both have no structure at all. 0 is a copy. An empty bank is infinitely far, at -1.
    """
    if not len(query) or not len(bank):
        return query.new_full((len(query),), torch.inf), torch.full((len(query),), -1)
    found = [_nearest(part, bank) for part in query.split(QUERIES)]
    distances, indices = zip(*found, strict=True)
    return torch.cat(distances), torch.cat(indices)


def _nearest(
    query: Thumbnails, bank: Float[Tensor, "m 3 16 16"]
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    turned = orientations(query).flatten(0, 1)
    parts = [_distances(turned, part).unflatten(0, (8, -1)).amin(0) for part in bank.split(CHUNK)]
    best = torch.cat(parts, dim=1).min(dim=1)
    return best.values, best.indices


def is_duplicate(distance: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Whether `nearest` found a near-copy: JPEG noise, a little light, flips and turns."""
    return distance < 1


def orientations(thumbnails: Thumbnails) -> Float[Tensor, "8 n 3 16 16"]:
    """The four turns of an image and of its mirror image."""
    turns = [torch.rot90(thumbnails, turn, (-2, -1)) for turn in range(4)]
    return torch.stack(turns + [turn.flip(-1) for turn in turns])


def _distances(
    query: Float[Tensor, "q 3 16 16"], bank: Float[Tensor, "b 3 16 16"]
) -> Float[Tensor, "q b"]:
    """Of each query to each of the bank, in units of the tolerance."""
    query_mean, query_rest, query_square = _parts(query)
    bank_mean, bank_rest, bank_square = _parts(bank)
    product = query_rest @ bank_rest.T / query_rest.shape[1]
    colour = (query_mean[:, None] - bank_mean).square().mean(-1)
    squares = query_square[:, None] + bank_square - 2 * product + colour
    scale = ((query_square[:, None] + STRUCTURE) * (bank_square + STRUCTURE)).sqrt()
    correlation = (product + STRUCTURE) / scale
    difference = squares.clamp_min(0).sqrt()
    return torch.maximum(difference / DIFFERENCE, (1 - correlation) / DECORRELATION).clamp_min(0)


def _parts(
    thumbnails: Float[Tensor, "n 3 16 16"],
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 768"], Float[Tensor, " n"]]:
    """Mean of each colour, what is left without it, and its mean square."""
    mean = thumbnails.mean((-2, -1))
    rest = (thumbnails - mean[..., None, None]).flatten(1)
    return mean, rest, rest.square().mean(1)
