"""Whether a sample keeps its label; never the learner's own opinion, because hard is not wrong."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from activegen.data.fingerprints import is_duplicate, nearest, thumbnail
from activegen.loop.sanity import defect
from activegen.records import Request, Sample, TaskModel, UserError, Verdict
from activegen.store import from_png

Thumbnails = Float[Tensor, "_ 3 16 16"]

NOT_NEEDED = "not needed"  # in the plan, but the budget was filled before: no rejection
REASONS = {
    "not finite": "the denoiser diverged; there is no picture",
    "black": "a black picture",
    "white": "a white picture",
    "flat": "a picture without any structure",
    "leak": "a near-copy of a validation or test image",
    "copy": "a near-copy of a training image",
    "repeated": "a near-copy of an earlier sample",
    "label": "an independent model does not believe the label",
}


@dataclass(frozen=True)
class JudgeSettings:
    """What a sample must be.

    Args:
        network: of the independent model that checks labels; "" checks none.
        members: how many of it, with different starts; their mean decides.
        steps: of their training, on all labelled real images.
        min_probability: that the independent model gives the label at least. Ours: low, because a
            rare mode is unlikely to a model that never saw it.

    Raises:
        UserError: a value out of its range.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    network: str = "small"
    members: int = 2
    steps: int = 400
    min_probability: float = 0.05

    def __post_init__(self):
        if self.members < 1 or self.steps < 1 or not 0 <= self.min_probability <= 1:
            raise UserError("judge: members and steps at least 1, min_probability between 0 and 1")


class Judge:
    """Checks one sample after the other, in the order of the plan.

    Args:
        label_model: independent of the learner; None checks no labels.
        min_probability: that it gives the label at least.
        forbidden: fingerprints of val and test images: never to be trained on.
        real: fingerprints of the training images: a near-copy of one adds nothing.
        repetition: take near-copies of earlier samples too.
    """

    def __init__(
        self,
        label_model: TaskModel | None,
        min_probability: float,
        forbidden: Thumbnails,
        real: Thumbnails,
        repetition: bool = False,
    ):
        self.label_model, self.min_probability = label_model, min_probability
        self.forbidden, self.real, self.repetition = forbidden, real, repetition
        module = isinstance(label_model, torch.nn.Module)
        self.device = next(label_model.parameters()).device if module else "cpu"

    def verdicts(
        self, requests: Sequence[Request], samples: Iterable[Sample], earlier: Thumbnails
    ) -> list[Verdict]:
        """One for each request, in their order; ``earlier`` are the accepted samples so far."""
        by_id = {sample.request.id: sample for sample in samples}
        if self.repetition:
            earlier = earlier[:0]
        result = []
        for request in requests:
            sample = by_id.get(request.id)
            if sample is None:
                result.append(Verdict(request.id, False, "not finite"))
                continue
            image = from_png(sample.image)
            print_ = thumbnail(image)
            reason, numbers = self._reason(image, print_, request.target, earlier)
            result.append(Verdict(request.id, not reason, reason, numbers))
            if not reason and not self.repetition:
                earlier = torch.cat([earlier, print_])
        return result

    @torch.inference_mode()
    def _reason(
        self, image: Tensor, print_: Thumbnails, target: int, earlier: Thumbnails
    ) -> tuple[str, dict[str, float]]:
        numbers: dict[str, float] = {}
        if broken := defect(image):
            return broken, numbers
        for name, bank in (("leak", self.forbidden), ("copy", self.real), ("repeated", earlier)):
            if not len(bank):
                continue
            distance, _ = nearest(print_, bank)
            numbers[f"distance_{name}"] = float(distance)
            if bool(is_duplicate(distance)):
                return name, numbers
        if self.label_model is not None:
            logits = self.label_model.predict(image.unsqueeze(0).to(self.device) / 255).logits
            numbers["label_probability"] = float(logits.softmax(2).mean(0)[0, target])
            if numbers["label_probability"] < self.min_probability:
                return "label", numbers
        return "", numbers


def trusting(forbidden: Thumbnails) -> Judge:
    """Takes everything that is a picture and leaks nothing; for arms without a judge."""
    return Judge(None, 0.0, forbidden, torch.zeros(0, 3, 16, 16), repetition=True)
