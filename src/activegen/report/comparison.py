"""A page about a comparison; the layout is in ``comparison.html.jinja``, facts in its JSON file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from activegen.recipes.comparing import FILE
from activegen.records import UserError, choose
from activegen.report.measures import MEASURES
from activegen.report.page import environment, flat
from activegen.report.plots import interval_curves, named_styles
from activegen.report.words import NBSP, NONE, points
from activegen.store.files import parse_json

VERDICTS = {"helps": "yes", "hurts": "no"}  # how a row looks


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
    path, aside = folder / "report.html", folder / ".tmp-report.html"
    aside.write_text(page, encoding="utf-8")
    os.replace(aside, path)
    return path


def _content(made: Mapping[str, Any]) -> dict[str, Any]:
    arms, measure = made["arms"], choose(MEASURES, made["figure"], "figure")
    looks = named_styles(list(arms), made["baseline"] if made["baseline"] in arms else None)

    def curves(of: str, below: str) -> str | None:
        found = {name: arm["curves"][of] for name, arm in arms.items()}
        return interval_curves(found, looks, f"{measure.title} on real test images", below)

    first = next(iter(made["facts"].values()))
    return {
        "made": made,
        "arms": arms,
        "looks": looks,
        "measure": measure,
        "verdicts": VERDICTS,
        "tables": _tables(made),
        "by_images": curves("images", "synthetic images learnt from"),
        "by_seconds": curves("seconds", "seconds, until a learner was trained"),
        "classes": list(next(iter(arms.values()))["per_class"]),
        "facts": first,
        "phases": list(dict.fromkeys(p for arm in arms.values() for p in arm["cost"]["phases"])),
        "between": between,
        "amount": amount,
        "recipe": yaml.safe_dump(made["settings"], sort_keys=False, allow_unicode=True),
        "environment": flat(made["environment"]),
        "compact": lambda value: json.dumps(value, ensure_ascii=False),
    }


def _tables(made: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Comparisons by what the arms are compared with."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for comparison in made["comparisons"]:
        found.setdefault(comparison["baseline"], []).append(comparison)
    return found


def between(interval: Mapping[str, float] | None) -> str:
    """An interval of a difference, in points; a dash without one.

    >>> between({"low": -0.01, "high": 0.031}).replace(NBSP, " ")
    '−1.0 to +3.1'
    """
    if interval is None:
        return NONE
    low, high = (points(interval[end]).removesuffix(f"{NBSP}points") for end in ("low", "high"))
    return f"{low} to {high}"


def amount(of: Mapping[str, float | None] | None, digits: int = 0) -> str:
    """How much it takes, with its interval; "not reached" where all was not enough.

    >>> amount({"value": 40.2, "low": 31.0, "high": None})
    '40 (31 to more than measured)'
    """
    if of is None:
        return NONE
    if of["value"] is None:
        return "not reached"
    told = f"{of['value']:.{digits}f}"
    if of["low"] is None:
        return told
    high = "more than measured" if of["high"] is None else f"{of['high']:.{digits}f}"
    return f"{told} ({of['low']:.{digits}f} to {high})"
