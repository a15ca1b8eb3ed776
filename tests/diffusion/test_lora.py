"""A LoRA draws alike in diffusers' pipeline and in our sampler; one that does not fit is told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from safetensors.torch import load_file, save_file

import tiny
from activegen.diffusion import lora
from activegen.diffusion.lora import Lora
from activegen.diffusion.sampling import Sampling, sample
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.records import UnknownWord, UserError
from activegen.zoo import LAND_COVER_SCENES

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's, on loading


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.model(prediction="v_prediction"), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In denoiser and text encoder, of visible size."""
    folder, model = tmp_path_factory.mktemp("lora"), StableDiffusion.load(base)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lora.add(model.unet, 2, lora.TARGETS)
        lora.add(model.text_encoder, 2, lora.TEXT_TARGETS)
        for part in (model.unet, model.text_encoder):
            for parameter in part.parameters():
                if parameter.requires_grad:
                    torch.nn.init.normal_(parameter, std=0.2)
    lora.save(folder, model.unet, model.text_encoder)
    return folder


def picture(model: StableDiffusion) -> torch.Tensor:
    batch = tiny.batch(model, ["forest"], [3], Sampling(num_steps=3, cfg_scale=2.0))
    return sample(batch).images


@pytest.fixture(scope="module")
def stronger(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an alpha of twice its rank, which diffusers writes into the file's metadata."""
    folder, saved = tmp_path_factory.mktemp("stronger"), load_file(trained / lora.FILE)
    given: dict[str, Any] = {}
    for part, targets in (("unet", lora.TARGETS), ("text_encoder", lora.TEXT_TARGETS)):
        own = {name: x for name, x in saved.items() if name.startswith(part)}
        given[f"{part}_lora_layers"] = {name.removeprefix(f"{part}."): x for name, x in own.items()}
        config = LoraConfig(r=2, lora_alpha=4, target_modules=list(targets))
        given[f"{part}_lora_adapter_metadata"] = config.to_dict()
    StableDiffusionPipeline.save_lora_weights(folder, **given)
    return folder


@pytest.mark.parametrize(("file", "scale"), [("trained", 1.0), ("trained", 0.4), ("stronger", 1.0)])
def test_diffusers_draws_the_same(
    base: Path, file: str, scale: float, request: pytest.FixtureRequest
) -> None:
    trained: Path = request.getfixturevalue(file)
    ours = picture(StableDiffusion.load(base, loras=[Lora.load(trained, scale)]))
    plain = StableDiffusion.load(base)
    noise = tiny.batch(plain, ["forest"], [3]).noise
    pipeline = tiny.pipeline(plain)
    pipeline.load_lora_weights(trained, adapter_name="own")
    pipeline.set_adapters("own", scale)
    theirs = pipeline(
        "a photo of forest", num_inference_steps=3, guidance_scale=2.0, latents=noise,
        output_type="pt",
    ).images  # fmt: skip
    assert (ours - theirs).abs().max() < 1e-4
    assert (ours - picture(StableDiffusion.load(base))).abs().max() > 1e-2


def test_scale_0_is_the_base(base: Path, trained: Path) -> None:
    without = StableDiffusion.load(base)
    nothing = StableDiffusion.load(base, loras=[Lora.load(trained, 0.0)])
    assert torch.equal(picture(nothing), picture(without))


def test_two_add_up(base: Path, trained: Path) -> None:
    twice = StableDiffusion.load(base, loras=[Lora.load(trained, 0.25), Lora.load(trained, 0.15)])
    once = StableDiffusion.load(base, loras=[Lora.load(trained, 0.4)])
    assert (picture(twice) - picture(once)).abs().max() < 1e-4


def test_provenance_has_content_and_scale(base: Path, trained: Path, tmp_path: Path) -> None:
    def made_by(folder: Path, scale: float) -> dict[str, str]:
        return StableDiffusion.load(base, loras=[Lora.load(folder, scale)]).made_by()

    weights = load_file(trained / lora.FILE)
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + 1}, tmp_path / "other.safetensors")
    revisions = {
        made_by(trained, 1.0)["revision"],
        made_by(trained, 0.5)["revision"],
        made_by(tmp_path, 1.0)["revision"],
        StableDiffusion.load(base).made_by()["revision"],
    }
    assert len(revisions) == 4
    assert made_by(tmp_path / "other.safetensors", 0.5)["loras"] == "other 0.5"
    assert "loras" not in StableDiffusion.load(base).made_by()


def test_half_precision_has_the_change_too(base: Path, trained: Path) -> None:
    half = StableDiffusion.load(base, dtype=torch.bfloat16, loras=[Lora.load(trained)])
    whole = StableDiffusion.load(base, loras=[Lora.load(trained)])
    assert half.unet.dtype == torch.bfloat16
    for ours, exact in zip(half.unet.parameters(), whole.unet.parameters(), strict=True):
        assert torch.equal(ours, exact.bfloat16())


def test_one_that_does_not_fit_is_told(
    base: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def load(weights: dict[str, torch.Tensor]) -> None:
        save_file(weights, tmp_path / "own.safetensors")
        StableDiffusion.load(base, loras=[Lora.load(tmp_path)])

    weights = load_file(trained / lora.FILE)
    wide = {name: torch.cat([x, x], 1) if "lora_A" in name else x for name, x in weights.items()}
    with pytest.raises(UserError, match=r"'own' does not fit the model .size mismatch"):
        load(wide)
    moved = {name.replace("mid_block", "no_block"): x for name, x in weights.items()}
    with pytest.raises(UserError, match=r"does not fit the model .of its .* numbers"):
        load(moved)
    with pytest.raises(UserError, match=r"no LoRA: it has 'conv_in.weight'"):
        load({"conv_in.weight": torch.zeros(1)})
    assert "no_block" not in capfd.readouterr().err


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'nowhere' is not there"):
        Lora.load("nowhere")
    with pytest.raises(UserError, match="has 0 safetensors files"):
        Lora.load(tmp_path)
    (tmp_path / lora.FILE).write_bytes(b"no")
    with pytest.raises(UserError, match="holds no safetensors weights"):
        Lora.load(tmp_path)
    save_file({"lora": torch.zeros(1)}, tmp_path / "lora.bin")
    with pytest.raises(UserError, match=r"only if its name ends in \.safetensors"):
        Lora.load(tmp_path / "lora.bin")


def test_the_file_is_small_beside_the_model(tmp_path: Path) -> None:
    model = StableDiffusion.load(LAND_COVER_SCENES)
    lora.add(model.unet, 4, lora.TARGETS)
    lora.add(model.text_encoder, 4, lora.TEXT_TARGETS)
    lora.save(tmp_path, model.unet, model.text_encoder)
    parts = ("unet", "vae", "text_encoder")
    whole = [file for part in parts for file in (LAND_COVER_SCENES / part).glob("*.safetensors")]
    assert (tmp_path / lora.FILE).stat().st_size < 0.05 * sum(of.stat().st_size for of in whole)


def test_layers_that_are_not_there() -> None:
    with pytest.raises(UnknownWord, match=r"unknown layer to adapt 'to_w'.*Did you mean 'to_v'"):
        lora.add(tiny.model().unet, 4, ("to_q", "to_w"))
