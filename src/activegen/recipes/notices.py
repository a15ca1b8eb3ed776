"""What the reader of a comparison should know beside its figures, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from activegen.loop.doubts import WHY, doubted, judged
from activegen.proof.fairness import SHOWN, Facts
from activegen.recipes.arms import left_out
from activegen.recipes.schema import Recipe
from activegen.recipes.verdicts import Results, stopped_after
from activegen.store import Store

HARDWARE = ("platform", "cpus", "gpu")


def stopped(arms: Mapping[str, Any]) -> list[str]:
    """Arms that the stop rule ended."""
    return [
        f"{arm} stopped generating after {after} rounds with seed {seed}: the stop rule said that "
        "it was not beating unguided"
        for arm, of in arms.items()
        for seed, after in of["stopped"].items()
    ]


def short_of_images(
    recipe: Recipe, results: Results, facts: Mapping[int, Mapping[str, Facts]]
) -> list[str]:
    """Arms that have fewer images than the budget."""
    told = []
    for arm, settings in recipe.arms.items():
        own = recipe.of(arm)
        spec = own.proposal if own.segmentation is None else own.segmentation.proposal
        most = spec.budget * recipe.loop.generating
        found = {
            by_arm[arm].images: results[seed][arm]["proposed"]
            for seed, by_arm in facts.items()
            if arm in by_arm and stopped_after(results[seed][arm]) is None
        }
        if found and settings.generate != "none" and min(found) < most:
            few = min(found)
            told.append(
                f"{arm} learnt from as few as {few} of {most} synthetic images: "
                + (
                    "the others were rejected; a higher proposal.spare draws more in their place"
                    if found[few] > few
                    else "so few were asked for, since each real image guides only so many; a "
                    "higher mining.max_repeats asks for more"
                )
            )
    return told


def unfinished(recipe: Recipe, results: Results, budget_seconds: float | None) -> list[str]:
    """Arms for which the time was not enough."""
    left = [(seed, arm) for seed, of in results.items() for arm in recipe.arms if arm not in of]
    if not left:
        return []
    names = ", ".join(f"{arm} with seed {seed}" for seed, arm in left)
    return [
        f"the budget of {budget_seconds:g} seconds was used up before: {names}; until the same "
        "command goes on, means of arms may be over different seeds, while differences are over "
        "those that both have"
    ]


def missing_arms(recipe: Recipe, named: Sequence[str]) -> list[str]:
    """Standard arms that the recipe cannot have."""
    if not (missing := left_out(recipe, named)):
        return []
    return [
        f"left out of all arms, since the recipe cannot have them: {', '.join(missing)}; name one "
        "in --arms to read why"
    ]


def unread(skipped: Sequence[tuple[str, str]]) -> list[str]:
    """Images that the data has, and nobody could open: (id, reason)."""
    if not skipped:
        return []
    reasons = "; ".join(reason for _, reason in skipped[:SHOWN])
    return [f"{len(skipped)} images cannot be read and were left out of all arms: {reasons}"]


def not_believed(runs: Sequence[Path], arms: Sequence[str]) -> list[str]:
    """Wordings whose labels the judge of an arm mostly refused, in all runs together."""
    told = []
    for arm in arms:
        folders = (run / "arms" / arm / "store" for run in runs)
        stores = [Store(str(folder)) for folder in folders if (folder / "store.json").exists()]
        if found := doubted(pair for store in stores for pair in judged(store)):
            named = ", ".join(of.told(stores[0].classes[of.target]) for of in found[:SHOWN])
            more = f" and {len(found) - SHOWN} more wordings" if len(found) > SHOWN else ""
            what = f"the judge of {arm} refused the labels of {named}{more}"
            told.append(f"{what}: {WHY}; cards in a run's report show which")
    return told


def trained_otherwise(recipe: Recipe) -> list[str]:
    """What arms change of the training or its real images, so that a difference may come of it."""
    told = []
    for arm, settings in recipe.arms.items():
        own, usual = _training(recipe.of(arm)), _training(recipe)
        changed = [
            f"{key} {value} instead of {usual[key]}"
            for key, value in own.items()
            if key in usual and value != usual[key]
        ]
        if changed:
            told.append(f"{arm} is trained otherwise than the recipe says: {', '.join(changed)}")
        if settings.generate != "none" and settings.more_real:
            told.append(
                f"{arm} learns from more labelled real images (more_real: {settings.more_real}) "
                "beside the generated ones, so its difference from other arms is of both"
            )
    return told


def _training(recipe: Recipe) -> dict[str, Any]:
    two = recipe.learner.co_training
    networks = {"networks (learner.co_training)": 1 if two is None else 2}
    own = {} if two is None else {f"co_training.{k}": v for k, v in asdict(two).items()}
    return asdict(recipe.training) | networks | own


def other_places(machines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Other machines or versions of libraries for some arms."""
    told, environments = [], [of["environment"] for of in machines]
    kinds = {tuple(of.get(key) for key in HARDWARE) for of in environments}
    if len(kinds) > 1:
        told.append(
            f"arms were carried out on {len(kinds)} kinds of machines, so their seconds and memory "
            "are not to be compared; 'machines' in comparison.json has them"
        )
    versions = [of.get("versions", {}) for of in environments]
    several = {
        name: sorted({of[name] for of in versions if name in of})
        for name in dict.fromkeys(name for of in versions for name in of)
    }
    if changed := [f"{name} {', '.join(of)}" for name, of in several.items() if len(of) > 1]:
        told.append(
            f"arms were carried out with several versions of {'; '.join(changed)}, so a difference "
            "may come of these; 'machines' in comparison.json has them"
        )
    return told


def untimed(costs: Mapping[int, Mapping[str, Any]], results: Results) -> list[str]:
    """Why the seconds of arms are not to be compared; nothing where they may."""
    told = []
    most = max(of.get("together", 1) for by_arm in costs.values() for of in by_arm.values())
    if most > 1:
        told.append(
            f"up to {most} arms had one device at the same time and slowed each other down, so "
            "their seconds are not to be compared, and there is no table at equal seconds; "
            "--jobs 1, or --devices that are named once each, measures them"
        )
    resumed = [
        f"{arm} with seed {seed}"
        for seed, of in results.items()
        for arm, result in of.items()
        if any(summary.get("resumed") for summary in result["rounds"])
    ]
    if resumed:
        told.append(
            f"arms were interrupted in the middle of a round ({', '.join(resumed)}), and what that "
            "round took before is not counted, so they look cheaper than they were, and there is "
            "no table at equal seconds"
        )
    return told
