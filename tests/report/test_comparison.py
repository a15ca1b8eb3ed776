import json
import re
from pathlib import Path

import pytest

import compared
from activegen.recipes.verdicts import at_equal_seconds, stated
from activegen.records import UserError
from activegen.report import write_comparison
from activegen.report.plots import named_styles
from activegen.report.words import NONE


def words(page: str) -> str:
    seen = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.S)
    return re.sub(r"[\s\N{NO-BREAK SPACE}]+", " ", seen)


def test_the_page_says_it_all(tmp_path: Path) -> None:
    compared.written(tmp_path)
    text = write_comparison(tmp_path).read_text(encoding="utf-8")
    seen = words(text)
    for told in (
        "3 seeds: 0, 1, 2",
        "Against real_only Accuracy 50.0 %",
        "Against unguided Accuracy 58.0 %",
        "66.0 % +16.0 points",
        "helps",
        "activegen compare known --seeds 3",
        "9.8.7",
        "3 MiB",
        "upper bounds",
        "Stop rule, guided: +5.0 points from unguided as a mean of 4 rounds",
    ):
        assert told in seen, told
    assert text.index("Verdicts") < text.index("Curves") < text.index("Command and machine")
    assert text.count("data:image/svg+xml") == 3


def test_it_says_why(tmp_path: Path) -> None:
    compared.written(tmp_path)
    seen = words(write_comparison(tmp_path).read_text(encoding="utf-8"))
    for told in (
        "At equal seconds",
        "the cheapest arm that generates takes with the same seed, 210 seconds: the figure",
        "unguided 400 81.0 %",
        "Arm Images Labels confirmed KID Entropy",  # what any arm has
        "guided 400 92.0 % 0.0123 0.250 0.750",
        "real test images 97.0 % - 0.050 -",
        "timm:other , trained on 4000 labelled real images that no arm has",
    ):
        assert told.replace(" ,", ",").replace(" -", f" {NONE}") in seen, told


def test_a_judge_that_is_a_file_has_learnt_from_nobody_knows_what(tmp_path: Path) -> None:
    made = compared.written(tmp_path)
    del made["held_out"]["images"], made["held_out"]["own"]
    (tmp_path / "comparison.json").write_text(json.dumps(made))
    seen = words(write_comparison(tmp_path).read_text(encoding="utf-8"))
    assert "what its file has learnt from is not known" in seen
    assert "learnt from no test image" not in seen


def test_twelve_arms_look_different() -> None:
    looks = named_styles([f"arm {k}" for k in range(12)], "arm 0").values()
    for part in ("colour", "marker", "sign"):
        assert len({getattr(of, part) for of in looks}) == 12


def test_a_comparison_of_before_is_read(tmp_path: Path) -> None:
    made = compared.written(tmp_path, diagnosed=False)
    del made["equal_seconds"], made["step_by_step"]
    for of in made["comparisons"]:
        del of["images"]
    for arm in made["arms"].values():
        del arm["stopped"], arm["times_fewer"]
        del arm["cost"]["median_seconds"], arm["cost"]["median_phases"]
    (tmp_path / "comparison.json").write_text(json.dumps(made))
    text = write_comparison(tmp_path).read_text(encoding="utf-8")
    assert "At equal seconds" not in text and "held-out judge" not in text
    assert text.count("data:image/svg+xml") == 2


def test_what_a_verdict_rests_on_is_shown(tmp_path: Path) -> None:
    made = compared.written(tmp_path)
    of = made["comparisons"][-1]
    assert of["arm"] == "guided" and of["bootstrap"] is None
    of |= {"bootstrap": {"low": 0.071, "high": 0.093}, "images": {"guided": 10, "unguided": 400}}
    of["verdict"] = "helps"
    made["step_by_step"] = [{**of, "baseline": "more_real", "images": None, "adjusted_p": 0.0123}]
    made["runs"]["1"]["guided"]["rounds"][0]["seconds"]["generate"] = 2000.0
    (tmp_path / "comparison.json").write_text(json.dumps(made))
    seen = words(write_comparison(tmp_path).read_text(encoding="utf-8"))
    for told in (
        "+7.1 to +9.3 helps, with 10 images against 400",
        "Step by step",
        "more_real +8.0 points",
        "helps 0.012",
        "corrected for these 1 comparisons alone",
        "Worth in images of unguided",
        "more than was measured",
        "mix images with steps",
        "guided 3 min 30 s",
        "Medians over the seeds",
    ):
        assert told in seen, told
    assert "Times fewer" not in seen
    made = compared.written(tmp_path)
    anew = stated(compared.recipe(loop={"restart": True}), compared.results())
    made["arms"]["guided"]["times_fewer"] = anew["arms"]["guided"]["times_fewer"]
    made["settings"]["loop"]["restart"] = True
    (tmp_path / "comparison.json").write_text(json.dumps(made))
    seen = words(write_comparison(tmp_path).read_text(encoding="utf-8"))
    assert "Times fewer than unguided" in seen and "2.00 (" in seen
    assert "mix images with steps" not in seen


def test_no_verdict_says_why(tmp_path: Path) -> None:
    made = compared.written(tmp_path)
    made["equal_seconds"] = at_equal_seconds(compared.recipe(), compared.results(), 107)
    (tmp_path / "comparison.json").write_text(json.dumps(made))
    seen = words(write_comparison(tmp_path).read_text(encoding="utf-8"))
    dash = f"{NONE} {NONE}"
    assert f"guided 58.0 % {dash} no verdict {NONE} yes" in seen
    assert "such an arm has no verdict here" in seen


def test_names_are_escaped_and_nothing_else_is_needed(tmp_path: Path) -> None:
    compared.written(tmp_path)
    text = write_comparison(tmp_path).read_text(encoding="utf-8")
    assert "river &lt;b&gt;&amp;" in text and "river <b>" not in text
    addresses = re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'>\s]*)", text)
    assert addresses and all(address.startswith("data:image/") for address in addresses)


def test_no_comparison_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no comparison\.json"):
        write_comparison(tmp_path)
