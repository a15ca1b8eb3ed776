"""The adapter: folders in and out, classifier-free guidance, precision, pictures and latents."""

import json
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

import gaussian
import tiny
from activegen.diffusion.levels import Solver
from activegen.diffusion.model import DiffusionModel
from activegen.diffusion.sampling import Sampling, sample
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.records import UserError


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_adapters_meet_the_protocol():
    assert isinstance(tiny.model(), DiffusionModel)
    assert isinstance(gaussian.World(), DiffusionModel)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_folder_comes_back_the_same(tmp_path: Path, prediction: str):
    model = tiny.model(prediction)
    loaded = StableDiffusion.load(tiny.save(model, tmp_path / "toy"))
    assert loaded.name == "toy"
    assert loaded.made_by()["revision"] == model.made_by()["revision"]
    assert type(loaded.scheduler) is type(model.scheduler)
    words = ["river", "dining table"]
    torch.testing.assert_close(
        sample(tiny.batch(loaded, words)).images, sample(tiny.batch(model, words)).images
    )


def test_provenance_tells_models_apart():
    model = tiny.model()
    before = model.made_by()
    assert before == tiny.model().made_by()
    list(model.unet.parameters())[-1].data += 1e-3
    assert model.made_by()["revision"] != before["revision"]
    assert tiny.model("v_prediction").made_by()["revision"] != before["revision"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(tmp_path: Path, dtype: torch.dtype):
    model = tiny.model()
    half = StableDiffusion.load(tiny.save(model, tmp_path), dtype=dtype)
    assert half.unet.dtype == half.text_encoder.dtype == dtype
    assert half.vae.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    batch = tiny.batch(half, ["river", "forest"], sampling=Sampling(3, 2.0))
    drawn = sample(batch)
    assert drawn.latents.dtype == drawn.images.dtype == torch.float32
    expected = sample(tiny.batch(model, ["river", "forest"], sampling=Sampling(3, 2.0)))
    torch.testing.assert_close(drawn.latents, expected.latents, atol=0.1, rtol=0.1)
    assert half.encode(drawn.images).dtype == torch.float32
    z = noise(1, 4, 8, 8).requires_grad_()
    seen = half.denoise(z, half.condition(["a river"], ["river"]), batch.solver().levels[0], 3.0)
    (gradient,) = torch.autograd.grad(half.full(seen.clean).sum(), z)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_pickled_weights_are_refused(tmp_path: Path):
    folder = tiny.save(tiny.model(), tmp_path, safe=False)
    assert list(folder.rglob("*.bin"))
    with pytest.raises(UserError, match="safetensors"):
        StableDiffusion.load(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_one_pickled_part_is_refused(tmp_path: Path, part: str):
    folder = tiny.save(tiny.model(), tmp_path)
    (weights,) = (folder / part).glob("*.safetensors")
    torch.save(getattr(tiny.model(), part).state_dict(), tiny.pickle_path(part, folder))
    weights.unlink()
    with pytest.raises(UserError, match="safetensors"):
        StableDiffusion.load(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_said(tmp_path: Path, part: str):
    folder = tiny.save(tiny.model(), tmp_path)
    for file in (folder / part).iterdir():
        file.unlink()
    (folder / part).rmdir()
    with pytest.raises(UserError, match="cannot be loaded"):
        StableDiffusion.load(folder)


def test_damaged_weights_are_said(tmp_path: Path):
    folder = tiny.save(tiny.model(), tmp_path)
    (weights,) = (folder / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        StableDiffusion.load(folder)


def test_a_folder_whose_scheduler_does_not_say_or_says_yes_does_not_clip(tmp_path: Path):
    folder = tiny.save(tiny.model(), tmp_path)
    file = folder / "scheduler" / "scheduler_config.json"
    known = json.loads(file.read_text())
    for clip in ({}, {"clip_sample": True}):
        file.write_text(json.dumps({k: v for k, v in known.items() if k != "clip_sample"} | clip))
        assert StableDiffusion.load(folder).scheduler.config.clip_sample is False


def test_a_scheduler_that_nobody_knows_is_said(tmp_path: Path):
    folder = tiny.save(tiny.model(), tmp_path)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text().replace("DDIMScheduler", "NoSuchScheduler"))
    with pytest.raises(UserError, match="NoSuchScheduler"):
        StableDiffusion.load(folder)


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c"])
def test_a_missing_folder_is_said(path: str):
    with pytest.raises(UserError, match="no model at"):
        StableDiffusion.load(path)


def test_a_hub_id_without_a_network_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="no folder 'somebody/some-model' here"):
        StableDiffusion.load("somebody/some-model")


def test_other_families_are_refused():
    model = tiny.model()
    parts = (model.vae, model.text_encoder, model.tokenizer, model.scheduler)
    for change, what in (
        ({"time_cond_proj_dim": 8}, "embedded guidance scale"),
        ({"addition_embed_type": "text_time"}, "SDXL"),
        ({"in_channels": 8}, "other latents"),
        ({"cross_attention_dim": 48}, "another text encoder"),
    ):
        unet = tiny.model().unet
        unet.register_to_config(**change)
        with pytest.raises(UserError, match=what):
            StableDiffusion(unet, *parts)


def test_text_is_the_pipelines():
    model = tiny.model()
    prompts = ["a photo of a river", "a " * 100]
    conditioning = model.condition(prompts, ["river", "a"], "tv")
    text, negative = tiny.pipeline(model).encode_prompt(
        prompts, "cpu", 1, True, negative_prompt=["tv", "tv"]
    )
    torch.testing.assert_close(conditioning.text, text)
    torch.testing.assert_close(conditioning.negative, negative)
    assert not conditioning.text.is_inference() and not conditioning.text.requires_grad


def test_guidance_is_linear_in_its_scale_and_off_at_1():
    model = tiny.model()
    conditioning = model.condition(["a photo of a river"], ["river"], "tv")
    negative = model.condition(["tv"], ["tv"])
    level, z = Solver(model.scheduler, 4).levels[1], noise(1, 4, 8, 8)
    with torch.no_grad():
        prompt = model.denoise(z, conditioning, level, 1.0).output
        without = model.denoise(z, negative, level, 1.0).output
        guided = model.denoise(z, conditioning, level, 4.0).output
    torch.testing.assert_close(guided, without + 4 * (prompt - without), atol=1e-5, rtol=1e-4)
    assert (prompt - without).abs().amax() > 1e-3


def test_weights_are_frozen_and_dropout_is_off():
    model = tiny.model()
    for part in (model.unet, model.vae, model.text_encoder):
        assert not part.training
        assert not any(p.requires_grad for p in part.parameters())


def test_encoding_is_the_autoencoders_mode_and_resizes_others():
    model = tiny.model()
    images = noise(2, 3, 16, 16).sigmoid()
    latents = model.encode(images)
    with torch.no_grad():
        expected = model.vae.encode(images * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(latents, expected * model.vae.config.scaling_factor)
    assert model.encode(noise(1, 3, 50, 33).sigmoid()).shape == (1, *model.noise_shape)


def test_pictures_of_another_size_are_the_pipelines():
    size = (48, 24)  # latents of 24 by 12
    model = tiny.model(size=size)
    assert model.noise_shape == (4, 24, 12)
    assert model.encode(noise(1, 3, 30, 30).sigmoid()).shape == (1, 4, 24, 12)
    sampling = Sampling(3, 3.0)
    batch = tiny.batch(model, ["river", "tv"], sampling=sampling)
    drawn = sample(batch)
    assert drawn.images.shape == (2, 3, *size)
    expected = tiny.pipeline(model, type(model.scheduler).from_config(model.scheduler.config))(
        ["a photo of river", "a photo of tv"],
        num_inference_steps=3,
        guidance_scale=3.0,
        latents=batch.noise,
        height=size[0],
        width=size[1],
        output_type="pt",
    ).images
    torch.testing.assert_close(drawn.images, expected, atol=1e-4, rtol=1e-4)
    assert model.made_by()["revision"] != tiny.model().made_by()["revision"]


def test_size_by_path(tmp_path: Path):
    folder = tiny.save(tiny.model(), tmp_path)
    assert StableDiffusion.load(folder, size=(16, 26)).noise_shape == (4, 8, 13)
    assert StableDiffusion.load(folder).size == (16, 16)


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((16, 17), "16 by 16 and 16 by 18"),
        ((31, 33), "30 by 32 and 32 by 34"),
        ((0, 16), "2 by 16 and 2 by 16"),
    ],
)
def test_sizes_that_are_no_whole_latents_are_said(size: tuple[int, int], nearest: str):
    with pytest.raises(UserError, match=f"the nearest that do are {nearest}"):
        tiny.model(size=size)


@pytest.mark.parametrize(
    ("latents", "maps"),
    [(4, 4), (8, 8), (16, 8), (32, 8), (64, 16), (96, 24), (128, 32), (12, 12), (20, 10), (65, 17)],
)
def test_maps_are_a_quarter_of_the_height_and_not_under_8(latents: int, maps: int):
    assert tiny.model(size=(2 * latents, 16)).attention_size == maps


@pytest.mark.parametrize("size", [(24, 40), (40, 24), (34, 18), (18, 42)])
def test_maps_of_other_sizes_are_found(size: tuple[int, int]):
    model = tiny.model(size=size)
    conditioning = model.condition(["a photo of a river"], ["river"])
    z = noise(1, *model.noise_shape)
    maps = model.denoise(z, conditioning, Solver(model.scheduler, 4).levels[1], 3.0, True).attention
    assert maps is not None and maps.shape[1] == model.attention_size
    ratio = maps.shape[1] / z.shape[2]
    assert maps.shape[2] == pytest.approx(z.shape[3] * ratio, abs=0.6)
