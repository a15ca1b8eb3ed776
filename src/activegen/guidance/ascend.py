"""Climb objectives: one backward, then a move of fixed length per image."""

from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from activegen.diffusion.levels import Level
from activegen.diffusion.sampling import Batch, Estimate, Move, Route, Steering, Variable
from activegen.guidance.objectives import Objective
from activegen.guidance.regions import EVERYWHERE, Region
from activegen.records import UnknownWord, UserError

SIGNAL = 1e-3  # alpha up to which latents do not tell of clean ones


@dataclass(frozen=True)
class Ascend:
    """Moves latents, clean latents or the text towards higher objectives.

        conditioning:  text += step * g / ||g||,                  within ``radius`` of the prompt
        latents:       latents += step * ||latents|| * g / ||g||,  the noise estimate kept, or
                       where there is nothing but noise (zero terminal SNR) the clean one
        clean:         clean += step * ||clean|| * g / ||g||,      the latents kept

    All norms are per image. The first is Huang et al. (2024), https://arxiv.org/abs/2403.06517,
    whose nu is our ``step`` (0.05). Differs from their code, which divides by the norm over tokens,
    so that its move is about 45 times longer, and also moves the unconditional half. The second is
    Askari Hemmat et al. (2023), https://arxiv.org/abs/2310.00158; the third is MPGD, He et al.
    (2023), https://arxiv.org/abs/2311.16424, with the length relative to the moved tensor (ours).
    No second denoiser call is made: a changed text is used from the next step on.

    Args:
        of: what is moved.
        through: "denoiser" differentiates the whole step; "conditional" too, but of
            classifier-free guidance only the half with the prompt, which is as good as the text's
            own gradient, and for latents leaves a term away for half of the backward; "decoder"
            takes the denoiser's output as constant (only for latents and clean, which then have the
            same direction).
        objectives: their values are summed; weigh them with ``Weighted``.
        step: length of a move: in units of the moved tensor's norm, for the text in its own units;
            0 = unguided.
        radius: the text stays within this distance of the prompt's; 0 = no bound. Ours.
        region: where latents may move; the length of the move stays the same.

    Raises:
        UnknownWord: ``of`` or ``through`` is not one of the words above.
        UserError: a combination or a number that has no meaning.
    """

    of: Variable
    through: Route
    objectives: tuple[Objective, ...]
    step: float
    radius: float = 0.0
    region: Region = EVERYWHERE

    def __post_init__(self):
        for kind, word, known in (("variable", self.of, Variable), ("route", self.through, Route)):
            if word not in get_args(known):
                raise UnknownWord(kind, word, get_args(known))
        if not self.objectives:
            raise UserError("Ascend has no objectives; give at least one")
        if self.of == "conditioning" and self.through == "decoder":
            raise UserError("the text acts through the denoiser; write through='denoiser'")
        if self.of == "clean" and self.through != "decoder":
            raise UserError("the clean latents come after the denoiser; write through='decoder'")
        if self.of != "conditioning" and self.radius:
            raise UserError("radius bounds the text only; latents have no fixed origin")
        if self.of == "conditioning" and self.region != EVERYWHERE:
            raise UserError("region restricts latents; the text has no place in the picture")
        if self.step < 0 or self.radius < 0:
            raise UserError("step and radius are lengths, 0 or more; to descend, weigh by -1")

    def begin(self, batch: Batch) -> Steering:
        """For one batch."""
        return _Ascending(self, batch)


class _Ascending(Steering):
    def __init__(self, term: Ascend, batch: Batch):
        self.term, self.origin = term, batch.conditioning.text

    def active(self, level: Level) -> bool:
        return self.term.step != 0 and any(o.active(level) for o in self.term.objectives)

    def wants_attention(self, level: Level) -> bool:
        wanting = (o for o in self.term.objectives if o.active(level) and o.wants_attention(level))
        return self.term.region.wants_attention or any(wanting)

    def gradient(self, level: Level) -> tuple[Variable, Route] | None:
        return self.term.of, self.term.through

    def objective(self, estimate: Estimate) -> Float[Tensor, " b"]:
        values = [o.value(estimate) for o in self.term.objectives if o.active(estimate.level)]
        return torch.stack(values).sum(0)

    def move(self, estimate: Estimate, gradient: Tensor) -> Move:
        term = self.term
        if term.of == "conditioning":
            text = estimate.conditioning.text + term.step * _unit(gradient)
            return Move(conditioning=estimate.conditioning.with_text(self._bounded(text)))
        gradient = gradient * term.region.mask(estimate)
        if term.of == "clean":
            return Move(clean=estimate.clean + term.step * _norm(estimate.clean) * _unit(gradient))
        change = term.step * _norm(estimate.latents) * _unit(gradient)
        alpha = estimate.level.alpha
        # with the noise estimate kept, clean = (latents - sigma * noise) / alpha moves along
        clean = estimate.clean + change / alpha if alpha > SIGNAL else None
        return Move(estimate.latents + change, clean)

    def _bounded(self, text: Tensor) -> Tensor:
        if not self.term.radius:
            return text
        away = text - self.origin
        return self.origin + away * (self.term.radius / _norm(away).clamp_min(1e-12)).clamp(max=1)


def _norm(x: Tensor) -> Tensor:
    return _over(x, x.flatten(1).norm(dim=1))


def _unit(x: Tensor) -> Tensor:
    """Per image; zero stays zero. Divides by the largest first: squares would leave float32."""
    largest = _over(x, x.flatten(1).abs().amax(1))
    scaled = x / largest.clamp_min(torch.finfo(x.dtype).tiny)
    return scaled / _norm(scaled).clamp_min(1)


def _over(x: Tensor, each: Tensor) -> Tensor:
    """One number per image, in a shape that broadcasts against ``x``."""
    return each.view(-1, *[1] * (x.ndim - 1))
