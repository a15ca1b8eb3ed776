"""From requests to samples: batches of one way of drawing, each drawn as its requests say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from activegen.data.scenes import Real
from activegen.diffusion.decoders import Decoder
from activegen.diffusion.model import DiffusionModel
from activegen.diffusion.sampling import Drawn, Dropping, Sampling, Term, sample
from activegen.loop.judging import DROPPED, LabelCheck
from activegen.loop.task import Finished, Task
from activegen.records import Request, Sample, TaskModel, UserError, choose
from activegen.scores import SCORES, entropy
from activegen.store import from_png, png

Job = tuple[int, list[Request]]


def batches(requests: Sequence[Request], size: int) -> list[Job]:
    """Numbered pieces of a plan, in its order, each of one way of drawing.

    >>> [len(piece) for _, piece in batches([Request("a b", "b", 0, seed) for seed in range(5)], 2)]
    [2, 2, 1]
    """
    pieces: list[list[Request]] = []
    for _, group in groupby(requests, key=lambda request: request.steering):
        alike = list(group)
        pieces += [alike[start : start + size] for start in range(0, len(alike), size)]
    return list(enumerate(pieces))


@dataclass(frozen=True)
class Generator:
    """Draws batches of requests.

    Args:
        task: how a request becomes a batch, and a drawing a sample.
        model: the diffusion model.
        sampling: how it draws.
        steering: ways of drawing by name; "plain" has no terms.
        real: the images that requests refer to.
        learner: of this round; its scores of the finished, 8-bit image are stored. None where
            nothing learns.
        measured: which, names in ``scores.SCORES``.
        others: more scores, by the name that they are stored with: which, and of whom.
        decoder: for the pictures that gradients see; None = the model's own.
        made_by: the model's name and content, where it is known already.
        preview: when to look at half-drawn pictures, and what must be said of their labels for them
            to be finished; None finishes all.
        micro_batch: images whose gradient is taken at once; 0 = all of a batch.
    """

    task: Task
    model: DiffusionModel
    sampling: Sampling
    steering: Mapping[str, Sequence[Term]]
    real: Real
    learner: TaskModel | None
    measured: Sequence[str] = ("entropy", "cross_entropy")
    others: Mapping[str, tuple[str, TaskModel]] = field(default_factory=dict)
    decoder: Decoder | None = None
    made_by: dict[str, str] = field(default_factory=dict)
    preview: tuple[float, LabelCheck] | None = None
    micro_batch: int = 0

    def __call__(self, job: Job) -> tuple[int, list[Sample]]:
        """The job's number and a sample for each request whose latents are finite."""
        number, requests = job
        drawn = self.draw(requests)
        images = _in_8_bits(drawn.images)
        finite = drawn.latents.flatten(1).isfinite().all(1).tolist()
        made = self.task.finished(images, drawn.maps, requests, self.real)
        samples = [
            self._sample(request, index, made[index], drawn)
            for index, request in enumerate(requests)
            if finite[index]
        ]
        return number, samples

    def draw(self, requests: Sequence[Request]) -> Drawn:
        """Latents and pictures of requests that are drawn in one way.

        Raises:
            UserError: they do not fit into memory, even with gradients that recompute.
        """
        terms = choose(self.steering, requests[0].steering, "way of drawing")
        batch = self.task.batch(requests, self.model, self.sampling, self.real)
        dropping = self._dropping(requests)
        try:
            return sample(
                batch, terms, self.decoder, dropping=dropping, micro_batch=self.micro_batch
            )
        except torch.OutOfMemoryError as error:
            if not terms or not self.model.checkpoint():
                raise UserError(
                    f"{len(requests)} images at once do not fit into memory; give loop.batch less"
                ) from error
        return self.draw(requests)

    def _dropping(self, requests: Sequence[Request]) -> Dropping | None:
        if self.preview is None:
            return None
        at, check = self.preview

        def hopeless(pictures: Tensor) -> Tensor:
            made = self.task.finished(_in_8_bits(pictures), None, requests, self.real)
            found = []
            for request, of in zip(requests, made, strict=True):
                known = Sample(request, b"", mask=_mask(of.target))
                found.append(bool(check(of.image, known).reason))
            return torch.tensor(found)

        return Dropping(at, hopeless)

    def _sample(self, request: Request, index: int, made: Finished, drawn: Drawn) -> Sample:
        target, sure, attention = made.target, made.reliability, made.attention
        if attention is None and drawn.attention is not None:
            attention = drawn.attention[index]
        stored = png(made.image)
        numbers = {"skipped_gradients": float(drawn.skipped[index]), **made.numbers}
        if self.preview is not None and drawn.dropped is not None and drawn.dropped[index]:
            numbers[DROPPED] = self.preview[0]
        if drawn.presence is not None:
            numbers["presence"] = float(drawn.presence[index])
        measured, uncertainty = self._measured(from_png(stored), target, made.counted)
        return Sample(
            request,
            stored,
            mask=_mask(target),
            latents=drawn.latents[index].cpu().half().numpy().tobytes(),
            attention=b"" if attention is None else _grey(attention),
            reliability=b"" if sure is None else png(sure.unsqueeze(0)),
            uncertainty=_grey(uncertainty) if uncertainty is not None and target.ndim else b"",
            scores=numbers | measured,
            made_by=self.made_by or self.model.made_by(),
        )

    @torch.inference_mode()
    def _measured(
        self, image: Tensor, target: Tensor, counted: Tensor | None
    ) -> tuple[dict[str, float], Tensor | None]:
        """Scores of the learner, and its entropy over its maximum: one number, or a map of all."""
        if self.learner is None:
            return {}, None
        device = self.model.device
        pictures = image.unsqueeze(0).to(device) / 255
        prediction = self.learner.predict(pictures)
        target = target.long().unsqueeze(0).to(device)
        where = target if counted is None else counted.long().unsqueeze(0).to(device)
        numbers = {
            name: float(choose(SCORES, name, "score")(prediction, where)) for name in self.measured
        }
        for stored_as, (name, of) in self.others.items():
            numbers[stored_as] = float(SCORES[name](of.predict(pictures), where))
        if target.ndim == 1:
            numbers["predicted"] = float(prediction.logits.mean(0).argmax(1))
        most = math.log(max(prediction.logits.shape[2], 2))
        return numbers, entropy.map(prediction, target)[0] / most


def _in_8_bits(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8).cpu()


def _mask(target: Tensor) -> bytes:
    """As it is stored; nothing of a class id."""
    return png(target.to(torch.uint8).unsqueeze(0)) if target.ndim else b""


def _grey(values: Tensor) -> bytes:
    """A map from 0 to 1 as a picture."""
    return png((values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().unsqueeze(0))
