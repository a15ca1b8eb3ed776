"""Against the sums of the paper written as loops."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from activegen.diffusion.mean_field import DenseCRF, certain, mean_field
from activegen.records import UserError


def by_loops(probabilities: Tensor, image: Tensor, field: DenseCRF, apart: float = 1.0) -> Tensor:
    """Algorithm 1 of one picture, pair by pair; its pixels are ``apart`` pixels from each other."""
    labels, height, width = probabilities.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]

    def squared(a: tuple[int, int], b: tuple[int, int], reach: float) -> float:
        return ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) * (apart / reach) ** 2

    def colour(a: tuple[int, int], b: tuple[int, int]) -> float:
        difference = 255 * (image[:, *a] - image[:, *b]) / field.beta_rgb
        return float(difference.square().sum())

    def appearance(a: tuple[int, int], b: tuple[int, int]) -> float:
        return math.exp(-(squared(a, b, field.alpha) + colour(a, b)) / 2)

    def smoothness(a: tuple[int, int], b: tuple[int, int]) -> float:
        return math.exp(-squared(a, b, field.gamma) / 2)

    weights = {}
    for weight, kernel in ((field.appearance, appearance), (field.smoothness, smoothness)):
        sums = {a: sum(kernel(a, b) for b in pixels if b != a) for a in pixels}
        for a in pixels:
            for b in pixels:
                if a != b:
                    share = kernel(a, b) / math.sqrt(sums[a] * sums[b])
                    weights[a, b] = weights.get((a, b), 0.0) + weight * share
    now = probabilities.clone()
    for _ in range(field.iterations):
        new = torch.zeros_like(now)
        for a in pixels:
            for label in range(labels):
                lost = sum(
                    weights[a, b] * float(now[other, *b])
                    for b in pixels
                    if b != a
                    for other in range(labels)
                    if other != label
                )
                new[label, *a] = float(probabilities[label, *a]) * math.exp(-lost)
        now = new / new.sum(0, keepdim=True)
    return now


def world(height: int, width: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    probabilities = torch.rand(2, 3, height, width, generator=rng).softmax(1)
    return probabilities, torch.rand(2, 3, height, width, generator=rng) * 0.2


FIELD = DenseCRF(appearance=4, alpha=2, beta_rgb=30, smoothness=1.5, gamma=1.2, iterations=3)


def test_it_is_the_papers_algorithm():
    probabilities, images = world(3, 4)
    made = mean_field(probabilities, images, FIELD)
    for of, image, got in zip(probabilities, images, made, strict=True):
        torch.testing.assert_close(got, by_loops(of, image, FIELD), atol=1e-5, rtol=1e-4)
    assert (made - probabilities).abs().amax() > 0.05


def test_larger_pictures_keep_distances_in_their_own_pixels():
    probabilities, images = world(2, 3)
    large = [x.repeat_interleave(4, 2).repeat_interleave(4, 3) for x in (probabilities, images)]
    field = replace(FIELD, alpha=8, gamma=6, largest=3)
    made = mean_field(*large, field)
    assert made.shape == (2, 3, 8, 12)
    torch.testing.assert_close(made.sum(1), torch.ones(2, 8, 12))
    for of, image, got in zip(probabilities, images, made, strict=True):
        near = by_loops(of, image, field, apart=4)
        torch.testing.assert_close(got[:, 0, 0], near[:, 0, 0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(got[:, -1, -1], near[:, -1, -1], atol=1e-5, rtol=1e-4)


def test_an_edge_in_the_picture_draws_the_labels_to_it():
    image = torch.zeros(1, 3, 12, 12)
    image[..., 6:] = 1
    labels = torch.zeros(1, 12, 12, dtype=torch.long)
    labels[..., 8:] = 1  # two columns too late
    given = torch.nn.functional.one_hot(labels, 2).movedim(3, 1).float()
    start = certain(given, torch.ones(1, 2), 0.7)
    mended = mean_field(start, image, DenseCRF()).argmax(1)
    assert (mended[..., :6] == 0).all() and (mended[..., 6:] == 1).all()
    plain = DenseCRF(appearance=0, smoothness=0)
    torch.testing.assert_close(mean_field(start, image, plain), start)


def test_an_impossible_label_stays_impossible():
    probabilities, images = world(4, 4)
    probabilities[:, 1] = 0
    made = mean_field(probabilities / probabilities.sum(1, keepdim=True), images, FIELD)
    assert (made[:, 1] == 0).all() and made.isfinite().all()


def test_an_image_does_not_depend_on_its_batch():
    probabilities, images = world(4, 5)
    together = mean_field(probabilities, images, FIELD)
    alone = mean_field(probabilities[1:], images[1:], FIELD)
    assert torch.equal(together[1:], alone)


def test_labels_become_probabilities_of_the_possible_ones():
    given = torch.tensor([[[[1.0]], [[0.0]], [[0.0]]]] * 3)
    possible = torch.tensor([[1.0, 1, 1], [1, 1, 0], [1, 0, 0]])
    made = certain(given, possible, 0.7)[..., 0, 0]
    expected = torch.tensor([[0.7, 0.15, 0.15], [0.7, 0.3, 0], [1, 0, 0]])
    torch.testing.assert_close(made, expected)


@pytest.mark.parametrize(
    "wrong", [{"alpha": 0.0}, {"gamma": -1.0}, {"appearance": -1.0}, {"certainty": 1.0}]
)
def test_impossible_fields_are_said(wrong: dict[str, float]):
    with pytest.raises(UserError, match=r"not positive|negative weight|is certain"):
        DenseCRF(**wrong)
