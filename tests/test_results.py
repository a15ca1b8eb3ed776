"""The tables of ``docs/results/``."""

import importlib.util
import json
from pathlib import Path

import pytest

import compared
from activegen.recipes import packaged

FILE = Path(__file__).parents[1] / "benchmarks" / "results.py"


@pytest.fixture(scope="module")
def results():
    spec = importlib.util.spec_from_file_location("results_of_test", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_and_numbers_are_copied(results, tmp_path: Path) -> None:
    made = compared.written(tmp_path / "out" / "world")
    compared.written(tmp_path / "out" / "scenes")
    assert results.publish(tmp_path / "out", tmp_path / "docs") == ["scenes", "world"]
    assert json.loads((tmp_path / "docs" / "world.json").read_text()) == made
    text = (tmp_path / "docs" / "world.md").read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "| guided | 66.0 % | real_only | +16.0 points |" in text
    assert "| guided | 66.0 % | unguided | +8.0 points |" in text
    assert "activegen compare known --seeds 3" in text and "torch 9.8.7" in text
    assert "[world](world.md)" in (tmp_path / "docs" / "README.md").read_text()


def test_what_is_compared_is_there(results) -> None:
    known = results.comparisons("/data")
    assert {words[0] for words in known.values()} <= set(packaged())
    assert "eurosat_16" in known and "eurosat_16" not in results.comparisons("")


def test_the_command_is_the_command_line(results, tmp_path: Path, monkeypatch) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(results.subprocess, "run", lambda words, check: called.append(words))
    results.carry_out(["demo", "--arms", "all"], 3, tmp_path, 60.0)
    told = ["-m", "activegen", "compare", "demo", "--arms", "all", "--seeds", "3"]
    assert called[0][1:] == [*told, "--out", str(tmp_path), "--budget", "60"]
