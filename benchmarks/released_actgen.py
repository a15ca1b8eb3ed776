"""Our guided generation beside the released ActGen generator, with one Stable Diffusion.

    git clone https://github.com/hunto/ActGen
    python benchmarks/released_actgen.py --checkout ActGen [--size toy] [--batch 16] [--json FILE]

Huang et al. (2024), https://arxiv.org/abs/2403.06517; their code (Apache-2.0) is read from the
checkout and runs in a process of its own (``--python`` for another environment). It is adapted on
the way in, see ``released_actgen_worker.py``: the numbers that its text has for steps, sizes,
channels, scale, number format and device, where the model's are others; the driver's counters and
the rank of its process are stand-ins; which gradient an image gets is ours to say; gradient
checkpointing is off, as it was with the libraries of its time.

One Stable Diffusion is built (random weights, or the embedded one), saved once, and read by both.
All draw in turn in every repetition, so that a busy machine slows all alike; a ratio is taken
within a repetition. On a CPU that others use, trust the ratio of processor seconds, best with
OMP_NUM_THREADS=1. Every image is guided, half of them by the contrastive gradient alone and half by
the adversarial one as well: the mix of the released code once its share of plain images is none.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from models import SIZES, model
from PIL import Image
from released_actgen_worker import CFG_SCALE, GENERATOR, WAYS, WHERE, Meter, Settings
from throughput import processor
from torch import Tensor
from torchvision.models import resnet18

from activegen import recipes
from activegen.diffusion.decoders import Decoder, LinearDecoder
from activegen.diffusion.sampling import Batch, Sampling, Term, sample, seeded
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.guidance import (
    Adversarial,
    Ascend,
    Attention,
    During,
    MemoryBank,
    Objective,
    ReferencePull,
    Repulsion,
    Weighted,
)
from activegen.loop.parts import Learners
from activegen.recipes.environment import environment
from activegen.recipes.steering import Models, terms
from activegen.records import TaskModel, UserError, choose
from activegen.tasks.classifier import Classifier

WORKER = Path(__file__).with_name("released_actgen_worker.py")
SEED = 0
BANK = 64
RELEASED = "released, one at a time"
GIB = 2**30

EQUAL = [
    "model, weights, their number format and the device",
    "prompt, its class word, pictures to start from, their number of pixels",
    "DDPM with the checkpoint's noise levels and steps, CFG",
    "the pull towards the reference: its strength in each step, its mask (ones plus attention), "
    "and the reference's own ancestral walk with the noise of the image",
    "gradient on the text through the denoiser in the first quarter of the steps, and through the "
    "full decoder and the classifier where it is adversarial",
    "classifier (ResNet-18, float32, its input size) and latents in the memory bank",
    "from the pictures of reference to finished pictures in 8 bits",
]
UNEQUAL = [
    "they draw one image at a time (two are encoded and decoded together, as in their "
    "tools/train.py), and move both halves of classifier-free guidance",
    "their norms, margin and normalisation of the classifier's input; none costs anything",
    "they read attention of every layer in all steps; we beside the fast kernel, while it is used",
    "they follow the walk of the reference in all steps; we while its weight is 1 % or more",
    "they encode a prompt once for each class; we in every batch",
    "they draw noise on the device; we on the CPU, with a generator of each image",
]
RECIPE = "actgen_sd"  # whose guidance and decoder the last row has, which is other work
OF_RECIPE = {"contrastive": "guided", "adversarial": "adversarial"}
DATASETS = {  # whose classifier goes with a size of ``models.SIZES``
    "toy": "cifar10",
    "embedded": "cifar10",
    "scenes": "cifar10",
    "sd15": "imagenet",
    "sd21": "imagenet",
}


class Worker:
    """The released generator in its process.

    Raises:
        UserError: it cannot be started; the message says why.
    """

    def __init__(self, python: str, checkout: Path, model: Path, settings: Settings):
        self._complaints = tempfile.TemporaryFile("w+")
        words = [python, str(WORKER), str(checkout), str(model), json.dumps(asdict(settings))]
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                text=True,
            )
        except OSError as error:
            raise UserError(f"'{python}' does not run: {error}; give a python") from error
        try:
            self.facts = self._answer("facts")
        except UserError:
            self.close()
            raise

    def run(self, way: str) -> dict[str, Any]:
        """For an image, what `Meter` reads.

        Raises:
            UserError: it failed.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(way + "\n")
        self._process.stdin.flush()
        return self._answer("run")

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
        self._complaints.close()

    def _answer(self, what: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._failure()}
        if "error" in answer:
            raise UserError(answer["error"])
        return answer[what]

    def _failure(self) -> str:
        self._process.wait()
        self._complaints.seek(0)
        last = [line for line in self._complaints.read().splitlines() if line.strip()][-1:]
        return (
            f"the released generator failed: {''.join(last)}; where it is too old for these "
            "libraries, give --python of an environment with diffusers of its time"
        )


def as_released(way: str, of: Settings, bank: MemoryBank, task: TaskModel) -> list[Term]:
    """Terms that ask for the released code's work."""
    step, mask = 1 / of.steps, Attention(released_code=True)
    pull = ReferencePull(mask, of.half * step, step, trajectory="ancestral")
    objectives: list[Objective] = [Repulsion(bank)]
    if WAYS[way]:
        objectives.append(Weighted(0.1, Adversarial(task, cap=math.inf)))
    ascend = Ascend("conditioning", "denoiser", tuple(objectives), 0.05)
    return [pull, During(0, of.guided * step, ascend)]


class Ours:
    """Our loop with the same model, classifier, references and memory bank."""

    def __init__(self, folder: Path, settings: Settings, facts: dict[str, Any]):
        self.settings, self.facts = settings, facts
        device, dtype = torch.device(settings.device), getattr(torch, settings.dtype)
        self.model = StableDiffusion.load(folder, device, dtype)
        torch.manual_seed(settings.seed)
        pixels = facts["classifier_pixels"]
        network = resnet18(num_classes=facts["classes"]).requires_grad_(False)
        half, quarter = (0.5,) * 3, (0.25,) * 3
        task = Classifier(network, facts["classes"], (pixels, pixels), half, quarter)
        self.task = task.to(device).eval()
        latents = torch.randn(settings.bank, *self.model.noise_shape)
        self.bank = MemoryBank.of([(settings.label, latent) for latent in latents])
        self.pictures = torch.rand(1, 3, pixels, pixels, device=device)
        few = latents[:16].to(device)
        self.linear = LinearDecoder.fit(few, self.model.decode(few))
        self.recipe = recipes.load(RECIPE, ["data.path=unread"])  # only its guidance counts

    def guidance(self, way: str, as_recipe: bool) -> tuple[list[Term], Decoder | None]:
        """Terms, and the decoder for gradients."""
        if as_recipe:
            models = Models(Learners(self.task, (), self.bank), lambda: None)
            found = terms(self.recipe.guidance, models)[OF_RECIPE[way]]
            return list(found), {"linear": self.linear, "full": None}[self.recipe.model.decoder]
        return as_released(way, self.settings, self.bank, self.task), None

    def draw(self, way: str, batch: int, as_recipe: bool) -> list[Image.Image]:
        """From pictures of reference to finished ones."""
        settings, facts = self.settings, self.facts
        reference = self.model.encode(self.pictures.expand(batch, -1, -1, -1))
        conditioning = self.model.condition([facts["prompt"]] * batch, [facts["word"]] * batch)
        noise, rngs = seeded(range(settings.seed, settings.seed + batch), self.model.noise_shape)
        target = torch.full((batch,), settings.label, device=self.model.device)
        sampling = Sampling(settings.steps, CFG_SCALE, "ddpm")
        asked = Batch(self.model, sampling, noise, rngs, conditioning, target, reference)
        return _finished(sample(asked, *self.guidance(way, as_recipe)).images)

    def run(self, way: str, batch: int, as_recipe: bool) -> dict[str, Any]:
        """For an image, what `Meter` reads."""
        with Meter(self.settings.device, batch) as meter:
            self.draw(way, batch, as_recipe)
        return asdict(meter.reading)


def _finished(images: Tensor) -> list[Image.Image]:
    arrays = images.permute(0, 2, 3, 1).mul(255).round().byte().cpu().numpy()
    return [Image.fromarray(array) for array in arrays]


def saved(size: str, steps: int, device: str, folder: Path) -> Settings:
    """Writes a model of that size in diffusers' layout; what both generators are given.

    Raises:
        UnknownWord: the size.
    """
    dataset = choose(DATASETS, size, "size")
    parts = SIZES[size].make()
    ours, dtype = model(parts), "float16" if device == "cuda" else "float32"
    channels, height, _ = ours.noise_shape
    parts.to(torch.device("cpu"), getattr(torch, dtype))
    StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=parts.unet,
        scheduler=parts.noise,
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return Settings(
        steps=steps,
        pixels=ours.size[0],
        latents=height,
        channels=channels,
        scaling=parts.vae.config.scaling_factor,
        attention=ours.attention_size,
        dataset=dataset,
        label=0,
        bank=BANK,
        device=device,
        dtype=dtype,
        seed=SEED,
    )


@contextmanager
def started(options: argparse.Namespace) -> Iterator[tuple[Worker, Ours]]:
    """Both generators, ready, with one model."""
    if not (options.checkout / GENERATOR).is_file():
        raise UserError(f"no {GENERATOR} in '{options.checkout}'; get it by: {WHERE}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = saved(options.size, options.steps, options.device, folder)
        worker = Worker(options.python, options.checkout, folder, settings)
        try:
            yield worker, Ours(folder, settings, worker.facts)
        finally:
            worker.close()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs everything.

    Raises:
        UserError: the checkout is not one, or its generator fails.
    """
    torch.backends.cudnn.benchmark = True  # as in their tools/train.py, for both
    with started(options) as (worker, ours):
        batch = options.batch
        rows: dict[str, Callable[[str], dict[str, Any]]] = {
            RELEASED: worker.run,
            "ours, one at a time": lambda way: ours.run(way, 1, False),
            f"ours, batch {batch}": lambda way: ours.run(way, batch, False),
            f"ours, batch {batch}, as {RECIPE}": lambda way: ours.run(way, batch, True),
        }
        runs: dict[str, dict[str, list[dict[str, Any]]]]
        runs = {row: {way: [] for way in WAYS} for row in rows}
        for repetition in range(-1, options.repetitions):  # the first is not counted
            for row, run in rows.items():
                for way in WAYS:
                    made = run(way)
                    if repetition >= 0:
                        runs[row][way].append(made)
        facts = worker.facts
    return {
        "settings": ours.facts["settings"]
        | {"size": options.size, "batch": batch, "cfg_scale": CFG_SCALE},
        "machine": environment() | {"processor": processor()},
        "released": {key: facts[key] for key in ("versions", "prompt", "adaptations")},
        "equal": EQUAL,
        "unequal": UNEQUAL,
        "runs": runs,
        "summary": summary(runs),
    }


def summary(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, dict[str, Any]]:
    """Images/s of equal shares of both ways, their ratio to the released code, and peak memory."""
    found = {}
    for row, of in runs.items():
        ratios, processor = _ratios(runs, row, "seconds"), _ratios(runs, row, "processor_seconds")
        peaks = [made["peak_bytes"] for way in of.values() for made in way]
        found[row] = {
            "images_per_second": 1 / statistics.median(_of_the_mix(of, "seconds")),
            "ratio": statistics.median(ratios),
            "ratio_range": [min(ratios), max(ratios)],
            "processor_ratio": statistics.median(processor),
            "peak_bytes": None if None in peaks else max(peaks),
        }
    return found


def _ratios(runs: dict[str, dict[str, list[dict[str, Any]]]], row: str, what: str) -> list[float]:
    pairs = zip(_of_the_mix(runs[RELEASED], what), _of_the_mix(runs[row], what), strict=True)
    return [theirs / own for theirs, own in pairs]


def _of_the_mix(of: dict[str, list[dict[str, Any]]], what: str) -> list[float]:
    """For an image, one number a repetition."""
    both = zip(*of.values(), strict=True)
    return [statistics.mean(made[what] for made in ways) for ways in both]


def table_of(result: dict[str, Any]) -> str:
    """The summary, what was equal, what not, and what was adapted."""
    on_gpu = result["settings"]["device"] == "cuda"
    last = "peak memory" if on_gpu else "ratio of processor seconds"
    lines = [f"{'':34s} {'images/s':>9s} {'ratio':>7s}   {'lowest to highest':18s} {last}"]
    for row, of in result["summary"].items():
        low, high = of["ratio_range"]
        last = f"{of['peak_bytes'] / GIB:.1f} GiB" if on_gpu else f"{of['processor_ratio']:.2f}"
        lines.append(
            f"{row:34s} {of['images_per_second']:9.3f} {of['ratio']:7.2f}   "
            f"{f'{low:.2f} to {high:.2f}':18s} {last}"
        )
    for title, kept in (
        (f"equal, but in the row of {RECIPE}", result["equal"]),
        ("not equal", result["unequal"]),
        ("adapted in the released code", result["released"]["adaptations"]),
    ):
        lines += ["", f"{title}:", *(f"- {of}" for of in kept)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--checkout", type=Path, required=True, help=f"made by: {WHERE}")
    parser.add_argument("--size", default="toy", help=", ".join(DATASETS))
    parser.add_argument("--batch", type=int, default=16, help="ours; theirs draws one at a time")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--python", default=sys.executable, help="that runs the released code")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    parser.add_argument("--json", type=Path, help="where to write the raw numbers")
    options = parser.parse_args()
    try:
        result = measure(options)
    except UserError as error:
        parser.error(str(error))
    for part in ("settings", "machine"):
        print("; ".join(f"{key}: {value}" for key, value in result[part].items()))
    print(f"released code with: {result['released']['versions']}\n\n{table_of(result)}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
