"""Did it help? Several arms of one recipe, each with several seeds, and what their figures show.

```
<out>/seed-<seed>/     a run with all arms
<out>/pool.json        candidates of the standard arm "selected", where it was asked for
<out>/held_out/        the model of the diagnostics, `diagnosing`
<out>/comparison.json  figures, differences, verdicts, and all that they were made with
```

The same call goes on where it was stopped. With more arms or seeds it computes those alone.
"""

import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from activegen.loop.metering import peak_memory, reset_peak_memory
from activegen.loop.rounds import always
from activegen.proof.fairness import Facts, refuse, refuse_leaks
from activegen.recipes import notices
from activegen.recipes.arms import STANDARD, on_device, with_named_arms, with_seed
from activegen.recipes.diagnosing import HeldOutSettings, check_held_out, diagnose
from activegen.recipes.environment import ENVIRONMENT, environment
from activegen.recipes.evidence import Evidence, differs_on_purpose
from activegen.recipes.jobs import Job, check_devices, in_parallel
from activegen.recipes.looks import earlier_looks, looked_before, with_look
from activegen.recipes.progress import Event, Observer, silent
from activegen.recipes.run import Run
from activegen.recipes.schema import Recipe, changes_generator, parse
from activegen.recipes.verdicts import (
    Results,
    can_stop,
    go_on_against,
    jsonable,
    pairs_of,
    stated,
    steps_of,
    unguided_of,
)
from activegen.records import UserError, choose
from activegen.store import Store
from activegen.store.files import open_folder, parse_json

FILE = "comparison.json"
COST = "cost.json"


@dataclass(frozen=True)
class Ways:
    """How to compare; nothing here decides about an arm's result but ``stop``.

    Args:
        budget_seconds: when they are used up no more arm is begun; what was finished counts.
        seconds_per_arm: of the second comparison, `verdicts.at_equal_seconds`; None takes those of
            the cheapest arm.
        stop: guided arms are carried out after the unguided one with the same seed, and stop
            generating when the stop rule says so of their figures on val images.
        devices: where arms are carried out at the same time, each in a process of its own; none is
            one after the other in this process.
        held_out: looks into the synthetic images; None leaves the diagnostics out.

    Raises:
        UserError: a number of seconds that is none.
    """

    budget_seconds: float | None = None
    seconds_per_arm: float | None = None
    stop: bool = False
    devices: tuple[str, ...] = ()
    held_out: HeldOutSettings | None = None

    def __post_init__(self):
        if self.seconds_per_arm is not None and not self.seconds_per_arm > 0:
            raise UserError("the seconds for each arm must be more than 0")


def compare(
    recipe: Recipe,
    folder: Path,
    arms: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    observer: Observer = silent,
    ways: Ways | None = None,
    written: Callable[[Mapping[str, Any]], object] = lambda made: None,
) -> dict[str, Any]:
    """Carries out all arms with all seeds; what ``comparison.json`` then holds.

    Args:
        recipe: to compare under; its own seed does not matter.
        folder: where everything goes.
        arms: names of the recipe's arms or of `arms.STANDARD`, "all" for all of these; none takes
            the recipe's own.
        seeds: one run each.
        observer: is told of every step.
        ways: how to compare.
        written: is called with what ``comparison.json`` holds each time that it was written: with
            the verdicts, and once more with the diagnostics, which take long.

    Raises:
        UserError: arms that cannot be compared, with all that forbids it; the stop rule without
            val images; or as ``Run`` does.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError("a comparison needs at least one seed, each of them once")
    if ways is not None and ways.stop and recipe.data.val is None:
        raise UserError(
            "the stop rule looks at val images, since test images are for the figures alone: name "
            "a split in data.val, as in --set data.val.split=val"
        )
    ways, begun = ways or Ways(), time.monotonic()
    check_devices(ways.devices)
    known = {**STANDARD, **recipe.arms}
    recipe = with_named_arms(recipe, arms, folder)
    for name, of in recipe.arms.items():
        if of.after:
            choose(known, of.after, f"arms.{name}.after")
    if ways.stop and unguided_of(recipe.arms) is None:
        raise UserError(
            "the stop rule compares with an arm that draws plainly, and there is none: add "
            "'unguided' to --arms, or leave out --stop"
        )
    looks = earlier_looks(open_folder(str(folder)), FILE)

    def over() -> bool:
        spent = time.monotonic() - begun
        return ways.budget_seconds is not None and spent >= ways.budget_seconds

    if ways.devices:
        _side_by_side(recipe, folder, seeds, ways, observer, over)
    runs: dict[int, Run] = {}
    results: dict[int, dict[str, Any]] = {}
    costs: dict[int, dict[str, Any]] = {}
    facts: dict[int, dict[str, Facts]] = {}
    doubts: dict[str, None] = {}
    for seed in seeds:
        run, evidence = _begun(recipe, folder, seed, observer, ways)
        runs[seed], started = run, time.monotonic()
        done = {
            arm: _carried_out(run, arm, _against(run, arm, ways), 1)
            for arm in _in_turn(recipe, ways)
            if run.finished(arm) or not over()
        }
        results[seed] = {arm: done[arm][0] for arm in recipe.arms if arm in done}
        costs[seed] = {arm: done[arm][1] for arm in results[seed]}
        facts[seed] = {arm: evidence.after(arm, of) for arm, of in results[seed].items()}
        doubts |= dict.fromkeys(evidence.doubts)
        _refuse(run, facts[seed])
        if len(results[seed]) == len(recipe.arms):
            run.conclude(results[seed], time.monotonic() - started)
        run.release()
    _refuse_others_by_seed(recipe, facts)
    if not any(results.values()):
        raise UserError("the budget of seconds was used up before the first arm began; give more")
    made = _made(recipe, seeds, results, costs, facts, ways)
    made["machines"] = _machines(runs, results)
    made["notices"] += [*doubts, *notices.trained_otherwise(recipe)]
    made["notices"] += notices.missing_arms(recipe, arms)
    made["notices"] += notices.not_believed([run.folder for run in runs.values()], [*recipe.arms])
    made["notices"] += notices.unread(next(iter(runs.values())).data.skipped)
    made["notices"] += notices.other_places(made["machines"])
    if untimed := notices.untimed(costs, results):
        made["equal_seconds"] = None
        made["notices"] += untimed
    made["notices"] += looked_before(looks, made)
    made["looks"] = with_look(looks, made)
    made["budget_seconds"], made["seconds"] = ways.budget_seconds, _since(begun)
    made["command"] = shlex.join(["activegen", *sys.argv[1:]])
    made["environment"] = environment()
    made = _written(folder, made)
    written(made)
    if ways.held_out is not None:
        test_set = next(of.test_set for by_arm in facts.values() for of in by_arm.values())
        found = diagnose(runs, folder, test_set, ways.held_out, observer)
        for arm, of in found["arms"].items():
            made["arms"][arm]["diagnostics"] = of
        made["held_out"], made["seconds"] = found["judge"], _since(begun)
        made = _written(folder, made)
        written(made)
    return made


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 1)


def _written(folder: Path, made: Mapping[str, Any]) -> dict[str, Any]:
    told = jsonable(made)
    text = json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False)
    open_folder(str(folder)).write(FILE, text.encode())
    return told


def _begun(
    recipe: Recipe, folder: Path, seed: int, observer: Observer, ways: Ways
) -> tuple[Run, Evidence]:
    """A run that may begin."""
    run = Run(with_seed(recipe, seed), folder / f"seed-{seed}", _of_seed(observer, seed))
    run.check()
    if ways.held_out is not None:
        check_held_out(run, ways.held_out)
    evidence = Evidence(run)
    _refuse(run, {arm: evidence.before(arm) for arm in recipe.arms})
    run.record()
    return run, evidence


def _in_turn(recipe: Recipe, ways: Ways) -> list[str]:
    """The arms in their order; where the stop rule is asked, what it compares with comes first."""
    unguided = unguided_of(recipe.arms) if ways.stop else None
    return sorted(recipe.arms, key=lambda arm: unguided is not None and arm != unguided)


def _against(run: Run, arm: str, ways: Ways) -> str | None:
    """What the stop rule compares an arm with, if that is there."""
    unguided = unguided_of(run.recipe.arms)
    guided = ways.stop and run.recipe.arms[arm].generate == "guided"
    return unguided if guided and unguided is not None and run.finished(unguided) else None


def _side_by_side(
    recipe: Recipe,
    folder: Path,
    seeds: Sequence[int],
    ways: Ways,
    observer: Observer,
    over: Callable[[], bool],
) -> None:
    """Leaves finished arms in the folder."""
    missing: list[tuple[Run, int, str]] = []
    for seed in seeds:
        run, _ = _begun(recipe, folder, seed, observer, ways)
        here = [(run, seed, arm) for arm in recipe.arms if not run.finished(arm)]
        if here and not over():
            run.prepare()
            run.release()
        missing += here
    together = max(Counter(ways.devices).values())
    later = [ways.stop and recipe.arms[arm].generate == "guided" for _, _, arm in missing]
    for wave in (False, True):
        jobs = [
            Job(recipe.plain(), folder, seed, arm, _against(run, arm, ways), together)
            for (run, seed, arm), of in zip(missing, later, strict=True)
            if of == wave
        ]
        if jobs:
            in_parallel(jobs, ways.devices, carry_out, observer, over)


def carry_out(job: Job, device: str, observer: Observer) -> None:
    """One arm, as a process of its own does it."""
    recipe = on_device(parse(dict(job.recipe), "the recipe of the comparison"), device)
    run = Run(with_seed(recipe, job.seed), job.folder / f"seed-{job.seed}", observer)
    run.check()
    _carried_out(run, job.arm, job.against, job.together)


def _made(
    recipe: Recipe,
    seeds: Sequence[int],
    results: Results,
    costs: Mapping[int, Mapping[str, Any]],
    facts: Mapping[int, Mapping[str, Facts]],
    ways: Ways,
) -> dict[str, Any]:
    made = {
        "recipe": recipe.name,
        "fingerprint": recipe.fingerprint,
        "settings": recipe.plain(),
        "seeds": list(seeds),
        **stated(recipe, results, ways.seconds_per_arm),
        "facts": {
            seed: {arm: _told(of) for arm, of in by_arm.items()} for seed, by_arm in facts.items()
        },
        "runs": results,
    }
    for arm, of in made["arms"].items():
        peaks = [c[arm]["peak_memory"] for c in costs.values() if arm in c]
        of["cost"]["peak_memory"] = max((p for p in peaks if p is not None), default=None)
    made["notices"] += notices.stopped(made["arms"])
    made["notices"] += notices.short_of_images(recipe, results, facts)
    if ways.stop and not can_stop(recipe.loop):
        made["notices"].append(
            "the stop rule was asked for, but has too few rounds: it needs 3 that were evaluated "
            "and have images before the last that generates; raise loop.rounds or "
            "loop.generate_until, or lower loop.evaluate_every"
        )
    if ways.stop and not recipe.loop.restart:
        made["notices"].append(
            "the learner goes on from round to round, so rounds hang together, and the stop rule "
            "stops more than the 5 % of arms that are ahead which it promises; loop.restart=true "
            "keeps the promise"
        )
    made["notices"] += notices.unfinished(recipe, results, ways.budget_seconds)
    return made


def _carried_out(
    run: Run, arm: str, against: str | None, together: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """An arm's result, and how its work was done: its peak of memory, arms on one device."""
    files = open_folder(str(run.folder / "arms" / arm))
    written, cost = files.read(COST), dict[str, Any](peak_memory=None)
    cost |= parse_json(written, COST) if written else {}
    if run.finished(arm):
        return run.arm(arm), cost
    cost["together"] = max(together, cost.get("together", 1))  # also before an interruption
    files.write(COST, json.dumps(cost).encode())
    devices = {run.device, run.learner_device}
    reset_peak_memory(devices)
    go_on = always
    if against is not None:
        of = Store(str(run.folder / "arms" / against / "store"))
        rounds = [summary for k in of.rounds() if (summary := of.round(k).summary())]
        go_on = go_on_against(rounds, run.recipe.loop)
    result = run.arm(arm, go_on)
    cost["peak_memory"] = peak_memory(devices)
    files.write(COST, json.dumps(cost).encode())
    return result, cost


def _machines(runs: Mapping[int, Run], results: Results) -> list[dict[str, Any]]:
    """What arms were carried out with, and the seeds of each; of earlier ones it is not known."""
    found: dict[str, dict[str, Any]] = {}
    for seed, of in results.items():
        for arm in of:
            written = open_folder(str(runs[seed].folder / "arms" / arm)).read(ENVIRONMENT)
            if written is None:
                continue
            known = {k: v for k, v in parse_json(written, ENVIRONMENT).items() if k != "command"}
            named = found.setdefault(json.dumps(known), {"environment": known, "arms": {}})
            named["arms"].setdefault(arm, []).append(seed)
    return list(found.values())


def _refuse(run: Run, facts: Mapping[str, Facts]) -> None:
    """Nothing, if each pair that is compared may be, and no arm has a leak, compared or not.

    Raises:
        UserError: with all that forbids it.
    """
    arms = run.recipe.arms
    for arm, other in (*pairs_of(arms), *steps_of(arms)):
        if arm in facts and other in facts:
            ours, theirs = facts[arm], facts[other]
            budget = max(run.of(one).task.budget for one in (arm, other))
            most = budget * run.recipe.loop.generating
            allowed = differs_on_purpose(ours, theirs, (arms[arm], arms[other]), most)
            refuse([ours], theirs, {arm: allowed})
    refuse_leaks(facts.values())


def _refuse_others_by_seed(recipe: Recipe, facts: Mapping[int, Mapping[str, Facts]]) -> None:
    """Test images or a generator that are not the same for all seeds.

    Arms with a generator of their own have it alone.
    """
    sets = {of.test_set for by_arm in facts.values() for of in by_arm.values()}
    if len(sets) > 1:
        raise UserError(
            "the test images are not the same for all seeds; they have changed since the first "
            "seed was run: choose another --out"
        )
    own = {arm for arm, of in recipe.arms.items() if changes_generator(of.changes)}
    generators: dict[str, dict[str, str]] = {}
    for seed, by_arm in facts.items():
        for arm, of in by_arm.items():
            if of.images:
                same = generators.setdefault(arm if arm in own else "", {})
                same[of.generator] = f"{arm} with seed {seed}"
    for found in generators.values():
        if len(found) > 1:
            raise UserError(
                f"the generator is not the same for {' and '.join(found.values())}; it has changed "
                "since the first was run: choose another --out"
            )


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
