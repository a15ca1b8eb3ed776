"""What each way of steering costs, as a ratio to unguided sampling of the same batch.

    python benchmarks/guidance_cost.py [--model DIR] [--json FILE]

All modes are drawn in turn in every repetition, so that a busy machine slows all of them alike; a
ratio is taken within a repetition. The result of a mode is not looked at, only its time.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import diffusers
import torch

from activegen.diffusion.decoders import LinearDecoder
from activegen.diffusion.sampling import Batch, Sampling, Term, sample, seeded
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.guidance import (
    Adversarial,
    Ascend,
    During,
    Everywhere,
    Informative,
    MemoryBank,
    ReferencePull,
    Repulsion,
    Weighted,
)
from activegen.scores import entropy
from activegen.tasks.networks import build
from activegen.zoo import LAND_COVER
from activegen.zoo.architecture import (
    TILES,
    autoencoder,
    denoiser,
    noise_schedule,
    text_encoder,
    text_tokenizer,
)

SEED = 0
WORD = "forest"


def untrained() -> StableDiffusion:
    """The embedded generator's networks with random weights: as fast, and draws nothing."""
    torch.manual_seed(SEED)
    tokenizer = text_tokenizer([f"a satellite photo of a {WORD}"] * 9, TILES.tokens)
    text = text_encoder(tokenizer)
    unet = denoiser(TILES, text.config.hidden_size)
    parts = unet, autoencoder(TILES), text, tokenizer, noise_schedule()
    return StableDiffusion(*parts, name="untrained, the embedded generator's configuration")


def modes(model: StableDiffusion, task, bank: MemoryBank, linear: LinearDecoder) -> dict:
    """Name to (terms, decoder for gradients)."""
    unmasked, masked = ReferencePull(Everywhere()), ReferencePull()

    def text(*objectives) -> list[Term]:
        term = Ascend("conditioning", "denoiser", objectives, 0.05)
        return [masked, During(0, 0.25, term)]

    def latents(route) -> list[Term]:
        return [Ascend("latents", route, (Informative(task, entropy),), 0.03)]

    repulsion, adversarial = Repulsion(bank), Weighted(0.1, Adversarial(task))
    return {
        "unguided": ([], None),
        "reference pull": ([unmasked], None),
        "+ attention mask": ([masked], None),
        "+ contrastive": (text(repulsion), None),
        "+ adversarial (ActGen)": (text(repulsion, adversarial), None),
        "ActGen, linear decoder": (text(repulsion, adversarial), linear),
        "latents through decoder": (latents("decoder"), None),
        "decoder, linear decoder": (latents("decoder"), linear),
        "latents through denoiser": (latents("denoiser"), None),
        "denoiser, linear decoder": (latents("denoiser"), linear),
    }


def timed(batch: Batch, guidance: list[Term], decoder) -> float:
    """Seconds for one batch."""
    synchronise(batch.model.device)
    start = time.perf_counter()
    sample(batch, guidance, decoder)
    synchronise(batch.model.device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> dict[str, str]:
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    return {
        "device": f"{name}, {threads}",
        "system": f"{platform.system()}, Python {platform.python_version()}",
        "versions": f"torch {torch.__version__}, diffusers {diffusers.__version__}",
    }


def measure(options: argparse.Namespace) -> dict:
    """Runs everything; times in seconds by mode, one per repetition."""
    device = torch.device(options.device)
    if options.model or LAND_COVER.exists():
        model = StableDiffusion.load(options.model or LAND_COVER, device)
    else:
        model = untrained()
        for part in (model.unet, model.vae, model.text_encoder):
            part.to(device)
    sampling = Sampling(options.steps, 7.5, "ddpm")
    noise, rngs = seeded(range(SEED, SEED + options.batch), model.noise_shape)
    prompts = [f"a satellite photo of a {WORD}"] * options.batch
    conditioning = model.condition(prompts, [WORD] * options.batch)
    target = torch.zeros(options.batch, dtype=torch.long, device=device)
    reference = torch.randn(
        noise.shape, generator=torch.Generator().manual_seed(SEED + 1)
    ).to(device)  # fmt: skip
    batch = Batch(model, sampling, noise, rngs, conditioning, target, reference)

    torch.manual_seed(SEED)
    size = model.decode(reference[:1]).shape[-1]
    task = build("small", 10, size).to(device).eval()
    bank = MemoryBank.of([(0, z) for z in reference.repeat(8, 1, 1, 1).roll(1, 2)[:64]])
    linear = LinearDecoder.fit(reference, model.decode(reference))
    table = modes(model, task, bank, linear)
    seconds: dict[str, list[float]] = {name: [] for name in table}
    for repetition in range(-1, options.repetitions):  # the first is not counted
        for name, (guidance, decoder) in table.items():
            taken = timed(batch, guidance, decoder)
            if repetition >= 0:
                seconds[name].append(taken)
    settings = {
        "model": model.name,
        "batch": options.batch,
        "steps": options.steps,
        "repetitions": options.repetitions,
        "seeds": f"{SEED} to {SEED + options.batch - 1}",
    }
    return {"settings": settings, "machine": machine(device), "seconds": seconds}


def table_of(seconds: dict[str, list[float]]) -> str:
    """Medians, and ratios to unguided within each repetition."""
    lines = [f"{'mode':28s} {'seconds':>8s} {'ratio':>7s}   lowest to highest ratio"]
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(values, seconds["unguided"], strict=True)]
        lines.append(
            f"{name:28s} {statistics.median(values):8.3f} {statistics.median(ratios):7.2f}   "
            f"{min(ratios):.2f} to {max(ratios):.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", help="folder in diffusers' layout; the embedded generator")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="where to write the raw numbers")
    options = parser.parse_args()
    result = measure(options)
    for part in ("settings", "machine"):
        print("; ".join(f"{key}: {value}" for key, value in result[part].items()))
    print(table_of(result["seconds"]))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
