"""The tables of ``docs/results/``."""

import json
import shlex
from itertools import pairwise
from pathlib import Path

import compared
from activegen.recipes import load
from activegen.recipes.arms import STANDARD
from benchmark_scripts import script

ROOT = Path(__file__).parents[1]
results = script("results")


def test_tables_and_numbers_are_copied(results, tmp_path: Path) -> None:
    made = compared.written(tmp_path / "out" / "world")
    compared.written(tmp_path / "out" / "scenes")
    assert results.publish(tmp_path / "out", tmp_path / "docs") == ["scenes", "world"]
    kept = json.loads((tmp_path / "docs" / "world.json").read_text())
    assert kept["arms"] == made["arms"] and kept["runs"] == made["runs"]
    text = (tmp_path / "docs" / "world.md").read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "| guided | 66.0 % | real_only | +16.0 points |" in text
    assert "| guided | 66.0 % | unguided | +8.0 points |" in text
    assert "activegen compare known --seeds 3" in text and "torch 9.8.7" in text
    assert "![Against synthetic images](world.svg)" in text
    assert b"<svg" in (tmp_path / "docs" / "world.svg").read_bytes()
    assert "[world](world.md)" in (tmp_path / "docs" / "README.md").read_text()


def test_tables_say_what_decided_and_what_an_image_is_worth(results, tmp_path: Path) -> None:
    made = compared.written(tmp_path)
    made["comparisons"][-1] |= {
        "bootstrap": {"low": 0.071, "high": 0.093},
        "images": {"guided": 10, "unguided": 400},
        "adjusted_p": 0.0123,
        "verdict": "helps",
    }
    made["step_by_step"] = [{**made["comparisons"][-1], "images": None}]
    made["runs"]["1"]["guided"]["rounds"][0]["seconds"]["generate"] = 2000.0
    text = results.table("known", made).replace("\N{NO-BREAK SPACE}", " ")
    assert "| +7.1 to +9.3 | helps, with 10 images against 400 | 0.012 |" in text
    assert "p and verdicts are after Holm's correction; an interval" in text
    assert "Step by step" in text and "| arm | accuracy | after |" in text
    head = "| to reach real_only | to reach unguided | in unguided images | in real images |"
    assert head in text and "| median seconds |" in text
    assert "20 labelled real images (more_real 40), 200 test images, 50 optimiser steps." in text
    [row] = [line for line in text.splitlines() if line.startswith("| guided | 400 |")]
    assert "| more than was measured | more than was measured |" in row and row.endswith("| 210 |")
    assert "mix images with steps" in text and "imes fewer" not in text
    made["settings"]["loop"]["restart"] = True
    text = results.table("known", made)
    assert "mix images" not in text and "| times fewer | in unguided images |" in text
    alone = {**made, "unguided": None}
    assert "to reach None" not in results.table("known", alone)


def test_the_worst_class_calibration_and_cost_have_a_table(results, tmp_path: Path) -> None:
    made = compared.written(tmp_path)
    made["arms"]["guided"]["worst_class"] |= {
        "mean": 0.4,
        "difference": 0.05,
        "interval": {"low": 0.01, "high": 0.09},
    }
    made["arms"]["guided"]["ece"] = 0.123
    made["arms"]["guided"]["cost"]["peak_memory"] = 3 * 2**20
    text = results.table("known", made).replace("\N{NO-BREAK SPACE}", " ")
    [row] = [line for line in text.splitlines() if line.startswith("| guided | 40.0 %")]
    assert row.startswith("| guided | 40.0 % | +5.0 points | +1.0 to +9.0 | 12.3 % |")
    assert row.endswith("| 3 |")


def test_a_comparison_without_curves_has_no_figure(results, tmp_path: Path) -> None:
    made = compared.written(tmp_path / "out" / "known")
    for arm in made["arms"].values():
        arm["curves"]["images"] = None
    (tmp_path / "out" / "known" / "comparison.json").write_text(json.dumps(made))
    results.publish(tmp_path / "out", tmp_path / "docs")
    assert "known.svg" not in (tmp_path / "docs" / "known.md").read_text()
    assert not (tmp_path / "docs" / "known.svg").exists()


def test_diagnostics_and_equal_seconds_have_tables(results, tmp_path: Path) -> None:
    text = results.table("known", compared.written(tmp_path)).replace("\N{NO-BREAK SPACE}", " ")
    assert "optimiser steps. [All numbers](known.json)." in text
    assert "takes with the same seed, 210 seconds. What counts" in text
    assert "seen by timm:other, which no arm uses:" in text
    head = "| arm | Labels confirmed | KID | Entropy |"  # what any arm has
    assert head in text and "| guided | 92.0 % | 0.0123 | 0.250 | 0.750 |" in text
    assert "| real test images | 97.0 % | \N{EN DASH} | 0.050 |" in text
    before = results.table("known", compared.written(tmp_path, diagnosed=False))
    assert "seen by" not in before


def test_no_place_of_this_machine_is_published(results, tmp_path: Path) -> None:
    made = compared.written(tmp_path / "out" / "world")
    command = "activegen compare /home/me/mine.yaml --set data.path=/secret/eurosat --seeds 3"
    command += " --out /secret/out --judge=/secret/judge.safetensors --set data.train.per_class=4"
    made["command"] = command
    made["environment"]["command"] = ["/secret/activegen", "compare"]
    made["settings"]["data"]["path"] = "/secret/eurosat"
    made["settings"]["model"]["lora"] = [{"path": "/secret/lora", "scale": 1.0}]
    (tmp_path / "out" / "world" / "comparison.json").write_text(json.dumps(made))
    results.publish(tmp_path / "out", tmp_path / "docs")
    told = "activegen compare mine.yaml --set data.path=DIR --seeds 3 --judge=judge.safetensors"
    told += " --set data.train.per_class=4"
    for file in ("world.md", "world.json"):
        text = (tmp_path / "docs" / file).read_text()
        assert told in text and "secret" not in text and "/home" not in text
    settings = json.loads((tmp_path / "docs" / "world.json").read_text())["settings"]
    assert settings["data"]["path"] == settings["model"]["lora"][0]["path"] == "DIR"
    assert settings["prompts"] == made["settings"]["prompts"]


def test_what_is_compared_is_there(results) -> None:
    known = results.comparisons(EUROSAT="/my data", CAMVID="/data", NUCLEI="")
    assert "data.path=/my data" in known["eurosat_16"]
    assert "camvid" in known and "nuclei" not in known
    for recipe, *words in known.values():
        set_ = [value for word, value in pairwise(words) if word == "--set"]
        [arms] = [value for word, value in pairwise(words) if word == "--arms"] or [""]
        made = load(str(ROOT / recipe) if "/" in recipe else recipe, set_)
        assert set(filter(None, arms.split(","))) <= {*STANDARD, *made.arms}


def test_pages_are_what_is_compared(results) -> None:
    known = results.comparisons(EUROSAT="/e", CAMVID="/c", NUCLEI="/n")
    for name, words in known.items():
        page = ROOT / "docs" / "results" / f"{name}.json"
        if page.exists():
            command = shlex.split(json.loads(page.read_text())["command"])
            here = results.placeless_words(["activegen", "compare", *words])
            assert sorted(here) == sorted(command), name


def test_the_command_is_the_command_line(results, tmp_path: Path, monkeypatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(results.subprocess, "run", lambda words, check: called.append(words))
    results.carry_out(["demo", "--arms", "all"], 3, tmp_path, 60.0)
    told = ["-m", "activegen", "compare", "demo", "--arms", "all", "--out", str(tmp_path)]
    assert called[0][1:] == [*told, "--seeds", "3", "--budget", "60"]
    results.carry_out(["demo", "--seeds", "5"], None, tmp_path, None)
    assert called[1][3:] == ["compare", "demo", "--seeds", "5", "--out", str(tmp_path)]
