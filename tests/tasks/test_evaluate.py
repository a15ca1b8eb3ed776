import math
from dataclasses import dataclass

import pytest
import torch

from activegen.records import Prediction, UserError
from activegen.tasks.committee import Committee
from activegen.tasks.evaluate import evaluate
from activegen.tasks.networks import build


@dataclass
class Brightness:
    """Says class 0 with this probability for dark images, class 1 for bright ones."""

    sure: float
    classes: int = 3

    def predict(self, images):
        bright = (images.mean((1, 2, 3)) > 0.5).long()
        rest = (1 - self.sure) / (self.classes - 1)
        odds = torch.full((len(images), self.classes), rest)
        odds[torch.arange(len(images)), bright] = self.sure
        return Prediction(odds.log()[None])


def bright(*values):
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4)


def test_numbers_solved_by_hand():
    found = evaluate(Brightness(0.8), bright(0, 0, 255, 255), torch.tensor([0, 0, 1, 0]), batch=3)
    assert found.accuracy == pytest.approx(0.75)
    assert found.per_class[0] == pytest.approx(2 / 3)
    assert found.per_class[1] == 1
    assert math.isnan(found.per_class[2])
    assert found.worst_class == 0
    assert found.ece == pytest.approx(0.05, abs=1e-5)
    assert found.predictions.tolist() == [0, 0, 1, 1]
    assert torch.allclose(found.losses, -torch.tensor([0.8, 0.8, 0.8, 0.1]).log())
    assert torch.allclose(found.probabilities.sum(1), torch.ones(4))


def test_a_committee_is_judged_by_its_mean_probability():
    committee = Committee((Brightness(0.8), Brightness(0.4)))
    found = evaluate(committee, bright(0), torch.tensor([0]))
    assert found.probabilities[0, 0] == pytest.approx(0.6)
    assert found.losses[0] == pytest.approx(-math.log(0.6))


def test_dropout_is_off_and_every_mode_comes_back():
    model = build("small", 3, 16).train()
    model.network[1].eval()
    images = bright(*range(0, 250, 25))
    labels = torch.zeros(10, dtype=torch.int64)
    first, again = (evaluate(model, images, labels, batch) for batch in (10, 4))
    assert torch.allclose(first.losses, again.losses, atol=1e-5)
    assert model.training and not model.network[1].training
    assert not first.losses.requires_grad


def test_no_images_and_wrong_labels_are_told():
    with pytest.raises(UserError, match="no image"):
        evaluate(Brightness(0.8), bright(0)[:0], torch.zeros(0).long())
    with pytest.raises(UserError, match="0 to 2"):
        evaluate(Brightness(0.8), bright(0), torch.tensor([3]))
