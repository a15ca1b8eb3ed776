"""A page about a comparison; the layout is in ``comparison.html.jinja``, facts in its JSON file."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from activegen.recipes.comparing import FILE
from activegen.recipes.verdicts import cost
from activegen.records import UserError, choose
from activegen.report.measures import MEASURES
from activegen.report.page import environment, flat
from activegen.report.plots import interval_curves, named_styles, scatter
from activegen.report.words import NBSP, NONE, percent, points
from activegen.store.files import parse_json

DIAGNOSTICS = {  # title by name; shares in per cent, others with so many digits
    "label_fidelity": ("Labels confirmed", None),
    "refused_fidelity": ("Refused confirmed", None),
    "precision": ("Precision", None),
    "recall": ("Recall", None),
    "density": ("Density", 2),
    "coverage": ("Coverage", None),
    "kid": ("KID", 4),
    "nearest": ("Nearest real", 2),
    "diversity": ("Diversity", 3),
    "entropy": ("Entropy", 3),
    "learner_entropy": ("Learner's entropy", 3),
    "cross_entropy": ("Cross-entropy", 3),
    "learner_cross_entropy": ("Learner's cross-entropy", 3),
}
VERDICTS = {"helps": "yes", "hurts": "no"}  # how a row looks
HOLM = "p and verdicts are after Holm's correction; an interval is of its comparison alone, without"
CONFOUNDED = (
    "Rounds with fewer images had fewer optimiser steps too (loop.restart is false), so images to "
    "reach a figure mix images with steps, and are upper bounds."
)
WORTH = (
    "Worth of one image of an arm: unguided images, or real ones, that bring as much, over the "
    "images of the arm; by what arms of other sizes have at their end, straight between them."
)
BEYOND = "more than was measured"
PAGE = "report.html"  # of a comparison


def write_comparison(folder: Path) -> Path:
    """Write FOLDER/report.html about FOLDER/comparison.json, and return its path.

    Raises:
        UserError: there is no comparison, or its file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        raise UserError(f"'{folder}' has no {FILE}; give the folder of a finished comparison")
    made = parse_json(file.read_bytes(), str(file))
    page = environment().get_template("comparison.html.jinja").render(_content(made))
    path, aside = folder / PAGE, folder / f".tmp-{PAGE}"
    aside.write_text(page, encoding="utf-8")
    os.replace(aside, path)
    return path


def _content(made: Mapping[str, Any]) -> dict[str, Any]:
    arms, measure = made["arms"], choose(MEASURES, made["figure"], "figure")
    looks = named_styles(list(arms), made["baseline"] if made["baseline"] in arms else None)

    def curves(of: str, below: str) -> str | None:
        found = {name: arm["curves"][of] for name, arm in arms.items()}
        return interval_curves(found, looks, f"{measure.title} on real test images", below)

    first, equal = next(iter(made["facts"].values())), made.get("equal_seconds")
    return {
        "made": made,
        "arms": arms,
        "looks": looks,
        "measure": measure,
        "verdicts": VERDICTS,
        "tables": _tables(made["comparisons"]),
        "steps": made.get("step_by_step", []),
        "confounded": "" if made["settings"]["loop"]["restart"] else CONFOUNDED,
        "equal": equal,
        "equal_seconds": seconds_given(equal) if equal else "",
        "equal_tables": _tables(equal["comparisons"]) if equal else {},
        "looked_into": diagnosed(made),
        "diagnostics": titles(diagnosed(made)),
        "diagnostic": diagnostic,
        "by_fidelity": scatter(
            _gains(made),
            looks,
            f"Points of {measure.title} gained over {made['baseline']}",
            "labels that the held-out judge confirms"
            if measure.title == "Accuracy"
            else "mIoU of the held-out judge with the masks",
        ),
        "by_images": curves("images", "synthetic images learnt from"),
        "by_seconds": curves("seconds", "seconds, until a learner was trained"),
        "classes": list(next(iter(arms.values()))["per_class"]),
        "facts": first,
        "costs": (costs := medians(made)),
        "phases": list(dict.fromkeys(p for of in costs.values() for p in of["median_phases"])),
        "between": between,
        "amount": amount,
        "beyond": BEYOND,
        "worth": WORTH,
        "p_of": p_of,
        "verdict_of": verdict_of,
        "recipe": yaml.safe_dump(made["settings"], sort_keys=False, allow_unicode=True),
        "environment": flat(made["environment"]),
        "compact": lambda value: json.dumps(value, ensure_ascii=False),
    }


def diagnosed(made: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Means of the diagnostics by arm; none where the comparison was not looked into."""
    found = {name: arm.get("diagnostics") for name, arm in made["arms"].items()}
    return {name: of["means"] for name, of in found.items() if of}


def titles(found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Titles, by name, of the `DIAGNOSTICS` that any arm has."""
    return {
        name: title
        for name, (title, _) in DIAGNOSTICS.items()
        if any(of.get(name) is not None for of in found.values())
    }


def diagnostic(of: Mapping[str, Any], name: str) -> str:
    """One of `DIAGNOSTICS` in words; a dash where it is not known."""
    value, digits = of.get(name), DIAGNOSTICS[name][1]
    if value is None or digits is None:
        return percent(value)
    return f"{value:.{digits}f}"


def _gains(made: Mapping[str, Any]) -> dict[str, tuple[float, float, tuple[float, float] | None]]:
    """Of each arm that was looked into: label fidelity, gain over the baseline, its interval."""
    found = {}
    for name, means in diagnosed(made).items():
        for of in made["comparisons"]:
            against = of["arm"] == name and of["baseline"] == made["baseline"]
            if against and means.get("label_fidelity") is not None:
                ends = of["interval"] and (of["interval"]["low"], of["interval"]["high"])
                found[name] = (means["label_fidelity"], of["difference"], ends)
    return found


def _tables(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Comparisons by what the arms are compared with."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for comparison in comparisons:
        found.setdefault(comparison["baseline"], []).append(comparison)
    return found


def seconds_given(equal: Mapping[str, Any]) -> str:
    """After how many seconds arms are cut off.

    >>> seconds_given({"seconds": {"0": 60.0, "1": 80.4}, "given": False})
    'what the cheapest arm that generates takes with the same seed, 60 to 80 seconds'
    """
    least, most = (f"{end(equal['seconds'].values()):.0f}" for end in (min, max))
    if equal["given"]:
        return f"{most} seconds"
    ends = most if least == most else f"{least} to {most}"
    return f"what the cheapest arm that generates takes with the same seed, {ends} seconds"


def medians(made: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`cost` of each arm; of a comparison of before too, whose file has but means."""
    return {
        name: cost({seed: of[name] for seed, of in made["runs"].items() if name in of})
        for name in made["arms"]
    }


def p_of(comparison: Mapping[str, Any]) -> str:
    """After Holm's correction; a dash where there is none.

    >>> p_of({"adjusted_p": 0.00123}), p_of({"adjusted_p": None}) == NONE
    ('0.0012', True)
    """
    p = comparison["adjusted_p"]
    return NONE if p is None else f"{p:.2g}"


def verdict_of(comparison: Mapping[str, Any]) -> str:
    """With the numbers of images where one arm has clearly fewer.

    >>> few = {"arm": "guided", "baseline": "unguided", "images": {"guided": 10, "unguided": 576}}
    >>> verdict_of({**few, "verdict": "helps"})
    'helps, with 10 images against 576'
    """
    images = comparison.get("images")
    if not images:
        return comparison["verdict"]
    ours, theirs = (images[comparison[side]] for side in ("arm", "baseline"))
    return f"{comparison['verdict']}, with {ours} images against {theirs}"


def between(interval: Mapping[str, float] | None) -> str:
    """An interval of a difference, in points; a dash without one.

    >>> between({"low": -0.01, "high": 0.031}).replace(NBSP, " ")
    '−1.0 to +3.1'
    """
    if interval is None:
        return NONE
    low, high = (points(interval[end]).removesuffix(f"{NBSP}points") for end in ("low", "high"))
    return f"{low} to {high}"


def amount(of: Mapping[str, Any] | None, digits: int = 0, beyond: str = "not reached") -> str:
    """How much it takes, with its interval; ``beyond`` where all measured is too little.

    >>> amount({"value": 40.2, "low": 31.0, "high": None})
    '40 (31 to more than measured)'
    >>> amount({"value": 192.0, "low": 0.0, "high": 192.0, "at_most": True})
    'at most 192 (0 to 192)'
    >>> amount({"value": None, "low": 450.0, "high": None})
    'not reached (450 to more than measured)'
    """
    if of is None:
        return NONE
    if of["value"] is None:
        told = beyond
    else:
        bound = "at most " if of.get("at_most") else "at least " if of.get("at_least") else ""
        told = bound + f"{of['value']:.{digits}f}"
    if of["low"] is None:
        return told
    high = "more than measured" if of["high"] is None else f"{of['high']:.{digits}f}"
    return f"{told} ({of['low']:.{digits}f} to {high})"
