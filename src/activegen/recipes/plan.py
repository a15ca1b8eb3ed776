"""What a run is going to do, and about how long it takes here."""

import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from activegen.diffusion.levels import Level
from activegen.diffusion.model import Conditioning
from activegen.diffusion.sampling import Batch, Term, sample
from activegen.loop.proposing import PLAIN, Origin
from activegen.loop.settings import ArmSettings
from activegen.recipes.run import Run
from activegen.recipes.schema import changes_generator
from activegen.recipes.steering import Models, climbing, gradients, passes

PATIENCE = 5.0  # seconds that a measured batch may take


@dataclass(frozen=True)
class ArmPlan:
    """One arm.

    Args:
        name: of it.
        images: that it asks for, at most.
        denoiser_calls: for all of them, batches times steps.
        with_gradient: images times steps that need a backward, by way of guidance.
        image_steps: images times steps, repeated ones too.
        learner_steps: optimiser steps of all its learners.
    """

    name: str
    images: int
    denoiser_calls: int
    with_gradient: Mapping[str, int]
    image_steps: int
    learner_steps: int


@dataclass(frozen=True)
class Pace:
    """Seconds on this machine.

    Args:
        image_step: of one image in one denoiser call.
        image_gradient: the same with what guidance adds, by way; the mean of a way's moves that
            climb, none without.
        picture: to decode one image.
        learner_step: of the optimiser.
    """

    image_step: float
    image_gradient: Mapping[str, float]
    picture: float
    learner_step: float

    def seconds(self, arm: ArmPlan) -> float:
        """Of an arm."""
        climbing = {way: count for way, count in arm.with_gradient.items() if count}
        drawing = (arm.image_steps - sum(climbing.values())) * self.image_step
        drawing += sum(count * self.image_gradient[way] for way, count in climbing.items())
        drawing += arm.images * self.picture
        return drawing + arm.learner_steps * self.learner_step


def plan(run: Run) -> list[ArmPlan]:
    """Of each arm, if nothing is rejected before it is drawn."""
    return [_arm(run, arm) for arm in run.recipe.arms]


def paces(run: Run) -> dict[str, Pace]:
    """Of each arm here; arms have one together but those with a generator of their own."""
    shared = measure(run)
    arms = run.recipe.arms.items()
    own = {arm: measure(run.of(arm)) for arm, of in arms if changes_generator(of.changes)}
    return dict.fromkeys(run.recipe.arms, shared) | own


def judge_steps(run: Run) -> int:
    """Optimiser steps of the model that checks labels."""
    spec = run.judging
    needed = any(a.judge and a.generate != "none" for a in run.recipe.arms.values())
    return spec.members * spec.steps if needed and spec.network else 0


def pool_of_equal_cost(run: Run, of: str = "learner") -> float:
    """Candidates for each image with which selecting takes as long as guiding does here.

    Drawing, and the training of the learners that mine, where selecting needs none. At least 1, to
    two decimals.

    Args:
        run: of a recipe whose arms are "none", "plain" and "guided", as they are called.
        of: whose score the candidates are ranked by.
    """
    pace, arms = measure(run), {arm.name: arm for arm in plan(run)}
    if of == "committee":
        arms["guided"] = replace(arms["guided"], learner_steps=arms["none"].learner_steps)
    seconds = {name: pace.seconds(arm) for name, arm in arms.items()}
    guided, plain = (seconds[way] - seconds["none"] for way in ("guided", "plain"))
    return max(round(guided / plain, 2), 1) if plain > 0 else 1


def measure(run: Run) -> Pace:
    """Times one denoiser batch, each move of guidance, one decode and a few learner steps."""
    learner_step = _learner_step(run)
    if not run.generates:
        return Pace(0.0, {}, 0.0, learner_step)
    count = 1
    step = _denoiser_step(run, count)
    if step * run.recipe.loop.batch < PATIENCE:
        count = run.recipe.loop.batch
        step = _denoiser_step(run, count)
    picture = _picture(run)
    return Pace(step / count, _gradients(run, count, picture), picture, learner_step)


def _arm(run: Run, arm: str) -> ArmPlan:
    run = run.of(arm)
    recipe, settings = run.recipe, run.recipe.arms[arm]
    loop, steps = recipe.loop, recipe.sampling.num_steps
    generating = 0 if settings.generate == "none" else loop.generating
    images = calls = image_steps = 0
    with_gradient: Counter[str] = Counter()
    for number in range(generating):
        for way, count in _counts(run, settings, number).items():
            if not count:
                continue  # there may be no such way
            images += count
            specs = () if way == PLAIN else recipe.guidance[way]
            walked = sum(passes(specs, index, steps) for index in range(steps))
            calls += math.ceil(count / loop.batch) * walked
            image_steps += count * walked
            with_gradient[way] += count * gradients(specs, steps)
    return ArmPlan(
        name=arm,
        images=images,
        denoiser_calls=calls,
        with_gradient=with_gradient,
        image_steps=image_steps,
        learner_steps=_learner_steps(run, settings, generating),
    )


def _counts(run: Run, settings: ArmSettings, number: int) -> dict[str, int]:
    spec = run.recipe.segmentation
    proposal = run.recipe.proposal if spec is None else spec.proposal
    repeats = run.recipe.mining.max_repeats if spec is None else spec.proposal.max_repeats
    if settings.generate == "selected":
        return {PLAIN: settings.candidates(proposal.budget)}
    if settings.generate == "plain":
        return {PLAIN: proposal.budget}
    budget = min(proposal.budget, len(run.data.train) * repeats)
    shares = proposal.shares(number / max(run.recipe.loop.generating - 1, 1))
    counts = {way: round(budget * share) for way, share in shares.items()}
    most = max(counts, key=lambda way: counts[way])
    counts[most] += budget - sum(counts.values())
    if settings.way is None:
        return counts
    plain = counts.get(PLAIN, 0)  # what is steered goes one way
    return {PLAIN: plain, settings.way: budget - plain}


def _learner_steps(run: Run, settings: ArmSettings, generating: int) -> int:
    loop, steps = run.recipe.loop, run.recipe.training.steps
    main = steps * loop.rounds if loop.restart else steps
    each = steps * generating if loop.restart else round(steps * generating / loop.rounds)
    return main + run.recipe.mining.members(settings) * each


def _learner_step(run: Run) -> float:
    learner = run.learner()
    pool = run.task.gathered(run.data.train.subset(range(min(len(run.data.train), 64))))
    last = min(learner.settings.steps, 4)
    learner.train(pool, 1)
    if last == 1:
        return 0.0
    start = time.perf_counter()
    learner.train(pool, last)
    return (time.perf_counter() - start) / (last - 1)


def _batch(run: Run, count: int) -> Batch:
    rng, origin = np.random.default_rng(0), Origin(0, "plan", "")
    requests = run.task.propose_plain(count, run.data.train, origin, rng)
    return run.task.batch(requests, run.model(), run.recipe.sampling, run.data.train)


def _first(run: Run, count: int) -> tuple[Tensor, Conditioning, Level]:
    """Latents, conditioning and level of a first step."""
    batch = _batch(run, count)
    solver = batch.solver()
    level = solver.levels[0]
    return solver.latents(solver.start(batch.noise), level), batch.conditioning, level


def _denoiser_step(run: Run, count: int) -> float:
    latents, text, level = _first(run, count)
    with torch.inference_mode():
        return _timed(
            lambda: run.model().denoise(latents, text, level, run.recipe.sampling.cfg_scale)
        )


def _gradients(run: Run, count: int, picture: float) -> dict[str, float]:
    """Seconds for an image of a step in which guidance climbs, by the ways that arms draw in."""
    learners, guidance = run.untrained(), run.recipe.guidance
    models = Models(learners, lambda: learners.main)
    drawn = dict.fromkeys(
        way for arm, of in run.recipe.arms.items() for way in run.of(arm).recipe.drawn_in(of)
    )
    moves = {way: climbing(guidance[way], models) for way in drawn}
    if not any(moves.values()):
        return {}
    batch = _batch(run, count)
    once = replace(batch, sampling=replace(batch.sampling, num_steps=1), reading=None)
    with tempfile.TemporaryDirectory() as folder:
        decode = run.decoder(run.model(), Path(folder))
    micro_batch = run.recipe.loop.micro_batch

    def seconds(move: Term) -> float:
        return _timed(lambda: sample(once, [move], decode, micro_batch=micro_batch))

    each = {way: fmean(map(seconds, of)) for way, of in moves.items() if of}
    return {way: max(of / count - picture, 0.0) for way, of in each.items()}


def _picture(run: Run) -> float:
    latents = _first(run, 1)[0]
    with torch.inference_mode():
        return _timed(lambda: run.model().decode(latents))


def _timed(work: Callable[[], object]) -> float:
    """Seconds of the second time; the first warms up."""
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return seconds
