import json

import pytest
import torch
import transformers
from torch import nn

from activegen.records import UnknownWord, UserError
from activegen.tasks.learner import weights_hash
from activegen.tasks.seeding import seeded
from activegen.tasks.segmenter import Segmenter
from activegen.tasks.segmenters import build_segmenter

EXTREME = torch.stack(
    [
        torch.zeros(3, 45, 70),
        torch.ones(3, 45, 70),
        (torch.arange(70) % 2).float().expand(3, 45, 70),
    ]
)
TINY_SEGFORMER = {
    "model_type": "segformer",
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [8, 8, 8, 8],
    "num_attention_heads": [1, 1, 1, 1],
    "decoder_hidden_size": 8,
}
TINY_UPERNET = {
    "model_type": "upernet",
    "hidden_size": 8,
    "use_auxiliary_head": True,
    "backbone_config": {
        "model_type": "convnext",
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 8, 8, 8],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
}


@pytest.mark.parametrize(
    "name, width",
    [
        ("small", 16),
        ("smp:unet/resnet18", 16 * 9),
        ("smp:deeplabv3plus/mobilenet_v2", 256),
        ("smp:fpn/tu-test_resnet", 128),
        ("transformers:segformer", 256),
    ],
)
def test_predictions_are_finite_for_extreme_images(name, width):
    model = build_segmenter(name, 7, None).eval()
    with torch.no_grad():
        prediction = model.predict(EXTREME)
    assert prediction.logits.shape == (1, 3, 7, 45, 70)
    assert prediction.logits.isfinite().all()
    assert prediction.features.isfinite().all()
    assert prediction.features.shape[2] == width


def test_small_is_small_and_follows_the_global_generator():
    with seeded(1):
        first = build_segmenter("small", 8, 64)
    with seeded(1):
        again = build_segmenter("small", 8, 64)
    other = build_segmenter("small", 8, 64)
    assert 3e5 < sum(p.numel() for p in first.parameters()) < 7e5
    assert weights_hash(first) == weights_hash(again) != weights_hash(other)
    assert first.size == (64, 64)


def test_small_drops_channels_in_front_of_its_last_layer():
    model = build_segmenter("small", 3, 16).train()
    features = model.predict(torch.rand(8, 3, 16, 16)).features[0]
    assert (features.flatten(2).sum(2) == 0).float().mean() > 0.02
    assert [type(m) for m in model.modules()].count(nn.Dropout2d) == 1


def test_small_sees_far_and_single_pixels():
    model = build_segmenter("small", 3, 64).eval()
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    model.predict(image).logits[0, 0, 0, 32, 32].backward()
    seen = image.grad[0].abs().sum(0)
    assert (seen > 0).float().mean() > 0.6
    assert seen[31:34, 31:34].min() > 0


@pytest.mark.parametrize(
    "name, told",
    [
        ("smal", "Did you mean 'small'"),
        ("smp:unt/resnet18", "unetplusplus.*Did you mean 'unet'"),
        ("smp:unet/resnet81", "Did you mean 'resnet18'"),
        ("smp:unet", "resnet18"),
        ("smp:unet/tu-resnet81", "timm.*resnet18"),
        ("transformers:segfomer", "upernet.*Did you mean 'segformer'"),
        ("transformers:segformer/b9", "path.*b0, b1"),
    ],
)
def test_an_unknown_name_is_answered_with_the_known_ones(name, told):
    with pytest.raises(UnknownWord, match=told):
        build_segmenter(name, 3, 32)


def test_an_architecture_that_cannot_have_an_encoder_is_told():
    with pytest.raises(UserError, match="could not make 'dpt/resnet18'"):
        build_segmenter("smp:dpt/resnet18", 3, 32)


@pytest.mark.parametrize("config", [TINY_SEGFORMER, TINY_UPERNET])
def test_a_config_of_the_user_is_read(tmp_path, config):
    family = config["model_type"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "config.json"):
        model = build_segmenter(f"transformers:{family}/{path}", 3, 32).eval()
        prediction = model.predict(torch.rand(2, 3, 40, 24))
        assert prediction.logits.shape == (1, 2, 3, 40, 24)
        assert prediction.features.shape[2] == 8
        assert sum(p.numel() for p in model.parameters()) < 2e5
        assert not any("auxiliary" in name for name, _ in model.named_parameters())


def test_a_config_of_another_family_is_told(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY_SEGFORMER))
    with pytest.raises(UserError, match="model type 'segformer', not 'upernet'"):
        build_segmenter(f"transformers:upernet/{tmp_path}", 3, 32)


def test_weights_of_a_local_folder_are_taken_but_for_the_last_layer(tmp_path):
    config = transformers.SegformerConfig(**TINY_SEGFORMER, num_labels=5)
    saved = transformers.SegformerForSemanticSegmentation(config)
    saved.save_pretrained(tmp_path)
    model = build_segmenter(f"transformers:segformer/{tmp_path}", 3, 32, pretrained=True)
    mine, theirs = model.network.model.state_dict(), saved.state_dict()
    head = {"decode_head.classifier.weight", "decode_head.classifier.bias"}
    assert all(torch.equal(theirs[name], mine[name]) for name in set(theirs) - head)
    assert mine["decode_head.classifier.bias"].shape == (3,)
    with pytest.raises(UserError, match="local folder"):
        build_segmenter("transformers:segformer", 3, 32, pretrained=True)


def test_small_has_no_pretrained_weights():
    with pytest.raises(UserError, match="no pretrained"):
        build_segmenter("small", 3, 64, pretrained=True)


def test_a_network_of_the_user_is_found(tmp_path, monkeypatch):
    (tmp_path / "their_segmenters.py").write_text(
        "from torch import nn\n"
        "from activegen.tasks.segmenter import Segmenter\n"
        "def make(classes):\n"
        "    return nn.Conv2d(3, classes, 3, padding=1)\n"
        "def whole(classes):\n"
        "    return Segmenter(make(classes), classes, multiple=1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = build_segmenter("their_segmenters:make", 5, (8, 12))
    assert model.predict(torch.rand(2, 3, 20, 20)).logits.shape == (1, 2, 5, 20, 20)
    assert model.size == (8, 12)
    whole = build_segmenter("their_segmenters:whole", 5, 8)
    assert isinstance(whole, Segmenter) and whole.multiple == 1
