"""What the cheap settings of guidance give away against guidance at its full cost.

    python benchmarks/full_cost.py --images 96 --json full_cost.json
    python benchmarks/full_cost.py --systems C --lengths 0 0.5 2.25 0.05

The packaged recipes draw the same requests with their own settings and with dearer ones: gradients
through the full decoder, through the denoiser, in every step (each a proportionally shorter move;
A's recipe makes up for its cheap ones by moves twice as long in all). Measured on the finished
8-bit images: the score under the model that guided and under held-out ones of another
architecture, and whether a model that was trained on thousands of images confirms the label;
differences from the full cost are paired by image, with normal intervals of 95 %. Beside it
the cosine of the gradients, per image and step, on the same unguided trajectory. With ``--lengths``
it is the recipe's own setting of C with moves of the text of other lengths, and the last of these
stands for the full cost.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from activegen.data.images import RealImages
from activegen.data.world import read_world
from activegen.diffusion.sampling import Batch, Move, Steering, Term
from activegen.guidance import Ascend, Every, MemoryBank
from activegen.guidance.windows import During
from activegen.loop.classifying import encoded
from activegen.loop.generating import Generator
from activegen.loop.parts import Learners
from activegen.loop.proposing import PLAIN, Origin
from activegen.recipes.environment import environment
from activegen.recipes.loading import load
from activegen.recipes.run import Run
from activegen.records import Request, TaskModel
from activegen.scores import SCORES, consensus
from activegen.tasks.committee import Committee
from activegen.zoo.card_scenes import JUDGE, tensors
from activegen.zoo.domains import rendered_scenes
from activegen.zoo.networks import real_pool, trained

FULL = "full cost"
C, A = "guidance.adversarial.1.ascend", "guidance.guided.0.ascend"
EACH_A = [f"{A}.every=1", f"{A}.step={0.18 / 9}"]  # of the steps of the recipe's window
WHOLE_C = [f"{C}.objectives.{one}.during=[0,1]" for one in ("0.repulsion", "1.adversarial")]


@dataclass(frozen=True)
class Subject:
    """A recipe and its settings, from cheap to dear.

    Args:
        recipe: a packaged one.
        way: of its guidance.
        score: that the guidance raises.
        held_out: architecture of the models that did not guide.
        judge: of the judge; no network that the generator's decoder was trained to please.
        variants: overrides by name; the last is the full cost.
    """

    recipe: str
    way: str
    score: str
    held_out: str
    judge: str
    variants: Mapping[str, Sequence[str]]


SUBJECTS = {
    "C": Subject(
        "demo",
        "adversarial",
        "cross_entropy",
        "timm:resnet10t",
        "timm:resnet18",
        {
            "no gradient": [f"{C}.step=0"],
            "default": [],
            "full decoder": ["model.decoder=full"],
            "every step": [*WHOLE_C, f"{C}.step={0.05 * 4 / 15}"],
            FULL: ["model.decoder=full", *WHOLE_C, f"{C}.step={0.05 * 4 / 15}"],
        },
    ),
    "A": Subject(
        "demo_segmentation",
        "guided",
        "disagreement",
        "smp:unet/resnet18",
        JUDGE,
        {
            "default": [],
            "half as long": [f"{A}.step=0.045"],
            "half as long again": [f"{A}.step=0.135"],
            "linear decoder": ["model.decoder=linear", *EACH_A],
            "every step": EACH_A,
            "through the denoiser": [*EACH_A, f"{A}.through=denoiser"],
            "through half of it": [*EACH_A, f"{A}.through=conditional"],
            FULL: [*EACH_A, f"{A}.through=denoiser", f"{A}.during=[0,1]", f"{A}.step={0.18 / 15}"],
        },
    ),
}


class Noting:
    """A term that moves nothing and keeps the gradients that it is given."""

    def __init__(self, inner: Term):
        self.inner, self.gradients = inner, {}

    def begin(self, batch: Batch) -> Steering:
        steering = self.inner.begin(batch)

        def note(estimate: Any, gradient: Tensor) -> Move:
            self.gradients[estimate.level.index] = gradient.flatten(1).clone()
            return Move()

        steering.move = note  # type: ignore[method-assign]
        return steering


def climbs(term: Any) -> bool:
    while isinstance(term, (During, Every)):
        term = term.inner
    return isinstance(term, Ascend)


def generator(run: Run, learners: Learners, folder: Path, way: str) -> Generator:
    model = run.model()
    return Generator(
        task=run.task,
        model=model,
        sampling=run.recipe.sampling,
        steering={PLAIN: [], way: run.ways(learners)[way]},
        real=run.data.train,
        learner=learners.main,
        decoder=run.decoder(model, folder),
    )


def pieces(requests: list[Request], size: int = 32) -> list[list[Request]]:
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def drawn(drawing: Generator, requests: list[Request]) -> tuple[Tensor, float]:
    """8-bit images, and the seconds they took."""
    begun = time.perf_counter()
    images = torch.cat([drawing.draw(some).images for some in pieces(requests)])
    return (images * 255).round().to(torch.uint8), time.perf_counter() - begun


def gradients(drawing: Generator, requests: list[Request], way: str) -> dict[int, Tensor]:
    """By step, of the first requests, on the trajectory without guidance."""
    found: dict[int, list[Tensor]] = {}
    for some in pieces(requests):
        notes = [Noting(term) for term in drawing.steering[way] if climbs(term)]
        replace(drawing, steering={way: notes}).draw(some)
        for step, gradient in notes[0].gradients.items():
            found.setdefault(step, []).append(gradient)
    return {step: torch.cat(of) for step, of in found.items()}


def cosines(ours: dict[int, Tensor], theirs: dict[int, Tensor]) -> dict[int, float]:
    """Mean over images that have a gradient, by step that both have."""
    found = {}
    for step in sorted(set(ours) & set(theirs)):
        a, b = ours[step], theirs[step]
        there = a.any(1) & b.any(1)
        if there.any():
            found[step] = float(F.cosine_similarity(a[there], b[there]).mean())
    return found


@torch.inference_mode()
def values(score: str, task: TaskModel, images: Tensor, targets: Tensor) -> np.ndarray:
    seen = task.predict(images.float() / 255)
    return SCORES[score](seen, targets.long().to(seen.logits.device)).double().cpu().numpy()


@torch.inference_mode()
def confirmed(judge: TaskModel, images: Tensor, targets: Tensor) -> np.ndarray:
    """Of each image: is it what was asked for, or the share of its pixels that are."""
    seen = consensus(judge.predict(images.float() / 255).logits).argmax(1).cpu()
    return (seen == targets).flatten(1).double().mean(1).numpy()


def few(run: Run) -> Any:
    return run.task.gathered(run.data.train)


def many(subject: Subject) -> Any:
    """Thousands of images for the judge, rare kinds too."""
    if subject.recipe == "demo":
        tiles = read_world("", "judge", count=300)
        images = torch.stack([tiles.image(at) for at in range(len(tiles))])
        return real_pool(images, torch.tensor(tiles.labels))
    return real_pool(*tensors(rendered_scenes(3000, 12)))


def measure(subject: Subject, count: int, folder: Path, steps: tuple[int, int]) -> dict[str, Any]:
    sets = ["seed=0", f"training.steps={steps[0]}"]
    run = Run(load(subject.recipe, sets), folder / "run")
    run.check()
    pool, classes = few(run), len(run.data.train.classes)
    device = str(run.learner_device)
    learner = run.learner()
    learner.train(pool, steps[0])
    halves = [pool.subset(torch.arange(k, len(pool), 2)) for k in (0, 1)]
    mates = [trained(half, classes, steps[0], device, f"mate {k}") for k, half in enumerate(halves)]
    others = [
        trained(half, classes, steps[0], device, f"other {k}", subject.held_out)
        for k, half in enumerate([pool, *halves])
    ]
    judge = trained(many(subject), classes, steps[1], device, "judge", subject.judge)
    bank = MemoryBank()
    if isinstance(of := run.data.train, RealImages):
        latents = encoded(of.ids, run.model(), of)
        bank = MemoryBank.of(list(zip(of.labels, latents, strict=True)))
    learners = Learners(learner.averaged, (learner.averaged, *mates), bank)
    judged = run.task.judged(learner.averaged, run.data.train)
    rng = np.random.default_rng(0)
    task = run.task.only_guided(count)
    plan = task.propose(judged, run.data.train, 1.0, Origin(0, "measured", "0"), rng)[:count]
    plan = [replace(request, steering=subject.way) for request in plan]
    plain = [replace(request, steering=PLAIN) for request in plan]
    if not run.recipe.segmentation:  # whose reference is the mask
        plain = [replace(request, reference="") for request in plain]
    committee = subject.score == "disagreement"
    guiding = Committee(learners.committee) if committee else learner.averaged
    held_out = Committee(tuple(others)) if committee else others[0]

    images: dict[str, Tensor] = {}
    seconds: dict[str, float] = {}
    directions: dict[str, dict[int, Tensor]] = {}
    targets = torch.empty(0)
    for name, changes in subject.variants.items():
        variant = Run(load(subject.recipe, [*sets, *changes]), folder / "run")
        drawing = generator(variant, learners, folder, subject.way)
        if not images:
            blank = torch.zeros(len(plan), 3, *run.model().size, dtype=torch.uint8)
            made = run.task.finished(blank, None, plan, run.data.train)
            targets = torch.stack([of.target for of in made])
            drawn(drawing, plain[:32])  # warms up
            images["unguided"], seconds["unguided"] = drawn(drawing, plain)
        images[name], seconds[name] = drawn(drawing, plan)
        directions[name] = gradients(drawing, plan[:32], subject.way)
    rows, dearest = {}, list(subject.variants)[-1]
    measures = {
        "guiding": lambda of: values(subject.score, guiding, of, targets),
        "held_out": lambda of: values(subject.score, held_out, of, targets),
        "label": lambda of: confirmed(judge, of, targets),
    }
    per_image = {
        name: {key: find(of) for key, find in measures.items()} for name, of in images.items()
    }
    for name, of in per_image.items():
        row: dict[str, Any] = {
            "seconds": seconds[name],
            "ratio": seconds[name] / seconds["unguided"],
        }
        for key, found in of.items():
            away = found - per_image[dearest][key]
            reach = 1.96 * away.std(ddof=1) / len(away) ** 0.5
            row[key] = {
                "mean": float(found.mean()),
                "gain": float((found - per_image["unguided"][key]).mean()),
                "from_full": [float(away.mean() + k * reach) for k in (0, -1, 1)],
            }
        if name in directions:
            row["cosine"] = cosines(directions[name], directions[dearest])
        rows[name] = row
    return {"recipe": subject.recipe, "score": subject.score, "images": len(plan), "rows": rows}


def table(measured: Mapping[str, Any]) -> str:
    lines = [f"{measured['recipe']}: {measured['score']}, {measured['images']} images"]
    lines.append(
        f"{'':22}{'ratio':>6} {'guiding':>8} {'held out':>9} {'label':>6}   "
        "guiding, from full cost       held out                      label                  cosine"
    )
    for name, row in measured["rows"].items():
        parts = [f"{name:22}{row['ratio']:6.2f} {row['guiding']['mean']:8.4f}"]
        parts.append(f" {row['held_out']['mean']:9.4f} {row['label']['mean']:6.3f}  ")
        for key in ("guiding", "held_out", "label"):
            mean, low, high = row[key]["from_full"]
            parts.append(f" {mean:+.4f} ({low:+.4f} to {high:+.4f})")
        cosine = row.get("cosine")
        parts.append(f"  {statistics.fmean(cosine.values()):.2f}" if cosine else "")
        lines.append("".join(parts))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--systems", nargs="+", default=list(SUBJECTS), choices=list(SUBJECTS))
    parser.add_argument("--variants", nargs="+", help="of these alone, and the full cost")
    parser.add_argument("--steps", type=int, default=300, help="of the learner and its like")
    parser.add_argument("--judge-steps", type=int, default=800)
    parser.add_argument("--lengths", type=float, nargs="+", help="of C's moves of the text")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    subjects, found = dict(SUBJECTS), {}
    if given.lengths:
        steps = {f"step {length:g}": [f"{C}.step={length}"] for length in given.lengths}
        subjects["C"] = replace(SUBJECTS["C"], variants=steps)
    for name in given.systems if given.variants else ():
        of = subjects[name].variants
        kept = {key: of[key] for key in of if key in given.variants or key == list(of)[-1]}
        subjects[name] = replace(subjects[name], variants=kept)
    for name in given.systems:
        with tempfile.TemporaryDirectory() as folder:
            steps = (given.steps, given.judge_steps)
            found[name] = measure(subjects[name], given.images, Path(folder), steps)
        print(table(found[name]), flush=True)
    if given.json:
        about = {"environment": environment(), "options": vars(given)}
        given.json.write_text(json.dumps(about | {"systems": found}, indent=1, default=str))


if __name__ == "__main__":
    main()
