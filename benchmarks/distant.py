"""A distant domain: the generator of land covers, carried to road scenes by captions alone.

    python benchmarks/distant.py --pieces camvid/pieces --out work

The embedded generator of scenes is adapted to CamVid's training pieces (``pieces.py``), once by
LoRA and once in full, from images and lists of their classes: no mask goes in. Each, and the
generator as it was, then draws images from text with masks read out of its attention, and a
segmenter learns from these alone. What was made before is kept in the folder.

Yoshihashi et al. (2023), https://arxiv.org/abs/2309.01369, who adapt by LoRA.
"""

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from text_only import TRAINING
from torch import Tensor

from activegen.data.mask_parquet import read_mask_parquet
from activegen.data.scenes import RealScenes
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.proof.diagnostics import kernel_distance
from activegen.proof.statistics import compare
from activegen.recipes import Recipe, Run, parse
from activegen.recipes.adapting import adapt
from activegen.recipes.annotating import FOLDER, annotate
from activegen.recipes.diagnosing import look
from activegen.tasks.evaluate_masks import evaluate_masks
from activegen.tasks.fidelity import fidelity
from activegen.zoo import LAND_COVER_SCENES
from activegen.zoo.networks import real_pool, trained

WORDS = {  # the text encoder reads 48 tokens, and spells what it does not know
    "Sky": "sky",
    "Building": "building",
    "Pole": "pole",
    "Road": "road",
    "Pavement": "pavement",
    "Tree": "tree",
    "SignSymbol": "sign",
    "Fence": "fence",
    "Car": "car",
    "Pedestrian": "person",
    "Bicyclist": "bike",
}
BEFORE, LORA, FULL = "as it was", "lora", "full"
JUDGE = "smp:linknet/resnet18"
PER_IMAGE = [2, 4]  # classes in a prompt; more do not fit into the 48 tokens


def recipe(options: argparse.Namespace, **parts: Any) -> Recipe:
    """For all three: prompts, and the generator to begin with."""
    return parse(
        {
            "name": "distant",
            "data": {"layout": "classes", "options": {"names": list(WORDS)}, "size": 64},
            "prompts": {
                "templates": ["{word}"],
                "words": {name: [word] for name, word in WORDS.items()},
            },
            "model": {"path": "embedded", "dtype": "auto", "device": options.device},
            "sampling": {"scheduler": "ddim", "num_steps": 15, "cfg_scale": 2.0},
            "segmentation": {
                "text": {"per_image": PER_IMAGE, "screen": {"least": 0.01}},
                "judge": {"network": ""},
            },
            "loop": {"batch": 32},
            "arms": {"annotated": {"generate": "plain"}},
            **parts,
        }
    )


def adapted(way: str, options: argparse.Namespace) -> dict[str, Any]:
    """The recipe's ``model`` that draws with the result; trains it if it is not there."""
    model = {"path": "embedded", "dtype": "auto", "device": options.device}
    if way == BEFORE:
        return model
    shared = {"batch_size": options.batch, "text_encoder": True, "schedule": "cosine"}
    ways = {
        LORA: {"steps": options.steps, "rank": options.rank, "learning_rate": options.lora_rate},
        FULL: {
            "steps": options.steps,
            "learning_rate": options.full_rate,
            "autoencoder": "decoder",
            "autoencoder_steps": options.decoder_steps,
            "autoencoder_rate": 3e-4,
        },
    }
    data = {"layout": "parquet", "path": str(options.pieces), "size": 64}
    out = options.out / way
    adapt(recipe(options, data=data, adapt={"what": way, **shared, **ways[way]}), out)
    return model | ({"path": str(out)} if way == FULL else {"lora": [{"path": str(out)}]})


@torch.inference_mode()
def rebuilt(folder: Path, images: Tensor) -> Tensor:
    """What the autoencoder of a generator leaves of real images, uint8: no picture is better."""
    model = StableDiffusion.load(folder)
    parts = [model.decode(model.encode(some.float() / 255)) for some in images.split(50)]
    return (torch.cat(parts) * 255).round().to(torch.uint8)


def megabytes(folder: Path) -> float:
    """Of all weights in it."""
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors")) / 2**20


def tensors(real: RealScenes) -> tuple[Tensor, Tensor]:
    """All images and masks."""
    places = range(len(real))
    return torch.stack([real.image(k) for k in places]), torch.stack([real.mask(k) for k in places])


def all_learnt(
    train: dict[str, Any], folder: Path, options: argparse.Namespace
) -> dict[int, float]:
    """By seed, mean IoU on real test pieces of a segmenter of these images alone."""
    return {seed: learnt(train, seed, folder / f"seed-{seed}", options) for seed in options.seeds}


def learnt(train: dict[str, Any], seed: int, folder: Path, options: argparse.Namespace) -> float:
    """With one seed."""
    pieces = {"layout": "parquet", "path": str(options.pieces)}
    made = parse(
        {
            "name": "distant",
            "seed": seed,
            "data": {**pieces, "size": 64, "train": train, "test": {"split": "test"}},
            "segmentation": {"judge": {"network": ""}},
            "learner": {"network": "small"},
            "training": {"steps": options.learner_steps} | TRAINING | {"augmentation": "photo"},
            "loop": {"rounds": 1},
            "arms": {"trained": {"generate": "none"}},
        }
    )
    return Run(made, folder).carry_out()["arms"]["trained"]["miou"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pieces", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=400, help="to draw of each way")
    parser.add_argument("--steps", type=int, default=1500, help="of an adaptation")
    parser.add_argument("--decoder-steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--lora-rate", type=float, default=2e-3)
    parser.add_argument("--full-rate", type=float, default=2e-4)
    parser.add_argument("--learner-steps", type=int, default=400)
    parser.add_argument("--judge-steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    real, test = (tensors(read_mask_parquet(str(options.pieces), s)) for s in ("train", "test"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    judge = trained(real_pool(*real), len(WORDS), options.judge_steps, device, "distant", JUDGE)
    seen = look(judge, real_pool(*test)).features
    rows: dict[str, dict[str, Any]] = {}
    miou: dict[str, dict[int, float]] = {}
    exact = {"split": "train", "count": options.images}
    for way in (BEFORE, LORA, FULL):
        model, folder = adapted(way, options), options.out / f"drawn {way}"
        made = annotate(recipe(options, model=model), folder, options.images)
        data = {"layout": "parquet", "path": str(folder / FOLDER), "split": "train"}
        images, masks = tensors(read_mask_parquet(data["path"], "train"))
        features = look(judge, real_pool(images, masks)).features
        rows[way] = made | asdict(fidelity(seen, features))
        rows[way]["kid"] = kernel_distance(seen, features).value
        rows[way]["masks"] = evaluate_masks(judge, images, masks).miou
        own = LAND_COVER_SCENES if way == BEFORE else options.out / way
        kept = rebuilt(own if way == FULL else LAND_COVER_SCENES, test[0])
        features = look(judge, real_pool(kept, test[1])).features
        rows[way]["rebuilt_kid"] = kernel_distance(seen, features).value
        rows[way]["rebuilt_miou"] = evaluate_masks(judge, kept, test[1]).miou
        rows[way]["megabytes"] = megabytes(own)
        miou[way] = all_learnt(data, options.out / f"trained {way}", options)
        print(way, rows[way], miou[way], flush=True)
    name = f"{options.images} real pieces with masks"
    miou[name] = all_learnt(exact, options.out / "trained real", options)
    rows[name] = {"masks": evaluate_masks(judge, *test).miou}
    print(name, rows[name], miou[name])
    pairs = [(LORA, BEFORE), (FULL, BEFORE), (LORA, FULL), (name, LORA)]
    told = [compare(miou, *pair).words for pair in pairs]
    print("\n".join(told))
    about = {"machine": platform.processor(), "torch": torch.__version__, "options": vars(options)}
    found = {"about": about, "ways": rows, "miou": miou, "compared": told}
    (options.out / "distant.json").write_text(json.dumps(found, indent=1, default=str))


if __name__ == "__main__":
    main()
