"""The released ActGen generator, in a process of its own; ``released_actgen.py`` starts it.

    python benchmarks/released_actgen_worker.py CHECKOUT MODEL SETTINGS

It needs torch, torchvision and diffusers but not us, so that another environment can run it. The
checkout's files are imported as they are; the changes in `edits` are made to the text of one of
them on the way into the interpreter, and those in `STAND_INS` to what it imports. It reads a way
of guiding in each line of its input and answers each in a line of JSON.
"""

import importlib
import importlib.metadata
import json
import math
import os
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torchvision.models import resnet18

PACKAGES = Path("classification")
GENERATOR = PACKAGES / "lib" / "gen" / "guided_gen.py"
WHERE = "git clone https://github.com/hunto/ActGen"
COMMIT = "f9f3aa7"  # whose text `edits` knows
CFG_SCALE = 7.5
AT_A_CALL = 2  # images, as in its tools/train.py; it draws them one after the other
WAYS = {"contrastive": 0.0, "adversarial": 1.0}  # what its draw from 0..1 is made to be

STAND_INS = {
    "nvidia_smi": "answers at once; the released loop asks the driver twice in every step",
    "torch.distributed": "says rank 1, which prints no loss of the classifier",
    "random": "its choice between the two gradients is ours to make; memory bank drawn as released",
    "unet.enable_gradient_checkpointing": "does nothing, as for a module in evaluation with the "
    "diffusers of its time; today's would draw attention twice and mix up its maps",
}


class WrongCheckout(Exception):
    """Not the released code that `edits` knows; says where to get it."""


@dataclass(frozen=True)
class Settings:
    """What both generators are given.

    Args:
        steps: of DDPM.
        pixels: height and width of a picture.
        latents: height and width of a latent.
        channels: of a latent.
        scaling: of the autoencoder's latents.
        attention: height and width of the attention maps.
        dataset: whose class names, input size and normalisation the classifier has.
        label: the class of every image.
        bank: latents of that class in the memory bank.
        device: "cuda" or "cpu", for both.
        dtype: of the weights.
        seed: of references, bank and noise.
    """

    steps: int
    pixels: int
    latents: int
    channels: int
    scaling: float
    attention: int
    dataset: str
    label: int
    bank: int
    device: str
    dtype: str
    seed: int

    @property
    def half(self) -> float:
        """The step at which the pull towards the reference has half its strength."""
        return 0.3125 * self.steps

    @property
    def guided(self) -> int:
        """Number of steps with a gradient, the first quarter."""
        return math.ceil(0.25 * self.steps)


@dataclass(frozen=True)
class Reading:
    """What an image cost.

    Args:
        seconds: of the clock.
        processor_seconds: of all threads of this process; a busy machine does not change them.
        peak_bytes: of all that was on the GPU, the model too; None without one.
    """

    seconds: float
    processor_seconds: float
    peak_bytes: int | None


class Meter:
    """Reads the cost of what happens in its context.

    Args:
        device: "cuda" or "cpu".
        images: to share it among.
    """

    reading: Reading

    def __init__(self, device: str, images: int):
        self.on_gpu, self.images = device == "cuda", images

    def __enter__(self) -> "Meter":
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *failure: object) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()
        seconds, processor = time.perf_counter(), time.process_time()
        self.reading = Reading(
            (seconds - self._start[0]) / self.images,
            (processor - self._start[1]) / self.images,
            torch.cuda.max_memory_allocated() if self.on_gpu else None,
        )


@dataclass(frozen=True)
class Edit:
    """A number in the released text that is written there and not given."""

    old: str
    new: str
    what: str


def edits(of: Settings) -> list[Edit]:
    """All that must be found; those whose two texts are the same change nothing.

    At 512 pixels, 40 steps and float16 on a GPU none changes anything.
    """
    side, square = of.latents, f"{of.attention}, {of.attention}"
    to = ".cuda()" if of.device == "cuda" else f".to('{of.device}')"
    scale = "0.18215" if math.isclose(of.scaling, 0.18215) else repr(of.scaling)
    halves = "int(np.ceil(512 / 32)), int(np.ceil(512 / 32))"
    return [
        Edit("num_inference_steps = 40", f"num_inference_steps = {of.steps}", "steps"),
        Edit("if i < 10:", f"if i < {of.guided}:", "steps with a gradient"),
        Edit("guidance_scale = 7.5", f"guidance_scale = {CFG_SCALE}", "CFG"),
        Edit("(512,512)", f"({of.pixels},{of.pixels})", "size of the reference"),
        Edit("width = 512 #", f"width = {of.pixels} #", "size of the picture"),
        Edit(halves, halves if of.attention == 16 else square, "size of the attention maps"),
        Edit("(16, 16)", f"({square})", "size of the attention maps"),
        Edit("(64, 64)", f"({side}, {side})", "size of the mask on the latents"),
        Edit("expand(4,", f"expand({of.channels},", "channels of the latents"),
        Edit("1 / 0.18215 *", f"1 / {scale} *", "scale of the latents"),
        Edit("torch.float16", f"torch.{of.dtype}", "number format"),
        Edit(".cuda()", to, "device"),
        Edit("'cuda'", f"'{of.device}'", "device"),
    ]


def adapted(source: str, of: Settings) -> str:
    """The released text for these settings.

    Raises:
        WrongCheckout: it is not the text that `edits` knows.
    """
    for edit in edits(of):
        if edit.old not in source:
            raise WrongCheckout(
                f"{GENERATOR} has no '{edit.old}' ({edit.what}); take commit {COMMIT}: {WHERE}"
            )
        source = source.replace(edit.old, edit.new)
    return source


def changes(of: Settings) -> list[str]:
    """What was adapted, in words."""
    made = [f"{e.what}: '{e.old}' reads '{e.new}'" for e in edits(of) if e.old != e.new]
    return made + [f"{name}: {why}" for name, why in STAND_INS.items()]


def released(checkout: Path, of: Settings) -> Any:
    """Its module, adapted.

    Raises:
        WrongCheckout: no such file, or another text.
    """
    file = checkout / GENERATOR
    if not file.is_file():
        raise WrongCheckout(f"no {GENERATOR} in '{checkout}'; get it by: {WHERE}")
    source = adapted(file.read_text(encoding="utf-8"), of)
    sys.path.insert(0, str(checkout / PACKAGES))
    driver: Any = ModuleType("nvidia_smi")
    driver.nvmlInit = lambda: None
    driver.nvmlDeviceGetHandleByIndex = lambda index: index
    driver.nvmlDeviceGetUtilizationRates = lambda handle: SimpleNamespace(gpu=0)
    driver.nvmlDeviceGetMemoryInfo = lambda handle: SimpleNamespace(used=0)
    sys.modules["nvidia_smi"] = driver
    importlib.import_module("lib.gen")
    module: Any = ModuleType("lib.gen.guided_gen")
    module.__package__, module.__file__ = "lib.gen", str(file)
    sys.modules[module.__name__] = module
    exec(compile(source, str(file), "exec"), module.__dict__)
    module.dist = SimpleNamespace(get_rank=lambda: 1)
    return module


class Released:
    """The generator with its classifier, references and memory bank."""

    def __init__(self, checkout: Path, model: str, of: Settings):
        self.of, self.module = of, released(checkout, of)
        torch.backends.cudnn.benchmark = True  # as in its tools/train.py
        torch.manual_seed(of.seed)
        self.generator = self.module.GuidedGen(
            guidance_str=of.half, pretrained_model_name_or_path=model, dataset=of.dataset
        )
        self.generator.pipeline.unet.enable_gradient_checkpointing = lambda: None
        self.generator.rand_gen_ratio = 0.0
        self.word: str = self.generator.categories[of.label]
        network = resnet18(num_classes=len(self.generator.categories)).to(of.device).eval()
        self.classifier = SimpleNamespace(module=network)
        pixels = self.generator.model_input_size
        self.images = torch.randn(AT_A_CALL, 3, pixels, pixels).to(of.device)
        self.labels = torch.full((AT_A_CALL,), of.label).to(of.device)
        self.bank = list(torch.randn(of.bank, 1, of.channels, of.latents, of.latents))

    def facts(self) -> dict[str, Any]:
        """What ours needs in order to draw the same, and what was run."""
        versions = f"torch {torch.__version__}, diffusers {importlib.metadata.version('diffusers')}"
        return {
            "word": self.word,
            "prompt": f"a photo of {self.word}",
            "classes": len(self.generator.categories),
            "classifier_pixels": self.generator.model_input_size,
            "images_at_a_call": AT_A_CALL,
            "versions": versions,
            "adaptations": changes(self.of),
            "settings": asdict(self.of),
        }

    def run(self, way: str) -> dict[str, Any]:
        """For an image, from references to finished pictures: what `Meter` reads."""
        self.generator.mem_bank = {self.of.label: list(self.bank)}
        self.module.random = SimpleNamespace(random=lambda: WAYS[way], sample=random.sample)
        with Meter(self.of.device, AT_A_CALL) as meter:
            pictures = self.generator(self.images, self.labels, self.classifier)
        size = (self.of.pixels, self.of.pixels)
        if [picture.size for picture in pictures] != [size] * AT_A_CALL:
            raise RuntimeError(f"it drew {[picture.size for picture in pictures]}, not {size}")
        return asdict(meter.reading)


def main() -> None:
    checkout, model, settings = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the released code prints

    def answer(**words: Any) -> None:
        print(json.dumps(words), file=answers)

    try:
        run = Released(Path(checkout), model, Settings(**json.loads(settings)))
    except WrongCheckout as error:
        answer(error=str(error))
        return
    answer(facts=run.facts())
    for line in sys.stdin:
        answer(run=run.run(line.strip()))


if __name__ == "__main__":
    main()
