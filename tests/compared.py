"""A comparison whose figures are known, as ``comparison.json`` has it; nothing is trained."""

import json
from pathlib import Path
from typing import Any

from activegen.recipes import Recipe, parse
from activegen.recipes.comparing import FILE
from activegen.recipes.verdicts import stated

CLASSES = ("forest", "river <b>&")
ARMS = {
    "real_only": {"generate": "none"},
    "unguided": {"generate": "plain", "judge": False},
    "guided": {"generate": "guided", "judge": False},
    "more_real": {"generate": "none", "more_real": 10},
}
WOBBLE = (0.0, 0.004, -0.004)  # of each seed
AFTER = {  # figures of rounds whose learners had 0, 100, 200, 300 and 400 images
    "real_only": (0.50, 0.50, 0.50, 0.50, 0.50),
    "unguided": (0.50, 0.52, 0.54, 0.56, 0.58),
    "guided": (0.50, 0.54, 0.58, 0.62, 0.66),
    "more_real": (0.60, 0.60, 0.60, 0.60, 0.60),
}
OWN = (0.001, -0.002, 0.001)  # of each seed in arms that generate


def recipe(**changes: Any) -> Recipe:
    return parse({"name": "known", "data": {"layout": "world"}, "arms": ARMS, **changes})


def result(arm: str, seed: int) -> dict[str, Any]:
    images = arm in ("unguided", "guided")
    rounds = []
    for number, figure in enumerate(AFTER[arm]):
        value = figure + WOBBLE[seed] + (OWN[seed] if images and number else 0)
        drawn = 100 if images and number < 4 else 0
        rounds.append(
            {
                "round": number,
                "step": 10 * (number + 1),
                "real": 40 if arm == "more_real" else 20,
                "figure": "accuracy",
                "accuracy": value,
                "proposed": drawn,
                "accepted": drawn,
                "seconds": {"train": 2.0, **({"generate": 50.0} if drawn else {})},
            }
        )
    last = rounds[-1]["accuracy"]
    return {
        "accuracy": last,
        "figure": "accuracy",
        "per_class": {CLASSES[0]: last + 0.1, CLASSES[1]: last - 0.1},
        "worst_class": CLASSES[1],
        "ece": 0.05,
        "images": 400 if images else 0,
        "proposed": 400 if images else 0,
        "rejected": {},
        "steps": 50,
        "rounds": rounds,
    }


def results(seeds: int = 3) -> dict[int, dict[str, Any]]:
    return {seed: {arm: result(arm, seed) for arm in ARMS} for seed in range(seeds)}


def looked_into(made: dict[str, Any]) -> None:
    """Puts diagnostics in: of images whose labels are right the more often, the more they help."""
    own = {"label_fidelity": None, "per_class": dict.fromkeys(CLASSES, 0.9), "images": 400}
    own |= {"entropy": 0.25, "learner_entropy": 0.75, "kid": 0.0123, "nearest": None}
    for name, share in (("unguided", 0.81), ("guided", 0.92)):
        means = {**own, "label_fidelity": share}
        made["arms"][name]["diagnostics"] = {"means": means, "seeds": {"0": means}}
    made["held_out"] = {
        "network": "timm:other",
        "images": 4000,
        "own": False,
        "figure": "accuracy",
        "accuracy": 0.97,
        "per_class": dict.fromkeys(CLASSES, 0.96),
        "entropy": 0.05,
        "diversity": 0.5,
    }


def written(folder: Path, diagnosed: bool = True) -> dict[str, Any]:
    """``comparison.json`` in the folder; what it holds."""
    known, runs = recipe(), results()
    fact = {
        "steps": 50,
        "test_set": "ab" * 8,
        "test_images": 200,
        "real_images": 20,
        "synthetic_images": 400,
        "nearest_to_test": 3.2,
        "judge_images": 0,
        "sampling": {},
        "generator": "cd" * 8,
    }
    made = {
        "recipe": known.name,
        "fingerprint": known.fingerprint,
        "settings": known.plain(),
        "seeds": list(runs),
        **stated(known, runs),
        "facts": {"0": dict.fromkeys(ARMS, fact) | {"more_real": fact | {"real_images": 40}}},
        "runs": runs,
        "seconds": 61.0,
        "command": "activegen compare known --seeds 3",
        "environment": {"versions": {"torch": "9.8.7"}, "cpus": 2, "gpu": None, "platform": "x"},
    }
    for of in made["arms"].values():
        of["cost"]["peak_memory"] = 3 * 2**20
    if diagnosed:
        looked_into(made)
    text = json.dumps(made)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(text)
    return json.loads(text)
