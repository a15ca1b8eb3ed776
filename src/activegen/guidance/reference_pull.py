"""Attentive image guidance: pulls the latents towards a real image, strongest at the start."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from activegen.diffusion.levels import Level
from activegen.diffusion.sampling import Batch, Estimate, Steering
from activegen.guidance.regions import ATTENTION, EVERYWHERE, Region
from activegen.records import Latents, UnknownWord, UserError

NEGLIGIBLE = 0.01  # share of the strength below which nothing is pulled
WHOLE = 0.999  # share of the way from which the denoiser's part is nothing

Trajectory = Literal["deterministic", "ancestral"]


@dataclass(frozen=True)
class ReferencePull:
    """After each step, a share of the way to the reference at the same noise level.

        latents += weight(progress) * mask * (reference_t - latents)
        weight(progress) = strength * (1 - sigmoid((progress - until) / width))

    Huang et al. (2024), https://arxiv.org/abs/2403.06517, whose gamma_t is our weight: about 1,
    0.5 at ``until`` and nothing later; their 12.5 of 40 steps is 0.3125, and one step is 0.025.
    Differs from their code in the mask, see ``regions.Attention``, in that a weight under 1 % of
    the strength is 0, and in that the denoiser is not asked in steps that go at least 99.9 % of the
    way everywhere.

    Args:
        mask: where; ``Everywhere()`` is their "image guidance" without the mask.
        until: progress at which the weight is one half; smaller keeps less of the reference, and
            ``math.inf`` pulls with the whole strength at every step.
        width: of the sigmoid, in progress.
        strength: 0 to 1; 1 as in the paper, 0 = unguided.
        trajectory: "deterministic" noises the reference with the image's own first noise (ours);
            "ancestral" walks it down the same solver with the same noise at each step, as in their
            code; with a solver that draws no noise that is a straight walk.

    Raises:
        UnknownWord: of ``trajectory``.
        UserError: a number out of its range.
    """

    mask: Region = ATTENTION
    until: float = 0.3125
    width: float = 0.025
    strength: float = 1.0
    trajectory: Trajectory = "deterministic"

    def __post_init__(self):
        if self.trajectory not in get_args(Trajectory):
            raise UnknownWord("trajectory", self.trajectory, get_args(Trajectory))
        if not 0 <= self.strength <= 1:
            raise UserError(f"strength is {self.strength}; give a share of the way, 0 to 1")
        if self.width <= 0:
            raise UserError(f"width is {self.width}; give a part of the progress, more than 0")

    def weight(self, progress: float) -> float:
        """The share of the way, 0 to ``strength``."""
        return self.strength / (1 + math.exp(min((progress - self.until) / self.width, 700)))

    def begin(self, batch: Batch) -> Steering:
        """For one batch.

        Raises:
            UserError: the batch has no references.
        """
        if batch.reference is None:
            raise UserError("ReferencePull needs a reference image for every request")
        return _Pulling(self, batch, batch.reference.to(batch.model.device))


class _Pulling(Steering):
    def __init__(self, term: ReferencePull, batch: Batch, reference: Latents):
        self.term, self.reference, self.noise = term, reference, batch.noise.to(reference)
        self.walk = _Walk(batch, reference) if term.trajectory == "ancestral" else None

    def active(self, level: Level) -> bool:
        weight = self.term.weight(level.progress)
        return weight > 0 and weight >= NEGLIGIBLE * self.term.strength

    def wants_attention(self, level: Level) -> bool:
        return self.term.mask.wants_attention

    def overwrites(self, level: Level) -> Latents | None:
        whole = self.term.mask == EVERYWHERE and self.term.weight(level.progress) >= WHOLE
        return self.reference if whole else None

    def arrive(self, latents: Latents, estimate: Estimate, alpha: float, sigma: float) -> Latents:
        if self.walk is None:
            there = alpha * self.reference + sigma * self.noise
        else:
            there = self.walk.latents_after(estimate.level)
        weight = self.term.weight(estimate.level.progress) * self.term.mask.mask(estimate)
        return torch.lerp(latents, there, weight)


class _Walk:
    """The reference on its own way through the same solver, with the same noise."""

    def __init__(self, batch: Batch, reference: Latents):
        self.solver, self.reference, self.taken = batch.solver(), reference, 0
        self.rngs = batch.fresh_rngs()
        self.state = self.solver.start(batch.noise.to(reference))

    def latents_after(self, level: Level) -> Latents:
        """Catches up first with the steps in which nobody asked."""
        for step in self.solver.levels[self.taken : level.index + 1]:
            output = step.output(self.reference, self.solver.latents(self.state, step))
            self.state = self.solver.step(output, step, self.state, self.rngs)
        self.taken = level.index + 1
        return self.solver.scaled(self.state, self.taken)
