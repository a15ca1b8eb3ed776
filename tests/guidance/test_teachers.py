import pytest
import torch

import gaussian
from activegen.diffusion.sampling import sample
from activegen.guidance import Ascend, Informative, TeacherAnchor, TeacherStudent, Weighted
from activegen.records import IGNORE, UserError
from activegen.scores import cross_entropy, per_image, teacher_student
from activegen.tasks.committee import Committee
from guidance import seams

STUDENT, TEACHER = gaussian.Colours(10.0), gaussian.Colours(3.0)


def pictures() -> torch.Tensor:
    """Red, between red and green, and green."""
    colours = torch.tensor([[0.8, 0.2, 0.2], [0.5, 0.5, 0.2], [0.2, 0.8, 0.2]])
    return colours.view(3, 3, 1, 1).expand(3, 3, 4, 4)


def losses(task, clean: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return cross_entropy.map(task.predict(clean), target)


def test_the_student_is_capped_and_the_teacher_is_not():
    target = torch.zeros(3, dtype=torch.long)
    value = TeacherStudent(STUDENT, TEACHER, 0.5, cap=2.0).value(seams.estimate(pictures(), target))
    student, teacher = losses(STUDENT, pictures(), target), losses(TEACHER, pictures(), target)
    assert student[2] > 2 and student[1] < 2
    torch.testing.assert_close(value, student.clamp(max=2.0) - 0.5 * teacher)


def test_steering_and_ranking_have_one_score():
    clean, target = torch.rand(2, 3, 4, 4), torch.tensor([0, 2])
    value = TeacherStudent(STUDENT, TEACHER).value(seams.estimate(clean, target))
    ranked = teacher_student(Committee((STUDENT, TEACHER)).predict(clean), target)
    torch.testing.assert_close(value, ranked)


def test_the_anchor_lets_go_within_its_tolerance():
    target = torch.zeros(3, dtype=torch.long)
    value = TeacherAnchor(TEACHER, 0.8).value(seams.estimate(pictures(), target))
    teacher = losses(TEACHER, pictures(), target)
    assert teacher[0] < 0.8 and teacher[1] < teacher[2]
    torch.testing.assert_close(value, -(teacher - 0.8).clamp_min(0))
    assert value[0] == 0 and value[2] < 0


def test_masks_are_judged_pixel_by_pixel():
    rng = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, 4, 4, generator=rng)
    target = torch.randint(3, (2, 4, 4), generator=rng)
    target[:, 0] = IGNORE
    student, teacher = seams.Pixels(), seams.Pixels(3.0)
    estimate = seams.estimate(clean, target)
    hard, easy = (losses(task, clean, target) for task in (student, teacher))
    assert (easy > 1).any() and (easy[:, 1:] < 1).any()
    torch.testing.assert_close(
        TeacherAnchor(teacher, 1.0).value(estimate), -per_image((easy - 1).clamp_min(0), target)
    )
    torch.testing.assert_close(
        TeacherStudent(student, teacher, 1.0, 0.5).value(estimate),
        per_image(hard.clamp(max=0.5) - easy, target),
    )


def test_a_teacher_keeps_the_class_that_plain_cross_entropy_leaves():
    plain = Informative(STUDENT, cross_entropy)
    anchored = (plain, Weighted(20.0, TeacherAnchor(TEACHER, 0.5)))
    kept = []
    for objectives in ((plain,), anchored, (TeacherStudent(STUDENT, TEACHER, 4.0),)):
        batch = gaussian.batch(gaussian.World(spread=1.0), ["red", "green"], seeds=[1, 2])
        drawn = sample(batch, [Ascend("clean", "decoder", objectives, 0.3)])
        kept.append(losses(TEACHER, drawn.latents, batch.target))
    left, held, taught = kept
    assert left[0] > 1.5  # the teacher no longer sees the class
    assert ((held < 1.0) & (held < 0.6 * left)).all()
    assert (taught < 0.1).all()


def test_numbers_out_of_range():
    with pytest.raises(UserError, match="0 or more"):
        TeacherStudent(STUDENT, TEACHER, -1.0)
    with pytest.raises(UserError, match="0 or more"):
        TeacherAnchor(TEACHER, -0.1)
