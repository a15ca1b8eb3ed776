"""Measures the embedded generator: ``python -m activegen.zoo.card --eurosat DIR`` writes its card.

Real *test* images are read here for the reported figures, and by nothing that trains or tunes the
generator.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from activegen.diffusion.sampling import Batch, Sampling, sample, seeded
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.tasks.evaluate import evaluate
from activegen.tasks.fidelity import fidelity, nearest_ratio
from activegen.tasks.pool import Pool
from activegen.tasks.task_network import TaskNetwork
from activegen.zoo import LAND_COVER, world
from activegen.zoo.domains import EUROSAT_TEMPLATE, EUROSAT_WORDS, Domain, eurosat, rendered
from activegen.zoo.networks import real_pool, trained

SAMPLING = Sampling(num_steps=15, cfg_scale=2.0)
CARD = """# land_cover: a small latent diffusion model

Draws 64-pixel pictures of two domains that prompts tell apart: the rendered land-cover world
("a rendered tile of a forest") and Sentinel-2 tiles ("a satellite photo of a forest"). In the
layout of diffusers; `StableDiffusionPipeline` loads it as it is.

Trained by `python -m activegen.zoo.train` on tiles that the package renders and on the *train* rows
of EuroSAT (Helber et al. 2019, arXiv 1709.00029; MIT, contains modified Copernicus Sentinel data),
the CoOp split. No pretrained weights went in. Apache-2.0, as the package. {training}

Measured by `python -m activegen.zoo.card` on real *test* rows and on unseen tiles: {images}
generated images per domain, {sampling[num_steps]} steps, `cfg_scale` {sampling[cfg_scale]}, seeds
0 and up;
classifiers are our `small` network after {steps} steps, one seed.

{table}

Precision, recall, density and coverage are in the features of the real-trained classifier. The
decoder was trained on features of classifiers of this same architecture, other weights, so figures
that a `small` network measures favour it.

`checksums.json` has the SHA-256 of each weights file.
"""


@dataclass(frozen=True)
class Subject:
    """One domain to measure.

    Args:
        name: of the domain.
        classes: their names.
        template: of the prompts, with ``{word}``.
        words: by class name.
        train: what the generator learned from.
        test: what it did not see.
    """

    name: str
    classes: tuple[str, ...]
    template: str
    words: dict[str, tuple[str, ...]]
    train: Domain
    test: Domain


def draw(
    model: StableDiffusion, subject: Subject, count: int, sampling: Sampling, batch: int = 50
) -> Pool:
    """``count`` generated images, classes and wordings in turn."""
    images, labels = [], torch.arange(count) % len(subject.classes)
    for start in range(0, count, batch):
        numbers = range(start, min(start + batch, count))
        words = []
        for number in numbers:
            options = subject.words[subject.classes[number % len(subject.classes)]]
            words.append(options[number // len(subject.classes) % len(options)])
        prompts = [subject.template.format(word=word) for word in words]
        noise, rngs = seeded(list(numbers), model.noise_shape)
        conditioning = model.condition(prompts, words)
        target = labels[start : start + len(words)].to(model.device)
        drawn = sample(Batch(model, sampling, noise.to(model.device), rngs, conditioning, target))
        images.append((drawn.images * 255).round().to(torch.uint8).cpu())
    return Pool(torch.cat(images), labels, torch.ones(count), torch.ones(count, dtype=torch.bool))


def measure(
    model: StableDiffusion, subject: Subject, count: int, steps: int, sampling: Sampling
) -> tuple[dict[str, Any], Pool]:
    """The figures of one domain, and the images that they are about."""
    device = str(model.device)
    started = time.perf_counter()
    drawn = draw(model, subject, count, sampling)
    seconds = time.perf_counter() - started
    train, test = _pool(subject, subject.train), _pool(subject, subject.test)
    by_generated = trained(drawn, len(subject.classes), steps, device, "card")
    by_real = trained(train, len(subject.classes), steps, device, "card")
    real_features = _features(by_real, test.images[_some(test, 2000)])
    generated_features = _features(by_real, drawn.images[:2000])
    train_features = _features(by_real, train.images[_some(train, 4000)])
    figures = {
        "images": count,
        "images_per_second": round(count / seconds, 1),
        "classifier_steps": steps,
        "reconstruction_psnr": psnr(model, test.images[_some(test, 500)]),
        "accuracy_trained_on_generated": _accuracy(by_generated, test),
        "accuracy_trained_on_real": _accuracy(by_real, test),
        "labels_confirmed_by_real_trained": _accuracy(by_real, drawn),
        "fidelity": asdict(fidelity(real_features, generated_features)),
        "nearest_train_distance_ratio": nearest_ratio(
            generated_features, real_features, train_features
        ),
    }
    return figures, drawn


def grid(pool: Pool, classes: int, columns: int, path: Path) -> None:
    """Rows are classes."""
    rows = [pool.images[pool.labels == k][:columns] for k in range(classes)]
    picture = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(path, optimize=True)


def readme(card: dict[str, Any]) -> str:
    """The card for people; Markdown."""
    rows = [
        ("autoencoder, PSNR of unseen images, dB", "reconstruction_psnr"),
        ("accuracy on real test images, trained on generated", "accuracy_trained_on_generated"),
        ("the same of a classifier of real ones", "accuracy_trained_on_real"),
        ("labels of generated images that the latter confirms", "labels_confirmed_by_real_trained"),
        (
            "distance to the nearest training image, over unseen ones'",
            "nearest_train_distance_ratio",
        ),
    ]
    domains = [name for name in ("eurosat", "world") if name in card]
    lines = ["| | " + " | ".join(domains) + " |", "|---" * (1 + len(domains)) + "|"]
    for text, key in rows:
        lines.append(f"| {text} | " + " | ".join(f"{card[d][key]:.3f}" for d in domains) + " |")
    for key in ("precision", "recall", "density", "coverage"):
        values = " | ".join(f"{card[d]['fidelity'][key]:.3f}" for d in domains)
        lines.append(f"| {key} | {values} |")
    first = card[domains[0]]
    return CARD.format(
        table="\n".join(lines), images=first["images"], steps=first["classifier_steps"], **card
    )


def _pool(subject: Subject, domain: Domain) -> Pool:
    images = torch.from_numpy(np.ascontiguousarray(domain.images)).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor([subject.classes.index(label) for label in domain.labels])
    return real_pool(images, labels)


def _some(pool: Pool, count: int) -> Tensor:
    return torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))[:count]


def _accuracy(model: TaskNetwork, pool: Pool) -> float:
    return round(evaluate(model, pool.images, pool.labels).accuracy, 4)


@torch.inference_mode()
def _features(model: TaskNetwork, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
    parts = []
    for part in images.split(256):
        features = model.predict(part.to(model.mean.device) / 255).features
        assert features is not None
        parts.append(features[0].cpu())
    return torch.cat(parts)


@torch.inference_mode()
def psnr(model: StableDiffusion, images: UInt8[Tensor, "n 3 h w"]) -> float:
    """Mean over images, in dB."""
    values = []
    for part in images.split(100):
        real = part.to(model.device) / 255
        again = model.decode(model.encode(real))
        values.append(-10 * torch.log10((real - again).square().flatten(1).mean(1)))
    return round(float(torch.cat(values).mean()), 2)


def _measured_before(folder: Path, weights: str) -> dict[str, Any]:
    """The domains of the card that stands there, if it speaks of the same weights."""
    file = folder / "card.json"
    card = json.loads(file.read_text()) if file.is_file() else {}
    return card if card.get("weights") == weights else {}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eurosat", type=Path, required=True, help="folder of EuroSAT's parquet")
    parser.add_argument("--model", type=Path, default=LAND_COVER)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--steps", type=int, default=1500, help="of each classifier")
    parser.add_argument("--split", default="test", help="'val' while tuning, 'test' for the card")
    parser.add_argument("--domains", nargs="+", default=["eurosat", "world"])
    parser.add_argument("--training", default="", help="a sentence on how long it was trained")
    parser.add_argument("--dtype", default="float32", help="of the denoiser")
    parser.add_argument("--grids", type=Path, default=Path("docs/images"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    model = StableDiffusion.load(options.model, options.device, getattr(torch, options.dtype))
    satellite = Subject(
        "eurosat",
        tuple(EUROSAT_WORDS),
        EUROSAT_TEMPLATE,
        EUROSAT_WORDS,
        eurosat(options.eurosat),
        eurosat(options.eurosat, options.split),
    )
    world_words = {name: tuple(world.WORDS[name]) for name in world.CLASSES}
    tiles = Subject(
        "world",
        tuple(world.CLASSES),
        world.TEMPLATE,
        world_words,
        rendered(6000, seed=1),
        rendered(2000, seed=2 if options.split == "test" else 3),
    )
    weights = model.made_by()["revision"]
    card: dict[str, Any] = {
        **_measured_before(options.model, weights),
        "weights": weights,
        "sampling": asdict(SAMPLING),
        "split": options.split,
        "training": options.training,
    }
    for subject in (satellite, tiles):
        if subject.name not in options.domains:
            continue
        card[subject.name], drawn = measure(model, subject, options.images, options.steps, SAMPLING)
        if options.split == "test":
            grid(drawn, len(subject.classes), 12, options.grids / f"generated_{subject.name}.png")
        print(subject.name, json.dumps(card[subject.name]), flush=True)
    if options.split == "test":
        (options.model / "card.json").write_text(json.dumps(card, indent=2) + "\n")
        (options.model / "README.md").write_text(readme(card))


if __name__ == "__main__":
    main()
