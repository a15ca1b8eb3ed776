"""The sampling loop, and what may steer it.

    levels, denoise, estimate, steer, step

A *term* is a frozen value that begins a *steering* for each batch. All steerings of a step share
one denoiser forward, at most one backward, one decode and one forward per task model, for all
images or for those of a micro-batch; a step that is carried out several times needs them for each
pass. Steps without an active gradient run in inference mode. With no terms the result is the
diffusers pipeline's.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from activegen.diffusion.attention import Maps, Reading, normalised
from activegen.diffusion.decoders import Decoder
from activegen.diffusion.levels import Level, Solver, scheduler
from activegen.diffusion.model import Branch, Conditioning, Denoised, DiffusionModel, Join
from activegen.records import Images, Latents, Prediction, Target, TaskModel, UserError

Variable = Literal["latents", "conditioning", "clean"]
Route = Literal["denoiser", "conditional", "decoder"]
LIFT = 2.0**15  # of objectives whose gradient passes through float16


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

    def of(self, rows: Int[Tensor, " rows"]) -> "Batch":
        """Of some of the images."""
        return replace(
            self,
            noise=self.noise[rows],
            rngs=tuple(self.rngs[row] for row in rows.tolist()),
            conditioning=self.conditioning.of(rows),
            target=self.target[rows],
            reference=None if self.reference is None else self.reference[rows],
            region=None if self.region is None else self.region[rows],
            reading=None if self.reading is None else self.reading.of(rows),
        )

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
            # passed on beyond black and white, gradients would spend moves where nothing shows
            self._predictions[id(task)] = task.predict(self.images.clamp(0, 1))
        return self._predictions[id(task)]

    def aiming(self, target: Target) -> "Estimate":
        """The same for another target; images and predictions are still made only once."""
        other = copy.copy(self)
        other.target = target
        return other

    def take_over(self, parts: Sequence["Estimate"], join: Join) -> None:
        """Keeps the pictures and predictions that were made for parts of it."""
        if all(part._images for part in parts):
            self._images.append(join([part._images[0] for part in parts], 0))
        for key in parts[0]._predictions:
            made = [part._predictions[key] for part in parts]
            features = [of.features for of in made if of.features is not None]
            self._predictions[key] = Prediction(
                join([of.logits for of in made], 1), join(features, 1) if features else None
            )


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
        calls: of the denoiser, for each image.
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
    skipped: Tensor
    attention_sum: Tensor | None = None
    attention_count: int = 0
    calls: int = 0
    maps_sum: Maps | None = None
    maps_count: int = 0
    kept: Tensor | None = None  # rows that are still drawn; None = all
    halfway: tuple[Tensor, Tensor] | None = None  # latents and pictures when they were looked at

    def attention(
        self, now: Tensor | None = None, rows: Tensor | slice = slice(None)
    ) -> Tensor | None:
        """Mean of the class word's maps of these rows, with those of a step under way."""
        before, count = self.attention_sum, self.attention_count
        total = now if before is None else before[rows] if now is None else before[rows] + now
        return None if total is None else total / (count + (now is not None))

    def rows(self, count: int) -> Tensor:
        """Of ``count`` images, those that are still drawn."""
        return torch.arange(count) if self.kept is None else self.kept.nonzero()[:, 0]

    def remember(self, seen: Denoised) -> None:
        if seen.maps is not None:
            self.maps_sum = self.maps_sum.plus(seen.maps) if self.maps_sum else seen.maps
            self.maps_count += 1
        if seen.attention is not None:
            previous = 0 if self.attention_sum is None else self.attention_sum
            self.attention_sum = previous + seen.attention
            self.attention_count += 1


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
    micro_batch: int = 0,
) -> Drawn:
    """Draws a batch.

    Args:
        batch: what to draw.
        guidance: terms, carried out in this order.
        decoder: for the pictures that gradients see; the model's own by default.
        on_step: sees the estimate of each pass of each step, after the moves were computed.
        dropping: which images not to finish.
        micro_batch: images whose gradient is taken at once, which bounds what it takes of memory;
            0 = all.

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
    state = _State(batch.conditioning, torch.zeros(len(batch.noise), dtype=torch.long))
    sampled = solver.start(batch.noise.to(batch.model.device))
    climb = _Climb(decoder or batch.model.full, micro_batch or len(batch.noise))

    def seen(estimate: Estimate) -> None:
        if on_step is not None:
            on_step(estimate)
        if dropping is not None and estimate.level.index == looked_at and state.halfway is None:
            _look(batch, estimate, dropping, state)

    for level in solver.levels:
        active = [s for s in steerings if s.active(level)]
        for more in reversed(range(max((s.passes(level) for s in active), default=1))):
            if state.kept is not None and not state.kept.any():
                break
            once = copy.deepcopy(solver) if more else solver  # solvers count their steps
            sampled = _step(batch, once, level, sampled, active, state, climb, seen)
            if more:
                sampled = _noised_again(batch, solver, level, sampled)
    sampled, images = _finished(batch, sampled, state)
    maps = state.attention()
    return Drawn(
        latents=sampled.clone(),
        images=images.clone(),
        attention=None if maps is None else normalised(maps).clone(),
        presence=None if maps is None else maps.amax((1, 2)).clone(),
        skipped=state.skipped,
        calls=state.calls,
        maps=state.maps_sum.over(state.maps_count) if state.maps_sum else None,
        dropped=None if state.kept is None else ~state.kept,
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
    state.kept = ~dropping.hopeless(pictures).cpu()
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


@dataclass(frozen=True)
class _Climb:
    """How gradients are taken: the decoder of the pictures they see, and images at once."""

    decoder: Decoder
    micro_batch: int


def _step(
    batch: Batch,
    solver: Solver,
    level: Level,
    sampled: Tensor,
    active: list[Steering],
    state: _State,
    climb: _Climb,
    looked_at: Callable[[Estimate], None],
) -> Tensor:
    climber = next((s for s in active if s.gradient(level) is not None), None)
    batch = replace(batch, conditioning=state.conditioning)
    with torch.inference_mode(climber is None):
        latents = solver.latents(sampled.clone(), level)
        if climber is None:
            seen = _seen(batch, level, latents, active, state)
            state.remember(seen)
            estimate = _estimate(
                batch, level, latents, seen.clean, state.attention(), climb.decoder
            )
            move = Move()
        else:
            seen, estimate, gradient = _climbed(
                batch, level, latents, active, climber, state, climb
            )
            with torch.no_grad():
                move = climber.move(estimate, gradient)
    output = seen.output
    with torch.inference_mode():
        if move.latents is not None or move.clean is not None:
            latents = estimate.latents if move.latents is None else move.latents
            clean = estimate.clean if move.clean is None else move.clean
            to_state = solver.state if move.latents is None else solver.moved
            output, sampled = level.output(clean, latents), to_state(latents, level.index)
        sampled = solver.step(output, level, sampled, batch.rngs)
        alpha, sigma = solver.arrival(level.index + 1)
        for steering in active:
            arrived = solver.scaled(sampled, level.index + 1)
            changed = steering.arrive(arrived, estimate, alpha, sigma)
            if changed is not arrived:
                sampled = solver.moved(changed, level.index + 1)
    if move.conditioning is not None:
        state.conditioning = move.conditioning
    looked_at(estimate)
    return sampled


def _seen(
    batch: Batch, level: Level, latents: Tensor, active: list[Steering], state: _State
) -> Denoised:
    """What the denoiser says, or what overwrites it, where nobody wants a gradient."""
    watch = any(s.wants_attention(level) for s in active)
    known = next((k for s in active if (k := s.overwrites(level)) is not None), None)
    if known is not None and not watch and _reading(batch, level) is None:
        return Denoised(level.output(known, latents), known)
    state.calls += 1
    rows = state.rows(len(latents))
    seen = _denoised(*_of(rows, batch, latents), level, watch)
    return Denoised.joined([seen], _joining(rows, len(latents)))


def _of(rows: Tensor, batch: Batch, latents: Tensor) -> tuple[Batch, Tensor]:
    """Some of the images; all of them as they are."""
    return (batch, latents) if len(rows) == len(latents) else (batch.of(rows), latents[rows])


def _reading(batch: Batch, level: Level) -> Reading | None:
    return batch.reading if batch.reading and batch.reading.at(level) else None


def _denoised(
    batch: Batch, latents: Tensor, level: Level, watch: bool, branch: Branch = "both"
) -> Denoised:
    scale = batch.sampling.cfg_at(level)
    reading = _reading(batch, level)
    return batch.model.denoise(latents, batch.conditioning, level, scale, watch, reading, branch)


def _estimate(
    batch: Batch,
    level: Level,
    latents: Tensor,
    clean: Tensor,
    attention: Tensor | None,
    decoder: Decoder,
) -> Estimate:
    text, target, region = batch.conditioning, batch.target, batch.region
    return Estimate(level, latents, clean, text, attention, target, decoder, region)


def _climbed(
    batch: Batch,
    level: Level,
    latents: Tensor,
    active: list[Steering],
    climber: Steering,
    state: _State,
    climb: _Climb,
) -> tuple[Denoised, Estimate, Tensor]:
    """What the denoiser says, the estimate, and the objective's gradient, without their graph.

    Zero and counted for images where the gradient is not finite; zero for those that were dropped.
    """
    watch = any(s.wants_attention(level) for s in active)
    rows = state.rows(len(latents))
    parts = [
        _followed(*_of(piece, batch, latents), level, climber, watch, state, piece, climb.decoder)
        for piece in rows.split(climb.micro_batch)
    ]
    state.calls += 1
    join = _joining(rows, len(latents))
    seen = Denoised.joined([of for of, _, _ in parts], join)
    state.remember(seen)
    estimate = _estimate(batch, level, latents, seen.clean, state.attention(), climb.decoder)
    estimate.take_over([of for _, of, _ in parts], join)
    gradient = join([of for _, _, of in parts], 0)
    finite = _finite(gradient)
    state.skipped = state.skipped + (~finite).flatten().cpu()
    return seen, estimate, torch.where(finite, gradient.float(), 0.0)


def _followed(
    batch: Batch,
    latents: Tensor,
    level: Level,
    climber: Steering,
    watch: bool,
    state: _State,
    rows: Tensor,
    decoder: Decoder,
) -> tuple[Denoised, Estimate, Tensor]:
    """Forward and backward of some images."""
    of, through = climber.gradient(level) or (None, None)
    followed: Tensor | None = None
    if of == "conditioning":
        followed = batch.conditioning.text.clone().requires_grad_()
        batch = replace(batch, conditioning=batch.conditioning.with_text(followed))
    elif of == "latents" and through in ("denoiser", "conditional"):
        latents = followed = latents.detach().clone().requires_grad_()
    branch: Branch = "conditional" if through == "conditional" else "both"
    with torch.set_grad_enabled(followed is not None):
        seen = _denoised(batch, latents, level, watch, branch)
    clean = seen.clean
    if followed is None:
        clean = followed = clean.detach().clone().requires_grad_()
    attention = state.attention(seen.attention, rows)
    estimate = _estimate(batch, level, latents, clean, attention, decoder)
    with torch.enable_grad():
        total = climber.objective(estimate).sum()
        half = getattr(batch.model, "dtype", None) == torch.float16
        gradient = _lifted(total, followed) if half else _gradient(total, followed)
    return seen, estimate, gradient


def _gradient(total: Tensor, followed: Tensor, again: bool = False) -> Tensor:
    return torch.autograd.grad(total, followed, retain_graph=again)[0]


def _lifted(total: Tensor, followed: Tensor) -> Tensor:
    """The gradient through float16, which has nothing between 0 and 6e-8.

    It is that of a multiple, divided again; for images where that is too large, the plain one.
    """
    gradient = _gradient(total * LIFT, followed, again=True).float() / LIFT
    fits = _finite(gradient)
    return gradient if fits.all() else torch.where(fits, gradient, _gradient(total, followed))


def _finite(gradient: Tensor) -> Tensor:
    """Of each image, in a shape that broadcasts."""
    return gradient.isfinite().all(tuple(range(1, gradient.ndim)), keepdim=True)


def _joining(rows: Tensor, count: int) -> Join:
    """Puts parts of these rows together to a batch of ``count``; the other rows are zeros."""

    def join(parts: Sequence[Tensor], dim: int) -> Tensor:
        whole = (
            parts[0].detach() if len(parts) == 1 else torch.cat([p.detach() for p in parts], dim)
        )
        if len(rows) == count:
            return whole
        shape = list(whole.shape)
        shape[dim] = count
        return whole.new_zeros(shape).index_copy(dim, rows.to(whole.device), whole)

    return join
