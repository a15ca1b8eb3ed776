"""Comparisons from end to end at toy size; and that they cannot be fooled."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

import tiny
from activegen.loop.settings import ArmSettings, LoopSettings
from activegen.proof.fairness import Facts
from activegen.recipes import Recipe, Run, arms, comparing, load, notices, parse
from activegen.recipes import run as running
from activegen.recipes.arms import STANDARD, with_named_arms
from activegen.recipes.comparing import Ways, compare
from activegen.recipes.data import contents
from activegen.recipes.environment import environment
from activegen.recipes.evidence import differs_on_purpose
from activegen.recipes.notices import trained_otherwise
from activegen.recipes.progress import Event
from activegen.records import UserError
from activegen.store import Store, png
from toy import short

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's, on loading a model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.model(), tmp_path_factory.mktemp("model"))


NONE = {"generate": "none"}
PLAIN = {"generate": "plain", "judge": False}
GUIDED = {"generate": "guided", "judge": False}


def test_labels_that_a_judge_mostly_refuses_are_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activegen.loop.doubts.LEAST", 1)
    made = short(model, real_only=NONE, unguided=PLAIN, judged={"generate": "plain"})
    made["judge"]["min_probability"] = 0.999
    found = compare(parse(made), tmp_path, seeds=[0, 1])["notices"]
    [told] = [notice for notice in found if "refused the labels of" in notice]
    assert told.startswith("the judge of judged")


def test_all_standard_arms_with_two_seeds(model: Path, tmp_path: Path) -> None:
    recipe = parse(short(model))
    (tmp_path / "pool.json").write_text('{"pool": 2}')
    made = compare(recipe, tmp_path, ["all"], [3, 5])
    assert json.loads((tmp_path / "comparison.json").read_text()) == made
    assert list(made["arms"]) == list(STANDARD)
    assert (made["baseline"], made["unguided"], made["seeds"]) == ("real_only", "unguided", [3, 5])
    against = [(of["arm"], of["baseline"]) for of in made["comparisons"]]
    choosing = ["selected", "guided", "guided_judged", "unguided_4x"]
    assert against == [(arm, "real_only") for arm in STANDARD if arm != "real_only"] + [
        (arm, "unguided") for arm in choosing
    ]
    assert all(of["comparisons"] == len(against) for of in made["comparisons"])
    steps = [(of["arm"], of["baseline"]) for of in made["step_by_step"]]
    assert steps == [("guided", "selected"), ("guided_judged", "guided")]
    for name, arm in made["arms"].items():
        of_runs = [made["runs"][seed][name]["accuracy"] for seed in ("3", "5")]
        assert arm["mean"] == pytest.approx(sum(of_runs) / 2)
        assert arm["steps"] == [4]
        assert arm["cost"]["seconds"] > 0 < arm["cost"]["peak_memory"]
    facts = made["facts"]["3"]
    few = facts["real_only"]["real_images"]
    assert few == 2 * len(made["arms"]["real_only"]["per_class"])
    assert facts["more_real"]["real_images"] == 2 * few
    assert facts["synthetic_only"]["real_images"] == 0
    assert facts["guided_judged"]["judge_images"] == few > facts["guided"]["judge_images"] == 0
    assert made["runs"]["3"]["synthetic_only"]["rounds"][0]["step"] == 0
    assert made["arms"]["selected"]["settings"]["pool"] == 2
    augmented = made["arms"]["augmented"]["settings"]["changes"]
    assert augmented == {"training.augmentation": "photo"}
    assert made["arms"]["guided"]["curves"]["images"]["amounts"][0] == 0


def test_two_identical_arms_show_no_difference(model: Path, tmp_path: Path) -> None:
    made = compare(parse(short(model, one=GUIDED, two=GUIDED)), tmp_path, seeds=[0, 1])
    one, two = (made["arms"][name] for name in ("one", "two"))
    assert one["figures"] == two["figures"] and one["per_class"].keys() == two["per_class"].keys()
    [found] = made["comparisons"]
    assert (found["difference"], found["verdict"]) == (0, "no difference shown")
    assert found["seeds_needed"] is None and "No number of seeds" in found["words"]


def test_only_what_is_missing_is_computed(model: Path, tmp_path: Path) -> None:
    done: list[str] = []

    def see(event: Event) -> None:
        if event.phase in ("train", "round") and event.done == 1:
            done.append(f"{event.phase} {event.arm}")

    recipe = parse(short(model, real_only=NONE, other={"generate": "none", "more_real": 1}))
    first = compare(recipe, tmp_path, ["real_only"], [0], see)
    assert first["comparisons"] == [] and "train seed 0 real_only" in done
    done.clear()
    more = compare(recipe, tmp_path, [], [0, 1], see)
    trained = {of for of in done if of.startswith("train")}
    assert trained == {f"train {of}" for of in ("seed 0 other", "seed 1 real_only", "seed 1 other")}
    assert more["runs"]["0"]["real_only"] == first["runs"]["0"]["real_only"]
    done.clear()
    stopped = compare(recipe, tmp_path, [], [0, 1, 2], see, Ways(budget_seconds=0))
    assert not [of for of in done if of.startswith("train")]
    assert [of["seeds"] for of in stopped["comparisons"]] == [[0, 1]]
    assert any("used up before: real_only with seed 2, other" in of for of in stopped["notices"])


def test_a_budget_for_nothing_is_said(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="before the first arm began"):
        compare(parse(short(model, real_only=NONE)), tmp_path, ways=Ways(budget_seconds=0))


def test_a_guided_arm_that_does_not_beat_unguided_stops(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def rule(unguided: list, loop: LoopSettings):
        def go_on(past: list) -> bool:
            asked.append((len(unguided), len(past)))
            return len(past) < 1

        return go_on

    monkeypatch.setattr(comparing, "go_on_against", rule)
    made = short(model, active=GUIDED, unguided=PLAIN)
    made["loop"] = {"rounds": 4, "generate_until": 0.75, "batch": 4}
    with pytest.raises(UserError, match=r"data\.val"):
        compare(parse(made), tmp_path, ways=Ways(stop=True))
    made["data"]["val"] = {"split": "val", "options": {"count": 2}}
    found = compare(parse(made), tmp_path, ways=Ways(stop=True))
    assert asked == [(4, 0), (4, 1)]  # unguided was there first; after a no it is not asked again
    arms = found["arms"]
    assert list(arms) == ["active", "unguided"]
    assert arms["active"]["images"] == {"0": 2} and arms["unguided"]["images"] == {"0": 6}
    assert arms["active"]["stopped"] == {"0": 1} and arms["unguided"]["stopped"] == {}
    rounds = found["runs"]["0"]["active"]["rounds"]
    assert [of.get("stopped") for of in rounds] == [None, True, True, None]
    assert any(
        "active stopped generating after 1 rounds with seed 0" in n for n in found["notices"]
    )
    assert all(0 <= of["val"] <= 1 for of in rounds)
    assert any("too few rounds" in of for of in found["notices"])
    assert any("rounds hang together" in of for of in found["notices"])
    assert not any("were rejected" in of for of in found["notices"])
    again = compare(parse(made), tmp_path)
    assert again["arms"]["active"]["stopped"] == {"0": 1}


@pytest.mark.slow
def test_arms_side_by_side_are_the_same_as_one_after_the_other(model: Path, tmp_path: Path) -> None:
    recipe = parse(short(model, real_only=NONE, unguided=PLAIN, judged={"generate": "guided"}))
    one = compare(recipe, tmp_path / "one")
    two = compare(recipe, tmp_path / "two", ways=Ways(devices=("cpu", "cpu")))
    for arm in recipe.arms:
        assert two["arms"][arm]["figures"] == one["arms"][arm]["figures"]
        stores = [
            Store(str(tmp_path / way / "seed-0/arms" / arm / "store")) for way in ("one", "two")
        ]
        assert stores[0].fingerprints() == stores[1].fingerprints()
        assert (tmp_path / "two/seed-0/arms" / arm / "cost.json").exists()


def test_seeds_that_are_added_after_a_verdict_are_said(model: Path, tmp_path: Path) -> None:
    recipe = parse(short(model, real_only=NONE, other={"generate": "none", "more_real": 1}))
    compare(recipe, tmp_path, [], [0])  # one seed is no verdict
    first = compare(recipe, tmp_path, [], [0, 1])
    more = compare(recipe, tmp_path, [], [0, 1, 2])
    again = compare(recipe, tmp_path, [], [0, 1, 2])
    said = [
        [n for n in of["notices"] if "verdicts already with" in n] for of in (first, more, again)
    ]
    assert (
        said[0] == []
        and said[1] == said[2]
        and "already with 2 seeds, and now with 3" in said[1][0]
    )
    pair = "other against real_only"
    assert first["looks"] == [{pair: [0, 1]}]
    assert again["looks"] == [{pair: [0, 1]}, {pair: [0, 1, 2]}]


def planted_image(run: Run, arm: str) -> None:
    """A test image among the accepted ones of a finished arm."""
    root = run.folder / "arms" / arm / "store"
    store = Store(str(root))
    stored, test = store.round(0), run.data.test.image(0)
    first, *rest = stored.samples()
    accepted = next(v.id for v in stored.verdicts() or [] if v.accepted)
    assert first.request.id == accepted
    [shard] = root.glob("round-0000/shard-*.parquet")
    shard.unlink()
    summary = (root / "round-0000/round.json").read_bytes()
    (root / "round-0000/round.json").unlink()
    stored.write_shard(0, [replace(first, image=png(test)), *rest])
    (root / "round-0000/round.json").write_bytes(summary)


def test_a_leak_and_unequal_steps_are_refused(model: Path, tmp_path: Path) -> None:
    recipe = parse(short(model, real_only=NONE, unguided=PLAIN))
    compare(recipe, tmp_path)
    planted_image(Run(recipe, tmp_path / "seed-0"), "unguided")
    with pytest.raises(UserError, match="unguided learnt from 1 near-copies of test images"):
        compare(recipe, tmp_path)
    [summary] = (tmp_path / "seed-0/arms/unguided/store").glob("round-0001/round.json")
    summary.write_text(summary.read_text().replace('"step": 4', '"step": 9'))
    with pytest.raises(UserError, match="unequal optimiser steps: unguided 9, real_only 4"):
        compare(recipe, tmp_path)


def judge_file(recipe: Recipe, folder: Path, role: str = "together") -> Path:
    """Of a run that has trained its judge, or its teacher."""
    _ = getattr(Run(recipe, folder).judges, role)
    [file] = (folder / "judge").iterdir()
    return file


def planted_file(made: dict, folder: Path, role: str) -> Path:
    """A judge or a teacher in a new run, which has learnt from test images instead."""
    own = judge_file(parse(made), folder / "fine", role)
    data = made["data"] | {"train": {**made["data"]["train"], "split": "test"}}
    saw = judge_file(parse(made | {"data": data}), folder / "saw", role)
    there = folder / "swapped/seed-0/judge" / own.name
    there.parent.mkdir(parents=True)
    there.write_bytes(saw.read_bytes())
    return there


def test_a_leak_of_the_only_arm_is_refused(model: Path, tmp_path: Path) -> None:
    recipe = parse(short(model, unguided=PLAIN))
    compare(recipe, tmp_path)
    planted_image(Run(recipe, tmp_path / "seed-0"), "unguided")
    with pytest.raises(UserError, match="unguided learnt from 1 near-copies of test images"):
        compare(recipe, tmp_path)


def test_a_judge_that_has_seen_the_test_is_refused_before_any_work(
    model: Path, tmp_path: Path
) -> None:
    made = short(model, real_only=NONE, active={"generate": "guided"})
    there = planted_file(made, tmp_path, "together")
    with pytest.raises(UserError, match="the judge of active has learnt from test images: test im"):
        compare(parse(made), tmp_path / "swapped")
    assert list(there.parent.parent.iterdir()) == [there.parent]


TAUGHT = {"guided": [{"ascend": {"of": "latents", "objectives": ["teacher_anchor"]}}]}


@pytest.mark.parametrize(
    "arm", [GUIDED, {"generate": "selected", "judge": False, "by": "teacher_student"}]
)
def test_a_teacher_that_has_seen_the_test_is_refused_before_any_work(
    model: Path, tmp_path: Path, arm: dict
) -> None:
    made = short(model, real_only=NONE, unguided=PLAIN, active=arm)
    made["guidance"] |= TAUGHT
    there = planted_file(made, tmp_path, "teacher")
    with pytest.raises(UserError) as refused:
        compare(parse(made), tmp_path / "swapped")
    assert "the teacher of active has learnt from test images: test image" in str(refused.value)
    assert f"delete '{there}' and, of what was drawn with it, the folders active" in str(
        refused.value
    )
    assert list(there.parent.parent.iterdir()) == [there.parent]
    unasked = compare(parse(made), tmp_path / "swapped", ["real_only", "unguided"])
    assert unasked["facts"]["0"]["unguided"]["judge_images"] == 0
    there.unlink()
    found = compare(parse(made), tmp_path / "swapped")["facts"]["0"]
    assert found["active"]["judge_images"] == found["active"]["real_images"] > 0


@pytest.mark.parametrize(
    ("arm", "asked"),
    [
        (NONE, {}),
        (PLAIN, {}),
        (PLAIN | {"judge": True}, {0: "judge"}),
        (GUIDED, {1: "teacher"}),
        (GUIDED | {"judge": True}, {0: "judge", 1: "teacher"}),
        (GUIDED | {"way": "pulled"}, {}),
        (GUIDED | {"way": "scored"}, {1: "teacher"}),
        (GUIDED | {"way": "student"}, {1: "teacher"}),
        (GUIDED | {"by": "teacher_student", "way": "pulled"}, {}),  # it ranks nothing
        (GUIDED | {"changes": {"proposal.adversarial_share": 0.1}}, {1: "teacher"}),
        (GUIDED | {"changes": {"proposal.adversarial_share": 0.0}}, {}),
        ({"generate": "selected", "judge": False}, {}),
        ({"generate": "selected", "judge": False, "by": "teacher_student"}, {1: "teacher"}),
    ],
)
def test_who_decides_what_the_images_of_an_arm_are(
    model: Path, tmp_path: Path, arm: dict, asked: dict[int, str]
) -> None:
    def ascend(*objectives: Any) -> list[dict]:
        return [{"ascend": {"of": "latents", "objectives": [*objectives]}}]

    made = short(model, active=arm)
    made["guidance"] = {
        "guided": ["reference_pull"],
        "adversarial": ascend("entropy", "teacher_anchor"),
        "pulled": ["reference_pull"],
        "scored": ascend({"entropy": {"of": "teacher"}}),
        "student": ascend("teacher_student"),
    }
    assert Run(parse(made), tmp_path).asked("active") == asked


def test_a_judge_that_saw_the_test_as_labelled_images_is_a_matter_of_the_data(
    model: Path, tmp_path: Path
) -> None:
    made = short(model, real_only=NONE, active={"generate": "guided"})
    made["data"]["train"] = {"split": "test", "per_class": 2, "options": {"count": 3}}
    _ = Run(parse(made), tmp_path / "seed-0").judges.together
    with pytest.raises(UserError, match="used test images as labelled ones") as refused:
        compare(parse(made), tmp_path)
    assert "delete" not in str(refused.value)


def test_arms_without_real_images_are_compared_whatever_they_are_drawn_from(
    model: Path, tmp_path: Path
) -> None:
    alone = {"synthetic_only": PLAIN | {"real": False}, "guided": GUIDED | {"real": False}}
    made = compare(parse(short(model, real_only=NONE, **alone)), tmp_path)
    assert [(of["arm"], of["baseline"]) for of in made["step_by_step"]] == [
        ("guided", "synthetic_only")
    ]
    facts = made["facts"]["0"]
    shown, labelled = facts["guided"]["real_images"], facts["real_only"]["real_images"]
    assert shown > facts["synthetic_only"]["real_images"] == 0
    [told] = [of for of in made["notices"] if "in sight" in of]
    assert told.startswith(
        f"guided learns from no real images, but was drawn with {shown} of {labelled} labelled ones"
    )
    plan = Store(str(tmp_path / "seed-0/arms/guided/store")).round(0).plan() or []
    used = {request.reference for request in plan if request.reference}
    assert len(used) == shown and all(id in told for id in sorted(used)[:3])
    fewer = compare(parse(short(model, real_only=NONE, guided=alone["guided"])), tmp_path)
    assert not any("in sight" in of for of in fewer["notices"])


def test_a_judge_that_does_not_say_what_it_has_seen_is_told(model: Path, tmp_path: Path) -> None:
    recipe = parse(short(model, active={"generate": "guided"}))
    fine = compare(recipe, tmp_path)
    facts = fine["facts"]["0"]["active"]
    assert facts["judge_images"] == facts["real_images"] > 0
    [file] = (tmp_path / "seed-0/judge").iterdir()
    save_file(load_file(file), file)
    silent = compare(recipe, tmp_path)
    [told] = [of for of in silent["notices"] if of not in fine["notices"]]
    assert "does not say which images it has learnt from" in told and file.name in told
    assert silent["facts"] == fine["facts"]


def test_what_a_member_of_the_committee_has_seen_is_not_known(model: Path, tmp_path: Path) -> None:
    alone = compare(parse(short(model, real_only=NONE)), tmp_path / "alone")
    [weights] = (tmp_path / "alone").rglob("model.safetensors")
    made = short(model, real_only=NONE, guided=GUIDED)
    made["learner"] = made.get("learner", {}) | {"committee": [{"weights": str(weights)}]}
    joined = compare(parse(made), tmp_path / "joined")
    told = [of for of in joined["notices"] if "learner.committee have learnt from" in of]
    assert len(told) == 1 and str(weights) in told[0]
    assert not any("learner.committee" in of for of in alone["notices"])


def test_a_generator_that_was_adapted_to_other_images_is_told_and_to_test_images_refused(
    model: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(model, tmp_path / "adapted")
    recipe = parse(short(own, real_only=NONE, unguided=PLAIN))
    data = Run(recipe, tmp_path / "none").data
    mine, theirs = ([*contents(of).values()] for of in (data.train, data.test))

    def told(*learnt: str) -> list[str]:
        (own / "card.json").write_text(json.dumps({"learnt_from": learnt}))
        found = compare(recipe, tmp_path / "out")
        return [of for of in found["notices"] if "the generator in" in of]

    assert not told(*mine)
    assert len(told(*mine, "another")) == 1
    with pytest.raises(UserError, match="adapted to test images: test image"):
        told(*mine, theirs[0])


def pictures(folder: Path) -> None:
    """Two of each class, none like another, as an image folder."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for k in range(2):
                pixels = rng.integers(60, 190, (4, 4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
                Image.fromarray(pixels).save(folder / split / name / f"{k}.png")


def test_near_copies_of_test_images_are_told(model: Path, tmp_path: Path) -> None:
    pictures(tmp_path)
    made = short(model, real_only=NONE, other=NONE)
    made["data"] = {"layout": "image_folder", "path": str(tmp_path), "size": 32}
    clean = compare(parse(made), tmp_path / "clean")
    assert not any("near-copies" in of for of in clean["notices"])
    again = Image.open(tmp_path / "test/dog/1.png")
    again.save(tmp_path / "train/dog/1.jpg", quality=90, subsampling=0)
    found = compare(parse(made), tmp_path / "out")
    [told] = [of for of in found["notices"] if "near-copies" in of]
    assert told.startswith("1 labelled real images are near-copies of test images, such as ")
    assert "train/dog/1.jpg of test/dog/1.png" in told


def test_each_arm_keeps_the_machine_that_finished_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = parse(short(model, real_only=NONE, other=NONE))
    compare(recipe, tmp_path, ["real_only"])
    here = environment()
    for module in (comparing, running):
        monkeypatch.setattr(module, "environment", lambda: {**here, "gpu": "another"})
    made = compare(recipe, tmp_path)
    found = [(of["environment"]["gpu"], of["arms"]) for of in made["machines"]]
    assert found == [(here["gpu"], {"real_only": [0]}), ("another", {"other": [0]})]
    assert made["environment"]["gpu"] == "another"
    assert any("carried out on 2 kinds of machines" in of for of in made["notices"])


def test_other_versions_for_some_arms_are_told() -> None:
    def of(**versions: str) -> dict[str, Any]:
        return {"environment": {"gpu": None, "versions": versions}, "arms": {}}

    assert not notices.other_places([of(torch="2.1", numpy="2.0"), of(torch="2.1", numpy="2.0")])
    [told] = notices.other_places([of(torch="2.1", numpy="2.0"), of(torch="2.2", numpy="2.0")])
    assert "several versions of torch 2.1, 2.2, so" in told


@pytest.mark.parametrize("arm", ["unguided", "own"])
def test_a_generator_that_changes_between_seeds_is_refused(
    model: Path, tmp_path: Path, arm: str
) -> None:
    own = {**PLAIN, "changes": {"model.decoder": "full"}}  # which may be another
    recipe = parse(short(model, real_only=NONE, unguided=PLAIN, own=own))
    compare(recipe, tmp_path, seeds=[0])
    [shard] = (tmp_path / f"seed-0/arms/{arm}/store/round-0000").glob("shard-*.parquet")
    table = pq.read_table(shard)
    made_by = [
        json.dumps({**json.loads(of), "revision": "another"}) for of in table["made_by"].to_pylist()
    ]
    at, kind = table.column_names.index("made_by"), table.schema.field("made_by")
    pq.write_table(table.set_column(at, kind, pa.array(made_by, kind.type)), shard)
    with pytest.raises(UserError, match=f"generator is not the same for {arm} with seed 0 and"):
        compare(recipe, tmp_path, seeds=[0, 1])


def test_more_labelled_images_beside_generated_ones_are_told(model: Path, tmp_path: Path) -> None:
    both = {**PLAIN, "more_real": 1}
    recipe = parse(short(model, real_only=NONE, unguided=PLAIN, both=both))
    [told] = [of for of in trained_otherwise(recipe) if "both" in of]
    assert told.startswith("both learns from more labelled real images (more_real: 1)")


def test_images_that_cannot_be_read_are_told(model: Path, tmp_path: Path) -> None:
    pictures(tmp_path)
    made = short(model, real_only=NONE)
    made["data"] = {"layout": "image_folder", "path": str(tmp_path), "size": 32}
    assert not any("cannot be read" in of for of in compare(parse(made), tmp_path / "a")["notices"])
    (tmp_path / "test/dog/2.png").write_bytes(b"broken")
    [told] = [
        of for of in compare(parse(made), tmp_path / "b")["notices"] if "cannot be read" in of
    ]
    assert told.startswith("1 images cannot be read and were left out of all arms: ")
    assert "2.png" in told


def test_a_device_that_is_not_there_is_said_before_any_work(model: Path, tmp_path: Path) -> None:
    recipe = parse(short(model, judged={"generate": "guided"}))
    with pytest.raises(UserError, match="--devices names 'cuda:99'"):
        compare(recipe, tmp_path, ways=Ways(devices=("cpu", "cuda:99")))
    assert not list(tmp_path.iterdir())


def test_test_images_in_training_are_refused_before_any_work(model: Path, tmp_path: Path) -> None:
    made = short(model, real_only=NONE, other=NONE)
    made["data"]["train"] = {"split": "test", "per_class": 2, "options": {"count": 3}}
    with pytest.raises(UserError, match="used test images as labelled ones: test image"):
        compare(parse(made), tmp_path)


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (["guidd"], "unknown arm 'guidd'.*'guided'"),
        (["guided", "guided"], "named twice"),
        (["real_only", "augmented"], "no augmentation that is stronger than 'street'"),
        (["more_real"], "trains on all of them"),
    ],
)
def test_arms_that_cannot_be_are_said(
    model: Path, tmp_path: Path, arms: list[str], said: str
) -> None:
    made = short(model)
    made["training"]["augmentation"] = "street"
    made["data"]["train"] = {"options": {"count": 4}}
    with pytest.raises(UserError, match=said):
        compare(parse(made), tmp_path, arms)


def test_the_pool_of_equal_cost_is_measured_once(model: Path, tmp_path: Path) -> None:
    recipe = parse(short(model))
    pools = [
        with_named_arms(recipe, ["selected"], tmp_path).arms["selected"].pool for _ in range(2)
    ]
    assert pools[0] == pools[1] >= 1
    assert json.loads((tmp_path / "pool.json").read_text())["pool"] == pools[0]


def test_a_pool_is_of_one_recipe(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([3, 7])
    monkeypatch.setattr(arms, "pool_of_equal_cost", lambda run, of: next(measured))

    def pool(**changes: Any) -> float:
        recipe = parse(short(model) | changes)
        return with_named_arms(recipe, ["selected"], tmp_path).arms["selected"].pool

    assert pool() == pool(seed=5) == 3
    assert pool(sampling={"num_steps": 3}) == 7


@pytest.mark.parametrize(
    ("objectives", "by", "of"),
    [
        ([{"disagreement": {"of": "committee"}}, "teacher_anchor"], "disagreement", "committee"),
        (["segment_consistency", "margin"], "margin", "learner"),
        ([{"margin": {"weight": -1}}], "entropy", "learner"),
        ([{"margin": {"of": "dropout"}}], "entropy", "learner"),
        (["teacher_student"], "teacher_student", "learner"),
    ],
)
def test_images_are_selected_by_what_guidance_ascends(
    model: Path, tmp_path: Path, objectives: list[Any], by: str, of: str
) -> None:
    (tmp_path / "pool.json").write_text('{"pool": 2}')
    ascend = {"of": "latents", "through": "decoder", "objectives": objectives}
    recipe = parse(short(model) | {"guidance": {"guided": [{"ascend": ascend}]}})
    arm = with_named_arms(recipe, ["selected"], tmp_path).arms["selected"]
    assert (arm.by, arm.of) == (by, of)


def test_what_may_differ() -> None:
    base = Facts("a", (0,), 1, "t", frozenset(), frozenset({"x"}), images=2)
    other = ArmSettings("none", more_real=1)
    real = ArmSettings("none")
    wider = replace(base, real_images=frozenset({"x", "y"}))
    assert differs_on_purpose(wider, base, (other, real), 2) == ("real images", "images")
    assert differs_on_purpose(wider, base, (real, real), 2) == ("images",)
    elsewhere = replace(base, real_images=frozenset({"z"}))
    assert differs_on_purpose(elsewhere, base, (other, real), 2) == ("images",)
    assert differs_on_purpose(replace(base, images=3), base, (real, real), 2) == ()
    for key in ("model.lora", "segmentation.controls.0.path"):
        drawn = ArmSettings("plain", changes={key: "mine"})
        assert differs_on_purpose(base, base, (drawn, real), 2) == ("images", "generator")
    alone = ArmSettings("guided", real=False)
    assert "real images" in differs_on_purpose(elsewhere, base, (alone, alone), 2)
    for few in (elsewhere, wider):
        assert "real images" not in differs_on_purpose(few, base, (ArmSettings(), ArmSettings()), 2)
    assert "real images" not in differs_on_purpose(elsewhere, base, (alone, ArmSettings()), 2)


def test_a_second_network_is_training_that_is_otherwise() -> None:
    def told(changed: dict[str, Any], usual: dict[str, Any] | None = None) -> list[str]:
        arms = {"words": PLAIN, "own": PLAIN | {"changes": changed}}
        made = load("ablation_text").plain() | {"arms": arms}
        return trained_otherwise(parse(made | {"learner": made["learner"] | (usual or {})}))

    begin = "own is trained otherwise than the recipe says: "
    two = {"co_training": {"mixing": 0.5}}
    networks = "networks (learner.co_training)"
    assert told({"learner.co_training": {}}) == [f"{begin}{networks} 2 instead of 1"]
    assert told({"learner.co_training": None}, two) == [f"{begin}{networks} 1 instead of 2"]
    assert told({"learner.co_training.mixing": 0.1}, two) == [
        f"{begin}co_training.mixing 0.1 instead of 0.5"
    ]
    assert told({"learner.co_training": {}}, two) == []
