"""Guided images from a trained model, without the loop."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from activegen.guidance import MemoryBank
from activegen.loop.generating import Generator, batches
from activegen.loop.mining import Judged, mine
from activegen.loop.proposing import Origin, ProposalSettings, propose_guided
from activegen.loop.rounds import ArmSettings
from activegen.recipes.run import Run
from activegen.records import Request, Sample, UserError, Verdict, fingerprint
from activegen.store import RoundStore, Store
from activegen.store.files import open_folder
from activegen.tasks.classifier import Classifier
from activegen.tasks.evaluate import evaluate
from activegen.tasks.learner import weights_hash
from activegen.tasks.pool import gather

ARM = "generate"


def draw(run: Run, checkpoint: Path, count: int) -> list[Verdict]:
    """Draws ``count`` images for what a trained model gets wrong, into the run's folder.

    ``store/`` has all of them with their provenance, ``images/<class>/`` those that were accepted.
    The same call goes on where it was stopped.

    Args:
        run: of the recipe; its folder is where the images go.
        checkpoint: weights of the classifier.
        count: images.

    Raises:
        UserError: the checkpoint does not fit, or as ``run.check`` does.
    """
    if count < 1:
        raise UserError(f"--count is {count}; give at least 1")
    run.check()
    task = run.trained(checkpoint)
    train = run.data.train
    made_of = fingerprint([run.recipe.fingerprint, run.data.fingerprint, run.place.fingerprint])
    state = fingerprint([made_of, weights_hash(task), count])
    store = Store.create_or_open(str(run.folder / "store"), state, train.classes)
    stored = store.round(0)
    plan = stored.plan()
    if plan is None:
        plan = _requests(run, task, count, state)
        stored.write_plan(plan)
    if not stored.complete:
        _drawn(run, task, plan, stored)
        judge = run.judge(ArmSettings("guided", judge=True))
        verdicts = judge.verdicts(plan, stored.samples(), torch.zeros(0, 3, 16, 16))
        stored.write_verdicts(verdicts)
        stored.close({"checkpoint": checkpoint.name, "count": count})
    _write_pictures(run.folder / "images", store.accepted(), train.classes)
    return stored.verdicts() or []


def _requests(run: Run, task: Classifier, count: int, state: str) -> list[Request]:
    """As the last round of the loop would ask."""
    train = run.data.train
    pool = gather(train, run.recipe.data.size)
    seen = evaluate(task, pool.images, pool.labels)
    wrong = (seen.predictions != pool.labels).tolist()
    rows = zip(train.ids, train.labels, seen.losses.tolist(), wrong, strict=True)
    rng = np.random.default_rng((run.recipe.seed, count))
    references = mine([Judged(*row) for row in rows], count, run.recipe.mining, rng)
    shares = run.recipe.proposal.adversarial_share
    settings = ProposalSettings(count, plain_share=0.0, adversarial_share=shares)
    origin = Origin(0, ARM, state)
    return propose_guided(references, train.classes, run.prompts, settings, 1.0, origin, rng)


def _drawn(run: Run, task: Classifier, plan: list[Request], stored: RoundStore) -> None:
    model, train = run.model(), run.data.train
    generator = Generator(
        model=model,
        sampling=run.recipe.sampling,
        steering=run.ways(task, MemoryBank()),
        reference=lambda id: train.image(train.index_of(id)),
        task=task,
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


def folder_name(target: int, name: str) -> str:
    """A folder for a class, whatever its name holds.

    >>> folder_name(3, "../Sea & Lake")
    '003-sea-lake'
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{target:03d}-{plain}".rstrip("-")
