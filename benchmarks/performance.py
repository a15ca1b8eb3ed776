"""The tables of ``docs/performance.md``, from the numbers that ``throughput.py`` wrote."""

import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from activegen.report.words import NONE

ROOT = Path(__file__).parents[1]
PAGE, NUMBERS = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance"
BEGIN = "<!-- figures: python benchmarks/throughput.py --publish -->"
END = "<!-- end of figures -->"
EXPECTED = {  # what measures them
    "embedded-cpu": "make bench",
    "scenes-cpu": "make bench",
    "sd15-cuda": "make bench-gpu",
    "sd15-controlnet-cuda": "make bench-gpu",
    "sd21-cuda": "make bench-gpu",
    "sdxl-cuda": "make bench-gpu",
}
LIBRARIES = ("torch", "diffusers", "transformers")
PIPELINE, UNGUIDED = "pipeline", "unguided"


def publish(page: Path, numbers: Path) -> None:
    """Writes what lies in the folder of numbers between the page's two marks.

    Raises:
        SystemExit: the page has no marks.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has no place for figures: '{BEGIN}' and '{END}'")
    page.write_text(f"{before}{BEGIN}\n\n{sections(numbers)}\n{END}{after}", encoding="utf-8")


def sections(numbers: Path) -> str:
    """All that are expected, measured or not, and all others that are there."""
    found = {file.stem: file for file in sorted(numbers.glob("*.json"))}
    parts = []
    for name in [*EXPECTED, *(found.keys() - EXPECTED.keys())]:
        if name in found:
            parts.append(section(json.loads(found[name].read_text(encoding="utf-8"))))
        else:
            size, _, device = name.rpartition("-")
            parts.append(f"{_title(size, device)}\n\nnot yet measured (`{EXPECTED[name]}`)\n")
    return "\n".join(parts)


def section(made: Mapping[str, Any]) -> str:
    """Markdown of one run: what it was, the modes, the batches."""
    machine, settings, flops = made["machine"], made["settings"], made["flops"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in LIBRARIES)
    where = machine["gpu"] if made["device"] == "cuda" else machine["processor"]
    first, last = settings["seeds"]
    height, width = settings["pictures"]
    costs = ", ".join(f"{name} {_amount(value)}" for name, value in flops.items())
    lines = [
        _title(made["size"], made["device"]),
        "",
        f"{where}, {machine['threads']} threads of {machine['cpus']} cores, {machine['platform']}; "
        f"Python {machine['python']}, {versions}.",
        f"Pictures of {height} by {width} pixels, batch {settings['batch']}, "
        f"{settings['steps']} steps of {settings['scheduler']}, CFG {settings['cfg_scale']:g}, "
        f"{settings['dtype']}, learner {settings['learner']}; seeds {first} to {last}, "
        f"{settings['repetitions']} repetitions. FLOPs of an image: {costs}. Unguided pixels are "
        f"the pipeline's to {made['agreement']:.1e}." + _unmeasured(made["modes"]),
        "",
        f"    {shlex.join(['python', *machine['command']])}",
        "",
        *_grid(_modes(made["modes"], settings["batch"])),
    ]
    if made["batches"]:
        lines += ["", *_grid(_batches(made["batches"])), "", _two_figures(made["batches"])]
    return "\n".join(lines) + "\n"


def ratios(seconds: Sequence[float], beside: Sequence[float]) -> tuple[float, float, float]:
    """Median, lowest and highest, within repetitions."""
    found = [a / b for a, b in zip(seconds, beside, strict=True)]
    return statistics.median(found), min(found), max(found)


def _modes(modes: Mapping[str, Any], batch: int) -> list[list[str]]:
    head = ["mode", "images/s", "time, pipeline = 1", "time beside", "beside"]
    head += ["FLOPs, pipeline = 1", "peak memory", "pipeline = 1"]
    base, rows = modes[PIPELINE], [head]
    for name, of in modes.items():
        if "failed" in of:
            rows.append([name, NONE, f"failed: {of['failed']}".replace("|", "/"), *[NONE] * 5])
            continue
        beside = modes.get(of.get("beside"), {})
        memory = of.get("memory")
        rows.append(
            [
                name,
                _short(batch / statistics.median(of["seconds"])),
                _spread(of, base),
                _spread(of, beside) if beside is not base else NONE,
                of["beside"] if "seconds" in beside and beside is not base else NONE,
                f"{of['flops'] / base['flops']:.2f}" if "flops" in of else NONE,
                NONE if memory is None else _bytes(memory),
                NONE if not memory or not base.get("memory") else f"{memory / base['memory']:.2f}",
            ]
        )
    return [row[:-2] for row in rows] if _unmeasured(modes) else rows


def _unmeasured(modes: Mapping[str, Any]) -> str:
    measured = any("memory" in of for of in modes.values())
    return "" if measured else " Peak memory was not measured."


def _spread(of: Mapping[str, Any], beside: Mapping[str, Any], digits: int = 2) -> str:
    if "seconds" not in beside:
        return NONE
    middle, low, high = (f"{x:.{digits}f}" for x in ratios(of["seconds"], beside["seconds"]))
    return f"{middle} ({low} to {high})"


def _batches(batches: Mapping[str, Any]) -> list[list[str]]:
    rows = [["batch", "pipeline, images/s", "unguided, images/s", "time, pipeline = 1"]]
    for count, of in batches.items():
        speeds = [int(count) / statistics.median(of[name]) for name in (PIPELINE, UNGUIDED)]
        pair = [{"seconds": of[name]} for name in (UNGUIDED, PIPELINE)]
        rows.append([count, *map(_short, speeds), _spread(*pair, digits=3)])
    return rows


def _two_figures(batches: Mapping[str, Any]) -> str:
    """At batch 1 and at the batch where the pipeline is quickest."""
    best = max(batches, key=lambda count: int(count) / statistics.median(batches[count][PIPELINE]))
    said = [
        f"{ratios(batches[count][UNGUIDED], batches[count][PIPELINE])[0]:.3f} at batch {count}"
        for count in dict.fromkeys(["1", best])
        if count in batches
    ]
    return f"Unguided over pipeline: {', '.join(said)}, the best; the aim is 1.02 or less."


def _title(size: str, device: str) -> str:
    return f"### {size}, {'GPU' if device == 'cuda' else 'CPU'}"


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = rows
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rest)]


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _bytes(value: float) -> str:
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def _amount(value: float) -> str:
    for name, size in (("T", 1e12), ("G", 1e9)):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value / 1e6:.3g} M"
