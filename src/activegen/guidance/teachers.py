"""Anchors of the label: a model that shall still recognise what another finds hard."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from activegen.diffusion.sampling import Estimate
from activegen.guidance.objectives import Objective
from activegen.records import TaskModel, UserError
from activegen.scores import CAP, cross_entropy, hard_and_known, per_image


@dataclass(frozen=True)
class TeacherStudent(Objective):
    """Hard for the student and easy for the teacher; of a mask, pixel by pixel.

        mean over pixels of min(CE(student, target), cap) - weight * CE(teacher, target)

    Raising the student's cross-entropy alone may destroy the class: Kniesel et al. (2025),
    https://arxiv.org/abs/2503.09221, Figure 5. The teacher keeps it. Ours. Finished images are
    ranked by it as ``scores.teacher_student``.

    Args:
        student: the model in training, or an early state of it.
        teacher: one that knows the classes better, best of another architecture.
        weight: of the teacher.
        cap: in nats, of the student; beyond it a pixel is hard enough.

    Raises:
        UserError: a number below 0.
    """

    student: TaskModel
    teacher: TaskModel
    weight: float = 1.0
    cap: float = CAP

    def __post_init__(self):
        if self.weight < 0 or self.cap < 0:
            raise UserError("weight and cap of TeacherStudent are 0 or more")

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """In nats, at most ``cap``."""
        target = estimate.target
        student, teacher = estimate.prediction(self.student), estimate.prediction(self.teacher)
        values = hard_and_known(student, teacher, target, self.weight, self.cap)
        return per_image(values, target)


@dataclass(frozen=True)
class TeacherAnchor(Objective):
    """0 while the teacher recognises the target, below where it does not; pixel by pixel.

        - mean over pixels of relu(CE(teacher, target) - tolerance)

    Beside any other objective, so that the label stays true. Ours.

    Args:
        teacher: a model that is not the one to be steered against.
        tolerance: in nats, the loss up to which the teacher is content; the default is that of a
            target at 50 % probability.

    Raises:
        UserError: a tolerance below 0.
    """

    teacher: TaskModel
    tolerance: float = 0.7

    def __post_init__(self):
        if self.tolerance < 0:
            raise UserError(f"tolerance is {self.tolerance}; give a loss in nats, 0 or more")

    def value(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """In nats, at most 0."""
        values = cross_entropy.map(estimate.prediction(self.teacher), estimate.target)
        return -per_image(torch.relu(values - self.tolerance), estimate.target)
