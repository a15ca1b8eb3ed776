"""Ways of steering as a recipe writes them: words and numbers, and what they become.

A term or objective is a mapping with one word, ``reference_pull: {until: 0.3}``; a word alone takes
its defaults. ``during`` and ``every`` put it into a window.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from activegen.diffusion.sampling import Route, Term, Variable
from activegen.guidance import (
    Adversarial,
    Ascend,
    Attention,
    Background,
    During,
    Every,
    Everywhere,
    Informative,
    Inpaint,
    Inside,
    Labelled,
    Object,
    Objective,
    Recurrence,
    ReferencePull,
    Region,
    Repulsion,
    SegmentConsistency,
    TargetWindow,
    TeacherAnchor,
    TeacherStudent,
    Weighted,
)
from activegen.guidance.reference_pull import Trajectory
from activegen.guidance.segment_consistency import Kind
from activegen.loop.parts import Learners
from activegen.records import TaskModel, UserError, choose
from activegen.scores import SCORES
from activegen.tasks.committee import Committee
from activegen.tasks.dropout import FrozenDropout

DROPOUT_MEMBERS = 5  # as in the precursor of Kniesel et al. (2025)


class Models:
    """What objectives ask; each is one object, so that a step asks it once.

    Args:
        learners: of the round.
        find_teacher: a model that neither learns nor judges; None where the recipe has none.
    """

    def __init__(self, learners: Learners, find_teacher: Callable[[], TaskModel | None]):
        self.learners, self._find_teacher = learners, find_teacher
        self.bank = learners.bank

    @property
    def learner(self) -> TaskModel:
        """In training."""
        return self.learners.main

    @cached_property
    def committee(self) -> TaskModel:
        """The learner, those that mine, each trained on other images, and trained ones."""
        return Committee(self.learners.committee)

    @cached_property
    def dropout(self) -> TaskModel:
        """The learner with frozen dropout masks."""
        return FrozenDropout(self.learners.main, DROPOUT_MEMBERS, seed=0)

    @cached_property
    def teacher(self) -> TaskModel:
        """Independent of the learner.

        Raises:
            UserError: the recipe has no judge.
        """
        found = self._find_teacher()
        if found is None:
            raise UserError("an objective asks the teacher; name a network in the judge's settings")
        return found


Asked = Literal["learner", "committee", "dropout", "teacher"]


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
    """An objective's part in the sum.

    Args:
        weight: its factor; negative descends.
        low, high: the window that its value is moved into; by default there is none.
        inside: the region whose pixels count.
    """

    weight: float = 1.0
    low: float | None = None
    high: float | None = None
    inside: str = "everywhere"

    def objective(self, word: str, models: Models) -> Objective:
        """The objective: in its region, its window of values, weighted, in its window of steps."""
        made = self._inner(word, models)
        if self.inside != "everywhere":
            made = Inside(_region(self.inside), made)
        if self.low is not None or self.high is not None:
            low = -math.inf if self.low is None else self.low
            made = TargetWindow(low, math.inf if self.high is None else self.high, made)
        return self._windowed(Weighted(self.weight, made))

    def _inner(self, word: str, models: Models) -> Objective:
        raise NotImplementedError


class ScoreBody(ObjectiveBody):
    """A score.

    Args:
        of: whose; the committee is the learner, those that mine and trained ones, dropout is the
            learner with frozen masks, the teacher neither learns nor judges.
    """

    of: Asked = "learner"

    def _inner(self, word: str, models: Models) -> Objective:
        return Informative(getattr(models, self.of), choose(SCORES, word, "score"))


class RepulsionBody(ObjectiveBody):
    """Away from earlier images of the class.

    Args:
        margin: relative distance below which they repel.
    """

    margin: float = 1.0

    def _inner(self, word: str, models: Models) -> Objective:
        return Repulsion(models.bank, self.margin)


class AdversarialBody(ObjectiveBody):
    """Up to a loss of the classifier in training.

    Args:
        cap: that loss, in nats.
    """

    cap: float = 2.3

    def _inner(self, word: str, models: Models) -> Objective:
        return Adversarial(models.learner, self.cap)


class TeacherStudentBody(ObjectiveBody):
    """Hard for the learner, easy for the teacher.

    Args:
        teacher: weight of the teacher.
        cap: of the learner's loss, in nats.
    """

    of: ClassVar[Asked] = "learner"  # to rank by: it and the teacher
    teacher: float = 1.0
    cap: float = 2.3

    def _inner(self, word: str, models: Models) -> Objective:
        return TeacherStudent(models.learner, models.teacher, self.teacher, self.cap)


class TeacherAnchorBody(ObjectiveBody):
    """The teacher shall still recognise the label.

    Args:
        tolerance: the loss up to which it is content, in nats.
    """

    tolerance: float = 0.7

    def _inner(self, word: str, models: Models) -> Objective:
        return TeacherAnchor(models.teacher, self.tolerance)


class SegmentConsistencyBody(ObjectiveBody):
    """The pixels of a segment shall be seen alike.

    Args:
        kind: of difference.
    """

    kind: Kind = "mse"

    def _inner(self, word: str, models: Models) -> Objective:
        return SegmentConsistency(models.learner, self.kind)


class ObjectiveWords(OneOf):
    """An objective."""

    kind: ClassVar[str] = "objective"


_BODIES: dict[str, type[ObjectiveBody]] = {
    **{word: ScoreBody for word, score in SCORES.items() if score.differentiable},
    "repulsion": RepulsionBody,
    "adversarial": AdversarialBody,
    "teacher_student": TeacherStudentBody,
    "teacher_anchor": TeacherAnchorBody,
    "segment_consistency": SegmentConsistencyBody,
}
ObjectiveSpec: Any = create_model(
    "ObjectiveSpec",
    __base__=ObjectiveWords,
    **{word: (body | None, None) for word, body in _BODIES.items()},  # pyright: ignore
)


class TermBody(Windowed):
    """What a way of moving costs; by default no gradient and no repetition."""

    def passes(self, index: int, num_steps: int) -> int:
        """How often it has a step walked."""
        return 1

    def climbs(self, index: int, num_steps: int) -> bool:
        """Does it need a backward in this step?"""
        return False


class RegionSpec(TermBody):
    """Where a term acts.

    Args:
        sharpness: of a mask of attention; 0 = as it is, above a sigmoid of this slope.
    """

    sharpness: float = 0.0

    def _where(self, word: str) -> Region:
        return Attention(self.sharpness) if word == "attention" else _region(word)


class ReferencePullSpec(RegionSpec):
    """A share of the way to a real image after each step; see ``guidance.ReferencePull``."""

    mask: str = "attention"
    until: float = 0.3125
    width: float = 0.025
    strength: float = 1.0
    trajectory: Trajectory = "deterministic"

    def term(self, models: Models) -> Term:
        """The term."""
        where = self._where(self.mask)
        pull = ReferencePull(where, self.until, self.width, self.strength, self.trajectory)
        return self._windowed(pull)


class AscendSpec(RegionSpec):
    """A move towards higher objectives in each step; see ``guidance.Ascend``."""

    of: Variable = "conditioning"
    through: Route = "denoiser"
    step: float = 0.05
    radius: float = 0.0
    region: str = "everywhere"
    objectives: tuple[ObjectiveSpec, ...] = Field(min_length=1)  # pyright: ignore

    def term(self, models: Models) -> Term:
        """The term."""
        objectives = tuple(o.body.objective(o.word, models) for o in self.objectives)
        where = self._where(self.region)
        return self._windowed(
            Ascend(self.of, self.through, objectives, self.step, self.radius, where)
        )

    def climbs(self, index: int, num_steps: int) -> bool:
        """Does it need a backward in this step?"""
        opened = any(o.body.opens(index, num_steps) for o in self.objectives)
        return self.step > 0 and opened and self.opens(index, num_steps)


class InpaintSpec(TermBody):
    """The rest of the real image stays; see ``guidance.Inpaint``."""

    def term(self, models: Models) -> Term:
        """The term."""
        return self._windowed(Inpaint())


class RecurrenceSpec(TermBody):
    """Each step several times; see ``guidance.Recurrence``."""

    times: int = 1

    def term(self, models: Models) -> Term:
        """The term."""
        return self._windowed(Recurrence(self.times))

    def passes(self, index: int, num_steps: int) -> int:
        """As often as it says, in its window."""
        return self.times if self.opens(index, num_steps) else 1


class TermSpec(OneOf):
    """A way of moving a picture while it is drawn."""

    kind: ClassVar[str] = "term"

    reference_pull: ReferencePullSpec | None = None
    ascend: AscendSpec | None = None
    inpaint: InpaintSpec | None = None
    recurrence: RecurrenceSpec | None = None


Guidance = dict[str, tuple[TermSpec, ...]]


def terms(guidance: Guidance, models: Models) -> dict[str, list[Term]]:
    """The ways of drawing by name; "plain" has no terms."""
    ways = {name: [spec.body.term(models) for spec in specs] for name, specs in guidance.items()}
    return {"plain": [], **ways}


def gradients(specs: Sequence[TermSpec], num_steps: int) -> int:
    """How many backwards there are in a draw."""
    return sum(
        passes(specs, index, num_steps) * bool(_climbers(specs, index, num_steps))
        for index in range(num_steps)
    )


def climbing(specs: Sequence[TermSpec], models: Models) -> list[Term]:
    """Every move of a way that needs a gradient, each once and in all steps."""
    found: list[AscendSpec] = []
    for spec in specs:
        body = spec.body
        if isinstance(body, AscendSpec) and body.step > 0:
            always = {"during": None, "every": 1}
            aims = [(o.word, o.body.model_copy(update=always)) for o in body.objectives]
            objectives = tuple(ObjectiveSpec(**{word: aim}) for word, aim in aims)
            found.append(body.model_copy(update={**always, "objectives": objectives}))
    return [body.term(models) for body in dict.fromkeys(found)]


def passes(specs: Sequence[TermSpec], index: int, num_steps: int) -> int:
    """How often a step is walked."""
    return max((spec.body.passes(index, num_steps) for spec in specs), default=1)


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


def check_committee(guidance: Guidance, members: int) -> None:
    """Looks for an objective that asks the committee where there is none.

    Args:
        guidance: the ways of drawing.
        members: of the committee, the learner among them.

    Raises:
        UserError: there is.
    """
    for name, specs in guidance.items():
        for objective in objectives(specs):
            if members < 2 and getattr(objective.body, "of", "") == "committee":
                raise UserError(
                    f"guidance.{name}: {objective.word} is of a committee, and the learner is "
                    "alone: the loop has one with mining.split=cross_fit or bagging and real "
                    "images, or learner.committee, 'activegen generate' with --model given several "
                    "times; or write 'of: learner'"
                )


def objectives(specs: Sequence[TermSpec]) -> list[ObjectiveWords]:
    """All that the terms of a way ascend, in their order."""
    return [o for spec in specs for o in getattr(spec.body, "objectives", ())]


def _region(word: str) -> Region:
    made = {
        "attention": Attention(),
        "background": Background(),
        "everywhere": Everywhere(),
        "labelled": Labelled(),
        "object": Object(),
    }
    return choose(made, word, "region")


def _climbers(specs: Sequence[TermSpec], index: int, num_steps: int) -> list[TermSpec]:
    return [spec for spec in specs if spec.body.climbs(index, num_steps)]
