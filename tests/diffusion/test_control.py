"""ControlNets: diffusers' own pipelines of the same parts, gradients, and what does not fit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    ControlNetModel,
    MultiControlNetModel,
    StableDiffusionControlNetInpaintPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionInpaintPipeline,
)
from torch import Tensor

import tiny
from activegen.diffusion.control import Control, residuals
from activegen.diffusion.levels import Solver, scheduler
from activegen.diffusion.sampling import Batch, Sampling, sample, seeded
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.records import UserError

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
WORDS = ["river", "forest", "dining table", "tv"]
SEEDS = [3, 1, 4, 1_000_005]


def pictures(count: int, seed: int = 0, size: tuple[int, int] = (16, 16)) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def holes(count: int, size: tuple[int, int] = (16, 16)) -> Tensor:
    """One rectangle each, with grey edges."""
    masks = torch.zeros(count, 1, *size)
    for i, (mask,) in enumerate(masks):
        mask[2 + i : 12, 5 - i : 11] = 1
        mask[2 + i, 5 - i : 11], mask[11, 5 - i : 11] = 0.4, 0.6
    return masks


def batch(model: StableDiffusion, sampling: Sampling, count: int, control: Sequence[Tensor] = ()):
    """Of the first words and seeds."""
    noise, rngs = seeded(SEEDS[:count], model.noise_shape)
    prompts = [f"a photo of {word}" for word in WORDS[:count]]
    text = model.condition(prompts, WORDS[:count], sampling.negative_prompt, control)
    return Batch(model, sampling, noise, rngs, text, torch.arange(count))


def pipelines(kind: Any, model: StableDiffusion, sampling: Sampling, count: int, **rest: Any):
    """Final latents of diffusers' own loop."""
    nets = [control.net for control in model.controls]
    if nets:
        controlnet = {"controlnet": nets[0] if len(nets) == 1 else MultiControlNetModel(nets)}
    else:
        controlnet = {}
    made = kind(
        vae=model.vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=scheduler(sampling.scheduler, model.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **controlnet,
    )
    made.set_progress_bar_config(disable=True)
    return made(
        [f"a photo of {word}" for word in WORDS[:count]],
        negative_prompt=[sampling.negative_prompt] * count,
        num_inference_steps=sampling.num_steps,
        guidance_scale=sampling.cfg_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS[:count]],
        output_type="latent",
        **rest,
    ).images


def settings(controls: Sequence[Control]) -> dict[str, Any]:
    """Of the pipeline, for these controls."""
    if len(controls) == 1:
        (one,) = controls
        return {
            "controlnet_conditioning_scale": one.scale,
            "guess_mode": one.guess,
            "control_guidance_start": one.start,
            "control_guidance_end": one.stop,
        }
    return {
        "controlnet_conditioning_scale": [control.scale for control in controls],
        "guess_mode": any(control.guess for control in controls),
        "control_guidance_start": [control.start for control in controls],
        "control_guidance_end": [control.stop for control in controls],
    }


def one(**rest: Any) -> list[Control]:
    return [Control(tiny.controlnet(), **rest)]


def two(**rest: Any) -> list[Control]:
    return [Control(tiny.controlnet(), 0.5, **rest), Control(tiny.controlnet(5), 0.9, **rest)]


CASES = {
    "one": one(),
    "weak in a window": one(scale=0.7, start=0.25, stop=0.75),
    "guess": one(guess=True),
    "pooled": [Control(tiny.controlnet(global_pool_conditions=True))],
    "bgr": [Control(tiny.controlnet(controlnet_conditioning_channel_order="bgr"))],
    "two": two(),
    "two that guess in windows": [
        replace(two(guess=True)[0], stop=0.5),
        replace(two(guess=True)[1], start=0.3),
    ],
}


RUNS = [  # solver, prediction, number of images, scale of classifier-free guidance, negative prompt
    ("ddim", "epsilon", 4, 5.0, "a tv"),
    ("ddim", "v_prediction", 1, 1.0, ""),
    ("unipc", "v_prediction", 4, 5.0, ""),
    ("unipc", "epsilon", 4, 1.0, ""),
    ("ddim", "v_prediction", 1, 5.0, "a tv"),
]


@pytest.mark.parametrize("case", CASES)
def test_we_are_the_pipeline(case: str):
    for name, prediction, count, cfg_scale, negative in RUNS[: None if case == "one" else 4]:
        check(case, prediction, Sampling(4, cfg_scale, name, negative), count)


@pytest.mark.parametrize(("case", "name"), [("guess", "euler"), ("one", "pndm")])
def test_solvers_with_other_units_and_repeated_steps(case: str, name: str):
    check(case, "epsilon", Sampling(4, 3.0, name), 2)


def check(case: str, prediction: str, sampling: Sampling, count: int) -> None:
    controls = CASES[case]
    model = tiny.model(prediction, controls=controls)
    seen = [pictures(count, i) for i in range(len(controls))]
    shown = batch(model, sampling, count, seen)
    drawn = sample(shown)
    image = seen if len(seen) > 1 else seen[0]
    expected = pipelines(
        StableDiffusionControlNetPipeline, model, sampling, count, image=image, **settings(controls)
    )
    torch.testing.assert_close(drawn.latents, expected, **CLOSE)
    model.controls, text = (), replace(shown.conditioning, control=())
    without = sample(replace(shown, conditioning=text))
    assert (drawn.latents - without.latents).abs().amax() > 0.01


def test_pictures_that_are_wide():
    size = (24, 40)
    model = tiny.model(controls=one(), size=size)
    sampling, seen = Sampling(4, 3.0, "ddim"), pictures(2, 0, size)
    drawn = sample(batch(model, sampling, 2, [seen]))
    assert drawn.images.shape == (2, 3, *size)
    expected = pipelines(StableDiffusionControlNetPipeline, model, sampling, 2, image=seen)
    torch.testing.assert_close(drawn.latents, expected, **CLOSE)


def test_scale_0_is_without():
    seen, sampling = pictures(2), Sampling(3, 3.0, "ddim")
    drawn = sample(batch(tiny.model(controls=one(scale=0.0)), sampling, 2, [seen]))
    torch.testing.assert_close(drawn.latents, sample(batch(tiny.model(), sampling, 2)).latents)


def test_each_image_has_its_own_picture():
    model, sampling, seen = tiny.model(controls=one()), Sampling(4, 3.0, "ddim"), pictures(3)
    together = sample(batch(model, sampling, 3, [seen]))
    alone = sample(batch(model, sampling, 1, [seen[:1]]))
    torch.testing.assert_close(together.latents[:1], alone.latents, **CLOSE)


def test_each_net_guesses_for_itself():
    """Without the prompt the one that guesses is not seen, and the other is as ever."""
    guesses, sees = one(guess=True)[0], Control(tiny.controlnet(5))
    level = Solver(tiny.noise_schedule(), 4).levels[1]
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text, seen = torch.ones(2, 77, tiny.WIDTH), [pictures(1), pictures(1, 1)]
    for order in (1, -1):
        both = flat(residuals([guesses, sees][::order], seen[::order], z, text, level))
        alone = flat(residuals([sees], seen[1:], z, text, level))
        for a, b in zip(both, alone, strict=True):
            torch.testing.assert_close(a[0], b[0])
            assert (a[1] - b[1]).abs().amax() > 1e-3


def flat(added: dict[str, Any]) -> list[Tensor]:
    return [*added["down_block_additional_residuals"], added["mid_block_additional_residual"]]


@pytest.mark.parametrize("guess", [False, True])
def test_gradients_pass_the_net(guess: bool):
    """Towards the latents, the text and the picture, as finite differences have them."""
    model = tiny.model(controls=one(scale=3.0, guess=guess))
    for part in (model.unet, model.controls[0].net):
        part.double()
    level = Solver(model.scheduler, 4).levels[2]
    said = model.condition(["a photo of a river"], ["river"], "", [pictures(1)])
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def value(latents: Tensor, text: Tensor, picture: Tensor) -> Tensor:
        conditioning = replace(said, text=text, control=(picture,))
        return (model.denoise(latents, conditioning, level, 3.0).output * weight).sum()

    inputs = [x.clone().requires_grad_() for x in (z, said.text, said.control[0])]
    gradients = torch.autograd.grad(value(*inputs), inputs)
    for i, gradient in enumerate(gradients):
        step = 1e-3 * gradient / gradient.norm()
        ends = []
        for sign in (1, -1):
            moved = [x.detach() for x in inputs]
            moved[i] = moved[i] + sign * step
            ends.append(value(*moved).item())
        slope = (ends[0] - ends[1]) / 2e-3
        assert slope == pytest.approx(gradient.norm().item(), rel=0.02)
    assert all(p.grad is None and not p.requires_grad for p in model.controls[0].net.parameters())


def test_a_folder_comes_back_the_same(tmp_path: Path):
    net = tiny.controlnet()
    net.save_pretrained(tmp_path / "seg")
    model = tiny.model(controls=[Control(net, 0.7, name="seg")])
    control = Control.load(tmp_path / "seg", 0.7)
    assert (control.scale, control.guess, control.name) == (0.7, False, "seg")
    loaded = StableDiffusion.load(tiny.save(model, tmp_path / "toy"), controls=[control])
    assert loaded.made_by()["revision"] == model.made_by()["revision"]
    assert loaded.made_by()["controls"] == "seg 0.7"
    seen = pictures(2)
    torch.testing.assert_close(
        sample(batch(loaded, Sampling(3), 2, [seen])).latents,
        sample(batch(model, Sampling(3), 2, [seen])).latents,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(tmp_path: Path, dtype: torch.dtype):
    """Of the denoiser and one net; the other stays as it is."""
    whole = tiny.model(controls=two(guess=True))
    first, second = whole.controls
    first.net.save_pretrained(tmp_path / "net")
    controls = [Control.load(tmp_path / "net", first.scale, True, dtype=dtype), second]
    folder = tiny.save(whole, tmp_path / "toy")
    half = StableDiffusion.load(folder, dtype=dtype, controls=controls)
    assert [control.net.dtype for control in half.controls] == [dtype, torch.float32]
    seen = [pictures(2, 0), pictures(2, 1)]
    drawn = sample(batch(half, Sampling(3, 2.0), 2, seen))
    assert drawn.latents.dtype == torch.float32
    expected = sample(batch(whole, Sampling(3, 2.0), 2, seen))
    torch.testing.assert_close(drawn.latents, expected.latents, atol=0.1, rtol=0.1)


def test_provenance_tells_controls_apart():
    plain = tiny.model().made_by()
    assert "controls" not in plain
    made = [tiny.model(controls=controls).made_by()["revision"] for controls in CASES.values()]
    made.append(tiny.model(controls=[Control(tiny.controlnet(3))]).made_by()["revision"])
    made.append(plain["revision"])
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"cross_attention_dim": 48}, "cross_attention_dim is 48, and 32"),
        ({"in_channels": 9}, "in_channels is 9, and 4"),
        ({"conditioning_channels": 1}, "conditioning_channels is 1"),
        ({"block_out_channels": (16, 16)}, "block_out_channels"),
        ({"layers_per_block": 2}, "layers_per_block"),
        ({"conditioning_embedding_out_channels": (8, 16, 16)}, "pixels per latent is 4, and 2"),
    ],
)
def test_a_net_of_another_family_is_refused(change: dict[str, Any], what: str):
    with pytest.raises(UserError, match=f"'seg' does not fit the denoiser: its {what}"):
        tiny.model(controls=[Control(tiny.controlnet(**change), name="seg")])


def test_pictures_that_do_not_fit_are_said():
    model, text = tiny.model(controls=two()), (["a river"], ["river"], "")
    for count in (0, 1, 3):
        with pytest.raises(UserError, match=f"{count} control pictures for 2 ControlNets"):
            model.condition(*text, [pictures(1)] * count)
    with pytest.raises(UserError, match="1 control pictures for 0 ControlNets"):
        tiny.model().condition(*text, [pictures(1)])
    with pytest.raises(UserError, match="is 16 by 18 pixels and the images are 16 by 16"):
        model.condition(*text, [pictures(1, 0, (16, 18))] * 2)
    said = model.condition(*text, [pictures(1)] * 2)
    level = Solver(model.scheduler, 4).levels[0]
    with pytest.raises(UserError, match="is 16 by 16 pixels and the images are 16 by 24"):
        model.denoise(torch.zeros(1, 4, 8, 12), said, level, 1.0)


@pytest.mark.parametrize(("start", "stop"), [(-0.1, 1.0), (0.0, 1.1), (0.5, 0.5), (0.8, 0.2)])
def test_an_impossible_window_is_said(start: float, stop: float):
    with pytest.raises(UserError, match="0 <= start < stop <= 1"):
        one(start=start, stop=stop)


def test_a_missing_or_wrong_folder_is_said(tmp_path: Path):
    for path in (tmp_path / "nowhere", "./nowhere", "a/b/c"):
        with pytest.raises(UserError, match="no ControlNet with safetensors weights at"):
            Control.load(path)
    tiny.model().unet.save_pretrained(tmp_path / "unet")
    with pytest.raises(UserError, match="it has a UNet2DConditionModel"):
        Control.load(tmp_path / "unet")


def test_pickled_and_damaged_weights_are_refused(tmp_path: Path):
    tiny.controlnet().save_pretrained(tmp_path)
    (weights,) = tmp_path.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="safetensors"):
        Control.load(tmp_path)
    weights.unlink()
    torch.save(tiny.controlnet().state_dict(), tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        Control.load(tmp_path)


@pytest.mark.parametrize("controls", [[], one(scale=0.8)])
def test_inpainting_is_the_pipelines(controls: list[Control]):
    for name, prediction, count, cfg_scale, negative in (*RUNS, ("euler", "epsilon", 2, 3.0, "")):
        model = tiny.model(prediction, channels=9, controls=controls)
        assert model.inpaints and model.noise_shape == (4, 8, 8)
        sampling = Sampling(4, cfg_scale, name, negative)
        images, masks, seen = pictures(count, 7), holes(count), pictures(count)
        shown = batch(model, sampling, count, [seen] * len(controls))
        extra = model.inpainting(images, masks, shown.fresh_rngs())
        drawn = sample(replace(shown, conditioning=replace(shown.conditioning, extra=extra)))
        kind, rest = StableDiffusionInpaintPipeline, {}
        if controls:
            kind = StableDiffusionControlNetInpaintPipeline
            rest = {"control_image": seen, **settings(controls)}
        expected = pipelines(
            kind,
            model,
            sampling,
            count,
            image=images,
            mask_image=masks,
            height=16,
            width=16,
            strength=1.0,
            **rest,
        )
        torch.testing.assert_close(drawn.latents, expected, **CLOSE)


def test_the_hole_is_not_seen_and_the_rest_is():
    model = tiny.model(channels=9)
    images, masks = pictures(2), holes(2)
    extra = model.inpainting(images, masks)
    assert extra.shape == (2, 5, 8, 8) and torch.equal(extra, model.inpainting(images, masks))
    assert torch.equal(extra[:, 0], (masks >= 0.5).float()[:, 0, ::2, ::2])
    hole = masks >= 0.5
    filled = torch.where(hole, pictures(2, 9), images)
    assert torch.equal(model.inpainting(filled, masks), extra)
    changed = torch.where(hole, images, pictures(2, 9))
    assert not torch.allclose(model.inpainting(changed, masks), extra)
    nothing = model.inpainting(images, torch.zeros_like(masks))
    torch.testing.assert_close(nothing[:, 1:], model.encode(images))
    torch.testing.assert_close(
        model.inpainting(images.repeat_interleave(2, 2), masks.repeat_interleave(2, 2))[:, 0],
        extra[:, 0],
    )


def test_a_denoiser_that_inpaints_needs_a_picture_and_others_take_none():
    level = Solver(tiny.noise_schedule(), 4).levels[0]
    paints, draws = tiny.model(channels=9), tiny.model()
    said, z = draws.condition(["a river"], ["river"]), torch.zeros(1, 4, 8, 8)
    with pytest.raises(UserError, match="give it a picture and a mask"):
        paints.denoise(z, said, level, 1.0)
    extra = paints.inpainting(pictures(1), holes(1))
    with pytest.raises(UserError, match="takes no picture to inpaint"):
        draws.denoise(z, replace(said, extra=extra), level, 1.0)
    assert not draws.inpaints and draws.inpainting(pictures(1), holes(1)) is None


def test_nets_are_frozen_and_dropout_is_off():
    net: ControlNetModel = tiny.controlnet().train()
    tiny.model(controls=[Control(net)])
    assert not net.training and not any(p.requires_grad for p in net.parameters())
