"""The sampling loop, and what may steer it.

    levels, denoise, estimate, steer, step

A *term* is a frozen value that begins a *steering* for each batch. All steerings of a step share
one denoiser forward, at most one backward, one decode and one forward per task model; a step that
is carried out several times needs them for each pass. Steps without an active gradient run in
inference mode. With no terms the result is the diffusers pipeline's.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from activegen.diffusion.attention import Maps, Reading, normalised
from activegen.diffusion.decoders import Decoder
from activegen.diffusion.levels import Level, Solver, scheduler
from activegen.diffusion.model import Branch, Conditioning, Denoised, DiffusionModel
from activegen.records import Images, Latents, Prediction, Target, TaskModel, UserError

Variable = Literal["latents", "conditioning", "clean"]
Route = Literal["denoiser", "conditional", "decoder"]


@dataclass(frozen=True)
class Sampling:
    """How to draw.

    Args:
        num_steps: of the scheduler.
        cfg_scale: of classifier-free guidance; 1 = off.
        scheduler: a name of ``levels.SCHEDULERS``; "" keeps the checkpoint's own.
        negative_prompt: what not to draw.
        cfg_interval: progress in which classifier-free guidance is on; a step outside of it costs
            half, with the prompt alone. Kynkäänniemi et al. (2024),
            https://arxiv.org/abs/2404.07724, who have levels of noise where we have shares of the
            steps.
    """

    num_steps: int = 40
    cfg_scale: float = 7.5
    scheduler: str = ""
    negative_prompt: str = ""
    cfg_interval: tuple[float, float] = (0.0, 1.0)

    def cfg_at(self, level: Level) -> float:
        """The scale in the step that starts here."""
        start, stop = self.cfg_interval
        return self.cfg_scale if start <= level.progress < stop else 1.0


@dataclass(frozen=True)
class Batch:
    """What a steering knows of the images that are drawn together.

    Args:
        model: the diffusion model.
        sampling: how it draws.
        noise: at the start, one seed an image.
        rngs: one generator an image, after ``noise`` was drawn.
        conditioning: before any steering.
        target: class ids, or masks of class ids as large as the pictures; 255 there is ignored.
        reference: latents of the real images to steer towards, where there are any.
        region: the object that is drawn anew, 0 to 1, as large as the pictures.
        reading: which attention to keep, for masks.
    """

    model: DiffusionModel
    sampling: Sampling
    noise: Latents
    rngs: tuple[torch.Generator, ...]
    conditioning: Conditioning
    target: Target
    reference: Latents | None = None
    region: Float[Tensor, "b 1 height width"] | None = None
    reading: Reading | None = None

    def solver(self) -> Solver:
        """A fresh one."""
        name = self.sampling.scheduler
        chosen = scheduler(name, self.model.scheduler.config) if name else self.model.scheduler
        return Solver(chosen, self.sampling.num_steps, self.model.device)

    def fresh_rngs(self) -> tuple[torch.Generator, ...]:
        """Copies of ``rngs``, so that a batch drawn twice is the same twice."""
        return tuple(rng.clone_state() for rng in self.rngs)


class Estimate:
    """What the sampler would end with if it stopped here; each part is made once, on first use.

    Args:
        level: of this step.
        latents: as the denoiser saw them.
        clean: E[z_0 | z_t].
        conditioning: of this step.
        attention: running mean of the class word's raw maps, where somebody asked for them.
        target: class ids, or masks of them.
        decode: latents to pictures.
        region: of the object that is drawn anew, where the batch has one.
    """

    def __init__(
        self,
        level: Level,
        latents: Latents,
        clean: Latents,
        conditioning: Conditioning,
        attention: Float[Tensor, "b h_a w_a"] | None,
        target: Target,
        decode: Decoder,
        region: Float[Tensor, "b 1 height width"] | None = None,
    ):
        self.level, self.latents, self.clean = level, latents, clean
        self.conditioning, self.attention, self.target = conditioning, attention, target
        self.region = region
        self._decode = decode
        # shared with the copies of :meth:`aiming`, whoever asks first
        self._images: list[Images] = []
        self._predictions: dict[int, Prediction] = {}

    @property
    def images(self) -> Images:
        """Decoded, about 0 to 1."""
        if not self._images:
            self._images.append(self._decode(self.clean))
        return self._images[0]

    def prediction(self, task: TaskModel) -> Prediction:
        """What a task model says of the images."""
        if id(task) not in self._predictions:
            self._predictions[id(task)] = task.predict(self.images.clamp(0, 1))
        return self._predictions[id(task)]

    def aiming(self, target: Target) -> "Estimate":
        """The same for another target; images and predictions are still made only once."""
        other = copy.copy(self)
        other.target = target
        return other

    def detached(self) -> "Estimate":
        """The same without its graph; what was made already is kept."""
        other = copy.copy(self)
        other.latents, other.clean = self.latents.detach(), self.clean.detach()
        other.conditioning = self.conditioning.with_text(self.conditioning.text.detach())
        other._images = [images.detach() for images in self._images]
        other._predictions = {k: _detached(p) for k, p in self._predictions.items()}
        return other


def _detached(made: Prediction) -> Prediction:
    features = None if made.features is None else made.features.detach()
    return Prediction(made.logits.detach(), features)


@dataclass
class Move:
    """What a steering makes of a step: new latents, clean or conditioning; None = as they were."""

    latents: Latents | None = None
    clean: Latents | None = None
    conditioning: Conditioning | None = None


class Steering:
    """One term at work on one batch. All methods do nothing unless a term says otherwise."""

    def active(self, level: Level) -> bool:
        """Has something to do in the step that starts here."""
        return True

    def wants_attention(self, level: Level) -> bool:
        """Reads ``estimate.attention`` in this step."""
        return False

    def passes(self, level: Level) -> int:
        """How often the step that starts here is carried out, noised again in between."""
        return 1

    def gradient(self, level: Level) -> tuple[Variable, Route] | None:
        """Of what, and through what, it needs the gradient of :meth:`objective`."""
        return None

    def objective(self, estimate: Estimate) -> Float[Tensor, " b"]:
        """One number per image, higher = more wanted."""
        raise NotImplementedError

    def move(self, estimate: Estimate, gradient: Tensor) -> Move:
        """Uses the gradient, which is finite: images without a finite one have zeros."""
        return Move()

    def arrive(self, latents: Latents, estimate: Estimate, alpha: float, sigma: float) -> Latents:
        """Changes the latents after the step, at a level of ``alpha`` and ``sigma``."""
        return latents

    def overwrites(self, level: Level) -> Latents | None:
        """Clean latents that replace the denoiser's in this step, whatever it says.

        Where there are any and nobody looks at the denoiser, it is not called.
        """
        return None


@runtime_checkable
class Term(Protocol):
    """A way of steering; a frozen value."""

    def begin(self, batch: Batch) -> Steering:
        """For one batch."""
        ...


@dataclass(frozen=True)
class Dropping:
    """Looks at half-drawn images once, and lets go of those that will not do.

    The rest of the batch is drawn as it would have been.

    Args:
        at: progress of the step in which to look, the first that is not before it.
        hopeless: of the pictures that the sampler would end with if it stopped, which to drop.
    """

    at: float
    hopeless: Callable[[Images], Bool[Tensor, " b"]]


@dataclass(frozen=True)
class Drawn:
    """Finished latents and pictures, and what was seen on the way.

    Args:
        latents: the last.
        images: decoded, 0 to 1.
        attention: of the class word, 0 to 1 per image, where a term asked for it.
        presence: the raw peak of that map: small where the word found no place.
        skipped: gradients per image that were not finite and were not followed.
        calls: of the denoiser.
        maps: what ``Batch.reading`` asked for, mean over its steps.
        dropped: was let go half-drawn; its latents and picture are those of that moment.
    """

    latents: Latents
    images: Images
    attention: Float[Tensor, "b h_a w_a"] | None
    presence: Float[Tensor, " b"] | None
    skipped: Int[Tensor, " b"]
    calls: int
    maps: Maps | None = None
    dropped: Bool[Tensor, " b"] | None = None


@dataclass
class _State:
    """The running values of the loop."""

    conditioning: Conditioning
    attention_sum: Tensor | None = None
    attention_count: int = 0
    skipped: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    calls: int = 0
    maps_sum: Maps | None = None
    maps_count: int = 0
    kept: Tensor | None = None  # rows that are still drawn; None = all
    halfway: tuple[Tensor, Tensor] | None = None  # latents and pictures when they were looked at


def seeded(
    seeds: Sequence[int], shape: tuple[int, ...]
) -> tuple[Tensor, tuple[torch.Generator, ...]]:
    """Standard normal noise and the generators after it, one seed an image, drawn on the CPU."""
    rngs = tuple(torch.Generator().manual_seed(seed) for seed in seeds)
    return torch.stack([torch.randn(shape, generator=rng) for rng in rngs]), rngs


def sample(
    batch: Batch,
    guidance: Sequence[Term] = (),
    decoder: Decoder | None = None,
    on_step: Callable[[Estimate], None] | None = None,
    dropping: Dropping | None = None,
) -> Drawn:
    """Draws a batch.

    Args:
        batch: what to draw.
        guidance: terms, carried out in this order.
        decoder: for the pictures that gradients see; the model's own by default.
        on_step: sees the estimate of each pass of each step, after the moves were computed.
        dropping: which images not to finish.

    Raises:
        UserError: two terms want a gradient in the same step, or attention is to be read or images
            are to be dropped in a window without a step.
    """
    solver = batch.solver()
    if batch.reading and not any(batch.reading.at(level) for level in solver.levels):
        raise UserError(
            f"none of the {len(solver.levels)} steps starts within {batch.reading.steps}, where "
            "attention is to be read; widen the window"
        )
    looked_at = _looked_at(solver, dropping)
    steerings = [term.begin(batch) for term in guidance]
    for level in solver.levels:
        if sum(s.active(level) and s.gradient(level) is not None for s in steerings) > 1:
            raise UserError(
                f"two terms want a gradient in step {level.index}; give one Ascend both "
                "objectives, or windows that do not overlap"
            )
    batch = replace(batch, rngs=batch.fresh_rngs())
    state = _State(batch.conditioning, skipped=torch.zeros(len(batch.noise), dtype=torch.long))
    sampled = solver.start(batch.noise.to(batch.model.device))

    def seen(estimate: Estimate) -> None:
        if on_step is not None:
            on_step(estimate)
        if dropping is not None and estimate.level.index == looked_at and state.halfway is None:
            _look(batch, estimate, dropping, state)

    for level in solver.levels:
        if state.kept is not None and not state.kept.any():
            break
        active = [s for s in steerings if s.active(level)]
        for _ in range(max((s.passes(level) for s in active), default=1) - 1):
            once = copy.deepcopy(solver)  # solvers count their steps
            there = _step(batch, once, level, sampled, active, state, decoder, seen)
            sampled = _noised_again(batch, solver, level, there)
        sampled = _step(batch, solver, level, sampled, active, state, decoder, seen)
    sampled, images = _finished(batch, sampled, state)
    maps = state.attention_sum
    return Drawn(
        latents=sampled.clone(),
        images=images.clone(),
        attention=None if maps is None else normalised(maps / state.attention_count).clone(),
        presence=None if maps is None else (maps / state.attention_count).amax((1, 2)).clone(),
        skipped=state.skipped,
        calls=state.calls,
        maps=state.maps_sum.over(state.maps_count) if state.maps_sum else None,
        dropped=None if state.kept is None else ~state.kept.cpu(),
    )


def _looked_at(solver: Solver, dropping: Dropping | None) -> int | None:
    """The step in which half-drawn images are looked at."""
    if dropping is None:
        return None
    for level in solver.levels:
        if level.progress >= dropping.at:
            return level.index
    raise UserError(
        f"none of the {len(solver.levels)} steps starts at {dropping.at} or later, where "
        "half-drawn images are to be dropped; do it earlier"
    )


@torch.inference_mode()
def _look(batch: Batch, estimate: Estimate, dropping: Dropping, state: _State) -> None:
    pictures = batch.model.decode(estimate.clean)
    state.kept = ~dropping.hopeless(pictures).to(pictures.device)
    state.halfway = estimate.clean.clone(), pictures


@torch.inference_mode()
def _finished(batch: Batch, sampled: Tensor, state: _State) -> tuple[Tensor, Tensor]:
    """Latents and pictures; of those that were dropped as they were then."""
    if state.kept is None or state.halfway is None or bool(state.kept.all()):
        return sampled, batch.model.decode(sampled)
    rows, (latents, images) = state.kept.nonzero()[:, 0], state.halfway
    latents[rows] = sampled[rows]
    if len(rows):
        images[rows] = batch.model.decode(sampled[rows])
    return latents, images


@torch.inference_mode()
def _noised_again(batch: Batch, solver: Solver, level: Level, sampled: Tensor) -> Tensor:
    """From the next level back to this one, by one step of the forward process."""
    alpha, sigma = solver.arrival(level.index + 1)
    share = level.alpha / alpha
    added = math.sqrt(max(level.sigma**2 - (share * sigma) ** 2, 0))
    fresh = torch.stack([torch.randn(batch.noise.shape[1:], generator=rng) for rng in batch.rngs])
    latents = solver.scaled(sampled, level.index + 1)
    return solver.state(share * latents + added * fresh.to(latents), level.index)


def _step(
    batch: Batch,
    solver: Solver,
    level: Level,
    sampled: Tensor,
    active: list[Steering],
    state: _State,
    decoder: Decoder | None,
    seen: Callable[[Estimate], None],
) -> Tensor:
    climber = next((s for s in active if s.gradient(level) is not None), None)
    with torch.inference_mode(climber is None):
        latents = solver.latents(sampled.clone(), level)
        estimate, output, followed = _estimate(
            batch, level, latents, active, climber, state, decoder
        )
        move = Move()
        if climber is not None:
            gradient = _gradient(climber, estimate, followed, state)
            estimate, output = estimate.detached(), output.detach()
            with torch.no_grad():
                move = climber.move(estimate, gradient)
    with torch.inference_mode():
        if move.latents is not None or move.clean is not None:
            latents = estimate.latents if move.latents is None else move.latents
            clean = estimate.clean if move.clean is None else move.clean
            output, sampled = level.output(clean, latents), solver.state(latents, level.index)
        sampled = solver.step(output, level, sampled, batch.rngs)
        alpha, sigma = solver.arrival(level.index + 1)
        for steering in active:
            arrived = solver.scaled(sampled, level.index + 1)
            changed = steering.arrive(arrived, estimate, alpha, sigma)
            if changed is not arrived:
                sampled = solver.state(changed, level.index + 1)
    if move.conditioning is not None:
        state.conditioning = move.conditioning
    seen(estimate)
    return sampled


def _estimate(
    batch: Batch,
    level: Level,
    latents: Tensor,
    active: list[Steering],
    climber: Steering | None,
    state: _State,
    decoder: Decoder | None,
) -> tuple[Estimate, Tensor, Tensor | None]:
    """One denoiser forward; also its output, and the tensor whose gradient is wanted."""
    of, through = (climber.gradient(level) if climber else None) or (None, None)
    conditioning = state.conditioning
    followed: Tensor | None = None
    if of == "conditioning":
        followed = conditioning.text.clone().requires_grad_()
        conditioning = conditioning.with_text(followed)
    elif of == "latents" and through in ("denoiser", "conditional"):
        latents = followed = latents.detach().clone().requires_grad_()
    watch = any(s.wants_attention(level) for s in active)
    reading = batch.reading if batch.reading and batch.reading.at(level) else None
    known = next((k for s in active if (k := s.overwrites(level)) is not None), None)
    if known is not None and not (watch or reading or climber):
        denoised = Denoised(level.output(known, latents), known)
    else:
        branch: Branch = "conditional" if through == "conditional" else "both"
        with torch.set_grad_enabled(followed is not None):
            denoised = _denoised(batch, state, latents, conditioning, level, watch, reading, branch)
        state.calls += 1
    if denoised.maps is not None:
        state.maps_sum = state.maps_sum.plus(denoised.maps) if state.maps_sum else denoised.maps
        state.maps_count += 1
    if denoised.attention is not None:
        previous = 0 if state.attention_sum is None else state.attention_sum
        state.attention_sum = previous + denoised.attention
        state.attention_count += 1
    maps = None if state.attention_sum is None else state.attention_sum / state.attention_count
    clean, output = denoised.clean, denoised.output
    if climber is not None and followed is None:
        clean = followed = clean.detach().clone().requires_grad_()
    estimate = Estimate(
        level,
        latents,
        clean,
        conditioning,
        maps,
        batch.target,
        decoder or batch.model.full,
        batch.region,
    )
    return estimate, output, followed


def _denoised(
    batch: Batch,
    state: _State,
    latents: Tensor,
    conditioning: Conditioning,
    level: Level,
    watch: bool,
    reading: Reading | None,
    branch: Branch,
) -> Denoised:
    """One call of the denoiser, for the images that are still drawn."""
    scale = batch.sampling.cfg_at(level)
    if state.kept is None or bool(state.kept.all()):
        return batch.model.denoise(latents, conditioning, level, scale, watch, reading, branch)
    rows = state.kept.nonzero()[:, 0]
    reading = None if reading is None else reading.of(rows)
    seen = batch.model.denoise(
        latents[rows], conditioning.of(rows), level, scale, watch, reading, branch
    )
    return seen.among(rows, len(latents))


def _gradient(
    climber: Steering, estimate: Estimate, followed: Tensor | None, state: _State
) -> Tensor:
    """Of the objective, in float32; zero and counted for images where it is not finite."""
    assert followed is not None
    with torch.enable_grad():
        total = climber.objective(estimate).sum()
        (gradient,) = torch.autograd.grad(total, followed)
    finite = gradient.flatten(1).isfinite().all(1)
    state.skipped = state.skipped + (~finite).cpu()
    return torch.where(finite.view(-1, *[1] * (gradient.ndim - 1)), gradient.float(), 0.0)
