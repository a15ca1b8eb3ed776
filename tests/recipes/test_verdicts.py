"""What known figures show."""

import pytest

import compared
from activegen.loop.rounds import ArmSettings
from activegen.recipes.verdicts import baseline_of, pairs_of, stated, unguided_of

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
