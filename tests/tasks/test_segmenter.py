import pytest
import torch
from torch import nn
from torch.nn import functional

from activegen.records import TaskModel, UserError
from activegen.tasks.committee import Committee
from activegen.tasks.segmenter import Segmenter


class Listener(nn.Module):
    """Keeps what reached it; looks once at every so many pixels."""

    def __init__(self, every=1, **head):
        super().__init__()
        self.body = nn.Conv2d(3, 4, every, stride=every)
        self.head = nn.Conv2d(4, 2, **{"kernel_size": 1, **head})

    def forward(self, x):
        self.got = x
        self.gave = self.head(self.body(x))
        return self.gave


def test_a_grey_image_arrives_normalised_once():
    listener = Listener()
    model = Segmenter(listener, 2, (32, 32), mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.4))
    model.predict(torch.full((1, 3, 32, 32), 0.5))
    wanted = torch.tensor([1.0, 0.0, -0.25]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    assert torch.allclose(listener.got, wanted, atol=1e-5)


@pytest.mark.parametrize("size", [None, (24, 20)])
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("sides", [(31, 17), (64, 32), (5, 70)])
def test_logits_have_the_size_of_the_image(size, every, sides):
    listener = Listener(every)
    model = Segmenter(listener, 2, size, multiple=8)
    prediction = model.predict(torch.rand(2, 3, *sides))
    assert prediction.logits.shape == (1, 2, 2, *sides)
    height, width = size or sides
    assert listener.got.shape[-2:] == (-(-height // 8) * 8, -(-width // 8) * 8)
    rows, columns = -(-height // every), -(-width // every)
    assert prediction.features.shape == (1, 2, 4, rows, columns)


def test_padding_repeats_the_edge_and_is_cut_off():
    listener = Listener()
    model = Segmenter(listener, 2, multiple=16)
    images = torch.rand(1, 3, 10, 13)
    logits = model(images)
    assert torch.allclose(logits, listener.head(listener.body(images)), atol=1e-6)
    assert torch.equal(listener.got[..., :10, :13], images)
    assert torch.equal(listener.got[..., 15, :13], images[..., 9, :])


def test_coarse_logits_lie_over_the_pixels_that_they_saw():
    class Quarter(nn.Module):
        def forward(self, x):
            return functional.avg_pool2d(x[:, :2], 4)

    images = torch.zeros(1, 3, 24, 40)
    images[..., 20:] = 1
    logits = Segmenter(Quarter(), 2, multiple=8).predict(images).logits[0, 0, 0]
    assert logits[:, 18].allclose(torch.tensor(0.125)) and logits[:, 21].allclose(
        torch.tensor(0.875)
    )


@pytest.mark.parametrize(
    "head",
    [
        {"kernel_size": 1},
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (3, 5), "padding": "same", "dilation": 2},
        {"kernel_size": 4, "padding": "same"},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
        {"kernel_size": 3, "padding": "valid"},
        {"kernel_size": 2, "stride": 2, "bias": False},
        {"kernel_size": 1, "padding": 1},
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
def test_the_last_layer_is_linear_in_the_features(head):
    listener = Listener(2, **head)
    features = Segmenter(listener, 2, multiple=16).predict(torch.rand(3, 3, 32, 16)).features[0]
    made = torch.einsum("kd,bdhw->bkhw", listener.head.weight.flatten(1), features)
    if listener.head.bias is not None:
        made = made + listener.head.bias.view(-1, 1, 1)
    assert torch.allclose(made, listener.gave[..., : made.shape[2], : made.shape[3]], atol=1e-5)
    assert made.shape == listener.gave.shape


class FirstTwo(nn.Module):
    def forward(self, x):
        return x[:, :2]


@pytest.mark.parametrize(
    "network",
    [
        FirstTwo(),
        nn.Sequential(nn.Conv2d(3, 4, 1), FirstTwo()),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1, groups=2)),
        nn.Sequential(nn.Conv2d(3, 2, 1), nn.ConvTranspose2d(2, 2, 2, stride=2)),
    ],
)
def test_a_network_that_ends_otherwise_has_no_features(network):
    assert Segmenter(network, 2).predict(torch.rand(1, 3, 8, 8)).features is None


def test_predictions_are_differentiable_and_float32():
    images = torch.rand(2, 3, 12, 12, requires_grad=True)
    model = Segmenter(Listener(2, kernel_size=3, padding=1), 2, (16, 16)).bfloat16()
    prediction = model.predict(images)
    (prediction.logits.sum() + prediction.features.sum()).backward()
    assert prediction.logits.dtype == prediction.features.dtype == torch.float32
    assert images.grad.abs().sum() > 0


def test_predicting_leaves_no_hook():
    model = Segmenter(Listener(), 2)
    model.predict(torch.rand(1, 3, 4, 4))
    assert not model.network.head._forward_pre_hooks


def test_wrong_outputs_are_told_at_once():
    with pytest.raises(UserError, match=r"\(2, 5, height, width\).*got \(2, 2, 64, 64\)"):
        Segmenter(Listener(), 5)
    with pytest.raises(UserError, match=r"got \(2, 2\)"):
        Segmenter(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), 2)

    class Named(nn.Module):
        def forward(self, x):
            return {"out": x}

    with pytest.raises(UserError, match="got dict"):
        Segmenter(Named(), 3)


def test_a_network_that_takes_other_sides_is_told_how_to_say_so():
    class Fixed(nn.Module):
        def forward(self, x):
            assert x.shape[-2:] == (28, 28), "28 it must be"
            return x

    with pytest.raises(UserError, match=r"(?s)32, 32\).*28 it must be.*multiples of \(32\)"):
        Segmenter(Fixed(), 3, (28, 28))
    model = Segmenter(Fixed(), 3, (28, 28), multiple=1)
    assert model.predict(torch.rand(1, 3, 9, 9)).logits.shape == (1, 1, 3, 9, 9)


def test_a_mask_has_room_for_255_classes():
    with pytest.raises(UserError, match="255 classes"):
        Segmenter(Listener(), 256)


def test_segmenters_make_a_committee():
    first, second = Segmenter(Listener(), 2, multiple=8), Segmenter(Listener(2), 2, multiple=8)
    prediction = Committee((first, second)).predict(torch.rand(2, 3, 12, 9))
    assert prediction.logits.shape == (2, 2, 2, 12, 9)
    assert prediction.features is None  # of different sizes
    same = Committee((first, first)).predict(torch.rand(2, 3, 12, 9))
    assert same.features.shape == (2, 2, 4, 12, 9)


def test_it_is_a_task_model():
    assert isinstance(Segmenter(Listener(), 2), TaskModel)
