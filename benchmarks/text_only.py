"""A segmenter from text alone: does robust training help, do other words, do more images?

    python benchmarks/text_only.py --eurosat DIR --out work

For each seed the embedded generator draws mosaics of real texture for prompts, masks are read out
of its attention, a segmenter learns from them, and it is tested on mosaics of EuroSAT's *test* rows
with exact masks. Beside it real mosaics with exact masks: what there is to reach. The same steps
for all. Sizes above what one seed has drawn are of all seeds' images together, and only their
training differs by seed. What was made or trained before is kept in the folder; more seeds,
sizes and steps can be asked for later.

Yoshihashi et al. (2023), https://arxiv.org/abs/2309.01369.
"""

import argparse
import json
import math
import platform
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from activegen.diffusion.reliability import in_bytes, ranked
from activegen.proof.statistics import compare
from activegen.recipes import Run, load, parse
from activegen.recipes.annotating import ARM, FOLDER, annotate
from activegen.records import Sample, Verdict
from activegen.store import Store, from_png, png
from activegen.store.dataset import write_dataset
from activegen.store.files import open_folder

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
MAIN, OTHER = "three words of each class", "one word of each class"
KINDS = {
    MAIN: [],
    OTHER: PLAIN_WORDS,
}
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


def drawn(kind: str, seed: int, count: int, options: argparse.Namespace) -> Path:
    """The data set of this many images that were asked for."""
    folder = options.out / "drawn" / f"{kind.replace(' ', '-')}-{seed}-{count}"
    keys = [MOSAICS, f"seed={seed}", f"segmentation.text.masks={options.masks}"]
    made = annotate(load("annotate_scenes", [*keys, *KINDS[kind], *options.set]), folder, count)
    print(kind, f"seed {seed}", made, flush=True)
    return folder / FOLDER


def ranked_alone(dataset: Path) -> Path:
    """The same images and masks, and how sure a pixel is ranked within its image alone."""
    made, root = dataset.parent / "ranked alone", dataset.parent / "arms" / ARM / "store"
    if not made.exists():
        store = Store(str(root))
        partial = made.with_suffix(".partial")
        write_dataset(open_folder(str(partial)), map(_alone, store.accepted()), store.classes)
        partial.rename(made)
    return made


def _alone(pair: tuple[Sample, Verdict]) -> tuple[Sample, Verdict]:
    sample, verdict = pair
    mask, sure = from_png(sample.mask)[:1], from_png(sample.reliability)[:1]
    ranks = in_bytes(ranked(mask, sure.float()))
    return replace(sample, reliability=png(ranks)), verdict


def together(folders: list[Path], folder: Path) -> Path:
    """One data set of several."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in folders:
        for file in one.glob("*.parquet"):
            joined = folder / f"{file.stem}-{one.parent.name}.parquet"
            if not joined.exists():
                joined.symlink_to(file.resolve())
    return folder


def cases(options: argparse.Namespace) -> Iterator[tuple[str, str, dict[int, dict[str, Any]]]]:
    """What is compared: a name, a way of training, and the training images of each seed."""

    def of(folder: Path, size: int) -> dict[str, Any]:
        return {"layout": "parquet", "path": str(folder), "split": "train", "count": size}

    seeds, few = options.seeds, min(options.sizes)
    more = math.ceil(few * 1.06)  # some are dropped
    others = {seed: of(drawn(OTHER, seed, more, options), few) for seed in seeds}
    for way in options.ways[:2]:
        yield f"{way}, {OTHER}, {few}", way, others
    own = {seed: drawn(MAIN, seed, options.drawn, options) for seed in seeds}
    every = options.out / "drawn" / f"together-{'-'.join(map(str, seeds))}-{options.drawn}"
    every = together(list(own.values()), every)
    for size in options.sizes:
        apart = size <= options.drawn
        name = str(size) if apart else f"{size} of {len(seeds)} seeds"
        images = {seed: of(own[seed] if apart else every, size) for seed in seeds}
        for way in options.ways:
            yield f"{way}, {name}", way, images
        if apart and "ignore" in options.ways:
            alone = {seed: of(ranked_alone(own[seed]), size) for seed in seeds}
            yield f"ignore, ranked alone, {name}", "ignore", alone
        real = {"split": "train", "count": None, "options": {"count": size, "tail": True}}
        yield f"exact masks of real mosaics, {name}", "cross-entropy", dict.fromkeys(seeds, real)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--eurosat", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 2000, 8000])
    parser.add_argument("--drawn", type=int, default=2700, help="images of each seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", default=["cross-entropy", "ignore", "co-training"])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--masks", default="default", help="a preset, or settings as YAML")
    parser.add_argument("--set", nargs="*", default=[], help="more keys of the annotation")
    parser.add_argument("--only-draw", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found: dict[str, dict[int, float]] = {}
    for name, way, images in cases(options):
        if options.only_draw:
            continue
        folder = (
            options.out / f"trained-{options.steps}" / name.replace(", ", "-").replace(" ", "-")
        )
        found[name] = {seed: trained(of, way, seed, options, folder) for seed, of in images.items()}
        values = " ".join(f"{value:.3f}" for value in found[name].values())
        print(f"{name:45} {values}", flush=True)
    if options.only_draw:
        return
    pairs = [(name, base) for name in found if (base := compared_with(name, found))]
    told = [compare(found, *pair).words for pair in pairs]
    print("\n".join(told))
    about = {"machine": platform.processor(), "torch": torch.__version__, "options": vars(options)}
    rows = {"about": about, "miou": found, "compared": told}
    (options.out / "text_only.json").write_text(json.dumps(rows, indent=1, default=str))


def compared_with(name: str, all_names: Collection[str]) -> str:
    """The case that another one is to be better than; "" for none."""
    way, *_, size = name.split(", ")
    smaller = [of for of in all_names if of.startswith("cross-entropy, ") and of.count(", ") == 1]
    base = f"{way}, {size}"
    if base == name or base not in all_names:
        base = f"cross-entropy, {size}"
    if base == name:
        at = smaller.index(name)
        base = smaller[at - 1] if at else ""
    return base if base in all_names else ""


if __name__ == "__main__":
    main()
