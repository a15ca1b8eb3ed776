"""Does guidance do what it says? Score and label fidelity of finished images against strength.

    python benchmarks/guidance_effect.py --images 64 --out work --docs docs/results

Scenes of the embedded world. For each objective and route the same masks and seeds are drawn with
growing strength. Of the finished 8-bit images we measure the objective's own score under the model
that guided and under a held-out one of another architecture (if it rises for the first alone, the
effect is adversarial, not informative), and whether an independent segmenter, trained on thousands
of scenes and of a third architecture, still sees the mask. Gradients go through the full decoder.

A score's rise is the mean over images of guided minus unguided, same mask and seed, in standard
deviations of the unguided images' scores, so that objectives can be compared. What was drawn before
is kept in the folder; routes may be computed apart, at the same time.

Kniesel et al. (2025), https://arxiv.org/abs/2503.09221, Figures 4 and 5.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from throughput import processor
from torch import Tensor

from activegen import scores
from activegen.data.palettes import Palette, paint
from activegen.diffusion.control import Control
from activegen.diffusion.sampling import Batch, Sampling, sample, seeded
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.guidance import (
    Adversarial,
    Ascend,
    During,
    Informative,
    Objective,
    TeacherAnchor,
    TeacherStudent,
    Weighted,
)
from activegen.precision import fast_dtype
from activegen.proof.student import quantile
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
from activegen.zoo.running import whole

HELD_OUT = "smp:unet/resnet18"
NAME = "guidance_effect"
SETTINGS = ("images", "steps", "strengths", "judge_steps", "learner_steps", "dtype")
MARKS = "osD^vPX*<>dhp8"


@dataclass(frozen=True)
class Case:
    """What is climbed, and by what it is measured."""

    objectives: tuple[Objective, ...]
    score: Score
    guiding: TaskModel
    held_out: TaskModel


def kept(file: Path, made: Callable[[], TaskNetwork]) -> TaskNetwork:
    """What the file holds, or will hold from now on."""
    if not file.exists():
        with whole(file) as unfinished:
            torch.save(made(), unfinished)
    return torch.load(file, weights_only=False)


def cases(few: Scenes, steps: int, device: str, folder: Path) -> dict[str, Case]:
    """All objectives by name, under models of the same few scenes that the folder keeps."""
    first, second = slice(0, len(few.masks) // 2), slice(len(few.masks) // 2, None)

    def learnt(start: str, network: str = "small", part: slice = slice(None)) -> TaskNetwork:
        pool = real_pool(*(of[part] for of in tensors(few)))
        make = partial(trained, pool, len(SCENE_CLASSES), steps, device, start, network)
        return kept(folder / f"{start}.pt", make)

    learner, other, teacher = learnt("learner"), learnt("held out", HELD_OUT), learnt("teacher")
    committee = Committee((learnt("first", part=first), learnt("second", part=second), learner))
    others = Committee(
        (
            learnt("other first", HELD_OUT, first),
            learnt("other second", HELD_OUT, second),
            other,
        )
    )

    def under(task: TaskModel, score: Score, *, seen_by: TaskModel = learner) -> Case:
        held_out = other if seen_by is learner else others
        return Case((Informative(task, score),), score, seen_by, held_out)

    def error(*objectives: Objective) -> Case:
        return Case(objectives, scores.cross_entropy, learner, other)

    plain, anchor = Informative(learner, scores.cross_entropy), Weighted(1, TeacherAnchor(teacher))
    frozen, naive = FrozenDropout(learner, 5, seed=0), NaiveDropout(learner, 5, seed=0)
    more_dropout = FrozenDropout(learner, 100, seed=2)  # of 20, what one set says another denies
    return {
        "entropy": under(learner, scores.entropy),
        "least confidence": under(learner, scores.least_confidence),
        "margin": under(learner, scores.margin),
        "label margin": under(learner, scores.label_margin),
        "consensus entropy": under(committee, scores.entropy, seen_by=committee),
        "disagreement": under(committee, scores.disagreement, seen_by=committee),
        "dropout, frozen": under(frozen, scores.disagreement, seen_by=more_dropout),
        "dropout, naive": under(naive, scores.disagreement, seen_by=more_dropout),
        "expected model change": under(learner, scores.expected_model_change),
        "model change": under(learner, scores.model_change),
        "cross-entropy": error(plain),
        "cross-entropy, anchored": error(plain, anchor),
        "cross-entropy, capped": error(Adversarial(learner)),
        "teacher and student": error(TeacherStudent(learner, teacher)),
    }


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
def scored(score: Score, task: TaskModel, images: Tensor, masks: Tensor) -> Tensor:
    """Of each finished image."""
    values = []
    for part, target in zip(images.split(32), masks.split(32), strict=True):
        seen = task.predict(part.float() / 255)
        values.append(score(seen, target.long().to(seen.logits.device)).cpu())
    return torch.cat(values)


def right(judge: TaskModel, images: Tensor, masks: Tensor) -> Tensor:
    """Share of each image's pixels in which the judge sees the mask."""
    pairs = zip(images.split(1), masks.split(1), strict=True)
    return torch.tensor([evaluate_masks(judge, *pair).accuracy for pair in pairs])


def rise(values: Tensor, plain: Tensor, unit: float = 1.0) -> dict[str, float]:
    """Mean of the paired differences over images, with the ends of its 95 % t interval."""
    differences = (values - plain) / unit
    mean, count = float(differences.mean()), len(differences)
    reach = quantile(0.975, count - 1) * float(differences.std()) / math.sqrt(count)
    return {"mean": float(values.mean()), "rise": mean, "low": mean - reach, "high": mean + reach}


def measured(case: Case, judge: TaskModel, images: Tensor, plain: Tensor, masks: Tensor) -> dict:
    """Of one drawing."""
    found: dict[str, Any] = {}
    for who, task in (("guiding", case.guiding), ("held_out", case.held_out)):
        before = scored(case.score, task, plain, masks)
        after = scored(case.score, task, images, masks)
        found[who] = rise(after, before, float(before.std()))
    found["mask_fidelity"] = evaluate_masks(judge, images, masks).miou
    found["right"] = rise(right(judge, images, masks), right(judge, plain, masks))
    return found


def computed(options: argparse.Namespace, folder: Path) -> None:
    """Draws and measures what the folder does not have yet."""
    settings = {key: getattr(options, key) for key in SETTINGS if key != "strengths"}
    claim(folder, settings | {"model": str(options.model)})
    device = options.device
    dtype = fast_dtype(device) if options.dtype == "auto" else getattr(torch, options.dtype)
    net = Control.load(options.model / "controlnet", dtype=dtype)
    model = StableDiffusion.load(options.model, device, dtype, controls=[net])
    few, many = rendered_scenes(48, 11, tail=False), rendered_scenes(3000, 12)
    asked = rendered_scenes(options.images, 13)
    masks = tensors(asked)[1]
    table = cases(few, options.learner_steps, device, folder)
    pool, count = real_pool(*tensors(many)), len(SCENE_CLASSES)
    make = partial(trained, pool, count, options.judge_steps, device, "judge", JUDGE)
    judge = kept(folder / "judge.pt", make)
    sampling = Sampling(num_steps=options.steps, cfg_scale=2.0, scheduler="ddim")
    plain = draw(model, asked, [], sampling)
    for route in options.routes:
        for name, case in table.items():
            for strength in [0.0, *options.strengths]:
                file = folder / f"{name}, {route}, {strength:g}.json"
                if file.exists():
                    continue
                term = During(0.2, 0.8, Ascend("latents", route, case.objectives, strength))
                begun = time.perf_counter()
                images = draw(model, asked, [term], sampling) if strength else plain
                seconds = time.perf_counter() - begun
                row = {"objective": name, "route": route, "strength": strength}
                row |= measured(case, judge, images, plain, masks) | {"seconds": seconds}
                with whole(file) as unfinished:
                    unfinished.write_text(json.dumps(row))
                print(" | ".join(cells(row)), flush=True)


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """The folder is of these settings.

    Raises:
        SystemExit: it is of others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "settings"
    if file.exists() and json.loads(file.read_text()) != settings:
        raise SystemExit(f"{folder} has figures of other settings; choose another --out")
    file.write_text(json.dumps(settings, indent=1))


def cells(row: dict[str, Any]) -> list[str]:
    """Of the row of a table."""

    def ends(of: dict[str, float], scale: float, places: int) -> str:
        values = (f"{scale * of[part]:+.{places}f}" for part in ("rise", "low", "high"))
        return "{} ({} to {})".format(*values)

    told = [row["objective"], row["route"], f"{row['strength']:g}"]
    told += [ends(row[who], 1, 2) for who in ("guiding", "held_out")]
    return [*told, f"{100 * row['mask_fidelity']:.1f} %", ends(row["right"], 100, 1)]


def front(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that no other beats in both the held-out score's rise and the mask's fidelity."""

    def places(row: dict[str, Any]) -> tuple[float, float]:
        return row["held_out"]["rise"], row["mask_fidelity"]

    def beaten(row: dict[str, Any]) -> bool:
        own = places(row)
        others = [places(other) for other in rows]
        return any(a >= own[0] and b >= own[1] and (a, b) != own for a, b in others)

    return [row for row in rows if not beaten(row)]


def table(rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> str:
    """Markdown."""
    heads = ["objective", "route", "strength", "rise, guiding model", "rise, held-out model"]
    heads += ["mask fidelity, mIoU", "pixels right, points"]
    plain = [row for row in rows if row["strength"] == 0]
    guided = [row for row in rows if row["strength"] > 0]
    told = [f"--{key.replace('_', '-')} {_words(about[key])}" for key in SETTINGS]
    lines = ["# Guidance: score and label fidelity against strength", ""]
    lines += [f"    python benchmarks/guidance_effect.py {' '.join(told)}", ""]
    lines += [f"{about['images']} masks and seeds; {about['machine']}, PyTorch {about['torch']}."]
    seen = f"{100 * plain[0]['mask_fidelity']:.1f} %"
    lines += ["Rises are in standard deviations of the unguided images' scores, each objective's"]
    lines += ["own, of the finished 8-bit image, with 95 % t intervals over the images; all models"]
    lines += ["learnt from the same 48 scenes. Fidelity is what a judge of 3,000 scenes, of a"]
    lines += [f"third architecture, sees of the mask: {seen} unguided. Bold: no other row has more"]
    lines += ["of both the held-out model's rise and fidelity.", ""]
    lines += ["![Held-out rise against fidelity](guidance_effect.svg)", ""]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    best = [id(row) for row in front(rows)]
    for row in guided:
        shown = [f"**{cell}**" if id(row) in best else cell for cell in cells(row)]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _words(of: Any) -> str:
    return " ".join(map(str, of)) if isinstance(of, list) else str(of)


def drawn(rows: Sequence[dict[str, Any]]) -> Figure:
    """A line for each objective over its strengths; a panel for each route."""
    routes = list(dict.fromkeys(row["route"] for row in rows))
    names = list(dict.fromkeys(row["objective"] for row in rows))
    colours = matplotlib.colormaps["tab20"]
    figure = Figure(figsize=(5 * len(routes) + 2, 4.6), layout="constrained")
    panels = figure.subplots(1, len(routes), sharey=True, squeeze=False)[0]
    for panel, route in zip(panels, routes, strict=True):
        for index, name in enumerate(names):
            of = [r for r in rows if (r["objective"], r["route"]) == (name, route)]
            x, y = [100 * r["mask_fidelity"] for r in of], [r["held_out"]["rise"] for r in of]
            panel.plot(
                x, y, marker=MARKS[index % len(MARKS)], color=colours(index % 20), label=name
            )
        panel.set_title(f"gradients through the {route}")
        panel.set_xlabel("mask fidelity, mIoU in %")
        panel.grid(color="#e4e7eb")
    panels[0].set_ylabel("rise of the held-out model's score, s.d.")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def publish(rows: list[dict[str, Any]], docs: Path, about: dict[str, Any]) -> None:
    """A table, a figure and all numbers."""
    rows = sorted(rows, key=lambda row: (row["route"], row["objective"], row["strength"]))
    docs.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"about": about, "rows": rows}, indent=1)
    (docs / f"{NAME}.json").write_text(text)
    (docs / f"{NAME}.md").write_text(table(rows, about))
    with matplotlib.rc_context({"svg.hashsalt": NAME}):
        drawn(rows).savefig(docs / f"{NAME}.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=LAND_COVER_SCENES)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.01, 0.02, 0.05])
    parser.add_argument("--routes", nargs="+", default=["decoder", "denoiser"])
    parser.add_argument("--judge-steps", type=int, default=800)
    parser.add_argument("--learner-steps", type=int, default=300)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="auto", help="of the denoiser")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--publish", action="store_true", help="what is there; compute nothing")
    parser.add_argument("--docs", type=Path, help="where table, figure and numbers shall be put")
    options = parser.parse_args()
    if not options.publish:
        computed(options, options.out)
    if options.docs:
        rows = [json.loads(file.read_text()) for file in sorted(options.out.glob("*.json"))]
        machine = torch.cuda.get_device_name() if options.device == "cuda" else processor()
        settings = json.loads((options.out / "settings").read_text())
        settings["strengths"] = sorted({row["strength"] for row in rows} - {0})
        kept = {key: settings[key] for key in SETTINGS}
        about = {"machine": machine, "torch": torch.__version__} | kept
        publish(rows, options.docs, about)


if __name__ == "__main__":
    main()
