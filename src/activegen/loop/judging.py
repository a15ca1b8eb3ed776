"""Whether a sample keeps its label; never the learner's own opinion, because hard is not wrong."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from activegen.data.fingerprints import is_duplicate, nearest, thumbnail
from activegen.loop.sanity import defect
from activegen.records import Request, Sample, TaskModel, UserError, Verdict
from activegen.store import from_png

Picture = UInt8[Tensor, "3 h w"]
Thumbnails = Float[Tensor, "_ 3 16 16"]
Losses = Float[Tensor, " _"]

NOT_NEEDED = "not needed"  # in the plan, but the budget was filled before: no rejection
OUTSCORED = "outscored"
HOPELESS = "hopeless"
DROPPED = "dropped"  # among a sample's numbers: the progress at which it was let go
REASONS = {
    "not finite": "the denoiser diverged; there is no picture",
    "black": "a black picture",
    "white": "a white picture",
    "flat": "a picture without any structure",
    "leak": "a near-copy of a validation or test image",
    "copy": "a near-copy of a training image",
    "repeated": "a near-copy of an earlier sample",
    "label": "an independent model does not believe the label",
    "unclear": "an independent model doubts too many pixels of the mask",
    HOPELESS: "an independent model did not believe its half-drawn picture; it was not finished",
    OUTSCORED: "fit to be trained on, but others of the round score higher",
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
        significance: a label is refused as well when its `p_value` is at most this. So of real
            images of any class about this share would be refused, however little the model knows
            of the class, and none where it has so few images that nothing can be told of them. Each
            member leaves out a part of the real images for it. 0 does not ask.

    Raises:
        UserError: a value out of its range.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    network: str = "small"
    members: int = 2
    steps: int = 400
    min_probability: float = 0.05
    significance: float = 0.0

    def __post_init__(self):
        if self.members < 1 or self.steps < 1 or not 0 <= self.min_probability <= 1:
            raise UserError("judge: members and steps at least 1, min_probability between 0 and 1")
        if not 0 <= self.significance < 1:
            raise UserError(f"judge.significance is {self.significance}; give 0 to below 1")
        if self.significance > 0 and self.members == 1:
            raise UserError(
                "judge.significance compares with real images that a member was not trained on: "
                "give judge.members of at least 2, or 0 for it"
            )


class Opinion(NamedTuple):
    """What a check of labels says of a sample.

    Args:
        reason: why the label does not hold, a name in `REASONS`; "" when it holds.
        numbers: what was measured, by name.
        ignored: pixels of the mask that shall not be learnt, as in a verdict.
    """

    reason: str
    numbers: dict[str, float]
    ignored: bytes = b""


@runtime_checkable
class LabelCheck(Protocol):
    """Whether an image shows what was asked for."""

    def __call__(self, image: Picture, sample: Sample) -> Opinion:
        """The opinion of the decoded image of a sample."""
        ...


@dataclass(frozen=True)
class Believed:
    """The label of an image is at least somewhat likely to a model, and as likely as real ones'.

    Args:
        model: independent of the learner.
        min_probability: that it gives the label at least.
        usual: of each member of the model, and of each class, the losses of real images that the
            member was not trained on; without, the next is not asked.
        significance: the label's `p_value` has to be above it.
    """

    model: TaskModel
    min_probability: float
    usual: Sequence[Sequence[Losses]] = ()
    significance: float = 0.0

    def __call__(self, image: Picture, sample: Sample) -> Opinion:
        """Refuses a label that is less likely.

        "label_probability" is the mean of the members, "label_p_value" is there where it is asked.
        """
        logits = self.model.predict(as_batch(image, self.model)).logits[:, 0]
        target = sample.request.target
        numbers = {"label_probability": float(logits.softmax(1).mean(0)[target])}
        refused = numbers["label_probability"] < self.min_probability
        if self.usual:
            losses = -logits.log_softmax(1)[:, target].cpu()
            found = p_value(losses, [of[target] for of in self.usual])
            numbers["label_p_value"] = found
            refused = refused or found <= self.significance
        return Opinion("label" if refused else "", numbers)


def p_value(losses: Float[Tensor, " members"], usual: Sequence[Losses]) -> float:
    """How many real images of the class look as little like it, of all, this one among them.

        (1 + sum_k |{i in U_k: loss_k(i) >= loss_k}|) / (1 + sum_k |U_k|)

    U_k are the images of the class that member k was not trained on. Vovk (2015), Cross-conformal
    predictors, https://arxiv.org/abs/1208.0806, within each class (Mondrian, Vovk et al., 2005,
    Algorithmic Learning in a Random World), with the loss as nonconformity. A real image's is at
    most s in about a share of s of all cases; with n images it is never below 1 / (n + 1).

    Args:
        losses: of the image with its label, in nats.
        usual: of each member.
    """
    as_far = sum(int((of >= loss).sum()) for loss, of in zip(losses, usual, strict=True))
    return (1 + as_far) / (1 + sum(len(of) for of in usual))


class Judge:
    """Checks one sample after the other, in the order of the plan.

    Args:
        check: of labels; None believes them.
        forbidden: fingerprints of val and test images: never to be trained on.
        real: fingerprints of the training images: a near-copy of one adds nothing. A sample of
            which one object was redrawn is not compared with them, being its real image elsewhere.
        repetition: take near-copies of earlier samples too.
    """

    def __init__(
        self,
        check: LabelCheck | None,
        forbidden: Thumbnails,
        real: Thumbnails,
        repetition: bool = False,
    ):
        self.check, self.forbidden, self.real = check, forbidden, real
        self.repetition = repetition

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
            reason, numbers, ignored = self._opinion(image, print_, sample, earlier)
            result.append(Verdict(request.id, not reason, reason, numbers, ignored))
            if not reason and not self.repetition:
                earlier = torch.cat([earlier, print_])
        return result

    @torch.inference_mode()
    def _opinion(
        self, image: Tensor, print_: Thumbnails, sample: Sample, earlier: Thumbnails
    ) -> Opinion:
        numbers: dict[str, float] = {}
        if DROPPED in sample.scores:
            return Opinion(HOPELESS, numbers)
        if broken := defect(image):
            return Opinion(broken, numbers)
        banks = {"leak": self.forbidden}
        if not sample.request.part:
            banks |= {"copy": self.real, "repeated": earlier}
        for name, bank in banks.items():
            if not len(bank):
                continue
            distance, _ = nearest(print_, bank)
            numbers[f"distance_{name}"] = float(distance)
            if bool(is_duplicate(distance)):
                return Opinion(name, numbers)
        if self.check is None:
            return Opinion("", numbers)
        reason, measured, ignored = self.check(image, sample)
        return Opinion(reason, numbers | measured, ignored)


def trusting(forbidden: Thumbnails) -> Judge:
    """Takes everything that is a picture and leaks nothing; for arms without a judge."""
    return Judge(None, forbidden, torch.zeros(0, 3, 16, 16), repetition=True)


def as_batch(image: Picture, model: TaskModel) -> Float[Tensor, "1 3 h w"]:
    """One image as the model wants it: 0 to 1, on its device."""
    device = next(model.parameters()).device if isinstance(model, nn.Module) else image.device
    return image.unsqueeze(0).to(device) / 255
