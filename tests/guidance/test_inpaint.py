"""Against diffusers' inpainting pipeline of the same parts."""

from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline

import tiny
from activegen.diffusion.levels import scheduler
from activegen.diffusion.sampling import Sampling, sample
from activegen.guidance import Background, Inpaint, ReferencePull

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
WORDS, SEEDS = ["river", "tv"], [3, 1]


@pytest.fixture(scope="module")
def model():
    return tiny.model()


def scene(model):
    """Latents of a real image, and an object in pixels whose border is that of latents."""
    rng = torch.Generator().manual_seed(0)
    real = torch.randn(2, *model.noise_shape, generator=rng)
    region = torch.zeros(2, 1, 16, 16)
    region[0, :, 2:10, 4:] = 1
    region[1, :, :6, :6] = 1
    return real, region


def pipelines(model, sampling: Sampling, real, region):
    """Final latents of diffusers' own loop."""
    made = StableDiffusionInpaintPipeline(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=scheduler(sampling.scheduler, model.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    seen = []
    made(
        [f"a photo of {word}" for word in WORDS],
        image=real,
        masked_image_latents=real,
        mask_image=region,
        height=16,
        width=16,
        strength=1.0,
        num_inference_steps=sampling.num_steps,
        guidance_scale=sampling.cfg_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        callback_on_step_end=lambda p, i, t, values: seen.append(values["latents"]) or {},
        output_type="latent",
    )
    return seen


# not unipc: in diffusers its corrector loses the blend, which ours keeps
@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "dpm++_2m", "lcm"])
def test_it_is_diffusers_blend(model, name):
    sampling = Sampling(5, 3.0, name)
    real, region = scene(model)
    batch = replace(tiny.batch(model, WORDS, SEEDS, sampling, real), region=region)
    drawn = sample(batch, [Inpaint()])
    expected = pipelines(model, sampling, real, region)
    torch.testing.assert_close(drawn.latents, expected[-1], **CLOSE)
    outside = region[..., ::2, ::2].expand_as(real) == 0
    assert torch.equal(drawn.latents[outside], real[outside])
    assert (drawn.latents - real)[~outside].abs().mean() > 0.1


def test_it_is_a_pull_without_an_end(model):
    real, region = scene(model)
    batch = replace(tiny.batch(model, WORDS, SEEDS, Sampling(4), real), region=region)
    pulled = sample(batch, [ReferencePull(Background(), until=float("inf"))])
    assert torch.equal(sample(batch, [Inpaint()]).latents, pulled.latents)
    assert [ReferencePull(until=float("inf")).weight(p) for p in (0.0, 0.999)] == [1.0, 1.0]
    half = ReferencePull(strength=0.5, until=float("inf"))
    assert half.weight(1.0) == 0.5
