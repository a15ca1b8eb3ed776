"""What known figures show."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
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
    steps_of,
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
    arms = stated(compared.recipe(loop={"restart": True}), compared.results())["arms"]
    guided = arms["guided"]
    assert guided["curves"]["images"]["amounts"] == (0, 100, 200, 300, 400)
    assert guided["curves"]["seconds"]["amounts"] == (2, 54, 106, 158, 210)
    assert guided["images_to_reach"]["unguided"]["value"] == pytest.approx(200)
    assert guided["images_to_reach"]["real_only"]["value"] == pytest.approx(0, abs=3)
    assert guided["worth_in_unguided"]["value"] is None  # unguided never comes as far
    assert arms["unguided"]["worth_in_real"]["value"] == pytest.approx(16 / 400)
    assert guided["times_fewer"]["value"] == pytest.approx(2)  # 400 images of unguided
    assert guided["times_fewer"]["low"] < 2 < guided["times_fewer"]["high"]
    assert arms["unguided"]["times_fewer"] is arms["real_only"]["times_fewer"] is None
    assert guided["cost"] == {
        "seconds": pytest.approx(210),
        "phases": {"train": pytest.approx(10), "generate": pytest.approx(200)},
        "median_seconds": pytest.approx(210),
        "median_phases": {"train": pytest.approx(10), "generate": pytest.approx(200)},
        "images_per_second": pytest.approx(2),
    }
    assert arms["real_only"]["images_to_reach"] == {}


def test_rounds_of_fewer_steps_say_nothing_of_times_fewer() -> None:
    arms = stated(compared.recipe(), compared.results())["arms"]
    assert arms["guided"]["times_fewer"] is None
    assert arms["guided"]["images_to_reach"]["unguided"]["value"] == pytest.approx(200)


@pytest.mark.parametrize(("gain", "worth"), [(-0.04, 0.5), (0.0, 1.0), (0.04, 2.5), (0.08, 4.0)])
def test_worth_is_between_the_ends_of_unguided_arms(gain: float, worth: float) -> None:
    runs = compared.results()
    for of in runs.values():
        of["guided"]["accuracy"] = of["unguided"]["accuracy"] + gain
        of["unguided_4x"] = deepcopy(of["unguided"])
        of["unguided_4x"]["images"] = 1600
        of["unguided_4x"]["accuracy"] += 0.08
        del of["unguided_4x"]["rounds"][1:-1]  # on the way they had fewer steps
    more = {"generate": "plain", "judge": False, "changes": {"proposal.budget": 2000}}
    made = stated(compared.recipe(arms={**compared.ARMS, "unguided_4x": more}), runs)
    found = made["arms"]["guided"]["worth_in_unguided"]
    assert found["value"] == pytest.approx(worth, rel=0.02)
    assert found["low"] <= found["value"] and not found["at_most"]


def test_an_arm_with_other_numbers_of_images_by_seed_has_a_worth() -> None:
    runs = compared.results()
    for seed, of in runs.items():
        of["guided"]["images"] = 300 - 100 * seed
        of["guided"]["accuracy"] = of["unguided"]["accuracy"]
    found = stated(compared.recipe(), runs)["arms"]["guided"]["worth_in_unguided"]
    assert found["value"] == pytest.approx(2, rel=0.02)  # 400 unguided for 200


def test_worth_in_real_images_goes_by_ends_not_by_the_way_there() -> None:
    runs = compared.results()
    for of in runs.values():
        gain = of["more_real"]["accuracy"] - of["real_only"]["accuracy"]
        of["guided"]["accuracy"] = of["real_only"]["accuracy"] + gain / 2
    found = stated(compared.recipe(), runs)["arms"]["guided"]["worth_in_real"]
    assert found["value"] == pytest.approx(20 / 2 / 400, rel=0.02)


def test_arms_without_a_common_seed_are_worth_nothing_in_each_other() -> None:
    runs = compared.results()
    for seed, of in runs.items():
        del of["guided" if seed else "unguided"]
    found = stated(compared.recipe(), runs)["arms"]["guided"]
    assert found["worth_in_unguided"] is None


def test_an_arm_of_other_images_is_compared_with_their_numbers() -> None:
    more = {"generate": "plain", "judge": False, "changes": {"proposal.budget": 2000}}
    runs = compared.results()
    for of in runs.values():
        of["unguided_4x"] = {**deepcopy(of["unguided"]), "images": 1600}
    made = stated(compared.recipe(arms={**compared.ARMS, "unguided_4x": more}), runs)
    of = {name: made["arms"][name]["worth_in_unguided"] for name in ("unguided", "unguided_4x")}
    assert of["unguided"] is of["unguided_4x"] is None
    found = by_pair(made)["unguided_4x", "unguided"]
    assert found["images"] == {"unguided_4x": 1600, "unguided": 400}


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


def test_an_arm_whose_learner_was_cut_off_has_no_verdict() -> None:
    found = by_pair(at_equal_seconds(compared.recipe(), compared.results(), 107))
    assert found["more_real", "real_only"]["difference"] == pytest.approx(0.1)
    main = by_pair(stated(compared.recipe(), compared.results()))
    assert (
        found["more_real", "real_only"]["adjusted_p"]
        == main["more_real", "real_only"]["adjusted_p"]
    )
    for pair in (("guided", "unguided"), ("guided", "real_only")):
        of = found[pair]
        assert of["verdict"] == "no verdict" and of["difference"] is of["adjusted_p"] is None
        assert "unfinished learning-rate schedule; loop.restart=true" in of["words"]


def test_between_rounds_that_are_trained_to_their_end_the_way_is_straight() -> None:
    anew = compared.recipe(loop={"restart": True})
    cut = at_equal_seconds(anew, compared.results(), 119)  # a quarter of the way
    assert cut["arms"]["guided"]["mean"] == pytest.approx(0.58 + 0.04 / 4)
    assert cut["arms"]["guided"]["seconds"] == {0: 119, 1: 119, 2: 119}
    assert cut["arms"]["more_real"]["seconds"] == {0: 10, 1: 10, 2: 10}
    assert {of["comparisons"] for of in cut["comparisons"]} == {4}  # of one table together
    found = by_pair(cut)
    assert found["guided", "unguided"]["difference"] == pytest.approx(0.045)
    assert found["guided", "real_only"]["difference"] == pytest.approx(0.09)
    assert found["guided", "real_only"]["verdict"] == "helps"


@pytest.mark.parametrize(
    ("restart", "told"), [(True, "no difference shown"), (False, "no verdict")]
)
def test_a_twin_that_is_a_little_slower_does_not_hurt(restart: bool, told: str) -> None:
    recipe, rng, verdicts = compared.recipe(loop={"restart": restart}), np.random.default_rng(0), []
    for _ in range(20):
        runs = {seed: {"unguided": compared.result("unguided", 0)} for seed in range(5)}
        for of in runs.values():
            of["guided"] = deepcopy(of["unguided"])
            for arm, slower in (("unguided", 0.0), ("guided", 0.5)):
                of[arm]["rounds"][1]["seconds"]["generate"] += slower
                for summary in of[arm]["rounds"]:
                    summary["accuracy"] += rng.normal(0, 0.004)
                of[arm]["accuracy"] = of[arm]["rounds"][-1]["accuracy"]
        made = stated(recipe, runs)["equal_seconds"]
        assert not made["arms"]["guided"]["whole"]
        verdicts.append(by_pair(made)["guided", "unguided"]["verdict"])
    assert verdicts.count(told) >= 18


def test_one_slow_seed_does_not_rule_the_median() -> None:
    slow = compared.results()
    slow[1]["guided"]["rounds"][0]["seconds"]["generate"] = 2050.0
    cost = stated(compared.recipe(), slow)["arms"]["guided"]["cost"]
    assert cost["median_seconds"] == pytest.approx(210) and cost["seconds"] > 800
    assert cost["median_phases"]["generate"] == pytest.approx(200)
    assert cost["images_per_second"] == pytest.approx(2)


def test_what_an_arm_needs_is_of_the_seeds_that_both_have() -> None:
    some = compared.results()
    for summary in some[2]["unguided"]["rounds"]:
        summary["accuracy"] += 0.3
    some[2]["unguided"]["accuracy"] += 0.3
    del some[2]["guided"]
    found = stated(compared.recipe(), some)["arms"]["guided"]
    assert found["images_to_reach"]["unguided"]["value"] == pytest.approx(200)


def test_an_arm_with_clearly_fewer_images_says_how_many() -> None:
    few = compared.results()
    for of in few.values():
        of["guided"]["images"] = 10
    found = by_pair(stated(compared.recipe(), few))
    of = found["guided", "unguided"]
    assert (
        of["images"] == {"guided": 10, "unguided": 400} and of["verdict"] == "no difference shown"
    )
    assert of["words"].endswith("guided learnt from 10 synthetic images, against 400.")
    assert found["guided", "real_only"]["images"] is None
    for runs in few.values():
        runs["guided"]["images"] = 385
    assert by_pair(stated(compared.recipe(), few))["guided", "unguided"]["images"] is None


def test_steps_of_an_ablation_are_a_family_of_their_own() -> None:
    way = ArmSettings("guided", judge=False)
    arms = {
        "real_only": NONE,
        "unguided": PLAIN,
        "image": replace(way, way="image"),
        "attentive": replace(way, way="attentive"),
        "few": replace(way, changes={"proposal.budget": 3}),
        "guided": way,
        "guided_judged": GUIDED,
        "alone": replace(PLAIN, real=False),
    }
    steps = [("attentive", "image"), ("guided", "attentive"), ("guided_judged", "guided")]
    assert steps_of(arms) == steps  # image has unguided already
    assert steps_of({"guided": way, "unguided": PLAIN}) == []  # compared the other way round
    arms["guided_judged"] = replace(GUIDED, after="image")
    assert steps_of(arms)[-1] == ("guided_judged", "image")
    arms |= {
        "attentive": replace(arms["attentive"], after=""),
        "few": replace(arms["few"], after="image"),
    }
    assert steps_of(arms) == [("few", "image"), ("guided", "attentive"), ("guided_judged", "image")]
    arms["few"] = replace(arms["few"], after="left_out")
    assert len(steps_of(arms)) == 2
    both = {**compared.ARMS, "more": compared.ARMS["guided"]}
    runs = compared.results()
    for of in runs.values():
        of["more"] = of["guided"]
    made = stated(compared.recipe(arms=both), runs)
    [step] = made["step_by_step"]
    assert (step["arm"], step["baseline"], step["comparisons"]) == ("more", "guided", 1)
    assert step["verdict"] == "no difference shown"
    assert {of["comparisons"] for of in made["comparisons"]} == {6}


def test_unguided_is_the_baseline_where_real_images_alone_are_not() -> None:
    assert baseline_of({"guided": GUIDED, "unguided": PLAIN}) == "unguided"
    assert baseline_of({"guided": GUIDED, "more": replace(NONE, more_real=2)}) == "guided"


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
    assert baseline_of({"more": ArmSettings("none", more_real=1), "two": PLAIN}) == "two"
    assert unguided_of({"a": GUIDED, "b": PLAIN, "unguided": PLAIN}) == "unguided"
    assert unguided_of({"a": ArmSettings("plain", real=False)}) is None
    assert pairs_of({"a": PLAIN, "b": GUIDED}) == [("b", "a")]
    asked = ArmSettings("selected", by="disagreement", of="committee")
    assert pairs_of({"a": asked, "b": NONE}) == [("a", "b")]


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
