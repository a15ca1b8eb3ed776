"""Recipes whose images are drawn in another process."""

from pathlib import Path

import pytest
import torch

import tiny
import toy
from activegen.recipes import Recipe, Run, load, parse
from activegen.recipes.arms import on_device
from activegen.records import UserError
from activegen.store import Store

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's, on loading a model


def recipe(model: Path, **parts: dict) -> Recipe:
    """One arm over three rounds, the first of which generates two images."""
    settings = toy.settings(
        model,
        guidance={"guided": [{"ascend": {"objectives": [{"teacher_student": {}}]}}]},
        proposal={"budget": 2, "plain_share": 0.0, "adversarial_share": 0.0},
        training={"steps": 6, "batch_size": 8},
        arms={"active": {"generate": "guided"}},
    )
    loop = {"rounds": 3, "generate_until": 0.34, "batch": 2}
    return parse(settings | parts | {"loop": loop | parts.get("loop", {})})


@pytest.fixture
def one_thread():
    """Processes divide the threads, and sums of another number of threads round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_another_process_makes_the_run_again_and_draws_the_same(tmp_path: Path) -> None:
    model = tiny.save(tiny.model(), tmp_path / "model")
    stores, figures = [], []
    for name, loop in (("here", {}), ("there", {"workers": 1})):
        run = Run(recipe(model, loop=loop), tmp_path / name)
        result = run.carry_out()["arms"]["active"]
        figures.append([(r["step"], r["accepted"], r["per_class"]) for r in result["rounds"]])
        stores.append(Store(str(tmp_path / name / "arms" / "active" / "store")))
    assert run._loaded is None or not run.recipe.loop.workers
    samples = [list(store.round(0).samples()) for store in stores]
    assert samples[0] == samples[1] != []
    assert figures[0] == figures[1]


def test_devices_and_workers_decide_about_nothing_but_overlap_does() -> None:
    known = load("demo").fingerprint
    for same in ("loop.workers=2", "loop.micro_batch=1", "learner.device=cpu"):
        assert load("demo", [same]).fingerprint == known
    assert load("demo", ["loop.overlap=true"]).fingerprint != known


def test_a_comparison_has_learner_and_generator_on_one_device() -> None:
    there = on_device(load("demo", ["learner.device=cpu"]), "meta")
    assert (there.model.device, there.learner.device) == ("meta", None)
    assert there.fingerprint == load("demo").fingerprint


def test_two_devices_need_two_processes(tmp_path: Path) -> None:
    model = tiny.save(tiny.model(), tmp_path / "model")
    apart = recipe(model, learner={"device": "meta"})
    with pytest.raises(UserError, match=r"learner.device is another than model.device"):
        Run(apart, tmp_path / "run").check()
    with pytest.raises(UserError, match=r"learner.device 'abacus' is not usable here"):
        Run(recipe(model, learner={"device": "abacus"}), tmp_path / "run").check()
    run = Run(recipe(model, learner={"device": "meta"}, loop={"workers": 1}), tmp_path / "run")
    assert (run.device.type, run.learner_device.type) == ("cpu", "meta")
    assert "meta" not in run._source("active").recipe
