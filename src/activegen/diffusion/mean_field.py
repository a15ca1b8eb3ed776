"""A dense conditional random field on the pixels of a picture: labels follow its edges.

    E(x) = sum_i -log p_i(x_i) + sum_{i<j} [x_i != x_j] k(i, j)
    k(i, j) = w_1 exp(-|p_i - p_j|² / 2 alpha² - |I_i - I_j|² / 2 beta²)
            + w_2 exp(-|p_i - p_j|² / 2 gamma²)

Its marginals by mean field, with every pair of pixels looked at, so it is exact and for small
pictures; large ones are worked on at a reduced size.

Krähenbühl & Koltun (2011), https://arxiv.org/abs/1210.5644, equations 1 to 3 and algorithm 1. Their
w_1 is our ``appearance``, w_2 ``smoothness``.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from activegen.records import Images, UserError

Size = tuple[int, int]


@dataclass(frozen=True)
class DenseCRF:
    """The field. The defaults are those of a third-party replication of attn2mask (MIT, OVAM).

    Args:
        appearance: weight of the kernel that joins near pixels of one colour.
        alpha: its reach, in pixels of the picture.
        beta_rgb: what is one colour, in levels of 0 to 255.
        smoothness: weight of the kernel that joins near pixels.
        gamma: its reach, in pixels of the picture.
        iterations: of mean field.
        certainty: probability of a given label where the field starts from labels (0.7 in IRN, Ahn
            et al. 2019, https://arxiv.org/abs/1904.05044).
        largest: longer side of the pictures that are worked on in full; larger ones are shrunk to
            it. Memory is largest^4 numbers: 67 MB for 64, 340 MB for 96.

    Raises:
        UserError: a reach that is not positive, a negative weight, or a certainty outside 0 to 1.
    """

    appearance: float = 10.0
    alpha: float = 80.0
    beta_rgb: float = 13.0
    smoothness: float = 3.0
    gamma: float = 3.0
    iterations: int = 5
    certainty: float = 0.7
    largest: int = 64

    def __post_init__(self) -> None:
        """Check the numbers."""
        positive = min(self.alpha, self.beta_rgb, self.gamma, self.largest) > 0
        if not positive or min(self.appearance, self.smoothness, self.iterations) < 0:
            raise UserError(f"{self} has a reach that is not positive, or a negative weight")
        if not 0 < self.certainty < 1:
            raise UserError(f"a label is certain to {self.certainty}; give a share within 0 and 1")


@torch.no_grad()
def mean_field(
    probabilities: Float[Tensor, "b c h w"], images: Images, field: DenseCRF
) -> Float[Tensor, "b c h w"]:
    """Marginals of the field, 0 to 1; labels of probability 0 stay impossible.

        Q_i(l) ~ p_i(l) exp( sum_{j != i} k(i, j) Q_j(l) )

    which is algorithm 1 for labels that are all equally unlike (Potts): what the others lose is
    the same constant as what this one wins. Differs from the paper in that each kernel K is divided
    by its row sums on both sides, D^-1/2 K D^-1/2, as their released code does: the usual weights
    are meant so. Larger pictures than ``field.largest`` are averaged to that size and the marginals
    interpolated back; distances stay in pixels of the picture (ours).

    Args:
        probabilities: of each label in each pixel, sums to 1.
        images: of the same size.
        field: its numbers.
    """
    size = (probabilities.shape[2], probabilities.shape[3])
    shrink = max(1.0, max(size) / field.largest)
    near = (round(size[0] / shrink), round(size[1] / shrink))
    unary, colours = (_shrunk(x.float(), near) for x in (probabilities, images))
    places = _places(near, size).to(unary.device)
    smooth = _kernel(places / field.gamma, field.smoothness)
    made = []
    for of, image in zip(unary, colours, strict=True):
        near_and_alike = torch.cat(
            [places / field.alpha, image.flatten(1).T * (255 / field.beta_rgb)], 1
        )
        kernel = _kernel(near_and_alike, field.appearance).add_(smooth)
        made.append(_marginals(of, kernel, field.iterations))
    made = torch.stack(made)
    if near == size:
        return made
    return F.interpolate(made, size, mode="bilinear")


def certain(
    labels: Float[Tensor, "b c h w"], possible: Float[Tensor, "b c"], certainty: float
) -> Float[Tensor, "b c h w"]:
    """Probabilities from labels: ``certainty`` for the given one, the rest shared by the others.

    Args:
        labels: one-hot.
        possible: 1 for the labels that an image may have, else 0.
        certainty: 0 to 1; 1 where an image has only one possible label.
    """
    others = possible.sum(1).view(-1, 1, 1, 1) - 1
    rest = (1 - certainty) / others.clamp_min(1) * (1 - labels) * possible[:, :, None, None]
    return torch.where(others > 0, certainty * labels + rest, labels)


def _shrunk(x: Tensor, size: Size) -> Tensor:
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="area")


def _marginals(
    probabilities: Float[Tensor, "c h w"], kernel: Float[Tensor, "p p"], iterations: int
) -> Float[Tensor, "c h w"]:
    unary = probabilities.flatten(1).log()
    marginals = unary.softmax(0)
    for _ in range(iterations):
        marginals = (unary + marginals @ kernel).softmax(0)
    return marginals.view_as(probabilities)


def _places(size: Size, of: Size) -> Float[Tensor, "p 2"]:
    """Rows and columns of ``size`` pixels, in those of a picture of another size."""
    rows, columns = (torch.arange(n) * (full / n) for n, full in zip(size, of, strict=True))
    return torch.cartesian_prod(rows, columns)


def _kernel(features: Float[Tensor, "p d"], weight: float) -> Float[Tensor, "p p"]:
    """weight * exp(-distance² / 2), without the diagonal, divided by row sums on both sides."""
    features = features - features.mean(0)
    half = features.square().sum(1) / 2
    kernel = (features @ features.T).sub_(half).sub_(half.unsqueeze(1)).exp_().fill_diagonal_(0)
    share = kernel.sum(1).clamp_min(1e-20).rsqrt()
    return kernel.mul_(share * weight).mul_(share.unsqueeze(1))
