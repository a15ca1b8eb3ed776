"""A data set with masks from text alone: ``activegen annotate``."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from activegen.loop.annotating import Annotating
from activegen.loop.proposing import Origin
from activegen.loop.settings import ArmSettings
from activegen.recipes.drawing import finish
from activegen.recipes.progress import Observer, silent
from activegen.recipes.run import Run
from activegen.recipes.schema import Recipe
from activegen.records import UserError
from activegen.store import Store, alone
from activegen.store.dataset import write_dataset
from activegen.store.files import open_folder

ARM = "annotated"
FOLDER = "dataset"


def annotate(
    recipe: Recipe, folder: Path, count: int, observer: Observer = silent
) -> dict[str, Any]:
    """Draws ``count`` images for the recipe's prompts and reads their masks out of the attention.

    ``dataset/`` in the folder has those that were accepted, as `write_dataset` says, and the store
    of the arm "annotated" all of them. The same call goes on where it was stopped.

    Args:
        recipe: with ``segmentation.text``; its arms do not matter.
        folder: where everything goes.
        count: images to draw.
        observer: is told of every step.

    Returns:
        "images" in the data set, "proposed", and "rejected" by reason.

    Raises:
        UserError: the recipe has no such part, or as ``Run.check`` does.
    """
    if count < 1:
        raise UserError(f"--count is {count}; give at least 1")
    if recipe.segmentation is None or recipe.segmentation.text is None:
        raise UserError(
            f"the recipe '{recipe.name}' reads no masks out of attention; add 'text: {{}}' to its "
            "'segmentation'"
        )
    settings, begun = ArmSettings("plain", judge=True), time.monotonic()
    run = Run(recipe.model_copy(update={"arms": {ARM: settings}}), folder, observer)
    run.check()
    train, rng = run.data.train, np.random.default_rng(recipe.seed)
    with alone(folder):
        if others := sorted({of.name for of in (folder / "arms").glob("*")} - {ARM}):
            raise UserError(
                f"'{folder}' has the arms of a run ({', '.join(others)}); give another --out"
            )
        run.record()
        root = folder / "arms" / ARM / "store"
        store = Store.create_or_open(str(root), run.fingerprint(ARM), train.classes)
        stored = store.round(0)
        plan = run.task.propose_plain(count, train, Origin(0, ARM, ""), rng)
        if len(stored.plan() or plan) != count:
            raise UserError(
                f"'{folder}' was begun with --count {len(stored.plan() or ())}; give that, or "
                "another --out"
            )
        stored.write_plan(plan)
        finish(run, stored, None, ARM, settings, {"round": 0, "step": 0, "count": count})
        assert isinstance(run.task, Annotating)
        accepted = run.task.ranked(store.accepted)
        images = write_dataset(open_folder(str(folder / FOLDER)), accepted, train.classes)
        summary = stored.summary() or {}
        made = {"images": images, "proposed": count, "rejected": summary["rejected"]}
        run.conclude({ARM: made | {"rounds": [summary]}}, time.monotonic() - begun)
        return made
