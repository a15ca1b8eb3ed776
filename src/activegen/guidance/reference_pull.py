"""Attentive image guidance: pulls the latents towards a real image, strongest at the start."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from activegen.diffusion.levels import Level
from activegen.diffusion.sampling import Batch, Estimate, Steering
from activegen.guidance.regions import Attention, Region
from activegen.records import Latents, UserError

NEGLIGIBLE = 0.01


@dataclass(frozen=True)
class ReferencePull:
    """After each step, a share of the way to the reference at the same noise level.

        latents += weight(progress) * mask * (reference_t - latents)
        weight(progress) = strength * (1 - sigmoid((progress - until) / width))

    Huang et al. (2024), https://arxiv.org/abs/2403.06517, whose gamma_t is our weight: about 1, then
    0.5 at ``until`` and nothing later; their 12.5 of 40 steps is 0.3125, and one step is 0.025.

    Args:
        mask: where; ``Everywhere()`` is their "image guidance" without the mask.
        until: progress at which the weight is one half. A smaller value keeps less of the reference.
        width: of the sigmoid, in progress.
        strength: 1 as in the paper; 0 pulls nothing.
        trajectory: "deterministic" noises the reference with the image's own first noise (ours);
            "ancestral" walks it down the same solver with the same noise at each step, as in their
            code; it needs a solver that draws noise to differ from a straight walk.

    Raises:
        UserError: a batch without references.
    """

    mask: Region = Attention()
    until: float = 0.3125
    width: float = 0.025
    strength: float = 1.0
    trajectory: Literal["deterministic", "ancestral"] = "deterministic"

    def weight(self, progress: float) -> float:
        """The share of the way, 0 to ``strength``."""
        return self.strength / (1 + math.exp(min((progress - self.until) / self.width, 700)))

    def begin(self, batch: Batch) -> Steering:
        """For one batch."""
        if batch.reference is None:
            raise UserError("ReferencePull needs a reference image for every request")
        return _Pulling(self, batch, batch.reference)


class _Pulling(Steering):
    def __init__(self, term: ReferencePull, batch: Batch, reference: Latents):
        self.term, self.reference, self.noise = term, reference, batch.noise.to(reference)
        self.walk = _Walk(batch, reference) if term.trajectory == "ancestral" else None

    def active(self, level: Level) -> bool:
        return self.term.weight(level.progress) >= NEGLIGIBLE

    def wants_attention(self, level: Level) -> bool:
        return self.term.mask.wants_attention

    def arrive(self, latents: Latents, estimate: Estimate, alpha: float, sigma: float) -> Latents:
        if self.walk is None:
            there = alpha * self.reference + sigma * self.noise
        else:
            there = self.walk.step(estimate.level)
        weight = self.term.weight(estimate.level.progress) * self.term.mask.mask(estimate)
        return latents + weight * (there - latents)


class _Walk:
    """The reference on its own way through the same solver, with the same noise."""

    def __init__(self, batch: Batch, reference: Latents):
        self.solver, self.reference = batch.solver(), reference
        self.rngs = [torch.Generator() for _ in batch.rngs]
        for mine, theirs in zip(self.rngs, batch.rngs, strict=True):
            mine.set_state(theirs.get_state())
        self.state = self.solver.start(batch.noise.to(reference))

    def step(self, level: Level) -> Tensor:
        seen = self.solver.latents(self.state, level)
        output = level.output(self.reference, seen)
        self.state = self.solver.step(output, level, self.state, self.rngs)
        return self.solver.scaled(self.state, level.index + 1)
