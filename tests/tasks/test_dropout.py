import pytest
import torch
from torch import Tensor, nn

from activegen.records import Prediction, TaskModel, UserError
from activegen.scores import disagreement
from activegen.tasks.classifier import Classifier
from activegen.tasks.dropout import FrozenDropout, NaiveDropout
from activegen.tasks.seeding import seeded


class Segmenter(nn.Module):
    """Two layers for each pixel, with dropout of whole channels between."""

    def __init__(self, dropout: nn.Module):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, padding=1)
        self.norm, self.dropout = nn.BatchNorm2d(8), dropout
        self.head = nn.Conv2d(8, 4, 1)

    def predict(self, images: Tensor) -> Prediction:
        features = self.dropout(self.norm(self.body(images)).relu())
        return Prediction(self.head(features)[None], features[None])


def segmenter(dropout: nn.Module | None = None) -> Segmenter:
    with seeded(1):
        return Segmenter(dropout or nn.Dropout2d(0.5))


def classifier(rate: float = 0.5, width: int = 64) -> Classifier:
    with seeded(2):
        body = [nn.Flatten(), nn.Linear(3 * 64, width), nn.BatchNorm1d(width), nn.ReLU()]
        return Classifier(
            nn.Sequential(*body, nn.Dropout(rate), nn.Linear(width, 5)), 5, size=(8, 8)
        )


def images(count: int = 4, size: int = 8) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(5))


MODELS = {
    "classifier": lambda: FrozenDropout(classifier(), 3, 0),
    "channels": lambda: FrozenDropout(segmenter(), 3, 0),
    "values": lambda: FrozenDropout(segmenter(nn.Dropout(0.3)), 3, 0),
    "head of a classifier": lambda: FrozenDropout(classifier(), 3, 0, rate=0.4),
    "head of a segmenter": lambda: FrozenDropout(segmenter(nn.Identity()), 3, 0, rate=0.4),
}


@pytest.fixture(params=MODELS)
def model(request) -> FrozenDropout:
    return MODELS[request.param]()


def test_members_differ_and_stay_as_they_are(model):
    assert isinstance(model, TaskModel)
    once, again = model.predict(images()), model.predict(images())
    assert once.logits.shape[:2] == (3, 4) and once.features.shape[:2] == (3, 4)
    assert torch.equal(once.logits, again.logits)
    assert (once.logits[0] - once.logits[1]).abs().max() > 1e-3
    target = torch.zeros(4, *once.logits.shape[3:], dtype=torch.long)
    assert (disagreement(once, target) > 1e-4).all()


def test_an_image_does_not_depend_on_its_batch(model):
    together = model.predict(images())
    for i in range(4):
        alone = model.predict(images()[i : i + 1])
        torch.testing.assert_close(alone.logits, together.logits[:, i : i + 1])
        torch.testing.assert_close(alone.features, together.features[:, i : i + 1])


def test_nothing_is_left_behind(model):
    """Modes, statistics of batch norm, global randomness, hooks."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    plain = model.model.eval().predict(images()).logits
    model.train()
    model.predict(images())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.model.eval().predict(images()).logits, plain)


def test_the_mean_of_many_masks_is_the_network(model):
    """Behind the masks all is linear, so the mean is exact but for the luck of the masks."""
    model.members = 150
    plain = model.model.eval().predict(images(1)).logits
    found = model.predict(images(1)).logits
    spread = found.std(0, keepdim=True)
    assert ((found.mean(0, keepdim=True) - plain).abs() <= 5 * spread / 150**0.5 + 1e-6).all()


def test_the_share_that_is_dropped():
    dropped = FrozenDropout(classifier(0.3, width=1000), 2, 0).predict(images(1)).features
    plain = classifier(0.3, width=1000).eval().predict(images(1)).features
    alive = plain[0, 0] != 0
    for member in dropped:
        values = member[0, alive]
        assert (values == 0).float().mean() == pytest.approx(0.3, abs=0.08)
        kept = values != 0
        torch.testing.assert_close(values[kept], plain[0, 0, alive][kept] / 0.7)


def test_whole_channels_of_segmenters():
    features = FrozenDropout(segmenter(), 6, 0).predict(images(1)).features
    silent = (features == 0).flatten(3).all(3)
    assert silent.any() and not silent.all()
    for member, gone in zip(features[:, 0], silent[:, 0], strict=True):
        plain = segmenter().eval().predict(images(1)).features[0, 0]
        torch.testing.assert_close(member[~gone], 2 * plain[~gone])


def test_seeds_and_sizes():
    first, second = (FrozenDropout(classifier(), 3, seed).predict(images()) for seed in (0, 1))
    assert not torch.allclose(first.logits, second.logits)
    more = FrozenDropout(classifier(), 5, 0).predict(images())
    torch.testing.assert_close(more.logits[:3], first.logits)  # the first members stay
    for size in (8, 12):
        logits = FrozenDropout(segmenter(nn.Dropout(0.5)), 2, 0).predict(images(2, size)).logits
        assert logits.shape == (2, 2, 4, size, size)


def test_a_layer_that_is_used_twice_has_two_masks():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def predict(self, images: Tensor) -> Prediction:
            ones = torch.ones(len(images), 200)
            return Prediction(torch.cat([self.dropout(ones), self.dropout(ones)], 1)[None])

    first, second = FrozenDropout(Twice(), 1, 0).predict(images(1)).logits[0, 0].chunk(2)
    assert 0.3 < (first == second).float().mean() < 0.7


def gradients(model) -> list[Tensor]:
    found = []
    for _ in range(8):
        pixels = images(1).requires_grad_()
        value = disagreement(model.predict(pixels), torch.zeros(1, dtype=torch.long))
        found.append(torch.autograd.grad(value.sum(), pixels)[0])
    return found


def test_frozen_masks_have_one_gradient_and_fresh_ones_have_noise():
    frozen = torch.stack(gradients(FrozenDropout(classifier(), 3, 0)))
    naive = torch.stack(gradients(NaiveDropout(classifier(), 3, 0)))
    assert frozen[0].norm() > 0
    assert (frozen == frozen[0]).all()
    assert naive.std(0).norm() > 0.3 * naive.mean(0).norm()


def test_naive_dropout_repeats_from_its_start():
    once, again = (NaiveDropout(classifier(), 2, 0) for _ in range(2))
    for _ in range(3):
        assert torch.equal(once.predict(images()).logits, again.predict(images()).logits)


def test_models_without_dropout_and_numbers_out_of_range():
    with pytest.raises(UserError, match=r"learner\.network that has one.*of: committee.*a rate"):
        FrozenDropout(classifier(0.0), 3, 0)
    with pytest.raises(UserError, match="at least 1"):
        FrozenDropout(classifier(), 0, 0)
    with pytest.raises(UserError, match="between 0 and 1"):
        NaiveDropout(classifier(), 2, 0, rate=1.0)

    class Bare(nn.Module):
        def predict(self, images: Tensor) -> Prediction:
            return Prediction(images.mean((2, 3))[None])

    with pytest.raises(UserError, match="with 3 outputs"):
        FrozenDropout(Bare(), 2, 0, rate=0.5)

    class NoModule:
        def predict(self, images: Tensor) -> Prediction:
            return Prediction(images.mean((2, 3))[None])

    with pytest.raises(UserError, match=r"torch\.nn\.Module"):
        FrozenDropout(NoModule(), 2, 0)
