"""A segmenter from text alone: does robust training help, do other words, do more images?

    python benchmarks/text_only.py --eurosat DIR --sizes 500 2000 --seeds 0 1 2 --out work

The embedded generator draws mosaics of real texture for prompts and masks are read out of its
attention; a segmenter learns from them and is tested on mosaics of EuroSAT's *test* rows with exact
masks. Beside them real mosaics with exact masks: what there is to reach. The same steps for all.
What was made or trained before is kept in the folder.

Yoshihashi et al. (2023), https://arxiv.org/abs/2309.01369.
"""

import argparse
import json
import platform
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from activegen.proof.statistics import compare
from activegen.recipes import Run, load, parse
from activegen.recipes.annotating import FOLDER, annotate

MOSAICS = "prompts.templates=['a satellite mosaic of {word}']"
PLAIN_WORDS = [
    f"prompts.words.{name}=['{word}']"
    for name, word in {
        "field": "a field",
        "meadow": "a meadow",
        "forest": "a forest",
        "water": "water",
        "road": "a road",
        "houses": "houses",
        "industry": "industry",
    }.items()
]
WAYS: dict[str, dict[str, Any]] = {
    "cross-entropy": {},
    "weight": {"training": {"unreliable": "weight"}},
    "ignore": {"training": {"unreliable": "ignore"}},
    "teacher": {"training": {"unreliable": "teacher"}},
    "co-training": {"learner": {"co_training": {}}},
}
TRAINING = {
    "batch_size": 32,
    "optimiser": "adamw",
    "learning_rate": 0.002,
    "warmup_steps": 20,
    "ema_decay": 0.99,
    "augmentation": "land_cover",
    "amp": "auto",
}


def trained(train: dict[str, Any], way: str, seed: int, options: Any, folder: Path) -> float:
    """Mean IoU on the test mosaics."""
    more = WAYS[way]
    test = {"split": "test", "options": {"count": options.test}}
    mosaics = {"layout": "mosaics", "path": str(options.eurosat)}
    recipe = parse(
        {
            "name": "text_only",
            "seed": seed,
            "data": {**mosaics, "train": train, "test": test},
            "segmentation": {"judge": {"network": ""}},
            "learner": {"network": "small"} | more.get("learner", {}),
            "training": {"steps": options.steps} | TRAINING | more.get("training", {}),
            "loop": {"rounds": 1},
            "arms": {"trained": {"generate": "none"}},
        }
    )
    return Run(recipe, folder / f"seed-{seed}").carry_out()["arms"]["trained"]["miou"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eurosat", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[500])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--masks", default="default", help="a preset, or settings as YAML")
    parser.add_argument("--set", nargs="*", default=[], help="more keys of the annotation")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    prompts = {"plain words": PLAIN_WORDS, "other words": []}
    found: dict[str, dict[int, float]] = defaultdict(dict)
    cases: list[tuple[str, str, dict[str, Any]]] = []
    for size in options.sizes:
        for words, overrides in prompts.items():
            folder = options.out / f"{words.replace(' ', '-')}-{size}"
            masks = f"segmentation.text.masks={options.masks}"
            keys = [MOSAICS, masks, *overrides, *options.set]
            made = annotate(load("annotate_scenes", keys), folder, size)
            print(words, size, made, flush=True)
            data = {"layout": "parquet", "path": str(folder / FOLDER), "split": "train"}
            ways = options.ways if words == "other words" else ["cross-entropy"]
            cases += [(f"{way}, {words}, {size}", way, data) for way in ways]
        real = {"split": "train", "count": None, "options": {"count": size, "tail": True}}
        cases.append((f"real mosaics with exact masks, {size}", "cross-entropy", real))
    for name, way, data in cases:
        for seed in options.seeds:
            folder = options.out / "trained" / name.replace(", ", "-").replace(" ", "-")
            found[name][seed] = trained(data, way, seed, options, folder)
        values = " ".join(f"{value:.3f}" for value in found[name].values())
        print(f"{name:45} {values}", flush=True)
    base = f"cross-entropy, other words, {options.sizes[0]}"
    compared = [compare(found, name, base) for name in found if name != base]
    for one in compared:
        print(one.words)
    about = {"machine": platform.processor(), "torch": torch.__version__, "options": vars(options)}
    rows = {"about": about, "miou": found, "compared": [one.words for one in compared]}
    (options.out / "text_only.json").write_text(json.dumps(rows, indent=1, default=str))


if __name__ == "__main__":
    main()
