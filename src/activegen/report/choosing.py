"""Which samples to show: few, but of every kind."""

from collections import Counter
from collections.abc import Sequence

from activegen.report.facts import Entry


def stratified(entries: Sequence[Entry], count: int) -> list[Entry]:
    """At most ``count`` entries that cover outcomes, ways of steering, classes, rounds and masks.

    At least half are accepted ones, where there are so many. Each next entry is the one whose
    properties were seen least, so this is no random sample: rates in it are not rates of the run.
    """
    accepted = [entry for entry in entries if entry.outcome == "accepted"]
    others = [entry for entry in entries if entry.outcome != "accepted"]
    rejected = min(len(others), max(count // 2, count - len(accepted)))
    chosen = _spread(accepted, count - rejected) + _spread(others, rejected)
    order = {id(entry): index for index, entry in enumerate(entries)}
    return sorted(chosen, key=lambda entry: order[id(entry)])


def _spread(entries: Sequence[Entry], count: int) -> list[Entry]:
    seen: Counter[tuple[str, object]] = Counter()
    left, chosen = list(entries), []
    while left and len(chosen) < count:
        best = max(left, key=lambda entry: sum(1 / (1 + seen[kind]) for kind in _kinds(entry)))
        left.remove(best)
        chosen.append(best)
        seen.update(_kinds(best))
    return chosen


def _kinds(entry: Entry) -> list[tuple[str, object]]:
    request = entry.request
    return [
        ("outcome", entry.outcome),
        ("steering", request.steering),
        ("class", request.target),
        ("round", request.round),
        ("mask", request.mask),
    ]
