"""Two segmenters on scenes of red and green, whose classes are colours."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from activegen.records import IGNORE, TaskModel, UserError
from activegen.tasks.co_training import (
    Belief,
    CoLearner,
    CoTraining,
    Pair,
    boundary,
    co_training_loss,
    mix,
    partners,
    pieces,
)
from activegen.tasks.evaluate_masks import evaluate_masks
from activegen.tasks.learner import Learner, TrainSettings, weights_hash
from activegen.tasks.losses import LOSSES, generalised
from activegen.tasks.pool import Pool
from activegen.tasks.seeding import seeded
from activegen.tasks.segmenter import Segmenter

SETTINGS = TrainSettings(
    8, 6, "adamw", learning_rate=0.01, teach_from=0.25, augmentation="street", ema_decay=0.9
)


def network(seed, classes=2):
    with seeded(seed):
        layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
        layers += [nn.Dropout(0.1), nn.Conv2d(16, classes, 1)]
        return Segmenter(nn.Sequential(*layers), classes, (16, 16), multiple=1)


def pair(seed=0):
    return Pair(network(seed), network(seed + 1000)).eval()


def scenes(count, seed=0, flipped=0.0, told=0.9):
    """Patches of two colours; some pixels have the wrong label, most of which are told."""
    rng = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 2, (count, 4, 4), generator=rng)
    masks = masks.repeat_interleave(4, 1).repeat_interleave(4, 2).to(torch.uint8)
    images = torch.rand(count, 3, 16, 16, generator=rng) * 0.5
    images[:, 0] += (masks == 0) * 0.4
    images[:, 1] += (masks == 1) * 0.4
    wrong = torch.rand(masks.shape, generator=rng) < flipped
    known = (torch.rand(masks.shape, generator=rng) < told) == wrong
    return Pool(
        (images * 255).to(torch.uint8),
        torch.where(wrong, 1 - masks, masks),
        torch.ones(count),
        torch.ones(count).bool(),
        (~known).to(torch.uint8) * 255,
    )


def maps(*rows):
    return torch.tensor([rows])


def of_odds(*rows):
    """Logits of two classes, from the probability of the second."""
    p = torch.tensor([rows])
    return torch.stack([(1 - p).log(), p.log()], 1)


def test_the_loss_by_hand():
    logits = torch.stack([of_odds([0.2, 0.6], [0.7, 0.9]), of_odds([0.4, 0.9], [0.3, 0.9])])
    labels = maps([0, 1], [0, IGNORE])
    sure = maps([255, 255], [0, 0]).to(torch.uint8)
    edges = maps([True, False], [True, True])
    first = -1.2 * (math.log(0.8) + math.log(0.6))  # reliable, on an edge
    second = -math.log(0.6) - math.log(0.9)  # reliable
    third = -math.log(0.3) - math.log(0.3)  # each has the other's answer, and no edge
    expected = (first + second + third) / 3
    assert co_training_loss(logits, labels, sure, edges).item() == pytest.approx(expected, abs=1e-6)
    robust = co_training_loss(logits, labels, sure, ~edges, 1.0, generalised).item()
    terms = [(1 - p**0.7) / 0.7 for p in (0.8, 0.6, 0.6, 0.9, 0.3, 0.3)]
    assert robust == pytest.approx((sum(terms) + sum(terms[2:4])) / 3, abs=1e-6)


def test_answers_of_the_other_have_no_gradient():
    logits = torch.zeros(2, 1, 2, 1, 1, requires_grad=True)
    with torch.no_grad():
        logits[1, 0, 1] = 2.0
    unsure = torch.zeros(1, 1, 1, dtype=torch.uint8)
    losses = co_training_loss(logits, maps([0]), unsure, unsure > 0)
    losses.sum().backward()
    # the first learns class 1, the second class 0, each as if the other were a constant
    p = torch.tensor([0.0, 2.0]).softmax(0)
    expected = torch.stack([torch.tensor([0.5, -0.5]), p - torch.tensor([1.0, 0.0])])
    assert torch.allclose(logits.grad.flatten(1), expected, atol=1e-6)


def test_the_boundary_of_a_square():
    square = torch.zeros(1, 9, 9, dtype=torch.bool)
    square[0, 3:6, 3:6] = True
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[2:7, 2:7] = True
    expected[4, 4] = False
    assert torch.equal(boundary(square)[0], expected)
    assert not boundary(torch.ones(1, 5, 5, dtype=torch.bool)).any()  # the image ends there


def test_half_of_the_classes_are_taken():
    labels = torch.arange(5, dtype=torch.uint8).view(1, 1, 5).expand(64, 4, 5)
    places = torch.ones(64, 4, 5, dtype=torch.bool)
    places[:, 0] = False
    places[:, :, 4] = False
    with seeded(0):
        taken = pieces(labels, places, frozenset({0}))
    columns = taken.any(1)
    assert not taken[:, 0].any() and not columns[:, 0].any() and not columns[:, 4].any()
    assert torch.equal(taken[:, 1:], columns[:, None].expand(-1, 3, -1))
    assert (columns.sum(1) == 2).all()  # of three, rounded up
    assert columns[:, 1:4].float().mean(0).min() > 0.5
    assert not pieces(labels, places & False, frozenset()).any()


def test_a_mixed_image_is_what_both_networks_see_everywhere():
    images = torch.arange(3).view(3, 1, 1, 1).expand(3, 3, 2, 2) / 4.0
    given = Belief(torch.full((3, 2, 2), 7), torch.ones(3, 2, 2, dtype=torch.bool))
    seen = torch.arange(12).view(3, 2, 2)
    shown = Belief(seen, seen % 2 == 0)
    pasted = torch.zeros(3, 2, 2, dtype=torch.bool)
    pasted[0, 0, 0] = pasted[1, 1] = True
    mixed, belief = mix(images, given, shown, pasted)
    # the first gets its pixel from the third, the second from the first, the third nothing
    assert belief.labels.tolist() == [[[8, 1], [2, 3]], [[4, 5], [2, 3]], [[7, 7], [7, 7]]]
    assert torch.equal(belief.sure[:2], belief.labels[:2] % 2 == 0) and belief.sure[2].all()
    expected = [[[0.5, 0.0], [0.0, 0.0]], [[0.25, 0.25], [0.0, 0.0]], [[0.5] * 2] * 2]
    assert torch.equal(mixed, torch.tensor(expected)[:, None].expand(3, 3, 2, 2))


class Colours(nn.Module):
    """Red is the first class and green the second; in training the other way round."""

    def __init__(self, scale=30.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        return self.scale * (x[:, :2].flip(1) if self.training else x[:, :2])


def colour_learner(step, loss="cross_entropy"):
    both = Pair(
        Segmenter(Colours(30.0), 2, multiple=1), Segmenter(Colours(31.0), 2, multiple=1)
    ).eval()
    ours = CoLearner(
        both, replace(SETTINGS, teach_from=0.5, loss=loss), "cpu", CoTraining(mixing=1.0)
    )
    ours.step = step
    return ours


def prepared(ours, seed=0, sure=0):
    """Two images, each of one colour (with some of the other), all of whose labels are wrong."""
    images = torch.zeros(2, 3, 6, 6)
    images[0, 0], images[1, 1] = 1.0, 1.0
    images[:, :2, 0, 0] = 0.5  # nobody knows
    labels = torch.tensor([1, 0], dtype=torch.uint8).view(2, 1, 1).repeat(1, 6, 6)
    labels[:, 5] = IGNORE
    reliability = torch.full((2, 6, 6), sure, dtype=torch.uint8)
    return images, labels, ours._prepared(images, labels, reliability)


def test_at_first_images_are_mixed_by_their_labels():
    images, labels, (mixed, now, sure, edges) = prepared(colour_learner(step=3))
    for index, other in ((0, 1), (1, 0)):  # the only class of the other, but where it is ignored
        assert torch.equal(mixed[index, :, :5], images[other, :, :5])
        assert torch.equal(mixed[index, :, 5], images[index, :, 5])
        assert (now[index, :5] == labels[other, 0, 0]).all() and (now[index, 5] == IGNORE).all()
    assert not sure.any() and not edges.any()


def test_then_by_what_both_networks_see_in_evaluation_mode():
    ours = colour_learner(step=4)
    ours.model.train()
    images, _, (mixed, now, sure, edges) = prepared(ours)
    assert ours.model.training
    for index, other in ((0, 1), (1, 0)):
        seen, picture = now[index, :5].flatten(), mixed[index, :, :5].flatten(1)
        assert (seen[1:] == other).all()  # true, and unlike the labels
        assert torch.equal(picture[:, 1:], images[other, :, :5].flatten(1)[:, 1:])
    assert torch.equal(mixed[:, :, 0, 0], images[:, :, 0, 0])  # not relied on, so not pasted
    assert (sure[:, 0, 0] == 0).all() and (sure[:, :5].flatten(1)[:, 1:] == 255).all()
    assert (edges[0, :2, :2] == 255).all() and (edges[0, 2:4, 2:] == 0).all()


def test_then_too_what_is_ignored_stays_so():
    images, _, (mixed, now, sure, edges) = prepared(colour_learner(step=4))
    assert torch.equal(mixed[:, :, 5], images[:, :, 5])  # nothing is pasted from it
    assert (now[:, 5] == IGNORE).all() and not sure[:, 5].any()
    assert edges[:, 4:].all()  # what was pasted ends before it


@pytest.mark.parametrize("case", ["reliable", "background", "no mixing", "alone"])
def test_what_is_not_mixed_keeps_its_labels(case):
    ours = colour_learner(step=4)
    if case == "background":
        ours.background = frozenset({0, 1})
    if case == "no mixing":
        ours.co_training = CoTraining(mixing=0.0)
    images, labels, (mixed, now, sure, edges) = prepared(
        ours, sure=255 if case == "reliable" else 0
    )
    if case == "alone":
        mixed, now, sure, edges = ours._prepared(
            images[:1], labels[:1], torch.zeros_like(labels[:1])
        )
    assert torch.equal(mixed, images[: len(mixed)]) and torch.equal(now, labels[: len(now)])
    assert sure.bool().all() if case == "reliable" else not sure.any()
    assert not edges.any()


def test_at_first_unreliable_pixels_are_not_learnt():
    pool = scenes(6)
    doubtful = replace(pool, reliability=torch.zeros_like(pool.labels))
    losses = [colour_learner(step).train(doubtful, step + 1)["loss"] for step in (3, 4)]
    assert losses[0] == 0 < losses[1]


def test_both_pay_the_loss_of_the_settings():
    pool = replace(scenes(6), reliability=None)  # all of which these networks get wrong
    paid = [colour_learner(4, loss).train(pool, 5)["loss"] for loss in LOSSES]
    assert paid[0] > 2 / 0.7  # the most that two can pay of the generalised one
    assert paid[1] == pytest.approx(2 / 0.7, rel=0.2)
    assert len(set(paid)) == len(LOSSES)


def test_partners_are_the_other_half():
    assert partners(torch.arange(4)).tolist() == [2, 3, 0, 1]
    assert (partners(torch.arange(5)) != torch.arange(5)).all()


def test_a_pair_answers_with_its_mean_logits():
    both, images = pair(), torch.rand(3, 3, 16, 16)
    assert isinstance(both, TaskModel)
    first, second = (member.predict(images).logits for member in both.members)
    told = both.predict(images)
    assert torch.allclose(told.logits, (first + second) / 2)
    assert torch.equal(both(images), torch.cat([first, second]))
    # linear in its features
    heads = [member.network[4] for member in both.members]
    weight = torch.cat([head.weight for head in heads], 1) / 2
    bias = (heads[0].bias + heads[1].bias) / 2
    linear = nn.functional.conv2d(told.features[0], weight, bias)
    assert torch.allclose(linear, told.logits[0], atol=1e-5)


def test_interrupted_and_resumed_is_uninterrupted(tmp_path):
    pool = scenes(20, flipped=0.4)
    whole = CoLearner(pair(), SETTINGS, "cpu")
    before = torch.get_rng_state()
    whole.train(pool, 5)
    assert torch.equal(before, torch.get_rng_state())
    whole.save(tmp_path / "state.safetensors")
    second = CoLearner(pair(seed=7), SETTINGS, "cpu")
    second.load(tmp_path / "state.safetensors")
    assert second.step == 5
    assert second.train(pool, 8) == whole.train(pool, 8)
    assert weights_hash(second.model) == weights_hash(whole.model)
    assert weights_hash(second.averaged) == weights_hash(whole.averaged)
    assert weights_hash(whole.model) != weights_hash(whole.averaged)
    other = CoLearner(pair(), SETTINGS, "cpu", CoTraining(confidence=0.5))
    with pytest.raises(UserError, match=r"co_training was .*0\.95.*is .*0\.5"):
        other.load(tmp_path / "state.safetensors")


def test_two_beat_one_that_believes_wrong_pixels():
    pool, test = scenes(12, flipped=0.4), scenes(12, seed=9)
    settings = replace(SETTINGS, steps=40, batch_size=12, augmentation="none")
    one = Learner(network(0), settings, "cpu")
    one.train(pool, 40)
    two = CoLearner(pair(), settings, "cpu")
    two.train(pool, 40)
    believing, doubting = (
        evaluate_masks(ours.averaged, test.images, test.labels).miou for ours in (one, two)
    )
    assert doubting > believing + 0.02
    assert len({weights_hash(member) for member in two.model.members}) == 2


def test_what_does_not_fit_is_told():
    with pytest.raises(UserError, match="two networks that differ"):
        CoLearner(Pair(network(0), network(0)), SETTINGS, "cpu")
    with pytest.raises(UserError, match="set unreliable to 'trust'"):
        CoLearner(pair(), replace(SETTINGS, unreliable="ignore"), "cpu")
    with pytest.raises(UserError, match="co_training is for masks"):
        CoTraining().check_fits(SETTINGS, 0)
    with pytest.raises(UserError, match="the same classes twice; got 2 and 3"):
        Pair(network(0), network(1, classes=3))
    with pytest.raises(UserError, match="mixing and confidence"):
        CoTraining(mixing=1.5)
    with pytest.raises(UserError, match="boundary_weight"):
        CoTraining(boundary_weight=-1.0)
