"""Decoders against the pipeline, and the linear map against one that is known."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import tiny
from activegen.diffusion.decoders import Decoder, FullDecoder, LinearDecoder, TinyDecoder
from activegen.records import UserError


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_full_decoder_is_the_pipelines():
    model, latents = tiny.model(), noise(2, 4, 8, 8)
    images = tiny.pipeline(model)(
        prompt_embeds=torch.zeros(2, 77, tiny.WIDTH),
        latents=latents,
        num_inference_steps=1,
        guidance_scale=1.0,
        output_type="latent",
    ).images
    pipeline = tiny.pipeline(model)
    decoded = pipeline.vae.decode(images / pipeline.vae.config.scaling_factor).sample
    expected = pipeline.image_processor.postprocess(decoded, output_type="pt")
    torch.testing.assert_close(model.decode(images), expected)
    torch.testing.assert_close(FullDecoder(model.vae)(images).clamp(0, 1), expected)
    assert model.decode(latents * 100).amin() >= 0 and model.decode(latents * 100).amax() <= 1


@pytest.mark.parametrize("patch", [2, 8])
def test_the_fit_finds_a_linear_map_exactly(patch: int):
    rng = torch.Generator().manual_seed(1)
    true = LinearDecoder(
        torch.randn(3 * patch**2, 4 * 9, generator=rng),
        torch.randn(3 * patch**2, generator=rng),
        patch,
    )
    latents = noise(8, 4, 6, 5)
    found = LinearDecoder.fit(latents, true(latents))
    assert found.patch == patch
    torch.testing.assert_close(found.weight, true.weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.bias, true.bias, atol=1e-4, rtol=1e-4)
    fresh = noise(1, 4, 3, 7)
    torch.testing.assert_close(found(fresh), true(fresh), atol=1e-3, rtol=1e-4)


def test_the_linear_decoder_by_hand():
    """A weight at the centre of the neighbourhood alone is a nearest-neighbour upscaling."""
    weight = torch.zeros(3, 2, 2, 3, 9)  # colour, pixel of the patch, channel, neighbour
    for colour in range(3):
        weight[colour, :, :, colour, 4] = 1.0
    decoder = LinearDecoder(weight.reshape(12, 27), torch.full((12,), 0.5), 2)
    latents = noise(2, 3, 4, 5)
    expected = F.interpolate(latents, scale_factor=2, mode="nearest") + 0.5
    torch.testing.assert_close(decoder(latents), expected)


def test_a_fit_to_few_pairs_is_finite():
    latents = torch.zeros(1, 4, 2, 2)
    found = LinearDecoder.fit(latents, torch.full((1, 3, 4, 4), 0.3))
    torch.testing.assert_close(found(latents), torch.full((1, 3, 4, 4), 0.3))


def test_gradients_reach_the_latents_and_images_do_not_mix(tmp_path: Path):
    model = tiny.model()
    tiny.autoencoder_tiny().save_pretrained(tmp_path)
    linear = LinearDecoder(noise(12, 36), torch.zeros(12), 2)
    decoders: list[Decoder] = [model.full, linear, TinyDecoder(tmp_path)]
    for decoder in decoders:
        latents = noise(2, 4, 8, 8).requires_grad_()
        images = decoder(latents)
        assert images.shape == (2, 3, 16, 16)
        (gradient,) = torch.autograd.grad(images[0].square().sum(), latents)
        assert gradient[0].abs().sum() > 0
        assert (gradient[1] == 0).all()


def test_the_tiny_decoder_is_diffusers_own(tmp_path: Path):
    vae = tiny.autoencoder_tiny().eval()
    vae.register_to_config(scaling_factor=0.5)
    vae.save_pretrained(tmp_path)
    latents = noise(2, 4, 8, 8)
    with torch.no_grad():
        expected = vae.decode(latents / 0.5).sample / 2 + 0.5
    torch.testing.assert_close(TinyDecoder(tmp_path)(latents), expected)


def test_a_missing_tiny_autoencoder_is_said(tmp_path: Path):
    with pytest.raises(UserError, match="no tiny autoencoder"):
        TinyDecoder(tmp_path / "nowhere")
