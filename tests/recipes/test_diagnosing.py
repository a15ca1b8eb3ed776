"""What a held-out judge sees in arms, at toy size."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tiny
from activegen.recipes import Run, diagnosing, parse
from activegen.recipes.comparing import Ways, compare
from activegen.recipes.diagnosing import HeldOutSettings, held_out, means
from activegen.recipes.progress import Event
from activegen.records import UserError
from activegen.store import Store, from_png

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's, on loading a model

QUICK = HeldOutSettings(fresh=16, steps=2)
ARMS = {"real_only": {"generate": "none"}, "unguided": {"generate": "plain", "judge": False}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.model(), tmp_path_factory.mktemp("model"))


def settings(model: Path) -> dict:
    return {
        "name": "toy",
        "data": {
            "layout": "world",
            "size": 16,
            "options": {"size": 16},
            "train": {"per_class": 1, "options": {"count": 4}},
            "test": {"options": {"count": 1}},
        },
        "model": {"path": str(model), "decoder": "linear", "device": "cpu"},
        "sampling": {"num_steps": 2, "scheduler": "ddim"},
        "guidance": {"guided": [], "adversarial": []},
        "training": {"steps": 2, "batch_size": 8, "augmentation": "flips"},
        "proposal": {"budget": 8},
        "judge": {"network": ""},
        "loop": {"rounds": 2, "batch": 8},
        "arms": ARMS,
    }


@pytest.fixture(scope="module")
def before(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A finished comparison that was not looked into."""
    folder = tmp_path_factory.mktemp("compared")
    return folder, compare(parse(settings(model)), folder)


def test_a_finished_comparison_is_looked_into_later(model: Path, before) -> None:
    folder, bare = before
    assert "diagnostics" not in bare["arms"]["unguided"] and not (folder / "held_out").exists()
    told: list[str] = []

    def see(event: Event) -> None:
        told.append(event.phase)

    recipe = parse(settings(model))
    made = compare(recipe, folder, observer=see, ways=Ways(held_out=QUICK))
    assert "held_out" in told and "train" not in told
    assert made["runs"] == bare["runs"] and "diagnostics" not in made["arms"]["real_only"]
    judge = made["held_out"]
    assert judge["network"] == "timm:test_resnet" and judge["images"] == 16 and not judge["own"]
    assert 0 <= judge["accuracy"] <= 1
    of = made["arms"]["unguided"]["diagnostics"]
    assert of["seeds"]["0"] == of["means"] and of["means"]["images"] == 8
    for name in ("precision", "recall", "coverage"):
        assert 0 <= of["means"][name] <= 1
    for name in ("kid", "nearest", "density", "learner_entropy"):
        assert isinstance(of["means"][name], float)
    assert json.loads((folder / "comparison.json").read_text()) == made

    run = Run(replaced(recipe), folder / "seed-0")
    network = held_out(run, [0], folder, QUICK).network
    right = []
    for sample, _ in Store(str(folder / "seed-0/arms/unguided/store")).accepted():
        seen = network.predict(from_png(sample.image)[None] / 255).logits[0, 0].argmax()
        right.append(int(seen) == sample.request.target)
    assert of["means"]["label_fidelity"] == pytest.approx(sum(right) / 8)

    told.clear()
    (folder / "seed-0/arms/unguided/model.safetensors").touch()
    kept = {p: p.stat().st_mtime_ns for p in folder.rglob("diagnostics.json")}
    again = compare(recipe, folder, observer=see, ways=Ways(held_out=QUICK))
    assert again["arms"] == made["arms"] and "held_out" not in told
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    other = compare(recipe, folder, ways=Ways(held_out=replace(QUICK, measured=7)))
    assert other["arms"]["unguided"]["diagnostics"]["means"]["images"] == 7


def test_what_a_judge_refused_is_looked_into(model: Path, tmp_path: Path) -> None:
    made = settings(model)
    made["judge"] = {"members": 1, "steps": 2, "min_probability": 0.125}
    made["arms"] = {**ARMS, "judged": {"generate": "plain"}}
    found = compare(parse(made), tmp_path, ways=Ways(held_out=QUICK))["arms"]
    network = held_out(
        Run(replaced(parse(made)), tmp_path / "seed-0"), [0], tmp_path, QUICK
    ).network
    store = Store(str(tmp_path / "seed-0/arms/judged/store")).round(0)
    refused = {of.id for of in store.verdicts() or [] if of.reason == "label"}
    assert 0 < len(refused) < len(list(store.samples()))
    right = [
        int(network.predict(from_png(of.image)[None] / 255).logits[0, 0].argmax())
        == of.request.target
        for of in store.samples()
        if of.request.id in refused
    ]
    judged = found["judged"]["diagnostics"]["means"]
    assert judged["refused"] == len(refused)
    assert judged["refused_fidelity"] == pytest.approx(sum(right) / len(right))
    unguided = found["unguided"]["diagnostics"]["means"]
    assert unguided["refused"] == 0 and unguided["refused_fidelity"] is None


def test_arms_are_compared_at_equal_numbers_of_images(model: Path, tmp_path: Path) -> None:
    made = settings(model)
    made["data"]["test"]["options"]["count"] = 2
    plain = ARMS["unguided"]
    made["arms"] = {
        "many": {**plain, "changes": {"proposal.budget": 14}},
        "few": {**plain, "changes": {"proposal.budget": 6}},
    }
    found = compare(parse(made), tmp_path, ways=Ways(held_out=QUICK))
    many, few = (found["arms"][arm]["diagnostics"]["means"] for arm in ("many", "few"))
    assert (many["images"], few["images"]) == (14, 6)
    real = len(Run(replaced(parse(made)), tmp_path / "seed-0").data.test)
    counts = {"compared": 6, "compared_with": real - 6}  # the others are measured beside these
    judge = found["held_out"]
    for of in (many, few, judge):
        assert {name: of[name] for name in counts} == counts
    assert 0 <= judge["coverage"] <= 1 and judge["images"] == 16 and "kid" in judge
    alone = compare(parse(made), tmp_path, ["many"], ways=Ways(held_out=QUICK))
    again = alone["arms"]["many"]["diagnostics"]["means"]
    assert (again["compared"], again["compared_with"]) == (14, real)
    assert "coverage" not in alone["held_out"]  # too few real ones are left


def test_a_judge_of_other_weights_is_another(model: Path, tmp_path: Path) -> None:
    run = Run(replaced(parse(settings(model))), tmp_path)
    weights = timm.create_model("test_resnet", num_classes=8).state_dict()
    config = {"architecture": "test_resnet", "num_classes": 8, "pretrained_cfg": {}}
    (tmp_path / "own").mkdir()
    (tmp_path / "own/config.json").write_text(json.dumps(config))
    ids = []
    for bias in (0.0, 1.0):
        weights["fc.bias"] = torch.full((8,), bias)
        save_file(weights, tmp_path / "own/model.safetensors")
        judge = f"timm:local-dir:{tmp_path / 'own'}"
        ids.append(held_out(run, [0], tmp_path, replace(QUICK, judge=judge)).id)
    assert ids[0] != ids[1]


def replaced(recipe):
    from activegen.recipes.arms import with_seed

    return with_seed(recipe, 0)


def test_the_judge_may_be_a_file(model: Path, before, tmp_path: Path) -> None:
    folder, _ = before
    run = Run(replaced(parse(settings(model))), folder / "seed-0")
    trained = held_out(run, [0], tmp_path, QUICK)
    [file] = (tmp_path / "held_out").iterdir()
    given = held_out(run, [0], tmp_path / "none", replace(QUICK, judge=str(file)))
    image = run.data.test.image(0)[None] / 255
    assert torch.equal(given.network.predict(image).logits, trained.network.predict(image).logits)
    assert given.about["network"] == "timm:test_resnet" and not (tmp_path / "none").exists()


def test_a_judge_that_an_arm_uses_is_refused(model: Path, before, tmp_path: Path) -> None:
    folder, _ = before
    run = Run(replaced(parse(settings(model))), folder / "seed-0")
    own = folder / "seed-0/arms/unguided/model.safetensors"
    for judge in ("small", str(own)):
        with pytest.raises(UserError, match="'small', which the arms use themselves"):
            held_out(run, [0], tmp_path, replace(QUICK, judge=judge))
    with safe_open(str(own), framework="pt") as weights:
        one = {name: weights.get_tensor(name) for name in weights.keys()}
    other = tmp_path / "other.safetensors"
    save_file(one, other, {"network": "timm:test_resnet", "classes": '["a", "b"]'})
    with pytest.raises(UserError, match="does not say that it is a network for the classes field"):
        held_out(run, [0], tmp_path, replace(QUICK, judge=str(other)))


def test_it_learns_from_what_no_arm_has_and_from_no_test_image(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosing, "FRESH", {})
    monkeypatch.setattr(diagnosing, "FEWEST", 1)
    made = settings(model)
    made["data"]["train"] = {"split": "test", "per_class": 1, "options": {"count": 6}}
    made["arms"] = {"real_only": {"generate": "none"}, "more": {"generate": "none", "more_real": 1}}
    run = Run(replaced(parse(made)), tmp_path)
    real, own = diagnosing._unseen(run, [0, 1], QUICK)
    used = {id for seed in (0, 1) for id in few(run, 2, seed)}
    assert not own and set(real.ids) == set(run.data.whole.ids) - used
    tested = set(run.data.test.ids) & set(real.ids)
    found = held_out(run, [0, 1], tmp_path, QUICK)
    assert found.about["images"] == len(real) - len(tested)
    monkeypatch.setattr(diagnosing, "FEWEST", 6)
    assert diagnosing._unseen(run, [0, 1], QUICK)[1]


def few(run: Run, count: int, seed: int) -> tuple[str, ...]:
    from activegen.data.splits import few_shot

    return few_shot(run.data.whole, count, seed).ids


def test_means_are_of_the_seeds_that_have_a_number() -> None:
    one = {"images": 4, "kid": None, "per_class": {"a": 1.0, "b": None}}
    two = {"images": 6, "per_class": {"a": 0.5, "b": None}}
    assert means([one, two]) == {"images": 5, "kid": None, "per_class": {"a": 0.75, "b": None}}


@pytest.mark.slow
def test_masks_are_looked_into(tmp_path: Path) -> None:
    from activegen.recipes import load

    small = ["data.train.count=8", "data.test.options.count=8", "training.steps=2"]
    small += ["segmentation.proposal.budget=8", "sampling.num_steps=2", "loop.rounds=2"]
    small += ["training.warmup_steps=0", "segmentation.judge.steps=2"]
    ways = Ways(held_out=HeldOutSettings(fresh=8, steps=2))
    made = compare(load("demo_segmentation", small), tmp_path, ["unguided"], ways=ways)
    assert made["held_out"]["network"] == "smp:linknet/resnet18"
    of = made["arms"]["unguided"]["diagnostics"]["means"]
    assert of["images"] == 8 and 0 <= of["label_fidelity"] < 0.5 and of["diversity"] > 0
