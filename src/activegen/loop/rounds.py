"""The closed loop: train, mine, propose, generate, judge, store, and train on.

One function for both ways of the field. *Online*: the learner goes on from round to round, as in
Huang et al. (2024), https://arxiv.org/abs/2403.06517, who generate after each epoch of the first
half.
*Offline* (``restart``): each round trains a new learner on all that was accepted before.

With ``overlap`` the images that a round asks for are drawn while the next one trains, so they are
trained on one round later. Which ones a learner sees follows from the number of its round alone,
never from which work was done first.

A run that was killed goes on where it was: the store knows which images exist, each learner's state
is saved at the end of its round and once a minute, and everything else follows from the seeds.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activegen.data.fingerprints import thumbnail
from activegen.diffusion.model import DiffusionModel
from activegen.guidance.memory_bank import MemoryBank
from activegen.loop.drawing import Drawing, Made, Storing
from activegen.loop.generating import Generator, Job, batches
from activegen.loop.judging import NOT_NEEDED, OUTSCORED, Judge, LabelCheck
from activegen.loop.learning import Learning
from activegen.loop.metered import Metered, drawing_peak, training_peak
from activegen.loop.metering import (
    EVALUATE,
    JUDGE,
    MEASURE,
    MINE,
    START,
    STORE,
    TRAIN,
    WAIT,
    Cost,
    Meter,
)
from activegen.loop.mining import miners
from activegen.loop.parts import Learners, Parts
from activegen.loop.proposing import PLAIN, Origin
from activegen.loop.settings import ArmSettings
from activegen.records import (
    Request,
    TaskModel,
    UserError,
    Verdict,
    fingerprint,
)
from activegen.scores import SCORES
from activegen.store import RoundStore, Store, alone, from_png
from activegen.tasks.committee import Committee
from activegen.tasks.learner import weights_hash
from activegen.tasks.pool import Pool

VAL = "val"  # the figure on val images, in the summary of a round
GoOn = Callable[[Sequence[Mapping[str, Any]]], bool]  # of the summaries of the rounds so far


def always(past: Sequence[Mapping[str, Any]]) -> bool:
    """Nothing stops the generating."""
    return True


def active_generation(
    parts: Parts,
    arm: str,
    settings: ArmSettings,
    folder: Path,
    recipe: str,
    go_on: GoOn = always,
) -> Iterator[dict[str, Any]]:
    """Runs one arm, or goes on with it; yields the summary of each round, past ones too.

    Args:
        parts: of the recipe.
        arm: its name.
        settings: of the arm.
        folder: where its store and its learners live.
        recipe: fingerprint of all settings that decide about the result.
        go_on: is asked before each round that would generate. After a no, which its summary tells
            as "stopped", the arm only trains. With ``overlap`` the round before is not among
            the summaries that it is shown.

    Raises:
        UserError: the folder belongs to another recipe or another process is at work in it, the
            disk is full, the training diverges.
    """
    with alone(folder):
        yield from _rounds(_Run(parts, arm, settings, folder, recipe), go_on)


def _refuse_leftovers(folder: Path) -> None:
    """Learners would go on that nobody knows what they have learnt from."""
    learners = any((folder / "learners").glob("*")) or (folder / "model.safetensors").exists()
    if learners and not (folder / "store" / "store.json").exists():
        raise UserError(
            f"'{folder}' has trained learners, but no store that tells what they were trained on: "
            "restore the store, or delete this whole folder to begin the arm anew"
        )


def _rounds(run: "_Run", go_on: GoOn) -> Iterator[dict[str, Any]]:
    loop = run.parts.loop
    with run.meter.at(START):
        _ = run.judge  # before another process asks for it
    past: list[dict[str, Any]] = []
    under_way: _Round | None = None
    for number in range(loop.rounds):
        ended = run.store.round(number).summary()
        if ended is None:
            before, round = under_way, run.trained(number, past, go_on)
            if before is not None:
                past.append(run.ended(before))
                yield past[-1]
            run.begin_drawing(round)
            under_way = round if loop.overlap else None
            ended = None if loop.overlap else run.ended(round)
        if ended is not None:
            past.append(ended)
            yield ended
    if under_way is not None:
        yield run.ended(under_way)


@dataclass
class _Round:
    """A round that is under way.

    Args:
        number: of it.
        stored: what there is of it.
        generating: whether it asks for images.
        summary: what is known of it.
        seconds: that it took so far, by phase.
        cost: so far, by finer places.
        plan: what it asks for.
        drawing: of that.
    """

    number: int
    stored: RoundStore
    generating: bool
    summary: dict[str, Any]
    seconds: dict[str, float]
    cost: Cost
    plan: list[Request] = field(default_factory=list)
    drawing: Drawing | None = None


class _Run:
    def __init__(self, parts: Parts, arm: str, settings: ArmSettings, folder: Path, recipe: str):
        begun = time.perf_counter()
        self.parts, self.arm, self.settings, self.folder = parts, arm, settings, folder
        _refuse_leftovers(folder)
        self.store = Store.create_or_open(str(folder / "store"), recipe, parts.train.classes)
        self.recipe = recipe
        self.miners = miners(settings, parts.mining, parts.train, parts.seed)
        names = {"main", *(miner.learner for miner in self.miners)}
        self.learners = Learning(names, parts.learner, parts.loop, folder / "learners")
        self.stopped = False
        self.resumed = False  # the round under way was begun by a process that is no more
        self.meter = Meter(self.learners["main"].device)
        self.meter.spent(START, time.perf_counter() - begun)

    # made where they are needed: another process that only draws needs no images to train on

    @cached_property
    def judge(self) -> Judge:
        return self.parts.judge(self.settings)

    @cached_property
    def real(self) -> dict[str, Pool]:
        """What each learner trains on before the mined images are merged."""
        whole = self._labelled
        found = {"main": whole} | {m.learner: whole.subset(m.seen) for m in self.miners}
        if not self.settings.real:
            found["main"] = found["main"].subset(torch.zeros(0, dtype=torch.int64))
        return found

    @cached_property
    def everything(self) -> Pool:
        """Where nothing is held out the main learner sees it from the start."""
        held_out = any(miner.learner == "main" for miner in self.miners)
        if held_out and self.settings.real:
            return self._labelled
        return self.real["main"]

    @cached_property
    def _labelled(self) -> Pool:
        return self.parts.task.gathered(self.parts.train)

    @cached_property
    def test(self) -> Pool:
        return self.parts.task.gathered(self.parts.test)

    @cached_property
    def val(self) -> Pool | None:
        return None if self.parts.val is None else self.parts.task.gathered(self.parts.val)

    @cached_property
    def model(self) -> DiffusionModel:
        with self.meter.at(START):
            return self.parts.model()

    def spent(self) -> Cost:
        """Since it was asked before."""
        with self.meter.at(MEASURE):
            peaks = {"training": training_peak(self.learners["main"])}
            if "model" in vars(self):
                peaks["drawing"] = drawing_peak(self.model)
        return self.meter.take(peaks)

    def trained(self, number: int, past: Sequence[Mapping[str, Any]], go_on: GoOn) -> _Round:
        """A round whose learners are trained and measured, and nothing more."""
        loop, seconds = self.parts.loop, dict[str, float]()
        generating = self.settings.generate != "none" and number < loop.generating
        # a run that goes on may know more summaries than it did when it came here first
        known = past[: max(number - loop.staleness, 0)]
        stopped = generating and (
            self.stopped or any(of.get("stopped") for of in past) or not go_on(known)
        )
        self.stopped |= stopped
        generating = generating and not stopped
        if generating and self.parts.source is not None:
            _ = self._loaded
        with _Clock(seconds, "train"), self.meter.at(TRAIN):
            self._train(number, miners=generating)
        summary: dict[str, Any] = {
            "round": number,
            "step": self.learners["main"].step,
            "real": len(self.real["main"] if generating else self.everything),
            **({"stopped": True} if stopped else {}),
            **({"staleness": loop.staleness} if loop.staleness else {}),
        }
        with _Clock(seconds, "evaluate"), self.meter.at(EVALUATE):
            summary |= self._evaluated(number)
        stored = self.store.round(number)
        return _Round(number, stored, generating, summary, seconds, self.spent())

    def begin_drawing(self, round: _Round) -> None:
        """Writes the plan, and asks for the images that are surely needed."""
        plan = round.stored.plan()
        if self.resumed or plan is not None:
            round.summary["resumed"], self.resumed = True, False
        if plan is None:
            with _Clock(round.seconds, "mine"), self.meter.at(MINE):
                plan = self._plan(round.number) if round.generating else []
            with self.meter.at(STORE):
                round.stored.write_plan(plan)
        round.plan = plan
        if plan and round.stored.verdicts() is None:
            jobs, work = batches(plan, self.parts.loop.batch), lambda: self._work(round.number)
            needed = self._needed(plan)
            round.drawing = Drawing(self.parts.executor, work, round.stored, jobs, needed)
        round.cost = round.cost.plus(self.spent())

    def ended(self, round: _Round) -> dict[str, Any]:
        """Judges what was drawn and closes the round; its summary."""
        verdicts = round.stored.verdicts()
        if verdicts is None:
            verdicts = self._judged_as_drawn(round)
            with self.meter.at(STORE):
                round.stored.write_verdicts(verdicts)
        cost = round.cost.plus(self.spent()).plain()
        known = round.summary | counts(verdicts)
        round.stored.close(known | {"seconds": round.seconds, "cost": cost})
        summary = round.stored.summary()
        assert summary is not None
        return summary

    def _train(self, number: int, miners: bool) -> None:
        loop = self.parts.loop
        accepted = self.store.accepted(before_round=number - loop.staleness)
        synthetic = self.parts.task.synthetic(accepted, self.parts.train)
        for name in self.learners if miners else ["main"]:
            # a held-out part is the learner's own again when there is nothing more to mine
            pool = (self.real[name] if miners else self.everything) + synthetic
            if not len(pool) and number == loop.rounds - 1:
                raise UserError(
                    f"the arm '{self.arm}' has no real images, and no generated one was accepted: "
                    "there is nothing to train on"
                )
            self.resumed |= self.learners.train(name, number, pool, self.meter)

    def _evaluated(self, number: int) -> dict[str, Any]:
        loop = self.parts.loop
        if (number + 1) % loop.evaluate_every and number + 1 < loop.rounds:
            return {}
        task, learner = self.parts.task, self.learners["main"].averaged
        found = {"figure": task.figure} | task.evaluated(learner, self.test)
        if self.val is not None:
            found[VAL] = task.evaluated(learner, self.val)[task.figure]
        return found

    def _plan(self, number: int) -> list[Request]:
        parts, settings = self.parts, self.settings
        rng = np.random.default_rng((parts.seed, number))
        origin = Origin(number, self.arm, self._state(number))
        if settings.generate == "guided":
            progress = number / max(parts.loop.generating - 1, 1)
            plan = parts.task.propose(self._judged(), parts.train, progress, origin, rng)
            return plan if settings.way is None else in_way(plan, settings.way)
        task, selecting = parts.task, settings.generate == "selected"
        count = settings.candidates(task.budget) if selecting else task.candidates
        return task.propose_plain(count, parts.train, origin, rng)

    def _judged(self) -> list[Any]:
        """Every image that can be mined, as a learner sees it that was not trained on it."""
        judged = self.parts.task.judged
        return [
            one
            for miner in self.miners
            if len(miner.unseen)
            for one in judged(self.learners[miner.learner].averaged, miner.unseen)
        ]

    def _state(self, number: int) -> str:
        """Names all that steers a round's images beside their requests."""
        learners = [weights_hash(self.learners[name].averaged) for name in sorted(self.learners)]
        return fingerprint({"of": learners, "bank": self._bank(number).id, "recipe": self.recipe})

    def _bank(self, number: int) -> MemoryBank:
        pairs = (
            (sample.request.target, self._latents(sample.latents))
            for sample, _ in self.store.accepted(before_round=number)
        )
        return MemoryBank.of(pairs)

    def _latents(self, data: bytes) -> Tensor:
        values = np.frombuffer(data, np.float16).reshape(self._noise_shape)
        return torch.from_numpy(values.copy())

    @cached_property
    def _noise_shape(self) -> tuple[int, int, int]:
        """Asked of another process where one has the model, so that it is not loaded twice."""
        if self.parts.source is None:
            return self.model.noise_shape
        return next(self._loaded)

    @cached_property
    def _loaded(self) -> Iterator[tuple[int, int, int]]:
        """Begins to load the model in another process."""
        return self.parts.executor.map(partial(_noise_shape, self._again()), [(0, [])])

    def _needed(self, plan: Sequence[Request]) -> int:
        """Images that are accepted at most; of a "selected" arm all are judged."""
        selecting = self.settings.generate == "selected"
        return len(plan) if selecting else min(self.parts.task.budget, len(plan))

    def _work(self, number: int) -> Callable[[Job], Made]:
        """Draws and stores batches of a round, and goes on to do so while learners learn."""
        if self.parts.source is not None:
            return partial(_drawn, self._again(), number)
        if self.parts.loop.overlap:
            return self._twin.frozen(number)
        return self._stored(number)

    def _again(self) -> "_Again":
        source, settings = self.parts.source, self.settings
        assert source is not None
        return _Again(source, self.arm, settings, self.folder, self.recipe)

    @cached_property
    def _twin(self) -> "_Run":
        """The same with learners of its own."""
        parts = replace(self.parts, model=lambda: self.model)
        twin = _Run(parts, self.arm, self.settings, self.folder, self.recipe)
        twin.meter = self.meter
        return twin

    def frozen(self, number: int) -> Storing:
        """Draws for a round whose learners are on the disk.

        Raises:
            UserError: these are not the learners that the round was planned with.
        """
        self.learners.load(number)
        stored = self.store.round(number)
        planned = {request.state for request in stored.plan() or []}
        if not planned <= {"", self._state(number)}:  # what is drawn plainly names none
            raise UserError(
                f"the learners in '{self.learners.folder}' are not those that round {number} "
                "was planned with: they or the code have changed; choose another --out folder"
            )
        return self._stored(number)

    def _stored(self, number: int) -> Storing:
        generator = Metered(self._generator(number), self.meter)
        return Storing(generator, self.store.round(number))

    def _judged_as_drawn(self, round: _Round) -> list[Verdict]:
        """Batch by batch until the budget is filled; what is left of the plan is not drawn.

        Of a "selected" arm everything is drawn, and the best are kept.
        """
        selecting, seconds = self.settings.generate == "selected", round.seconds
        drawing = "wait" if self.parts.loop.overlap else "generate"
        budget, needed = self.parts.task.budget, self._needed(round.plan)
        earlier = self._earlier(round.number)
        verdicts: list[Verdict] = []
        values: dict[str, float] = {}
        for job in batches(round.plan, self.parts.loop.batch):
            requests = job[1]
            if needed == 0:
                verdicts += [Verdict(request.id, False, NOT_NEEDED) for request in requests]
                continue
            with _Clock(seconds, drawing), self.meter.at(WAIT):
                assert round.drawing is not None
                samples, cost = round.drawing.of(job)
            round.cost = round.cost.plus(cost)
            with _Clock(seconds, "judge"), self.meter.at(JUDGE):
                for verdict in self.judge.verdicts(requests, samples, earlier):
                    if verdict.accepted and needed == 0:
                        verdict = replace(verdict, accepted=False, reason=NOT_NEEDED)
                    needed -= verdict.accepted
                    verdicts.append(verdict)
                accepted = {v.id for v in verdicts if v.accepted}
                new = [from_png(s.image) for s in samples if s.request.id in accepted]
                earlier = torch.cat([earlier, *(thumbnail(image) for image in new)])
                values |= {s.request.id: s.scores[self.settings.ranked_by] for s in samples}
        return best(verdicts, values, budget) if selecting else verdicts

    def _generator(self, number: int) -> Generator:
        """Of a round, with the learners as they are."""
        parts, learner, settings = self.parts, self.learners["main"].averaged, self.settings
        model, committee = self.model, self._committee()
        asked = committee if settings.of == "committee" else (learner,)
        others: dict[str, tuple[str, TaskModel]] = {}
        if taught := SCORES[settings.by].of_teacher:
            teacher = parts.teacher()
            assert teacher is not None  # `Run.check` has looked
            asked = (*asked, teacher)
        if taught or settings.of == "committee":
            others = {settings.ranked_by: (settings.by, Committee(asked))}
        return Generator(
            task=parts.task,
            model=model,
            sampling=parts.sampling,
            steering=parts.steering(Learners(learner, committee, self._bank(number))),
            real=parts.train,
            learner=learner,
            measured=tuple({"entropy", "cross_entropy", *([] if others else [settings.by])}),
            others=others,
            decoder=parts.decoder(model),
            made_by=model.made_by(),
            preview=self._preview(),
            micro_batch=parts.loop.micro_batch,
        )

    def _preview(self) -> tuple[float, LabelCheck] | None:
        at = self.parts.loop.drop_at
        check = None if at is None else self.judge.check
        return None if at is None or check is None else (at, check)

    def _committee(self) -> tuple[TaskModel, ...]:
        own = tuple(self.learners[name].averaged for name in sorted(self.learners))
        return (*own, *self.parts.checkpoints())

    def _earlier(self, number: int) -> Tensor:
        images = [from_png(s.image) for s, _ in self.store.accepted(before_round=number)]
        prints = [thumbnail(image) for image in images]
        return torch.cat(prints) if prints else torch.zeros(0, 3, 16, 16)


@dataclass(frozen=True)
class _Again:
    """A run as it can be sent to another process, and made again there; see `_Run`."""

    source: Callable[[], Parts]
    arm: str
    settings: ArmSettings
    folder: Path
    recipe: str


@lru_cache(maxsize=1)
def _run_again(again: _Again) -> _Run:
    run = _Run(again.source(), again.arm, again.settings, again.folder, again.recipe)
    run.meter = Meter.elsewhere(run.meter.device)
    return run


@lru_cache(maxsize=1)
def _frozen(again: _Again, number: int) -> Storing:
    return _run_again(again).frozen(number)


def _drawn(again: _Again, number: int, job: Job) -> Made:
    return _frozen(again, number)(job)


def _noise_shape(again: _Again, job: Job) -> tuple[int, int, int]:
    return _run_again(again).model.noise_shape


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
