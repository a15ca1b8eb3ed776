from dataclasses import dataclass

import pytest
import torch

from activegen.records import Prediction, TaskModel, UserError
from activegen.tasks.committee import Committee
from activegen.tasks.networks import build


@dataclass
class Still:
    """The same answer to everything."""

    answer: float
    classes: int = 2
    width: int | None = 4

    def predict(self, images):
        features = None if self.width is None else torch.ones(1, len(images), self.width)
        return Prediction(torch.full((1, len(images), self.classes), self.answer), features)


IMAGES = torch.zeros(5, 3, 4, 4)


def test_members_stand_side_by_side():
    prediction = Committee((Still(1.0), Still(2.0))).predict(IMAGES)
    assert prediction.logits.shape == (2, 5, 2)
    assert prediction.logits[:, 0, 0].tolist() == [1, 2]
    assert prediction.features.shape == (2, 5, 4)


def test_a_committee_may_be_a_member():
    committee = Committee((Committee((Still(1.0), Still(2.0))), Still(3.0)))
    assert committee.predict(IMAGES).logits[:, 0, 0].tolist() == [1, 2, 3]
    assert isinstance(committee, TaskModel)


@pytest.mark.parametrize("width", [None, 7])
def test_features_of_different_shapes_are_left_out(width):
    assert Committee((Still(1.0), Still(2.0, width=width))).predict(IMAGES).features is None


def test_modes_and_weights_of_members_are_reached():
    small = build("small", 2, 16)
    committee = Committee((small, Still(0.0)))
    committee.eval()
    assert not small.training
    assert len(list(committee.parameters())) == len(list(small.parameters()))


def test_members_of_different_classes_are_told():
    with pytest.raises(UserError, match=r"\[2, 3\]"):
        Committee((Still(1.0), Still(2.0, classes=3))).predict(IMAGES)
    with pytest.raises(UserError, match="at least one"):
        Committee(())
