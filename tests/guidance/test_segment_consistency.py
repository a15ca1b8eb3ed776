import pytest
import torch
from torch import Tensor

from activegen.guidance import SegmentConsistency
from activegen.records import IGNORE, Prediction, UnknownWord, UserError
from activegen.tasks.committee import Committee
from guidance import seams


def scene():
    """Random colours; three segments of different sizes, and pixels without a label."""
    rng = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, 6, 5, generator=rng)
    target = torch.tensor([0, 0, 0, 2, 7, IGNORE])[torch.randint(6, (2, 6, 5), generator=rng)]
    return clean, target


def pairwise(p: Tensor, target: Tensor, kind: str) -> Tensor:
    """Of one image, over all ordered pairs, pixels (n, classes); segments count by their size."""
    total = torch.zeros((), dtype=p.dtype)
    for segment in set(target.tolist()) - {IGNORE}:
        inside = p[target == segment]
        for u in inside:
            for v in inside:
                square, divergence = (u - v).square().sum(), (u * (u.log() - v.log())).sum()
                total += (square if kind == "mse" else divergence) / len(inside)
    return -total / (target != IGNORE).sum()


@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_it_is_the_mean_over_pairs(kind):
    clean, target = scene()
    task = Committee((seams.Pixels(4.0), seams.Pixels(8.0)))
    value = SegmentConsistency(task, kind).value(seams.estimate(clean, target))
    p = task.predict(clean).logits.softmax(2).mean(0).double()
    for image in range(2):
        pixels = p[image].flatten(1).T
        expected = pairwise(pixels, target[image].flatten(), kind)
        torch.testing.assert_close(value[image], expected.float(), rtol=1e-4, atol=1e-5)
    assert (value < -0.01).all()


@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_an_image_does_not_depend_on_its_neighbours(kind):
    clean, target = scene()
    target[1][target[1] == 7] = 1
    objective = SegmentConsistency(seams.Pixels(), kind)
    together = objective.value(seams.estimate(clean, target))
    for i in range(2):
        alone = objective.value(seams.estimate(clean[i : i + 1], target[i : i + 1]))
        torch.testing.assert_close(alone, together[i : i + 1])


@pytest.mark.parametrize("kind", ["mse", "kl"])
def test_segments_of_one_colour_are_consistent_whatever_the_others_are(kind):
    target = torch.tensor([[[0, 0, 1, IGNORE]]])
    clean = torch.tensor([0.1, 0.1, 0.9, 0.5]).view(1, 1, 1, 4).repeat(1, 3, 1, 1)
    clean[:, 0] *= 0.5
    objective = SegmentConsistency(seams.Pixels(), kind)
    estimate = seams.estimate(clean, target)
    assert objective.value(estimate) == pytest.approx(0.0, abs=1e-5)
    merged = seams.estimate(clean, torch.zeros_like(target))
    assert objective.value(merged) < -0.01
    nothing = seams.estimate(clean, torch.full_like(target, IGNORE))
    assert objective.value(nothing) == 0


@pytest.mark.parametrize("kind", ["mse", "kl"])
@pytest.mark.parametrize("size", [1e4, 30.0, 0.0])
def test_value_and_gradient_are_finite_for_certain_models(kind, size):
    class Certain:
        def predict(self, images: Tensor) -> Prediction:
            signs = torch.where(images[:, :1] > 0.5, 1.0, -1.0) + 1e-3 * images
            return Prediction((signs * torch.tensor([size, -size, 0]).view(1, 3, 1, 1))[None])

    clean, target = scene()
    clean.requires_grad_()
    value = SegmentConsistency(Certain(), kind).value(seams.estimate(clean, target))
    (gradient,) = torch.autograd.grad(value.sum(), clean)
    assert value.isfinite().all() and gradient.isfinite().all()


def test_what_it_cannot_do_is_told():
    with pytest.raises(UserError, match="no segments"):
        SegmentConsistency(seams.Pixels()).value(seams.estimate(torch.rand(1, 3, 4, 4), [0]))
    with pytest.raises(UnknownWord, match="Did you mean 'mse'"):
        seams.checked_with(SegmentConsistency(seams.Pixels()), kind="msse")
