"""Guided images from a trained model, without the loop."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from activegen.guidance import MemoryBank
from activegen.loop.generating import Generator, batches
from activegen.loop.metered import Metered, drawing_peak
from activegen.loop.metering import JUDGE, STORE, Meter
from activegen.loop.parts import Learners
from activegen.loop.proposing import PLAIN, Origin
from activegen.loop.rounds import counts
from activegen.loop.settings import ArmSettings
from activegen.recipes.run import Run
from activegen.recipes.steering import check_committee
from activegen.records import Request, Sample, TaskModel, UserError, Verdict, fingerprint
from activegen.store import RoundStore, Store, alone
from activegen.store.files import open_folder
from activegen.tasks.learner import weights_hash

ARM = "generate"


def draw(run: Run, checkpoints: Sequence[Path], count: int) -> list[Verdict]:
    """Draws ``count`` images for what a trained model gets wrong, into the run's folder.

    ``store/`` has all of them with their provenance, ``images/<class>/`` those that were accepted.
    The same call goes on where it was stopped.

    Args:
        run: of the recipe; its folder is where the images go.
        checkpoints: weights of the learner, and of more that it has a committee with.
        count: images.

    Raises:
        UserError: a checkpoint does not fit, guidance asks a committee and there is one alone, or
            as ``run.check`` does.
    """
    if count < 1:
        raise UserError(f"--count is {count}; give at least 1")
    run.check()
    check_committee(run.recipe.guidance, len(checkpoints) + len(run.checkpoints))
    learner, *others = [run.trained(checkpoint) for checkpoint in checkpoints]
    committee = (learner, *others, *run.checkpoints)
    made_of = fingerprint([run.recipe.fingerprint, run.data.fingerprint, run.place.fingerprint])
    more = [[weights_hash(other) for other in others]] if others else []
    state = fingerprint([made_of, weights_hash(learner), count, *more])
    with alone(run.folder):
        root = run.folder / "store"
        store = Store.create_or_open(str(root), state, run.data.train.classes)
        stored = store.round(0)
        if stored.plan() is None:
            stored.write_plan(_guided(run, learner, count, state))
        settings = ArmSettings("guided", judge=True)
        learners = Learners(learner, committee, MemoryBank())
        about = {"checkpoint": checkpoints[0].name, "count": count}
        finish(run, stored, learners, ARM, settings, about)
        _write_pictures(run.folder / "images", store.accepted(), store.classes)
        return stored.verdicts() or []


def finish(
    run: Run,
    stored: RoundStore,
    learners: Learners | None,
    arm: str,
    settings: ArmSettings,
    about: dict[str, Any],
) -> None:
    """Draws and judges what is left of a plan, and closes the round with what that cost.

    Args:
        run: of the recipe.
        stored: the round, with its plan.
        learners: whose mistakes are drawn; None where nothing learns.
        arm: what to call it while it works.
        settings: which judge there is.
        about: the round's summary.
    """
    if stored.complete:
        return
    plan = stored.plan() or []
    model = run.model()
    ways: Mapping[str, Any] = {PLAIN: []}
    if learners is not None:
        ways = run.ways(learners)
    generator = Generator(
        task=run.task,
        model=model,
        sampling=run.recipe.sampling,
        steering=ways,
        real=run.data.train,
        learner=learners.main if learners is not None else None,
        decoder=run.decoder(model) if learners is not None else None,
        made_by=model.made_by(),
        micro_batch=run.recipe.loop.micro_batch,
    )
    present, meter = stored.shards(), Meter(model.device)
    missing = [job for job in batches(plan, run.recipe.loop.batch) if job[0] not in present]
    for number, samples in run.executor(arm).map(Metered(generator, meter), missing):
        with meter.at(STORE):
            stored.write_shard(number, samples)
    with meter.at(JUDGE):
        verdicts = run.judge(settings).verdicts(plan, stored.samples(), torch.zeros(0, 3, 16, 16))
        stored.write_verdicts(verdicts)
    cost = meter.take({"drawing": drawing_peak(model)}).plain()
    stored.close(about | counts(verdicts) | {"cost": cost})


def _guided(run: Run, learner: TaskModel, count: int, state: str) -> list[Request]:
    """As the last round of the loop would ask."""
    train, task = run.data.train, run.task.only_guided(count)
    rng = np.random.default_rng((run.recipe.seed, count))
    return task.propose(task.judged(learner, train), train, 1.0, Origin(0, ARM, state), rng)


def _write_pictures(
    folder: Path, accepted: Iterator[tuple[Sample, Verdict]], classes: tuple[str, ...]
) -> None:
    for sample, _ in accepted:
        target = sample.request.target
        files = open_folder(str(folder / folder_name(target, classes[target])))
        files.write(f"{sample.request.id}.png", sample.image)
        if sample.mask:
            files.write(f"{sample.request.id}-mask.png", sample.mask)


def folder_name(target: int, name: str) -> str:
    """A folder for a class, whatever its name holds.

    >>> folder_name(3, "../Sea & Lake")
    '003-sea-lake'
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{target:03d}-{plain}".rstrip("-")
