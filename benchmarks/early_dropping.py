"""What early dropping (``loop.drop_at``) saves, and how many good images it costs.

    python benchmarks/early_dropping.py --images 128
    python benchmarks/early_dropping.py --recipes eurosat --set data.path=DIR

Unguided requests of a recipe are drawn to the end while its judge of labels looks at them
half-drawn and nothing is let go; what the judge says of the finished images tells which of those
it would have dropped were bad. Shares have Wilson intervals of 95 %. "calls" are of the denoiser, 1
being those of undropped images; "a good image" is the calls for each that is kept, over the same
without dropping.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from full_cost import pieces

from activegen.loop.generating import Generator
from activegen.loop.judging import LabelCheck, Opinion
from activegen.loop.proposing import PLAIN, Origin
from activegen.loop.settings import ArmSettings
from activegen.recipes.environment import environment
from activegen.recipes.loading import load
from activegen.recipes.run import Run
from activegen.records import Sample
from activegen.store import from_png

SETS = {
    "demo": ["judge.network=small"],  # its own judge checks no labels
    "demo_segmentation": [],
    "eurosat": [],
}


@dataclass
class Noting:
    """A check that believes everything and notes what another one says."""

    inner: LabelCheck
    refused: list[bool] = field(default_factory=list)

    def __call__(self, image: Any, sample: Any) -> Opinion:
        self.refused.append(bool(self.inner(image, sample).reason))
        return Opinion("", {})


def measure(recipe: str, sets: Sequence[str], count: int, ats: Sequence[float]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(load(recipe, [*SETS[recipe], *sets]), Path(folder) / "run")
        run.check()
        run.prepare()
        check = run.judge(ArmSettings("plain")).check
        if check is None:
            raise SystemExit(f"{recipe} has no judge of labels")
        model, real = run.model(), run.data.train
        generator = Generator(run.task, model, run.recipe.sampling, {PLAIN: []}, real, None)
        rng = np.random.default_rng(0)
        plan = run.task.propose_plain(count, real, Origin(0, "measured", "0"), rng)[:count]
        early = {at: Noting(check) for at in ats}
        late = Noting(check)
        samples: list[Sample] = []
        for at, noting in early.items():
            drawing = replace(generator, preview=(at, noting))
            samples = [s for some in pieces(plan) for s in drawing((0, some))[1]]
            if len(samples) < len(plan):
                raise SystemExit("an image is not finite")
        for sample in samples:
            late(from_png(sample.image), sample)
    bad = np.array(late.refused)
    steps = run.recipe.sampling.num_steps
    rows = {at: counted(np.array(noting.refused), bad, at, steps) for at, noting in early.items()}
    return {"recipe": recipe, "images": count, "rejected": share(bad), "rows": rows}


def counted(dropped: np.ndarray, bad: np.ndarray, at: float, steps: int) -> dict[str, Any]:
    """Of a moment; it comes after the denoiser's call of the first step that is so far."""
    done = next(step for step in range(steps) if step / steps >= at) + 1
    calls, kept = 1 - float(dropped.mean()) * (1 - done / steps), int((~bad & ~dropped).sum())
    return {
        "dropped": share(dropped),
        "of the good, dropped": share(dropped[~bad]),
        "of the bad, dropped": share(dropped[bad]),
        "calls": calls,
        "a good image": calls * int((~bad).sum()) / kept if kept else float("inf"),
    }


def share(those: np.ndarray) -> tuple[float, float, float]:
    """Their share, and its Wilson interval of 95 %."""
    n, z = len(those), 1.96
    if n == 0:
        return float("nan"), 0.0, 1.0
    p = float(those.mean())
    middle, reach = p + z * z / (2 * n), z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5
    return p, (middle - reach) / (1 + z * z / n), (middle + reach) / (1 + z * z / n)


def table(made: dict[str, Any]) -> str:
    lines = [f"{made['recipe']}, {made['images']} images, rejected {_told(made['rejected'])}"]
    for at, row in made["rows"].items():
        told = [f"{key} {_told(value)}" for key, value in row.items()]
        lines.append(f"  at {at:g}: " + "; ".join(told))
    return "\n".join(lines)


def _told(value: float | tuple[float, float, float]) -> str:
    if isinstance(value, tuple):
        return "{:.1%} ({:.1%} to {:.1%})".format(*value)
    return f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", choices=SETS, default=["demo", "demo_segmentation"])
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--at", type=float, nargs="+", default=[0.3, 0.5, 0.7])
    parser.add_argument("--set", action="append", default=[], help="a setting of the recipe")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = []
    for recipe in given.recipes:
        found.append(measure(recipe, given.set, given.images, given.at))
        print(table(found[-1]), flush=True)
    if given.json:
        about = {"environment": environment(), "options": vars(given)}
        given.json.write_text(json.dumps(about | {"recipes": found}, indent=1, default=str))


if __name__ == "__main__":
    main()
