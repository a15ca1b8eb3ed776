"""A segmenter from text alone: does robust training help, do other words, do more images?

    python benchmarks/text_only.py --eurosat DIR --out work

For each seed the embedded generator draws mosaics of real texture for prompts, masks are read out
of its attention, a segmenter learns from them, and it is tested on mosaics of EuroSAT's *test* rows
with exact masks. Beside it real mosaics with exact masks, what there is to reach, and the drawn
images with the masks that a segmenter of real mosaics sees in them: what better masks alone would
give. The same steps for all. Sizes above what one seed has drawn are of all seeds' images together,
and only their training differs by seed. What was made or trained before is kept in the folder; more
seeds, sizes and steps can be asked for later.

Yoshihashi et al. (2023), https://arxiv.org/abs/2309.01369.
"""

import argparse
import functools
import json
import math
import platform
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from activegen.diffusion.reliability import in_bytes, ranked
from activegen.proof.statistics import compare
from activegen.recipes import Run, load, parse
from activegen.recipes.annotating import ARM, FOLDER, annotate
from activegen.records import Sample, TaskModel
from activegen.store import Store, from_png, png
from activegen.store.dataset import write_dataset
from activegen.store.files import open_folder
from activegen.zoo import networks
from activegen.zoo.card_scenes import JUDGE, tensors
from activegen.zoo.domains import eurosat, mosaics
from activegen.zoo.layouts import SCENE_CLASSES
from activegen.zoo.networks import real_pool

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


def altered(dataset: Path, name: str, change: Callable[[Sample], Sample]) -> Path:
    """A data set with the same images, made of the first one's store."""
    made, root = dataset.parent / name, dataset.parent / "arms" / ARM / "store"
    if not made.exists():
        store, partial = Store(str(root)), made.with_suffix(".partial")
        pairs = ((change(sample), verdict) for sample, verdict in store.accepted())
        write_dataset(open_folder(str(partial)), pairs, store.classes)
        partial.rename(made)
    return made


def ranked_alone(sample: Sample) -> Sample:
    """How sure a pixel is, ranked within its image alone."""
    mask, sure = from_png(sample.mask)[:1], from_png(sample.reliability)[:1]
    return replace(sample, reliability=png(in_bytes(ranked(mask, sure.float()))))


@dataclass(frozen=True)
class Judge:
    """A segmenter of real mosaics with exact masks, of another architecture than the learner's."""

    eurosat: Path
    images: int
    steps: int

    @functools.cached_property
    def model(self) -> TaskModel:
        """Trained when first asked for."""
        pool = real_pool(*tensors(mosaics(self.images, 12, eurosat(self.eurosat))))
        return networks.trained(pool, len(SCENE_CLASSES), self.steps, "cpu", "text", JUDGE)

    def as_seen(self, sample: Sample) -> Sample:
        """With the mask that it sees in the image."""
        image, model = from_png(sample.image)[None].float() / 255, self.model
        with torch.inference_mode():
            mask = model.predict(image).logits[0].argmax(1).to(torch.uint8)
        return replace(sample, mask=png(mask), reliability=png(torch.full_like(mask, 255)))


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
    judge = Judge(options.eurosat, options.judge_images, options.judge_steps)
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
        for way in [way for way in options.ways if way != "cross-entropy"] if apart else []:
            alone = {seed: altered(own[seed], "ranked alone", ranked_alone) for seed in seeds}
            alone = {seed: of(folder, size) for seed, folder in alone.items()}
            yield f"{way}, ranked alone, {name}", way, alone
        if apart:
            seen = {seed: altered(own[seed], "as seen", judge.as_seen) for seed in seeds}
            seen = {seed: of(folder, size) for seed, folder in seen.items()}
            yield f"cross-entropy, masks as a judge sees them, {name}", "cross-entropy", seen
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
    parser.add_argument("--judge-images", type=int, default=3000)
    parser.add_argument("--judge-steps", type=int, default=800)
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
