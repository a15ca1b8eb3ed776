"""Noise levels, and every scheduler of the table seen through them."""

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PNDMScheduler
from torch import Tensor

import tiny
from activegen.diffusion.levels import SCHEDULERS, Level, Solver, scheduler
from activegen.records import UnknownWord, UserError

every_scheduler = pytest.mark.parametrize("name", SCHEDULERS)
every_prediction = pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])


def level(prediction: str, squared: float = 0.3) -> Level:
    return Level(2, 10, torch.tensor(500), squared**0.5, (1 - squared) ** 0.5, prediction)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, 5, 5, generator=rng, dtype=torch.float64)
    return clean, noise


@every_prediction
@pytest.mark.parametrize("squared", [0.999, 0.3, 0.005])
def test_clean_and_output_are_inverse(prediction: str, squared: float):
    at = level(prediction, squared)
    latents, output = pair()
    torch.testing.assert_close(at.output(at.clean(output, latents), latents), output)


def test_clean_of_the_true_noise_and_of_the_true_velocity():
    clean, noise = pair()
    at = level("epsilon")
    latents = at.noised(clean, noise)
    torch.testing.assert_close(latents, 0.3**0.5 * clean + 0.7**0.5 * noise)
    torch.testing.assert_close(at.clean(noise, latents), clean)
    velocity = at.alpha * noise - at.sigma * clean
    at = level("v_prediction")
    torch.testing.assert_close(at.clean(velocity, latents), clean)
    torch.testing.assert_close(at.alpha * velocity + at.sigma * latents, noise)


def test_an_edit_of_clean_is_the_edit_of_noise_that_guidance_papers_write():
    at = level("epsilon")
    latents, output = pair()
    edit, gradient = pair()
    clean = at.clean(output, latents)
    torch.testing.assert_close(
        at.output(clean - edit, latents), output + at.alpha / at.sigma * edit
    )
    universal = output + 3 * at.sigma * gradient
    torch.testing.assert_close(
        at.clean(universal, latents), clean - 3 * at.sigma**2 / at.alpha * gradient
    )


def test_the_end_without_signal_is_finite_for_velocities():
    at = Level(0, 10, torch.tensor(999), 0.0, 1.0, "v_prediction")
    latents, output = pair()
    torch.testing.assert_close(at.clean(output, latents), -output)
    torch.testing.assert_close(at.output(-output, latents), output)


def test_progress_counts_steps():
    solver = Solver(tiny.noise_schedule(), 4)
    assert [at.progress for at in solver.levels] == [0, 0.25, 0.5, 0.75]


@every_scheduler
def test_levels_are_the_schedulers_own(name: str):
    made = scheduler(name, tiny.noise_schedule().config)
    solver = Solver(made, 5)
    for at in solver.levels:
        assert float(at.timestep) == int(at.timestep)
        expected = float(made.alphas_cumprod[int(at.timestep)])
        assert at.alpha**2 == pytest.approx(expected, abs=1e-5)
        assert at.alpha**2 + at.sigma**2 == pytest.approx(1)
    assert [at.index for at in solver.levels] == list(range(len(solver.levels)))
    assert {at.count for at in solver.levels} == {len(solver.levels)}


@every_scheduler
def test_state_and_latents_are_inverse_at_every_step(name: str):
    solver = Solver(scheduler(name, tiny.noise_schedule().config), 5)
    rngs = [torch.Generator().manual_seed(0)]
    latents = torch.ones(1, 4, 2, 2)
    for at in solver.levels:
        state = solver.state(latents, at.index)
        torch.testing.assert_close(solver.latents(state, at), latents)
        torch.testing.assert_close(solver.scaled(state, at.index), latents)
        solver.step(torch.zeros_like(latents), at, state, rngs)
    last = len(solver.levels)
    torch.testing.assert_close(solver.state(latents, last), latents)
    assert solver.arrival(last) == (1.0, 0.0)
    assert solver.arrival(1) == (solver.levels[1].alpha, solver.levels[1].sigma)


@every_scheduler
def test_the_start_is_standard_normal_for_the_denoiser(name: str):
    solver = Solver(scheduler(name, tiny.noise_schedule().config), 5)
    noise = torch.ones(1, 4, 2, 2)
    seen = solver.latents(solver.start(noise), solver.levels[0])
    torch.testing.assert_close(seen, noise, atol=0.01, rtol=0)


@every_scheduler
def test_the_true_noise_leads_to_the_true_clean(name: str):
    clean, noise = (x[:, :, :2, :2].float() for x in pair())
    led = walked(scheduler(name, tiny.noise_schedule().config), clean, noise)
    torch.testing.assert_close(led, clean, atol=0.1, rtol=0.1)


def walked(made: Any, clean: Tensor, noise: Tensor) -> Tensor:
    """The end of the way of a denoiser that knows."""
    solver = Solver(made, 5)
    rngs = [torch.Generator().manual_seed(i) for i in range(len(clean))]
    state = solver.state(solver.levels[0].noised(clean, noise), 0)
    for at in solver.levels:
        latents = solver.latents(state, at)
        state = solver.step(at.output(clean, latents), at, state, rngs)
    return state


@every_scheduler
@pytest.mark.parametrize(
    "config",
    [tiny.noise_schedule(clip_sample=True).config, PNDMScheduler().config],
    ids=["says so", "does not say"],
)
def test_latents_are_not_clipped_even_if_the_config_says_so_or_does_not_say(name: str, config: Any):
    clean = torch.full((1, 4, 2, 2), 4.0)
    noise = pair()[1][:1, :, :2, :2].float()
    led = walked(scheduler(name, config), clean, noise)
    torch.testing.assert_close(led, clean, atol=0.2, rtol=0)


def test_a_solver_leaves_the_scheduler_alone():
    made = tiny.noise_schedule()
    before = made.timesteps.clone()
    Solver(made, 3)
    torch.testing.assert_close(made.timesteps, before)


def test_what_cannot_be_used_is_said():
    with pytest.raises(UnknownWord, match="ddim, ddpm"):
        scheduler("dimm", tiny.noise_schedule().config)
    with pytest.raises(UserError, match="at least 1"):
        Solver(tiny.noise_schedule(), 0)
    with pytest.raises(UserError, match="5000 steps"):
        Solver(tiny.noise_schedule(), 5000)
    with pytest.raises(UserError, match="predicts 'sample'"):
        Solver(tiny.noise_schedule("sample"), 5)
    with pytest.raises(UserError, match="predicts 'None'"):
        Solver(FlowMatchEulerDiscreteScheduler(), 5)
