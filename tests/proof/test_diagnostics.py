import math

import pytest
import torch
from torchmetrics.image.kid import KernelInceptionDistance

from activegen.proof.diagnostics import (
    Labelled,
    calibration_error,
    class_accuracy,
    diversity,
    kernel_distance,
    resemblance,
)
from activegen.records import UserError


def cloud(seed, count=300, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator) * scale + shift


def test_kernel_distance_by_hand():
    real, generated = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [-1.0]])
    # k(1, 0) = k(0, -1) = 1; across: k(1, 0) = 1, k(1, -1) = 0, k(0, 0) = 1, k(0, -1) = 1
    found = kernel_distance(real, generated)
    assert found.value == pytest.approx(1 + 1 - 2 * 3 / 4)
    assert found.deviation == pytest.approx(0, abs=1e-12)


def test_kernel_distance_is_unbiased():
    small = [kernel_distance(cloud(i, 40), cloud(i + 1000, 40), 1).value for i in range(200)]
    scatter = torch.tensor(small).std() / math.sqrt(200)
    assert abs(sum(small) / 200) < 3 * scatter
    assert min(small) < 0
    assert kernel_distance(cloud(0), cloud(1, shift=1)).value > 100 * scatter


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kernel_distance_is_the_kid_of_torchmetrics():
    theirs = KernelInceptionDistance(torch.nn.Identity(), subsets=1, subset_size=50)
    theirs.update(cloud(0, 50).double(), real=True)
    theirs.update(cloud(1, 50, 2.0).double(), real=False)
    found = kernel_distance(cloud(0, 50), cloud(1, 50, 2.0), subsets=3)
    assert found.value == pytest.approx(float(theirs.compute()[0]), rel=1e-9)


def test_subsets_are_drawn_by_the_seed_alone():
    sides = cloud(0), cloud(1, 200)
    state = torch.get_rng_state()
    found = kernel_distance(*sides, size=50)
    assert torch.equal(torch.get_rng_state(), state)
    assert found == kernel_distance(*sides, size=50) != kernel_distance(*sides, size=50, seed=1)
    assert found.deviation > 0


def test_diversity_by_hand():
    features = torch.tensor(
        [[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [5.0, 5.0], [9.0, 9.0], [1.0, 0.0]]
    )
    found = diversity(Labelled(features, torch.tensor([0, 0, 0, 1, 1, 3])), 4)
    assert found.per_class[0] == pytest.approx((2 * math.sqrt(2) + 2) / 3)
    assert found.per_class[1] == pytest.approx(0, abs=1e-7)
    assert math.isnan(found.per_class[2]) and math.isnan(found.per_class[3])
    assert found.mean == pytest.approx(found.per_class[0] / 2)


def test_diversity_depends_neither_on_scale_nor_on_number():
    labels = torch.zeros(300, dtype=torch.long)
    whole = diversity(Labelled(cloud(0), labels), 1).mean
    assert diversity(Labelled(cloud(0) * 7, labels), 1).mean == pytest.approx(whole)
    assert diversity(Labelled(cloud(1, 60), labels[:60]), 1).mean == pytest.approx(whole, rel=0.05)
    assert diversity(Labelled(cloud(0, shift=3), labels), 1).mean < 0.5 * whole


def test_calibration_by_hand():
    probabilities = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.3, 0.7], [0.8, 0.2]])
    target = torch.tensor([0, 1, 1, 0])
    # three of confidence 0.8, two right; one of 0.7, right
    assert calibration_error(probabilities, target) == pytest.approx((0.4 + 0.3) / 4, abs=1e-6)


def test_calibration_of_pixels_leaves_ignored_ones_out():
    confident = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).expand(1, 2, 2, 5)
    target = torch.zeros(1, 2, 5, dtype=torch.long)
    target[0, 1] = 255
    target[0, 0, 0] = 1
    assert calibration_error(confident, target) == pytest.approx(0.1, abs=1e-6)


def test_classes_and_the_worst_of_them():
    target = torch.tensor([[0, 0, 0, 1], [1, 255, 255, 0]])
    predictions = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0]])
    found = class_accuracy(predictions, target, 3)
    assert found.per_class[:2] == pytest.approx((3 / 4, 1 / 2)) and math.isnan(found.per_class[2])
    assert (found.worst, found.worst_class) == (0.5, 1)


def test_all_that_features_tell():
    labels = torch.arange(300) % 3
    train = cloud(9)
    copies, honest = Labelled(train + 0.001, labels), Labelled(cloud(2), labels)
    held_out = Labelled(cloud(3), labels)
    copied, drawn = (resemblance(one, held_out, train, 3) for one in (copies, honest))
    assert copied.nearest < 0.05 < 0.8 < drawn.nearest
    assert drawn.fidelity.coverage > 0.8
    assert drawn.real_diversity.mean == pytest.approx(drawn.diversity.mean, rel=0.1)
    assert abs(drawn.kid.value) < kernel_distance(held_out.features, cloud(2, shift=1)).value / 5


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: kernel_distance(cloud(0, 1), cloud(1)), "at least 2"),
        (lambda: diversity(Labelled(cloud(0, 2), torch.tensor([0, 5])), 3), "0 to 2"),
        (lambda: calibration_error(torch.ones(1, 2), torch.tensor([255])), "nothing to judge"),
        (lambda: class_accuracy(torch.ones(1).long(), torch.tensor([255]), 3), "nothing to judge"),
    ],
)
def test_what_cannot_be_told(call, told):
    with pytest.raises(UserError, match=told):
        call()
