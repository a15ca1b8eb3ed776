"""Contracts over the whole table, then each score's own formula."""

import math

import pytest
import torch

from activegen.records import IGNORE, Prediction, Score, UnknownWord, UserError, choose
from activegen.scores import (
    SCORES,
    cross_entropy,
    disagreement,
    entropy,
    label_margin,
    least_confidence,
    margin,
)

SPACES = {"classification": (), "mask": (4, 3)}
every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


def random(space: tuple[int, ...], members: int = 3, images: int = 5, classes: int = 4):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(members, images, classes, *space, generator=rng) * 2
    target = torch.randint(classes, (images, *space), generator=rng)
    return logits, target


@every_score
@every_space
def test_one_number_per_image_whatever_its_neighbours(score: Score, space: tuple[int, ...]):
    logits, target = random(space)
    together = score(Prediction(logits), target)
    assert together.shape == (5,)
    for i in range(5):
        alone = score(Prediction(logits[:, i : i + 1]), target[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1])


@every_score
@every_space
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e4, -1e4, 30.0, 0.0])
def test_value_and_gradient_are_finite_for_certain_models(
    score: Score, space: tuple[int, ...], dtype: torch.dtype, size: float
):
    for members in (1, 3):
        logits, target = random(space, members)
        logits = (logits.sign() * 0).to(dtype)
        logits[:, :, 0] = size
        logits[-1, :, 1] = -size
        logits.requires_grad_()
        values = score(Prediction(logits), target)
        (gradient,) = torch.autograd.grad(values.sum(), logits)
        assert values.isfinite().all()
        assert gradient.isfinite().all()
        assert values.dtype == torch.float32


@every_score
def test_ignored_pixels_do_not_count(score: Score):
    logits, target = random((4, 3))
    target[:, :2] = IGNORE
    other = logits.clone()
    other[..., :2, :] = other[..., :2, :].flip(2) * 50
    logits.requires_grad_()
    values = score(Prediction(logits), target)
    torch.testing.assert_close(values, score(Prediction(other), target))
    torch.testing.assert_close(values, score(Prediction(logits[..., 2:, :]), target[:, 2:]))
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert (gradient[..., :2, :] == 0).all()


@every_score
def test_an_image_without_a_counted_pixel_scores_zero(score: Score):
    logits, target = random((4, 3))
    assert (score(Prediction(logits), torch.full_like(target, IGNORE)) == 0).all()


@every_score
def test_class_255_of_a_classifier_is_a_class(score: Score):
    logits = torch.zeros(1, 1, 300)
    logits[0, 0, 255] = 5.0
    logits[0, 0, 0] = -5.0
    of_255 = score(Prediction(logits), torch.tensor([255]))
    moved = logits.roll(1, dims=2)
    torch.testing.assert_close(of_255, score(Prediction(moved), torch.tensor([256])))


@every_space
@pytest.mark.parametrize("score", [entropy, least_confidence, margin, cross_entropy, label_margin])
def test_uncertain_is_more_informative_than_certain(score: Score, space: tuple[int, ...]):
    logits = torch.zeros(1, 2, 3, *space)
    logits[:, 1, 0] = 5.0
    uncertain, certain = score(Prediction(logits), torch.zeros(2, *space, dtype=torch.long))
    assert uncertain > certain


def test_members_that_differ_are_more_informative_than_members_that_agree():
    logits = torch.zeros(2, 2, 3)
    logits[:, 0, 0] = 5.0
    logits[0, 1, 0] = logits[1, 1, 1] = 5.0
    agree, differ = disagreement(Prediction(logits), torch.zeros(2, dtype=torch.long))
    assert differ > agree + 0.5


def test_entropy_is_minus_sum_p_log_p_of_the_mean_probabilities():
    logits, target = random(())
    p = logits.double().softmax(2).mean(0)
    expected = -(p * p.log()).sum(1)
    torch.testing.assert_close(entropy(Prediction(logits), target), expected.float())
    uniform = entropy(Prediction(torch.zeros(1, 1, 7)), torch.zeros(1, dtype=torch.long))
    assert uniform.item() == pytest.approx(math.log(7))


def test_disagreement_is_the_mean_divergence_to_the_consensus():
    logits, target = random((4, 3))
    p = logits.double().softmax(2)
    mean = p.mean(0)
    divergence = (p * (p.log() - mean.log())).sum(2).mean(0).flatten(1).mean(1)
    torch.testing.assert_close(disagreement(Prediction(logits), target), divergence.float())


@every_space
def test_one_member_does_not_disagree(space: tuple[int, ...]):
    logits, target = random(space, members=1)
    assert disagreement(Prediction(logits), target).abs().max() < 1e-6


def test_margins_by_hand():
    logits = torch.tensor([[[0.7, 0.2, 0.1], [0.5, 0.5, 1e-9]]]).log()
    target = torch.tensor([0, 2])
    prediction = Prediction(logits)
    torch.testing.assert_close(margin(prediction, target), torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(least_confidence(prediction, target), torch.tensor([0.3, 0.5]))
    expected = torch.tensor([math.log(0.2 / 0.7), math.log(0.5 / 1e-9)])
    torch.testing.assert_close(label_margin(prediction, target), expected)
    torch.testing.assert_close(
        cross_entropy(prediction, target), torch.tensor([-math.log(0.7), -math.log(1e-9)])
    )


def test_two_classes_have_a_margin_and_one_class_has_none():
    logits = torch.tensor([[[0.75, 0.25]]]).log()
    zero = torch.tensor([0])
    torch.testing.assert_close(margin(Prediction(logits), zero), torch.tensor([0.5]))
    torch.testing.assert_close(
        label_margin(Prediction(logits), zero), torch.tensor([-math.log(3.0)])
    )
    for score in (margin, label_margin):
        with pytest.raises(UserError, match="two classes"):
            score(Prediction(logits[..., :1]), zero)


def test_label_margin_is_positive_when_misclassified():
    logits, target = random((), members=1, images=50)
    wrong = logits[0].argmax(1) != target
    assert ((label_margin(Prediction(logits), target) > 0) == wrong).all()
    assert wrong.any() and not wrong.all()


def test_names_are_the_functions_and_unknown_ones_are_answered():
    for name, score in SCORES.items():
        assert choose(SCORES, name, "score") is score
        assert getattr(score, "__name__", "") == name
    with pytest.raises(UnknownWord, match="entropy, label_margin"):
        choose(SCORES, "enthropy", "score")
