"""Why it helped or did not: how real, how varied, how rightly labelled, how sure.

Features are those of any network that the judged images did not train, (n, d), the same for all
that is compared; another network gives other numbers.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
)
from torchmetrics.image.kid import poly_mmd

from activegen.records import IGNORE, UserError
from activegen.tasks.evaluate import BINS
from activegen.tasks.fidelity import Fidelity, fidelity, nearest_ratio

SUBSETS, SUBSET = 100, 1000  # the usual ones


@dataclass(frozen=True)
class KernelDistance:
    """The kernel distance of generated to real images; near 0, even below, where they agree.

    Args:
        value: mean over subsets; times 1000 in many tables.
        deviation: standard deviation over subsets, of which nothing follows about other images.
    """

    value: float
    deviation: float


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy of each class, 0 to 1.

    Args:
        per_class: nan for a class without images.
        worst: the lowest.
        worst_class: its id.
    """

    per_class: tuple[float, ...]
    worst: float
    worst_class: int


@dataclass(frozen=True)
class Diversity:
    """How unlike each other the images of one class are, 0 to 2.

    Args:
        per_class: nan for a class with fewer than two images.
        mean: over the classes that have it; nan where none has.
    """

    per_class: tuple[float, ...]
    mean: float


@dataclass(frozen=True)
class Resemblance:
    """All that features tell of generated images.

    Args:
        fidelity: precision, recall, density and coverage of the held-out images.
        kid: kernel distance to the held-out images.
        nearest: distance to the nearest training image, over that of held-out ones.
        diversity: of the generated images.
        real_diversity: of the held-out ones, to compare with.
    """

    fidelity: Fidelity
    kid: KernelDistance
    nearest: float
    diversity: Diversity
    real_diversity: Diversity


@dataclass(frozen=True)
class Labelled:
    """Features of images, and their class ids."""

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]


def resemblance(
    generated: Labelled,
    held_out: Labelled,
    train: Float[Tensor, "t d"],
    classes: int,
    count: int | None = None,
) -> Resemblance:
    """Generated images beside held-out real ones and those that the generator was shown.

    Args:
        generated, held_out: of them.
        train: features of what the generator was shown.
        classes: how many there are.
        count: generated images whose fidelity is told, which depends on it; None takes all.

    Raises:
        UserError: too few images on a side.
    """
    return Resemblance(
        fidelity=fidelity(held_out.features, generated.features, count=count),
        kid=kernel_distance(held_out.features, generated.features),
        nearest=nearest_ratio(generated.features, held_out.features, train),
        diversity=diversity(generated, classes),
        real_diversity=diversity(held_out, classes),
    )


def kernel_distance(
    real: Float[Tensor, "n d"],
    generated: Float[Tensor, "m d"],
    subsets: int = SUBSETS,
    size: int = SUBSET,
    seed: int = 0,
) -> KernelDistance:
    """The unbiased squared maximum mean discrepancy with the kernel (x · y / d + 1)³.

    Bińkowski et al. (2018), https://arxiv.org/abs/1801.01401, who take the features of an
    Inception network: then it is the KID. Features go in as they are. Subsets are drawn with a
    generator of their own, of as many images as the smaller side has, ``size`` at most.

    Raises:
        UserError: fewer than two images on either side.
    """
    size = min(size, len(real), len(generated))
    if size < 2:
        raise UserError("the kernel distance needs at least 2 images on either side")
    generator = torch.Generator().manual_seed(seed)

    def some(features: Tensor) -> Tensor:
        picked = torch.randperm(len(features), generator=generator)[:size]
        return features[picked.to(features.device)].double()

    found = torch.stack([poly_mmd(some(real), some(generated)) for _ in range(subsets)])
    return KernelDistance(float(found.mean()), float(found.std(correction=0)))


def diversity(images: Labelled, classes: int) -> Diversity:
    """Mean Euclidean distance of two images of a class, features scaled to length 1.

    So neither the scale of the network nor the number of images counts. Ours; the mean pairwise
    distance within a class, with LPIPS for the distance, is common.

    Raises:
        UserError: a label that is no class.
    """
    if (
        len(images.labels)
        and not 0 <= int(images.labels.min()) <= int(images.labels.max()) < classes
    ):
        raise UserError(f"a label is not one of 0 to {classes - 1}; read the class names again")
    scaled = torch.nn.functional.normalize(images.features.double(), dim=1)
    per_class = torch.stack(
        [torch.pdist(scaled[images.labels == label]).mean() for label in range(classes)]
    )
    return Diversity(tuple(per_class.tolist()), float(per_class.nanmean()))


def calibration_error(
    probabilities: Float[Tensor, "n classes *space"], target: Integer[Tensor, "n *space"]
) -> float:
    """Expected calibration error, 0 to 1, over 15 bins of equal width, of images or of pixels.

    Guo et al. (2017), https://arxiv.org/abs/1706.04599. Pixels whose target is 255 do not count.

    Raises:
        UserError: nothing has a class.
    """
    _check_any(target)
    return float(
        multiclass_calibration_error(
            probabilities, target.long(), probabilities.shape[1], BINS, ignore_index=IGNORE
        )
    )


def class_accuracy(
    predictions: Integer[Tensor, "n *space"], target: Integer[Tensor, "n *space"], classes: int
) -> ClassAccuracy:
    """Of each class and of the worst, of images or of pixels; 255 in the target does not count.

    With a held-out model's predictions of generated images, and what was asked for as the target:
    the label fidelity.

    Raises:
        UserError: nothing has a class.
    """
    _check_any(target)
    target = target.long()
    per_class = multiclass_accuracy(
        predictions.long(), target, classes, average="none", ignore_index=IGNORE
    )
    per_class[target[target != IGNORE].bincount(minlength=classes) == 0] = torch.nan
    worst = int(per_class.nan_to_num(2.0).argmin())
    return ClassAccuracy(tuple(per_class.tolist()), float(per_class[worst]), worst)


def _check_any(target: Tensor) -> None:
    if not (target != IGNORE).any():
        raise UserError("nothing to judge: no image or pixel has a class")
