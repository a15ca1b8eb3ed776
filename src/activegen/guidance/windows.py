"""When to steer: wrappers around any term or objective, never switches inside them."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from jaxtyping import Float
from torch import Tensor

from activegen.diffusion.levels import Level
from activegen.diffusion.sampling import Batch, Estimate, Move, Route, Steering, Term, Variable
from activegen.guidance.objectives import Objective
from activegen.records import Latents

Inner = TypeVar("Inner", Term, Objective)


class Windowed(Objective, Generic[Inner]):
    """Passes everything on to ``inner``, but only at the levels that ``opens`` names."""

    inner: Inner

    def opens(self, level: Level) -> bool:
        """Is this level inside the window?"""
        raise NotImplementedError

    def active(self, level: Level) -> bool:
        """Inside the window, and the inner objective's own windows."""
        return self.opens(level) and (
            not isinstance(self.inner, Objective) or self.inner.active(level)
        )

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """Of the inner objective."""
        assert isinstance(self.inner, Objective)
        return self.inner.value(estimate)

    def begin(self, batch: Batch) -> Steering:
        """Of the inner term."""
        assert isinstance(self.inner, Term)
        return _Within(self, self.inner.begin(batch))


@dataclass(frozen=True)
class During(Windowed[Inner]):
    """Only while ``start <= progress < stop``; 0 is the first step, 1 behind the last."""

    start: float
    stop: float
    inner: Inner

    def opens(self, level: Level) -> bool:
        """By progress."""
        return self.start <= level.progress < self.stop


@dataclass(frozen=True)
class Every(Windowed[Inner]):
    """Only in every ``stride``-th step, the first among them."""

    stride: int
    inner: Inner

    def opens(self, level: Level) -> bool:
        """By index."""
        return level.index % self.stride == 0


class _Within(Steering):
    def __init__(self, window: Windowed, inner: Steering):
        self.window, self.inner = window, inner

    def active(self, level: Level) -> bool:
        return self.window.opens(level) and self.inner.active(level)

    def wants_attention(self, level: Level) -> bool:
        return self.inner.wants_attention(level)

    def gradient(self, level: Level) -> tuple[Variable, Route] | None:
        return self.inner.gradient(level)

    def objective(self, estimate: Estimate) -> Float[Tensor, " b"]:
        return self.inner.objective(estimate)

    def move(self, estimate: Estimate, gradient: Tensor) -> Move:
        return self.inner.move(estimate, gradient)

    def arrive(self, latents: Latents, estimate: Estimate, alpha: float, sigma: float) -> Latents:
        return self.inner.arrive(latents, estimate, alpha, sigma)
