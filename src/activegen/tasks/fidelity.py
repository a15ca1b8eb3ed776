"""How near generated images are to real ones, in the features of a real-trained network."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from activegen.records import UserError

NEIGHBOURS = 5


@dataclass(frozen=True)
class Fidelity:
    """All 0 to 1 but density, which may exceed 1.

    Args:
        precision: share of generated images inside the real images' neighbourhoods.
        recall: share of real images inside the generated images' neighbourhoods.
        density: how many real neighbourhoods a generated image is in, over ``k``.
        coverage: share of real images that have a generated one in their neighbourhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def fidelity(
    real: Float[Tensor, "n d"],
    generated: Float[Tensor, "m d"],
    k: int = NEIGHBOURS,
    count: int | None = None,
    seed: int = 0,
) -> Fidelity:
    """Precision, recall, density and coverage with neighbourhoods out to the k-th neighbour.

    Kynkäänniemi et al. (2019), https://arxiv.org/abs/1904.06991; Naeem et al. (2020),
    https://arxiv.org/abs/2002.09797.

    All depend on the numbers of images, coverage the most: of 1000 real images 96 generated ones
    of the same distribution cover 0.4, and 1152 cover 0.98. Figures of equal numbers alone may be
    compared, which ``count`` makes.

    Args:
        real, generated: features.
        k: neighbours.
        count: generated images that are taken, drawn by ``seed``; None takes all.
        seed: of that choice.

    Raises:
        UserError: fewer than ``k + 1`` images on either side, or fewer than ``count``.
    """
    if count is not None:
        if count > len(generated):
            raise UserError(f"{count} generated images are asked for; there are {len(generated)}")
        order = torch.randperm(len(generated), generator=torch.Generator().manual_seed(seed))
        generated = generated[order[:count].to(generated.device)]
    if min(len(real), len(generated)) <= k:
        raise UserError(f"{k} neighbours need at least {k + 1} images on either side")
    across = torch.cdist(real, generated)
    real_radius = torch.cdist(real, real).kthvalue(k + 1, dim=1).values  # the first is itself
    generated_radius = torch.cdist(generated, generated).kthvalue(k + 1, dim=1).values
    inside_real = across < real_radius[:, None]
    return Fidelity(
        precision=float(inside_real.any(0).float().mean()),
        recall=float((across < generated_radius[None, :]).any(1).float().mean()),
        density=float(inside_real.float().sum(0).mean() / k),
        coverage=float((across.min(1).values < real_radius).float().mean()),
    )


def nearest_ratio(
    generated: Float[Tensor, "m d"], held_out: Float[Tensor, "n d"], train: Float[Tensor, "t d"]
) -> float:
    """Median distance of generated images to the nearest training image, over that of real ones.

    About 1 where the generator is as far from its training images as unseen real images are;
    well below 1 where it copies them.
    """
    ours = torch.cdist(generated, train).min(1).values.median()
    theirs = torch.cdist(held_out, train).min(1).values.median()
    return float(ours / theirs)
