"""The closed loop: train, mine, propose, generate, judge, store, and train on.

One function for both ways of the field. *Online*: the learner goes on from round to round, as in
Huang et al. (2024), https://arxiv.org/abs/2403.06517, who generate after each epoch of the first
half.
*Offline* (``restart``): each round trains a new learner on all that was accepted before.

A run that was killed goes on where it was: the store knows which images exist, each learner's state
is saved at the end of its round and once a minute, and everything else follows from the seeds.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from activegen.data.fingerprints import thumbnail
from activegen.data.splits import folds, held_out
from activegen.diffusion.decoders import Decoder
from activegen.diffusion.model import DiffusionModel
from activegen.diffusion.sampling import Sampling, Term
from activegen.guidance.memory_bank import MemoryBank
from activegen.loop.executor import Executor, LocalExecutor
from activegen.loop.generating import Generator, batches
from activegen.loop.judging import NOT_NEEDED, OUTSCORED, Judge
from activegen.loop.mining import MiningSettings
from activegen.loop.proposing import PLAIN, Origin
from activegen.loop.task import Real, Task
from activegen.records import Request, TaskModel, UserError, Verdict, choose, fingerprint
from activegen.scores import SCORES
from activegen.store import RoundStore, Store, from_png
from activegen.tasks.augment import AUGMENTATIONS
from activegen.tasks.learner import Learner, weights_hash
from activegen.tasks.pool import Pool

SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class LoopSettings:
    """The rounds.

    Args:
        rounds: how often train and generate take turns; the last never generates.
        generate_until: share of the rounds, from the first, that generate; in the paper half.
        restart: each round trains a new learner for all steps, instead of going on.
        batch: images drawn together; does not change any image beyond float tolerance.
        evaluate_every: rounds between evaluations on the test images; the last always is one.

    Raises:
        UserError: a value out of its range.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    rounds: int = 10
    generate_until: float = 0.5
    restart: bool = False
    batch: int = 16
    evaluate_every: int = 1

    def __post_init__(self):
        if min(self.rounds, self.batch, self.evaluate_every) < 1:
            raise UserError("loop: rounds, batch and evaluate_every must be at least 1")
        if not 0 <= self.generate_until <= 1:
            raise UserError("loop.generate_until must be between 0 and 1")

    @property
    def generating(self) -> int:
        """How many rounds generate."""
        return min(int(self.rounds * self.generate_until + 0.5), self.rounds - 1)


@dataclass(frozen=True)
class ArmSettings:
    """What one arm of a comparison does; all have the same optimiser steps.

    All have the same labelled real images too, but those that say otherwise here.

    Args:
        generate: "none", "plain" (without knowing the learner), "selected" (the best of several
            plain ones, as in pool-based active learning) or "guided" (from mistakes).
        judge: check labels and copies; without, only what is no picture or leaks is rejected.
        pool: candidates for each image of a "selected" arm.
        by: the score of the learner that they are ranked by, a name in ``scores.SCORES``.
        way: how a "guided" arm draws all that it does not draw plainly, a name in the recipe's
            guidance; None draws as the recipe's proposal says, in the ways "guided" and
            "adversarial".
        real: train on the real images. Without, they are only mined and prompted from, and by the
            learner itself, since it has seen none of them; it waits for the first images.
        more_real: labelled real images beyond the recipe's, of each class, or of masks in all.
        augmentation: of this arm's training, a name in ``tasks.augment.AUGMENTATIONS``; None is
            the recipe's.

    Raises:
        UserError: a value out of its range, or one that says nothing of such an arm.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    generate: str = "guided"
    judge: bool = True
    pool: int = 4
    by: str = "entropy"
    way: str | None = None
    real: bool = True
    more_real: int = 0
    augmentation: str | None = None

    def __post_init__(self):
        if self.generate not in ("none", "plain", "selected", "guided"):
            raise UserError(
                f"an arm generates none, plain, selected or guided; not '{self.generate}'"
            )
        if self.pool < 1:
            raise UserError(f"an arm's pool is {self.pool}; give at least 1 candidate an image")
        choose(SCORES, self.by, "score")
        if self.way is not None and self.generate != "guided":
            raise UserError(f"an arm that generates {self.generate} has no way of guidance")
        if not self.real and (self.generate == "none" or self.more_real):
            raise UserError(
                "an arm without real images learns from generated ones alone: let it generate "
                "plain, selected or guided, and leave more_real at 0"
            )
        if self.more_real < 0:
            raise UserError(f"an arm's more_real is {self.more_real}; give 0 or more images")
        if self.augmentation is not None:
            choose(AUGMENTATIONS, self.augmentation, "augmentation")


@dataclass(frozen=True)
class Learners:
    """What steers a round.

    Args:
        main: the learner.
        committee: it and those that mine, each trained on other images.
        bank: latents of earlier images.
    """

    main: TaskModel
    committee: tuple[TaskModel, ...]
    bank: MemoryBank


@dataclass(frozen=True)
class Parts:
    """What a recipe brings to the loop.

    Args:
        task: what a label is: ``Classifying`` or ``Segmenting``.
        train: all labelled real images.
        test: for reported figures alone.
        learner: makes an untrained one; the same each time.
        model: loads the diffusion model, when the first round needs it.
        sampling: how it draws.
        steering: ways of drawing for the learners and the memory bank of a round.
        decoder: for the pictures that gradients see; None = the model's own.
        judge: of the arms that have one, and of those that have none.
        loop, mining: settings.
        seed: of splits, mining and proposals.
        executor: carries out the drawing.
    """

    task: Task
    train: Real
    test: Real
    learner: Callable[[], Learner]
    model: Callable[[], DiffusionModel]
    sampling: Sampling
    steering: Callable[[Learners], Mapping[str, Sequence[Term]]]
    decoder: Callable[[DiffusionModel], Decoder | None]
    judge: Callable[[ArmSettings], Judge]
    loop: LoopSettings
    mining: MiningSettings
    seed: int = 0
    executor: Executor = field(default_factory=LocalExecutor)


def active_generation(
    parts: Parts, arm: str, settings: ArmSettings, folder: Path, recipe: str
) -> Iterator[dict[str, Any]]:
    """Runs one arm, or goes on with it; yields the summary of each round, past ones too.

    Args:
        parts: of the recipe.
        arm: its name.
        settings: of the arm.
        folder: where its store and its learners live.
        recipe: fingerprint of all settings that decide about the result.

    Raises:
        UserError: the folder belongs to another recipe, the disk is full, the training diverges.
    """
    run = _Run(parts, arm, settings, folder, recipe)
    for number in range(parts.loop.rounds):
        stored = run.store.round(number)
        if not stored.complete:
            stored.close(run.round(number, stored))
        summary = stored.summary()
        assert summary is not None
        yield summary


class _Run:
    def __init__(self, parts: Parts, arm: str, settings: ArmSettings, folder: Path, recipe: str):
        self.parts, self.arm, self.settings, self.folder = parts, arm, settings, folder
        self.store = Store.create_or_open(str(folder / "store"), recipe, parts.train.classes)
        self.recipe = recipe
        self.judge = parts.judge(settings)
        self.miners = _miners(parts, settings)
        self.learners = {
            name: parts.learner() for name in {"main", *(m.learner for m in self.miners)}
        }
        gathered = parts.task.gathered
        self.real = {name: gathered(images) for name, images in self._seen().items()}
        # where nothing is held out the main learner sees everything from the start
        held_out = any(miner.learner == "main" for miner in self.miners)
        self.everything = gathered(parts.train) if held_out else self.real["main"]
        if not settings.real:
            none = torch.zeros(0, dtype=torch.int64)
            self.everything = self.real["main"] = self.everything.subset(none)
        self.test = gathered(parts.test)
        self._model: DiffusionModel | None = None

    def round(self, number: int, stored: RoundStore) -> dict[str, Any]:
        """Carries out one round up to its verdicts; the summary."""
        seconds: dict[str, float] = {}
        generating = self.settings.generate != "none" and number < self.parts.loop.generating
        with _Clock(seconds, "train"):
            self._train(number, miners=generating)
        summary: dict[str, Any] = {
            "round": number,
            "step": self.learners["main"].step,
            "real": len(self.real["main"] if generating else self.everything),
        }
        with _Clock(seconds, "evaluate"):
            summary |= self._evaluated(number)
        plan = stored.plan()
        if plan is None:
            with _Clock(seconds, "mine"):
                plan = self._plan(number) if generating else []
            stored.write_plan(plan)
        verdicts = stored.verdicts()
        if verdicts is None:
            verdicts = self._drawn_and_judged(number, plan, stored, seconds)
            stored.write_verdicts(verdicts)
        return summary | counts(verdicts) | {"seconds": seconds}

    def _seen(self) -> dict[str, Any]:
        """What each learner trains on before the mined images are merged."""
        seen = {miner.learner: miner.seen for miner in self.miners}
        return {"main": self.parts.train} | seen

    def _train(self, number: int, miners: bool) -> None:
        loop = self.parts.loop
        synthetic = self.parts.task.synthetic(self.store.accepted(before_round=number))
        names = list(self.learners) if miners else ["main"]
        for name in names:
            learner = self.learners[name]
            if loop.restart and number > 0:
                learner = self.learners[name] = self.parts.learner()
            # a held-out part is the learner's own again when there is nothing more to mine
            real = self.real[name] if miners else self.everything
            steps = learner.settings.steps
            until = steps if loop.restart else round(steps * (number + 1) / loop.rounds)
            self._restore(name, number)
            pool = real + synthetic
            if not len(pool):
                self._wait(learner, number, self._file(name, number))
            else:
                self._train_one(learner, pool, until, self._file(name, number))
            if number > 1:
                self._file(name, number - 2).unlink(missing_ok=True)

    def _wait(self, learner: Learner, number: int, file: Path) -> None:
        """There is nothing to learn from yet; later rounds make up for the steps."""
        if number == self.parts.loop.rounds - 1:
            raise UserError(
                f"the arm '{self.arm}' has no real images, and no generated one was accepted: "
                "there is nothing to train on"
            )
        learner.save(file)

    def _restore(self, name: str, number: int) -> None:
        """From this round's file, or in a new process from the file of the round before."""
        learner, own = self.learners[name], self._file(name, number)
        before = self._file(name, number - 1)
        if own.exists():
            learner.load(own)
        elif learner.step == 0 and number > 0 and not self.parts.loop.restart:
            learner.load(before)

    def _train_one(self, learner: Learner, pool: Pool, until: int, file: Path) -> None:
        saved = time.monotonic()

        def save_now_and_then(step: int, loss: float) -> None:
            nonlocal saved
            if time.monotonic() - saved > SAVE_SECONDS:
                learner.save(file)
                saved = time.monotonic()

        if learner.step < until:
            learner.train(pool, until, save_now_and_then)
            learner.save(file)

    def _file(self, name: str, number: int) -> Path:
        return self.folder / "learners" / f"{number:04d}-{name}.safetensors"

    def _evaluated(self, number: int) -> dict[str, Any]:
        loop = self.parts.loop
        if (number + 1) % loop.evaluate_every and number + 1 < loop.rounds:
            return {}
        task = self.parts.task
        return {"figure": task.figure} | task.evaluated(self.learners["main"].averaged, self.test)

    def _plan(self, number: int) -> list[Request]:
        parts, settings = self.parts, self.settings
        rng = np.random.default_rng((parts.seed, number))
        origin = Origin(number, self.arm, self._state())
        if settings.generate == "guided":
            progress = number / max(parts.loop.generating - 1, 1)
            plan = parts.task.propose(self._judged(), parts.train, progress, origin, rng)
            return plan if settings.way is None else in_way(plan, settings.way)
        selecting = settings.generate == "selected"
        count = parts.task.budget * settings.pool if selecting else parts.task.candidates
        return parts.task.propose_plain(count, parts.train, origin, rng)

    def _judged(self) -> list[Any]:
        """Every image that can be mined, as a learner sees it that was not trained on it."""
        judged = self.parts.task.judged
        return [
            one
            for miner in self.miners
            for one in judged(self.learners[miner.learner].averaged, miner.unseen)
        ]

    def _state(self) -> str:
        """Names all that steers this round's images beside their requests."""
        learners = [weights_hash(self.learners[name].averaged) for name in sorted(self.learners)]
        return fingerprint({"of": learners, "bank": self._bank().id, "recipe": self.recipe})

    def _bank(self) -> MemoryBank:
        complete = [k for k in self.store.rounds() if self.store.round(k).complete]
        pairs = (
            (sample.request.target, self._latents(sample.latents))
            for sample, _ in self.store.accepted(before_round=max(complete, default=-1) + 1)
        )
        return MemoryBank.of(pairs)

    def _latents(self, data: bytes) -> Tensor:
        values = np.frombuffer(data, np.float16).reshape(self._diffusion().noise_shape)
        return torch.from_numpy(values.copy())

    def _diffusion(self) -> DiffusionModel:
        if self._model is None:
            self._model = self.parts.model()
        return self._model

    def _drawn_and_judged(
        self, number: int, plan: list[Request], stored: RoundStore, seconds: dict[str, float]
    ) -> list[Verdict]:
        """Batch by batch until the budget is filled; what is left of the plan is not drawn.

        Of a "selected" arm everything is drawn, and the best are kept.
        """
        parts, selecting = self.parts, self.settings.generate == "selected"
        present, drawn = stored.shards(), {s.request.id: s for s in stored.samples()}
        jobs = batches(plan, parts.loop.batch)
        missing = [job for job in jobs if job[0] not in present]
        made = parts.executor.map(self._generator(), missing) if missing else iter(())
        budget = parts.task.budget
        earlier, needed = self._earlier(number), len(plan) if selecting else budget
        verdicts: list[Verdict] = []
        values: dict[str, float] = {}
        for index, requests in jobs:
            if needed == 0:
                verdicts += [Verdict(request.id, False, NOT_NEEDED) for request in requests]
                continue
            with _Clock(seconds, "generate"):
                if index in present:
                    samples = [drawn[r.id] for r in requests if r.id in drawn]
                else:
                    _, samples = next(made)
                    stored.write_shard(index, samples)
            with _Clock(seconds, "judge"):
                for verdict in self.judge.verdicts(requests, samples, earlier):
                    if verdict.accepted and needed == 0:
                        verdict = replace(verdict, accepted=False, reason=NOT_NEEDED)
                    needed -= verdict.accepted
                    verdicts.append(verdict)
                accepted = {v.id for v in verdicts if v.accepted}
                new = [from_png(s.image) for s in samples if s.request.id in accepted]
                earlier = torch.cat([earlier, *(thumbnail(image) for image in new)])
                values |= {s.request.id: s.scores[self.settings.by] for s in samples}
        return best(verdicts, values, budget) if selecting else verdicts

    def _generator(self) -> Generator:
        """Of this round."""
        parts, learner = self.parts, self.learners["main"].averaged
        model = self._diffusion()
        return Generator(
            task=parts.task,
            model=model,
            sampling=parts.sampling,
            steering=parts.steering(Learners(learner, self._committee(), self._bank())),
            real=parts.train,
            learner=learner,
            measured=tuple({"entropy", "cross_entropy", self.settings.by}),
            decoder=parts.decoder(model),
            made_by=model.made_by(),
        )

    def _committee(self) -> tuple[TaskModel, ...]:
        return tuple(self.learners[name].averaged for name in sorted(self.learners))

    def _earlier(self, number: int) -> Tensor:
        images = [from_png(s.image) for s, _ in self.store.accepted(before_round=number)]
        prints = [thumbnail(image) for image in images]
        return torch.cat(prints) if prints else torch.zeros(0, 3, 16, 16)


@dataclass(frozen=True)
class _Miner:
    """A learner, the real images of its training (if it has any), and those that it may judge."""

    learner: str
    seen: Any
    unseen: Any


def _miners(parts: Parts, settings: ArmSettings) -> list[_Miner]:
    if settings.generate != "guided":
        return []
    if not settings.real:
        return [_Miner("main", parts.train, parts.train)]
    if parts.mining.split == "held_out":
        rest, held = held_out(parts.train, parts.mining.share, parts.seed)
        return [_Miner("main", rest, held)]
    pieces = folds(parts.train, parts.mining.folds, parts.seed)
    return [_Miner(f"fold-{k}", rest, fold) for k, (rest, fold) in enumerate(pieces)]


def in_way(plan: Sequence[Request], way: str) -> list[Request]:
    """The same requests, with all that are guided drawn in one way."""
    return [r if r.steering == PLAIN else replace(r, steering=way) for r in plan]


def best(verdicts: Sequence[Verdict], values: Mapping[str, float], count: int) -> list[Verdict]:
    """Of those that were accepted, the ``count`` with the highest values; ties in their order."""
    accepted = [verdict.id for verdict in verdicts if verdict.accepted]
    kept = set(sorted(accepted, key=lambda id: -values[id])[:count])
    return [
        replace(v, accepted=False, reason=OUTSCORED) if v.accepted and v.id not in kept else v
        for v in verdicts
    ]


def counts(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """How many were drawn and accepted, and why the others were not."""
    return {
        "proposed": sum(verdict.reason != NOT_NEEDED for verdict in verdicts),
        "accepted": sum(verdict.accepted for verdict in verdicts),
        "rejected": dict(
            sorted(Counter(v.reason for v in verdicts if v.reason not in ("", NOT_NEEDED)).items())
        ),
    }


class _Clock:
    """Adds the seconds of a block to a dict."""

    def __init__(self, seconds: dict[str, float], name: str):
        self.seconds, self.name = seconds, name

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = self.seconds.get(self.name, 0.0) + time.perf_counter() - self.start
        self.seconds[self.name] = round(spent, 3)
