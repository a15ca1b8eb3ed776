"""Why generated images help no more: their labels, the autoencoder, or their share of a batch?

    activegen compare eurosat ... --out runs/mine
    python benchmarks/causes.py runs/mine --arm unguided --out runs/causes

For each seed of a comparison of classifiers a new learner is trained, all steps, on the arm's real
images and

- what the arm generated, as it is, and as a tenth of each batch;
- what of it a judge confirms that learnt from thousands of labelled real images (no user has it:
  what a perfect judge could give), and all of it with the labels that this judge gives;
- as many other real images, of each class as many, as they are and through the generator's
  autoencoder: what images without any error of drawing could give.

The figure is the accuracy on ``--split``, by default "val": test images stay those of comparisons.
What was trained before is kept.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch

from activegen.data.images import RealImages
from activegen.proof.statistics import compare
from activegen.recipes import Run, load
from activegen.recipes.data import at_most, read_split
from activegen.report.words import percent
from activegen.store import Store
from activegen.tasks.evaluate import Evaluation, evaluate
from activegen.tasks.learner import Learner
from activegen.tasks.pool import Pool

ALONE, AS_IS = "real images alone", "+ generated"


class Causes:
    """The pools of one seed, and what comes of learning from them.

    Args:
        run: of the seed.
        arm: that generated.
        options: of the command line.
    """

    def __init__(self, run: Run, arm: str, options: argparse.Namespace):
        if run.recipe.segmentation is not None:
            raise SystemExit("causes.py is for classifiers; this comparison is of masks")
        self.run, self.options = run, options
        self.real = run.task.gathered(run.data.train)
        store = Store(str(run.folder / "arms" / arm / "store"))
        self.generated = run.task.synthetic(list(store.accepted()), run.data.train)
        spec = run.recipe.data
        test = read_split(spec, spec.test.model_copy(update={"split": options.split}))
        self.test = run.task.gathered(at_most(test, options.test))
        assert isinstance(run.data.whole, RealImages)
        self.whole = run.data.whole

    def others(self) -> list[int]:
        """Places of the images that no learner has, in an order of the seed."""
        seen = set(self.run.data.train.ids)
        rng = torch.Generator().manual_seed(self.run.recipe.seed)
        order = torch.randperm(len(self.whole), generator=rng).tolist()
        return [place for place in order if self.whole.ids[place] not in seen]

    def more_real(self) -> Pool:
        """Other real images, as many as were generated, taken for synthetic ones."""
        classes = len(self.whole.classes)
        left = [len(self.generated) // classes] * classes
        places = []
        for place in self.others():
            if left[self.whole.labels[place]]:
                left[self.whole.labels[place]] -= 1
                places.append(place)
        pool = self.run.task.gathered(self.whole.subset(places))
        return replace(pool, synthetic=torch.ones(len(pool), dtype=torch.bool))

    @torch.inference_mode()
    def decoded(self, pool: Pool) -> Pool:
        """The same through the autoencoder."""
        model, images = self.run.model(), []
        for some in pool.images.split(32):
            latents = model.encode(some.to(model.device).float() / 255)
            pictures = model.decode(latents).clamp(0, 1) * 255
            images.append(pictures.round().to(torch.uint8).cpu())
        return replace(pool, images=torch.cat(images))

    @cached_property
    def judged(self) -> Evaluation:
        """What a judge of many real images sees in what was generated."""
        places = self.others()[: self.options.judge_images]
        settings = replace(
            self.run.recipe.training, steps=self.options.judge_steps, synthetic_share=None
        )
        learner = Learner(self.run.network(), settings, self.run.device)
        learner.train(self.run.task.gathered(self.whole.subset(places)), settings.steps)
        judge = learner.averaged
        right = evaluate(judge, self.test.images, self.test.labels).accuracy
        seen = evaluate(judge, self.generated.images, self.generated.labels)
        confirmed = percent(seen.accuracy)
        print(f"a judge that is right on {percent(right)} confirms {confirmed}", flush=True)
        return seen

    def pools(self) -> dict[str, tuple[Callable[[], Pool], float | None]]:
        """What is learnt beside the real images, and its share of each batch, None as usual."""
        generated = self.generated

        def confirmed() -> Pool:
            right = self.judged.predictions == generated.labels
            return generated.subset(right.nonzero().flatten())

        def relabelled() -> Pool:
            return replace(generated, labels=self.judged.predictions)

        return {
            ALONE: (lambda: generated.subset(torch.zeros(0, dtype=torch.int64)), None),
            AS_IS: (lambda: generated, None),
            f"{AS_IS}, a tenth of each batch": (lambda: generated, 0.1),
            f"{AS_IS}, confirmed": (confirmed, None),
            f"{AS_IS}, relabelled": (relabelled, None),
            "+ other real, autoencoded": (lambda: self.decoded(self.more_real()), None),
            "+ other real": (self.more_real, None),
        }

    def figure(self, pool: Pool, share: float | None) -> float:
        """Accuracy of a learner of the real images and the pool."""
        settings = replace(self.run.recipe.training, seed=self.run.recipe.seed)
        if share is not None:
            settings = replace(settings, synthetic_share=share)
        learner = Learner(self.run.network(), settings, self.run.device)
        learner.train(self.real + pool, settings.steps)
        return evaluate(learner.averaged, self.test.images, self.test.labels).accuracy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", type=Path, help="its folder")
    parser.add_argument("--arm", default="unguided")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", default="val")
    parser.add_argument("--test", type=int, default=200, help="images of each class")
    parser.add_argument("--judge-images", type=int, default=4000)
    parser.add_argument("--judge-steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "causes.json"
    asked = {k: str(v) for k, v in vars(options).items() if k not in ("seeds", "out")}
    kept = json.loads(file.read_text()) if file.exists() else {"asked": asked, "figures": {}}
    if kept["asked"] != asked:
        raise SystemExit(f"{file} answers other questions, {kept['asked']}; give another --out")
    found = kept["figures"]
    for seed in options.seeds:
        folder = options.comparison / f"seed-{seed}"
        causes = Causes(Run(load(str(folder / "recipe.yaml")), folder), options.arm, options)
        for name, (pool, share) in causes.pools().items():
            of = found.setdefault(name, {})
            if str(seed) not in of:
                of[str(seed)] = causes.figure(pool(), share)
                file.write_text(json.dumps(kept, indent=1))
            print(f"seed {seed}, {name}: {percent(of[str(seed)])}", flush=True)
    figures = {name: {int(k): v for k, v in of.items()} for name, of in found.items()}
    for name in figures:
        if name != ALONE:
            print(compare(figures, name, ALONE).words)


if __name__ == "__main__":
    main()
