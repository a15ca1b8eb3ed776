"""From a recipe to an adapted generator, at toy size: stopped, gone on with, and loaded again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

import tiny
from activegen.data.images import RealImages
from activegen.data.prompts import prompts_for
from activegen.data.scenes import RealScenes
from activegen.diffusion import lora
from activegen.diffusion.control import Control, check_fit
from activegen.recipes import Recipe, generator, parse
from activegen.recipes.adaptation import AdaptSettings
from activegen.recipes.adapting import Pictures, adapt
from activegen.recipes.data import contents, read_split
from activegen.recipes.progress import Event
from activegen.records import UserError
from activegen.zoo.scenes import SCENE_CLASSES

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's, on loading a model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.model("v_prediction"), tmp_path_factory.mktemp("model"))


def raw(model: Path, masks: bool = False, **adapt: Any) -> dict[str, Any]:
    layout = "world_scenes" if masks else "world"
    return {
        "data": {"layout": layout, "train": {"options": {"count": 1, "size": 24}}},
        "model": {"path": str(model), "device": "cpu"},
        "adapt": {"steps": 4, "batch_size": 2, "learning_rate": 1e-2, "save_every": 2} | adapt,
        **({"segmentation": {}} if masks else {}),
    }


def recipe(model: Path, masks: bool = False, **adapt: Any) -> Recipe:
    return parse(raw(model, masks, **adapt))


@pytest.fixture(scope="module")
def own(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished LoRA."""
    folder = tmp_path_factory.mktemp("adapted") / "own"
    adapt(recipe(model), folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """All weights by their names."""
    found = sorted(folder.rglob("*.safetensors"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


WAYS = {
    "lora": ({"text_encoder": True, "ema_decay": 0.5, "mirror": True}, False),
    "full": ({"what": "full", "autoencoder": "decoder", "autoencoder_steps": 3}, False),
    "controlnet": ({"what": "controlnet", "warmup_steps": 2, "schedule": "cosine"}, True),
}


@pytest.mark.parametrize("what", WAYS)
def test_a_stopped_training_ends_as_an_uninterrupted_one(
    what: str, model: Path, tmp_path: Path
) -> None:
    settings, masks = WAYS[what]
    asked = recipe(model, masks, **settings)
    whole = adapt(asked, tmp_path / "whole")
    seen = []

    def stop(event: Event) -> None:
        seen.append(event)
        if event.phase == "train" and event.arm == "" and event.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(asked, tmp_path / "stopped", stop)
    assert not json.loads((tmp_path / "stopped" / "card.json").read_text())["finished"]
    went_on: list[Event] = []
    again = adapt(asked, tmp_path / "stopped", went_on.append)
    trained = [event for event in went_on if event.phase == "train"]
    assert [(event.done, event.total) for event in trained][-2:] == [(1, 2), (2, 2)]
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    assert again["losses"] == whole["losses"] and again["finished"]
    assert not list((tmp_path / "stopped").glob("*state*"))
    assert not list((tmp_path / "stopped").glob(".*"))
    (tmp_path / "stopped" / "state-left.safetensors").touch()  # killed while these were removed
    adapt(asked, tmp_path / "stopped")
    assert not list((tmp_path / "stopped").glob("*state*"))


def test_the_second_call_gives_the_card(own: Path, model: Path) -> None:
    before, seen = files(own), list[Event]()
    card = adapt(recipe(model, save_every=3), own, seen.append)
    assert {event.phase for event in seen} == {"read"} and files(own) == before
    assert card == json.loads((own / "card.json").read_text())
    assert card["settings"]["rank"] == 4 and card["settings"]["steps"] == 4
    assert card["data"]["images"] == len(card["data"]["classes"])
    assert card["model"]["revision"] == tiny.model("v_prediction").made_by()["revision"]
    assert "peft" in card["environment"] and card["environment"]["command"]
    learnt = contents(read_split(recipe(model).data, recipe(model).data.train))
    for place in (own, own / lora.FILE):
        assert generator.adapted_to(str(place)) == set(learnt.values())
    assert not generator.adapted_to(str(model)) and not generator.adapted_to("a/hub-id")


def test_a_lora_is_diffusers_and_ours(own: Path, model: Path) -> None:
    assert sorted(file.name for file in own.iterdir()) == ["card.json", lora.FILE]
    weights = load_file(own / lora.FILE)
    assert all(name.startswith("unet.") and "lora" in name for name in weights)
    pipeline = StableDiffusionPipeline.from_pretrained(model_index(model))
    pipeline.load_lora_weights(own)
    assert pipeline.get_active_adapters()

    def drawn(**more: Any) -> Any:
        spec = parse(raw(model) | {"model": {"path": str(model), **more}}).model
        return generator.Place.of(str(model)).load(spec, torch.device("cpu"))

    base, adapted = drawn(), drawn(lora=str(own))
    assert adapted.made_by()["loras"] == "own 1"
    differs = [
        name
        for (name, a), b in zip(
            base.unet.named_parameters(), adapted.unet.parameters(), strict=True
        )
        if not torch.equal(a, b)
    ]
    assert differs and all(".to_" in name for name in differs)
    size = base.noise_shape
    noise, text = (
        torch.randn(2, *size),
        torch.randn(2, 77, pipeline.unet.config.cross_attention_dim),
    )
    with torch.no_grad():
        theirs, ours, before = (
            of(noise, torch.tensor([7, 7]), text).sample
            for of in (pipeline.unet, adapted.unet, base.unet)
        )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert (ours - before).abs().max() > 1e-2
    half = drawn(lora=[{"path": str(own), "scale": 0.5}])
    assert half.made_by()["revision"] != adapted.made_by()["revision"]


def model_index(model: Path) -> Path:
    """So that diffusers reads the folder."""
    kinds = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "DDIMScheduler"}
    index: dict[str, Any] = {name: ["diffusers", kind] for name, kind in kinds.items()}
    kinds = {"text_encoder": "CLIPTextModel", "tokenizer": "CLIPTokenizer"}
    index |= {name: ["transformers", kind] for name, kind in kinds.items()}
    index |= {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
    index |= {name: [None, None] for name in ("safety_checker", "feature_extractor")}
    (model / "model_index.json").write_text(json.dumps(index))
    return model


def test_a_controlnet_is_diffusers_and_ours(model: Path, tmp_path: Path) -> None:
    asked = recipe(model, True, what="controlnet", steps=2)
    adapt(asked, tmp_path / "first")
    assert ControlNetModel.from_pretrained(tmp_path / "first").config.block_out_channels == [16, 32]
    check_fit(Control.load(tmp_path / "first"), tiny.model().unet, 4, 2)
    more = recipe(model, True, what="controlnet", steps=2, start=str(tmp_path / "first"))
    adapt(more, tmp_path / "second")
    assert files(tmp_path / "first") != files(tmp_path / "second")


def test_a_full_model_is_one_to_adapt_again(model: Path, tmp_path: Path) -> None:
    settings = {"what": "full", "steps": 2, "autoencoder": "whole", "autoencoder_steps": 2}
    card = adapt(recipe(model, **settings), tmp_path / "own")
    assert set(card["losses"]) == {"autoencoder", "denoiser"}
    StableDiffusionPipeline.from_pretrained(tmp_path / "own")
    adapt(recipe(tmp_path / "own", steps=1), tmp_path / "lora")


def test_a_recipe_is_told_by_its_loras(own: Path, model: Path, tmp_path: Path) -> None:
    def fingerprint(value: Any) -> str:
        given = raw(model)
        given["model"]["lora"] = value
        return parse(given).fingerprint

    weights = (own / lora.FILE).read_bytes()
    (tmp_path / "copy.safetensors").write_bytes(weights)
    (tmp_path / "other.safetensors").write_bytes(weights[:-1] + b"!")
    one = fingerprint(str(own))
    assert one == fingerprint([{"path": str(tmp_path / "copy.safetensors"), "scale": 1}])
    others = [fingerprint(None), fingerprint(str(tmp_path / "other.safetensors"))]
    others.append(fingerprint([{"path": str(own), "scale": 0.5}]))
    assert len({one, *others}) == 4
    assert recipe(model).fingerprint == recipe(model, steps=7).fingerprint  # of a run


@pytest.mark.parametrize(
    ("masks", "change", "said"),
    [
        (False, {"what": "lra"}, "unknown adapt.what 'lra'.*Did you mean 'lora'"),
        (False, {"rank": 0}, "adapt.rank must be at least 1; got 0"),
        (False, {"empty": 1.5}, "adapt.empty must be 0 to 1"),
        (False, {"start": "x"}, "adapt.start cannot be set with adapt.what 'lora'"),
        (False, {"autoencoder": "whole"}, "adapt.autoencoder cannot be set with adapt.what 'lora'"),
        (True, {"what": "controlnet", "text_encoder": True}, "adapt.text_encoder cannot be set"),
        (False, {"what": "controlnet"}, "a ControlNet learns from masks, and 'world' has none"),
        (False, {"targets": ["to_q", "to_w"]}, "unknown layer to adapt 'to_w'"),
        (True, {"what": "controlnet", "start": "./nowhere"}, "there is no folder './nowhere'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    masks: bool, change: dict, said: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        adapt(recipe(model, masks, **change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tiny_images_are_refused(model: Path, tmp_path: Path) -> None:
    for name, side in (("forest", 20), ("river", 7)):
        (tmp_path / "data" / "train" / name).mkdir(parents=True)
        picture = Image.fromarray(np.zeros((20, side, 3), np.uint8))
        picture.save(tmp_path / "data" / "train" / name / "0.png")
    given = raw(model) | {"data": {"layout": "image_folder", "path": str(tmp_path / "data")}}
    with pytest.raises(UserError, match=r"river/0.png has 7 x 20 pixels; images of at least 8 x 8"):
        adapt(parse(given), tmp_path / "out")


def test_masks_of_background_alone_are_refused(model: Path, tmp_path: Path) -> None:
    given = raw(model, True) | {"segmentation": {"background": SCENE_CLASSES}}
    with pytest.raises(UserError, match=r"no mask of .* but those of segmentation.background"):
        adapt(parse(given), tmp_path / "out")


def test_a_folder_of_something_else_is_refused(own: Path, model: Path) -> None:
    with pytest.raises(UserError, match=r"another adaptation: settings.rank was 4, is 2; give"):
        adapt(recipe(model, rank=2), own)
    with pytest.raises(UserError, match="holds something else"):
        adapt(recipe(model), model)


def test_another_controlnet_to_start_from_is_another_adaptation(
    model: Path, tmp_path: Path
) -> None:
    for seed in (2, 3):
        tiny.controlnet(seed).save_pretrained(tmp_path / f"start-{seed}")
    settings = {"what": "controlnet", "steps": 1}
    adapt(recipe(model, True, start=str(tmp_path / "start-2"), **settings), tmp_path / "own")
    with pytest.raises(UserError, match=r"another adaptation: controlnet.start was"):
        adapt(recipe(model, True, start=str(tmp_path / "start-3"), **settings), tmp_path / "own")


def test_a_state_of_another_training_is_refused(model: Path, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if event.phase == "train" and event.done == 3:
            raise KeyboardInterrupt

    for name, rank in (("a", 2), ("b", 4)):
        with pytest.raises(KeyboardInterrupt):
            adapt(recipe(model, rank=rank), tmp_path / name, stop)
    (tmp_path / "a" / "state-denoiser.safetensors").replace(
        tmp_path / "b" / "state-denoiser.safetensors"
    )
    with pytest.raises(UserError, match="is the state of another training"):
        adapt(recipe(model, rank=4), tmp_path / "b")


def pictures(real: Any, **settings: Any) -> Pictures:
    prompts = prompts_for(real.classes, words={"river": ["a river"]})
    made = AdaptSettings(**({"empty": 0.0, "batch_size": 3} | settings))
    none = frozenset({2})
    return Pictures.read(real, tiny.model(), made, prompts, 0, none, None, lambda *_: None)


def test_captions_list_the_classes_of_the_piece() -> None:
    mask = torch.zeros(16, 64, dtype=torch.uint8)
    mask[:, 32:] = 1
    mask[0, :] = 2  # the background
    image = mask.expand(3, -1, -1) * 100
    real = RealScenes("two", ("forest", "river", "table"), ("0",), lambda _: image, lambda _: mask)
    shown = pictures(real, crop=1.0)
    seen = {caption: piece for piece, caption, _ in (shown(step, 0) for step in range(60))}
    both = {"a photo of forest and a river", "a photo of a river and forest"}
    assert (
        {"a photo of forest", "a photo of a river"}
        <= set(seen)
        <= {
            "a photo of forest",
            "a photo of a river",
            *both,
        }
    )
    assert set(seen) & both
    assert seen["a photo of forest"][0, 1:].max() == 0
    assert seen["a photo of a river"][0, 1:].min() > 0.3


def test_every_image_is_seen_once_before_one_is_seen_again() -> None:
    real = RealImages(
        "five",
        ("forest", "river"),
        tuple("abcde"),
        (0, 0, 1, 1, 0),
        lambda index: torch.full((3, 16, 16), 50 * index, dtype=torch.uint8),
    )
    shown = pictures(real)
    drawn = [shown(step, place) for step in range(5) for place in range(3)]
    indices = [round(piece.mean().item() * 255 / 50) for piece, _, _ in drawn]
    for start in (0, 5, 10):
        assert sorted(indices[start : start + 5]) == list(range(5))
    assert indices[:5] != indices[5:10]
    for index, (_, caption, _) in zip(indices, drawn, strict=True):
        assert caption == "a photo of " + ("a river" if index in (2, 3) else "forest")
    assert {caption for _, caption, _ in (pictures(real, empty=1.0)(0, k) for k in range(3))} == {
        ""
    }
    kept = pictures(real).fingerprint
    assert kept == shown.fingerprint
    assert kept != pictures(real.subset([1, 0, 2, 3, 4])).fingerprint


def test_batches_follow_from_seed_and_step_and_can_be_shared() -> None:
    real = RealImages(
        "five",
        ("forest", "river"),
        tuple("abcde"),
        (0, 0, 1, 1, 0),
        lambda index: torch.full((3, 16, 16), 50 * index, dtype=torch.uint8),
    )
    batch = pictures(real).batches(tiny.model())
    whole, later = batch(1, 0, 1), batch(2, 0, 1)
    shares = [batch(1, process, 3) for process in range(3)]
    for part, *rows in zip(whole, *shares, strict=True):
        torch.testing.assert_close(torch.cat(rows), part)
    noise, level = whole[1:3]
    assert len(noise.flatten(1).unique(dim=0)) == 3 and len(level.unique()) == 3
    assert not torch.equal(noise, later[1]) and not torch.equal(level, later[2])
    assert abs(noise.mean()) < 0.3 and 0.7 < noise.std() < 1.3
