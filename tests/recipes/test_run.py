"""From words to a finished run, at toy size; and all that is refused before any work."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
import toy
from activegen.loop.judging import Believed
from activegen.recipes import Recipe, Run, drawing, load, parse
from activegen.recipes.data import contents
from activegen.recipes.folders import what_changed
from activegen.recipes.plan import Pace, measure, plan
from activegen.recipes.progress import Event
from activegen.records import UserError, fingerprint
from activegen.store import Store
from activegen.tasks.co_training import CoLearner, CoTraining
from activegen.tasks.evaluate import evaluate
from activegen.tasks.learner import weights_hash

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's, on loading a model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.model(), tmp_path_factory.mktemp("model"))


@pytest.fixture
def settings(model: Path) -> dict:
    """Three arms over two rounds, the first of which generates four images."""
    objectives = [{"repulsion": {"during": [0, 0.5]}}, {"adversarial": {"weight": 0.1}}]
    ascend = {"ascend": {"objectives": objectives}}
    return toy.settings(
        model,
        guidance={"guided": ["reference_pull", ascend], "adversarial": [ascend]},
        training={"steps": 4, "batch_size": 8},
        proposal={"budget": 4},
        loop={"rounds": 2, "batch": 4},
    )


def only(settings: dict, **arms: str) -> dict:
    return settings | {"arms": {arm: {"generate": way} for arm, way in arms.items()}}


def same(result: dict) -> dict:
    """What does not depend on the clock."""
    arms = json.loads(json.dumps(result["arms"]))
    for arm in arms.values():
        arm["rounds"] = toy.unclocked(arm["rounds"])
    return arms


def test_a_run_and_what_it_leaves(settings: dict, tmp_path: Path) -> None:
    events: list[Event] = []
    recipe = parse(settings)
    result = Run(recipe, tmp_path / "run", events.append).carry_out()
    assert list(result["arms"]) == ["real_only", "unguided", "active"]
    for name, arm in result["arms"].items():
        assert 0 <= arm["accuracy"] <= 1
        assert set(arm["per_class"]) >= {arm["worst_class"]}
        assert arm["steps"] == 4
        assert arm["proposed"] == (0 if name == "real_only" else 4)
        assert arm["images"] + sum(arm["rejected"].values()) == arm["proposed"]
        assert (tmp_path / "run" / "arms" / name / "model.safetensors").is_file()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["arms"] == result["arms"]
    costs = json.loads((tmp_path / "run" / "cost.json").read_text())
    assert list(costs) == list(result["arms"])
    for name, arm in result["arms"].items():
        phases = sum(sum(summary["seconds"].values()) for summary in arm["rounds"])
        assert costs[name]["total"] >= phases - 0.05
        assert (costs[name]["mfu"]["drawing"] is None) == (name == "real_only")
    assert parse_again(tmp_path / "run" / "recipe.yaml") == recipe
    assert {event.phase for event in events} == {"read", "judge", "train", "generate", "round"}
    rounds = [(e.arm, e.done, e.total) for e in events if e.phase == "round"]
    assert rounds == [(arm, n, 2) for arm in result["arms"] for n in (1, 2)]
    again = Run(recipe, tmp_path / "run").carry_out()
    assert again["arms"] == result["arms"]


def parse_again(file: Path) -> Recipe:
    import yaml

    return parse(yaml.safe_load(file.read_text()))


class Killed(Exception):
    """Like a lost machine."""


def killed_after(phase: str, arm: str) -> Callable[[Event], None]:
    def observer(event: Event) -> None:
        if (event.phase, event.arm) == (phase, arm):
            raise Killed

    return observer


@pytest.mark.parametrize("phase", ["judge", "generate"])
def test_a_killed_run_ends_as_an_uninterrupted_one(
    settings: dict, tmp_path: Path, phase: str
) -> None:
    recipe = parse(only(settings, active="guided"))
    whole = Run(recipe, tmp_path / "whole").carry_out()
    arm = "" if phase == "judge" else "active"
    with pytest.raises(Killed):
        Run(recipe, tmp_path / "killed", killed_after(phase, arm)).carry_out()
    resumed = Run(recipe, tmp_path / "killed").carry_out()
    assert same(resumed) == same(whole)
    prints = [
        Store(str(tmp_path / name / "arms" / "active" / "store")).fingerprints()
        for name in ("whole", "killed")
    ]
    assert prints[0] == prints[1] != {}


def test_one_class_alone_is_refused_before_any_work(settings: dict, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        for light in (10, 90):
            Image.new("RGB", (8, 8), (light, 0, 0)).save(tmp_path / split / "cat" / f"{light}.png")
    settings["data"] = {"layout": "image_folder", "path": str(tmp_path), "size": 16}
    with pytest.raises(UserError, match=r"has one class alone \(cat\)"):
        Run(parse(only(settings, real_only="none")), tmp_path / "run").check()


def test_real_images_alone_need_no_model(settings: dict, tmp_path: Path) -> None:
    settings["model"]["path"] = str(tmp_path / "nowhere")
    run = Run(parse(only(settings, real_only="none")), tmp_path / "run")
    assert run.carry_out()["arms"]["real_only"]["images"] == 0


def test_another_recipe_is_refused_before_any_work(settings: dict, tmp_path: Path) -> None:
    arms = only(settings, real_only="none")
    Run(parse(arms), tmp_path / "run").carry_out()
    changed = arms | {"training": arms["training"] | {"learning_rate": 0.01}}
    before = (tmp_path / "run" / "recipe.yaml").read_text()
    with pytest.raises(UserError, match=r"was made by recipe .*choose another --out") as refused:
        Run(parse(changed), tmp_path / "run").carry_out()
    assert "what changed: training.learning_rate was 0.05, is 0.01" in str(refused.value)
    assert (tmp_path / "run" / "recipe.yaml").read_text() == before


def test_what_changed_since_a_folder_was_begun_is_told(settings: dict, tmp_path: Path) -> None:
    made = only(settings, real_only="none")
    folder, recipe = tmp_path / "run", parse(made)

    def told(**keys: Any) -> str:
        return what_changed(folder, parse({**made, **keys}), "real_only")

    assert told() == "unknown, since its recipe.yaml does not tell"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipe.yaml())
    assert told(name="another").startswith("no key, but what the recipe names")
    assert told(seed=recipe.seed + 1) == f"seed was {recipe.seed}, is {recipe.seed + 1}"
    arms = {"real_only": {"generate": "none", "more_real": 2}}
    assert told(arms=arms) == "arms.real_only.more_real was 0, is 2"
    many = made["data"] | {"size": 24}
    assert "data.size was 16, is 24" in told(data=many, seed=7)
    (folder / "recipe.yaml").write_text("data: 3")
    assert told() == "unknown, since its recipe.yaml does not tell"


def test_fingerprints_know_content_not_paths(settings: dict, tmp_path: Path) -> None:
    def of(run: Run) -> str:
        return run.fingerprint("active")

    here = of(Run(parse(settings), tmp_path / "a"))
    moved = Path(shutil.copytree(settings["model"]["path"], tmp_path / "moved"))
    elsewhere = settings | {"model": settings["model"] | {"path": str(moved)}}
    assert of(Run(parse(elsewhere), tmp_path / "b")) == here
    weights = moved / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert of(Run(parse(elsewhere), tmp_path / "c")) != here
    options = {"per_class": 2, "options": {"count": 4, "tail": True}}
    other = settings | {"data": settings["data"] | {"train": options}}
    assert of(Run(parse(other), tmp_path / "d")) != here


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("prompts", {"words": {"forest": ["wood " * 90]}}, "class 'forest'.*is not in the prompt"),
        ("prompts", {"templates": ["a photo"]}, "template 'a photo' has no {word}"),
        ("prompts", {"words": {"forrest": ["wood"]}}, "unknown class 'forrest'.*'forest'"),
        ("model", {"path": "/nowhere"}, "there is no folder '/nowhere'"),
        ("model", {"device": "abacus"}, "'abacus' is not usable here"),
        ("model", {"decoder": "tiny:/nowhere"}, "no tiny autoencoder"),
        ("learner", {"network": "smal"}, "unknown network 'smal'"),
        ("learner", {"network": "torch.nn:Identity"}, "one per class"),
        ("judge", {"network": "timm:resnt18"}, "unknown timm model"),
        ("sampling", {"scheduler": "dim"}, "unknown sampling.scheduler 'dim'.*'ddim'"),
        ("guidance", {"guided": []}, "guidance.adversarial is missing"),
        ("data", {"train": {"per_class": 9, "options": {"count": 4}}}, "has 4 images"),
        ("data", {"options": {"colour": 1}}, "unknown option of world 'colour'"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    settings: dict, tmp_path: Path, part: str, change: dict, said: str
) -> None:
    whole = change if part == "guidance" else settings.get(part, {}) | change
    with pytest.raises(UserError, match=said):
        Run(parse(settings | {part: whole}), tmp_path / "run").carry_out()
    assert not (tmp_path / "run").exists()


def test_a_pickle_is_refused_before_any_work(settings: dict, tmp_path: Path) -> None:
    settings["model"]["path"] = str(tiny.save(tiny.model(), tmp_path / "model", safe=False))
    with pytest.raises(UserError, match=r"no safetensors weights in .*unet: only the pickle"):
        Run(parse(settings), tmp_path / "run").carry_out()
    assert not (tmp_path / "run").exists()


def test_a_damaged_model_is_refused_before_any_work(settings: dict, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(settings["model"]["path"], tmp_path / "model"))
    weights = moved / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    settings["model"]["path"] = str(moved)
    with pytest.raises(UserError, match=r"vae.*is damaged"):
        Run(parse(settings), tmp_path / "run").carry_out()


def test_a_file_is_no_run_folder(settings: dict, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file; give a folder"):
        Run(parse(settings), tmp_path / "run").check()


def pictures(folder: Path, counts: dict[str, int], size: tuple[int, int] = (12, 10)) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            values = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(values).save(folder / name / f"{number}.png")
    return folder


def test_an_empty_class_and_a_huge_image(settings: dict, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "data", {"cat": 12, "dog": 0})
    settings["data"] = {"layout": "image_folder", "path": str(folder), "size": 16}
    run = tmp_path / "run"
    with pytest.raises(UserError, match="no readable image of class dog"):
        Run(parse(settings), run).carry_out()
    pictures(folder, {"bird": 12})
    shutil.rmtree(folder / "dog")
    Image.new("1", (9000, 9000)).save(folder / "bird" / "huge.png")
    settings["data"]["strict"] = True
    with pytest.raises(UserError, match=r"huge.png is too large"):
        Run(parse(settings), run).carry_out()
    assert not run.exists()


def test_plan_counts_what_a_run_does(settings: dict, tmp_path: Path) -> None:
    run = Run(parse(settings), tmp_path / "run")
    arms = {arm.name: arm for arm in plan(run)}
    assert {name: arm.images for name, arm in arms.items()} == {
        "real_only": 0,
        "unguided": 4,
        "active": 4,
    }
    assert arms["unguided"].denoiser_calls == 2
    steered = {name: sum(arm.with_gradient.values()) for name, arm in arms.items()}
    assert steered["unguided"] == 0 < steered["active"]
    assert {name: arm.learner_steps for name, arm in arms.items()} == {
        "real_only": 4,
        "unguided": 4,
        "active": 8,
    }
    for split, steps in {"bagging": 10, "held_out": 4}.items():
        own = Run(parse(settings | {"mining": {"split": split, "folds": 3}}), tmp_path / split)
        assert {arm.name: arm.learner_steps for arm in plan(own)}["active"] == steps
    pace = measure(run)
    assert pace.seconds(arms["active"]) > pace.seconds(arms["real_only"]) > 0


def test_plan_counts_the_way_that_an_arm_takes(settings: dict, tmp_path: Path) -> None:
    ascend = {"ascend": {"of": "latents", "through": "decoder", "objectives": ["entropy"]}}
    settings["guidance"] = {"mine": [ascend], "guided": ["reference_pull"]}
    ways = {way: {"generate": "guided", "way": way} for way in ("mine", "guided")}
    recipe = parse(settings | {"arms": ways, "proposal": {"budget": 2, "adversarial_share": 0}})
    steered = {arm.name: arm.with_gradient for arm in plan(Run(recipe, tmp_path))}
    assert steered["mine"]["mine"] > 0 == sum(steered["guided"].values())


def test_the_cost_of_guidance_is_that_of_its_moves(settings: dict, tmp_path: Path) -> None:
    def pace(**guidance: list) -> Pace:
        return measure(Run(parse(settings | {"guidance": guidance}), tmp_path))

    entropy = {"ascend": {"of": "latents", "through": "decoder", "objectives": ["entropy"]}}
    pulled, late = ["reference_pull"], [{"ascend": {**entropy["ascend"], "during": [0.9, 1.0]}}]
    assert pace(guided=pulled, adversarial=pulled).image_gradient == {}
    found = pace(guided=late, adversarial=pulled, of_nobody=late).image_gradient
    assert set(found) == {"guided"} and found["guided"] > 0


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"mining": {"split": "held_out"}}, "guidance.guided: entropy is of a committee"),
        ({"arms": {"a": {"real": False}}}, "guidance.guided: entropy is of a committee"),
        (
            {
                "mining": {"split": "held_out"},
                "arms": {"a": {"generate": "selected", "by": "disagreement", "of": "committee"}},
            },
            "'a' ranks by the score of a committee",
        ),
    ],
)
def test_a_committee_of_one_is_refused(
    settings: dict, tmp_path: Path, keys: dict, said: str
) -> None:
    asking = {"objectives": [{"entropy": {"of": "committee"}}], "of": "latents"}
    guidance = {"guided": [{"ascend": asking}], "adversarial": []}
    recipe = {**settings, "arms": {"a": {}}, "guidance": guidance}
    for split in ("cross_fit", "bagging"):
        Run(parse({**recipe, "mining": {"split": split}}), tmp_path / "fits").check()
    with pytest.raises(UserError, match=said):
        Run(parse({**recipe, **keys}), tmp_path / "run").check()


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("cross_fit", "2 folds need one each"),
        ("bagging", "in all of 2 bags"),
        ("held_out", "needs one on either side"),
    ],
)
def test_too_few_images_to_leave_some_out_are_told_before_any_work(
    settings: dict, tmp_path: Path, split: str, said: str
) -> None:
    few = {**settings["data"], "train": {"per_class": 1, "options": {"count": 4}}}
    recipe = settings | {"data": few, "mining": {"split": split}}
    Run(parse(only(recipe, unguided="plain")), tmp_path / "run").check()
    with pytest.raises(UserError, match=said):
        Run(parse(only(recipe, active="guided")), tmp_path / "run").check()


def test_a_ranking_by_a_teacher_needs_one(settings: dict, tmp_path: Path) -> None:
    recipe = settings | {"arms": {"a": {"generate": "selected", "by": "teacher_student"}}}
    Run(parse(recipe), tmp_path / "fits").check()
    with pytest.raises(UserError, match="asks the teacher; name a network in the judge's"):
        Run(parse(recipe | {"judge": {"network": ""}}), tmp_path / "run").check()


def test_a_fingerprint_of_before_there_were_committees(settings: dict, tmp_path: Path) -> None:
    plain = Run(parse(only(settings, arm="selected")), tmp_path)
    arms = {"arm": {"generate": "selected", "of": "committee"}}
    committee = Run(parse(settings | {"arms": arms}), tmp_path)
    without = {
        k: v for k, v in asdict(plain.recipe.arms["arm"]).items() if k not in ("of", "after")
    }
    made_of = [plain.recipe.fingerprint, plain.data.fingerprint, [plain.place.fingerprint], without]
    assert plain.fingerprint("arm") == fingerprint(made_of) != committee.fingerprint("arm")


@pytest.mark.parametrize(("split", "member"), [("cross_fit", "fold-1"), ("bagging", "bag-1")])
def test_several_models_are_a_committee(
    settings: dict, tmp_path: Path, split: str, member: str
) -> None:
    settings["mining"] = {"split": split}
    asking = {"objectives": [{"disagreement": {"of": "committee"}}], "of": "latents"}
    guided = {"ascend": {**asking, "through": "decoder"}}
    ways = {"guided": [guided], "adversarial": []}
    recipe = parse(only(settings | {"guidance": ways}, active="guided"))
    Run(recipe, tmp_path / "run").carry_out()
    trained = tmp_path / "run" / "arms" / "active"
    weights = [trained / "model.safetensors", trained / "learners" / f"0000-{member}.safetensors"]
    with pytest.raises(UserError, match="--model given several times"):
        drawing.draw(Run(recipe, tmp_path / "out"), weights[:1], 2)
    assert len(drawing.draw(Run(recipe, tmp_path / "out"), weights, 2)) == 2


def test_trained_models_join_the_committee(settings: dict, tmp_path: Path) -> None:
    Run(parse(only(settings, real_only="none")), tmp_path / "before").carry_out()
    weights = tmp_path / "before" / "arms" / "real_only" / "model.safetensors"
    asking = {"objectives": [{"disagreement": {"of": "committee"}}], "of": "latents"}
    guided = {"ascend": {**asking, "through": "decoder"}}
    alone = {"mining": {"split": "held_out"}, "guidance": {"guided": [guided], "adversarial": []}}
    recipe = only(settings | alone, active="guided")
    learner = {"network": "small", "committee": [{"weights": str(weights)}]}
    run = Run(parse(recipe | {"learner": learner}), tmp_path / "run")
    result = run.carry_out()
    assert result["arms"]["active"]["proposed"] == 4
    assert [weights_hash(member) for member in run.checkpoints] == [
        weights_hash(run.trained(weights))
    ]
    without = parse(recipe | {"learner": {"network": "small"}})
    assert without.fingerprint == parse(recipe).fingerprint != run.recipe.fingerprint
    gone = {**learner, "committee": [{"weights": str(tmp_path / "gone.safetensors")}]}
    with pytest.raises(UserError, match=r"gone\.safetensors"):
        Run(parse(recipe | {"learner": gone}), tmp_path / "gone").check()


def test_images_without_the_loop(settings: dict, tmp_path: Path) -> None:
    recipe = parse(only(settings, active="guided"))
    Run(recipe, tmp_path / "run").carry_out()
    weights = tmp_path / "run" / "arms" / "active" / "model.safetensors"
    verdicts = drawing.draw(Run(recipe, tmp_path / "out"), [weights], 5)
    assert len(verdicts) == 5
    shown = sorted(of.stem for of in (tmp_path / "out" / "images").glob("*/*.png"))
    assert shown == sorted(verdict.id for verdict in verdicts if verdict.accepted)
    state = tmp_path / "run" / "arms" / "active" / "learners" / "0001-main.safetensors"
    assert drawing.draw(Run(recipe, tmp_path / "out"), [state], 5) == verdicts
    wrong = parse(settings | {"learner": {"network": "timm:resnet10t"}})
    with pytest.raises(UserError, match="weights of another network"):
        drawing.draw(Run(wrong, tmp_path / "else"), [weights], 5)


def test_checking_masks_trains_nothing_and_writes_no_file(tmp_path: Path) -> None:
    recipe = load("demo_segmentation", ["data.train.count=8", "data.test.options.count=4"])
    run = Run(recipe, tmp_path / "run")
    run.check()
    assert not (tmp_path / "run").exists()
    assert "_members" not in vars(run)


def test_two_segmenters_that_teach_one_another(tmp_path: Path) -> None:
    small = ["data.train.count=8", "data.test.options.count=4", "training.warmup_steps=1"]
    co_training = ["learner.co_training.confidence=0.9", "segmentation.background=[water]"]
    run = Run(load("demo_segmentation", small + co_training), tmp_path / "run")
    learner, again = run.learner("active"), run.learner("real_only")
    assert isinstance(learner, CoLearner)
    assert learner.co_training == CoTraining(confidence=0.9)
    assert learner.background == {run.data.train.classes.index("water")}
    assert weights_hash(learner.model) == weights_hash(again.model)
    learner.train(run.task.gathered(run.data.train), 1)
    learner.save(tmp_path / "state.safetensors")
    trained = run.trained(tmp_path / "state.safetensors")
    assert weights_hash(trained) == weights_hash(learner.averaged)


def test_members_of_a_calibrated_judge_leave_out_what_they_are_calibrated_by(
    settings: dict, tmp_path: Path
) -> None:
    judge = {"members": 2, "steps": 2, "significance": 0.4}
    run = Run(parse(settings | {"judge": judge}), tmp_path / "run")
    everything = set(run.data.train.ids)
    parts = [run.judges.seen_by(member) for member in range(2)]
    assert all(set(seen.ids).isdisjoint(unseen.ids) for seen, unseen in parts)
    assert set(parts[0][1].ids) | set(parts[1][1].ids) == everything
    seen = [set(contents(part).values()) for part, _ in parts]
    assert [set(run.judges.learnt_from(member)) for member in run.asked("active")] == seen
    assert set(run.judges.seen_by(2)[0].ids) == everything  # the teacher, who judges nothing
    check = run.judge(run.recipe.arms["active"]).check
    assert isinstance(check, Believed)
    for member, (_, unseen), usual in zip(run.judges.members, parts, check.usual, strict=True):
        pool = run.task.gathered(unseen)
        losses = evaluate(member, pool.images, pool.labels).losses
        one_each = [losses[pool.labels == label] for label in range(len(usual))]
        assert all(len(of) == 1 for of in one_each)
        assert torch.equal(torch.stack(one_each), torch.stack(list(usual)))
    unasked = Run(parse(settings), tmp_path / "unasked").judge(run.recipe.arms["active"]).check
    assert isinstance(unasked, Believed) and not unasked.usual


def test_a_calibrated_judge_of_too_few_images_is_refused_before_any_work(
    settings: dict, tmp_path: Path
) -> None:
    made = parse(settings | {"judge": {"members": 3, "significance": 0.1}})
    with pytest.raises(UserError, match="has 2 images, but 3 folds need one each"):
        Run(made, tmp_path / "run").carry_out()
    assert not (tmp_path / "run").exists()


def test_the_teacher_of_guidance_is_none_of_the_judges(tmp_path: Path) -> None:
    small = ["data.train.count=8", "data.test.options.count=4", "segmentation.judge.steps=2"]
    run = Run(load("demo_segmentation", small), tmp_path / "run")
    everybody = [run.judges.teacher, *run.judges.members]
    weights = [next(model.parameters()) for model in everybody]
    assert len(everybody) == 3
    assert not any((weights[0] == other).all() for other in weights[1:])
