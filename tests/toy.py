"""The recipe that tests of whole runs start from, with a few rendered tiles and a toy model."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

UNSHARED = ("seconds", "cost", "resumed")


def settings(model: Path, **parts: Any) -> dict[str, Any]:
    """Data, model and sampling, and what a test adds to them or has instead."""
    return {
        "name": "toy",
        "data": {
            "layout": "world",
            "size": 16,
            "options": {"size": 16},
            "train": {"per_class": 2, "options": {"count": 4}},
            "test": {"limit": 2, "options": {"count": 3}},
        },
        "model": {"path": str(model), "decoder": "linear", "device": "cpu"},
        "sampling": {"num_steps": 2, "cfg_scale": 2.0, "scheduler": "ddim"},
        "judge": {"members": 1, "steps": 2, "min_probability": 0.0},
        **parts,
    }


def short(model: Path, **arms: Any) -> dict[str, Any]:
    """The same with two rounds, the first of which generates two images."""
    return settings(
        model,
        guidance={"guided": ["reference_pull"], "adversarial": ["reference_pull"]},
        training={"steps": 4, "batch_size": 8, "augmentation": "flips"},
        proposal={"budget": 2},
        loop={"rounds": 2, "batch": 4},
        **({"arms": arms} if arms else {}),
    )


def unclocked(summaries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of rounds, without what no two processes share: seconds, and where another one stopped."""
    return [{k: v for k, v in of.items() if k not in UNSHARED} for of in summaries]
