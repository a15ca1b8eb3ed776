"""From facts to the page: words, numbers and cards; the layout is in ``report.html.jinja``."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jaxtyping import UInt8
from torch import Tensor

from activegen.loop.judging import REASONS
from activegen.records import Request, Sample
from activegen.report.choosing import stratified
from activegen.report.facts import NOT_JUDGED, Arm, Entry, Facts, read
from activegen.report.pictures import Picture, overlay, picture
from activegen.report.plots import accepted_bars, accuracy_curves, styles
from activegen.store import from_png

SHOWN = 48  # samples of each arm
NO_PICTURE = "not finite"  # the one reason that leaves nothing to show
PHASES = ("train", "evaluate", "mine", "generate", "judge")
NBSP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"

Reference = Callable[[str], UInt8[Tensor, "3 h w"] | None]


def _no_reference(id: str) -> UInt8[Tensor, "3 h w"] | None:
    return None


def write(run: Path, reference: Reference = _no_reference) -> Path:
    """Write RUN/report.html about what is there, finished or not, and return its path.

    Args:
        run: folder of a run.
        reference: the real image of an id; None shows an empty frame.

    Raises:
        UserError: no run folder, or a file of it that is damaged.
    """
    facts = read(run)
    page = _environment().get_template("report.html.jinja").render(_content(facts, reference))
    path, aside = run / "report.html", run / ".tmp-report.html"
    aside.write_text(page, encoding="utf-8")
    os.replace(aside, path)
    return path


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "points": points, "duration": duration}
    return environment


def _content(facts: Facts, reference: Reference) -> dict[str, Any]:
    arms = [arm for arm in facts.arms if arm.started]
    looks = styles(facts.arms, facts.baseline)
    drawing = [arm for arm in arms if arm.proposed]
    reasons = _reasons(drawing)
    return {
        "facts": facts,
        "name": str(facts.recipe.get("name", "run")),
        "seed": str(facts.recipe.get("seed", "not recorded")),
        "arms": arms,
        "drawing": drawing,
        "looks": looks,
        "verdict": _verdict(facts, arms),
        "accuracy_curves": accuracy_curves(arms, looks),
        "accepted_bars": accepted_bars(arms, looks),
        "phases": [phase for phase in PHASES if any(phase in arm.seconds for arm in arms)],
        "reasons": reasons,
        "absent": [reason for reason in REASONS if reason not in reasons],
        "explained": REASONS,
        "classes": _class_rows(facts, arms),
        "albums": [_album(arm, reference) for arm in drawing if arm.store is not None],
        "environment": _flat(facts.environment),
    }


def percent(value: float | None) -> str:
    """With one decimal; a dash for None.

    >>> percent(0.8425).replace(NBSP, " ")
    '84.2 %'
    """
    return NONE if value is None else f"{100 * value:.1f}{NBSP}%"


def points(value: float | None) -> str:
    """A difference of shares in percentage points, with its sign; a dash for None.

    >>> points(0.0425).replace(NBSP, " ")
    '+4.2 points'
    """
    if value is None:
        return NONE
    rounded = round(100 * value, 1)
    sign = "+" if rounded > 0 else MINUS if rounded < 0 else "±"
    return f"{sign}{abs(rounded):.1f}{NBSP}points"


def duration(seconds: float | None) -> str:
    """In the largest fitting units; a dash for None.

    >>> duration(3725).replace(NBSP, " ")
    '1 h 02 min'
    """
    if seconds is None:
        return NONE
    if seconds < 59.95:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest:02d}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60:02d}{NBSP}min"


def _verdict(facts: Facts, arms: Sequence[Arm]) -> str:
    """The result in words, with what it does not show."""
    base = facts.baseline
    known = sorted((arm for arm in arms if arm.accuracy is not None), key=lambda a: a is not base)
    if not known:
        return "Nothing has been evaluated yet."
    told = []
    for arm in known:
        difference = facts.difference(arm)
        text = f"{arm.name} is right on {percent(arm.accuracy)}"
        if difference is not None and base is not None:
            text += f" ({points(difference)} against {base.name})"
        told.append(text)
    words = f"Of the real test images, {'; '.join(told)}."
    if not all(arm.finished for arm in facts.arms):
        words += " These figures are not final: the run is unfinished."
    if base is None or base.accuracy is None:
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


@dataclass(frozen=True)
class Cell:
    """A class in an arm: accuracies 0 to 1, images None where they are not known."""

    accuracy: float | None
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
            accuracy, other = arm.per_class.get(name), base.get(name)
            comparable = facts.difference(arm) is not None
            difference = None
            if comparable and accuracy is not None and other is not None:
                difference = accuracy - other
            drawn = arm.of_class(name, accepted=True), arm.of_class(name, accepted=False)
            cells.append(Cell(accuracy, difference, *drawn))
        rows.append((name, cells))
    return sorted(rows, key=lambda row: base.get(row[0], 2.0))


@dataclass(frozen=True)
class Card:
    """A sample as the page shows it; ``agrees`` is None where the learner said nothing."""

    request: Request
    target: str
    reference: Picture | None
    attention: Picture | None
    generated: Picture
    predicted: str
    agrees: bool | None
    numbers: list[tuple[str, str]]
    outcome: str
    checked: list[tuple[str, str]]
    prompt: tuple[str, str, str]


@dataclass(frozen=True)
class Album:
    """The shown samples of an arm, by way of steering."""

    arm: Arm
    ways: dict[str, list[Card]]

    @property
    def shown(self) -> int:
        """How many samples."""
        return sum(map(len, self.ways.values()))


def _album(arm: Arm, reference: Reference) -> Album:
    assert arm.store is not None and arm.entries is not None
    pictured = [entry for entry in arm.entries if entry.outcome != NO_PICTURE]
    judged = [entry for entry in pictured if entry.verdict is not None]
    waiting = {e.request.id for e in arm.entries if e.verdict is None}
    drawn = _samples(arm, waiting) if waiting else {}
    candidates = [e for e in arm.entries if e.request.id in drawn] + judged
    chosen = stratified(candidates, SHOWN)
    pictures = drawn | _samples(arm, {entry.request.id for entry in chosen})
    ways: dict[str, list[Card]] = {}
    order = sorted(chosen, key=lambda e: (e.outcome != "accepted", e.outcome, e.request.target))
    for entry in order:
        if sample := pictures.get(entry.request.id):
            card = _card(entry, sample, arm.classes, reference)
            ways.setdefault(entry.request.steering, []).append(card)
    return Album(arm, dict(sorted(ways.items(), key=lambda way: way[0] != "plain")))


def _samples(arm: Arm, ids: set[str]) -> dict[str, Sample]:
    """Those of the ids that were drawn; reads only their rounds, and keeps only them."""
    assert arm.store is not None and arm.entries is not None
    rounds = sorted({e.request.round for e in arm.entries if e.request.id in ids})
    samples = (sample for k in rounds for sample in arm.store.round(k).samples())
    return {sample.request.id: sample for sample in samples if sample.request.id in ids}


def _card(entry: Entry, sample: Sample, classes: Sequence[str], reference: Reference) -> Card:
    request, image = entry.request, from_png(sample.image)
    real = reference(request.reference) if request.reference else None
    predicted = sample.scores.get("predicted")
    id = None if predicted is None else int(predicted)
    known = id is not None and 0 <= id < len(classes)
    before, word, after = request.prompt.partition(request.word)
    return Card(
        request=request,
        target=classes[request.target],
        reference=None if real is None else picture(real),
        attention=overlay(image, from_png(sample.attention)) if sample.attention else None,
        generated=picture(image),
        predicted=classes[id] if known and id is not None else f"class {id}",
        agrees=None if id is None else id == request.target,
        numbers=_measured(sample.scores),
        outcome=entry.outcome,
        checked=_measured(entry.verdict.scores if entry.verdict else {}),
        prompt=(before, word, after),
    )


def _measured(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Names and numbers, those that the card does not show elsewhere."""
    units = {"entropy": "nats", "cross_entropy": "nats"}
    shown = []
    for name, value in scores.items():
        if name == "predicted" or (name == "skipped_gradients" and value == 0):
            continue
        if name == "label_probability":
            shown.append(("label probability", percent(value)))
        else:
            unit = NBSP + units[name] if name in units else ""
            shown.append(
                (
                    name.replace("_", " ").replace("cross entropy", "cross-entropy"),
                    f"{value:.3g}{unit}",
                )
            )
    return shown


def _flat(values: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested values as rows."""
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{above}{name} · ")
        else:
            text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((f"{above}{name}", text))
    return rows
