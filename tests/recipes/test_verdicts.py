"""What known figures show."""

from dataclasses import replace
from typing import Any

import pytest

import compared
from activegen.loop.settings import ArmSettings, LoopSettings
from activegen.recipes.verdicts import (
    at_equal_seconds,
    baseline_of,
    can_stop,
    go_on_against,
    pairs_of,
    stated,
    unguided_of,
)

NONE, PLAIN, GUIDED = (ArmSettings(way) for way in ("none", "plain", "guided"))


def by_pair(made: dict) -> dict[tuple[str, str], dict]:
    return {(of["arm"], of["baseline"]): of for of in made["comparisons"]}


def test_figures_differences_and_verdicts() -> None:
    made = stated(compared.recipe(), compared.results())
    assert made["arms"]["guided"]["mean"] == pytest.approx(0.66)
    assert made["arms"]["guided"]["figures"] == {0: 0.661, 1: 0.662, 2: 0.657}
    found = by_pair(made)
    assert set(found) == {
        ("unguided", "real_only"),
        ("guided", "real_only"),
        ("more_real", "real_only"),
        ("guided", "unguided"),
    }
    assert found["guided", "real_only"]["difference"] == pytest.approx(0.16)
    assert found["guided", "real_only"]["verdict"] == "helps"
    assert found["guided", "unguided"]["difference"] == pytest.approx(0.08)
    river = made["arms"]["guided"]["per_class"][compared.CLASSES[1]]
    assert river["mean"] == pytest.approx(0.56) and river["difference"] == pytest.approx(0.16)
    worst = made["arms"]["guided"]["worst_class"]
    assert worst["mean"] == pytest.approx(0.56) and worst["interval"]["low"] > 0.1
    assert made["arms"]["real_only"]["worst_class"]["difference"] is None


def test_amounts_and_worths() -> None:
    arms = stated(compared.recipe(), compared.results())["arms"]
    guided = arms["guided"]
    assert guided["curves"]["images"]["amounts"] == (0, 100, 200, 300, 400)
    assert guided["curves"]["seconds"]["amounts"] == (2, 54, 106, 158, 210)
    assert guided["images_to_reach"]["unguided"]["value"] == pytest.approx(200)
    assert guided["images_to_reach"]["real_only"]["value"] == pytest.approx(0, abs=3)
    assert guided["worth_in_unguided"]["value"] is None  # unguided never comes as far
    assert arms["unguided"]["worth_in_real"]["value"] == pytest.approx(16 / 400)
    assert guided["cost"] == {
        "seconds": pytest.approx(210),
        "phases": {"train": pytest.approx(10), "generate": pytest.approx(200)},
        "images_per_second": pytest.approx(2),
    }
    assert arms["real_only"]["images_to_reach"] == {}


def test_the_stop_rule_speaks_of_rounds_with_images() -> None:
    made = stated(compared.recipe(), compared.results())
    stop = made["stop"]["guided"]
    assert stop["rounds"] == 4 and stop["stop"] is False
    assert stop["difference"] == pytest.approx(0.05)
    short = compared.results()
    for of in short.values():
        for arm in of.values():
            arm["rounds"] = arm["rounds"][:2]
    assert stated(compared.recipe(), short)["stop"]["guided"]["stop"] is None


def test_each_arm_is_cut_off_after_the_same_seconds() -> None:
    equal = stated(compared.recipe(), compared.results())["equal_seconds"]
    of_both = {0: 210, 1: 210, 2: 210}  # that generate
    assert (equal["seconds"], equal["given"]) == (of_both, False)
    assert all(of["whole"] for of in equal["arms"].values())
    cut = at_equal_seconds(compared.recipe(), compared.results(), 107)
    assert cut["given"] and cut["arms"]["guided"]["seconds"] == {0: 106, 1: 106, 2: 106}
    assert cut["arms"]["guided"]["mean"] == pytest.approx(0.58)
    whole = {name: of["whole"] for name, of in cut["arms"].items()}
    assert whole == {"real_only": True, "unguided": False, "guided": False, "more_real": True}
    found = by_pair(cut)
    assert found["guided", "unguided"]["difference"] == pytest.approx(0.04)
    assert found["guided", "real_only"]["difference"] == pytest.approx(0.08)
    none = at_equal_seconds(compared.recipe(), compared.results(), 1)
    assert none["arms"] == {} and none["comparisons"] == []


def test_the_seconds_are_those_of_the_cheapest_arm_with_the_same_seed() -> None:
    slow = compared.results()
    for arm, seconds in (("unguided", 60.0), ("guided", 90.0)):
        slow[1][arm]["rounds"][0]["seconds"]["generate"] = seconds
    equal = at_equal_seconds(compared.recipe(), slow)
    assert equal["seconds"] == {0: 210, 1: 220, 2: 210} and equal["arms"]["unguided"]["whole"]
    assert not equal["arms"]["guided"]["whole"]
    assert equal["arms"]["guided"]["seconds"] == {0: 210, 1: 198, 2: 210}


def test_a_guided_arm_goes_on_while_it_may_be_better() -> None:
    def rounds(*values: float) -> list[dict]:  # test images say the contrary
        return [{"accepted": 10, "accuracy": 1 - value, "val": value} for value in values]

    def generating(number: int, **more: Any) -> LoopSettings:
        return LoopSettings(rounds=10, generate_until=number / 10, **more)

    unguided = rounds(0.5, 0.60, 0.62, 0.64, 0.66, 0.68)
    go_on = go_on_against(unguided, generating(5))
    worse = rounds(0.5, 0.50, 0.521, 0.539, 0.56)
    assert go_on([]) and go_on(worse[:3])  # two rounds with images: too early
    assert not go_on(worse[:4])
    assert go_on(rounds(0.5, 0.61, 0.63, 0.66))
    assert go_on_against(unguided, generating(3))(worse)  # nothing left to stop
    assert can_stop(generating(5)) and not can_stop(generating(5, evaluate_every=2))
    assert can_stop(generating(7, overlap=True)) and not can_stop(generating(6, overlap=True))


def test_without_real_images_alone_nothing_is_worth_real_ones() -> None:
    of = compared.results()
    for mine in of.values():
        del mine["real_only"]
    made = stated(compared.recipe(arms={k: compared.ARMS[k] for k in of[0]}), of)
    assert made["baseline"] == "unguided" and made["arms"]["guided"]["worth_in_real"] is None


def test_one_seed_gives_no_verdict() -> None:
    made = stated(compared.recipe(), compared.results(1))
    assert {of["verdict"] for of in made["comparisons"]} == {"too few seeds"}


def test_arms_with_fewer_seeds_are_compared_by_those_that_they_have() -> None:
    some = compared.results()
    del some[2]["guided"]
    seeds = {pair: of["seeds"] for pair, of in by_pair(stated(compared.recipe(), some)).items()}
    assert seeds["guided", "real_only"] == (0, 1) and seeds["unguided", "real_only"] == (0, 1, 2)
    for of in some.values():
        of.pop("guided", None)
    assert ("guided", "real_only") not in by_pair(stated(compared.recipe(), some))


def test_rounds_that_go_on_are_said_to() -> None:
    going_on = stated(compared.recipe(), compared.results())["notices"]
    assert len(going_on) == 1 and "upper bounds" in going_on[0]
    anew = compared.recipe(loop={"restart": True})
    assert stated(anew, compared.results())["notices"] == []


def test_what_is_compared_with_what() -> None:
    assert baseline_of({"guided": GUIDED, "mine": NONE}) == "mine"
    assert baseline_of({"more": ArmSettings("none", more_real=1), "two": PLAIN}) == "more"
    assert unguided_of({"a": GUIDED, "b": PLAIN, "unguided": PLAIN}) == "unguided"
    assert unguided_of({"a": ArmSettings("plain", real=False)}) is None
    assert pairs_of({"a": PLAIN, "b": GUIDED}) == [("b", "a")]


def test_what_changes_keys_is_compared_with_the_same_without() -> None:
    arms = {
        "base": NONE,
        "plain": PLAIN,
        "other": replace(PLAIN, changes={"proposal.budget": 3}),
        "stronger": replace(NONE, changes={"training.augmentation": "photo"}),
        "alone": replace(GUIDED, changes={"proposal.budget": 3}),
    }
    assert pairs_of(arms) == [
        *((arm, "base") for arm in ("plain", "other", "stronger", "alone")),
        ("alone", "plain"),
        ("other", "plain"),
    ]
