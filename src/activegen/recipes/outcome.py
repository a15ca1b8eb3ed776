"""What an arm came to."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

FIGURES = ("accuracy", "miou", "boundary_iou", "pixel_accuracy")  # of a round's summary


def figures(rounds: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """From the summaries of its rounds; nan becomes None."""
    last = rounds[-1]
    rejected: Counter[str] = Counter()
    for summary in rounds:
        rejected.update(summary["rejected"])
    per_class = dict(zip(classes, map(_number, last["per_class"]), strict=True))
    return {
        **{name: last[name] for name in FIGURES if name in last},
        "figure": last["figure"],
        "per_class": per_class,
        "worst_class": classes[last["worst_class"]],
        "ece": last["ece"],
        "images": sum(summary["accepted"] for summary in rounds),
        "proposed": sum(summary["proposed"] for summary in rounds),
        "rejected": dict(rejected),
        "steps": last["step"],
        "rounds": list(rounds),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
