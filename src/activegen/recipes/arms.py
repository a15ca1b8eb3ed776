"""The arms that a comparison usually has, so that a recipe need not write them.

To add one, write a function here and its name in `STANDARD`.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from activegen.loop.settings import ArmSettings
from activegen.recipes.plan import pool_of_equal_cost
from activegen.recipes.run import Run
from activegen.recipes.schema import Recipe, parse
from activegen.recipes.steering import objectives
from activegen.records import UserError, choose
from activegen.scores import SCORES
from activegen.store.files import open_folder, parse_json

ALL = "all"  # every arm of `STANDARD`
POOL = "pool.json"
STRONGER = {
    "none": "photo",
    "flips": "photo",
    "land_cover": "land_cover_strong",
    "photo": "street",
}
_LOG = logging.getLogger(__name__)


class Unfit(UserError):
    """A standard arm that the recipe cannot have; among all of them it is left out."""


def _augmented(recipe: Recipe, folder: Path) -> ArmSettings:
    own = recipe.training.augmentation
    if own not in STRONGER:
        raise Unfit(
            f"there is no augmentation that is stronger than '{own}'; say which the arm shall have:"
            " --set 'arms.augmented={generate: none, changes: {training.augmentation: photo}}'"
        )
    return ArmSettings("none", changes={"training.augmentation": STRONGER[own]})


def _selected(recipe: Recipe, folder: Path) -> ArmSettings:
    """As many candidates as take the time of guiding, measured once for a folder.

    Raises:
        Unfit: nothing can be guided, so there is no time to measure.
    """
    by, of = _ascended(recipe)
    files = open_folder(str(folder))
    written = files.read(POOL)
    known = parse_json(written, POOL) if written else {}
    made_of = with_seed(recipe, 0).fingerprint
    if known.get("recipe", made_of) != made_of or not known:
        if reason := _unguidable(recipe):
            raise Unfit(
                f"the arm selected has no cost of guiding to equal: {reason}; say how many "
                "candidates it has for each image: "
                "--set 'arms.selected={generate: selected, judge: false, pool: 4}'"
            )
        ways = {way: ArmSettings(way) for way in ("none", "plain", "guided")}
        run = Run(with_arms(recipe, ways), folder / "measured")
        run.check()
        known = {"pool": pool_of_equal_cost(run, of), "recipe": made_of}
        files.write(POOL, json.dumps(known).encode())
    return ArmSettings("selected", judge=False, pool=known["pool"], by=by, of=of)


def _ascended(recipe: Recipe) -> tuple[str, str]:
    """The first score that a guided arm moves images up, and whose; else the learner's entropy.

    So it is where the capped loss of the label, "adversarial", is ascended, which is no score:
    ranked by it, images of the wrong class come first. Ours.
    """
    for way in recipe.guided_ways:
        for objective in objectives(recipe.guidance.get(way, ())):
            body = objective.body
            if objective.word in SCORES and body.weight > 0 and body.of in ("learner", "committee"):
                return objective.word, body.of
    return "entropy", "learner"


def _unguidable(recipe: Recipe) -> str:
    """Why the recipe has no guided arm; "" where it may have one."""
    if recipe.segmentation is not None and recipe.segmentation.text is not None:
        return "segmentation.text has no masks to draw for"
    missing = [way for way in recipe.guided_ways if way not in recipe.guidance]
    return f"guidance.{missing[0]} is missing (list its terms, or [] for none)" if missing else ""


def _guided(judge: bool) -> Callable[[Recipe, Path], ArmSettings]:
    def made(recipe: Recipe, folder: Path) -> ArmSettings:
        if reason := _unguidable(recipe):
            raise Unfit(f"no standard arm can be guided here: {reason}; name other arms")
        return ArmSettings("guided", judge=judge)

    return made


def _more_real(recipe: Recipe, folder: Path) -> ArmSettings:
    few = recipe.data.train.count if recipe.segmentation else recipe.data.train.per_class
    if few is None:
        raise Unfit(
            "the arm more_real has no more real images: the recipe trains on all of them; set "
            "data.train.per_class (of masks data.train.count)"
        )
    return ArmSettings("none", more_real=few)


def _four_times(recipe: Recipe, folder: Path) -> ArmSettings:
    key, of = "proposal", recipe.proposal
    if recipe.segmentation is not None:
        key, of = "segmentation.proposal", recipe.segmentation.proposal
    return ArmSettings("plain", judge=False, changes={f"{key}.budget": 4 * of.budget})


def _always(settings: ArmSettings) -> Callable[[Recipe, Path], ArmSettings]:
    return lambda recipe, folder: settings


STANDARD: Mapping[str, Callable[[Recipe, Path], ArmSettings]] = {
    "real_only": _always(ArmSettings("none")),
    "augmented": _augmented,
    "unguided": _always(ArmSettings("plain", judge=False)),
    "unguided_4x": _four_times,
    "selected": _selected,
    "guided": _guided(judge=False),
    "guided_judged": _guided(judge=True),
    "more_real": _more_real,
    "synthetic_only": _always(ArmSettings("plain", judge=False, real=False)),
}


def with_named_arms(recipe: Recipe, names: Sequence[str], folder: Path) -> Recipe:
    """The recipe with these arms: its own where it has one of the name, else a standard one.

    Args:
        recipe: to compare the arms under.
        names: of them, in this order; none takes the recipe's own, "all" every standard one that
            fits the recipe: of the others a warning is logged.
        folder: of the comparison, where a measured pool is kept.

    Raises:
        UserError: an unknown name, one that is there twice, or a named arm that does not fit the
            recipe.
    """
    wanted = [one for name in names for one in (STANDARD if name == ALL else [name])]
    wanted = wanted or list(recipe.arms)
    if twice := sorted({name for name in wanted if wanted.count(name) > 1}):
        raise UserError(f"the arm '{twice[0]}' is named twice; name each once")
    for name in wanted:
        choose({**STANDARD, **recipe.arms}, name, "arm")
    chosen: dict[str, ArmSettings] = {}
    for name in wanted:
        try:
            own = recipe.arms.get(name)
            chosen[name] = own or STANDARD[name](recipe, folder)
        except Unfit as reason:
            if name in names:
                raise
            _LOG.warning("'%s' leaves out the arm '%s': %s", ALL, name, reason)
    return with_arms(recipe, chosen)


def left_out(recipe: Recipe, names: Sequence[str]) -> list[str]:
    """Standard arms that `with_named_arms` left out of "all", of the recipe that it made."""
    return [name for name in STANDARD if ALL in names and name not in recipe.arms]


def with_arms(recipe: Recipe, arms: Mapping[str, ArmSettings]) -> Recipe:
    """The same recipe with other arms."""
    return _changed(recipe, arms={name: asdict(of) for name, of in arms.items()})


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """The same recipe with another seed."""
    return _changed(recipe, seed=seed)


def on_device(recipe: Recipe, device: str) -> Recipe:
    """The same recipe, carried out there, learner and all."""
    plain = recipe.plain()
    model, learner = {**plain["model"], "device": device}, {**plain["learner"], "device": None}
    return _changed(recipe, model=model, learner=learner)


def _changed(recipe: Recipe, **keys: object) -> Recipe:
    return parse({**recipe.plain(), **keys}, f"the recipe '{recipe.name}'")
