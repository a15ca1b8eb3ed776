import math

import pytest
import torch

from activegen.records import IGNORE
from activegen.tasks.losses import (
    LOSSES,
    bootstrapped,
    cross_entropy,
    generalised,
    mean_of_pixels,
    symmetric,
)

RNG = torch.Generator().manual_seed(0)
LOGITS = torch.randn(2, 3, 4, 5, generator=RNG)
MASKS = torch.randint(0, 3, (2, 4, 5), generator=RNG).to(torch.uint8)
ODDS = torch.tensor([[0.7, 0.2, 0.1]]).log()  # of one image


def test_closed_forms():
    own = torch.tensor([1])
    assert cross_entropy(ODDS, own).item() == pytest.approx(-math.log(0.2), abs=1e-6)
    assert generalised(ODDS, own).item() == pytest.approx((1 - 0.2**0.7) / 0.7, abs=1e-6)
    reverse = -0.7 * -4 - 0.1 * -4  # -sum of p * log(label), where log 0 is -4
    expected = -0.1 * math.log(0.2) + reverse
    assert symmetric(ODDS, own).item() == pytest.approx(expected, abs=1e-6)
    expected = -0.8 * math.log(0.2) - 0.2 * math.log(0.7)
    assert bootstrapped(ODDS, own).item() == pytest.approx(expected, abs=1e-6)
    smooth = -0.7 * math.log(0.2) - 0.1 * math.log(0.7 * 0.2 * 0.1)
    assert cross_entropy(ODDS, own, smoothing=0.3).item() == pytest.approx(smooth, abs=1e-6)


def test_the_generalised_one_lies_between_cross_entropy_and_absolute_error():
    labels = torch.tensor([2])
    limit = generalised(ODDS, labels, q=1e-5)
    assert torch.allclose(limit, cross_entropy(ODDS, labels), rtol=1e-4)
    assert generalised(ODDS, labels, q=1.0).item() == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_one_number_per_pixel_and_none_where_ignored(name):
    masks = MASKS.clone()
    masks[0, :2] = IGNORE
    logits = LOGITS.clone().requires_grad_()
    losses = LOSSES[name](logits, masks)
    assert losses.shape == masks.shape and losses.dtype == torch.float32
    assert (losses[0, :2] == 0).all() and (losses[masks != IGNORE] > 0).all()
    losses.sum().backward()
    assert (logits.grad[0, :, :2] == 0).all() and (logits.grad[1] != 0).any()
    alone = LOSSES[name](LOGITS[:, :, 3, 4], masks[:, 3, 4].long())
    assert torch.allclose(alone, losses[:, 3, 4])


@pytest.mark.parametrize("name", LOSSES)
def test_the_class_255_of_a_picture_counts(name):
    logits = torch.zeros(1, 300)
    assert LOSSES[name](logits, torch.tensor([IGNORE])).item() > 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_where_the_model_is_certain(name, dtype):
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [0.0, 0.0, 0.0]], dtype=dtype)
    logits.requires_grad_()
    losses = LOSSES[name](logits, torch.zeros(3, dtype=torch.long))
    losses.sum().backward()
    assert losses.dtype == torch.float32 and losses.isfinite().all()
    assert logits.grad.isfinite().all()
    assert losses[0] < 1e-6 < losses[2] < losses[1]


@pytest.mark.parametrize("name", set(LOSSES) - {"cross_entropy"})
def test_robust_losses_grow_less_with_a_wrong_label(name):
    def pull(loss):
        logits = torch.tensor([[4.0, -4.0]], requires_grad=True)
        loss(logits, torch.tensor([1])).backward()
        return logits.grad.abs().sum()

    assert pull(LOSSES[name]) < 0.9 * pull(cross_entropy)


def test_the_mean_is_of_the_pixels_that_count():
    losses = torch.tensor([[[1.0, 2.0], [3.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    masks = torch.tensor([[[0, 1], [1, IGNORE]], [[IGNORE] * 2] * 2])
    assert mean_of_pixels(losses, masks).tolist() == [2.0, 0.0]
    weights = torch.tensor([[1.0, 0.5], [0.0, 1.0]]).expand(2, 2, 2)
    assert mean_of_pixels(losses, masks, weights).tolist() == pytest.approx([2 / 3, 0.0])
    assert mean_of_pixels(losses[0, 0], torch.tensor([0, 1])).tolist() == [1.0, 2.0]
