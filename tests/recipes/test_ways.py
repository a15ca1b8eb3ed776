"""Ways to compare: what is refused before the work begins, and what is told of how it was done."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tiny
from activegen.recipes import parse
from activegen.recipes.comparing import Ways, compare
from activegen.recipes.diagnosing import HeldOutSettings
from activegen.records import UserError
from toy import short

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's, on loading a model

NONE = {"generate": "none"}
PLAIN = {"generate": "plain", "judge": False}
GUIDED = {"generate": "guided", "judge": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.model(), tmp_path_factory.mktemp("model"))


def test_the_stop_rule_needs_an_unguided_arm(model: Path, tmp_path: Path) -> None:
    raw = short(model, real_only=NONE, guided=GUIDED)
    raw["data"]["val"] = {"split": "val"}
    with pytest.raises(UserError, match="none: add 'unguided' to --arms"):
        compare(parse(raw), tmp_path, ways=Ways(stop=True))


@pytest.mark.parametrize("judge", ["nonsense", "small", "gone.safetensors"])
def test_a_wrong_judge_is_told_before_any_arm(model: Path, tmp_path: Path, judge: str) -> None:
    raw = {**short(model, real_only=NONE), "learner": {"network": "small"}}
    ways = Ways(held_out=HeldOutSettings(judge=judge))
    with pytest.raises(UserError):
        compare(parse(raw), tmp_path, ways=ways)
    assert not list(tmp_path.glob("seed-0/arms/*"))


def test_an_unknown_step_is_told(model: Path, tmp_path: Path) -> None:
    recipe = parse(short(model, real_only=NONE, unguided={**PLAIN, "after": "unguded"}))
    with pytest.raises(UserError, match=r"arms\.unguided\.after"):
        compare(recipe, tmp_path)


def test_seconds_of_arms_that_shared_a_device_are_not_compared(model: Path, tmp_path: Path) -> None:
    recipe = parse(short(model, real_only=NONE, unguided=PLAIN))
    made = compare(recipe, tmp_path)
    assert made["equal_seconds"] and not any("one device" in told for told in made["notices"])
    cost = tmp_path / "seed-0" / "arms" / "unguided" / "cost.json"
    assert json.loads(cost.read_text())["together"] == 1
    cost.write_text('{"peak_memory": null, "together": 2}')
    (cost.parent / "model.safetensors").unlink()  # it is gone on with, alone on its device
    made = compare(recipe, tmp_path)
    assert json.loads(cost.read_text())["peak_memory"] is not None
    assert made["equal_seconds"] is None
    assert any("up to 2 arms had one device" in told for told in made["notices"])


def test_what_is_known_is_written_before_the_diagnostics(model: Path, tmp_path: Path) -> None:
    seen: list[bool] = []
    recipe = parse(short(model, real_only=NONE, unguided=PLAIN))
    judge = HeldOutSettings(steps=2)

    def written(made: Mapping[str, Any]) -> None:
        assert json.loads((tmp_path / "comparison.json").read_text()) == made
        seen.append("diagnostics" in made["arms"]["unguided"])

    compare(recipe, tmp_path, ways=Ways(held_out=judge), written=written)
    assert seen == [False, True]


def test_looks_are_of_the_seeds_that_verdicts_had(model: Path, tmp_path: Path) -> None:
    recipe = parse(short(model, real_only=NONE, unguided=PLAIN))
    compare(recipe, tmp_path, seeds=[0, 1])
    file = tmp_path / "comparison.json"
    before = json.loads(file.read_text())
    file.write_text(json.dumps({**before, "seeds": [0, 1, 2]}))  # the third had no time
    made = compare(recipe, tmp_path, seeds=[0, 1, 2])
    assert [[*of.values()] for of in made["looks"]] == [[[0, 1]], [[0, 1, 2]]]
    assert any("already with 2 seeds, and now with 3" in told for told in made["notices"])


def test_a_first_look_at_some_of_the_seeds_is_no_earlier_one(model: Path, tmp_path: Path) -> None:
    recipe = parse(short(model, real_only=NONE, unguided=PLAIN))
    compare(recipe, tmp_path, seeds=[0, 1])
    (tmp_path / "comparison.json").unlink()
    made = compare(recipe, tmp_path, seeds=[0, 1, 2], ways=Ways(budget_seconds=0.0))
    assert [[*of.values()] for of in made["looks"]] == [[[0, 1]]]
    assert not any("already" in told for told in made["notices"])
