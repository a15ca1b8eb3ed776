"""Did it help? Several arms of one recipe, each with several seeds, and what their figures show.

```
<out>/seed-<seed>/     a run with all arms
<out>/pool.json        candidates of the standard arm "selected", where it was asked for
<out>/comparison.json  figures, differences, verdicts, and all that they were made with
```

The same call goes on where it was stopped. With more arms or seeds it computes those alone.
"""

import json
import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from activegen.proof.fairness import Facts, refuse
from activegen.recipes.arms import with_named_arms, with_seed
from activegen.recipes.evidence import Evidence, differs_on_purpose
from activegen.recipes.progress import Event, Observer, silent
from activegen.recipes.run import Run, environment
from activegen.recipes.schema import Recipe
from activegen.recipes.verdicts import Results, pairs_of, stated
from activegen.records import UserError
from activegen.store.files import open_folder, parse_json

FILE = "comparison.json"
COST = "cost.json"


def compare(
    recipe: Recipe,
    folder: Path,
    arms: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    observer: Observer = silent,
    budget_seconds: float | None = None,
) -> dict[str, Any]:
    """Carries out all arms with all seeds; what ``comparison.json`` then holds.

    Args:
        recipe: to compare under; its own seed does not matter.
        folder: where everything goes.
        arms: names of the recipe's arms or of `arms.STANDARD`, "all" for all of these; none takes
            the recipe's own.
        seeds: one run each.
        observer: is told of every step.
        budget_seconds: when they are used up nothing more is begun; what was finished counts.

    Raises:
        UserError: arms that cannot be compared, with all that forbids it; or as ``Run`` does.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError("a comparison needs at least one seed, each of them once")
    begun = time.monotonic()
    recipe = with_named_arms(recipe, arms, folder)
    results: dict[int, dict[str, Any]] = {}
    costs: dict[int, dict[str, Any]] = {}
    facts: dict[int, dict[str, Facts]] = {}
    left: list[tuple[int, str]] = []
    for seed in seeds:
        run = Run(with_seed(recipe, seed), folder / f"seed-{seed}", _of_seed(observer, seed))
        run.check()
        evidence, started = Evidence(run), time.monotonic()
        _refuse(run, {arm: evidence.before(arm) for arm in recipe.arms})
        run.record()
        results[seed], costs[seed] = {}, {}
        for arm in recipe.arms:
            spent = time.monotonic() - begun
            if budget_seconds is not None and spent >= budget_seconds and not run.finished(arm):
                left.append((seed, arm))
            else:
                results[seed][arm], costs[seed][arm] = _carried_out(run, arm)
        facts[seed] = {arm: evidence.after(arm, of) for arm, of in results[seed].items()}
        _refuse(run, facts[seed])
        if len(results[seed]) == len(recipe.arms):
            run.conclude(results[seed], time.monotonic() - started)
    _refuse_other_tests(facts)
    if not any(results.values()):
        raise UserError("the budget of seconds was used up before the first arm began; give more")
    made = _made(recipe, seeds, results, costs, facts)
    made["notices"] += _unfinished(left, budget_seconds)
    made["budget_seconds"], made["seconds"] = budget_seconds, round(time.monotonic() - begun, 1)
    made["command"] = shlex.join(["activegen", *sys.argv[1:]])
    made["environment"] = environment()
    made = _jsonable(made)
    text = json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False)
    open_folder(str(folder)).write(FILE, text.encode())
    return made


def _made(
    recipe: Recipe,
    seeds: Sequence[int],
    results: Results,
    costs: Mapping[int, Mapping[str, Any]],
    facts: Mapping[int, Mapping[str, Facts]],
) -> dict[str, Any]:
    made = {
        "recipe": recipe.name,
        "fingerprint": recipe.fingerprint,
        "settings": recipe.plain(),
        "seeds": list(seeds),
        **stated(recipe, results),
        "facts": {
            seed: {arm: _told(of) for arm, of in by_arm.items()} for seed, by_arm in facts.items()
        },
        "runs": results,
    }
    for arm, of in made["arms"].items():
        peaks = [c[arm]["peak_memory"] for c in costs.values() if arm in c]
        of["cost"]["peak_memory"] = max((p for p in peaks if p is not None), default=None)
    short = _short(recipe, facts)
    made["notices"] += short
    return made


def _carried_out(run: Run, arm: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """An arm's result, and the peak of memory when its work was done."""
    files = open_folder(str(run.folder / "arms" / arm))
    if run.finished(arm):
        known = files.read(COST)
        return run.arm(arm), parse_json(known, COST) if known else {"peak_memory": None}
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    result = run.arm(arm)
    cost = {"peak_memory": peak_memory()}
    files.write(COST, json.dumps(cost).encode())
    return result, cost


def peak_memory() -> int | None:
    """Bytes: of the GPU since the counter was reset; else of this process since it began."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _refuse(run: Run, facts: Mapping[str, Facts]) -> None:
    """Nothing, if each pair that is compared may be.

    Raises:
        UserError: with all that forbids it.
    """
    arms = run.recipe.arms
    most = run.task.budget * run.recipe.loop.generating
    for arm, other in pairs_of(arms):
        if arm in facts and other in facts:
            ours, theirs = facts[arm], facts[other]
            allowed = differs_on_purpose(ours, theirs, (arms[arm], arms[other]), most)
            refuse([ours], theirs, {arm: allowed})


def _refuse_other_tests(facts: Mapping[int, Mapping[str, Facts]]) -> None:
    sets = {of.test_set for by_arm in facts.values() for of in by_arm.values()}
    if len(sets) > 1:
        raise UserError(
            "the test images are not the same for all seeds; they have changed since the first "
            "seed was run: choose another --out"
        )


def _short(recipe: Recipe, facts: Mapping[int, Mapping[str, Facts]]) -> list[str]:
    spec = recipe.proposal if recipe.segmentation is None else recipe.segmentation.proposal
    most, told = spec.budget * recipe.loop.generating, []
    for arm, settings in recipe.arms.items():
        found = [by_arm[arm].images for by_arm in facts.values() if arm in by_arm]
        if found and settings.generate != "none" and min(found) < most:
            told.append(
                f"{arm} learnt from as few as {min(found)} of {most} synthetic images: the others "
                "were rejected; a higher proposal.spare draws more in their place"
            )
    return told


def _unfinished(left: Sequence[tuple[int, str]], budget_seconds: float | None) -> list[str]:
    if not left:
        return []
    names = ", ".join(f"{arm} with seed {seed}" for seed, arm in left)
    return [
        f"the budget of {budget_seconds:g} seconds was used up before: {names}; the same command "
        "goes on"
    ]


def _told(facts: Facts) -> dict[str, Any]:
    """Facts in numbers and fingerprints, without the name of each image."""
    return {
        "steps": facts.steps,
        "test_set": facts.test_set,
        "test_images": len(facts.test_images),
        "real_images": len(facts.real_images),
        "synthetic_images": facts.images,
        "nearest_to_test": min(facts.test_distances, default=None),
        "judge_images": len(facts.judge_images),
        "sampling": dict(facts.sampling),
        "generator": facts.generator,
    }


def _of_seed(observer: Observer, seed: int) -> Observer:
    def told(event: Event) -> None:
        observer(replace(event, arm=f"seed {seed} {event.arm}".strip()))

    return told


def _jsonable(value: Any) -> Any:
    """Without what JSON has no word for: infinite and no numbers become null."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
