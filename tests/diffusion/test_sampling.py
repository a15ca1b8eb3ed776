"""Unguided sampling is diffusers', samples are independent, and steering costs what it should."""

import weakref
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import gaussian
import tiny
from activegen.diffusion.attention import Maps, Reading, Steps, resized
from activegen.diffusion.levels import SCHEDULERS, Level, Solver, scheduler
from activegen.diffusion.model import Denoised
from activegen.diffusion.sampling import (
    Batch,
    Estimate,
    Move,
    Route,
    Sampling,
    Steering,
    Variable,
    sample,
    seeded,
)
from activegen.records import UserError

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
WORDS = ["river", "forest", "dining table", "tv"]
SPACINGS = [(n, s) for n in ("ddim", "euler") for s in ("leading", "trailing", "linspace")]


def pipelines(batch: Batch, words: list[str], seeds: list[int]) -> tuple[Tensor, Tensor]:
    """Final latents and images of diffusers' own loop."""
    sampling, model = batch.sampling, batch.model
    name = sampling.scheduler
    config = model.scheduler.config
    chosen = scheduler(name, config) if name else type(model.scheduler).from_config(config)
    seen: list[Tensor] = []

    def keep(_pipeline: object, _step: int, _timestep: object, values: dict) -> dict:
        seen.append(values["latents"])
        return {}

    images = tiny.pipeline(model, chosen)(
        [f"a photo of {word}" for word in words],
        negative_prompt=[sampling.negative_prompt] * len(words),
        num_inference_steps=sampling.num_steps,
        guidance_scale=sampling.cfg_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        callback_on_step_end=keep,
        output_type="pt",
    ).images
    return seen[-1], images


def check(model, sampling: Sampling, count: int) -> None:
    words, seeds = WORDS[:count], [3, 1, 4, 1_000_005][:count]
    batch = tiny.batch(model, words, seeds, sampling)
    drawn = sample(batch)
    latents, images = pipelines(batch, words, seeds)
    torch.testing.assert_close(drawn.latents, latents, **CLOSE)
    torch.testing.assert_close(drawn.images, images, **CLOSE)
    assert drawn.images.std() > 1e-3
    assert drawn.calls == len(batch.solver().levels)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_without_terms_we_are_the_pipeline(name: str, prediction: str):
    model = tiny.model(prediction)
    for count, cfg_scale, negative in ((1, 7.5, "a tv"), (4, 7.5, ""), (4, 1.0, "")):
        check(model, Sampling(4, cfg_scale, name, negative), count)


@pytest.mark.parametrize(("name", "spacing"), SPACINGS)
def test_whatever_the_spacing_of_timesteps(name: str, spacing: str):
    model = tiny.model()
    model.scheduler = scheduler(
        name, tiny.noise_schedule(timestep_spacing=spacing, steps_offset=1).config
    )
    check(model, Sampling(7, 3.0), 2)


@pytest.mark.parametrize("name", ["pndm", "dpm++_2m", "euler", "unipc"])
def test_checkpoints_own_settings(name: str):
    """Repeated timesteps, Karras' noise levels between the integers, leading spacing."""
    model = tiny.model()
    own = scheduler(name, tiny.noise_schedule(timestep_spacing="leading", steps_offset=1).config)
    changes = {"skip_prk_steps": True} if name == "pndm" else {"use_karras_sigmas": True}
    model.scheduler = type(own).from_config(own.config, **changes)
    check(model, Sampling(6, 3.0), 2)


def test_zero_terminal_noise_of_a_velocity_model():
    model = tiny.model("v_prediction")
    model.scheduler = tiny.noise_schedule("v_prediction", rescale_betas_zero_snr=True)
    assert Solver(model.scheduler, 5).levels[0].alpha == pytest.approx(0, abs=1e-6)
    check(model, Sampling(5, 3.0), 2)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler_ancestral"])
def test_a_sample_does_not_depend_on_its_batch(name: str):
    model, sampling = tiny.model(), Sampling(5, 5.0, name)
    batch = tiny.batch(model, WORDS[:3], [7, 8, 9], sampling)
    together, again = sample(batch), sample(batch)
    assert torch.equal(together.latents, again.latents)
    assert torch.equal(together.images, again.images)
    for i in range(3):
        alone = sample(tiny.batch(model, WORDS[i : i + 1], [7 + i], sampling))
        torch.testing.assert_close(alone.latents, together.latents[i : i + 1], **CLOSE)
        torch.testing.assert_close(alone.images, together.images[i : i + 1], **CLOSE)
    other = sample(tiny.batch(model, WORDS[:1], [70], sampling))
    assert (other.latents - together.latents[:1]).abs().amax() > 0.01


@pytest.mark.gpu
@pytest.mark.parametrize("name", SCHEDULERS)
def test_on_a_gpu_it_is_the_same(name: str):
    model, sampling = tiny.model(), Sampling(4, 3.0, name)
    expected = sample(tiny.batch(model, WORDS[:2], sampling=sampling))
    for part in (model.unet, model.vae, model.text_encoder):
        part.to("cuda")
    batch = tiny.batch(model, WORDS[:2], sampling=sampling)
    drawn = sample(batch)
    assert drawn.latents.is_cuda
    torch.testing.assert_close(drawn.latents.cpu(), expected.latents, atol=0.02, rtol=0.02)
    for route in ROUTES:
        steered = sample(batch, [Climb(*route, 0.01, attention=True)])
        assert steered.latents.isfinite().all() and (steered.skipped == 0).all()


def test_seeds_touch_no_global_state():
    before = torch.get_rng_state()
    noise, rngs = seeded([5, 6], (4, 2, 2))
    assert torch.equal(before, torch.get_rng_state())
    expected = torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(6))
    assert torch.equal(noise[1], expected)
    assert not torch.equal(torch.randn(3, generator=rngs[1]), expected.flatten()[:3])
    sample(gaussian.batch(gaussian.World(), sampling=Sampling(3, 1.0, "ddpm")))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_clean_estimate_is_the_posterior_mean(prediction: str):
    """Regression of the clean on the noised pixels of a large sample."""
    world = gaussian.World(spread=0.4, size=64, prediction=prediction)
    clean = seeded([1, 2], world.noise_shape)[0] * 0.4 + 0.8
    conditioning = replace(
        world.condition(["red", "red"], ["red", "red"]), text=torch.full((2, 1, 3), 0.8)
    )
    for level in world_levels(world, 5)[1:]:
        noised = level.noised(clean, seeded([3, 4], world.noise_shape)[0])
        x, y = noised.flatten(), clean.flatten()
        slope = torch.cov(torch.stack([x, y]))[0, 1] / x.var()
        line = y.mean() + slope * (noised - x.mean())
        seen = world.denoise(noised, conditioning, level, 1.0)
        torch.testing.assert_close(seen.clean, line, atol=0.04, rtol=0)
        torch.testing.assert_close(level.clean(seen.output, noised), seen.clean)
        variance = 1 / (1 / 0.4**2 + level.alpha**2 / level.sigma**2)
        assert world.gain(level) == pytest.approx(level.alpha / level.sigma**2 * variance)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "dpm++_2m", "unipc"])
def test_sampling_reproduces_mean_and_covariance(name: str):
    world = gaussian.World(spread=0.3, size=64)
    sampling = Sampling(250, 1.0, name)
    drawn = sample(gaussian.batch(world, ["red", "blue"], [1, 2], sampling)).latents
    for pixels, word in zip(drawn.flatten(2), ("red", "blue"), strict=True):
        expected = torch.tensor(gaussian.COLOURS[word])
        torch.testing.assert_close(pixels.mean(1), expected, atol=0.04, rtol=0)
        torch.testing.assert_close(torch.cov(pixels), 0.09 * torch.eye(3), atol=0.015, rtol=0)


def world_levels(world: gaussian.World, count: int) -> tuple[Level, ...]:
    return Solver(world.scheduler, count).levels


class Climb(Steering):
    """A term that climbs ``pull * images`` by raw gradient; keeps what it saw."""

    def __init__(self, of: Variable, through: Route, step: float, attention: bool = False):
        self.of, self.through, self.step, self.attention = of, through, step, attention
        self.gradients: list[Tensor] = []
        self.seen: list[tuple[Tensor, float, float]] = []
        self.last: weakref.ref[Estimate] | None = None
        self.kept_alive = 0

    def begin(self, batch: Batch) -> Steering:
        return self

    def active(self, level: Level) -> bool:
        return level.index % 2 == 0

    def wants_attention(self, level: Level) -> bool:
        return self.attention

    def gradient(self, level: Level) -> tuple[Variable, Route] | None:
        return self.of, self.through

    def objective(self, estimate: Estimate) -> Tensor:
        self.kept_alive += self.last is not None and self.last() is not None
        self.last = weakref.ref(estimate)
        values = estimate.images
        if estimate.attention is not None:
            size = (values.shape[2], values.shape[3])
            values = values * (1 + 0 * resized(estimate.attention, size).unsqueeze(1))
        return values.flatten(1).sum(1)

    def move(self, estimate: Estimate, gradient: Tensor) -> Move:
        self.gradients.append(gradient)
        if self.of == "latents":
            change = self.step * gradient
            clean = estimate.clean + change / estimate.level.alpha
            return Move(latents=estimate.latents + change, clean=clean)
        if self.of == "clean":
            return Move(clean=estimate.clean + self.step * gradient)
        text = estimate.conditioning.text + self.step * gradient
        return Move(conditioning=estimate.conditioning.with_text(text))

    def arrive(self, latents: Tensor, estimate: Estimate, alpha: float, sigma: float) -> Tensor:
        self.seen.append((latents, alpha, sigma))
        return latents


ROUTES: list[tuple[Variable, Route]] = [
    ("latents", "denoiser"),
    ("latents", "decoder"),
    ("clean", "decoder"),
    ("conditioning", "denoiser"),
]


@pytest.mark.parametrize(("of", "through"), ROUTES)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_climb_raises_the_objective_and_a_step_of_0_changes_nothing(
    of: Variable, through: Route, name: str
):
    step = {"conditioning": 0.001, "clean": 0.05, "latents": 0.05}[of]
    if (of, through) == ("latents", "denoiser"):
        step = 1.0  # the denoiser damps it

    def rise(name: str) -> Tensor:
        batch = gaussian.batch(gaussian.World(), ["red", "blue"], sampling=Sampling(6, 1.0, name))
        plain = sample(batch).latents
        still = sample(batch, [Climb(of, through, 0.0)]).latents
        torch.testing.assert_close(still, plain, **CLOSE)
        up = sample(batch, [Climb(of, through, step, attention=True)])
        assert (up.skipped == 0).all()
        return (up.latents - plain).mean((1, 2, 3))

    rises = rise(name)
    assert (rises > 0.1 * rise("ddim")).all(), rises


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_gradients_are_the_analytic_ones(prediction: str):
    world = gaussian.World(prediction=prediction)
    levels = world_levels(world, 10)[::2]
    full, stopped, text = (Climb(*r, 0.0) for r in (ROUTES[0], ROUTES[2], ROUTES[3]))
    for climb in (full, stopped, text):
        sample(gaussian.batch(world, ["red"]), [climb])
    pixels = world.noise_shape[1] ** 2
    for level, by_latents, by_clean, by_text in zip(
        levels, full.gradients, stopped.gradients, text.gradients, strict=True
    ):
        gain = world.gain(level)
        torch.testing.assert_close(by_latents, torch.full_like(by_latents, gain), **CLOSE)
        torch.testing.assert_close(by_clean, torch.ones_like(by_clean))
        expected = torch.full_like(by_text, pixels * (1 - gain * level.alpha))
        torch.testing.assert_close(by_text, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("of", "through"), ROUTES)
def test_one_forward_and_one_decode_per_step_and_no_graph_without_a_gradient(
    of: Variable, through: Route
):
    class Watched(gaussian.World):
        modes: list[bool]

        def denoise(self, latents: Tensor, *rest: object) -> Denoised:
            self.modes.append(torch.is_inference_mode_enabled())
            return super().denoise(latents, *rest)  # pyright: ignore[reportArgumentType]

    world, task, climb = Watched(), gaussian.Colours(), Climb(of, through, 0.01)
    world.modes = []
    estimates: list[bool] = []

    def watch(estimate: Estimate) -> None:
        tensors = (estimate.latents, estimate.clean, estimate.images, estimate.conditioning.text)
        estimates.append(any(t.requires_grad for t in tensors))
        estimate.prediction(task)
        estimate.prediction(task)

    drawn = sample(gaussian.batch(world, ["red", "blue"]), [climb], on_step=watch)
    assert drawn.calls == world.calls == world.decodes == task.calls == 10
    assert world.modes == [False, True] * 5
    assert not any(estimates)
    assert climb.kept_alive == 0
    for tensor in (drawn.latents, drawn.images):
        assert not tensor.requires_grad and not tensor.is_inference()


def test_steering_works_inside_inference_mode():
    with torch.inference_mode():
        inside = sample(
            gaussian.batch(gaussian.World(), ["red"]), [Climb("latents", "denoiser", 0.05)]
        ).latents
    outside = sample(
        gaussian.batch(gaussian.World(), ["red"]), [Climb("latents", "denoiser", 0.05)]
    ).latents
    torch.testing.assert_close(inside.clone(), outside)


@pytest.mark.parametrize(("of", "through"), ROUTES)
@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_steering_works_with_a_real_denoiser(of: Variable, through: Route, name: str):
    model, climb = tiny.model(), Climb(of, through, 0.01, attention=True)
    batch = tiny.batch(model, ["river", "forest"], sampling=Sampling(4, 3.0, name))
    drawn = sample(batch, [climb])
    assert (drawn.latents - sample(batch).latents).abs().amax() > 1e-4
    assert drawn.attention is not None and drawn.presence is not None
    assert all(p.grad is None for p in model.unet.parameters())


def test_the_moved_text_is_used_from_the_next_step_on():
    texts: list[Tensor] = []
    batch = gaussian.batch(gaussian.World(), ["red"])
    sample(
        batch,
        [Climb("conditioning", "denoiser", 0.01)],
        on_step=lambda e: texts.append(e.conditioning.text),
    )
    assert torch.equal(texts[0], batch.conditioning.text)
    changed = [not torch.equal(a, b) for a, b in pairwise(texts)]
    assert changed == [True, False] * 4 + [True]


@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_arrivals_are_in_the_denoisers_units(name: str):
    """A perfect denoiser keeps every arrival on its noise level, also in Euler's sigma-space."""
    world, climb = gaussian.World(spread=1e-6), Climb("clean", "decoder", 0.0)
    batch = gaussian.batch(world, ["red"], sampling=Sampling(8, 1.0, name))
    sample(batch, [climb])
    mean = torch.tensor(gaussian.COLOURS["red"]).view(1, 3, 1, 1)
    levels = batch.solver().levels
    for (latents, alpha, sigma), level in zip(climb.seen, levels[1::2], strict=True):
        assert (alpha, sigma) == (level.alpha, level.sigma)
        noise = (latents - alpha * mean) / sigma
        torch.testing.assert_close(noise, batch.noise, atol=0.1, rtol=0)


def test_what_a_term_makes_of_an_arrival_is_kept():
    class Overwrite(Steering):
        def begin(self, batch: Batch) -> Steering:
            return self

        def arrive(self, latents: Tensor, estimate: Estimate, alpha: float, sigma: float) -> Tensor:
            return torch.full_like(latents, 0.25)

    for name in ("ddim", "euler", "unipc"):
        batch = gaussian.batch(gaussian.World(), ["red"], sampling=Sampling(4, 1.0, name))
        seen: list[Tensor] = []
        drawn = sample(batch, [Overwrite()], on_step=lambda e, seen=seen: seen.append(e.latents))
        assert all(torch.allclose(latents, torch.tensor(0.25)) for latents in seen[1:])
        torch.testing.assert_close(drawn.latents, torch.full_like(drawn.latents, 0.25))


def test_gradients_that_are_not_finite_are_counted_and_not_followed():
    class Broken(Climb):
        def objective(self, estimate: Estimate) -> Tensor:
            pixel = estimate.images[1, 0, 0, 0]
            return super().objective(estimate) + torch.stack([0 * pixel, pixel * float("nan")])

    words = ["red", "blue"]
    broken = sample(gaussian.batch(gaussian.World(), words), [Broken("clean", "decoder", 0.05)])
    fine = sample(gaussian.batch(gaussian.World(), words), [Climb("clean", "decoder", 0.05)])
    plain = sample(gaussian.batch(gaussian.World(), words))
    assert broken.skipped.tolist() == [0, 5]
    torch.testing.assert_close(broken.latents[0], fine.latents[0])
    torch.testing.assert_close(broken.latents[1], plain.latents[1], **CLOSE)


def test_two_gradients_in_one_step_are_refused_before_anything_is_drawn():
    world = gaussian.World()
    with pytest.raises(UserError, match="two terms want a gradient in step 0"):
        sample(
            gaussian.batch(world, ["red"]),
            [Climb("latents", "denoiser", 0.1), Climb("clean", "decoder", 0.1)],
        )
    assert world.calls == 0


def test_attention_is_the_running_mean_and_its_peak_is_kept():
    plain = sample(gaussian.batch(gaussian.World(), ["red", "blue"]))
    assert plain.attention is None and plain.presence is None
    drawn = sample(
        gaussian.batch(gaussian.World(), ["red", "blue"]),
        [Climb("clean", "decoder", 0.0, attention=True)],
    )
    assert drawn.attention is not None and drawn.presence is not None
    torch.testing.assert_close(drawn.presence, torch.full((2,), 0.6))
    assert (drawn.attention[..., :2] == 1).all() and (drawn.attention[..., 2:] == 0).all()


def reading_of(steps: Steps) -> tuple[Batch, Reading]:
    """Two images, of two words and one."""
    model = tiny.model()
    batch = tiny.batch(model, ["river", "forest"], sampling=Sampling(4, 3.0))
    prompts = ["a photo of river", "a photo of forest"]
    words = model.words(prompts, [["river", "photo"], ["forest"]])
    return batch, Reading(words, steps, "all", self_attention=8)


def test_reading_changes_nothing_but_what_is_kept():
    batch, reading = reading_of(0.5)
    plain, drawn = sample(batch), sample(replace(batch, reading=reading))
    assert torch.equal(plain.latents, drawn.latents) and torch.equal(plain.images, drawn.images)
    assert plain.maps is None and drawn.maps is not None
    assert (plain.calls, drawn.calls) == (4, 4)
    assert drawn.attention is None and drawn.presence is None
    for tensor in (*drawn.maps.words, drawn.maps.self_attention):
        assert tensor is not None and not tensor.is_inference() and not tensor.requires_grad


def test_a_window_is_the_mean_of_its_steps():
    def maps(steps: Steps) -> Maps:
        batch, reading = reading_of(steps)
        made = sample(replace(batch, reading=reading)).maps
        assert made is not None
        return made

    single = [maps(index / 4) for index in range(4)]
    assert torch.equal(maps(0.5).words[0], single[2].words[0])
    window = maps((0.25, 1.0))
    for size in range(2):
        mean = torch.stack([m.words[size] for m in single[1:]]).mean(0)
        torch.testing.assert_close(window.words[size], mean)
        assert (single[1].words[size] - mean).abs().amax() > 1e-6
    own = [m.self_attention for m in (window, *single[1:]) if m.self_attention is not None]
    torch.testing.assert_close(own[0], torch.stack(own[1:]).mean(0))


def test_steps_that_are_not_read_cost_nothing():
    batch, reading = reading_of((0.25, 0.75))
    asked: list[int] = []
    for name, layer in batch.model.unet.named_modules():
        if name.endswith("to_k"):
            layer.register_forward_hook(lambda *_: asked.append(1))
    each = []

    def count(_: Estimate) -> None:
        each.append(len(asked))
        asked.clear()

    sample(replace(batch, reading=reading), on_step=count)
    sample(batch, on_step=count)
    read, plain = each[:4], each[4:]
    assert plain == [plain[0]] * 4
    assert [n == plain[0] for n in read] == [True, False, False, True]


def test_reading_goes_with_guidance_of_the_same_step():
    batch, reading = reading_of((0.0, 1.0))
    climb = Climb("conditioning", "denoiser", 0.01, attention=True)
    guided = sample(batch, [climb])
    both = sample(replace(batch, reading=reading), [climb])
    assert torch.equal(guided.latents, both.latents)
    assert guided.attention is not None and both.attention is not None
    assert torch.equal(guided.attention, both.attention) and both.maps is not None
    # what moves the text moves the direct maps
    still = sample(replace(batch, reading=reading)).maps
    assert still is not None and (still.words[0] - both.maps.words[0]).abs().amax() > 1e-6


def test_a_window_without_a_step_is_said_before_anything_is_drawn():
    world = gaussian.World()
    words = world.words(["a red picture"], [["red"]])
    batch = replace(gaussian.batch(world, ["red"]), reading=Reading(words, (0.51, 0.59)))
    with pytest.raises(UserError, match="none of the 10 steps"):
        sample(batch)
    assert world.calls == 0


def test_masks_and_objects_reach_the_estimate():
    mask = torch.tensor([[[0, 255], [1, 2]]]).repeat_interleave(4, 1).repeat_interleave(4, 2)
    region = (mask.unsqueeze(1) == 1).float()
    batch = replace(gaussian.batch(gaussian.World(), ["red"]), target=mask, region=region)
    seen: list[Estimate] = []
    sample(batch, on_step=seen.append)
    for estimate in seen:
        assert torch.equal(estimate.target, mask)
        assert estimate.region is not None and torch.equal(estimate.region, region)


def test_an_estimate_for_another_target_is_made_only_once():
    batch, task = gaussian.batch(gaussian.World(), ["red"]), gaussian.Colours()
    seen: list[Estimate] = []
    sample(batch, on_step=seen.append)
    other = seen[0].aiming(torch.tensor([2]))
    assert other.target.item() == 2 and seen[0].target.item() == 0
    assert other.prediction(task) is seen[0].prediction(task)
    assert other.images is seen[0].images
    assert (batch.model.decodes, task.calls) == (1, 1)
