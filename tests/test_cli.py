"""The command line: exit codes, one clear line, and somebody's own data from end to end."""

import errno
import io
import json
import os
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import activegen
import tiny
from activegen import cli
from activegen.recipes import Run, notices
from activegen.report.words import NBSP

pytestmark = pytest.mark.filterwarnings("ignore")

DOCS = Path(__file__).parents[1] / "docs" / "cli.md"
QUICK = [
    "data.size=16",
    "data.test.limit=2",
    "sampling.num_steps=2",
    "training.steps=4",
    "training.warmup_steps=0",
    "training.batch_size=8",
    "mining.folds=2",
    "proposal.budget=4",
    "judge.members=2",
    "judge.steps=2",
    "judge.min_probability=0",
    "loop.rounds=2",
]
PLAIN = "arms={unguided: {generate: plain, judge: false}}"
QUICK_RUN = [word for value in QUICK for word in ("--set", value)]
REAL = "arms={real_only: {generate: none}}"
NETWORK = """
from torch import nn


def make(classes):
    body = [nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(4, classes))
"""


def call(*words: object) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        cli.app([str(word) for word in words])
    return int(ended.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work here."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_data(folder: Path) -> Path:
    """Three classes of 96 x 80 pixels: grey, transparent, coloured; one file is corrupt."""
    rng = np.random.default_rng(0)
    for name, mode in (("black cat", "L"), ("dog", "RGBA"), ("fish", "RGB")):
        (folder / "mine" / name).mkdir(parents=True)
        for number in range(14):
            values = rng.integers(0, 256, (80, 96, 3), dtype=np.uint8)
            picture = Image.fromarray(values).convert(mode)
            picture.save(folder / "mine" / name / f"{number}.png")
    (folder / "mine" / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return folder / "mine"


def test_own_data_network_and_generator(
    own_data: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notices, "not_believed", lambda runs, arms: [f"doubts {runs[0]} {arms}"])
    assert call("init", own_data, "--out", "recipe.yaml") == 0
    seen = capsys.readouterr()
    assert "broken.png cannot be read" in seen.err
    assert all(name in seen.out for name in ("black cat", "dog", "fish"))
    assert call("init", own_data, "--out", "recipe.yaml") == 2
    assert "'recipe.yaml' is there already" in capsys.readouterr().err
    (folder / "own_network_of_test.py").write_text(NETWORK)
    tiny.save(tiny.model(), folder / "model")
    own = ["learner.network=own_network_of_test:make", "model.path=./model"]
    words = [word for value in (*own, *QUICK) for word in ("--set", value)]
    try:
        assert call("run", "recipe.yaml", *words, "--out", "run", "--json") == 0
    finally:
        sys.modules.pop("own_network_of_test", None)
    seen = capsys.readouterr()
    assert "broken.png cannot be read" in seen.err
    assert "doubts run ['real_only', 'unguided', 'active']" in seen.err
    [line] = seen.out.splitlines()
    said = json.loads(line)
    assert set(said) == {
        "figure",
        "real_only",
        "unguided",
        "active",
        "images",
        "rejected",
        "seconds",
        "cost",
        "report",
    }
    assert said["cost"]["active"]["mfu"]["drawing"] > 0
    assert 0 < said["cost"]["active"]["total"] <= said["seconds"]
    assert said["images"] + sum(said["rejected"].values()) == 4
    assert Path(said["report"]).is_file()
    assert "active: round 2 of 2, test accuracy" in seen.err


def test_seconds_of_each_arm_without_trifles() -> None:
    cost = {"seconds": {"train": 30.0, "denoise": 69.5, "store": 0.5}, "flops": {"train": 6e9}}
    arms = {
        "real_only": {"rounds": [{"round": 0}]},
        "[active]": {"rounds": [{"cost": cost | {"possible": {"train": 3e10}}}] * 2},
    }
    console = Console(width=cli.WIDTH, record=True, file=io.StringIO())
    console.print(cli._costs(arms))
    seen = console.export_text().replace(NBSP, " ")
    assert "[active]" in seen and "store" not in seen
    rows = [row.split("│") for row in seen.splitlines() if row.startswith("│")]
    told = {row[1].strip(): row[3].strip() for row in rows}
    assert told["training of learners"] == "1 min 00 s, 30%"
    assert told["denoiser"] == "2 min 19 s, 70%"
    assert told["all"] == "3 min 20 s"
    assert told["training: model FLOPs of peak"] == "20.0 %"
    assert len(told) == 4


def test_adapt_says_how_to_draw_with_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.save(tiny.model(), folder / "model")
    counts = ["data.train.per_class=2", "adapt.steps=2", "adapt.batch_size=2"]
    words = [word for value in ("model.path=./model", *counts) for word in ("--set", value)]
    assert call("adapt", "demo", *words, "--out", "own") == 0
    told = f"activegen run demo {' '.join(words)} --set model.lora=own"
    said = capsys.readouterr().out
    assert told in said
    [whether] = [line for line in said.splitlines() if line.startswith("to see whether it helps: ")]
    of_it = [*shlex.split(whether)[6:], *QUICK_RUN, "--seeds", 1, "--no-diagnose", "--json"]
    assert call(*of_it) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]["0"]
    assert facts["adapted"]["generator"] != facts["unguided"]["generator"]
    assert call("adapt", "demo", *words, "--out", "own", "--json") == 0
    assert json.loads(capsys.readouterr().out)["finished"]
    assert call("adapt", "demo", *words, "--what", "controlnet", "--out", "net") == 2
    assert "a ControlNet learns from masks" in capsys.readouterr().err
    use = ["--set", "model.lora=own", "--set", PLAIN, *QUICK_RUN]
    assert call("run", "demo", *words, *use, "--out", "run", "--json") == 0


def test_compare_says_whether_it_helped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.save(tiny.model(), folder / "model")
    counts = ["data.test.options.count=2", "data.train.per_class=4", "model.path=./model"]
    words = [word for value in counts for word in ("--set", value)] + QUICK_RUN
    arms = ["--arms", "real_only, unguided", "--seeds", "2", "--out", "two", "--no-diagnose"]
    assert call("compare", "demo", *words, *arms) == 0
    seen = capsys.readouterr()
    assert "against real_only" in seen.out and "report: two/report.html" in seen.out
    assert "seed 1 unguided: round 2 of 2" in seen.err
    assert call("compare", "demo", *words, *arms, "--json") == 0
    [line] = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert said["seeds"] == [0, 1] and list(said["arms"]) == ["real_only", "unguided"]
    assert call("report", "two") == 0
    assert Path(capsys.readouterr().out.strip()).read_text().startswith("<!doctype html>")


def test_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.save(tiny.model(), folder / "model")
    counts = ["data.test.options.count=2", "data.train.per_class=4", "training.batch_size=8"]
    words = [word for value in ("model.path=./model", *counts) for word in ("--set", value)]
    assert call("run", "demo", *words, "--dry-run", "--out", "run") == 0
    assert "about" in capsys.readouterr().out
    assert not (folder / "run").exists()
    assert call("run", "demo", *words, "--dry-run", "--out", "run", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["arms"]["active"]["images"] > 0 < said["minutes"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "dmo"], "unknown recipe 'dmo'"),
        (["run", "nowhere.yaml"], "there is no recipe nowhere.yaml"),
        (["run", "demo", "--set", "trainin.steps=1"], "Did you mean 'training'?"),
        (["run", "eurosat"], "data.path is missing"),
        (["run", "eurosat", "--set", "data.path=./nowhere", "--set", REAL], "nowhere"),
        (["compare", "demo", "--arms", "guidd"], "unknown arm 'guidd'"),
        (["compare", "demo", "--seeds", "0"], "--seeds is 0"),
        (["init", "nowhere"], "there is no folder 'nowhere'"),
        (["doctor", "dmo"], "unknown recipe 'dmo'"),
        (["generate", "demo", "--model", "x", "--out", "y", "--count", "0"], "--count is 0"),
    ],
)
def test_what_can_be_mended_is_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: str,
) -> None:
    monkeypatch.setattr("activegen.recipes.health.embedded_problem", lambda folder: "")
    assert call(*words) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert error.count("activegen: ") == 1 and "Traceback" not in error
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Run) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/demo/file")

    monkeypatch.setattr(Run, "carry_out", full)
    assert call("run", "demo", *QUICK_RUN) == 2
    error = capsys.readouterr().err
    assert "no space is left ('runs/demo/file')" in error and "Traceback" not in error


def test_another_error_of_the_system_is_not_hidden(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Run) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Run, "carry_out", denied)
    with pytest.raises(OSError, match="Input/output"):
        cli.app(["run", "demo", *QUICK_RUN])


def test_control_c_can_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Run) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "carry_out", stop)
    assert call("run", "demo") == 130
    assert "stopped; run the same command to go on" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out.strip() == activegen.__version__


def test_public_names_are_there() -> None:
    for name in activegen.__all__:
        assert getattr(activegen, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = activegen.nothing


def test_the_docs_are_the_help() -> None:
    assert DOCS.read_text(encoding="utf-8") == cli.documentation(), (
        "run: python -m activegen.cli > docs/cli.md"
    )


def test_no_name_is_cut_off_in_a_narrow_terminal() -> None:
    arms = {
        name: {
            "figure": "accuracy",
            "accuracy": 0.5,
            "per_class": {"cat": 0.4},
            "worst_class": "cat",
            "images": 4,
            "rejected": {},
        }
        for name in ("real_only", "adversarial_long")
    }
    console = Console(width=50, record=True, file=io.StringIO())
    console.print(cli._table(arms))
    shown = console.export_text()
    assert "…" not in shown
    first = "".join(line[1:].split("│")[0].strip() for line in shown.splitlines() if "│" in line)
    assert first.endswith("adversarial_long")
