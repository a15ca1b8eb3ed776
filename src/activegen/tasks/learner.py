"""Training that can stop and go on: a run is its settings, its pool and its step.

All randomness (order, augmentation, mixup, dropout) follows from the seed and the step, so a
learner that was saved, loaded and trained on ends bit for bit where an uninterrupted one ends.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, broadcast
from jaxtyping import Float, Integer, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from activegen.precision import mixed_precision
from activegen.records import Images, UserError, choose
from activegen.tasks.augment import augmentation
from activegen.tasks.losses import CROSS_ENTROPY, LOSSES, Loss, cross_entropy, mean_of_pixels
from activegen.tasks.pool import Pool, check_labels
from activegen.tasks.seeding import seeded
from activegen.tasks.task_network import TaskNetwork, modes_kept
from activegen.tasks.unreliable import HALF, IGNORED, TEACHER, TRUST, UNRELIABLE

Network = TypeVar("Network", bound=TaskNetwork)
Parameters = list[dict[str, Any]]

OPTIMISERS: dict[str, Callable[[Parameters, float], torch.optim.Optimizer]] = {
    "sgd": lambda groups, rate: torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True),
    "adamw": lambda groups, rate: torch.optim.AdamW(groups, rate),
}
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
}
AMP: dict[str, torch.dtype | None] = {
    "no": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "auto": None,
}


class Diverged(UserError):
    """The loss or its gradient is no longer finite; the weights are those before that step."""


def check_finite(seen: float, what: str, step: int, rate: float, amp: str, mend: str) -> None:
    """Raises `Diverged` where a number of a step of training is not finite.

    Args:
        seen: the number.
        what: it is.
        step: of training.
        rate: of learning in that step.
        amp: the setting of mixed precision.
        mend: what to do.
    """
    if not math.isfinite(seen):
        raise Diverged(
            f"the {what} became {seen} in step {step} (learning rate {rate:g}, amp {amp}): {mend}"
        )


def accelerated() -> Accelerator:
    """The processes of ``accelerate launch``, or this one alone.

    Placement, mixed precision and batches are ours, whatever its environment says: accelerate fixes
    the first two once for the whole process.

    Raises:
        UserError: it was started in this process with another precision.
    """
    try:
        return Accelerator(
            device_placement=False,
            mixed_precision="no",
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        )
    except ValueError as error:
        raise UserError(f"accelerate is already in use in this process: {error}") from error


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Args:
        steps: optimiser steps of the whole schedule, over all rounds.
        batch_size: images per step, over all processes.
        optimiser: "sgd" (Nesterov momentum 0.9) or "adamw".
        learning_rate: the highest one.
        weight_decay: of weights; biases and norms are not decayed.
        warmup_steps: in which the learning rate grows linearly from 0.
        schedule: "cosine" (to 0) or "constant", after the warmup.
        loss: a name in :data:`activegen.tasks.losses.LOSSES`.
        unreliable: what becomes of pixels that are not reliable: "trust" learns them like others;
            "weight" counts every pixel by its reliability; "ignore" leaves them out;
            "teacher" learns the class that the averaged weights see there.
        reliable_share: of the pixels of each class, by rank of reliability, 0 to 1; the others are
            unreliable. For "ignore", "teacher" and co-training.
        teach_from: share of the steps, 0 to 1, after which labels may come from what networks see;
            till then unreliable pixels are ignored. Ours: a network that starts from nothing would
            learn its own first guesses.
        label_smoothing: of the cross-entropy, 0 to below 1.
        mixup: alpha of the Beta distribution of the mixing share; 0 is off, as for masks it must.
        augmentation: a name in :data:`activegen.tasks.augment.AUGMENTATIONS`.
        ema_decay: of the averaged weights, below 1; 0 is off. Early on it is at most
            (1 + step) / (10 + step).
        amp: "no", "bf16", "fp16" (with loss scaling), or "auto": bf16 where it is fast.
        synthetic_share: part of a batch that is synthetic, 0 to 1; None takes images by count.
        synthetic_weight: of a synthetic image in the loss, next to 1 of a real one; 0 leaves
            the synthetic ones out.
        seed: of the order, augmentation, mixup and dropout.

    Raises:
        UserError: a value is out of its range.
    """

    steps: int = 1000
    batch_size: int = 64
    optimiser: str = "sgd"
    learning_rate: float = 0.05
    weight_decay: float = 5e-4
    warmup_steps: int = 0
    schedule: str = "cosine"
    loss: str = CROSS_ENTROPY
    unreliable: str = TRUST
    reliable_share: float = HALF
    teach_from: float = 0.1
    label_smoothing: float = 0.0
    mixup: float = 0.0
    augmentation: str = "none"
    ema_decay: float = 0.0
    amp: str = "no"
    synthetic_share: float | None = None
    synthetic_weight: float = 1.0
    seed: int = 0

    def __post_init__(self):
        choose(OPTIMISERS, self.optimiser, "optimiser")
        choose(SCHEDULES, self.schedule, "schedule")
        choose(LOSSES, self.loss, "loss")
        choose(UNRELIABLE, self.unreliable, "treatment of unreliable pixels")
        choose(AMP, self.amp, "amp")
        augmentation(self.augmentation)
        share = self.synthetic_share
        for name, fine, wanted in (
            ("steps", self.steps >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("learning_rate", 0 < self.learning_rate < math.inf, "above 0"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0"),
            ("warmup_steps", 0 <= self.warmup_steps <= self.steps, "0 to steps"),
            ("reliable_share", 0 <= self.reliable_share <= 1, "0 to 1"),
            ("teach_from", 0 <= self.teach_from <= 1, "0 to 1"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "0 to below 1"),
            ("mixup", 0 <= self.mixup < math.inf, "at least 0"),
            ("ema_decay", 0 <= self.ema_decay < 1, "0 to below 1"),
            ("synthetic_share", share is None or 0 <= share <= 1, "0 to 1, or null"),
            ("synthetic_weight", 0 <= self.synthetic_weight < math.inf, "at least 0"),
        ):
            if not fine:
                raise UserError(f"{name} must be {wanted}; got {getattr(self, name)}")
        if self.label_smoothing > 0 and self.loss != CROSS_ENTROPY:
            raise UserError(
                f"label_smoothing is of the loss '{CROSS_ENTROPY}'; set it to 0 for '{self.loss}'"
            )
        if self.unreliable == TEACHER and self.ema_decay == 0:
            raise UserError(f"unreliable '{TEACHER}' is the averaged weights: set ema_decay")

    def check_fits(self, space: int) -> None:
        """See that one can train so on labels of these dimensions: 0 for classes, 2 for masks.

        Raises:
            UserError: one cannot.
        """
        if self.mixup > 0 and space:
            raise UserError(f"masks cannot be mixed: set mixup to 0; got {self.mixup}")
        if self.unreliable != TRUST and not space:
            raise UserError(
                f"only pixels of masks can be unreliable: set unreliable to '{TRUST}'; "
                f"got '{self.unreliable}'"
            )

    def teaches(self, step: int) -> bool:
        """Whether labels may come from what networks see, in the step, counted from 0."""
        return step >= self.teach_from * self.steps

    @property
    def per_pixel(self) -> Loss:
        """The loss of each pixel, or of each image of a class."""
        if self.label_smoothing > 0:
            return partial(cross_entropy, smoothing=self.label_smoothing)
        return LOSSES[self.loss]

    def rate(self, step: int) -> float:
        """Learning rate of the step, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * SCHEDULES[self.schedule](progress)


class Learner(Generic[Network]):
    """A classifier or segmenter that is being trained.

    Started by ``accelerate launch`` it trains on all devices at once: each process takes its
    share of every batch, and only the main one writes.

    Args:
        model: what to train, in place; it is moved to the device.
        settings: how.
        device: where; None takes what accelerate finds (a GPU where there is one).

    Raises:
        UserError: the settings do not fit the model.
    """

    def __init__(
        self,
        model: Network,
        settings: TrainSettings,
        device: str | torch.device | None = None,
    ):
        settings.check_fits(model.space)
        self.settings = settings
        self.step = 0
        self._accelerator = accelerated()
        self.device = self._accelerator.device if device is None else torch.device(device)
        self.model = model.to(self.device).eval()
        self._average = _averaging(self.model, settings.ema_decay)
        self._optimiser = OPTIMISERS[settings.optimiser](
            _groups(self.model, settings.weight_decay), settings.learning_rate
        )
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=settings.amp == "fp16")
        self._parallel = self._accelerator.prepare_model(self.model)

    @property
    def averaged(self) -> Network:
        """The exponential moving average of the weights (norm statistics of the live model).

        The live model itself where ``ema_decay`` is 0.
        """
        return self.model if self._average is None else cast(Network, self._average.module)

    def train(
        self,
        pool: Pool,
        until_step: int,
        on_step: Callable[[int, float], None] | None = None,
    ) -> dict[str, float]:
        """Train from the present step up to ``until_step``; the model comes back in eval mode.

        The loss is that of the batch, averaged with the images' weights; that of a mask is the mean
        over its pixels that are not ignored, 0 where all are.

        Args:
            pool: what to train on.
            until_step: at most the settings' ``steps``; nothing happens if it is reached already.
            on_step: told the number of steps done and the loss of the last.

        Returns:
            "loss": mean over these steps (nan without a step); "steps": how many;
            "synthetic": part of the drawn images that was synthetic.

        Raises:
            Diverged: the loss or its gradient is not finite.
            UserError: the pool is empty or its labels do not fit, or the schedule is over.
        """
        if until_step > self.settings.steps:
            raise UserError(
                f"cannot train until step {until_step}: the schedule ends at {self.settings.steps};"
                " raise steps in the training settings"
            )
        _fits(pool, self.model)
        pool = pool.reweighted(self.settings.synthetic_weight)
        losses, synthetic = [], []
        self.model.train()
        try:
            while self.step < until_step:
                loss, share = self._advance(pool)
                losses.append(loss)
                synthetic.append(share)
                if on_step is not None:
                    on_step(self.step, loss)
            self._agree()
        finally:
            self.model.eval()
            self._optimiser.zero_grad()
        count = len(losses)
        return {
            "loss": sum(losses) / count if count else math.nan,
            "steps": float(count),
            "synthetic": sum(synthetic) / count if count else 0.0,
        }

    def _advance(self, pool: Pool) -> tuple[float, float]:
        """One step; its loss and the synthetic part of its batch."""
        settings, ours = self.settings, self._accelerator
        drawn = pool.batch(self.step, settings.seed, settings.batch_size, settings.synthetic_share)
        mine = drawn[ours.process_index :: ours.num_processes]
        whole = pool.weights[drawn].sum() / ours.num_processes
        weights = (pool.weights[mine] / whole).to(self.device)
        images = pool.images[mine].to(self.device).float() / 255
        labels = pool.labels[mine].to(self.device)
        known = pool.reliability
        reliability = None if known is None else known[mine].to(self.device)
        images, labels, *maps = self._prepared(images, labels, reliability)
        images, labels, *maps = augmentation(settings.augmentation).joint(
            images, labels, settings.seed + ours.process_index, self.step, *maps
        )
        with seeded(settings.seed, "step", self.step, ours.process_index):
            loss = self._loss(images, labels, weights, *maps)
        seen = float(cast(Tensor, ours.reduce(loss.detach(), "sum"))) / ours.num_processes
        self._check_finite("loss", seen)
        self._update(loss)
        return seen, float(pool.synthetic[drawn].float().mean())

    def _check_finite(self, what: str, seen: float) -> None:
        mend = "lower the learning rate, lengthen the warmup, or set amp to 'no'"
        rate, amp = self.settings.rate(self.step), self.settings.amp
        check_finite(seen, what, self.step, rate, amp, mend)

    def _prepared(
        self,
        images: Images,
        labels: Integer[Tensor, "b *space"],
        reliability: UInt8[Tensor, "b h w"] | None,
    ) -> tuple[Tensor, ...]:
        """A batch before its augmentation: images, labels, and the maps that the loss wants."""
        if reliability is None or self.settings.unreliable == TRUST:
            return images, labels
        return images, labels, reliability

    def _loss(
        self,
        images: Images,
        labels: Integer[Tensor, "b *space"],
        weights: Float[Tensor, " b"],
        *maps: UInt8[Tensor, "b h w"],
    ) -> Float[Tensor, ""]:
        share, other = 1.0, torch.arange(len(images), device=images.device)
        if self.settings.mixup > 0:
            alpha = torch.tensor(self.settings.mixup)
            share = float(torch.distributions.Beta(alpha, alpha).sample())
            other = torch.randperm(len(images)).to(images.device)
            images = share * images + (1 - share) * images[other]
        logits = self._logits(images)
        labels, counts = self._treated(images, labels, *maps)
        per_pixel = self.settings.per_pixel
        own = mean_of_pixels(per_pixel(logits, labels), labels, counts) * weights
        if self.settings.mixup == 0:
            return own.sum()
        mixed = per_pixel(logits, labels[other]) * weights[other]
        return (share * own + (1 - share) * mixed).sum()

    def _logits(self, images: Images) -> Float[Tensor, "..."]:
        with mixed_precision(self.device, AMP[self.settings.amp]):
            return self._parallel(images).float()

    def _treated(
        self,
        images: Images,
        labels: Integer[Tensor, "b *space"],
        reliability: UInt8[Tensor, "b h w"] | None = None,
    ) -> tuple[Integer[Tensor, "b *space"], Float[Tensor, "b h w"] | None]:
        """What is learnt, and how much each pixel counts."""
        if reliability is None:
            return labels, None

        def teacher() -> Integer[Tensor, "b h w"]:
            return self._seen(self.averaged, images).argmax(1)

        treatment = self.settings.unreliable
        if treatment == TEACHER and not self.settings.teaches(self.step):
            treatment = IGNORED
        return UNRELIABLE[treatment](labels, reliability, teacher, self.settings.reliable_share)

    @torch.no_grad()
    def _seen(self, model: Network, images: Images) -> Float[Tensor, "b classes *space"]:
        """Logits of a single model in evaluation mode; it comes back in its own."""
        with modes_kept(model), mixed_precision(self.device, AMP[self.settings.amp]):
            return model.eval().predict(images).logits[0]

    def _update(self, loss: Float[Tensor, ""]) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = self.settings.rate(self.step)
        self._optimiser.zero_grad()
        self._accelerator.backward(self._scaler.scale(loss))
        if not self._scaler.is_enabled():  # a scaler skips such a step itself
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), math.inf)  # clips nothing
            self._check_finite("gradient's norm", float(norm))
        self._scaler.step(self._optimiser)
        self._scaler.update()
        if self._average is not None:
            self._average.update_parameters(self.model)
        self.step += 1

    def _agree(self) -> None:
        """Give all processes the main one's norm statistics, so that all have one model."""
        if self._accelerator.num_processes > 1:
            for buffer in chain(self.model.buffers(), self.averaged.buffers()):
                buffer.copy_(cast(Tensor, broadcast(buffer)))

    @property
    def _decisive(self) -> dict[str, Any]:
        """Settings, JSON-able, that a saved state must be of."""
        return asdict(self.settings)

    def state_dict(self) -> dict[str, Any]:
        """All that training goes on from: "tensors" by name, and JSON-able "numbers"."""
        tensors = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        if self._average is not None:
            tensors |= {f"average.{name}": t for name, t in self._average.state_dict().items()}
        for index, entries in self._optimiser.state_dict()["state"].items():
            for name, value in entries.items():
                if value is not None:
                    tensors[f"optimiser.{index}.{name}"] = torch.as_tensor(value)
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        numbers = {
            "step": self.step,
            "settings": self._decisive,
            "classes": self.model.classes,
            "scaler": self._scaler.state_dict(),
        }
        return {"tensors": tensors, "numbers": numbers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; settings that it lacks, being older, have their defaults.

        Raises:
            UserError: it is of other settings or of another network.
        """
        tensors, numbers = state["tensors"], state["numbers"]
        mine = {"classes": self.model.classes, **self._decisive}
        saved = asdict(TrainSettings()) | numbers["settings"]
        theirs = {"classes": numbers["classes"], **saved}
        changed = sorted(k for k in mine | theirs if mine.get(k) != theirs.get(k))
        if changed:
            raise UserError(
                "the saved training state is of other settings: "
                + ", ".join(f"{k} was {theirs.get(k)}, is {mine.get(k)}" for k in changed)
                + "; take the old settings, or start a new run"
            )
        try:
            self.model.load_state_dict(_under("model.", tensors))
            if self._average is not None:
                self._average.load_state_dict(_under("average.", tensors))
        except RuntimeError as error:
            raise UserError(f"the saved training state is of another network: {error}") from error
        trained = [p for group in self._optimiser.param_groups for p in group["params"]]
        entries: dict[int, dict[str, Tensor]] = {}
        for key, tensor in _under("optimiser.", tensors).items():
            index, _, name = key.partition(".")
            entries.setdefault(int(index), {})[name] = _laid_out(tensor, trained[int(index)])
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": entries, "param_groups": groups})
        self._scaler.load_state_dict(numbers["scaler"])
        self.step = numbers["step"]

    def save(self, path: str | Path) -> None:
        """Write the state to one safetensors file, whole or not at all."""
        if self._accelerator.is_main_process:
            state = self.state_dict()
            written = save(state["tensors"], metadata={"numbers": json.dumps(state["numbers"])})
            _write(Path(path), written)
        self._accelerator.wait_for_everyone()

    def load(self, path: str | Path) -> None:
        """Go on from a file that :meth:`save` wrote.

        Raises:
            UserError: it is not there, not such a file, or of other settings.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                numbers = json.loads((file.metadata() or {})["numbers"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(f"'{path}' is not a saved training state: {error}") from error
        self.load_state_dict({"tensors": tensors, "numbers": numbers})


def weights_hash(model: nn.Module) -> str:
    """Sixteen hex digits that name the weights and buffers by their names, types and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _averaging(model: nn.Module, decay: float) -> AveragedModel | None:
    if decay == 0:
        return None

    def average(mean: Tensor, new: Tensor, steps: Tensor | int) -> Tensor:
        return mean.lerp(new, 1 - min(decay, (1 + int(steps)) / (10 + int(steps))))

    averaged = AveragedModel(model, avg_fn=average)
    averaged.eval().requires_grad_(False)
    return averaged


def _groups(model: nn.Module, weight_decay: float) -> Parameters:
    """Weights, which decay, and biases and norms, which do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _fits(pool: Pool, model: TaskNetwork) -> None:
    if len(pool) == 0:
        raise UserError("nothing to train on: the pool has no image")
    if pool.labels.ndim != 1 + model.space:
        raise UserError(
            "the pool has masks, which only a segmenter learns from"
            if model.space == 0
            else "the pool has a class for each image; a segmenter learns from masks"
        )
    check_labels(pool.labels, model.classes)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _laid_out(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A copy, in the parameter's memory format if it has its shape: sums come out bit for bit."""
    if tensor.shape != parameter.shape:
        return tensor.clone()
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor).detach()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
