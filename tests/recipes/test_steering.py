"""Words of guidance become terms."""

import pytest
import torch

from activegen.guidance import (
    Adversarial,
    Ascend,
    Attention,
    During,
    Every,
    Everywhere,
    Informative,
    Inpaint,
    Inside,
    MemoryBank,
    Object,
    Recurrence,
    ReferencePull,
    Repulsion,
    SegmentConsistency,
    TargetWindow,
    TeacherAnchor,
    TeacherStudent,
    Weighted,
)
from activegen.loop.parts import Learners
from activegen.recipes import parse, steering
from activegen.records import Prediction, UserError
from activegen.scores import SCORES


class Task:
    def predict(self, images: torch.Tensor) -> Prediction:
        return Prediction(images.mean((2, 3))[None])


TASK, BANK, TEACHER = Task(), MemoryBank(), Task()


def models(teacher: Task | None = TEACHER) -> steering.Models:
    return steering.Models(Learners(TASK, (TASK, Task()), BANK), lambda: teacher)


def guidance(*terms: object) -> steering.Guidance:
    return parse({"data": {"layout": "world"}, "guidance": {"guided": list(terms)}}).guidance


def made(*terms: object) -> list:
    return steering.terms(guidance(*terms), models())["guided"]


def test_plain_has_no_terms() -> None:
    assert steering.terms({}, models()) == {"plain": []}


def test_reference_pull() -> None:
    assert made("reference_pull") == [ReferencePull()]
    wanted = ReferencePull(Everywhere(), until=0.2, strength=0.5, trajectory="ancestral")
    said = {"mask": "everywhere", "until": 0.2, "strength": 0.5, "trajectory": "ancestral"}
    assert made({"reference_pull": said}) == [wanted]
    assert made({"reference_pull": {"sharpness": 4}}) == [ReferencePull(Attention(4.0))]


def test_ascend_with_windows_and_weights() -> None:
    objectives = [
        {"repulsion": {"margin": 2, "during": [0, 0.25]}},
        {"adversarial": {"weight": 0.1, "cap": 1, "every": 2}},
        "entropy",
    ]
    [term] = made({"ascend": {"of": "latents", "step": 0.1, "objectives": objectives, "every": 3}})
    wanted = Ascend(
        "latents",
        "denoiser",
        (
            During(0.0, 0.25, Weighted(1.0, Repulsion(BANK, 2.0))),
            Every(2, Weighted(0.1, Adversarial(TASK, 1.0))),
            Weighted(1.0, Informative(TASK, SCORES["entropy"])),
        ),
        0.1,
    )
    assert term == Every(3, wanted)


OF_ONE_MODEL = sorted(w for w, s in SCORES.items() if s.differentiable and not s.of_teacher)


@pytest.mark.parametrize("word", OF_ONE_MODEL)
def test_every_score_is_an_objective(word: str) -> None:
    [term] = made({"ascend": {"objectives": [word]}})
    assert term.objectives == (Weighted(1.0, Informative(TASK, SCORES[word])),)


def test_what_masks_need() -> None:
    assert made("inpaint", {"recurrence": {"times": 3}}) == [Inpaint(), Recurrence(3)]
    said = {"low": 0.2, "inside": "object", "weight": 2}
    [term] = made({"ascend": {"of": "clean", "through": "decoder", "objectives": [
        {"margin": said}, "teacher_anchor", "teacher_student",
        {"segment_consistency": {"kind": "kl"}},
    ]}})  # fmt: skip
    inner = Inside(Object(), Informative(TASK, SCORES["margin"]))
    assert term.objectives == (
        Weighted(2.0, TargetWindow(0.2, float("inf"), inner)),
        Weighted(1.0, TeacherAnchor(TEACHER)),
        Weighted(1.0, TeacherStudent(TASK, TEACHER)),
        Weighted(1.0, SegmentConsistency(TASK, "kl")),
    )


def test_a_score_may_be_the_committees_or_the_teachers() -> None:
    said = [{"disagreement": {"of": "committee"}}, {"entropy": {"of": "committee"}}]
    [term] = made({"ascend": {"objectives": [*said, {"entropy": {"of": "teacher"}}]}})
    committee, same, teacher = (o.inner.task for o in term.objectives)
    assert committee is same and len(committee.members) == 2
    assert teacher is TEACHER


def test_a_teacher_is_needed_where_one_is_asked() -> None:
    with pytest.raises(UserError, match="asks the teacher; name a network"):
        steering.terms(guidance({"ascend": {"objectives": ["teacher_anchor"]}}), models(None))


def test_gradients_are_counted_by_their_windows() -> None:
    specs = guidance(
        "reference_pull",
        {"ascend": {"objectives": [{"entropy": {"during": [0, 0.25]}}]}},
        {"ascend": {"during": [0.5, 1.0], "every": 2, "objectives": ["margin"]}},
    )["guided"]
    assert steering.gradients(specs, 16) == 4 + 4


def test_two_gradients_in_one_step_are_an_error() -> None:
    ascend = {"ascend": {"objectives": ["entropy"]}}
    with pytest.raises(UserError, match=r"guidance.guided: two terms want a gradient in step 0"):
        steering.check_gradients(guidance(ascend, ascend), 4)
