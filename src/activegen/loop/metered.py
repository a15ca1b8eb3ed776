"""Parts of the drawing as they were, with a meter at their calls.

What is drawn does not change, bit for bit: no call sees other arguments, and FLOPs are counted in
calls of their own, of one image, whose results are thrown away.
"""

import copy
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from activegen.diffusion.attention import Reading
from activegen.diffusion.decoders import Decoder
from activegen.diffusion.levels import Level
from activegen.diffusion.model import Branch, Conditioning, Denoised, DiffusionModel
from activegen.diffusion.sampling import Batch, Estimate, Move, Steering, Term
from activegen.loop.flops import Flops, counted, peak
from activegen.loop.generating import Generator, Job
from activegen.loop.metering import (
    BACKWARD,
    CONDITION,
    DECODE,
    DENOISE,
    DRAW,
    JUDGE,
    PREDICT,
    TRAIN,
    Cost,
    Meter,
)
from activegen.precision import fast_dtype
from activegen.records import Images, Latents, Prediction, Sample, TaskModel
from activegen.tasks.learner import AMP, Learner
from activegen.tasks.pool import Pool


@dataclass(frozen=True)
class Metered:
    """A generator whose jobs are measured.

    Args:
        generator: draws.
        meter: is told.
    """

    generator: Generator
    meter: Meter

    def __call__(self, job: Job) -> tuple[int, list[Sample]]:
        """As the generator does."""
        with self.meter.at(DRAW):
            result = self._timed()(job)
        self.meter.settle()  # pictures are in files now: all work has been awaited
        return result

    def cost(self) -> Cost:
        """So far, to be told to who asked for a job; nothing where that one has the meter too."""
        if not self.meter.away:
            return Cost()
        return self.meter.take({"drawing": drawing_peak(self.generator.model)})

    def _timed(self) -> Generator:
        of, meter = self.generator, self.meter
        check = of.preview
        return replace(
            of,
            model=timed_model(of.model, meter),
            steering={
                way: [TimedTerm(meter, term) for term in terms]
                for way, terms in of.steering.items()
            },
            learner=None if of.learner is None else TimedTask(meter, of.learner),
            decoder=None if of.decoder is None else TimedDecoder(meter, "fast", of.decoder),
            preview=None if check is None else (check[0], Timed(meter, JUDGE, check[1])),
        )


@dataclass(frozen=True)
class Timed:
    """A call whose time belongs to a place."""

    meter: Meter
    place: str
    call: Callable[..., Any]

    def __call__(self, *args: Any, **named: Any) -> Any:
        """As it is."""
        with self.meter.at(self.place):
            return self.call(*args, **named)


def timed_model(model: DiffusionModel, meter: Meter) -> DiffusionModel:
    """The same model; only its calls from outside are timed."""
    timed: Any = copy.copy(model)
    timed.denoise = TimedDenoiser(meter, model)
    timed.full = TimedDecoder(meter, "full", model.full)
    timed.decode = TimedDecoder(meter, "finished", model.decode)
    for name in ("condition", "words", "inpainting", "encode"):
        setattr(timed, name, Timed(meter, CONDITION, getattr(model, name)))
    return timed


@dataclass(frozen=True)
class TimedDenoiser:
    """``DiffusionModel.denoise``; attention that is read is no part of the model's FLOPs."""

    meter: Meter
    model: DiffusionModel

    def __call__(
        self,
        latents: Latents,
        conditioning: Conditioning,
        level: Level,
        cfg_scale: float,
        attention: bool = False,
        reading: Reading | None = None,
        branch: Branch = "both",
    ) -> Denoised:
        """As it is."""
        text = conditioning.text

        def measure() -> Flops:
            row = torch.zeros(1, dtype=torch.long, device=latents.device)
            one, words = _first(latents), _first(text)
            first = conditioning.of(row).with_text(words)
            return counted(
                lambda: self.model.denoise(one, first, level, cfg_scale, branch=branch).clean,
                [leaf for leaf in (one, words) if leaf.requires_grad],
            )

        kind: Hashable = (
            (latents.shape[1:], _followed(latents)),
            (text.shape[1:], _followed(text)),
            (cfg_scale > 1, branch),
            tuple(net.active(level) for net in getattr(self.model, "controls", ())),
        )
        self.meter.forget_graph()
        self.meter.count(DENOISE, kind, len(latents), measure)
        with self.meter.at(DENOISE):
            return self.model.denoise(
                latents, conditioning, level, cfg_scale, attention, reading, branch
            )


@dataclass(frozen=True)
class TimedDecoder:
    """Any decoder.

    Args:
        meter: is told.
        name: tells it from the others of a run.
        decode: latents to pictures.
    """

    meter: Meter
    name: str
    decode: Decoder

    def __call__(self, latents: Latents) -> Images:
        """As it is."""

        def measure() -> Flops:
            one = _first(latents)
            return counted(lambda: self.decode(one), [one] if one.requires_grad else [])

        kind = (self.name, latents.shape[1:], _followed(latents))
        self.meter.count(DECODE, kind, len(latents), measure)
        with self.meter.at(DECODE):
            return self.decode(latents)


@dataclass(frozen=True)
class TimedTask:
    """A task model.

    Args:
        meter: is told.
        task: is asked.
    """

    meter: Meter
    task: TaskModel

    def predict(self, images: Images) -> Prediction:
        """As it is."""
        self.count(images)
        with self.meter.at(PREDICT):
            return self.task.predict(images)

    def count(self, images: Images) -> None:
        """FLOPs of a prediction."""

        def measure() -> Flops:
            one = _first(images)
            predicted = lambda: self.task.predict(one).logits  # noqa: E731
            return counted(predicted, [one] if one.requires_grad else [])

        kind = (id(self.task), images.shape[1:], _followed(images))
        self.meter.count(PREDICT, kind, len(images), measure)


@dataclass(frozen=True)
class TimedTerm:
    """A term.

    What passes between its objective and its move is the backward: `sample` does nothing else
    there.

    Args:
        meter: is told.
        inner: steers.
    """

    meter: Meter
    inner: Term

    def begin(self, batch: Batch) -> Steering:
        """The inner one's own steering, with a meter at its calls."""
        steering, meter = self.inner.begin(batch), self.meter
        objective, move = steering.objective, steering.move

        def valued(estimate: Estimate) -> Float[Tensor, " b"]:
            with meter.at(PREDICT, then=BACKWARD if torch.is_grad_enabled() else None):
                value = objective(_overheard(estimate, meter))
            meter.count_backward()
            return value

        def moved(estimate: Estimate, gradient: Tensor) -> Move:
            with meter.at(DRAW):
                return move(estimate, gradient)

        steering.objective, steering.move = valued, moved
        return steering


def _overheard(estimate: Estimate, meter: Meter) -> Estimate:
    """The same estimate; the first question to each task model counts."""
    asked: set[int] = set()

    def prediction(task: TaskModel) -> Prediction:
        if id(task) not in asked:
            asked.add(id(task))
            TimedTask(meter, task).count(estimate.images)
        return estimate.prediction(task)

    overheard = copy.copy(estimate)
    overheard.prediction = prediction
    return overheard


def drawing_peak(model: DiffusionModel) -> float:
    """FLOPs a second at best, in the denoiser's number format."""
    return peak(model.device, getattr(model, "dtype", torch.float32))


def training_peak(learner: Learner) -> float:
    """FLOPs a second at best, in the number format of the training."""
    return peak(learner.device, AMP[learner.settings.amp] or fast_dtype(learner.device))


def count_training(meter: Meter, learner: Learner, pool: Pool, steps: int) -> None:
    """FLOPs of optimiser steps: a backward is taken for two forwards, as is usual.

    One for the gradients of what a layer is given and one for those of its weights; Chowdhery et
    al. (2022), https://arxiv.org/abs/2204.02311, appendix B. What a learner is asked besides, as
    for labels of its own, does not count.
    """

    def measure() -> Flops:
        one = pool.images[:1].to(learner.device).float() / 255
        with torch.no_grad():
            return Flops(3 * counted(lambda: learner.model.predict(one).logits).forward)

    meter.count(TRAIN, pool.images.shape[1:], steps * learner.settings.batch_size, measure)


def _followed(values: Tensor) -> bool:
    return torch.is_grad_enabled() and values.requires_grad


def _first(values: Tensor) -> Tensor:
    """Of the batch, in a graph of its own."""
    return values[:1].detach().clone().requires_grad_(_followed(values))
