"""When to steer: wrappers around any term or objective, never switches inside them."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from jaxtyping import Float
from torch import Tensor

from activegen.diffusion.levels import Level
from activegen.diffusion.sampling import Batch, Estimate, Move, Route, Steering, Term, Variable
from activegen.guidance.objectives import Objective
from activegen.records import Latents, UserError

Inner = TypeVar("Inner", Term, Objective)


class Windowed(Objective, Generic[Inner]):
    """Passes everything on to ``inner``, but only at the levels that :meth:`opens` names.

    It is a term around a term and an objective around an objective; windows nest.
    """

    inner: Inner

    def opens(self, level: Level) -> bool:
        """Is this level inside the window?"""
        raise NotImplementedError

    def active(self, level: Level) -> bool:
        """Inside the window, and the inner objective's own windows."""
        return self.opens(level) and self._objective().active(level)

    def wants_attention(self, level: Level) -> bool:
        """As the inner objective."""
        return self._objective().wants_attention(level)

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """Of the inner objective."""
        return self._objective().value(estimate)

    def begin(self, batch: Batch) -> Steering:
        """Of the inner term.

        Raises:
            UserError: the window is around an objective, which cannot stand alone.
        """
        if not isinstance(self.inner, Term):
            raise UserError(f"{_name(self.inner)} is an objective; put it into an Ascend")
        return _Within(self, self.inner.begin(batch))

    def _objective(self) -> Objective:
        if not isinstance(self.inner, Objective):
            raise UserError(f"{_name(self.inner)} is a term; put it into the list of guidance")
        return self.inner


@dataclass(frozen=True)
class During(Windowed[Inner]):
    """Only while ``start <= progress < stop``; 0 is the first step, 1 behind the last.

    Raises:
        UserError: the window is empty.
    """

    start: float
    stop: float
    inner: Inner

    def __post_init__(self):
        if self.start >= self.stop:
            raise UserError(f"a window from {self.start} to {self.stop} is empty; swap the two")

    def opens(self, level: Level) -> bool:
        """By progress."""
        return self.start <= level.progress < self.stop


@dataclass(frozen=True)
class Every(Windowed[Inner]):
    """Only in every ``stride``-th step of the sampler, the first among them.

    Raises:
        UserError: the stride is not positive.
    """

    stride: int
    inner: Inner

    def __post_init__(self):
        if self.stride < 1:
            raise UserError(f"a stride of {self.stride} steps; give 1 or more")

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

    def passes(self, level: Level) -> int:
        return self.inner.passes(level)

    def gradient(self, level: Level) -> tuple[Variable, Route] | None:
        return self.inner.gradient(level)

    def objective(self, estimate: Estimate) -> Float[Tensor, " b"]:
        return self.inner.objective(estimate)

    def move(self, estimate: Estimate, gradient: Tensor) -> Move:
        return self.inner.move(estimate, gradient)

    def arrive(self, latents: Latents, estimate: Estimate, alpha: float, sigma: float) -> Latents:
        return self.inner.arrive(latents, estimate, alpha, sigma)

    def overwrites(self, level: Level) -> Latents | None:
        return self.inner.overwrites(level)


def _name(inner: object) -> str:
    return type(inner).__name__
