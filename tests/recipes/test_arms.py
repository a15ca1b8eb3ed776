"""Standard arms: what they are of a recipe, and which ones a recipe cannot have."""

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
import toy
from activegen import cli
from activegen.loop.settings import ArmSettings
from activegen.recipes import Recipe, Run, load, parse, plan
from activegen.recipes.arms import STANDARD, left_out, with_arms, with_named_arms
from activegen.recipes.plan import Pace, pool_of_equal_cost
from activegen.records import UserError
from activegen.store import Store

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's, on loading a model

TEXT = ("annotate_scenes", "ablation_text")  # recipes whose masks come of text
GUIDED_ONES = {"selected", "guided", "guided_judged"}
OWN_POOL = "arms.selected={generate: selected, judge: false, pool: 4}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.model(), tmp_path_factory.mktemp("model"))


def ascending(*objectives: Any) -> list[dict[str, Any]]:
    return [{"ascend": {"of": "latents", "through": "decoder", "objectives": list(objectives)}}]


def selected(recipe: Recipe, folder: Path) -> ArmSettings:
    """With a pool that was measured before."""
    (folder / "pool.json").write_text('{"pool": 2}')
    return with_named_arms(recipe, ["selected"], folder).arms["selected"]


def test_selected_ranks_by_what_the_packaged_recipes_ascend(tmp_path: Path) -> None:
    found = {
        name: (arm.by, arm.of)
        for name in ("demo", "eurosat", "actgen_sd", "ablation_actgen", "demo_segmentation")
        for arm in [selected(load(name, ["data.path=data"]), tmp_path)]
    }
    assert found.pop("demo_segmentation") == ("disagreement", "committee")
    assert set(found.values()) == {("entropy", "learner")}


@pytest.mark.parametrize(
    ("guided", "adversarial", "share", "by"),
    [
        (["repulsion"], ["repulsion", "adversarial"], 0.5, "entropy"),
        (["repulsion"], ["margin"], 0.0, "entropy"),  # is never drawn
        (["repulsion"], [{"margin": {"weight": -1}}], 0.5, "entropy"),
        (["repulsion"], ["margin"], 0.5, "margin"),
        (["margin"], ["cross_entropy"], 0.5, "margin"),
    ],
)
def test_all_ways_of_a_guided_arm_are_looked_through(
    model: Path, tmp_path: Path, guided: list[Any], adversarial: list[Any], share: float, by: str
) -> None:
    guidance = {"guided": ascending(*guided), "adversarial": ascending(*adversarial)}
    proposal = {"budget": 2, "adversarial_share": share}
    recipe = parse(toy.settings(model, guidance=guidance, proposal=proposal))
    arm = selected(recipe, tmp_path)
    assert (arm.by, arm.of) == (by, "learner")


def test_plain_images_are_ranked_by_the_loss_of_what_was_asked_for(
    model: Path, tmp_path: Path
) -> None:
    arm = {"generate": "selected", "judge": False, "by": "cross_entropy", "pool": 2.5}
    raw = toy.settings(
        model,
        training={"steps": 2, "batch_size": 8},
        proposal={"budget": 4},
        loop={"rounds": 2, "batch": 4},
        arms={"selected": arm},
    )
    run = Run(parse(raw), tmp_path)
    made = run.carry_out()["arms"]["selected"]
    assert (made["proposed"], made["images"]) == (10, 4)  # 2.5 candidates for each of 4
    assert [of.images for of in plan.plan(run)] == [10]
    [drawn] = losses(tmp_path)
    kept = [loss for loss, accepted in drawn if accepted]
    assert min(kept) >= max(loss for loss, accepted in drawn if not accepted)


def losses(folder: Path) -> list[list[tuple[float, bool]]]:
    """Of each round that generated, the loss of each image's label and whether it was kept."""
    store = Store(str(folder / "arms" / "selected" / "store"))
    rounds = [store.round(number) for number in store.rounds()]
    accepted = {v.id: v.accepted for of in rounds for v in of.verdicts() or []}
    found = [
        [(s.scores["cross_entropy"], accepted[s.request.id]) for s in of.samples()] for of in rounds
    ]
    return [of for of in found if of]


@pytest.mark.parametrize("gradient", [0.0, 1.7, 3.1])
def test_selected_costs_what_guided_costs(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gradient: float
) -> None:
    dear = {"guided": 1 + gradient, "adversarial": 1 + 2 * gradient}
    pace = Pace(image_step=1.0, image_gradient=dear, picture=0.4, learner_step=0.3)
    monkeypatch.setattr(plan, "measure", lambda run: pace)
    ways = {"guided": ascending("margin"), "adversarial": ascending("margin")}
    proposal = {"budget": 100, "plain_share": 0.0}
    raw = toy.settings(model, guidance=ways, proposal=proposal, mining={"max_repeats": 100})
    arms = {way: ArmSettings(way) for way in ("none", "plain", "guided")}
    recipe = parse(raw)
    pool = pool_of_equal_cost(Run(with_arms(recipe, arms), tmp_path))
    arms["selected"] = ArmSettings("selected", pool=pool)
    planned = plan.plan(Run(with_arms(recipe, arms), tmp_path))
    seconds = {arm.name: pace.seconds(arm) for arm in planned}
    assert seconds["selected"] == pytest.approx(seconds["guided"], rel=0.01)
    assert pool != round(pool)


def test_a_pool_never_leaves_images_unfilled(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "measure", lambda run: Pace(1.0, {}, 0.0, 0.0))
    guidance = {"guided": ["reference_pull"], "adversarial": ["reference_pull"]}
    raw = toy.settings(model, guidance=guidance, proposal={"budget": 400})
    arms = {way: ArmSettings(way) for way in ("none", "plain", "guided")}
    assert pool_of_equal_cost(Run(with_arms(parse(raw), arms), tmp_path)) == 1


@pytest.mark.parametrize("pool", [4, 4.0, "4"])
def test_a_whole_pool_is_a_whole_number_in_the_fingerprint(model: Path, pool: Any) -> None:
    arms = {"arm": {"generate": "selected", "pool": pool}, "usual": {"generate": "selected"}}
    recipe = parse(toy.settings(model, arms=arms))
    assert repr(recipe.arms["arm"].pool) == repr(recipe.plain()["arms"]["arm"]["pool"]) == "4"
    run = Run(recipe, Path("run"))
    assert run.fingerprint("arm") == run.fingerprint("usual")


def test_a_pool_may_be_no_whole_number(model: Path) -> None:
    raw = toy.settings(model, arms={"arm": {"generate": "selected", "pool": 2.37}})
    recipe = parse(yaml.safe_load(parse(raw).yaml()))
    assert recipe.arms["arm"].pool == 2.37
    assert recipe.arms["arm"].candidates(100) == 237


@pytest.mark.parametrize("pool", [0.99, float("inf"), float("nan")])
def test_a_pool_has_an_image_at_least(pool: float) -> None:
    with pytest.raises(UserError, match="at least 1 candidate an image"):
        ArmSettings("selected", pool=pool)


@pytest.mark.parametrize("name", [*TEXT, "ablation_scores"])
def test_selected_without_a_cost_to_equal_says_how_to_give_a_pool(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as said:
        with_named_arms(load(name), ["selected"], tmp_path)
    assert "has no cost of guiding to equal" in str(said.value)
    assert f"--set '{OWN_POOL}'" in str(said.value)
    told = with_named_arms(load(name, [OWN_POOL]), ["selected"], tmp_path).arms["selected"]
    assert told == ArmSettings("selected", judge=False, pool=4)


@pytest.mark.parametrize(
    ("name", "arm", "said"),
    [
        *((name, "guided", "segmentation.text has no masks") for name in TEXT),
        ("ablation_scores", "guided_judged", "guidance.guided is missing"),
    ],
)
def test_a_guided_arm_that_cannot_be_is_said(
    name: str, arm: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        with_named_arms(load(name), [arm], tmp_path)


@pytest.mark.parametrize(
    ("name", "unfit"),
    [
        ("annotate_scenes", GUIDED_ONES | {"more_real"}),
        ("ablation_text", GUIDED_ONES | {"more_real"}),
        ("ablation_scores", GUIDED_ONES),
    ],
)
def test_all_leaves_out_and_tells_what_does_not_fit(
    name: str, unfit: set[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = with_named_arms(load(name), ["all"], tmp_path)
    assert list(recipe.arms) == [arm for arm in STANDARD if arm not in unfit]
    assert set(left_out(recipe, ["all"])) == unfit and not left_out(recipe, ["real_only"])
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(unfit)
    assert all(any(f"leaves out the arm '{arm}': " in of for of in told) for arm in unfit)


def test_all_has_the_recipes_own_selected_arm(tmp_path: Path) -> None:
    recipe = with_named_arms(load("ablation_scores", [OWN_POOL]), ["all"], tmp_path)
    assert recipe.arms["selected"].pool == 4 and "guided" not in recipe.arms


def test_the_help_names_all_standard_arms() -> None:
    words = " ".join(cli.documentation().split())
    assert f"standard ones ({', '.join(STANDARD)})" in words
