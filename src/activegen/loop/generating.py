"""From requests to samples: batches of one way of drawing, each drawn as its requests say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from activegen import scores
from activegen.diffusion.decoders import Decoder
from activegen.diffusion.model import DiffusionModel
from activegen.diffusion.sampling import Batch, Drawn, Sampling, Term, sample, seeded
from activegen.records import Request, Sample, TaskModel, choose
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
        model: the diffusion model.
        sampling: how it draws.
        steering: ways of drawing by name; "plain" has no terms.
        reference: the real image of an id, uint8 (3, h, w).
        task: the learner of this round; its scores of the finished, 8-bit image are stored.
        decoder: for the pictures that gradients see; None = the model's own.
    """

    model: DiffusionModel
    sampling: Sampling
    steering: Mapping[str, Sequence[Term]]
    reference: Callable[[str], Tensor]
    task: TaskModel
    decoder: Decoder | None = None
    made_by: dict[str, str] = field(default_factory=dict)

    def __call__(self, job: Job) -> tuple[int, list[Sample]]:
        """The job's number and a sample for each request whose latents are finite."""
        number, requests = job
        drawn = self.draw(requests)
        images = (drawn.images * 255).round().to(torch.uint8).cpu()
        finite = drawn.latents.flatten(1).isfinite().all(1).tolist()
        samples = []
        stored = [png(image) if ok else b"" for image, ok in zip(images, finite, strict=True)]
        measured = self._measured(stored, requests, drawn)
        for index, request in enumerate(requests):
            if finite[index]:
                samples.append(
                    Sample(
                        request,
                        stored[index],
                        latents=drawn.latents[index].cpu().half().numpy().tobytes(),
                        attention=_grey(drawn.attention, index),
                        scores=measured[index],
                        made_by=self.made_by or self.model.made_by(),
                    )
                )
        return number, samples

    def draw(self, requests: Sequence[Request]) -> Drawn:
        """Latents and pictures of requests that are drawn in one way."""
        terms = choose(self.steering, requests[0].steering, "way of drawing")
        words = [request.word for request in requests]
        prompts = [request.prompt for request in requests]
        noise, rngs = seeded([request.seed for request in requests], self.model.noise_shape)
        references = [self.reference(r.reference) for r in requests if r.reference]
        batch = Batch(
            model=self.model,
            sampling=self.sampling,
            noise=noise.to(self.model.device),
            rngs=rngs,
            conditioning=self.model.condition(prompts, words, self.sampling.negative_prompt),
            target=torch.tensor([r.target for r in requests], device=self.model.device),
            reference=self._encoded(references) if len(references) == len(requests) else None,
        )
        return sample(batch, terms, self.decoder)

    def _encoded(self, references: list[Tensor]) -> Tensor:
        """One by one: they may differ in size, and a batch must not matter."""
        device = self.model.device
        latents = [self.model.encode(image.to(device).unsqueeze(0) / 255) for image in references]
        return torch.cat(latents)

    @torch.inference_mode()
    def _measured(
        self, stored: Sequence[bytes], requests: Sequence[Request], drawn: Drawn
    ) -> list[dict[str, float]]:
        result: list[dict[str, float]] = []
        for index, (data, request) in enumerate(zip(stored, requests, strict=True)):
            numbers = {"skipped_gradients": float(drawn.skipped[index])}
            if drawn.presence is not None:
                numbers["presence"] = float(drawn.presence[index])
            if data:
                image = from_png(data).unsqueeze(0).to(self.model.device) / 255
                prediction = self.task.predict(image)
                target = torch.tensor([request.target], device=self.model.device)
                numbers["entropy"] = float(scores.entropy(prediction, target))
                numbers["cross_entropy"] = float(scores.cross_entropy(prediction, target))
                numbers["predicted"] = float(prediction.logits.mean(0).argmax(1))
            result.append(numbers)
        return result


def _grey(maps: Tensor | None, index: int) -> bytes:
    if maps is None:
        return b""
    return png((maps[index : index + 1] * 255).round().to(torch.uint8).cpu())
