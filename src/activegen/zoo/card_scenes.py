"""Measures the embedded generator of scenes: ``python -m activegen.zoo.card_scenes --eurosat DIR``.

The truth is known: what was asked for is compared with what an independent segmenter, trained on
thousands of real pictures of the domain, sees in the generated one. Mosaics are measured on texture
of EuroSAT's *test* rows, which nothing that trains or tunes the generator reads.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from activegen.data.palettes import Palette, paint
from activegen.diffusion.control import Control
from activegen.diffusion.sampling import Batch, Sampling, sample, seeded
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.tasks.evaluate_masks import evaluate_masks
from activegen.zoo import LAND_COVER_SCENES
from activegen.zoo.card import psnr
from activegen.zoo.domains import Scenes, eurosat, mosaics, rendered_scenes
from activegen.zoo.layouts import SCENE_CLASSES
from activegen.zoo.networks import real_pool, trained

SAMPLING = Sampling(num_steps=15, cfg_scale=2.0, scheduler="ddim")
JUDGE = "smp:linknet/resnet18"  # no network that the decoder was trained to please
CARD = """# land_cover_scenes: a small latent diffusion model with a ControlNet

Draws 64-pixel pictures of two to four land covers, from a text that lists them ("a rendered scene
of water, a forest and houses", "a satellite mosaic of a field and water"), and with the ControlNet
for a mask. Masks are shown in the colours of `activegen.data.palettes.Palette.own` for the classes
{classes}.
In the layout of diffusers; `StableDiffusionControlNetPipeline` loads it as it is.

Trained by `python -m activegen.zoo.train_scenes` on scenes that the package renders and on mosaics:
the same masks filled with texture of EuroSAT's *train* rows (Helber et al. 2019, arXiv 1709.00029;
MIT, contains modified Copernicus Sentinel data), the CoOp split. No pretrained weights went in.
Apache-2.0, as the package. {training}

Measured by `python -m activegen.zoo.card_scenes` on {images} unseen masks per domain, mosaics on
texture of *test* rows; {sampling[num_steps]} steps, `cfg_scale` {sampling[cfg_scale]}, seeds 0 and
up. The segmenter is `{judge}`, a network that no part was trained
with, trained on {train} pictures of the domain for {steps} steps.

{table}

`checksums.json` has the SHA-256 of each weights file.
"""
ROWS = (
    ("autoencoder, PSNR of unseen pictures, dB", "reconstruction_psnr"),
    ("mIoU of the segmenter on real pictures", "miou_of_real"),
    ("mIoU of the asked masks and what it sees in generated ones", "mask_fidelity"),
    ("the same without the ControlNet, as a floor", "mask_fidelity_without_control"),
    ("boundary IoU of the asked masks", "boundary_fidelity"),
)


def draw(
    model: StableDiffusion,
    scenes: Scenes,
    sampling: Sampling,
    batch: int = 50,
) -> Tensor:
    """A picture for each mask and first caption, uint8 (n, 3, 64, 64).

    Without a ControlNet of the caption alone.
    """
    palette = Palette.own(SCENE_CLASSES)
    _, masks = tensors(scenes)
    drawn = []
    for start in range(0, len(masks), batch):
        some = masks[start : start + batch]
        noise, rngs = seeded(list(range(start, start + len(some))), model.noise_shape)
        pictures = torch.stack([paint(mask, SCENE_CLASSES, palette) for mask in some])
        control = (pictures.to(model.device),) if model.controls else ()
        prompts = [captions[0] for captions in scenes.captions[start : start + batch]]
        conditioning = model.condition(prompts, [""] * len(some), control=control)
        target = some.long().to(model.device)
        made = sample(Batch(model, sampling, noise.to(model.device), rngs, conditioning, target))
        drawn.append((made.images * 255).round().to(torch.uint8).cpu())
    return torch.cat(drawn)


def tensors(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Images (n, 3, h, w) and masks (n, h, w), uint8."""
    images = torch.from_numpy(np.ascontiguousarray(scenes.images)).permute(0, 3, 1, 2)
    return images.contiguous(), torch.from_numpy(np.ascontiguousarray(scenes.masks))


def measure(
    model: StableDiffusion,
    bare: StableDiffusion,
    train: Scenes,
    test: Scenes,
    steps: int,
    device: str,
) -> tuple[dict[str, Any], Tensor]:
    """The figures of one domain, and the pictures that they are about.

    Args:
        model: with its ControlNet.
        bare: without.
        train: what the segmenter learns from.
        test: what is asked for.
        steps: of the segmenter.
        device: of all.
    """
    judge: Any = trained(
        real_pool(*tensors(train)), len(SCENE_CLASSES), steps, device, "card", JUDGE
    )
    images, masks = tensors(test)
    drawn = draw(model, test, SAMPLING)
    seen = evaluate_masks(judge, drawn, masks)
    floor = evaluate_masks(judge, draw(bare, test, SAMPLING), masks)
    figures = {
        "reconstruction_psnr": psnr(model, images),
        "miou_of_real": round(evaluate_masks(judge, images, masks).miou, 4),
        "mask_fidelity": round(seen.miou, 4),
        "mask_fidelity_without_control": round(floor.miou, 4),
        "boundary_fidelity": round(seen.boundary_iou, 4),
        "per_class": dict(zip(SCENE_CLASSES, seen.per_class, strict=True)),
    }
    return figures, drawn


def grid(drawn: Tensor, test: Scenes, path: Path, columns: int = 12, rows: int = 2) -> None:
    """Masks, rendered pictures and generated ones below each other; of mosaics no real texture."""
    palette = Palette.own(SCENE_CLASSES)
    images, masks = tensors(test)
    columns, shown = min(columns, len(drawn)), []
    for row in range(min(rows, len(drawn) // columns)):
        some = range(row * columns, (row + 1) * columns)
        painted = [(paint(masks[k], SCENE_CLASSES, palette) * 255).to(torch.uint8) for k in some]
        shown.append(torch.cat(painted, 2))
        if test.name == "scenes":
            shown.append(torch.cat([images[k] for k in some], 2))
        shown.append(torch.cat([drawn[k] for k in some], 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = torch.cat(shown, 1).permute(1, 2, 0).numpy()
    Image.fromarray(picture).save(path, optimize=True)


def readme(card: dict[str, Any]) -> str:
    """The card for people; Markdown."""
    domains = [name for name in ("scenes", "mosaics") if name in card]
    lines = ["| | " + " | ".join(domains) + " |", "|---" * (1 + len(domains)) + "|"]
    lines += [
        f"| {text} | " + " | ".join(f"{card[d][key]:.3f}" for d in domains) + " |"
        for text, key in ROWS
    ]
    return CARD.format(table="\n".join(lines), classes=", ".join(SCENE_CLASSES), **card)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eurosat", type=Path, required=True, help="folder of EuroSAT's parquet")
    parser.add_argument("--model", type=Path, default=LAND_COVER_SCENES)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--train", type=int, default=6000, help="pictures for the segmenter")
    parser.add_argument("--steps", type=int, default=1500, help="of the segmenter")
    parser.add_argument("--split", default="test", help="'val' while tuning, 'test' for the card")
    parser.add_argument("--training", default="", help="a sentence on how long it was trained")
    parser.add_argument("--dtype", default="float32", help="of the denoiser")
    parser.add_argument("--grids", type=Path, default=Path("docs/images"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    net = Control.load(options.model / "controlnet", dtype=dtype)
    model = StableDiffusion.load(options.model, options.device, dtype, controls=[net])
    bare = StableDiffusion.load(options.model, options.device, dtype)
    tiles, unseen = eurosat(options.eurosat), eurosat(options.eurosat, options.split)
    seed = 2 if options.split == "test" else 3
    pairs = {
        "scenes": (rendered_scenes(options.train, 1), rendered_scenes(options.images, seed)),
        "mosaics": (mosaics(options.train, 1, tiles), mosaics(options.images, seed, unseen)),
    }
    card: dict[str, Any] = {
        "sampling": asdict(SAMPLING),
        "split": options.split,
        "training": options.training,
        "images": options.images,
        "train": options.train,
        "steps": options.steps,
        "judge": JUDGE,
    }
    for name, (train, test) in pairs.items():
        card[name], drawn = measure(model, bare, train, test, options.steps, options.device)
        if options.split == "test":
            grid(drawn, test, options.grids / f"generated_{name}.png")
        print(name, json.dumps(card[name]), flush=True)
    if options.split == "test":
        (options.model / "card.json").write_text(json.dumps(card, indent=2) + "\n")
        (options.model / "README.md").write_text(readme(card))


if __name__ == "__main__":
    main()
