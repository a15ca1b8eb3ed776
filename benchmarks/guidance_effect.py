"""Does guidance do what it says? Score and label fidelity of finished images against strength.

    python benchmarks/guidance_effect.py --images 64 --out effect.json

Scenes of the embedded world. For each objective and route the same masks and seeds are drawn with
growing strength. Of the finished 8-bit images we measure the objective's own score under the model
that guided and under a held-out one of another architecture (if it rises for the first alone, the
effect is adversarial, not informative), and whether an independent segmenter, trained on thousands
of scenes, still sees the mask.

Kniesel et al. (2025), https://arxiv.org/abs/2503.09221, Figures 4 and 5.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import torch
from torch import Tensor

from activegen import scores
from activegen.data.palettes import Palette, paint
from activegen.diffusion.control import Control
from activegen.diffusion.decoders import LinearDecoder
from activegen.diffusion.sampling import Batch, Sampling, sample, seeded
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.guidance import (
    Ascend,
    During,
    Informative,
    Objective,
    TeacherAnchor,
    TeacherStudent,
    Weighted,
)
from activegen.precision import fast_dtype
from activegen.records import Score, TaskModel
from activegen.tasks.committee import Committee
from activegen.tasks.dropout import FrozenDropout, NaiveDropout
from activegen.tasks.evaluate_masks import evaluate_masks
from activegen.tasks.learner import Learner, TrainSettings
from activegen.tasks.pool import Pool
from activegen.tasks.seeding import seeded as in_order
from activegen.tasks.segmenter import Segmenter
from activegen.tasks.segmenters import build_segmenter
from activegen.zoo import LAND_COVER_SCENES
from activegen.zoo.card_scenes import tensors
from activegen.zoo.domains import Scenes, rendered_scenes
from activegen.zoo.layouts import SCENE_CLASSES


def trained(network: str, images: Tensor, masks: Tensor, steps: int, start: str) -> Segmenter:
    settings = TrainSettings(
        steps=steps,
        batch_size=32,
        optimiser="adamw",
        learning_rate=2e-3,
        warmup_steps=20,
        ema_decay=0.99,
        augmentation="land_cover",
        amp="auto",
    )
    with in_order(0, start):
        learner = Learner(build_segmenter(network, len(SCENE_CLASSES), 64), settings, "cpu")
    real = torch.zeros(len(images), dtype=torch.bool)
    learner.train(Pool(images, masks, torch.ones(len(images)), real), steps)
    return learner.averaged  # pyright: ignore[reportReturnType]


def draw(
    model: StableDiffusion,
    scenes: Scenes,
    decoder: LinearDecoder,
    guidance: list,
    sampling: Sampling,
    size: int = 32,
) -> Tensor:
    palette, (_, masks) = Palette.own(SCENE_CLASSES), tensors(scenes)
    made = []
    for start in range(0, len(masks), size):
        some = masks[start : start + size]
        noise, rngs = seeded(list(range(start, start + len(some))), model.noise_shape)
        pictures = torch.stack([paint(mask, SCENE_CLASSES, palette) for mask in some])
        prompts = [captions[0] for captions in scenes.captions[start : start + size]]
        conditioning = model.condition(prompts, [""] * len(some), control=(pictures,))
        batch = Batch(model, sampling, noise, rngs, conditioning, some.long())
        made.append((sample(batch, guidance, decoder).images * 255).round().to(torch.uint8))
    return torch.cat(made)


@torch.inference_mode()
def mean(score: Score, task: TaskModel, images: Tensor, masks: Tensor) -> dict[str, float]:
    """Of the finished images, with the standard error over images."""
    values = torch.cat(
        [
            score(task.predict(part.float() / 255), target.long())
            for part, target in zip(images.split(32), masks.split(32), strict=True)
        ]
    )
    return {"mean": float(values.mean()), "error": float(values.std() / len(values) ** 0.5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=LAND_COVER_SCENES)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.01, 0.02, 0.05])
    parser.add_argument("--routes", nargs="+", default=["decoder", "denoiser"])
    parser.add_argument("--judge-steps", type=int, default=800)
    parser.add_argument("--learner-steps", type=int, default=300)
    parser.add_argument("--dtype", default="auto", help="of the denoiser")
    parser.add_argument("--out", type=Path, default=Path("guidance_effect.json"))
    options = parser.parse_args()
    dtype = fast_dtype("cpu") if options.dtype == "auto" else getattr(torch, options.dtype)
    net = Control.load(options.model / "controlnet", dtype=dtype)
    model = StableDiffusion.load(options.model, dtype=dtype, controls=[net])

    few, many = rendered_scenes(48, 11, tail=False), rendered_scenes(3000, 12)
    asked = rendered_scenes(options.images, 13)
    images, masks = tensors(few)
    half = len(images) // 2
    steps = options.learner_steps
    learner = trained("small", images, masks, steps, "learner")
    committee = Committee(
        (
            trained("small", images[:half], masks[:half], steps, "first"),
            trained("small", images[half:], masks[half:], steps, "second"),
            learner,
        )
    )
    other = trained("smp:unet/resnet18", images, masks, steps, "held out")
    others = Committee(
        (
            trained("smp:unet/resnet18", images[:half], masks[:half], steps, "other first"),
            trained("smp:unet/resnet18", images[half:], masks[half:], steps, "other second"),
            other,
        )
    )
    teacher = trained("small", images, masks, steps, "teacher")
    judge = trained("small", *tensors(many), options.judge_steps, "judge")
    dropout, naive = FrozenDropout(learner, 5, seed=0), NaiveDropout(learner, 5, seed=0)

    anchor = Weighted(1.0, TeacherAnchor(teacher))
    # objective, the score it is measured by, under the guiding and the held-out model
    table: dict[str, tuple[list[Objective], str, TaskModel, TaskModel]] = {
        "entropy": ([Informative(learner, scores.entropy)], "entropy", learner, other),
        "margin": ([Informative(learner, scores.margin)], "margin", learner, other),
        "committee": (
            [Informative(committee, scores.disagreement)],
            "disagreement",
            committee,
            others,
        ),
        "dropout, frozen": (
            [Informative(dropout, scores.disagreement)],
            "disagreement",
            FrozenDropout(learner, 20, seed=1),
            others,
        ),
        "dropout, naive": (
            [Informative(naive, scores.disagreement)],
            "disagreement",
            FrozenDropout(learner, 20, seed=1),
            others,
        ),
        "expected model change": (
            [Informative(learner, scores.expected_model_change)],
            "expected_model_change",
            learner,
            other,
        ),
        "cross-entropy": (
            [Informative(learner, scores.cross_entropy)],
            "cross_entropy",
            learner,
            other,
        ),
        "cross-entropy, anchored": (
            [Informative(learner, scores.cross_entropy), anchor],
            "cross_entropy",
            learner,
            other,
        ),
        "teacher-student": (
            [TeacherStudent(learner, teacher)],
            "cross_entropy",
            learner,
            other,
        ),
    }
    sampling = Sampling(num_steps=options.steps, cfg_scale=2.0, scheduler="ddim")
    decoder = fitted(model, few)
    target = tensors(asked)[1]
    plain = draw(model, asked, decoder, [], sampling)
    print(f"the judge sees {evaluate_masks(judge, plain, target).miou:.3f} mIoU, unguided")
    rows = []
    for name, (objectives, measured, guiding, held_out) in table.items():
        score = scores.SCORES[measured]
        for route in options.routes:
            for strength in [0.0, *options.strengths]:
                term = During(0.2, 0.8, Ascend("latents", route, tuple(objectives), strength))
                begun = time.perf_counter()
                drawn = draw(model, asked, decoder, [term], sampling) if strength else plain
                rows.append(
                    {
                        "objective": name,
                        "route": route,
                        "strength": strength,
                        "score": measured,
                        "guiding": mean(score, guiding, drawn, target),
                        "held_out": mean(score, held_out, drawn, target),
                        "mask_fidelity": evaluate_masks(judge, drawn, target).miou,
                        "seconds": round(time.perf_counter() - begun, 1),
                    }
                )
                last = rows[-1]
                print(
                    f"{name:24} {route:9} {strength:5.2f}  guiding {last['guiding']['mean']:.4f}"
                    f"  held out {last['held_out']['mean']:.4f}"
                    f"  fidelity {last['mask_fidelity']:.3f}",
                    flush=True,
                )
    about = {"machine": platform.processor(), "torch": torch.__version__, "options": vars(options)}
    options.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1, default=str))


@torch.no_grad()
def fitted(model: StableDiffusion, scenes: Scenes) -> LinearDecoder:
    images = tensors(scenes)[0][:32].float() / 255
    latents = torch.cat([model.encode(image[None]) for image in images])
    return LinearDecoder.fit(latents, model.full(latents))


if __name__ == "__main__":
    main()
