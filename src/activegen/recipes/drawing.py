"""Guided images from a trained model, without the loop."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from activegen.guidance import MemoryBank
from activegen.loop.generating import Generator, batches
from activegen.loop.proposing import Origin
from activegen.loop.rounds import ArmSettings, Learners
from activegen.recipes.run import Run
from activegen.records import Request, Sample, TaskModel, UserError, Verdict, fingerprint
from activegen.store import RoundStore, Store
from activegen.store.files import open_folder
from activegen.tasks.learner import weights_hash

ARM = "generate"


def draw(run: Run, checkpoint: Path, count: int) -> list[Verdict]:
    """Draws ``count`` images for what a trained model gets wrong, into the run's folder.

    ``store/`` has all of them with their provenance, ``images/<class>/`` those that were accepted.
    The same call goes on where it was stopped.

    Args:
        run: of the recipe; its folder is where the images go.
        checkpoint: weights of the learner.
        count: images.

    Raises:
        UserError: the checkpoint does not fit, or as ``run.check`` does.
    """
    if count < 1:
        raise UserError(f"--count is {count}; give at least 1")
    run.check()
    learner = run.trained(checkpoint)
    train = run.data.train
    made_of = fingerprint([run.recipe.fingerprint, run.data.fingerprint, run.place.fingerprint])
    state = fingerprint([made_of, weights_hash(learner), count])
    store = Store.create_or_open(str(run.folder / "store"), state, train.classes)
    stored = store.round(0)
    plan = stored.plan()
    if plan is None:
        plan = _requests(run, learner, count, state)
        stored.write_plan(plan)
    if not stored.complete:
        _drawn(run, learner, plan, stored)
        judge = run.judge(ArmSettings("guided", judge=True))
        verdicts = judge.verdicts(plan, stored.samples(), torch.zeros(0, 3, 16, 16))
        stored.write_verdicts(verdicts)
        stored.close({"checkpoint": checkpoint.name, "count": count})
    _write_pictures(run.folder / "images", store.accepted(), train.classes)
    return stored.verdicts() or []


def _requests(run: Run, learner: TaskModel, count: int, state: str) -> list[Request]:
    """As the last round of the loop would ask."""
    train, task = run.data.train, run.task.only_guided(count)
    rng = np.random.default_rng((run.recipe.seed, count))
    return task.propose(task.judged(learner, train), train, 1.0, Origin(0, ARM, state), rng)


def _drawn(run: Run, learner: TaskModel, plan: list[Request], stored: RoundStore) -> None:
    model = run.model()
    generator = Generator(
        task=run.task,
        model=model,
        sampling=run.recipe.sampling,
        steering=run.ways(Learners(learner, (learner,), MemoryBank())),
        real=run.data.train,
        learner=learner,
        decoder=run.decoder(model),
        made_by=model.made_by(),
    )
    present = stored.shards()
    missing = [job for job in batches(plan, run.recipe.loop.batch) if job[0] not in present]
    for number, samples in run.executor(ARM).map(generator, missing):
        stored.write_shard(number, samples)


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
