"""From the results of runs to what they show, as JSON-able values."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean, median
from typing import Any, TypeVar

import numpy as np

from activegen.loop.rounds import VAL, GoOn
from activegen.loop.settings import ArmSettings, LoopSettings
from activegen.proof.curves import Amount, Track, amount_needed, curve, times_fewer, worth
from activegen.proof.statistics import Comparison, Figures, holm
from activegen.proof.statistics import compare as compared
from activegen.proof.stopping import Standing, StopRule, standing
from activegen.recipes.schema import Recipe
from activegen.records import UserError

LEAST = StopRule.least  # rounds without which the stop rule says nothing
REFERENCE = ("real_only", "unguided")  # names of the arms that others are compared with
NO_DIFFERENCE: dict[str, Any] = {"difference": None, "interval": None}
NO_VERDICT = "no verdict"
FEWER = 0.95  # of the other's images: an arm with less has its number in the verdict's words
Arms = Mapping[str, ArmSettings]
Results = Mapping[int, Mapping[str, Any]]  # by seed, by arm, as in result.json
T = TypeVar("T")


def baseline_of(arms: Arms) -> str:
    """The arm that all others are compared with: real images alone, or unguided, or the first."""
    alone = [
        name
        for name, of in arms.items()
        if of.generate == "none" and not of.more_real and not of.changes
    ]
    plain = [name for name in [unguided_of(arms)] if name]
    return _first([name for name in arms if name == REFERENCE[0]] + alone + plain + list(arms))


def unguided_of(arms: Arms) -> str | None:
    """The arm that those are compared with which choose what to draw; None without one."""
    plain = [name for name, of in arms.items() if of.generate == "plain" and of.real]
    named = [name for name in plain if name == REFERENCE[1]]
    return _first(named + plain) if plain else None


def pairs_of(arms: Arms) -> list[tuple[str, str]]:
    """(arm, what it is compared with): each with the baseline, what chooses what to draw with
    unguided, and what changes keys with the arm that is the same but for them.
    """
    base, unguided = baseline_of(arms), unguided_of(arms)
    pairs = [(arm, base) for arm in arms if arm != base]
    if unguided is not None and unguided != base:
        choosing = [arm for arm, of in arms.items() if of.generate in ("selected", "guided")]
        pairs += [(arm, unguided) for arm in choosing if arm != base]
    for arm, of in arms.items():
        same = [name for name in arms if of.changes and arms[name] == replace(of, changes={})]
        pairs += [(arm, name) for name in same if (arm, name) not in pairs]
    return pairs


def steps_of(arms: Arms) -> list[tuple[str, str]]:
    """(arm, the one before it): one step of an ablation each, where `pairs_of` has it not.

    The one before it is what the arm says (``after``), else the last that generates, with the same
    real images and changed keys. Ours.
    """
    known, steps = pairs_of(arms), []
    generating = {name: of for name, of in arms.items() if of.generate != "none"}
    for arm, of in generating.items():
        earlier = list(generating)[: list(generating).index(arm)]
        like = [other for other in earlier if _beside(generating[other]) == _beside(of)]
        before = like[-1:] if of.after is None else [of.after] * (of.after in arms)
        steps += [(arm, other) for other in before if not {(arm, other), (other, arm)} & {*known}]
    return steps


def _beside(of: ArmSettings) -> tuple[Any, ...]:
    """What two arms of a step have in common."""
    return of.real, of.more_real, of.changes


def stated(
    recipe: Recipe, results: Results, seconds_per_arm: float | None = None
) -> dict[str, Any]:
    """Figures of each arm, differences with their verdicts, curves, amounts, the stop rule.

    Verdicts of "comparisons" hold together by Holm's correction, and so, apart from them, do those
    of "step_by_step": steps ask about the order of arms, and shall not cost the others power.

    Args:
        recipe: whose arms they are of.
        results: of the runs.
        seconds_per_arm: that each arm is given in the second comparison; see `at_equal_seconds`.
    """
    arms = {
        name: of for name, of in recipe.arms.items() if any(name in r for r in results.values())
    }
    by_arm = {name: {s: r[name] for s, r in results.items() if name in r} for name in arms}
    base, unguided = baseline_of(recipe.arms), unguided_of(recipe.arms)
    figures = {name: _figures(of) for name, of in by_arm.items()}

    def family(pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        found = _family(figures, pairs).values()
        return [_told(of, _fewer(of, arms, by_arm)) for of in found]

    notices = []
    if not recipe.loop.restart and any(of.generate != "none" for of in arms.values()):
        notices.append(
            "the learner goes on from round to round, so points of a curve with fewer images have "
            "fewer steps too, and the images that an arm needs to reach a figure are upper bounds; "
            "loop.restart=true compares all at the same steps"
        )
    return {
        "figure": _any(by_arm)["figure"],
        "baseline": base,
        "unguided": unguided,
        "arms": {name: _arm(name, recipe, arms, by_arm) for name in arms},
        "comparisons": family(pairs_of(recipe.arms)),
        "step_by_step": family(steps_of(recipe.arms)),
        "stop": _stops(arms, by_arm, unguided),
        "equal_seconds": at_equal_seconds(recipe, results, seconds_per_arm),
        "notices": notices,
    }


def at_equal_seconds(
    recipe: Recipe, results: Results, seconds: float | None = None
) -> dict[str, Any]:
    """The same comparison with every arm cut off after the same seconds; nothing is trained again.

    Where each round trains a new learner to its end (``loop.restart``), an arm's figure lies on the
    straight way between its last evaluated round whose learner was trained by then and the next.
    Where the learner goes on, it is that of the last round; this learner lacks steps and the end of
    its learning-rate schedule, so an arm that is cut off has no verdict. Two arms that are not have
    the verdict that they have without limits. Seconds are those of complete rounds as they were
    measured, so they are of the machine, and without what is done once for all arms (the training
    of the judge of labels). A round that was interrupted counts what the process took that ended
    it. What an arm does not use up is not given to it. Ours.

    Args:
        recipe: whose arms they are of.
        results: of the runs.
        seconds: for each arm and seed; by default, with each seed, what the cheapest of the arms
            that generate (of all, where none does) takes to its end.

    Returns:
        "seconds" by seed, whether they were "given", "arms": by name the "mean", and by seed the
        "figures" and the "seconds" until they were reached, and whether that was the "whole" arm;
        "comparisons". Arms that have no figure by then are missing.
    """
    anew = recipe.loop.restart
    tracks = {
        name: {s: _by_seconds(r[name]) for s, r in results.items() if name in r}
        for name in recipe.arms
    }
    tracks = {name: of for name, of in tracks.items() if of}
    generating = [name for name in tracks if recipe.arms[name].generate != "none"]
    limits = {
        s: _cheapest(tracks, generating, s) if seconds is None else seconds
        for s, of in results.items()
        if of
    }
    reached = {
        name: {s: at for s, of in mine.items() if (at := _reached(of, limits[s], anew)) is not None}
        for name, mine in tracks.items()
    }
    reached = {name: mine for name, mine in reached.items() if mine}
    whole = {
        name: all(of.amounts[-1] <= limits[s] for s, of in tracks[name].items()) for name in reached
    }
    figures = {name: {s: figure for s, (_, figure) in of.items()} for name, of in reached.items()}
    pairs = [pair for pair in pairs_of(recipe.arms) if _common(figures, *pair)]
    cut = {pair: [arm for arm in pair if not whole[arm]] for pair in pairs}
    ends = {name: {s: of.figures[-1] for s, of in mine.items()} for name, mine in tracks.items()}
    found = _family(ends, pairs_of(recipe.arms))
    if anew:  # verdicts of one table hold together
        sides = {pair: figures if cut[pair] else ends for pair in pairs}
        told = holm([_pair(sides[pair], *pair) for pair in pairs])
        found |= {(of.arm, of.baseline): of for of in told}
    return {
        "seconds": limits,
        "given": seconds is not None,
        "arms": {
            name: {
                "mean": fmean(mine.values()),
                "figures": mine,
                "seconds": {s: seconds for s, (seconds, _) in reached[name].items()},
                "whole": whole[name],
            }
            for name, mine in figures.items()
        },
        "comparisons": [
            _without_verdict(*pair, _common(figures, *pair), cut[pair])
            if cut[pair] and not anew
            else _told(found[pair])
            for pair in pairs
        ],
    }


def _without_verdict(
    arm: str, baseline: str, seeds: Sequence[int], cut: Sequence[str]
) -> dict[str, Any]:
    """Of arms whose learners lack steps; their difference would say more of that than of them."""
    words = (
        f"{arm} against {baseline}: {NO_VERDICT}, since {' and '.join(cut)} would be cut off with "
        "fewer optimiser steps and an unfinished learning-rate schedule; loop.restart=true trains "
        "each round to its end."
    )
    empty = asdict(Comparison(arm, baseline, tuple(seeds), 0.0, NO_VERDICT))
    return {**empty, "difference": None, "images": None, "words": words}


def _cheapest(
    tracks: Mapping[str, Mapping[int, Track]], generating: Sequence[str], seed: int
) -> float:
    """Seconds of the arm that ends first with a seed, of those that generate if there are some."""
    ends = {name: of[seed].amounts[-1] for name, of in tracks.items() if seed in of}
    return min([ends[name] for name in generating if name in ends] or ends.values())


def _reached(track: Track, limit: float, between: bool) -> tuple[float, float] | None:
    """Seconds and figure of the last point by then, or of the way to the next; None without one."""
    count = sum(amount <= limit for amount in track.amounts)
    if not count:
        return None
    if between:
        end = min(limit, track.amounts[-1])
        return end, float(np.interp(end, track.amounts, track.figures))
    return track.amounts[count - 1], track.figures[count - 1]


def _arm(
    name: str, recipe: Recipe, arms: Arms, by_arm: Mapping[str, Mapping[int, Any]]
) -> dict[str, Any]:
    mine, settings = by_arm[name], arms[name]
    base, unguided = baseline_of(recipe.arms), unguided_of(recipe.arms)
    figures = _figures(mine)
    by_images, by_seconds = (
        {seed: track(of) for seed, of in mine.items()} for track in (_by_images, _by_seconds)
    )
    others = [other for other in (base, unguided) if other and other in by_arm and other != name]
    drawn = settings.generate != "none"
    needed = {
        other: _if_possible(lambda other=other: _needed(by_images, by_arm[other]))
        for other in others
        if drawn
    }
    fewer = needed.get(unguided or "") if recipe.loop.restart else None
    plain, more_real = _unguided_ones(arms, unguided), _more_real(arms)
    real_alone = base in arms and arms[base].generate == "none" and not arms[base].more_real
    return {
        "settings": asdict(settings),
        "figures": figures,
        "mean": fmean(figures.values()),
        "per_class": _per_class(mine, by_arm.get(base, {}) if name != base else {}),
        "worst_class": _worst(name, by_arm, base),
        "ece": fmean(of["ece"] for of in mine.values()),
        "images": {seed: of["images"] for seed, of in mine.items()},
        "proposed": {seed: of["proposed"] for seed, of in mine.items()},
        "steps": sorted({of["steps"] for of in mine.values()}),
        "stopped": {seed: at for seed, of in mine.items() if (at := stopped_after(of)) is not None},
        "cost": cost(mine),
        "curves": {
            "images": _if_possible(lambda: asdict(curve(by_images))),
            "seconds": _if_possible(lambda: asdict(curve(by_seconds))),
        },
        "images_to_reach": {
            other: asdict(of) if of is not None else None for other, of in needed.items()
        },
        "times_fewer": _times_fewer(fewer, mine, by_arm[unguided or ""]) if fewer else None,
        "worth_in_unguided": _amount(
            lambda: _worth_in_unguided(mine, [by_arm[of] for of in [base] * real_alone + plain])
        )
        if drawn and plain and name not in plain
        else None,
        "worth_in_real": _amount(
            lambda: _worth_in_real(mine, [by_arm[of] for of in (base, more_real or "")])
        )
        if drawn and more_real is not None and real_alone
        else None,
    }


def _figures(mine: Mapping[int, Any]) -> dict[int, float]:
    return {seed: of[of["figure"]] for seed, of in mine.items()}


def jsonable(value: Any) -> Any:
    """Without what JSON has no word for: infinite and no numbers become null."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _common(by_arm: Mapping[str, Mapping[int, object]], arm: str, other: str) -> list[int]:
    return sorted(set(by_arm.get(arm, ())) & set(by_arm.get(other, ())))


def _family(
    figures: Mapping[str, Figures], pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Comparison]:
    """By pair, with verdicts that hold together; those that have a seed in common."""
    found = holm([_pair(figures, *pair) for pair in pairs if _common(figures, *pair)])
    return {(of.arm, of.baseline): of for of in found}


def _pair(figures: Mapping[str, Figures], arm: str, other: str) -> Comparison:
    """With the seeds that both have."""
    seeds = _common(figures, arm, other)
    return compared(
        {name: {s: figures[name][s] for s in seeds} for name in (arm, other)}, arm, other
    )


def _per_class(mine: Mapping[int, Any], base: Mapping[int, Any]) -> dict[str, Any]:
    """Means over the seeds, and paired differences with an interval of each class alone."""
    found = {}
    for name in _any({"": mine})["per_class"]:
        ours, theirs = (
            {
                s: of["per_class"][name]
                for s, of in side.items()
                if of["per_class"][name] is not None
            }
            for side in (mine, base)
        )
        of = {"mean": fmean(ours.values()) if ours else None}
        sides = {"arm": ours, "base": theirs}
        of |= _difference(sides, "arm", "base")
        found[name] = of
    return found


def _worst(name: str, by_arm: Mapping[str, Mapping[int, Any]], base: str) -> dict[str, Any]:
    """Figures of the class that is worst in each seed, whichever it is."""
    lowest = {
        arm: {
            seed: min(value for value in of["per_class"].values() if value is not None)
            for seed, of in mine.items()
        }
        for arm, mine in by_arm.items()
    }
    classes = {seed: of["worst_class"] for seed, of in by_arm[name].items()}
    against = _difference(lowest, name, base) if name != base else NO_DIFFERENCE
    return {"mean": fmean(lowest[name].values()), "classes": classes, **against}


def _difference(figures: Mapping[str, Figures], arm: str, other: str) -> dict[str, Any]:
    """Of the seeds that both have."""
    if not _common(figures, arm, other):
        return NO_DIFFERENCE
    seen = _told(_pair(figures, arm, other))
    return {key: seen[key] for key in NO_DIFFERENCE}


def cost(mine: Mapping[Any, Any]) -> dict[str, Any]:
    """Seconds, means over the seeds and medians, which one slow seed does not rule; images a
    second, those that were rejected too, are a median.

    Args:
        mine: results of one arm by seed.
    """
    spent = [_phases(of) for of in mine.values()]
    names = list(dict.fromkeys(name for of in spent for name in of))
    phases = {name: [of.get(name, 0.0) for of in spent] for name in names}
    whole = [sum(of.values()) for of in spent]
    paces = [
        result["proposed"] / of["generate"]
        for result, of in zip(mine.values(), spent, strict=True)
        if of.get("generate")
    ]
    return {
        "seconds": fmean(whole),
        "phases": {name: fmean(of) for name, of in phases.items()},
        "median_seconds": median(whole),
        "median_phases": {name: median(of) for name, of in phases.items()},
        "images_per_second": median(paces) if paces else None,
    }


def _phases(result: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for summary in result["rounds"]:
        for phase, seconds in summary["seconds"].items():
            found[phase] = found.get(phase, 0.0) + seconds
    return found


def _measured(result: Mapping[str, Any], amounts: Sequence[float]) -> Track:
    """A result's figures at an amount for each round; of equal amounts the last."""
    found = {
        amount: summary[result["figure"]]
        for amount, summary in zip(amounts, result["rounds"], strict=True)
        if result["figure"] in summary
    }
    ordered = sorted(found)
    return Track(tuple(ordered), tuple(found[amount] for amount in ordered))


def _before(result: Mapping[str, Any]) -> list[float]:
    """Synthetic images that the learner of each round was trained on."""
    rounds = result["rounds"]
    ends = [max(k - of.get("staleness", 0), 0) for k, of in enumerate(rounds)]
    return [float(sum(r["accepted"] for r in rounds[:end])) for end in ends]


def stopped_after(result: Mapping[str, Any]) -> int | None:
    """Rounds that had generated when the arm was stopped; None where it was not."""
    return next((k for k, of in enumerate(result["rounds"]) if of.get("stopped")), None)


def _by_images(result: Mapping[str, Any]) -> Track:
    return _measured(result, _before(result))


def _by_seconds(result: Mapping[str, Any]) -> Track:
    """Until the learner of a round was trained."""
    amounts, spent = [], 0.0
    for summary in result["rounds"]:
        amounts.append(spent + summary["seconds"].get("train", 0.0))
        spent += sum(summary["seconds"].values())
    return _measured(result, amounts)


def _needed(tracks: Mapping[int, Track], other: Mapping[int, Any]) -> Amount:
    """Images to reach the mean of the other at its end, of the seeds that both have."""
    ends = _figures(other)
    seeds = sorted(set(tracks) & set(ends))
    return amount_needed({s: tracks[s] for s in seeds}, {s: ends[s] for s in seeds})


def _times_fewer(
    needed: Amount, mine: Mapping[int, Any], unguided: Mapping[int, Any]
) -> dict[str, Any] | None:
    """How many times as many images unguided had for the same figure."""
    count = fmean(unguided[s]["images"] for s in set(mine) & set(unguided))
    found = times_fewer(needed, count)
    return None if found is None else asdict(found)


def _worth_in_unguided(mine: Mapping[int, Any], plain: Sequence[Mapping[int, Any]]) -> Amount:
    """Of one image, in unguided ones.

    Args:
        mine: the arm whose images are valued.
        plain: unguided arms of several budgets, and the one without images if there is one.
    """
    return _worth(mine, plain, lambda _, of: of["images"])


def _worth_in_real(mine: Mapping[int, Any], real: Sequence[Mapping[int, Any]]) -> Amount:
    """Of one image, in labelled real ones; between none and all of them the way is straight.

    Args:
        mine: the arm whose images are valued.
        real: real images alone, and more of them.
    """

    def added(seed: int, of: Mapping[str, Any]) -> int:
        return of["rounds"][-1]["real"] - real[0][seed]["rounds"][-1]["real"]

    return _worth(mine, real, added)


def _worth(
    mine: Mapping[int, Any],
    others: Sequence[Mapping[int, Any]],
    amount: Callable[[int, Mapping[str, Any]], float],
) -> Amount:
    """By the ends of arms alone, which all have their steps behind them.

    Raises:
        UserError: the arms have no seed in common; or as `worth`.
    """
    if not (seeds := sorted(set(mine).intersection(*others))):
        raise UserError("the arms have no seed in common")
    images, figures = fmean(mine[s]["images"] for s in seeds), _figures(mine)
    ends = {s: sorted((float(amount(s, of[s])), _figures(of)[s]) for of in others) for s in seeds}
    tracks = {s: Track(*map(tuple, zip(*of, strict=True))) for s, of in ends.items()}
    return worth({s: Track((images,), (figures[s],)) for s in seeds}, tracks)


def _more_real(arms: Arms) -> str | None:
    found = [name for name, of in arms.items() if of.generate == "none" and of.more_real]
    return _first(found) if found else None


def _unguided_ones(arms: Arms, unguided: str | None) -> list[str]:
    """Unguided and arms that are the same with another budget."""
    if unguided is None or unguided not in arms:
        return []
    plain = replace(arms[unguided], changes={})
    return [
        name
        for name, of in arms.items()
        if replace(of, changes={}) == plain
        and {key.removeprefix("segmentation.") for key in of.changes} <= {"proposal.budget"}
    ]


def _stops(
    arms: Arms, by_arm: Mapping[str, Mapping[int, Any]], unguided: str | None
) -> dict[str, Any]:
    """What the stop rule says of each guided arm: means over the seeds, round by round."""
    found: dict[str, Any] = {}
    if unguided is None:
        return found
    for arm, of in arms.items():
        seeds = _common(by_arm, arm, unguided)
        if of.generate != "guided" or not seeds:
            continue
        ours, theirs = (_rounds({s: by_arm[name][s] for s in seeds}) for name in (arm, unguided))
        seen = _standing(ours, theirs)
        words = "fewer than 3 evaluated rounds with images: the stop rule says nothing."
        found[arm] = {"words": words, "stop": None} if seen is None else _of_standing(seen)
    return found


def go_on_against(unguided: Sequence[Mapping[str, Any]], loop: LoopSettings) -> GoOn:
    """Whether a guided arm shall go on, by the stop rule and figures of one seed on val images.

    Args:
        unguided: summaries of the arm that it shall beat.
        loop: of both.
    """
    found = _rounds({0: {"rounds": unguided, "figure": VAL}})
    theirs = {k: of for k, of in found.items() if k in _in_time(loop)}

    def go_on(past: Sequence[Mapping[str, Any]]) -> bool:
        ours = _rounds({0: {"rounds": past, "figure": VAL}})
        both = sorted(set(ours) & set(theirs))
        if len(both) < LEAST:
            return True
        mine, other = ([side[k] for k in both] for side in (ours, theirs))
        return not standing(mine, other, StopRule(rounds=len(theirs))).stop

    return go_on


def can_stop(loop: LoopSettings) -> bool:
    """Whether there are enough rounds for the stop rule to be asked in time."""
    first = 1 + loop.staleness  # that is trained on images
    return sum((k + 1) % loop.evaluate_every == 0 for k in _in_time(loop) if k >= first) >= LEAST


def _in_time(loop: LoopSettings) -> range:
    """Rounds that are known before the last one that generates begins."""
    return range(loop.generating - 1 - loop.staleness)


def _standing(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Standing | None:
    both = sorted(set(ours) & set(theirs))
    guided, unguided = ([side[k] for k in both] for side in (ours, theirs))
    return _if_possible(lambda: standing(guided, unguided, StopRule(rounds=len(both))))


def _of_standing(seen: Standing) -> dict[str, Any]:
    return {"words": seen.words, **asdict(seen)}


def _rounds(mine: Mapping[int, Any]) -> dict[int, float]:
    """Means over the seeds of the rounds that were evaluated and have images."""
    found: dict[int, list[float]] = {}
    for result in mine.values():
        for k, images in enumerate(_before(result)):
            if images and result["figure"] in result["rounds"][k]:
                found.setdefault(k, []).append(result["rounds"][k][result["figure"]])
    return {k: fmean(values) for k, values in found.items() if len(values) == len(mine)}


def _fewer(
    of: Comparison, arms: Arms, by_arm: Mapping[str, Mapping[int, Any]]
) -> dict[str, int] | None:
    """Images of two arms that generate, where one has clearly fewer; means over the pairs."""
    pair = (of.arm, of.baseline)
    if any(arms[name].generate == "none" for name in pair):
        return None
    counts = {name: fmean(by_arm[name][s]["images"] for s in of.seeds) for name in pair}
    if min(counts.values()) >= FEWER * max(counts.values()):
        return None
    return {name: round(count) for name, count in counts.items()}


def _told(comparison: Comparison, images: Mapping[str, int] | None = None) -> dict[str, Any]:
    words = comparison.words
    if images is not None:
        ours, theirs = (images[name] for name in (comparison.arm, comparison.baseline))
        words += f" {comparison.arm} learnt from {ours} synthetic images, against {theirs}."
    return {**asdict(comparison), "images": images, "words": words}


def _amount(find: Callable[[], Amount]) -> dict[str, Any] | None:
    return _if_possible(lambda: asdict(find()))


def _if_possible(find: Callable[[], T]) -> T | None:
    """What the measured rounds do not suffice for is None."""
    try:
        return find()
    except UserError:
        return None


def _any(by_arm: Mapping[str, Mapping[int, Any]]) -> Any:
    return next(result for mine in by_arm.values() for result in mine.values())


def _first(names: Sequence[str]) -> str:
    return names[0]
