"""Does guidance do what it says? Score and label fidelity of finished images against strength.

    python benchmarks/guidance_effect.py --images 64 --out effect.json

Scenes of the embedded world. For each objective and route the same masks and seeds are drawn with
growing strength. Of the finished 8-bit images we measure the objective's own score under the model
that guided and under a held-out one of another architecture (if it rises for the first alone, the
effect is adversarial, not informative), and whether an independent segmenter, trained on thousands
of scenes and of a third architecture, still sees the mask. Gradients go through the full decoder.

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
from activegen.tasks.task_network import TaskNetwork
from activegen.zoo import LAND_COVER_SCENES
from activegen.zoo.card_scenes import JUDGE, tensors
from activegen.zoo.domains import Scenes, rendered_scenes
from activegen.zoo.layouts import SCENE_CLASSES
from activegen.zoo.networks import real_pool, trained

HELD_OUT = "smp:unet/resnet18"


def draw(
    model: StableDiffusion,
    scenes: Scenes,
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
        pictures, noise = pictures.to(model.device), noise.to(model.device)
        prompts = [captions[0] for captions in scenes.captions[start : start + size]]
        conditioning = model.condition(prompts, [""] * len(some), control=(pictures,))
        batch = Batch(model, sampling, noise, rngs, conditioning, some.long().to(model.device))
        made.append((sample(batch, guidance).images * 255).round().to(torch.uint8).cpu())
    return torch.cat(made)


@torch.inference_mode()
def mean(score: Score, task: TaskModel, images: Tensor, masks: Tensor) -> dict[str, float]:
    """Of the finished images, with the standard error over images."""
    values = torch.cat(
        [
            score(
                seen := task.predict(part.float() / 255), target.long().to(seen.logits.device)
            ).cpu()
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
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="auto", help="of the denoiser")
    parser.add_argument("--out", type=Path, default=Path("guidance_effect.json"))
    options = parser.parse_args()
    device = options.device
    dtype = fast_dtype(device) if options.dtype == "auto" else getattr(torch, options.dtype)
    net = Control.load(options.model / "controlnet", dtype=dtype)
    model = StableDiffusion.load(options.model, device, dtype, controls=[net])

    few, many = rendered_scenes(48, 11, tail=False), rendered_scenes(3000, 12)
    asked = rendered_scenes(options.images, 13)

    def learnt(start: str, network: str = "small", part: slice = slice(None)) -> TaskNetwork:
        pool = real_pool(*(of[part] for of in tensors(few)))
        return trained(pool, count, options.learner_steps, device, start, network)

    count, first, second = len(SCENE_CLASSES), slice(0, 24), slice(24, 48)
    learner = learnt("learner")
    committee = Committee((learnt("first", part=first), learnt("second", part=second), learner))
    other = learnt("held out", HELD_OUT)
    others = Committee(
        (
            learnt("other first", HELD_OUT, first),
            learnt("other second", HELD_OUT, second),
            other,
        )
    )
    teacher = learnt("teacher")
    judge = trained(real_pool(*tensors(many)), count, options.judge_steps, device, "judge", JUDGE)
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
    target = tensors(asked)[1]
    plain = draw(model, asked, [], sampling)
    print(f"the judge sees {evaluate_masks(judge, plain, target).miou:.3f} mIoU, unguided")
    rows = []
    for name, (objectives, measured, guiding, held_out) in table.items():
        score = scores.SCORES[measured]
        for route in options.routes:
            for strength in [0.0, *options.strengths]:
                term = During(0.2, 0.8, Ascend("latents", route, tuple(objectives), strength))
                begun = time.perf_counter()
                drawn = draw(model, asked, [term], sampling) if strength else plain
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


if __name__ == "__main__":
    main()
