"""What a run folder says, finished or not; nothing here is computed anew."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from activegen.loop.doubts import Doubted, doubted
from activegen.loop.judging import NOT_NEEDED
from activegen.loop.metering import Cost
from activegen.records import Request, UserError, Verdict, choose
from activegen.report.measures import ACCURACY, MEASURES, MIOU, Measure, named
from activegen.store import Store

BASELINE = "real_only"
NOT_JUDGED = "not judged yet"


@dataclass(frozen=True)
class Entry:
    """A request and what became of it; no verdict while its round is under way."""

    request: Request
    verdict: Verdict | None

    @property
    def outcome(self) -> str:
        """ "accepted", the reason of the rejection, or that there is no verdict yet."""
        if self.verdict is None:
            return NOT_JUDGED
        return "accepted" if self.verdict.accepted else self.verdict.reason


@dataclass(frozen=True)
class Arm:
    """What is known of one arm.

    Args:
        name: of the arm.
        finished: all its rounds are complete.
        generates: "none", "plain", "selected", "guided", or "" where the recipe does not say.
        classes: names in the order of their ids; empty without a store.
        rounds: summaries of the complete rounds.
        entries: all requests of the store; None without a store.
        result: its part of result.json; empty before the end of the run.
        store: to read pictures from.
    """

    name: str
    finished: bool
    generates: str
    classes: tuple[str, ...] = ()
    rounds: tuple[Mapping[str, Any], ...] = ()
    entries: tuple[Entry, ...] | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    store: Store | None = None

    @property
    def started(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.result) or self.entries is not None

    @cached_property
    def _evaluated(self) -> Mapping[str, Any]:
        return next((r for r in reversed(self.rounds) if named(r) in r), {})

    @property
    def figure(self) -> str | None:
        """Name of the number that arms are compared by; None before it was measured."""
        measured = self.result or self._evaluated
        return named(measured) if measured else None

    @property
    def reached(self) -> float | None:
        """That number, 0 to 1."""
        return None if self.figure is None else self.value(self.figure)

    def value(self, name: str) -> float | None:
        """A number of the result by its name, or of the last evaluation so far."""
        return _number(self.result.get(name, self._evaluated.get(name)))

    @property
    def steps(self) -> int | None:
        """Optimiser steps that ``reached`` belongs to."""
        return self.result.get("steps", self._evaluated.get("step"))

    @cached_property
    def per_class(self) -> dict[str, float]:
        """The figure of each class, where it has one."""
        found = self.result.get("per_class", self._evaluated.get("per_class", {}))
        if not isinstance(found, Mapping):
            found = dict(zip(self.classes, found, strict=False))
        numbers = {str(name): _number(value) for name, value in found.items()}
        return {name: value for name, value in numbers.items() if value is not None}

    @property
    def worst_class(self) -> str | None:
        """The class with the lowest one."""
        return min(self.per_class, key=self.per_class.__getitem__, default=None)

    @cached_property
    def outcomes(self) -> Counter[str]:
        """How many requests came to which end."""
        if self.entries is not None:
            return Counter(entry.outcome for entry in self.entries)
        rejected = self.result.get("rejected", {})
        return Counter({"accepted": self.result.get("images", 0), **rejected})

    @property
    def proposed(self) -> int:
        """Images asked for."""
        return self.outcomes.total()

    @property
    def accepted(self) -> int:
        """Images to train on."""
        return self.outcomes["accepted"]

    @property
    def rejected(self) -> dict[str, int]:
        """All that was not accepted, by reason."""
        return {name: n for name, n in self.outcomes.items() if name != "accepted" and n}

    @cached_property
    def doubted(self) -> list[Doubted]:
        """Wordings whose labels were mostly not believed; none without a store."""
        judged = ((e.request, e.verdict) for e in self.entries or () if e.verdict is not None)
        return doubted(judged)

    def of_class(self, name: str, accepted: bool) -> int | None:
        """Images of a class that were asked for, or accepted; None without a store."""
        if self.entries is None:
            return None
        mine = [e for e in self.entries if self.classes[e.request.target] == name]
        return sum(e.outcome == "accepted" for e in mine) if accepted else len(mine)

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Of each phase, over all complete rounds."""
        total: Counter[str] = Counter()
        for summary in self.rounds:
            total.update(summary.get("seconds", {}))
        return dict(total)

    @cached_property
    def cost(self) -> Cost:
        """Of all complete rounds; empty where they were made by an earlier version."""
        return Cost.of(self.rounds)


@dataclass(frozen=True)
class Facts:
    """A run folder.

    Args:
        recipe: as it was run.
        recipe_text: the same, as it is written.
        environment: versions and machine; empty when not recorded.
        arms: in the order of the recipe.
        seconds: of the whole run; None before its end.
        test_images: that figures are of; None before the end.
        notices: what is missing or could not be read.
    """

    recipe: Mapping[str, Any]
    recipe_text: str
    environment: Mapping[str, Any]
    arms: tuple[Arm, ...]
    seconds: float | None
    test_images: int | None
    notices: tuple[str, ...]

    @property
    def baseline(self) -> Arm | None:
        """The arm that all others are compared with: the one that trains on real images alone."""
        named = [arm for arm in self.arms if arm.name == BASELINE]
        return next(iter(named + [arm for arm in self.arms if arm.generates == "none"]), None)

    @property
    def measure(self) -> Measure:
        """What arms are compared by.

        Raises:
            UnknownWord: the run was made by another version.
        """
        measured = [arm.figure for arm in self.arms if arm.figure is not None]
        planned = MIOU if self.recipe.get("segmentation") else ACCURACY
        return choose(MEASURES, next(iter(measured), planned), "figure")

    @property
    def classes(self) -> list[str]:
        """All class names, in the order of their ids."""
        names = [name for arm in self.arms for name in (*arm.classes, *arm.per_class)]
        return list(dict.fromkeys(names))

    def difference(self, arm: Arm) -> float | None:
        """The figure against the baseline; None unless both stand at the same optimiser step."""
        base = self.baseline
        if base is None or arm is base or base.steps != arm.steps:
            return None
        if base.reached is None or arm.reached is None:
            return None
        return arm.reached - base.reached


def read(run: Path) -> Facts:
    """All that the run folder says.

    Raises:
        UserError: no run folder, or a file of it that is damaged.
    """
    path = run / "recipe.yaml"
    if not path.is_file():
        raise UserError(f"'{run}' is no run folder (recipe.yaml is missing); give a run's folder")
    text = path.read_text(encoding="utf-8")
    recipe = _parsed(text, path)
    result, environment = (_json(run / name) for name in ("result.json", "environment.json"))
    notices = []
    if not result:
        notices.append("The run has not finished: there is no result.json yet.")
    if not environment:
        notices.append("environment.json is missing: versions and machine are not known.")
    stores = run / "arms"
    folders = {f.name: f for f in sorted(stores.iterdir())} if stores.is_dir() else {}
    settings, results = recipe.get("arms") or {}, result.get("arms") or {}
    names = [str(name) for name in dict.fromkeys([*settings, *results, *folders])]
    rounds = (recipe.get("loop") or {}).get("rounds")
    arms = []
    for name in names:
        generates = (settings.get(name) or {}).get("generate", "")
        arm = _arm(name, generates, folders.get(name), results.get(name) or {}, rounds, notices)
        if not arm.started:
            notices.append(f"Arm {name} has not started.")
        elif not arm.finished:
            of = f" of {rounds}" if rounds else ""
            notices.append(f"Arm {name} is unfinished: {len(arm.rounds)}{of} rounds are complete.")
        arms.append(arm)
    tested = _number(result.get("test_images"))
    return Facts(
        recipe=recipe,
        recipe_text=text,
        environment=environment,
        arms=tuple(arms),
        seconds=_number(result.get("seconds")),
        test_images=None if tested is None else int(tested),
        notices=tuple(notices),
    )


def _arm(
    name: str,
    generates: str,
    folder: Path | None,
    result: Mapping[str, Any],
    rounds: int | None,
    notices: list[str],
) -> Arm:
    summaries = tuple(result.get("rounds") or ())
    bare = Arm(name, bool(result), generates, rounds=summaries, result=result)
    if folder is None or not (folder / "store" / "store.json").is_file():
        if result:
            notices.append(f"Arm {name} has no store here: its pictures cannot be shown.")
        return bare
    try:
        store = Store(str(folder / "store"))
        stored = [store.round(k) for k in store.rounds()]
        entries = [entry for k in store.rounds() for entry in _entries(store, k)]
        found = tuple(s for s in (round.summary() for round in stored) if s is not None)
    except UserError as error:
        notices.append(f"The store of arm {name} cannot be read: {error}")
        return bare
    finished = bool(result) or (rounds is not None and len(found) >= rounds)
    summaries = summaries or found
    return Arm(name, finished, generates, store.classes, summaries, tuple(entries), result, store)


def _entries(store: Store, number: int) -> list[Entry]:
    entries = [Entry(*pair) for pair in store.round(number).judged()]
    return [e for e in entries if e.verdict is None or e.verdict.reason != NOT_NEEDED]


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML ({error}); restore it") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a recipe; restore it")
    return value


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; empty when there is no file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); restore it or delete it") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; restore it or delete it")
    return value


def _number(value: Any) -> float | None:
    """The number, or None for what is missing or nan."""
    if not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)
