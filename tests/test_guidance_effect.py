"""Guidance's effect: paired rises, the front, the page, and a folder of one set of settings."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark_scripts import script

effect = script("guidance_effect")


def row(objective: str, strength: float, rise: float, fidelity: float) -> dict[str, Any]:
    of = {"mean": 1.0, "rise": rise, "low": rise - 0.1, "high": rise + 0.1}
    found = {"objective": objective, "route": "decoder", "strength": strength}
    return found | {"guiding": of, "held_out": of, "right": of, "mask_fidelity": fidelity}


ROWS = [
    row("entropy", 0.0, 0.0, 0.5),
    row("entropy", 0.1, 1.0, 0.4),
    row("margin", 0.0, 0.0, 0.5),
    row("margin", 0.1, 0.9, 0.3),
]
ABOUT = {"machine": "m", "torch": "t", "images": 4, "steps": 2, "strengths": [0.1, 0.2]}
ABOUT |= {"judge_steps": 3, "learner_steps": 4, "dtype": "auto"}


def test_rises_are_paired_and_have_a_t_interval(effect: Any):
    before, after = torch.randn(9, generator=torch.Generator().manual_seed(0)), torch.rand(9)
    found = effect.rise(before + after, before, unit=2.0)
    mean, reach = float(after.mean()) / 2, 2.306004 * float(after.std()) / 2 / 3  # t of 8
    told = (found["rise"], found["low"], found["high"])
    assert told == pytest.approx((mean, mean - reach, mean + reach), abs=1e-5)


def test_the_front_has_what_nothing_beats_in_both(effect: Any):
    found = [(of["objective"], of["strength"]) for of in effect.front(ROWS)]
    assert found == [("entropy", 0.0), ("entropy", 0.1), ("margin", 0.0)]


def test_the_page_shows_guided_rows_the_best_in_bold(effect: Any, tmp_path: Path):
    effect.publish(ROWS, tmp_path, ABOUT)
    text = (tmp_path / "guidance_effect.md").read_text()
    shown = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert [line.startswith("| **") for line in shown] == [True, False]
    assert "50.0 % unguided" in text and "--strengths 0.1 0.2" in text
    assert json.loads((tmp_path / "guidance_effect.json").read_text())["rows"] == ROWS
    assert (tmp_path / "guidance_effect.svg").read_text().count("<svg") == 1


def test_a_folder_of_other_settings_is_refused(effect: Any, tmp_path: Path):
    effect.claim(tmp_path, {"images": 4})
    effect.claim(tmp_path, {"images": 4})
    with pytest.raises(SystemExit, match="other settings"):
        effect.claim(tmp_path, {"images": 5})
