"""From facts to the page: words, numbers and cards; the layout is in ``report.html.jinja``."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from activegen.loop.doubts import WHY
from activegen.loop.judging import HOPELESS, OUTSCORED, REASONS
from activegen.loop.metering import KINDS, PLACES
from activegen.report.cards import album_of, legend
from activegen.report.facts import NOT_JUDGED, Arm, Facts, read
from activegen.report.measures import MEASURES, MIOU
from activegen.report.pictures import LEFT_OUT
from activegen.report.plots import (
    PLACE_COLOURS,
    accepted_bars,
    cost_bars,
    figure_curves,
    styles,
)
from activegen.report.real import Recorded, Reference
from activegen.report.words import duration, flops, percent, points

RANKED = {"all": "all accepted images", "image": "its image"}  # reliability, among what
PHASES = ("train", "evaluate", "mine", "generate", "wait", "judge")


def write(run: Path, reference: Reference | None = None) -> Path:
    """Write RUN/report.html about what is there, finished or not, and return its path.

    Args:
        run: folder of a run.
        reference: the real image of an id, or None for an empty frame. By default the images are
            read where the recipe says that they are.

    Raises:
        UserError: no run folder, or a file of it that is damaged.
    """
    facts = read(run)
    recorded = Recorded(facts.recipe)
    content = _content(facts, reference or recorded)
    if recorded.problem:
        content["notices"].append(f"Real images cannot be shown: {recorded.problem}")
    page = environment().get_template("report.html.jinja").render(content)
    path, aside = run / "report.html", run / ".tmp-report.html"
    aside.write_text(page, encoding="utf-8")
    os.replace(aside, path)
    return path


def environment() -> jinja2.Environment:
    """Where templates are; names are escaped, and what is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "points": points, "duration": duration}
    environment.filters["flops"] = flops
    return environment


def _content(facts: Facts, reference: Reference) -> dict[str, Any]:
    arms = [arm for arm in facts.arms if arm.started]
    looks = styles(facts.arms, facts.baseline)
    drawing = [arm for arm in arms if arm.proposed]
    reasons = _reasons(drawing)
    albums = [
        album_of(arm, reference, ranked_among(facts, arm) == "all")
        for arm in drawing
        if arm.store is not None
    ]
    return {
        "facts": facts,
        "measure": facts.measure,
        "notices": list(facts.notices),
        "name": str(facts.recipe.get("name", "run")),
        "seed": str(facts.recipe.get("seed", "not recorded")),
        "arms": arms,
        "drawing": drawing,
        "looks": looks,
        "verdict": _verdict(facts, arms),
        "beside": [
            (name, title)
            for name, title in facts.measure.beside.items()
            if any(arm.value(name) is not None for arm in arms)
        ],
        "figure_curves": figure_curves(arms, looks, facts.measure),
        "accepted_bars": accepted_bars(arms, looks),
        "cost_bars": cost_bars(arms, looks),
        "places": [place for place in PLACES if any(place in arm.cost.seconds for arm in arms)],
        "place_names": PLACES,
        "place_colours": PLACE_COLOURS,
        "kinds": KINDS,
        "phases": [phase for phase in PHASES if any(phase in arm.seconds for arm in arms)],
        "reasons": reasons,
        "absent": [reason for reason in _possible(facts) if reason not in reasons],
        "explained": REASONS,
        "why_doubted": WHY,
        "left_out": LEFT_OUT,
        "classes": _class_rows(facts, arms),
        "albums": albums,
        "legend": legend(albums),
        "ranked_among": " or ".join(dict.fromkeys(RANKED[ranked_among(facts, a)] for a in drawing)),
        "captions": {f.caption for album in albums for card in album.cards for f in card.frames},
        "environment": flat(facts.environment),
    }


def ranked_among(facts: Facts, arm: Arm) -> str:
    """What reliability is a rank among."""
    own = (facts.recipe.get("arms") or {}).get(arm.name) or {}
    changes = own.get("changes") or {}
    text = (facts.recipe.get("segmentation") or {}).get("text") or {}
    text = changes.get("segmentation.text", text)
    return changes.get("segmentation.text.ranked", text.get("ranked", "image"))


def _verdict(facts: Facts, arms: Sequence[Arm]) -> str:
    """The result in words, with what it does not show."""
    base = facts.baseline
    known = sorted((arm for arm in arms if arm.reached is not None), key=lambda a: a is not base)
    if not known:
        return "Nothing has been evaluated yet."
    told = []
    for arm in known:
        difference = facts.difference(arm)
        text = facts.measure.told.format(arm.name, percent(arm.reached))
        if difference is not None and base is not None:
            text += f" ({points(difference)} against {base.name})"
        told.append(text)
    count = "" if facts.test_images is None else f"{facts.test_images:,} "
    words = facts.measure.lead.format(images=count, arms="; ".join(told))
    if not all(arm.finished for arm in facts.arms):
        words += " These figures are not final: the run is unfinished."
    if base is None or base.reached is None:
        words += " No arm trains on real images alone, so nothing says whether generating helped."
    if len({arm.steps for arm in known}) > 1:
        steps = ", ".join(f"{arm.name} {arm.steps}" for arm in known)
        words += f" The arms stand at different numbers of optimiser steps ({steps}): "
        words += "they cannot be compared yet."
    return words


def _reasons(arms: Sequence[Arm]) -> list[str]:
    """All that occurred: known ones in their order, then others, those not judged last."""
    found = {reason for arm in arms for reason in arm.rejected}
    known = [reason for reason in REASONS if reason in found]
    others = sorted(found - set(known) - {NOT_JUDGED})
    return known + others + ([NOT_JUDGED] if NOT_JUDGED in found else [])


def _possible(facts: Facts) -> list[str]:
    """The known reasons, without those that nothing in this run looks for."""
    never = {
        "unclear": facts.measure is not MEASURES[MIOU],
        HOPELESS: (facts.recipe.get("loop") or {}).get("drop_at") is None,
        OUTSCORED: all(arm.generates != "selected" for arm in facts.arms),
    }
    return [reason for reason in REASONS if not never.get(reason)]


@dataclass(frozen=True)
class Cell:
    """A class in an arm: its figure 0 to 1, images None where they are not known."""

    reached: float | None
    difference: float | None
    accepted: int | None
    proposed: int | None


def _class_rows(facts: Facts, arms: Sequence[Arm]) -> list[tuple[str, list[Cell]]]:
    """The classes that the baseline finds hardest first."""
    base = facts.baseline.per_class if facts.baseline else {}
    rows = []
    for name in facts.classes:
        cells = []
        for arm in arms:
            reached, other = arm.per_class.get(name), base.get(name)
            comparable = facts.difference(arm) is not None
            difference = None
            if comparable and reached is not None and other is not None:
                difference = reached - other
            drawn = arm.of_class(name, accepted=True), arm.of_class(name, accepted=False)
            cells.append(Cell(reached, difference, *drawn))
        rows.append((name, cells))
    return sorted(rows, key=lambda row: base.get(row[0], 2.0))


def flat(values: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested values as rows."""
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{above}{name} · ")
        else:
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((f"{above}{name}", text))
    return rows
