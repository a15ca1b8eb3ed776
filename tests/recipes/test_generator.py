"""SDXL by the same recipe key as the other family: its checks, its fingerprint, its adapter."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from activegen.data.prompts import prompts_for
from activegen.diffusion.sampling import Sampling, sample
from activegen.diffusion.stable_diffusion_xl import StableDiffusionXL
from activegen.recipes import generator
from activegen.recipes.schema import ControlSpec, ModelSpec
from activegen.records import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save_xl(tiny.xl(), tmp_path / "model")


def test_the_adapter_is_loaded_with_its_controls(folder: Path, tmp_path: Path):
    net = tiny.controlnet(2, **tiny.XL)
    net.save_pretrained(tmp_path / "net")
    place = generator.Place.of(str(folder))
    place.check()
    spec = ModelSpec(path=str(folder), dtype="float32", size=(24, 40))
    model = place.load(spec, torch.device("cpu"), [ControlSpec(path=str(tmp_path / "net"))])
    assert isinstance(model, StableDiffusionXL)
    seen = [torch.rand(1, 3, 24, 40)]
    said = model.condition(["a photo of a river"], ["river"], control=seen)
    batch = tiny.batch(tiny.xl(size=(24, 40)), ["river"], sampling=Sampling(2, 3.0))
    assert sample(replace(batch, model=model, conditioning=said)).images.shape == (1, 3, 24, 40)


def test_the_first_tokenizer_checks_prompts(folder: Path):
    tokenizer = generator.Place.of(str(folder)).tokenizer()
    assert tokenizer.pad_token != "!"
    prompts = prompts_for(["river"], ["a " * 80 + "{word}"])
    with pytest.raises(UserError, match="class 'river'"):
        generator.check_prompts(tokenizer, prompts, ["river"])


def test_a_tokenizer_without_words_is_said(folder: Path):
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"has no tokenizer: vocab\.json and merges\.txt are"):
        generator.Place.of(str(folder)).tokenizer()


def test_what_the_embedded_generator_was_not_taught_is_told_once(
    folder: Path, caplog: pytest.LogCaptureFixture
):
    words = {"Forest": ("a Forest",), "dog": ("a dog",), "fire truck": ("fire truck", "truck")}
    generator.warn_untaught(generator.Place.of(str(folder)), words)
    generator.warn_untaught(generator.Place.of("embedded"), {"River": ("a stream",)})
    assert not caplog.records
    for _ in range(2):
        generator.warn_untaught(generator.Place.of("embedded"), words)
    [told] = [record.getMessage() for record in caplog.records]
    assert "not taught: dog, fire truck. " in told


def test_a_second_encoder_that_is_missing_or_damaged_is_said(folder: Path, tmp_path: Path):
    (weights,) = (folder / "text_encoder_2").glob("*.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(UserError, match="is damaged"):
        generator.Place.of(str(folder)).check()
    weights.unlink()
    with pytest.raises(UserError, match=r"no safetensors weights in .*text_encoder_2"):
        generator.Place.of(str(folder)).check()
    (folder / "text_encoder_2").rename(tmp_path / "away")
    with pytest.raises(UserError, match=r"text_encoder_2/config\.json is missing"):
        generator.Place.of(str(folder)).check()


def test_the_fingerprint_sees_what_the_family_has_more(folder: Path):
    def of() -> str:
        return generator.Place.of(str(folder)).fingerprint

    seen = [of()]
    model = tiny.xl()
    list(model.text_encoder_2.parameters())[-1].data += 1
    model.text_encoder_2.save_pretrained(folder / "text_encoder_2")
    seen.append(of())
    index = folder / "model_index.json"
    told = json.loads(index.read_text()) | {"force_zeros_for_empty_prompt": False}
    index.write_text(json.dumps(told))
    seen.append(of())
    model.tokenizer_2.pad_token = "?"
    model.tokenizer_2.save_pretrained(folder / "tokenizer_2")
    seen.append(of())
    index.write_text(json.dumps(told | {"_diffusers_version": "0"}))
    assert len(set(seen)) == 4 and of() == seen[-1]
