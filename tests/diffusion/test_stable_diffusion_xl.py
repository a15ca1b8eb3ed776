"""SDXL: diffusers' own pipelines of the same parts, words, gradients, folders, and relatives."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    ControlNetModel,
    MultiControlNetModel,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModelWithProjection

import tiny
from activegen.diffusion.adapting import adapt_full
from activegen.diffusion.attention import Reading
from activegen.diffusion.control import Control
from activegen.diffusion.levels import Solver, scheduler
from activegen.diffusion.lora import Lora
from activegen.diffusion.model import Conditioning, DiffusionModel
from activegen.diffusion.sampling import Batch, Sampling, sample, seeded
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.diffusion.stable_diffusion_xl import StableDiffusionXL
from activegen.records import UserError

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
WORDS = ["river", "dining table", "tv"]
SEEDS = [3, 1, 1_000_005]
SIDE = 32  # of the pictures


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def batch(
    model: StableDiffusionXL, sampling: Sampling, count: int, control: Sequence[Tensor] = ()
) -> Batch:
    start, rngs = seeded(SEEDS[:count], model.noise_shape)
    prompts = [f"a photo of {word}" for word in WORDS[:count]]
    said = model.condition(prompts, WORDS[:count], sampling.negative_prompt, control)
    return Batch(model, sampling, start, rngs, said, torch.arange(count))


def pipelines(
    kind: Any, model: StableDiffusionXL, sampling: Sampling, count: int, **rest: Any
) -> Tensor:
    """Pictures, or final latents, of diffusers' own loop."""
    parts = tiny.xl_parts(model, scheduler(sampling.scheduler, model.scheduler.config))
    nets = [control.net for control in model.controls]
    if nets:
        parts["controlnet"] = nets[0] if len(nets) == 1 else MultiControlNetModel(nets)
    made = kind(**parts)
    made.set_progress_bar_config(disable=True)
    return made(
        [f"a photo of {word}" for word in WORDS[:count]],
        negative_prompt=[sampling.negative_prompt] * count if sampling.negative_prompt else None,
        num_inference_steps=sampling.num_steps,
        guidance_scale=sampling.cfg_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS[:count]],
        **({"output_type": "pt"} | rest),
    ).images


RUNS = [(1, 5.0, "a tv"), (3, 5.0, ""), (3, 1.0, ""), (1, 1.0, "a tv")]


def level(model: StableDiffusion, index: int = 1) -> Any:
    return Solver(model.scheduler, 4).levels[index]


def test_the_adapter_meets_the_protocol():
    assert isinstance(tiny.xl(), DiffusionModel)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_without_terms_we_are_the_pipeline(name: str, prediction: str):
    model = tiny.xl(prediction)
    for count, cfg_scale, negative in RUNS:
        sampling = Sampling(3, cfg_scale, name, negative)
        drawn = sample(batch(model, sampling, count)).images
        expected = pipelines(StableDiffusionXLPipeline, model, sampling, count)
        torch.testing.assert_close(drawn, expected, **CLOSE)
        assert drawn.std() > 1e-2


def test_an_empty_negative_prompt_is_zeros_or_a_text_as_the_model_wants_it():
    sampling, drawn = Sampling(2, 5.0, "ddim"), []
    for zeros in (True, False):
        model = tiny.xl(zeros=zeros)
        said = model.condition(["a river"], ["river"])
        assert (said.negative.abs().sum() == 0) == (said.negative_pooled.abs().sum() == 0) == zeros
        drawn.append(sample(batch(model, sampling, 2)).images)
        expected = pipelines(StableDiffusionXLPipeline, model, sampling, 2)
        torch.testing.assert_close(drawn[-1], expected, **CLOSE)
        told = model.condition(["a river"], ["river"], "tv")
        assert told.negative.abs().sum() > 0 and told.negative_pooled.abs().sum() > 0
    assert not torch.allclose(*drawn, atol=1e-3)


def test_the_denoiser_is_told_the_pictures_size():
    model, sampling = tiny.xl(size=(40, 24)), Sampling(2, 3.0, "ddim")
    drawn = sample(batch(model, sampling, 2)).images
    assert drawn.shape == (2, 3, 40, 24)
    expected = pipelines(StableDiffusionXLPipeline, model, sampling, 2, height=40, width=24)
    torch.testing.assert_close(drawn, expected, **CLOSE)
    lied = pipelines(
        StableDiffusionXLPipeline, model, sampling, 2, height=40, width=24, original_size=(24, 40)
    )
    assert (lied - expected).abs().amax() > 1e-3


def net(seed: int, **changes: Any) -> ControlNetModel:
    return tiny.controlnet(seed, **(tiny.XL | changes))


CASES = {
    "one": [Control(net(2), 0.8)],
    "guess in a window": [Control(net(2), guess=True, stop=0.7)],
    "two": [Control(net(2), 0.5), Control(net(5), 0.9)],
}


@pytest.mark.parametrize("case", CASES)
def test_with_controls_we_are_the_pipeline(case: str):
    controls = CASES[case]
    model = tiny.xl(controls=controls)
    seen = [pictures(3, i) for i in range(len(controls))]
    one = len(controls) == 1
    for count, cfg_scale, negative in RUNS[:3] if one else RUNS[1:2]:
        sampling = Sampling(3, cfg_scale, "ddim", negative)
        shown = [picture[:count] for picture in seen]
        drawn = sample(batch(model, sampling, count, shown))
        scales = [control.scale for control in controls]
        expected = pipelines(
            StableDiffusionXLControlNetPipeline,
            model,
            sampling,
            count,
            image=shown[0] if one else shown,
            controlnet_conditioning_scale=scales[0] if one else scales,
            guess_mode=controls[0].guess,
            control_guidance_end=[control.stop for control in controls],
        )
        torch.testing.assert_close(drawn.images, expected, **CLOSE)
    plain = sample(batch(tiny.xl(), sampling, count))
    assert (plain.images - drawn.images).abs().amax() > 1e-3


def test_a_denoiser_that_inpaints_is_the_pipeline():
    model, sampling = tiny.xl(channels=9), Sampling(3, 5.0, "ddim", "a tv")
    images, masks = pictures(2), torch.zeros(2, 1, SIDE, SIDE)
    masks[0, :, 4:20, 6:30], masks[1, :, :16] = 1, 1
    shown = batch(model, sampling, 2)
    extra = model.inpainting(images, masks, shown.fresh_rngs())
    drawn = sample(replace(shown, conditioning=replace(shown.conditioning, extra=extra)))
    expected = pipelines(
        StableDiffusionXLInpaintPipeline,
        model,
        sampling,
        2,
        image=images,
        mask_image=masks,
        height=SIDE,
        width=SIDE,
        strength=1.0,
        output_type="latent",
    )
    torch.testing.assert_close(drawn.latents, expected, **CLOSE)


class Keeping(AttnProcessor):
    """Diffusers' plain processor that keeps the probabilities of the text."""

    def __init__(self, kept: list[Tensor]):
        super().__init__()
        self.kept = kept

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *rest, **more):
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        scores = attn.get_attention_scores(query, key)
        self.kept.append(scores.unflatten(0, (-1, attn.heads)).mean(1))
        return super().__call__(attn, hidden_states, encoder_hidden_states, *rest, **more)


def test_attention_is_found_by_token_ids():
    model = tiny.xl()
    assert model.attention_size == 8  # the finest that sees the text
    prompts, words = ["a photo of a dining table", "a tv by the river"], ["dining table", "river"]
    said, z = model.condition(prompts, words, "a tv"), noise(2, *model.noise_shape)
    with torch.no_grad():
        found = model.denoise(z, said, level(model), 3.0, attention=True).attention
    kept: list[Tensor] = []
    for name, module in model.unet.named_modules():
        if name.endswith("attn2") and not name.startswith("mid_block"):
            module.set_processor(Keeping(kept))
    with torch.no_grad():
        model.denoise(z, said, level(model), 3.0)
    layers = torch.stack([p[2:] for p in kept if p.shape[1] == 64])  # the half with the prompt
    assert len(layers) == 3  # one on the way down, two on the way up
    for map_, shares, prompt, word in zip(found, layers.mean(0), prompts, words, strict=True):
        ids = model.tokenizer_2(prompt)["input_ids"]
        wanted = model.tokenizer_2(word, add_special_tokens=False)["input_ids"]
        at = next(i for i in range(len(ids)) if ids[i : i + len(wanted)] == wanted)
        expected = shares[:, at : at + len(wanted)].mean(1).unflatten(0, (8, 8))
        torch.testing.assert_close(map_, expected, atol=1e-6, rtol=1e-4)


def test_all_layers_with_text_are_read():
    model = tiny.xl()
    words = model.words(["a photo of a river"], [["river"]])
    reading = Reading(words, sizes="all", self_attention=8)
    said = model.condition(["a photo of a river"], ["river"])
    with torch.no_grad():
        maps = model.denoise(
            noise(1, *model.noise_shape), said, level(model), 3.0, reading=reading
        ).maps
    assert [m.shape for m in maps.words] == [(1, 1, 8, 8), (1, 1, 4, 4)]
    assert maps.layers == (3, 6)
    assert maps.self_attention.shape == (1, 8, 8, 8, 8)
    text = model.words(["a river"], [["river"]], attribution=True).text
    assert text.shape == (1, 77, tiny.WIDTH + tiny.WIDTH_2)


def test_attention_at_the_finest_level_is_not_there():
    model = tiny.xl()
    model.attention_size = 16
    said = model.condition(["a river"], ["river"])
    with pytest.raises(UserError, match="no text attention at 16 pixels"):
        model.denoise(noise(1, *model.noise_shape), said, level(model), 3.0, attention=True)


@pytest.mark.parametrize("branch", ["both", "conditional"])
def test_gradients_reach_latents_and_text(branch: str):
    model = tiny.xl(controls=CASES["guess in a window"])
    said = model.condition(["a photo of a river"] * 2, ["river"] * 2, "a tv", [pictures(2)])
    text = said.text.clone().requires_grad_()
    z = noise(2, *model.noise_shape).requires_grad_()
    seen = model.denoise(z, said.with_text(text), level(model), 3.0, branch=branch)
    gradients = torch.autograd.grad(seen.clean.square().sum(), (z, text))
    for gradient in gradients:
        assert gradient.isfinite().all() and (gradient.flatten(1).norm(dim=1) > 0).all()
    assert gradients[1][..., tiny.WIDTH :].abs().sum() > 0  # also of the second encoder
    with torch.no_grad():
        plain = model.denoise(z, said, level(model), 3.0).output
    torch.testing.assert_close(seen.output, plain, atol=1e-5, rtol=1e-4)


def test_other_text_leaves_the_pooled_states():
    said = tiny.xl().condition(["a river"], ["river"])
    other = said.with_text(said.text + 1)
    assert other.pooled is said.pooled and other.negative_pooled is said.negative_pooled
    assert not said.pooled.requires_grad


def test_rows_keep_their_own_pooled_states():
    model = tiny.xl()
    said = model.condition(["a photo of a river", "a tv", "table"], ["", "", ""], "forest")
    z, rows = noise(3, *model.noise_shape), torch.tensor([2, 0])
    with torch.no_grad():
        whole = model.denoise(z, said, level(model), 3.0).output
        part = model.denoise(z[rows], said.of(rows), level(model), 3.0).output
        mixed = replace(said, pooled=said.pooled[[1, 2, 0]])
        other = model.denoise(z, mixed, level(model), 3.0).output
    torch.testing.assert_close(part, whole[rows], atol=1e-5, rtol=1e-4)
    assert ((other - whole).flatten(1).abs().amax(1) > 1e-3).all()


def test_conditioning_of_another_family_is_said():
    model = tiny.xl()
    said = model.condition(["a river"], ["river"])
    bare = Conditioning(said.text, said.negative, said.focus)
    with pytest.raises(UserError, match="wants pooled states"):
        model.denoise(noise(1, *model.noise_shape), bare, level(model), 3.0)


@pytest.mark.parametrize("zeros", [True, False])
def test_a_pipelines_folder_comes_back_the_same(tmp_path: Path, zeros: bool):
    model = tiny.xl("v_prediction", zeros=zeros)
    loaded = StableDiffusionXL.load(tiny.save_xl(model, tmp_path / "toy"))
    assert loaded.name == "toy" and loaded.zeros == zeros
    assert loaded.made_by()["revision"] == model.made_by()["revision"]
    assert (
        loaded.made_by()["revision"]
        != tiny.xl("v_prediction", zeros=not zeros).made_by()["revision"]
    )
    sampling = Sampling(2, 3.0)
    torch.testing.assert_close(
        sample(batch(loaded, sampling, 2)).images, sample(batch(model, sampling, 2)).images
    )


def test_provenance_sees_the_second_encoder():
    model = tiny.xl()
    before = model.made_by()["revision"]
    list(model.text_encoder_2.parameters())[-1].data += 1e-3
    assert model.made_by()["revision"] != before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_an_autoencoder_that_overflows(tmp_path: Path, dtype: torch.dtype):
    model = tiny.xl()
    assert model.vae.config.force_upcast
    folder = tiny.save_xl(model, tmp_path / "toy")
    half = StableDiffusionXL.load(folder, dtype=dtype)
    assert half.unet.dtype == half.text_encoder.dtype == half.text_encoder_2.dtype == dtype
    assert half.vae.dtype == torch.float32
    sampling = Sampling(3, 2.0)
    drawn, expected = (sample(batch(each, sampling, 2)) for each in (half, model))
    assert drawn.latents.dtype == drawn.images.dtype == torch.float32
    torch.testing.assert_close(drawn.latents, expected.latents, atol=0.1, rtol=0.1)
    z = noise(1, *model.noise_shape).requires_grad_()
    seen = half.denoise(z, half.condition(["a river"], ["river"]), level(half), 3.0)
    (gradient,) = torch.autograd.grad(half.full(seen.clean).sum(), z)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    config = folder / "vae" / "config.json"
    config.write_text(config.read_text().replace('"force_upcast": true', '"force_upcast": false'))
    safe = StableDiffusionXL.load(folder, dtype=dtype).vae.dtype
    assert safe == (torch.float32 if dtype == torch.bfloat16 else dtype)


def test_frozen():
    model = tiny.xl()
    for part in (model.unet, model.vae, model.text_encoder, model.text_encoder_2):
        assert not part.training and not any(p.requires_grad for p in part.parameters())


def test_relatives_are_refused():
    def parts(model: StableDiffusionXL, **changes: Any) -> dict[str, Any]:
        names = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
        return {name: getattr(model, name) for name in (*names, "scheduler")} | changes

    model, small = tiny.xl(), tiny.model()
    other = tiny.tokenizer()
    other.add_tokens(["<river>"])
    narrow, flat = (
        CLIPTextModelWithProjection(tiny.text_config(model.tokenizer_2, width, 2, pooled))
        for width, pooled in ((tiny.WIDTH, tiny.POOLED), (tiny.WIDTH_2, 16))
    )
    shifted = tiny.autoencoder(16, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    for changes, said in (
        ({"unet": small.unet}, "wants nothing besides the text"),
        ({"text_encoder_2": narrow}, "another text encoder"),
        ({"text_encoder_2": flat}, "other pooled states or other sizes"),
        ({"tokenizer_2": other}, "two tokenizers"),
        ({"tokenizer_2": tiny.tokenizer(20)}, "two tokenizers"),
        ({"vae": shifted}, "a mean and a spread"),
    ):
        with pytest.raises(UserError, match=said):
            StableDiffusionXL(**parts(model, **changes))
    with pytest.raises(UserError, match="wants text_time besides the text"):
        StableDiffusion(model.unet, model.vae, model.text_encoder, model.tokenizer, model.scheduler)
    with pytest.raises(UserError, match="does not fit the denoiser"):
        tiny.xl(controls=[Control(tiny.controlnet())])
    with pytest.raises(UserError, match="its projection_class_embeddings_input_dim is 64"):
        tiny.xl(controls=[Control(net(2, projection_class_embeddings_input_dim=64))])


def test_loras_and_training_are_refused(tmp_path: Path):
    folder = tiny.save_xl(tiny.xl(), tmp_path / "toy")
    with pytest.raises(UserError, match="takes no LoRA"):
        StableDiffusionXL.load(folder, loras=[Lora({})])
    with pytest.raises(UserError, match="SDXL family, which cannot be adapted"):
        adapt_full(tiny.xl(), text_encoder=False)


@pytest.mark.parametrize("part", ["text_encoder_2", "tokenizer_2", "vae"])
def test_a_missing_part_is_said(tmp_path: Path, part: str):
    folder = tiny.save_xl(tiny.xl(), tmp_path / "toy")
    (folder / part).rename(tmp_path / "away")
    with pytest.raises(UserError, match="cannot be loaded"):
        StableDiffusionXL.load(folder)
