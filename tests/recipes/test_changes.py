"""Arms that have keys of the recipe otherwise."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
import toy
from activegen.loop.executor import LocalExecutor
from activegen.recipes import Recipe, Run, parse
from activegen.recipes import plan as planning
from activegen.recipes.comparing import compare
from activegen.recipes.data import contents
from activegen.recipes.run import Source
from activegen.records import UserError
from activegen.store import Store

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's, on loading a model

OTHER = {
    "prompts.templates": ["a drawing of {word}"],
    "proposal.budget": 4,
    "training.label_smoothing": 0.1,
}


def recipe(model: Path, **changes: Any) -> Recipe:
    """Two rounds, the first of which generates two images, or as many as the changed arm says."""
    plain = {"generate": "plain", "judge": True}
    return parse(
        toy.settings(
            model,
            training={"steps": 4, "batch_size": 8},
            proposal={"budget": 2},
            loop={"rounds": 2, "batch": 4},
            arms={"plain": plain, "changed": {**plain, "changes": changes}},
        )
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.model(), tmp_path_factory.mktemp("model"))


def test_an_arm_has_its_keys_and_all_others_of_the_recipe(model: Path):
    whole = recipe(model, **OTHER)
    own = whole.of("changed")
    assert whole.of("plain") is whole
    assert own.proposal.budget == 4 and whole.proposal.budget == 2
    assert own.prompts.templates == ("a drawing of {word}",)
    assert own.training.label_smoothing == 0.1
    assert list(own.arms) == ["changed"] and not own.arms["changed"].changes
    same = {"proposal", "prompts", "training", "arms"}
    assert own.model_dump(exclude=same) == whole.model_dump(exclude=same)
    assert parse(whole.plain()) == whole


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"sampling.cfg_scale": 3.0},
            r"arms.changed.changes: 'sampling.cfg_scale' is the same for",
        ),
        ({"promptsy.words": {}}, "'promptsy.words' is the same for all arms"),
        ({"learner.network": "small"}, "'learner.network' is the same for all arms"),
        ({"training.steps": 5}, "all arms have the same training.steps"),
        ({"training.batch_size": 16}, "all arms have the same training.batch_size"),
        ({"training.seed": 1}, "all arms have the same training.seed"),
        ({"model.device": "cuda"}, "all arms have the same model.device"),
        ({"training.stepz": 5}, r"key in 'training' of arms.changed.changes: 'stepz'"),
        ({"training.augmentation": "upside_down"}, "unknown augmentation 'upside_down'"),
        ({"training.batch_size.of": 5}, r"changes: there is no training.batch_size.of"),
        ({"proposal.budget": "many"}, r"arms.changed.changes: 'proposal.budget' is 'many'"),
    ],
)
def test_what_an_arm_may_not_change_is_said(model: Path, changes: dict[str, Any], said: str):
    with pytest.raises(UserError, match=said):
        recipe(model, **changes)


def test_a_run_shares_what_the_changes_do_not_touch(model: Path, tmp_path: Path):
    run = Run(recipe(model, **OTHER), tmp_path)
    own = run.of("changed")
    assert run.of("plain") is run and run.of("changed") is own
    assert own.data is run.data and own.model() is run.model()
    assert own.judges.together is not None and own.judges is run.judges
    assert own.learner("changed").settings.label_smoothing == 0.1
    assert run.learner("plain").settings.label_smoothing == 0.0
    assert run.fingerprint("changed") == own.fingerprint("changed") != run.fingerprint("plain")
    same = Run(recipe(model), tmp_path)
    assert same.fingerprint("changed") == same.fingerprint("plain") == run.fingerprint("plain")
    there = own.parts("changed", LocalExecutor()).source  # for another process
    assert there is not None and there().task.budget == 4 and isinstance(there, Source)
    assert "changes" in there.recipe
    images = {arm.name: arm.images for arm in planning.plan(run)}
    assert images == {"plain": 2, "changed": 4}


def test_changed_arms_are_carried_out_and_compared(model: Path, tmp_path: Path):
    made = compare(recipe(model, **OTHER), tmp_path, seeds=[0])
    said = "changed is trained otherwise than the recipe says: label_smoothing 0.1 instead of 0.0"
    assert [of for of in made["notices"] if "otherwise" in of] == [said]
    [found] = made["comparisons"]
    assert (found["arm"], found["baseline"]) == ("changed", "plain")
    assert made["arms"]["changed"]["settings"]["changes"] == OTHER
    assert max(made["arms"]["changed"]["images"].values()) <= 4

    def store(arm: str) -> Store:
        return Store(str(tmp_path / "seed-0" / "arms" / arm / "store"))

    plans = {arm: store(arm).round(0).plan() or [] for arm in ("plain", "changed")}
    drawings = {
        arm: {request.prompt.startswith("a drawing of") for request in of}
        for arm, of in plans.items()
    }
    assert drawings == {"plain": {False}, "changed": {True}}
    assert len(plans["changed"]) == 2 * len(plans["plain"])
    members = list((tmp_path / "seed-0" / "judge").glob("*.safetensors"))
    assert len(members) == 1  # of both arms


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of other pictures than ``model``."""
    made = tiny.model()
    with torch.no_grad():
        made.unet.conv_out.bias += 0.5
    return tiny.save(made, tmp_path_factory.mktemp("other"))


def test_an_arm_with_a_generator_of_its_own_draws_with_it_alone(
    model: Path, other: Path, tmp_path: Path
):
    run = Run(recipe(model, **{"model.path": str(other)}), tmp_path)
    run.check()
    own, shared = run.of("changed"), run.model()
    assert own.model() is not shared and own.model() is own.model()
    assert run.model() is not shared  # one at a time is in memory
    alone = Run(recipe(other), tmp_path / "alone")
    assert run.fingerprint("changed") == alone.fingerprint("plain") != run.fingerprint("plain")
    run.carry_out()
    alone.carry_out()

    def drawn(folder: Path, arm: str) -> list[tuple[Any, bytes]]:
        accepted = Store(str(folder / "arms" / arm / "store")).accepted()
        return [(sample.made_by["revision"], sample.image) for sample, _ in accepted]

    assert drawn(tmp_path, "changed") == drawn(tmp_path / "alone", "plain")
    assert {of for of, _ in drawn(tmp_path, "changed")}.isdisjoint(
        of for of, _ in drawn(tmp_path, "plain")
    )


def test_arms_with_generators_of_their_own_are_compared(model: Path, other: Path, tmp_path: Path):
    of = recipe(model, **{"model.path": str(other)})
    made = compare(of, tmp_path, seeds=[0, 1])
    assert {(of["arm"], of["baseline"]) for of in made["comparisons"]} == {("changed", "plain")}
    revisions = {
        arm: {by_arm[arm]["generator"] for by_arm in made["facts"].values()} for arm in of.arms
    }
    assert [len(found) for found in revisions.values()] == [1, 1]
    assert revisions["changed"] != revisions["plain"]


def test_an_arm_with_a_generator_of_its_own_is_timed_with_it(
    model: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def measured(run: Run) -> planning.Pace:
        return planning.Pace(float(run.recipe.model.path == str(other)), {}, 0.0, 0.0)

    monkeypatch.setattr(planning, "measure", measured)
    slow, usual = (planning.Pace(seconds, {}, 0.0, 0.0) for seconds in (1.0, 0.0))
    run = Run(recipe(model, **{"model.path": str(other)}), tmp_path)
    assert planning.paces(run) == {"plain": usual, "changed": slow}
    run = Run(recipe(model, **OTHER), tmp_path)
    assert planning.paces(run) == {"plain": usual, "changed": usual}


def test_a_generator_of_an_arm_that_was_adapted_to_test_images_is_refused(
    model: Path, other: Path, tmp_path: Path
):
    own = shutil.copytree(other, tmp_path / "adapted")
    made = recipe(model, **{"model.path": str(own)})
    test = contents(Run(made, tmp_path / "none").data.test)
    (own / "card.json").write_text(json.dumps({"learnt_from": [*test.values()][:1]}))
    with pytest.raises(UserError, match=r"adapted' was adapted to test images: test image"):
        compare(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_words_of_a_changed_arm_are_beside_its_images(model: Path, tmp_path: Path):
    Run(recipe(model, **{"prompts.augment": {"source": "table"}}), tmp_path).record()
    assert not (tmp_path / "prompts.json").exists()  # the others have no more than the recipe says
    words = json.loads((tmp_path / "arms" / "changed" / "prompts.json").read_text())
    assert "forest" in json.dumps(words)
    assert not (tmp_path / "arms" / "plain").exists()
