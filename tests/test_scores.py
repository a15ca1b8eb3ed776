"""Contracts over the whole table, then each score's own formula."""

import copy
import itertools
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from activegen.records import IGNORE, Prediction, Score, UnknownWord, UserError, choose
from activegen.scores import (
    SCORES,
    PerPixel,
    cross_entropy,
    disagreement,
    entropy,
    expected_model_change,
    label_margin,
    least_confidence,
    margin,
    model_change,
    per_image,
    teacher_student,
    vote_entropy,
    within,
)

SPACES = {"classification": (), "mask": (4, 3)}
every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
WIDTH = 6


def random(space: tuple[int, ...], members: int = 3, images: int = 5, classes: int = 4):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(members, images, classes, *space, generator=rng) * 2
    target = torch.randint(classes, (images, *space), generator=rng)
    return logits, target


def with_features(logits: Tensor, size: float = 1.0) -> Prediction:
    """Features that differ from pixel to pixel."""
    members, images, _, *space = logits.shape
    rng = torch.Generator().manual_seed(9)
    features = torch.randn(members, images, WIDTH, *space, generator=rng)
    return Prediction(logits, (features * size).to(logits.dtype))


@every_score
@every_space
def test_one_number_per_image_whatever_its_neighbours(score: Score, space: tuple[int, ...]):
    prediction, target = with_features(random(space)[0]), random(space)[1]
    together = score(prediction, target)
    assert together.shape == (5,)
    assert prediction.features is not None
    for i in range(5):
        one = slice(i, i + 1)
        alone = Prediction(prediction.logits[:, one], prediction.features[:, one])
        torch.testing.assert_close(score(alone, target[one]), together[one])


@every_score
@every_space
def test_the_map_has_the_space_of_the_target(score: PerPixel, space: tuple[int, ...]):
    prediction, target = with_features(random(space)[0]), random(space)[1]
    values = score.map(prediction, target)
    assert values.shape == target.shape
    if score is not model_change or not space:
        torch.testing.assert_close(per_image(values, target), score(prediction, target))
    if space:
        target[:, 1] = IGNORE
        ignored = score.map(prediction, target)
        assert (ignored[:, 1] == 0).all()
        torch.testing.assert_close(ignored[:, 2:], values[:, 2:])


@every_score
@every_space
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e4, -1e4, 30.0, 0.0])
def test_value_and_gradient_are_finite_for_certain_models(
    score: PerPixel, space: tuple[int, ...], dtype: torch.dtype, size: float
):
    for members in (1, 3):
        logits, target = random(space, members)
        logits = (logits.sign() * 0).to(dtype)
        logits[:, :, 0] = size
        logits[-1, :, 1] = -size
        logits.requires_grad_()
        for features in (0.0, 1.0, 100.0):
            prediction = with_features(logits, features)
            assert prediction.features is not None
            prediction.features.requires_grad_()
            for values in (score(prediction, target), score.map(prediction, target)):
                assert values.isfinite().all()
                assert values.dtype == torch.float32
                assert values.requires_grad == score.differentiable
                if score.differentiable:
                    inputs = (logits, prediction.features)
                    for gradient in torch.autograd.grad(values.sum(), inputs, allow_unused=True):
                        assert gradient is None or gradient.isfinite().all()


@every_score
def test_ignored_pixels_do_not_count(score: PerPixel):
    logits, target = random((4, 3))
    target[:, :2] = IGNORE
    other = logits.clone()
    other[..., :2, :] = other[..., :2, :].flip(2) * 50
    logits.requires_grad_()
    prediction = with_features(logits)
    assert prediction.features is not None
    values = score(prediction, target)
    torch.testing.assert_close(values, score(Prediction(other, prediction.features), target))
    rest = Prediction(logits[..., 2:, :], prediction.features[..., 2:, :])
    torch.testing.assert_close(values, score(rest, target[:, 2:]))
    if score.differentiable:
        (gradient,) = torch.autograd.grad(values.sum(), logits)
        assert (gradient[..., :2, :] == 0).all()


@every_score
def test_an_image_without_a_counted_pixel_scores_zero(score: Score):
    logits, target = random((4, 3))
    assert (score(with_features(logits), torch.full_like(target, IGNORE)) == 0).all()


@every_score
def test_class_255_of_a_classifier_is_a_class(score: PerPixel):
    logits = torch.zeros(1, 1, 300)
    logits[0, 0, 255] = 5.0
    logits[0, 0, 0] = -5.0
    of_255 = score(with_features(logits), torch.tensor([255]))
    moved = with_features(logits.roll(1, dims=2))
    torch.testing.assert_close(of_255, score(moved, torch.tensor([256])))
    torch.testing.assert_close(of_255, score.map(moved, torch.tensor([256])))


@every_score
def test_a_target_of_another_size_is_told(score: PerPixel):
    logits, target = random((4, 3))
    for ask in (score, score.map):
        with pytest.raises(
            UserError, match=r"answers at size \(4, 3\) and the target has \(4, 2\)"
        ):
            ask(with_features(logits), target[..., :2])


def test_within_a_region():
    target = torch.tensor([[[0, 1], [2, IGNORE]]])
    region = torch.tensor([[[[1.0, 0.5], [0.4, 1.0]]]])
    assert within(target, region).tolist() == [[[0, 1], [IGNORE, IGNORE]]]
    assert target.tolist() == [[[0, 1], [2, IGNORE]]]
    with pytest.raises(UserError, match="no place in the picture"):
        within(torch.tensor([1]), region)


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


def test_entropy_from_the_logits():
    """H = logsumexp(z) - sum p z."""
    logits, target = random((), members=1)
    z = logits[0].double()
    expected = z.logsumexp(1) - (z.softmax(1) * z).sum(1)
    torch.testing.assert_close(entropy(Prediction(logits), target), expected.float())


def test_the_last_member_teaches():
    p = torch.tensor([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])  # two students, and a teacher
    logits, zero = p.log().unsqueeze(1), torch.tensor([0])
    value = teacher_student(Prediction(logits), zero)
    torch.testing.assert_close(value, torch.tensor([math.log(0.9) - math.log(0.4)]))
    torch.testing.assert_close(teacher_student(Prediction(logits[:1]), zero), torch.zeros(1))
    lost = torch.tensor([[[-5.0, 5.0]], [[5.0, -5.0]]])  # beyond the cap of the student
    value = teacher_student(Prediction(lost), zero)
    torch.testing.assert_close(value, torch.tensor([2.3]), atol=1e-3, rtol=0)


def test_votes_by_hand():
    votes = torch.tensor([[0, 0], [0, 1], [0, 1], [0, 2]])  # (members, images)
    logits = 5.0 * F.one_hot(votes, 4).float()
    values = vote_entropy(Prediction(logits), torch.tensor([0, 0]))
    expected = 2 * 0.25 * math.log(4) + 0.5 * math.log(2)
    torch.testing.assert_close(values, torch.tensor([0.0, expected]))
    assert not vote_entropy.differentiable
    assert all(s.differentiable for s in SCORES.values() if s is not vote_entropy)


def head(space: tuple[int, ...], members: int = 2, images: int = 3, classes: int = 4):
    """Features, and the logits that linear heads (1x1 convolutions) with a bias make of them."""
    rng = torch.Generator().manual_seed(3)
    features = torch.randn(members, images, WIDTH, *space, generator=rng)
    weights = torch.randn(members, classes, WIDTH, generator=rng) / 2
    biases = torch.randn(members, classes, generator=rng) / 2
    target = torch.randint(classes, (images, *space), generator=rng)
    return features, weights.requires_grad_(), biases.requires_grad_(), target


def logits_of(features: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    flat = torch.einsum("mkd,mbdn->mbkn", weights, features.unsqueeze(-1).flatten(3))
    flat = flat + biases[:, None, :, None]
    return flat.reshape(*flat.shape[:3], *features.shape[3:])


def lengths(logits: Tensor, target: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """Of the gradient of each image's mean cross-entropy, by autograd; (members, b)."""
    rows = []
    for of_member, member in zip(logits, range(len(logits)), strict=True):
        row = []
        for one, wanted in zip(of_member, target, strict=True):
            loss = F.cross_entropy(one[None], wanted[None], ignore_index=-100)
            found = torch.autograd.grad(loss, (weights, biases), retain_graph=True)
            row.append(torch.cat([g[member].flatten() for g in found]).norm())
        rows.append(torch.stack(row))
    return torch.stack(rows)


@every_space
def test_model_change_is_the_length_of_the_last_layers_gradient(space: tuple[int, ...]):
    features, weights, biases, target = head(space)
    logits = logits_of(features, weights, biases)
    expected = lengths(logits, target, weights, biases).mean(0)
    prediction = Prediction(logits, features)
    torch.testing.assert_close(model_change(prediction, target), expected)
    bound = per_image(model_change.map(prediction, target), target)
    assert (bound >= expected - 1e-6).all()


def test_pixels_that_pull_in_opposite_directions_cancel():
    features = torch.ones(1, 1, 2, 1, 2)
    logits = torch.zeros(1, 1, 2, 1, 2)
    opposite = torch.tensor([[[0, 1]]])
    prediction = Prediction(logits, features)
    assert model_change(prediction, opposite) == pytest.approx(0.0, abs=1e-6)
    assert model_change(prediction, torch.zeros_like(opposite)) == pytest.approx(1.5**0.5)
    torch.testing.assert_close(
        model_change.map(prediction, opposite), torch.full((1, 1, 2), 1.5**0.5)
    )


def test_expected_model_change_is_the_expectation_over_labels():
    """Of a class: the mean square of autograd's lengths over all labels, weighed by p."""
    features, weights, biases, _ = head((), members=2, images=1)
    logits = logits_of(features, weights, biases)
    p = logits.softmax(2)
    squares = torch.zeros(2)
    for label in range(4):
        length = lengths(logits, torch.tensor([label]), weights, biases)[:, 0]
        squares = squares + p[:, 0, label] * length**2
    expected = squares.sqrt().mean()
    value = expected_model_change(Prediction(logits, features), torch.tensor([0]))
    torch.testing.assert_close(value, expected[None])
    gini = sum(p[..., y] * (p - F.one_hot(torch.tensor(y), 4)).square().sum(2) for y in range(4))
    torch.testing.assert_close(gini, 1 - p.square().sum(2))


def test_squares_of_the_map_add_up_to_that_of_the_image():
    """E||G||² = 1/N² sum_u E||g_u||² for independent labels, by going through all of them."""
    features, weights, biases, _ = head((1, 2), members=1, images=1, classes=3)
    logits = logits_of(features, weights, biases)
    p = logits.softmax(2)[0, 0]
    expected = torch.zeros(())
    for first, second in itertools.product(range(3), repeat=2):
        target = torch.tensor([[[first, second]]])
        length = lengths(logits, target, weights, biases)[0, 0]
        expected = expected + p[first, 0, 0] * p[second, 0, 1] * length**2
    found = expected_model_change.map(Prediction(logits, features), torch.zeros_like(target))
    torch.testing.assert_close(found.square().sum() / 4, expected)


def given(logits: Tensor, features: Tensor | None) -> Prediction:
    """Whatever the shape of the features, as where nobody checks shapes."""
    prediction = Prediction(logits)
    object.__setattr__(prediction, "features", features)
    return prediction


def test_smaller_features_are_resized_as_the_network_resizes_its_logits():
    features, weights, biases, target = head((2, 3))
    logits = logits_of(features, weights, biases)
    large = F.interpolate(logits.flatten(0, 1), (4, 6), mode="bilinear")
    large = large.unflatten(0, logits.shape[:2])
    target = target.repeat_interleave(2, 1).repeat_interleave(2, 2)
    expected = lengths(large, target, weights, biases).mean(0)
    torch.testing.assert_close(model_change(given(large, features), target), expected)


@pytest.mark.parametrize("score", [model_change, expected_model_change])
def test_model_change_needs_features_that_fit(score: Score):
    logits, target = random((4, 3))
    for features in (None, torch.zeros(3, 5, 6), torch.zeros(2, 5, 6, 4, 3)):
        with pytest.raises(UserError, match="inputs of the task model's last layer"):
            score(given(logits, features), target)


def test_names_are_the_functions_and_unknown_ones_are_answered():
    for name, score in SCORES.items():
        assert choose(SCORES, name, "score") is score
        assert score.__name__ == name and name in repr(score)
        assert isinstance(score, Score)
        assert pickle.loads(pickle.dumps(score)) is score is copy.deepcopy(score)
    with pytest.raises(UnknownWord, match="entropy, expected_model_change, label_margin"):
        choose(SCORES, "enthropy", "score")
