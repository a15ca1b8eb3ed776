"""The packaged comparisons, and their tables for ``docs/results/``.

    python benchmarks/results.py --eurosat DIR --out runs/results --docs docs/results

What is compared is in ``comparisons.yaml``. A comparison that was stopped goes on with the same
command. ``--only publish`` computes nothing and writes the tables of what is there.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml

from activegen.recipes.comparing import FILE
from activegen.report.comparison import (
    BEYOND,
    CONFOUNDED,
    HOLM,
    WORTH,
    amount,
    between,
    diagnosed,
    diagnostic,
    medians,
    p_of,
    seconds_given,
    titles,
    verdict_of,
)
from activegen.report.measures import MEASURES
from activegen.report.plots import interval_svg, named_styles
from activegen.report.words import NONE, percent, points

PUBLISH = "publish"
COMPARISONS = Path(__file__).with_name("comparisons.yaml")
KEPT = (".yaml", ".safetensors")  # files whose names tell something
COMPARED = ("difference", "95 % interval", "bootstrap-t", "verdict", "p", "seeds needed")


def comparisons(**folders: str) -> dict[str, list[str]]:
    """Words behind ``activegen compare`` by the name of the page that comes of them.

    Args:
        folders: by their names in ``comparisons.yaml``, or empty: a page that needs it is left out.
    """
    given = {name: shlex.quote(folder) for name, folder in folders.items() if folder}
    found: dict[str, list[str]] = {}
    for name, words in yaml.safe_load(COMPARISONS.read_text(encoding="utf-8")).items():
        template = Template(words)
        if set(template.get_identifiers()) <= given.keys():
            found[name] = shlex.split(template.substitute(given))
    return found


def carry_out(words: list[str], seeds: int | None, out: Path, budget: float | None) -> None:
    """``seeds`` and ``budget`` are in place of the page's own, where they are given."""
    command = [sys.executable, "-m", "activegen", "compare", *words, "--out", str(out)]
    command += [] if seeds is None else ["--seeds", str(seeds)]
    command += [] if budget is None else ["--budget", f"{budget:g}"]
    subprocess.run(command, check=True)


def publish(out: Path, docs: Path) -> list[str]:
    """Copies each comparison under ``out`` as JSON and as a table; the names of them."""
    docs.mkdir(parents=True, exist_ok=True)
    names = sorted(file.parent.name for file in out.glob(f"*/{FILE}"))
    for name in names:
        made = placeless(json.loads((out / name / FILE).read_text(encoding="utf-8")))
        text = json.dumps(made, indent=1, ensure_ascii=False)
        (docs / f"{name}.json").write_text(text, encoding="utf-8")
        (docs / f"{name}.md").write_text(table(name, made), encoding="utf-8")
        if svg := curve(made):
            (docs / f"{name}.svg").write_bytes(svg)
    index = "# Results\n\nMade by `make results`; do not edit.\n\n"
    pages = sorted(file.stem for file in docs.glob("*.json"))  # other scripts' too
    index += "".join(f"- [{name}]({name}.md), [all numbers]({name}.json)\n" for name in pages)
    (docs / "README.md").write_text(index, encoding="utf-8")
    return names


def placeless(made: Mapping[str, Any]) -> dict[str, Any]:
    """The same without where things are on this machine."""
    words = shlex.split(made["command"])
    environment = {k: v for k, v in made["environment"].items() if k != "command"}
    return {
        **made,
        "command": shlex.join(placeless_words(words)),
        "environment": environment,
        "settings": _pathless(made["settings"]),
    }


def _pathless(settings: Any) -> Any:
    if isinstance(settings, Mapping):
        return {key: _pathless(of) for key, of in settings.items()}
    if isinstance(settings, list):
        return [_pathless(of) for of in settings]
    return _somewhere(settings) if isinstance(settings, str) else settings


def placeless_words(words: list[str]) -> list[str]:
    kept: list[str] = []
    after = ""
    for word in words:
        key, equals, value = word.partition("=")
        if after != "--out" and word != "--out" and key != "--out":
            whole = _somewhere(value) if equals else _somewhere(word)
            kept.append(f"{key}={whole}" if equals else whole)
        after = word
    return kept


def _somewhere(value: str) -> str:
    """A folder or file of this machine is DIR or its name; a name of the package stays."""
    path = Path(value)
    if not path.is_absolute() and ".." not in path.parts and not value.startswith("~"):
        return value
    return path.name if path.suffix in KEPT else "DIR"


def curve(made: Mapping[str, Any]) -> bytes | None:
    """The figure of each arm against its synthetic images; None where there is none."""
    arms, measure = made["arms"], MEASURES[made["figure"]]
    looks = named_styles(list(arms), made["baseline"] if made["baseline"] in arms else None)
    curves = {name: of["curves"]["images"] for name, of in arms.items()}
    title = f"{measure.title} on real test images"
    return interval_svg(curves, looks, title, "synthetic images learnt from", alone=True)


def table(name: str, made: Mapping[str, Any]) -> str:
    """Markdown of one comparison."""
    arms, figure = made["arms"], made["figure"]
    lines = [f"# {name}", "", f"    {made['command']}", ""]
    lines += [f"Seeds {', '.join(map(str, made['seeds']))}; {_machine(made['environment'])}.", ""]
    lines += [f"{_sizes(made)} [All numbers]({name}.json).", ""]
    lines += [f"- {notice}" for notice in made["notices"]]
    base, unguided = made["baseline"], made["unguided"]
    first = [base, percent(arms[base]["mean"])] if base in arms else []
    head = ["arm", figure, "against", *COMPARED]
    rows = _compared(made, made["comparisons"])
    lines += ["", *_grid(head, [first + [""] * (len(head) - len(first)), *rows])]
    told = (
        "Intervals are Student's t over the paired seeds, on the same test images; a seed draws "
        "which images are labelled, how learners begin and what is drawn. bootstrap-t is there "
        "from 5 seeds on that are not all alike, to look at."
    )
    lines += ["", f"{HOLM}. {told}"]
    if steps := made.get("step_by_step"):
        told = (
            "Step by step: each arm that generates against the one before it in the recipe, where "
            "it is not above already; p is corrected for these comparisons alone:"
        )
        lines += ["", told, "", *_grid(["arm", figure, "after", *COMPARED], _compared(made, steps))]
    others = [name for name in dict.fromkeys((base, unguided)) if name]
    whole = made["settings"]["loop"]["restart"]
    head = ["arm", "images", *(f"to reach {name}" for name in others)]
    head += ["times fewer"] * whole + ["in unguided images", "in real images", "median seconds"]
    costs = medians(made)
    rows = [
        [
            arm,
            str(max(of["images"].values())),
            *(amount(of["images_to_reach"].get(name)) for name in others),
            *[amount(of.get("times_fewer"), 2)] * whole,
            amount(of["worth_in_unguided"], 2, BEYOND),
            amount(of["worth_in_real"], 3, BEYOND),
            f"{costs[arm]['median_seconds']:.0f}",
        ]
        for arm, of in arms.items()
        if of["settings"]["generate"] != "none"
    ]
    if rows:
        told = f"{WORTH} In brackets are intervals of 95 %. "
        if whole and unguided:
            told += f"Times fewer: the images of {unguided} over those to reach its figure."
        told += "" if whole else CONFOUNDED
        lines += ["", "What a synthetic image is worth:", "", *_grid(head, rows), "", told.strip()]
    lines += [""] + [f"- {arm}: {of['words']}" for arm, of in made["stop"].items()]
    if any(of["curves"]["images"] for of in arms.values()):
        told = "Means over the seeds; bands are intervals of 95 % at each amount alone."
        lines += ["", f"![Against synthetic images]({name}.svg)", "", told]
    lines += [*_equal_seconds(made), *_diagnostics(made), *_beside(made, costs)]
    return "\n".join(lines).rstrip() + "\n"


def _sizes(made: Mapping[str, Any]) -> str:
    """Of what is learnt from, of the test set and of the training."""
    seeds = made["facts"].values()

    def told(key: str, *arms: str) -> str:
        named = arms or made["arms"]
        found = {by_arm[arm][key] for by_arm in seeds for arm in named if arm in by_arm}
        return " or ".join(f"{count:,}" for count in sorted(found))

    usual = told("real_images", made["baseline"])
    real = {arm: told("real_images", arm) for arm in made["arms"]}
    others = ", ".join(f"{arm} {count}" for arm, count in real.items() if count != usual)
    learnt = f"{usual} labelled real images" + f" ({others})" * bool(others)
    return f"{learnt}, {told('test_images')} test images, {told('steps')} optimiser steps."


def _compared(made: Mapping[str, Any], comparisons: list[Mapping[str, Any]]) -> list[list[str]]:
    """Rows of an arm, its figure, what it is compared with, and `COMPARED`."""
    rows = []
    for of in comparisons:
        needed = of["seeds_needed"]
        cells = [of["arm"], percent(made["arms"][of["arm"]]["mean"]), of["baseline"]]
        cells += [points(of["difference"]), between(of["interval"]), between(of["bootstrap"])]
        cells += [verdict_of(of), p_of(of), NONE if needed is None else f"{needed:.0f}"]
        rows.append(cells)
    return rows


def _beside(made: Mapping[str, Any], costs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The worst class, calibration and cost of each arm."""
    rows = []
    for arm, of in made["arms"].items():
        worst, peak = of["worst_class"], of["cost"]["peak_memory"]
        rate = costs[arm]["images_per_second"]
        rows.append(
            [
                arm,
                percent(worst["mean"]),
                points(worst["difference"]),
                between(worst["interval"]),
                percent(of["ece"]),
                NONE if rate is None else f"{rate:.1f}",
                NONE if peak is None else f"{peak / 2**20:.0f}",
            ]
        )
    head = ["arm", "worst class", f"against {made['baseline']}", "95 % interval", "ECE"]
    head += ["drawn a second", "peak MiB"]
    return ["", "The worst class, whichever it is, calibration and cost:", "", *_grid(head, rows)]


def _equal_seconds(made: Mapping[str, Any]) -> list[str]:
    equal = made.get("equal_seconds")
    if not equal or not equal["comparisons"]:
        return []
    rows = [
        [
            row["arm"],
            percent(equal["arms"][row["arm"]]["mean"]),
            row["baseline"],
            points(row["difference"]),
            between(row["interval"]),
            row["verdict"],
            p_of(row),
            "no" if equal["arms"][row["arm"]]["whole"] else "yes",
        ]
        for row in equal["comparisons"]
    ]
    head = ["arm", made["figure"], "against", "difference", "95 % interval", "verdict", "p"]
    head += ["cut off"]
    how = (
        "Each round trains a new learner to its end; between two evaluated rounds the way is "
        "straight:"
        if made["settings"]["loop"]["restart"]
        else "What counts is the last evaluated round by then. Its learner lacks optimiser steps "
        "and the end of its learning-rate schedule, so an arm that is cut off has no verdict; "
        "loop.restart=true gives it one:"
    )
    return [
        "",
        f"Each arm cut off after {seconds_given(equal)}. {how}",
        "",
        *_grid(head, rows),
    ]


def _diagnostics(made: Mapping[str, Any]) -> list[str]:
    found, judge = diagnosed(made), made.get("held_out")
    if not found or judge is None:
        return []
    names = titles(found)
    rows = [[arm, *(diagnostic(of, name) for name in names)] for arm, of in found.items()]
    real = {**judge, "label_fidelity": judge[judge["figure"]]}
    rows.append(["real test images", *(diagnostic(real, name) for name in names)])
    told = f"The synthetic images, seen by {judge['network']}, which no arm uses:"
    head = ["arm", *names.values()]
    about = "docs/report.md says what each is."
    if count := judge.get("compared"):
        about = f"Precision to KID are of {count} images of each arm. {about}"
    return ["", told, "", *_grid(head, rows), "", about]


def _grid(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines]


def _machine(environment: Mapping[str, Any]) -> str:
    gpu = environment["gpu"] or "no GPU"
    versions = ", ".join(f"{name} {of}" for name, of in environment["versions"].items())
    return f"{environment['cpus']} cores, {gpu}, {environment['platform']}; {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, help="in place of each page's own number")
    parser.add_argument("--budget", type=float, help="seconds for each comparison")
    parser.add_argument("--eurosat", default="", help="folder of its parquet files")
    for name in ("camvid", "nuclei"):
        parser.add_argument(f"--{name}", default="", help="folder of its pieces and generator")
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    parser.add_argument("--docs", type=Path, default=Path("docs/results"))
    parser.add_argument("--only", help=f"one comparison, or {PUBLISH}")
    given = parser.parse_args()
    known = comparisons(EUROSAT=given.eurosat, CAMVID=given.camvid, NUCLEI=given.nuclei)
    if given.only not in (None, PUBLISH, *known):
        parser.error(f"--only is one of: {', '.join([*known, PUBLISH])}")
    for name, words in known.items():
        if given.only in (None, name):
            carry_out(words, given.seeds, given.out / name, given.budget)
    print("\n".join(publish(given.out, given.docs)))


if __name__ == "__main__":
    main()
