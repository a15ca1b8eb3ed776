"""Whether a folder can have a run, or go on with the one that it has."""

import os
import tempfile
from pathlib import Path

import yaml

from activegen.recipes.nested import differences
from activegen.recipes.schema import Recipe, parse
from activegen.records import UserError

RECIPE = "recipe.yaml"
FREE = 200 * 2**20  # bytes of disk without which no run begins
SHOWN = 5  # keys in a message


def check_writable(folder: Path) -> None:
    """Nothing, if a run may write there.

    Raises:
        UserError: it is a file, is closed, or its disk is full.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"'{folder}' is a file; give a folder with --out")
    there = next(of for of in (folder, *folder.absolute().parents) if of.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"cannot write to '{folder}': {error.strerror}") from error
    space = os.statvfs(there) if hasattr(os, "statvfs") else None
    if space is not None and space.f_bavail * space.f_frsize < FREE:
        raise UserError(f"the disk of '{folder}' has less than {FREE >> 20} MiB free")


def what_changed(folder: Path, recipe: Recipe, arm: str) -> str:
    """Why an arm cannot go on in a folder that another recipe, or other files, have begun.

    Args:
        folder: of the run, with the recipe that it was begun with.
        recipe: now, as the arm has it.
        arm: its name.
    """
    try:
        text = (folder / RECIPE).read_text(encoding="utf-8")
        before = parse(yaml.safe_load(text), RECIPE).of(arm)
    except (OSError, ValueError, KeyError, yaml.YAMLError, UserError):
        return f"unknown, since its {RECIPE} does not tell"
    then, now = ({**of.decisive, "arms": {arm: of.plain()["arms"][arm]}} for of in (before, recipe))
    if found := differences(then, now):
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        return "; ".join(found[:SHOWN]) + more
    return (
        "no key, but what the recipe names: the real images with their labels or "
        "masks, the files of the diffusion model, or the words of the prompts"
    )
