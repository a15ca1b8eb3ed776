"""Why arms came out as they did: what a model sees in their images that had no part in any of them.

```
<out>/held_out/<id>.safetensors                that model, trained once for all seeds and arms
<out>/held_out/<id>.json                       what it makes of the real test images
<out>/seed-<seed>/arms/<arm>/diagnostics.json  what it sees in an arm's synthetic images
```

All of it is made from the stores, so a comparison that is finished can be looked into later, and
a call that was stopped goes on.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import compress
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from activegen.data.images import RealImages
from activegen.data.scenes import Real
from activegen.data.splits import few_shot
from activegen.loop.doubts import UNBELIEVED
from activegen.proof.diagnostics import Labelled, diversity, kernel_distance, resemblance
from activegen.recipes.data import at_most, contents, read_split
from activegen.recipes.progress import Event, Observer, WatchedLearner, silent
from activegen.recipes.run import Run
from activegen.recipes.schema import SplitSpec
from activegen.recipes.verdicts import jsonable
from activegen.recipes.weights import by_content
from activegen.records import Sample, UserError, Verdict, fingerprint
from activegen.scores import cross_entropy, entropy
from activegen.store import Store
from activegen.store.files import Files, open_folder, parse_json
from activegen.tasks.fidelity import NEIGHBOURS, fidelity
from activegen.tasks.learner import TrainSettings, weights_hash
from activegen.tasks.networks import ELSEWHERE, build
from activegen.tasks.pool import Pool
from activegen.tasks.seeding import seeded
from activegen.tasks.segmenters import build_segmenter
from activegen.tasks.task_network import TaskNetwork

FILE, FOLDER = "diagnostics.json", "held_out"
NETWORKS = {  # the first that an arm does not use itself
    False: ("timm:test_resnet", "timm:resnet10t", "small"),
    True: ("smp:linknet/resnet18", "smp:unet/resnet18", "small"),
}
# layouts that give any number of images that no arm sees, rare kinds too: split, options
FRESH: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "world": ("judge", {}),
    "world_scenes": ("judge", {}),
    "mosaics": ("train", {"tail": True, "seed": 1_000_003}),
}
FEWEST = 10  # images of each class (of masks: in all) without which the arms' own are taken too
METHOD = 3  # of measuring; another is measured again
T = TypeVar("T")


@dataclass(frozen=True)
class HeldOutSettings:
    """The model that had no part in any arm. All numbers are ours.

    Args:
        judge: a network's name, "timm:local-dir:<folder>" with its weights; or a safetensors file
            that says ``network`` and ``classes``, as a run's ``model.safetensors`` does. "" takes
            the first of `NETWORKS` that is neither the learner's nor the judge's.
        fresh: images to train it on of a layout that renders them.
        found: images to train it on of any other, at most.
        steps: of its training, at least; the recipe's where those are more.
        measured: synthetic images of an arm, and real ones, whose features are compared, at most.
    """

    judge: str = ""
    fresh: int = 4000
    found: int = 20_000
    steps: int = 1500
    measured: int = 2000


@dataclass(frozen=True)
class HeldOut:
    """The model.

    Args:
        network: in evaluation mode.
        id: names its weights.
        about: what it was trained on, JSON-able.
    """

    network: TaskNetwork
    id: str
    about: Mapping[str, Any]


def diagnose(
    runs: Mapping[int, Run],
    folder: Path,
    test_set: str,
    settings: HeldOutSettings | None = None,
    observer: Observer = silent,
) -> dict[str, Any]:
    """Of each finished arm that has synthetic images; JSON-able.

    Args:
        runs: by seed, all of one recipe.
        folder: of the comparison.
        test_set: fingerprint of the test images, the same in all runs.
        settings: of the held-out model.
        observer: is told arms done and in all.

    Returns:
        "judge": the held-out model, and what it makes of the real test images; "arms": by name
        "means" over the seeds and what each of the "seeds" has, see `measured`.

    Raises:
        UserError: there is no such model, or it is one that an arm uses itself.
    """
    settings = settings or HeldOutSettings()
    first = next(iter(runs.values()))
    judge = held_out(first, list(runs), folder, settings, observer)
    todo = [
        (seed, arm, store, _spread(_accepted(store), settings.measured))
        for seed, run in runs.items()
        for arm, of in run.recipe.arms.items()
        if of.generate != "none" and run.finished(arm)
        for store in [Store(str(run.folder / "arms" / arm / "store"))]
    ]
    equal = min((len(ids) for *_, ids in todo if len(ids) > NEIGHBOURS), default=0)
    beside = Beside(first, judge, settings.measured, equal)
    files, name = open_folder(str(folder / FOLDER)), f"{judge.id}.json"
    same = [METHOD, judge.id, test_set, settings.measured, equal]
    about = _kept(files, name, fingerprint(same), lambda: {**judge.about, **beside.figures})
    by_arm: dict[str, dict[int, dict[str, Any]]] = {}
    for done, (seed, arm, store, ids) in enumerate(todo):
        observer(Event("diagnose", done + 1, len(todo)))
        looking = partial(measured, runs[seed], arm, store, ids, beside)
        of = open_folder(str(runs[seed].folder / "arms" / arm))
        by_arm.setdefault(arm, {})[seed] = _kept(of, FILE, fingerprint([*same, ids]), looking)
    arms = {arm: {"means": means(list(of.values())), "seeds": of} for arm, of in by_arm.items()}
    return {"judge": about, "arms": arms}


def measured(
    run: Run, arm: str, store: Store, ids: Sequence[str], beside: "Beside"
) -> dict[str, Any]:
    """What the held-out model sees in an arm's images as they are learnt; None where unknown.

    "label_fidelity" and "per_class" are its accuracy (of masks its mIoU) with what was asked for as
    the truth, without pixels that the arm's judge leaves out; "refused_fidelity" is the same of
    images whose label that judge refused, with all pixels. "entropy" and "cross_entropy" are its
    scores, "learner_entropy" and "learner_cross_entropy" those of the learner when the images were
    drawn: steering that raises the learner's alone makes adversarial images, not informative ones.
    "precision", "recall", "density", "coverage", "kid", "nearest" and "diversity" are of its
    features, see ``proof.diagnostics``; of masks features are means over the picture, and diversity
    is that of all pictures together. The first four depend on the number of images: they are those
    of "compared" images, as many of each arm, beside "compared_with" real ones.
    """
    real, refused = run.train(arm), _spread(_refused(store), beside.measured)
    doubtful: dict[str, Any] = {"refused": len(refused), "refused_fidelity": None}
    if refused:
        pool = run.task.synthetic(refused, real)
        found = run.task.evaluated(beside.judge.network, pool)
        doubtful["refused_fidelity"] = found[run.task.figure]
    if not ids:
        return {"images": 0, **doubtful}
    wanted = set(ids)
    accepted = list(store.accepted())
    places = [k for k, (sample, _) in enumerate(accepted) if sample.request.id in wanted]
    pairs = [accepted[place] for place in places]
    pool = run.task.synthetic(accepted, real).subset(torch.tensor(places))
    seen = look(beside.judge.network, pool)
    figures = run.task.evaluated(beside.judge.network, pool)
    told: dict[str, Any] = {
        "images": len(pairs),
        **doubtful,
        "label_fidelity": figures[run.task.figure],
        "per_class": dict(zip(run.data.train.classes, figures["per_class"], strict=True)),
        **seen.means,
    }
    for score in ("entropy", "cross_entropy"):
        own = [sample.scores[score] for sample, _ in pairs if score in sample.scores]
        told[f"learner_{score}"] = fmean(own) if own else None
    train = look(beside.judge.network, run.task.gathered(real)).features
    try:
        alike = resemblance(
            seen.labelled, beside.seen.labelled, train, beside.classes, beside.equal
        )
    except UserError:  # too few images
        return told
    return told | {
        **asdict(alike.fidelity),
        "kid": alike.kid.value,
        "nearest": alike.nearest,
        "diversity": alike.diversity.mean,
        **beside.counts,
    }


def means(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over the seeds that have a number, of each of them; None where none has."""
    names = dict.fromkeys(name for of in seeds for name in of)
    found: dict[str, Any] = {}
    for name in names:
        values = [of[name] for of in seeds if of.get(name) is not None]
        if values and isinstance(values[0], Mapping):
            found[name] = means(values)
        else:
            found[name] = fmean(values) if values else None
    return found


@dataclass(frozen=True)
class Seen:
    """What a model sees in images.

    Args:
        features: of each image.
        labels: class ids; of masks all 0.
        means: over the images: "entropy" and "cross_entropy", in nats.
    """

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    means: Mapping[str, float]

    @property
    def labelled(self) -> Labelled:
        """Features with their classes."""
        return Labelled(self.features, self.labels)


@torch.inference_mode()
def look(network: TaskNetwork, pool: Pool, batch: int = 128) -> Seen:
    """Features, and scores that know the labels.

    Raises:
        UserError: the network has no features.
    """
    device, features = network.mean.device, []
    scored: dict[str, list[Tensor]] = {"entropy": [], "cross_entropy": []}
    for images, labels in zip(pool.images.split(batch), pool.labels.split(batch), strict=True):
        prediction = network.predict(images.to(device).float() / 255)
        if prediction.features is None:
            raise UserError("the held-out judge ends in no linear layer; choose another --judge")
        target = labels.to(device).long()
        features.append(prediction.features[0].unsqueeze(2).flatten(2).mean(2).cpu())
        scored["entropy"].append(entropy(prediction, target).cpu())
        scored["cross_entropy"].append(cross_entropy(prediction, target).cpu())
    classes = pool.labels if pool.labels.ndim == 1 else torch.zeros(len(pool), dtype=torch.int64)
    numbers = {name: float(torch.cat(of).mean()) for name, of in scored.items()}
    return Seen(torch.cat(features), classes, numbers)


@dataclass(frozen=True)
class Beside:
    """Real test images, which generated ones are measured beside and nothing learns from.

    Args:
        run: whose they are.
        judge: sees them.
        measured: features of so many, drawn by chance, are compared, at most.
        equal: generated images of each arm that they are compared with.
    """

    run: Run
    judge: HeldOut
    measured: int
    equal: int

    @property
    def classes(self) -> int:
        """That diversity is measured within."""
        return 1 if self.run.recipe.segmentation else len(self.run.data.train.classes)

    @cached_property
    def _pool(self) -> Pool:
        return self.run.task.gathered(self.run.data.test)

    @cached_property
    def _parts(self) -> list[Seen]:
        """Of some of them, and of as many others as generated ones, where half are left."""
        enough = NEIGHBOURS < self.equal <= len(self._pool) // 2
        order = torch.randperm(len(self._pool), generator=torch.Generator().manual_seed(0))
        some, others = order.tensor_split([len(order) - self.equal * enough])
        parts = [some[: self.measured], others] if enough else [some[: self.measured]]
        return [look(self.judge.network, self._pool.subset(of.sort().values)) for of in parts]

    @property
    def seen(self) -> Seen:
        """Of some of them."""
        return self._parts[0]

    @property
    def counts(self) -> dict[str, int]:
        """Images on either side, which precision, recall, density and coverage depend on."""
        return {"compared": self.equal, "compared_with": len(self.seen.features)}

    @property
    def _alike(self) -> dict[str, Any]:
        """What the others' figures would be if they had been generated."""
        if len(self._parts) < 2:
            return {}
        seen, others = (part.features for part in self._parts)
        distance = kernel_distance(seen, others)
        return {**asdict(fidelity(seen, others)), "kid": distance.value, **self.counts}

    @property
    def figures(self) -> dict[str, Any]:
        """How right the held-out model is on all of them; its scores and their diversity.

        And where there are enough of them precision, recall, density, coverage and KID of some of
        them beside others, at the numbers of images that the arms have: what is best there.
        """
        names = (self.run.task.figure, "ece")
        figures = self.run.task.evaluated(self.judge.network, self._pool)
        classes = self.run.data.train.classes
        return {
            "figure": self.run.task.figure,
            **{name: figures[name] for name in names},
            "per_class": dict(zip(classes, figures["per_class"], strict=True)),
            **self.seen.means,
            "diversity": diversity(self.seen.labelled, self.classes).mean,
            **self._alike,
        }


def check_held_out(run: Run, settings: HeldOutSettings) -> None:
    """Nothing, if there will be a held-out model; `held_out` reads or trains it.

    Raises:
        UserError: there is no such model, or it is one that an arm uses itself.
    """
    if settings.judge.endswith(".safetensors"):
        _from_file(run, Path(settings.judge))
    else:
        _untrained(run, _chosen(run, settings.judge))


def held_out(
    run: Run,
    seeds: Sequence[int],
    folder: Path,
    settings: HeldOutSettings,
    observer: Observer = silent,
) -> HeldOut:
    """The model: read where it is a file, else trained once on real images that no arm has.

    Raises:
        UserError: there is no such model, or it is one that an arm uses itself.
    """
    if settings.judge.endswith(".safetensors"):
        return _from_file(run, Path(settings.judge))
    name = _chosen(run, settings.judge)
    real, own = _unseen(run, seeds, settings)
    training = _training(run, settings)
    size, classes = run.recipe.data.height_width, real.classes
    made_of = [by_content(name), repr(training), size, classes, fingerprint(list(real.ids))]
    id = fingerprint(made_of)
    files, file = open_folder(str(folder / FOLDER)), f"{id}.safetensors"
    network = _untrained(run, name).to(run.device)
    if file in files.names():
        about = _read(network, Path(files.path(file)))
        return HeldOut(network.eval(), id, json.loads(about["about"]))
    tested = set(contents(run.data.test).values())
    fine = [content not in tested for content in contents(real).values()]
    real = real.subset(compress(range(len(real)), fine))
    tell = lambda *n: observer(Event("held_out", *n))  # noqa: E731
    learner = WatchedLearner(network, training, run.device, tell)
    learner.train(run.task.gathered(real), training.steps)
    about = {"network": name, "images": len(real), "own": own, "steps": training.steps}
    state = {k: v.cpu().contiguous() for k, v in learner.averaged.state_dict().items()}
    files.write(file, save(state, _metadata(name, classes) | {"about": json.dumps(about)}))
    return HeldOut(learner.averaged, id, about)


def _training(run: Run, settings: HeldOutSettings) -> TrainSettings:
    """The recipe's, whatever its seed is, for longer."""
    usual = run.recipe.training
    steps = max(settings.steps, usual.steps)
    return replace(usual, steps=steps, warmup_steps=min(usual.warmup_steps, steps), seed=0)


def _unseen(run: Run, seeds: Sequence[int], settings: HeldOutSettings) -> tuple[Real, bool]:
    """Labelled real images that no arm has with any seed; whether the arms' own had to do."""
    spec, classes = run.recipe.data, run.data.train.classes
    layout, path, options = spec.of(spec.train)
    of_class = isinstance(run.data.train, RealImages)
    if layout in FRESH:
        split, more = FRESH[layout]
        per_class = layout == "world"
        count = max(settings.fresh // (len(classes) if per_class else 1), 1)
        options = {k: v for k, v in options.items() if k != "tail"}
        options |= {"count": count, **more}
        there = SplitSpec(split=split, layout=layout, path=path, options=options)
        return read_split(spec, there), False
    whole = run.data.whole
    limit = max(settings.found // (len(classes) if of_class else 1), 1)
    if run.data.few is None:
        return at_most(whole, limit), True
    most = run.data.few + max(of.more_real for of in run.recipe.arms.values())
    used = {id for seed in seeds for id in few_shot(whole, most, seed).ids}
    rest = whole.subset(k for k, id in enumerate(whole.ids) if id not in used)
    fewest = min(map(len, rest.by_class().values())) if isinstance(rest, RealImages) else len(rest)
    own = fewest < FEWEST
    return at_most(whole if own else rest, limit), own


def _chosen(run: Run, name: str) -> str:
    used = {run.recipe.learner.network, run.judging.network}
    if not name:
        masks = run.recipe.segmentation is not None
        return next(network for network in NETWORKS[masks] if network not in used)
    return _other(run, name)


def _other(run: Run, name: str) -> str:
    if name in (run.recipe.learner.network, run.judging.network):
        raise UserError(
            f"--judge is '{name}', which the arms use themselves; a held-out judge must be of "
            "another architecture than the learner and the recipe's judge"
        )
    return name


def _from_file(run: Run, file: Path) -> HeldOut:
    try:
        with safe_open(str(file), framework="pt") as weights:
            about = weights.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"--judge: '{file}' holds no safetensors weights: {error}") from error
    known = _metadata(about.get("network", ""), run.data.train.classes)
    if about.get("classes") != known["classes"] or not known["network"]:
        raise UserError(
            f"--judge: '{file}' does not say that it is a network for the classes "
            f"{', '.join(run.data.train.classes)}; its metadata needs 'network', and 'classes' as "
            "a list in JSON"
        )
    network = _untrained(run, _other(run, about["network"])).to(run.device)
    _read(network, file)
    return HeldOut(network.eval(), weights_hash(network), {"network": about["network"]})


def _metadata(network: str, classes: Sequence[str]) -> dict[str, str]:
    return {"network": network, "classes": json.dumps(list(classes))}


def _read(network: TaskNetwork, file: Path) -> dict[str, str]:
    """Puts weights into the network; what stands beside them in the file.

    Raises:
        UserError: they are another network's.
    """
    try:
        with safe_open(str(file), framework="pt") as weights:
            network.load_state_dict({name: weights.get_tensor(name) for name in weights.keys()})
            return weights.metadata() or {}
    except (RuntimeError, OSError, SafetensorError) as error:
        raise UserError(f"'{file}' has other weights than the held-out judge's: {error}") from error


def _untrained(run: Run, name: str) -> TaskNetwork:
    count, size = len(run.data.train.classes), run.recipe.data.height_width
    pretrained = name.removeprefix("timm:").startswith(ELSEWHERE)
    with seeded(0, "held out"):
        if run.recipe.segmentation is None:
            return build(name, count, size[0], pretrained)
        return build_segmenter(name, count, size)


def _accepted(store: Store) -> list[str]:
    verdicts = (v for k in store.rounds() for v in store.round(k).verdicts() or [])
    return [verdict.id for verdict in verdicts if verdict.accepted]


def _refused(store: Store) -> list[tuple[Sample, Verdict]]:
    """Samples whose label the arm's judge did not believe, with no pixel left out."""
    found = []
    for number in store.rounds():
        round = store.round(number)
        verdicts = {v.id: v for v in round.verdicts() or [] if v.reason in UNBELIEVED}
        for sample in round.samples() if verdicts else ():
            if verdict := verdicts.get(sample.request.id):
                found.append((sample, replace(verdict, ignored=b"")))
    return found


def _spread(items: Sequence[T], count: int) -> list[T]:
    """At most so many, evenly over the rounds."""
    if len(items) <= count:
        return list(items)
    places = np.linspace(0, len(items) - 1, count).round().astype(int)
    return [items[int(at)] for at in places]


def _kept(
    files: Files, name: str, of: str, make: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """What the file holds if it is of this; else it is made and written."""
    text = files.read(name)
    known = parse_json(text, files.path(name)) if text else {}
    if known.get("of") != of:
        known = {"of": of, "figures": jsonable(make())}
        files.write(name, json.dumps(known, indent=1, ensure_ascii=False).encode())
    return known["figures"]
