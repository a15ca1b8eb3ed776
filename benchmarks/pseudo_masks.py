"""How good are masks that are read out of the attention, and do they know where they are wrong?

    python benchmarks/pseudo_masks.py --images 200 --out pseudo_masks.json

Scenes of the embedded world, or mosaics of real texture (--eurosat DIR). Two truths:

noised     real pictures are noised to each step that a setting reads, and their exact masks are
           the truth: attention alone is measured, whatever the generator can draw.
generated  pictures drawn from the captions; the truth is what an independent segmenter sees, that
           was trained on thousands of pictures with exact masks. Its own errors count as ours.

"one" is one class against the rest, the case that attn2mask was replicated for; "all" are all
classes of the caption, without a background. Intervals are of a bootstrap over images.

Yoshihashi et al. (2023), https://arxiv.org/abs/2309.01369.
"""

import argparse
import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from activegen.data.wording import bare
from activegen.diffusion.attention import Maps
from activegen.diffusion.mean_field import DenseCRF
from activegen.diffusion.pseudo_masks import PRESETS, Annotations, PseudoMasks, pseudo_masks
from activegen.diffusion.reliability import Ranks, in_bytes, ranked
from activegen.diffusion.sampling import Batch, Sampling, sample, seeded
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.loop.annotating import SURE
from activegen.precision import fast_dtype
from activegen.records import IGNORE
from activegen.zoo import LAND_COVER_SCENES
from activegen.zoo.card_scenes import JUDGE, tensors
from activegen.zoo.domains import Scenes, eurosat, mosaics, rendered_scenes
from activegen.zoo.layouts import SCENE_CLASSES, present
from activegen.zoo.networks import real_pool, trained
from activegen.zoo.scenes import SCENE_WORDS

SAMPLING = Sampling(num_steps=15, cfg_scale=2.0, scheduler="ddim")
COVERAGE = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the pixels of each class
REST = len(SCENE_CLASSES)  # id of what is not the one class
ONE = PseudoMasks()
SETTINGS = {name: preset.masks for name, preset in PRESETS.items()} | {
    "step 1/5": PseudoMasks(steps=0.2),
    "step 1/3": PseudoMasks(steps=0.34),
    "step 2/3": PseudoMasks(steps=0.67),
    "step 4/5": PseudoMasks(steps=0.8),
    "last third": PseudoMasks(steps=(0.67, 1.0)),
    "peaks": PseudoMasks(aggregate="peaks"),
    "16 and 8": PseudoMasks(sizes=(16, 8)),
    "walked once": PseudoMasks(refine=1),
    "walked 4 times": PseudoMasks(refine=4),
    "crf": PseudoMasks(crf=DenseCRF()),
    "2/3, crf": PseudoMasks(steps=0.67, crf=DenseCRF()),
    "4/5, crf": PseudoMasks(steps=0.8, crf=DenseCRF()),
}
BETAS = (-0.2, 0.0, 0.2, 0.4)


class Asked:
    """Captions, class words, and the noise of each image."""

    def __init__(self, model: StableDiffusion, scenes: Scenes):
        self.model, (self.images, self.masks) = model, tensors(scenes)
        named = [present(mask.numpy()) for mask in self.masks]
        self.prompts = [captions[0] for captions in scenes.captions]
        self.words = [[bare(SCENE_WORDS[name][0]) for name in names] for names in named]
        self.ids = [[SCENE_CLASSES.index(name) for name in names] for names in named]

    def batch(self, at: slice, settings: PseudoMasks) -> Batch:
        prompts, words = self.prompts[at], self.words[at]
        noise, rngs = seeded(list(range(at.start, at.start + len(prompts))), self.model.noise_shape)
        conditioning = self.model.condition(prompts, [""] * len(prompts))
        reading = settings.reading(self.model, prompts, words)
        target = self.masks[at].long()
        return Batch(self.model, SAMPLING, noise, rngs, conditioning, target, reading=reading)

    def classes(self, at: slice) -> Tensor:
        most = max(len(ids) for ids in self.ids[at])
        return torch.tensor([ids + [IGNORE] * (most - len(ids)) for ids in self.ids[at]])


@torch.inference_mode()
def noised(batch: Batch, images: Tensor) -> Maps:
    """Attention in real pictures at the noise of each step that is read."""
    assert batch.reading is not None
    clean, total, count = batch.model.encode(images), None, 0
    for level in batch.solver().levels:
        if batch.reading.at(level):
            latents = level.alpha * clean + level.sigma * batch.noise
            seen = batch.model.denoise(
                latents, batch.conditioning, level, 1.0, False, batch.reading
            )
            assert seen.maps is not None
            total, count = seen.maps if total is None else total.plus(seen.maps), count + 1
    assert total is not None
    return total.over(count)


def confusion(seen: Tensor, truth: Tensor, classes: int) -> np.ndarray:
    """(n, classes, classes + 1): of each image, pixels by truth and by what was said.

    The last column has those of which nothing was said.
    """
    said = torch.where(seen == IGNORE, classes, seen.long())
    pairs = truth.long() * (classes + 1) + said
    rows = [torch.bincount(row, minlength=classes * (classes + 1)) for row in pairs.flatten(1)]
    return torch.stack(rows).unflatten(1, (classes, classes + 1)).numpy()


def miou(tables: np.ndarray) -> float:
    total = tables.sum(0)
    hit = np.diag(total)
    union = total.sum(0)[:-1] + total.sum(1) - hit
    return float((hit[union > 0] / union[union > 0]).mean())


def interval(tables: np.ndarray, times: int = 500) -> list[float]:
    rng = np.random.default_rng(0)
    drawn = [miou(tables[rng.integers(len(tables), size=len(tables))]) for _ in range(times)]
    return [round(float(x), 4) for x in np.quantile(drawn, (0.025, 0.975))]


def reliability(made: Annotations, truth: Tensor) -> dict[str, Any]:
    """Wrong pixels in M = 1 and M = 0, and among the surest pixels of each class."""
    wrong = made.mask != truth  # where nothing was said, too
    sure = {
        name: of(made) for name, of in SURE.items() if name == "margin" or made.share is not None
    }
    ranks = {f"{name}, image": ranked(made.mask, by) for name, by in sure.items()}
    ranks |= {f"{name}, all": among_all(made.mask, by) for name, by in sure.items()}
    return {
        "wrong_in_reliable": {name: mean(wrong[by >= 0.5]) for name, by in ranks.items()},
        "wrong_in_rest": {name: mean(wrong[by < 0.5]) for name, by in ranks.items()},
        "risk_at_coverage": {
            name: {share: mean(wrong[by >= 1 - share]) for share in COVERAGE}
            for name, by in ranks.items()
        },
    }


def among_all(mask: Tensor, sure: Tensor) -> Tensor:
    """Ranks of 0 to 1 among the pixels of each class in all images."""
    pairs, ranks = list(zip(mask, in_bytes(sure), strict=True)), Ranks()
    for pair in pairs:
        ranks.add(*pair)
    return torch.stack([ranks.of(*pair) for pair in pairs]) / 255


def mean(wrong: Tensor) -> float:
    return round(float(wrong.float().mean()), 4)


def measured(made: Annotations, truth: Tensor, classes: int) -> dict[str, Any]:
    tables = confusion(made.mask, truth, classes)
    return {"miou": round(miou(tables), 4), "interval": interval(tables)} | reliability(made, truth)


def joined(parts: list[Annotations]) -> Annotations:
    """Masks, margins and shares of all batches."""
    none, shares = torch.zeros(0, 1), [part.share for part in parts if part.share is not None]
    return Annotations(
        torch.cat([part.mask for part in parts]),
        torch.cat([part.margin for part in parts]),
        none,
        none.view(0, 1, 1, 1),
        torch.cat(shares) if shares else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=LAND_COVER_SCENES)
    parser.add_argument("--eurosat", type=Path, help="mosaics on its val rows; scenes without")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS))
    parser.add_argument("--judge-steps", type=int, default=800)
    parser.add_argument("--judge-images", type=int, default=3000)
    parser.add_argument("--generated", nargs="*", default=["default", "daam", "crf"])
    parser.add_argument("--out", type=Path, default=Path("pseudo_masks.json"))
    options = parser.parse_args()
    model = StableDiffusion.load(options.model, dtype=fast_dtype("cpu"))
    if options.eurosat:
        tiles = eurosat(options.eurosat)
        scenes = mosaics(options.images, 21, eurosat(options.eurosat, "val"))
        many = mosaics(options.judge_images, 12, tiles)
    else:
        scenes = rendered_scenes(options.images, 21)
        many = rendered_scenes(options.judge_images, 12)
    asked, count = Asked(model, scenes), len(SCENE_CLASSES)
    pieces = [slice(k, min(k + 50, options.images)) for k in range(0, options.images, 50)]
    rows: list[dict[str, Any]] = []

    def tell(row: dict[str, Any]) -> None:
        rows.append(row)
        print(
            f"{row['truth']:9} {row['task']:3} {row['setting']:18} mIoU {row['miou']:.3f} "
            f"{row['interval']}  wrong in reliable / rest",
            *(
                f"{by} {share:.3f} / {row['wrong_in_rest'][by]:.3f}"
                for by, share in row["wrong_in_reliable"].items()
            ),
            flush=True,
        )
        for by, risks in row["risk_at_coverage"].items():
            print(
                f"{'':31}{by:14} wrong among the surest",
                *map("{0[0]:g}: {0[1]:.3f}".format, risks.items()),
            )

    chance = torch.stack(
        [torch.tensor(ids)[torch.randint(len(ids), (64, 64))] for ids in asked.ids]
    )
    print(f"chance: {miou(confusion(chance, asked.masks, count)):.3f}")
    for name in options.settings:
        settings, parts = SETTINGS[name], []
        for at in pieces:
            pictures = asked.images[at].float() / 255
            maps = noised(asked.batch(at, settings), pictures)
            parts.append(pseudo_masks(maps, asked.classes(at), None, pictures, settings))
        made = joined(parts)
        tell(
            {"truth": "noised", "task": "all", "setting": name} | measured(made, asked.masks, count)
        )
    first = torch.tensor([ids[0] for ids in asked.ids])
    truth = torch.where(asked.masks == first[:, None, None], asked.masks, REST)
    for beta in BETAS:
        settings, parts = replace(ONE, beta=beta), []
        for at in pieces:
            pictures = asked.images[at].float() / 255
            maps = noised(asked.batch(at, settings), pictures)
            alone = Maps(tuple(words[:, :1] for words in maps.words), maps.layers)
            parts.append(pseudo_masks(alone, first[at, None], REST, pictures, settings))
        said = {"truth": "noised", "task": "one", "setting": f"beta {beta}"}
        tell(said | measured(joined(parts), truth, count + 1))
    if options.generated:
        judge = trained(
            real_pool(*tensors(many)), count, options.judge_steps, "cpu", "pseudo", JUDGE
        )
        parts, seen = {name: [] for name in options.generated}, []
        for at in pieces:
            for number, name in enumerate(parts):
                drawn = sample(asked.batch(at, SETTINGS[name]))
                assert drawn.maps is not None
                pictures = drawn.images
                parts[name].append(
                    pseudo_masks(drawn.maps, asked.classes(at), None, pictures, SETTINGS[name])
                )
                if number == 0:
                    with torch.inference_mode():
                        seen.append(judge.predict(pictures).logits[0].argmax(1))
        for name, some in parts.items():
            said = {"truth": "generated", "task": "all", "setting": name}
            tell(said | measured(joined(some), torch.cat(seen), count))
    about = {"machine": platform.processor(), "torch": torch.__version__, "options": vars(options)}
    options.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1, default=str))


if __name__ == "__main__":
    main()
