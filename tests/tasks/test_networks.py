import pytest
import torch

from activegen.records import UnknownWord, UserError
from activegen.tasks.learner import weights_hash
from activegen.tasks.networks import build
from activegen.tasks.seeding import seeded

EXTREME = torch.stack(
    [
        torch.zeros(3, 64, 64),
        torch.ones(3, 64, 64),
        torch.eye(64).expand(3, 64, 64),
        (torch.arange(64) % 2).float().expand(3, 64, 64),
    ]
)


@pytest.mark.parametrize("name", ["small", "timm:test_resnet", "timm:test_vit"])
def test_predictions_are_finite_for_extreme_images(name):
    model = build(name, 7, 64).eval()
    prediction = model.predict(EXTREME)
    assert prediction.logits.shape == (1, 4, 7)
    assert prediction.logits.isfinite().all()
    assert prediction.features.isfinite().all()


def test_small_is_small_and_follows_the_global_generator():
    with seeded(1):
        first = build("small", 10, 64)
    with seeded(1):
        again = build("small", 10, 64)
    other = build("small", 10, 64)
    assert 3e5 < sum(p.numel() for p in first.parameters()) < 1e6
    assert weights_hash(first) == weights_hash(again) != weights_hash(other)


def test_timm_brings_its_own_normalisation():
    model = build("timm:test_resnet", 3, 32)
    assert torch.allclose(model.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]), atol=0.02) or (
        torch.allclose(model.mean.flatten(), torch.tensor(0.5))
    )
    assert model.size == (32, 32)


def test_an_unknown_timm_model_is_answered_with_near_ones():
    with pytest.raises(UnknownWord, match="resnet18"):
        build("timm:resnet81", 3, 32)


def test_an_unknown_network_is_answered_with_the_known_ones():
    with pytest.raises(UnknownWord, match=r"timm:<model>.*Did you mean 'small'"):
        build("smal", 3, 32)


def test_small_has_no_pretrained_weights():
    with pytest.raises(UserError, match="no pretrained"):
        build("small", 3, 64, pretrained=True)


def test_a_network_of_the_user_is_found_in_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "their_networks.py").write_text(
        "from torch import nn\n"
        "def make(classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, classes))\n"
        "def number(classes):\n"
        "    return classes\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path.parent))  # puts the import path back afterwards
    model = build("their_networks:make", 5, 8)
    assert model.predict(torch.rand(2, 3, 20, 20)).logits.shape == (1, 2, 5)
    with pytest.raises(UserError, match="gave a int"):
        build("their_networks:number", 5, 8)
    with pytest.raises(UserError, match="has no 'mke'"):
        build("their_networks:mke", 5, 8)


def test_a_module_that_is_not_there_tells_where_it_was_looked_for():
    with pytest.raises(UserError, match="current directory is on the import path"):
        build("not_a_module_of_anyone:make", 5, 8)
