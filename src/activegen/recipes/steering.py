"""Ways of steering as a recipe writes them: words and numbers, and what they become.

A term or objective is a mapping with one word, ``reference_pull: {until: 0.3}``; a word alone takes
its defaults. ``during`` and ``every`` put it into a window.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from activegen.diffusion.sampling import Route, Term, Variable
from activegen.guidance import (
    Adversarial,
    Ascend,
    Attention,
    During,
    Every,
    Everywhere,
    Informative,
    MemoryBank,
    Objective,
    ReferencePull,
    Region,
    Repulsion,
    Weighted,
)
from activegen.guidance.reference_pull import Trajectory
from activegen.records import TaskModel, UserError, choose
from activegen.scores import SCORES


class Spec(BaseModel):
    """A part of a recipe: frozen, and without keys that we do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OneOf(Spec):
    """A mapping with exactly one of its words; a word alone takes its defaults."""

    kind: ClassVar[str] = "word"

    @model_validator(mode="before")
    @classmethod
    def _word_alone(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, dict):
            return {word: {} if body is None else body for word, body in value.items()}
        return value

    @model_validator(mode="after")
    def _one(self) -> "OneOf":
        if len(self.model_fields_set) != 1:
            words = ", ".join(type(self).model_fields)
            raise UserError(f"a {self.kind} is one of: {words}; write each as an item of its own")
        return self

    @property
    def word(self) -> str:
        """Which one."""
        return next(iter(self.model_fields_set))

    @property
    def body(self) -> Any:
        """What it says."""
        return getattr(self, self.word)


class Windowed(Spec):
    """When it counts.

    Args:
        during: from and to which progress, 0 is the first step and 1 behind the last.
        every: only in every so many-th step.
    """

    during: tuple[float, float] | None = None
    every: int = 1

    def opens(self, index: int, num_steps: int) -> bool:
        """Does it count in this step?"""
        start, stop = self.during or (0.0, 1.0)
        return index % self.every == 0 and start <= index / num_steps < stop

    def _windowed(self, inner: Any) -> Any:
        if self.every != 1:
            inner = Every(self.every, inner)
        if self.during is not None:
            inner = During(*self.during, inner)
        return inner


class ObjectiveBody(Windowed):
    """An objective's part in the sum; for a score of the task model this is all.

    Args:
        weight: its factor; negative descends.
    """

    weight: float = 1.0

    def objective(self, word: str, task: TaskModel, bank: MemoryBank) -> Objective:
        """The objective, weighted and in its window."""
        return self._windowed(Weighted(self.weight, self._inner(word, task, bank)))

    def _inner(self, word: str, task: TaskModel, bank: MemoryBank) -> Objective:
        return Informative(task, choose(SCORES, word, "score"))


class RepulsionBody(ObjectiveBody):
    """Away from earlier images of the class.

    Args:
        margin: relative distance below which they repel.
    """

    margin: float = 1.0

    def _inner(self, word: str, task: TaskModel, bank: MemoryBank) -> Objective:
        return Repulsion(bank, self.margin)


class AdversarialBody(ObjectiveBody):
    """Up to a loss of the classifier in training.

    Args:
        cap: that loss, in nats.
    """

    cap: float = 2.3

    def _inner(self, word: str, task: TaskModel, bank: MemoryBank) -> Objective:
        return Adversarial(task, self.cap)


class ObjectiveWords(OneOf):
    """An objective."""

    kind: ClassVar[str] = "objective"


_BODIES: dict[str, type[ObjectiveBody]] = {
    "repulsion": RepulsionBody,
    "adversarial": AdversarialBody,
    **dict.fromkeys(SCORES, ObjectiveBody),
}
ObjectiveSpec: Any = create_model(
    "ObjectiveSpec",
    __base__=ObjectiveWords,
    **{word: (body | None, None) for word, body in _BODIES.items()},  # pyright: ignore
)


class RegionSpec(Windowed):
    """Where a term acts.

    Args:
        sharpness: of a mask of attention; 0 = as it is, above a sigmoid of this slope.
    """

    sharpness: float = 0.0

    def _where(self, word: str) -> Region:
        made = {"attention": Attention(self.sharpness), "everywhere": Everywhere()}
        return choose(made, word, "region")


class ReferencePullSpec(RegionSpec):
    """A share of the way to a real image after each step; see ``guidance.ReferencePull``."""

    mask: str = "attention"
    until: float = 0.3125
    width: float = 0.025
    strength: float = 1.0
    trajectory: Trajectory = "deterministic"

    def term(self, task: TaskModel, bank: MemoryBank) -> Term:
        """The term."""
        where = self._where(self.mask)
        pull = ReferencePull(where, self.until, self.width, self.strength, self.trajectory)
        return self._windowed(pull)

    def climbs(self, index: int, num_steps: int) -> bool:
        """Never."""
        return False


class AscendSpec(RegionSpec):
    """A move towards higher objectives in each step; see ``guidance.Ascend``."""

    of: Variable = "conditioning"
    through: Route = "denoiser"
    step: float = 0.05
    radius: float = 0.0
    region: str = "everywhere"
    objectives: tuple[ObjectiveSpec, ...] = Field(min_length=1)  # pyright: ignore

    def term(self, task: TaskModel, bank: MemoryBank) -> Term:
        """The term."""
        objectives = tuple(o.body.objective(o.word, task, bank) for o in self.objectives)
        where = self._where(self.region)
        return self._windowed(
            Ascend(self.of, self.through, objectives, self.step, self.radius, where)
        )

    def climbs(self, index: int, num_steps: int) -> bool:
        """Does it need a backward in this step?"""
        opened = any(o.body.opens(index, num_steps) for o in self.objectives)
        return self.step > 0 and opened and self.opens(index, num_steps)


class TermSpec(OneOf):
    """A way of moving a picture while it is drawn."""

    kind: ClassVar[str] = "term"

    reference_pull: ReferencePullSpec | None = None
    ascend: AscendSpec | None = None


Guidance = dict[str, tuple[TermSpec, ...]]


def terms(guidance: Guidance, task: TaskModel, bank: MemoryBank) -> dict[str, list[Term]]:
    """The ways of drawing by name, for a learner and a memory bank; "plain" has no terms."""
    ways = {
        name: [spec.body.term(task, bank) for spec in specs] for name, specs in guidance.items()
    }
    return {"plain": [], **ways}


def gradients(specs: Sequence[TermSpec], num_steps: int) -> int:
    """In how many steps of a draw there is a backward."""
    return sum(bool(_climbers(specs, index, num_steps)) for index in range(num_steps))


def check_gradients(guidance: Guidance, num_steps: int) -> None:
    """Looks for two terms that want a gradient in the same step.

    Raises:
        UserError: there are.
    """
    for name, specs in guidance.items():
        for index in range(num_steps):
            if len(_climbers(specs, index, num_steps)) > 1:
                raise UserError(
                    f"guidance.{name}: two terms want a gradient in step {index}; give one ascend "
                    "the objectives of both, or windows (during) that do not overlap"
                )


def _climbers(specs: Sequence[TermSpec], index: int, num_steps: int) -> list[TermSpec]:
    return [spec for spec in specs if spec.body.climbs(index, num_steps)]
