"""Noise levels, and diffusers schedulers seen through them.

Symbols: a latent at a level is ``alpha * clean + sigma * noise`` with alpha² + sigma² = 1, which is
what the denoiser sees. Solvers that keep their state in other units (Euler's sigma-space) are
converted at this border, so steering never knows.
"""

import copy
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

from activegen.records import Latents, UserError, choose

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm++_2m": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "lcm": "LCMScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}


@dataclass(frozen=True)
class Level:
    """One noise level.

    Args:
        index: of the step that starts here, from 0.
        count: of all steps.
        timestep: as the denoiser takes it, a scalar.
        alpha: share of the clean latents.
        sigma: share of the noise.
        prediction: what the denoiser returns here, "epsilon" or "v_prediction".
    """

    index: int
    count: int
    timestep: Tensor
    alpha: float
    sigma: float
    prediction: str

    @property
    def progress(self) -> float:
        """0 at the first step, towards 1 at the last."""
        return self.index / self.count

    def clean(self, output: Latents, latents: Latents) -> Latents:
        """E[z_0 | z_t] from the denoiser's output (Tweedie; Salimans & Ho 2022 for v)."""
        if self.prediction == "epsilon":
            return (latents - self.sigma * output) / self.alpha
        return self.alpha * latents - self.sigma * output

    def output(self, clean: Latents, latents: Latents) -> Latents:
        """The denoiser's output that means ``clean``; the inverse of :meth:`clean`."""
        noise = (latents - self.alpha * clean) / self.sigma
        if self.prediction == "epsilon":
            return noise
        return self.alpha * noise - self.sigma * clean

    def noised(self, clean: Latents, noise: Latents) -> Latents:
        """``clean`` with this level's share of ``noise``."""
        return self.alpha * clean + self.sigma * noise


def scheduler(name: str, config: Any) -> Any:
    """A diffusers scheduler by our short name, with the noise levels of ``config``.

    Raises:
        UnknownWord: the name is not in SCHEDULERS.
    """
    return configured(getattr(diffusers, choose(SCHEDULERS, name, "scheduler")), config)


def configured(kind: Any, config: Any) -> Any:
    """A diffusers scheduler of this class; latents, unlike pictures, do not end at 1."""
    return kind.from_config(config, clip_sample=False)


class Solver:
    """A fresh copy of a diffusers scheduler, set to a number of steps; lives for one batch.

    Raises:
        UserError: the scheduler predicts something else than epsilon or v, or the number of steps
            is one that it does not take.
    """

    def __init__(self, scheduler: Any, num_steps: int, device: torch.device | str = "cpu"):
        self.scheduler = copy.deepcopy(scheduler)
        prediction = self.scheduler.config.get("prediction_type")
        if prediction not in ("epsilon", "v_prediction"):
            raise UserError(
                f"a model that predicts '{prediction}' is not supported; use epsilon or v"
            )
        if num_steps < 1:
            raise UserError(f"num_steps is {num_steps}; give at least 1")
        try:
            self.scheduler.set_timesteps(num_steps, device=device)
        except ValueError as error:
            raise UserError(f"the scheduler does not take {num_steps} steps: {error}") from error
        self._takes_rng = "generator" in inspect.signature(self.scheduler.step).parameters
        timesteps = self.scheduler.timesteps
        self.levels: tuple[Level, ...] = tuple(
            Level(index, len(timesteps), timestep, *self._shares(index, timestep), prediction)
            for index, timestep in enumerate(timesteps)
        )
        probe = torch.ones(1, device=device)
        seen = copy.deepcopy(self.scheduler).scale_model_input(probe, timesteps[0])
        self._exploding = bool((seen != 1).any())

    def start(self, noise: Latents) -> Latents:
        """The solver's own state before the first step, from standard normal noise."""
        return noise * self.scheduler.init_noise_sigma

    def latents(self, state: Latents, level: Level) -> Latents:
        """What the denoiser sees of the solver's state, in the step that is due."""
        return self.scheduler.scale_model_input(state, level.timestep)

    def state(self, latents: Latents, index: int) -> Latents:
        """The solver's state that the denoiser sees as ``latents`` at step ``index``."""
        return latents / self._shrink(index)

    def moved(self, latents: Latents, index: int) -> Latents:
        """As :meth:`state`, for latents that somebody changed.

        UniPC's corrector is left out of this step: it starts from the state before, and the change
        would be lost. PNDM starts from there, too, and loses it: before step 1, or with Runge-Kutta
        steps before each of the first twelve but 0, 4 and 8.
        """
        self.scheduler.last_sample = None
        return self.state(latents, index)

    def scaled(self, state: Latents, index: int) -> Latents:
        """The inverse of :meth:`state`; unlike :meth:`latents` at any step, also past the last."""
        return state * self._shrink(index)

    def step(
        self, output: Latents, level: Level, state: Latents, rngs: Sequence[torch.Generator]
    ) -> Latents:
        """The state at the next level; noise, where the solver wants it, one generator an image."""
        extra = {"generator": list(rngs)} if self._takes_rng else {}
        return self.scheduler.step(output, level.timestep, state, **extra).prev_sample

    def arrival(self, index: int) -> tuple[float, float]:
        """(alpha, sigma) that the state has before step ``index``; (1, 0) past the last."""
        if index >= len(self.levels):
            return 1.0, 0.0
        return self.levels[index].alpha, self.levels[index].sigma

    def _shares(self, index: int, timestep: Tensor) -> tuple[float, float]:
        """(alpha, sigma) of a step."""
        if hasattr(self.scheduler, "sigmas"):  # in units of noise over clean
            ratio = float(self.scheduler.sigmas[index])
            return 1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio)
        squared = float(self.scheduler.alphas_cumprod[int(timestep)])
        return math.sqrt(squared), math.sqrt(1 - squared)

    def _shrink(self, index: int) -> float:
        """What the denoiser sees of one unit of the solver's state."""
        return self.arrival(index)[0] if self._exploding else 1.0
