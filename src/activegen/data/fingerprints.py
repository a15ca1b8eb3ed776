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
STRUCTURE = (0.5 / 255) ** 2  # variance of light; far below, a thumbnail is flat
LIGHT = (0.299, 0.587, 0.114)  # of red, green and blue, as JPEG has it
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

    for the best of the query's eight flips and turns. ``rms`` is over all values. ``correlation``
    is of the light without its mean, since JPEG keeps little of the structure of colour; what is
    weaker than half an 8-bit level is no structure, so two flat images of one colour are alike, and
    two quiet ones with structures of their own are not. 0 is a copy. An empty bank is infinitely
    far, at -1.
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
    difference = _rms(query.flatten(1), bank.flatten(1))
    query_light, bank_light = _light(query), _light(bank)
    product = query_light @ bank_light.T / SIDE**2 + STRUCTURE
    query_square, bank_square = (
        light.square().mean(1) + STRUCTURE for light in (query_light, bank_light)
    )
    correlation = product / (query_square[:, None] * bank_square).sqrt()
    return torch.maximum(difference / DIFFERENCE, (1 - correlation) / DECORRELATION)


def _rms(query: Float[Tensor, "q d"], bank: Float[Tensor, "b d"]) -> Float[Tensor, "q b"]:
    """Root mean square of each difference, through one product of matrices."""
    centre = bank.mean(0)  # small numbers lose less when they are squared
    query, bank = query - centre, bank - centre
    squares = query.square().sum(1)[:, None] + bank.square().sum(1) - 2 * query @ bank.T
    return (squares.clamp_min(0) / query.shape[1]).sqrt()


def _light(thumbnails: Float[Tensor, "n 3 16 16"]) -> Float[Tensor, "n 256"]:
    """Light without its mean."""
    light = torch.einsum("nchw,c->nhw", thumbnails, thumbnails.new_tensor(LIGHT)).flatten(1)
    return light - light.mean(1, keepdim=True)
