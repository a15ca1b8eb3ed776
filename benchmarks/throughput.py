"""Images per second and memory of every way of drawing, beside diffusers' own pipeline.

    python benchmarks/throughput.py --size embedded [--json FILE]
    python benchmarks/throughput.py --publish

The pipeline is made of the very same parts and draws with the same scheduler, steps,
classifier-free guidance, prompts and seeds. In each repetition all modes draw in turn, and in the
next one backwards; a ratio is taken within a repetition. From prompts and seeds to pictures:
encoding texts and references counts, training does not. The pictures are not looked at, but
unguided ones have to be the pipeline's.
"""

import argparse
import fnmatch
import gc
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import models
import performance
import torch
from diffusers.utils import logging
from models import SEED, SIZES, VARIANTS, Size
from modes import PIPELINE, UNGUIDED, Mode, Setting, modes
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from activegen.diffusion.decoders import Decoder, FullDecoder, LinearDecoder
from activegen.diffusion.pseudo_masks import PRESETS, pseudo_masks
from activegen.diffusion.sampling import Batch, Drawn, Dropping, Sampling, sample, seeded
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.guidance import MemoryBank
from activegen.loop.flops import Counting, awaited
from activegen.loop.parts import Learners
from activegen.precision import fast_dtype
from activegen.recipes.environment import environment
from activegen.tasks.networks import build
from activegen.tasks.segmenters import build_segmenter
from activegen.tasks.task_network import TaskNetwork

CLASSES, BANK = 10, 64  # classes of the learner; latents in the memory bank
COUNTED = 2  # images of a draw whose operations are counted


class Bench:
    """One size on one device, ready to draw.

    Args:
        size: which.
        sampling: how, in all modes.
        device: where.
        dtype: number format of the denoiser.
        batch: images at most.
    """

    def __init__(
        self,
        size: Size,
        sampling: Sampling,
        device: torch.device,
        dtype: torch.dtype,
        batch: int,
    ):
        self.size, self.sampling, self.device = size, sampling, device
        self.parts = size.make().to(device, dtype)
        self._pipeline = models.pipeline(self.parts, sampling.scheduler)
        self._variants: dict[str, StableDiffusion] = {}
        rng = torch.Generator().manual_seed(SEED)
        height, width = self.model().size
        self.pictures = torch.rand(batch, 3, height, width, generator=rng).to(device)
        self.masked = self.parts.control is not None
        shape = (batch, height, width) if self.masked else (batch,)
        self.target = torch.zeros(shape, dtype=torch.long, device=device)  # as in the memory bank
        self.modes = modes(self._setting())

    def model(self, variant: str = "") -> StableDiffusion:
        """Ours, made when it is asked for."""
        if variant not in self._variants:
            self._variants[variant] = VARIANTS[variant](self.parts)
        return self._variants[variant]

    def pipeline(self, count: int) -> Tensor:
        """Pictures of diffusers' pipeline."""
        asked: dict[str, Any] = {"image": self.pictures[:count]} if self.masked else {}
        return self._pipeline(
            prompt=[self.size.prompt] * count,
            num_inference_steps=self.sampling.num_steps,
            guidance_scale=self.sampling.cfg_scale,
            generator=[torch.Generator().manual_seed(SEED + index) for index in range(count)],
            **asked,
        )

    def ours(self, mode: Mode, count: int) -> Drawn:
        """What our loop draws in a mode."""
        model, size = self.model(mode.variant), self.size
        prompts, pictures = [size.prompt] * count, self.pictures[:count]
        noise, rngs = seeded(range(SEED, SEED + count), model.noise_shape)
        preset = PRESETS[mode.masks].masks if mode.masks else None
        batch = Batch(
            model,
            replace(self.sampling, **mode.sampling),
            noise,
            rngs,
            model.condition(
                prompts, [size.word] * count, control=[pictures] if self.masked else []
            ),
            self.target[:count],
            model.encode(pictures) if mode.refers else None,
            reading=preset and preset.reading(model, prompts, [[size.word]] * count),
        )
        gone = torch.arange(count) < mode.dropped * count
        dropping = Dropping(0.5, lambda _: gone) if mode.dropped else None
        drawn = sample(
            batch,
            mode.terms,
            self.decoders[mode.decoder],
            dropping=dropping,
            micro_batch=mode.micro_batch,
        )
        if preset and drawn.maps:
            pseudo_masks(drawn.maps, torch.ones(count, 1).long(), 0, drawn.images, preset)
        return drawn

    def draw(self, name: str, count: int) -> Callable[[], object]:
        """A mode of that name, or the pipeline."""
        if name == PIPELINE:
            return lambda: self.pipeline(count)
        return lambda: self.ours(self.modes[name], count)

    def agreement(self) -> float:
        """The largest difference of a pixel between unguided images and the pipeline's, 0 to 1."""
        ours = self.ours(self.modes[UNGUIDED], COUNTED).images
        return float((ours - self.pipeline(COUNTED)).abs().max())

    def cost(self) -> dict[str, float]:
        """FLOPs of an image: the denoiser's call with its guidance, the decoder, the learner."""
        model, count = self.model(), COUNTED
        prompts, pictures = [self.size.prompt] * count, self.pictures[:count]
        control = [pictures] if self.masked else []
        conditioning = model.condition(prompts, [""] * count, control=control)
        noise, rngs = seeded(range(count), model.noise_shape)
        batch = Batch(model, self.sampling, noise, rngs, conditioning, self.target[:count])
        level, latents = batch.solver().levels[0], noise.to(self.device)
        calls = {
            "denoiser": lambda: model.denoise(
                latents, conditioning, level, batch.sampling.cfg_scale
            ),
            "decoder": lambda: model.decode(latents),
            "learner": lambda: self.learner.predict(pictures),
        }
        return {name: operations(call) for name, call in calls.items()}

    def weights(self, name: str) -> int:
        """Bytes of the diffusion model that a mode draws with."""
        return models.weights(self.model("" if name == PIPELINE else self.modes[name].variant))

    @torch.no_grad()
    def _setting(self) -> Setting:
        model = self.model()
        self.learner, *others = (self._network() for _ in range(4))
        latents = torch.randn(BANK, *model.noise_shape, generator=torch.Generator().manual_seed(1))
        bank = MemoryBank.of([(0, z) for z in latents.to(self.device)])
        pairs = latents[:COUNTED].to(self.device)
        tiny = models.tiny_decoder(self.parts)
        tiny.to(self.device, self.parts.vae.dtype).eval().requires_grad_(False)
        self.decoders: dict[str, Decoder | None] = {
            "full": None,
            "linear": LinearDecoder.fit(pairs, model.decode(pairs)),
            "tiny": FullDecoder(tiny),
        }
        learners = Learners(self.learner, (self.learner, *others[:2]), bank)
        return Setting(learners, others[2], self.masked, self.size.recipes, self.decoders)

    def _network(self) -> TaskNetwork:
        make = build_segmenter if self.masked else build
        made = make(self.size.learner, CLASSES, self.size.learner_size)
        return made.to(self.device).eval().requires_grad_(False)


def operations(draw: Callable[[], object]) -> float:
    """FLOPs of each image of a draw of ``COUNTED``."""
    with Counting() as counter:
        draw()
    return counter.total / COUNTED


def timed(draw: Callable[[], object], device: torch.device) -> float:
    """Seconds of one draw."""
    awaited(device)
    start = time.perf_counter()
    draw()
    awaited(device)
    return time.perf_counter() - start


def taken(draw: Callable[[], object], device: torch.device) -> int:
    """Bytes that torch has allocated at the peak of a draw, besides what was there."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        draw()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        draw()
    made: Any = profiler.profiler
    results = made.kineto_results  # events() of the profiler has no order of them
    changes = [event for event in results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in changes), initial=0))


def in_turn(
    draws: dict[str, Callable[[], object]], repetitions: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each, by repetition."""
    seconds: dict[str, list[float]] = {name: [] for name in draws}
    for repetition in range(repetitions):
        for name in sorted(draws, key=list(draws).index, reverse=repetition % 2 == 1):
            seconds[name].append(timed(draws[name], device))
    return seconds


def measure(bench: Bench, names: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """All modes of these names at one batch size."""
    rows: dict[str, dict[str, Any]] = {}
    draws: dict[str, Callable[[], object]] = {}
    for name in names:
        rows[name] = {} if name == PIPELINE else {"beside": bench.modes[name].beside}
        draw = bench.draw(name, options.batch)
        try:
            rows[name] |= _once(bench, name, draw)
            draws[name] = draw
        except RuntimeError as error:  # out of memory, or nothing to compile with
            if name in (PIPELINE, UNGUIDED):
                raise
            said = str(error).strip().partition("\n")[0].partition(". ")[0]
            rows[name]["failed"] = f"{type(error).__name__}: {said}"
        if "failed" in rows[name]:  # now that the error's frames are gone
            gc.collect()
            torch.cuda.empty_cache()
    for name, seconds in in_turn(draws, options.repetitions, bench.device).items():
        rows[name]["seconds"] = seconds
    return rows


def _once(bench: Bench, name: str, draw: Callable[[], object]) -> dict[str, Any]:
    """Operations, and what the first draws show; they also warm up."""
    row: dict[str, Any] = {}
    if name == PIPELINE or not bench.modes[name].variant.startswith("compiled"):
        row["flops"] = operations(bench.draw(name, COUNTED))
    drawn = draw()
    if isinstance(drawn, Drawn):
        row["calls"] = drawn.calls
        row["finite"] = float(drawn.images.isfinite().flatten(1).all(1).float().mean())
        row["skipped_gradients"] = float(drawn.skipped.sum())
    row["memory"] = taken(draw, bench.device) + bench.weights(name)
    return row


def by_batch(bench: Bench, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Seconds of unguided sampling and the pipeline by number of images, as far as memory goes."""
    found: dict[str, dict[str, list[float]]] = {}
    for count in options.batches:
        draws = {name: bench.draw(name, count) for name in (PIPELINE, UNGUIDED)}
        try:
            in_turn(draws, 1, bench.device)
            found[str(count)] = in_turn(draws, options.repetitions, bench.device)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
    return found


def chosen(known: Sequence[str], patterns: str) -> list[str]:
    """Those that a comma-separated list of names and patterns means, in their own order.

    Raises:
        SystemExit: it means none.
    """
    wanted = [pattern.strip() for pattern in patterns.split(",")]
    for pattern in wanted:
        if not fnmatch.filter(known, pattern):
            raise SystemExit(f"no mode '{pattern}'; there are: {', '.join(known)}")
    return [name for name in known if any(fnmatch.fnmatch(name, p) for p in wanted)]


def processor() -> str:
    """The name of the CPU."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for."""
    size, device = SIZES[options.size], torch.device(options.device)
    dtype = size.dtype if device.type == "cuda" and size.dtype else fast_dtype(device)
    dtype = dtype if options.dtype == "auto" else getattr(torch, options.dtype)
    options.batch = options.batch or size.batch
    options.batches = list(size.batches if options.batches is None else options.batches)
    sampling = Sampling(options.steps or size.steps, size.cfg_scale, size.scheduler)
    bench = Bench(size, sampling, device, dtype, max([options.batch, COUNTED, *options.batches]))
    if options.micro_batch is not None:
        some = {"micro_batch": options.micro_batch}
        bench.modes = {name: replace(mode, **some) for name, mode in bench.modes.items()}
    usual = [name for name, mode in bench.modes.items() if mode.usual]
    names = chosen(list(bench.modes), options.modes) if options.modes else usual
    names = [PIPELINE, *dict.fromkeys([UNGUIDED, *names])]
    return {
        "size": options.size,
        "device": device.type,
        "settings": {
            "batch": options.batch,
            "steps": sampling.num_steps,
            "cfg_scale": sampling.cfg_scale,
            "scheduler": sampling.scheduler,
            "dtype": str(dtype).removeprefix("torch."),
            "pictures": list(bench.model().size),
            "learner": f"{size.learner} at {size.learner_size}",
            "repetitions": options.repetitions,
            "seeds": [SEED, SEED + options.batch - 1],
        },
        "machine": environment() | {"processor": processor()},
        "agreement": bench.agreement(),
        "flops": bench.cost(),
        "modes": measure(bench, names, options),
        "batches": by_batch(bench, options),
    }


def parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="embedded")
    parser.add_argument("--modes", help="names or patterns, as 'A*,recipe*'; '*' for all")
    parser.add_argument("--batch", type=int, help="images drawn together")
    parser.add_argument(
        "--batches",
        type=lambda text: [int(part) for part in text.split(",") if part],
        help="sizes of batches that unguided sampling is timed at, as 1,2,4; '' for none",
    )
    parser.add_argument(
        "--micro-batch", type=int, help="images whose gradient is taken at once; 0 for all"
    )
    parser.add_argument("--steps", type=int)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="auto", help="of the denoiser, as float32")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument(
        "--publish", action="store_true", help="only write the tables of docs/performance.md"
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    options = parsed(sys.argv[1:] if words is None else words)
    warnings.filterwarnings("ignore", ".*steps_offset", FutureWarning)
    logging.set_verbosity_error()
    if options.publish:
        performance.publish(performance.PAGE, performance.NUMBERS)
        return
    made = run(options)
    print(performance.section(made))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
