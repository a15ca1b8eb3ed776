import pytest
import torch
from torch import nn

from activegen.records import TaskModel, UserError
from activegen.tasks.classifier import Classifier, modes_kept


class Listener(nn.Module):
    """Keeps what reached it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        self.got = x
        return self.head(x.mean((2, 3)))


def test_a_grey_image_arrives_normalised_once():
    listener = Listener()
    model = Classifier(listener, 2, (8, 8), mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.4))
    model.predict(torch.full((1, 3, 8, 8), 0.5))
    wanted = torch.tensor([1.0, 0.0, -0.25]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert torch.allclose(listener.got, wanted, atol=1e-5)


def test_images_of_any_size_reach_the_network_in_its_size():
    listener = Listener()
    model = Classifier(listener, 2, (8, 6))
    model.predict(torch.rand(1, 3, 31, 17))
    assert listener.got.shape == (1, 3, 8, 6)
    free = Classifier(listener, 2)
    free.predict(torch.rand(1, 3, 31, 17))
    assert listener.got.shape == (1, 3, 31, 17)


def test_shrinking_filters_a_chequerboard_to_grey():
    listener = Listener()
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    Classifier(listener, 2, (8, 8)).predict(board.float().expand(1, 3, 64, 64))
    assert torch.allclose(listener.got, torch.tensor(0.5), atol=0.02)


def test_features_are_what_the_last_linear_layer_saw():
    model = Classifier(Listener(), 2, (8, 8)).eval()
    prediction = model.predict(torch.rand(5, 3, 8, 8))
    head = model.network.head
    assert prediction.logits.shape == (1, 5, 2)
    assert prediction.features.shape == (1, 5, 3)
    assert torch.allclose(head(prediction.features), prediction.logits)


def test_predicting_leaves_no_hook_even_when_the_network_fails():
    model = Classifier(Listener(), 2)
    model.predict(torch.rand(1, 3, 4, 4))
    assert not model.network.head._forward_pre_hooks
    model.network.head.weight = nn.Parameter(torch.zeros(2, 7))
    with pytest.raises(RuntimeError):
        model.predict(torch.rand(1, 3, 4, 4))
    assert not model.network.head._forward_pre_hooks


def test_a_network_without_a_linear_end_has_no_features():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert Classifier(network, 4).predict(torch.rand(2, 3, 5, 5)).features is None


def test_predictions_are_differentiable_and_float32():
    images = torch.rand(2, 3, 12, 12, requires_grad=True)
    model = Classifier(Listener(), 2, (8, 8)).bfloat16()
    logits = model.predict(images).logits
    logits.sum().backward()
    assert logits.dtype == torch.float32
    assert images.grad.abs().sum() > 0


def test_training_sees_the_same_logits():
    model = Classifier(Listener(), 2, (8, 8))
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(model(images), model.predict(images).logits[0])


def test_a_wrong_number_of_outputs_is_told_at_once():
    with pytest.raises(UserError, match=r"\(2, 5\).*got \(2, 2\)"):
        Classifier(Listener(), 5)


def test_a_network_that_gives_no_tensor_is_told_at_once():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(UserError, match="got tuple"):
        Classifier(Pair(), 5)


def test_a_network_of_another_input_size_is_told_at_once():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    with pytest.raises(UserError, match=r"cannot take images of shape \(2, 3, 16, 16\)"):
        Classifier(network, 2, (16, 16))
    assert (
        Classifier(network, 2, (32, 32)).predict(torch.rand(1, 3, 9, 9)).features.shape[2] == 3072
    )


def test_the_dry_run_changes_neither_mode_nor_statistics():
    network = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    network[1].eval()
    Classifier(network, 2)
    assert network.training and not network[1].training
    assert network[1].num_batches_tracked == 0


def test_modes_come_back_after_an_error():
    model = Classifier(Listener(), 2)
    with pytest.raises(KeyError), modes_kept(model):
        model.eval()
        raise KeyError
    assert model.training


def test_it_is_a_task_model():
    assert isinstance(Classifier(Listener(), 2), TaskModel)
