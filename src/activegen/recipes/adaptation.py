"""How a generator is trained on, and a training of it that can stop and go on.

All randomness follows from the seed and the step, so what was stopped and went on ends bit for bit
where an uninterrupted training ends.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from activegen.diffusion.lora import TARGETS
from activegen.precision import mixed_precision
from activegen.records import UserError, choose
from activegen.tasks.learner import AMP, SCHEDULES, accelerated, check_finite
from activegen.tasks.seeding import seeded

LORA, FULL, CONTROLNET = "lora", "full", "controlnet"
RATES = {LORA: 1e-4, FULL: 1e-5, CONTROLNET: 1e-5}  # by default
FROZEN = "frozen"


@dataclass(frozen=True)
class AdaptSettings:
    """How to train the generator on.

    Rank, learning rates and targets are those of diffusers' examples: Yoshihashi et al. (2023),
    https://arxiv.org/abs/2309.01369, who adapt by LoRA, are not known to say theirs.

    Args:
        what: "lora" (a small change of the attention), "full" (all weights) or "controlnet" (a
            new one, from masks).
        steps: optimiser steps.
        batch_size: images per step, over all processes.
        learning_rate: the highest one; None is 1e-4 of a LoRA and 1e-5 of the others.
        warmup_steps: in which it grows from 0.
        schedule: "constant" or "cosine" (to 0), after the warmup.
        weight_decay: AdamW's.
        rank: of a LoRA.
        targets: names, or their ends, of the denoiser's layers that a LoRA changes.
        text_encoder: is trained too ("lora" and "full").
        autoencoder: with "full", what of it is trained before the denoiser, by L1: "frozen"
            (nothing), "decoder" or "whole".
        autoencoder_steps: of that.
        autoencoder_rate: learning rate of that.
        start: a ControlNet to train on; None makes one of the denoiser.
        empty: share of the captions that are replaced by none, for classifier-free guidance.
        crop: side of the smallest piece, as a share of the largest that fits into the image; none
            is smaller than the model's pictures while it need not.
        mirror: half of the images are mirrored, left to right.
        ema_decay: of the averaged weights, which then are the result; 0 is off. Early on it is at
            most (1 + step) / (10 + step).
        amp: "auto" (bf16 where that is fast), "no", "bf16" or "fp16" (with loss scaling).
        save_every: steps between two savings of what a stopped training goes on from.

    Raises:
        UserError: a value is out of its range, or of another kind of training.
    """

    what: str = LORA
    steps: int = 1000
    batch_size: int = 8
    learning_rate: float | None = None
    warmup_steps: int = 0
    schedule: str = "constant"
    weight_decay: float = 0.01
    rank: int = 4
    targets: tuple[str, ...] = TARGETS
    text_encoder: bool = False
    autoencoder: str = FROZEN
    autoencoder_steps: int = 1000
    autoencoder_rate: float = 1e-4
    start: str | None = None
    empty: float = 0.1
    crop: float = 0.5
    mirror: bool = False
    ema_decay: float = 0.0
    amp: str = "auto"
    save_every: int = 250

    def __post_init__(self) -> None:
        choose(RATES, self.what, "adapt.what")
        choose(SCHEDULES, self.schedule, "adapt.schedule")
        choose(AMP, self.amp, "adapt.amp")
        choose(dict.fromkeys((FROZEN, "decoder", "whole")), self.autoencoder, "adapt.autoencoder")
        for name, fine, needed in (
            ("steps", self.steps >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("learning_rate", 0 < self.rate < math.inf, "above 0"),
            ("warmup_steps", 0 <= self.warmup_steps <= self.steps, "0 to steps"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0"),
            ("rank", self.rank >= 1, "at least 1"),
            ("targets", bool(self.targets), "one layer at least"),
            ("autoencoder_steps", self.autoencoder_steps >= 1, "at least 1"),
            ("autoencoder_rate", 0 < self.autoencoder_rate < math.inf, "above 0"),
            ("empty", 0 <= self.empty <= 1, "0 to 1"),
            ("crop", 0 < self.crop <= 1, "above 0, at most 1"),
            ("ema_decay", 0 <= self.ema_decay < 1, "0 to below 1"),
            ("save_every", self.save_every >= 1, "at least 1"),
        ):
            if not fine:
                raise UserError(f"adapt.{name} must be {needed}; got {getattr(self, name)}")
        for name, unfit in (
            ("text_encoder", self.text_encoder and self.what == CONTROLNET),
            ("autoencoder", self.autoencoder != FROZEN and self.what != FULL),
            ("start", self.start is not None and self.what != CONTROLNET),
        ):
            if unfit:
                raise UserError(f"adapt.{name} cannot be set with adapt.what '{self.what}'")

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return RATES[self.what] if self.learning_rate is None else self.learning_rate


@dataclass(frozen=True)
class Course:
    """The part of the settings that a training follows; names as there."""

    steps: int
    rate: float
    warmup_steps: int = 0
    schedule: str = "constant"
    weight_decay: float = 0.01
    ema_decay: float = 0.0
    amp: str = "auto"
    save_every: int = 250
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Learning rate of the step, counted from 0."""
        if step < self.warmup_steps:
            return self.rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.rate * SCHEDULES[self.schedule](done)


class Training:
    """AdamW on what has gradients; gradients are clipped to norm 1.

    Started by ``accelerate launch`` it trains on all devices at once: each process makes its share
    of every batch, and only the main one writes.

    Args:
        module: whose forward gives a loss of each image.
        course: how.
        file: the state to go on from; read if it is there.
        of: names what is trained on what, and how; a state of another is refused.
        device: of the module.

    Raises:
        UserError: the file is of another training, or none.
    """

    def __init__(
        self, module: nn.Module, course: Course, file: Path, of: str, device: torch.device
    ) -> None:
        self.course, self.file, self.of, self.device = course, file, of, device
        self.named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.trained = list(self.named.values())
        self.step, self.loss = 0, math.nan
        self.optimiser = torch.optim.AdamW(
            self.trained, lr=course.rate, weight_decay=course.weight_decay
        )
        self.average = EMAModel(self.trained, course.ema_decay) if course.ema_decay else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=course.amp == "fp16")
        if file.exists():
            self._load()
        self.processes = accelerated()
        self.module = module
        self._parallel = self.processes.prepare_model(module)

    def carry_out(
        self,
        batch: Callable[[int, int, int], tuple[Tensor, ...]],
        tell: Callable[[int, int], None],
    ) -> float:
        """Trains to the end; the averaged weights, where there are some, are in the module then.

        Args:
            batch: the module's arguments of a step, in a process, of so many.
            tell: is told steps done and in all.

        Returns:
            The loss, averaged over about the last hundred steps.

        Raises:
            Diverged: it or its gradient is not finite.
            UserError: the state cannot be written.
        """
        ours, course = self.processes, self.course
        self.module.train()
        while self.step < course.steps:
            with seeded(course.seed, "adapt", self.step, ours.process_index):
                given = batch(self.step, ours.process_index, ours.num_processes)
                with mixed_precision(self.device, AMP[course.amp]):
                    loss = self._parallel(*given).mean()
            self._update(loss)
            if self.step % course.save_every == 0 or self.step == course.steps:
                self.save()
            if ours.is_main_process:
                tell(self.step, course.steps)
        self.module.eval()
        if self.average is not None:
            self.average.copy_to(self.trained)
        return self.loss

    def _update(self, loss: Tensor) -> None:
        ours, rate = self.processes, self.course.rate_at(self.step)
        seen = float(cast(Tensor, ours.reduce(loss.detach(), "mean")))
        self._check_finite("loss", seen)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        ours.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.trained, 1.0)
        if not self.scaler.is_enabled():  # a scaler skips such a step itself
            self._check_finite("gradient's norm", float(norm))
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.step(self.trained)
        self.loss = seen if self.step == 0 else 0.99 * self.loss + 0.01 * seen
        self.step += 1

    def _check_finite(self, what: str, seen: float) -> None:
        mend = "lower adapt.learning_rate, or set adapt.amp to 'no'"
        rate = self.course.rate_at(self.step)
        check_finite(seen, what, self.step, rate, self.course.amp, mend)

    def save(self) -> None:
        """Writes the state, whole or not at all.

        Raises:
            UserError: it cannot be written.
        """
        if self.processes.is_main_process:
            tensors = {f"weights.{name}": p for name, p in self.named.items()}
            for index, entries in self.optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{index}.{name}": x for name, x in entries.items()}
            if self.average is not None:
                shadow = self.average.shadow_params
                tensors |= {f"average.{index}": x for index, x in enumerate(shadow)}
            numbers = {"step": self.step, "loss": self.loss, "of": self.of}
            numbers |= {"scaler": self.scaler.state_dict()}
            kept = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
            try:
                _write(self.file, kept, {"numbers": json.dumps(numbers)})
            except (OSError, SafetensorError) as error:
                raise UserError(
                    f"the state of training cannot be written to '{self.file.parent}' ({error}); "
                    "make room there, or give another --out, and start again"
                ) from error
        self.processes.wait_for_everyone()

    def _load(self) -> None:
        try:
            with safe_open(str(self.file), framework="pt") as state:
                numbers: dict[str, Any] = json.loads((state.metadata() or {})["numbers"])
                tensors = {name: state.get_tensor(name) for name in state.keys()}
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(f"'{self.file}' is not a state of training: {error}") from error
        if numbers["of"] != self.of:
            raise UserError(f"'{self.file}' is the state of another training; give another --out")
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(tensors[f"weights.{name}"])
        entries: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            kind, _, rest = key.partition(".")
            if kind == "optimiser":
                index, _, name = rest.partition(".")
                entries.setdefault(int(index), {})[name] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": entries, "param_groups": groups})
        if self.average is not None:
            kept = [tensors[f"average.{k}"].to(p) for k, p in enumerate(self.trained)]
            self.average.shadow_params = kept
            self.average.optimization_step = numbers["step"]
        self.scaler.load_state_dict(numbers["scaler"])
        self.step, self.loss = numbers["step"], numbers["loss"]


def _write(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.tmp")
    try:
        save_file(tensors, aside, metadata)
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)
