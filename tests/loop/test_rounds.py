import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import colours
from activegen.loop.mining import MiningSettings
from activegen.loop.rounds import active_generation
from activegen.loop.settings import ArmSettings, LoopSettings
from activegen.records import UserError
from activegen.store import Store
from toy import unclocked

GUIDED = ArmSettings("guided", judge=True)


def run(folder: Path, settings: ArmSettings = GUIDED, **changes) -> list[dict]:
    return list(active_generation(colours.parts(**changes), "a", settings, folder, "recipe"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("run")
    return folder, run(folder)


def test_a_round_trains_generates_judges_and_stores(undisturbed):
    folder, summaries = undisturbed
    assert [s["step"] for s in summaries] == [8, 16, 24]
    assert [s["proposed"] >= 6 for s in summaries] == [True, True, False]
    for summary in summaries:
        assert summary["accepted"] + sum(summary["rejected"].values()) == summary["proposed"]
    store = Store(str(folder / "store"))
    requests = [r for k in store.rounds() for r in store.round(k).plan() or []]
    guided = [r for r in requests if r.steering != "plain"]
    assert guided and all(r.reference.startswith("train/") and r.state for r in guided)
    assert {r.steering for r in requests} >= {"guided", "adversarial"}


def test_rejected_images_are_replaced_until_the_budget_is_filled(tmp_path):
    from activegen.loop.proposing import ProposalSettings

    once = run(tmp_path / "once", proposal=ProposalSettings(budget=6, spare=1))
    often = run(tmp_path / "often", proposal=ProposalSettings(budget=6, spare=4))
    assert any(s["rejected"] for s in once)
    assert [s["accepted"] for s in often] == [6, 6, 0]
    for summary in often:
        assert summary["proposed"] == summary["accepted"] + sum(summary["rejected"].values())
    store = Store(str(tmp_path / "often" / "store"))
    assert len(store.round(0).plan() or []) == 24
    assert len(list(store.round(0).samples())) < 24


def test_accepted_images_are_trained_on(tmp_path):
    parts = colours.parts()
    summaries = list(active_generation(parts, "a", GUIDED, tmp_path, "recipe"))
    accepted = Store(str(tmp_path / "store")).accepted(before_round=2)
    pool = parts.task.synthetic(accepted, parts.train)
    assert len(pool) == sum(s["accepted"] for s in summaries)
    assert len(parts.task.synthetic([], parts.train)) == 0


def test_the_same_run_twice_is_the_same(undisturbed, tmp_path):
    folder, summaries = undisturbed
    assert unclocked(run(tmp_path)) == unclocked(summaries)
    ours, theirs = Store(str(tmp_path / "store")), Store(str(folder / "store"))
    assert ours.fingerprints() == theirs.fingerprints()


def test_a_finished_run_is_only_read(undisturbed):
    folder, summaries = undisturbed
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert run(folder) == summaries
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("after", range(1, 9))
def test_a_run_that_stops_anywhere_goes_on_to_the_same_end(undisturbed, tmp_path, after):
    """Stopped in the executor, between batches of two images."""

    class Stop(Exception):
        pass

    class Stopping:
        def __init__(self):
            self.left = after

        def map(self, work, jobs):
            for job in jobs:
                self.left -= 1
                if self.left == 0:
                    raise Stop
                yield work(job)

    folder, summaries = undisturbed
    stopped = False
    try:
        run(tmp_path, executor=Stopping())
    except Stop:
        stopped = True
    assert stopped == (after <= 8)
    resumed = run(tmp_path)
    assert unclocked(resumed) == unclocked(summaries)
    assert any(of.get("resumed") for of in resumed) == stopped
    assert not any(of.get("resumed") for of in summaries)
    ours, theirs = Store(str(tmp_path / "store")), Store(str(folder / "store"))
    assert ours.fingerprints() == theirs.fingerprints()


def test_learners_without_the_store_that_they_learnt_from_are_refused(undisturbed, tmp_path):
    folder, _ = undisturbed
    left = shutil.copytree(folder, tmp_path / "left")
    shutil.rmtree(left / "store")
    with pytest.raises(UserError, match=r"no store .* delete this whole folder"):
        run(left)
    shutil.rmtree(left)
    assert len(run(left)) == 3


def test_a_round_that_was_stopped_after_its_training_says_so(undisturbed, tmp_path):
    folder, summaries = undisturbed
    left = shutil.copytree(folder, tmp_path / "left")
    shutil.rmtree(left / "store" / "round-0002")
    resumed = run(left)
    assert [of.get("resumed") for of in resumed] == [None, None, True]
    assert unclocked(resumed) == unclocked(summaries)


def test_lost_images_are_no_rejected_ones(undisturbed, tmp_path):
    left = shutil.copytree(undisturbed[0], tmp_path / "left")
    for shard in (left / "store" / "round-0000").glob("shard-*.parquet"):
        shard.unlink()
    with pytest.raises(UserError, match=r"accepted images of round 0 in .* are missing"):
        list(Store(str(left / "store")).accepted())


def test_arms_have_the_same_steps_and_budget(tmp_path):
    plain = run(tmp_path / "plain", ArmSettings("plain", judge=False))
    none = run(tmp_path / "none", ArmSettings("none"))
    assert [s["step"] for s in plain] == [s["step"] for s in none] == [8, 16, 24]
    assert [s["proposed"] for s in plain] == [6, 6, 0]
    assert [s["proposed"] for s in none] == [0, 0, 0]
    targets = [r.target for r in Store(str(tmp_path / "plain/store")).round(0).plan() or []]
    assert sorted(targets[:6]) == [0, 0, 1, 1, 2, 2]


def test_an_arm_that_draws_nothing_never_loads_the_model(tmp_path):
    def refuse():
        raise AssertionError("loaded")

    run(tmp_path, ArmSettings("none"), model=refuse)


def test_held_out_images_are_merged_at_half_time(tmp_path):
    from activegen.loop.rounds import _Run

    parts = colours.parts(mining=MiningSettings(split="held_out", share=0.34))
    before = _Run(parts, "a", GUIDED, tmp_path, "recipe")
    assert len(before.real["main"]) == 12 and len(before.everything) == 18
    seen = {i for m in before.miners for i in m.unseen.ids}
    list(active_generation(parts, "a", GUIDED, tmp_path, "recipe"))
    store = Store(str(tmp_path / "store"))
    references = {r.reference for k in (0, 1) for r in store.round(k).plan() or [] if r.reference}
    assert references and references <= seen


def test_a_committee_of_bags_mines_what_it_did_not_see_and_goes_on_to_the_same_end(tmp_path):
    from activegen.loop.rounds import _Run

    bagging = {"mining": MiningSettings("bagging", folds=3)}
    parts = colours.parts(**bagging)
    whole = _Run(parts, "a", GUIDED, tmp_path / "whole", "recipe")
    pool = parts.task.gathered(parts.train)
    assert whole.learners.keys() == {"main", "bag-0", "bag-1", "bag-2"}
    for miner in whole.miners:
        bag = whole.real[miner.learner]
        assert torch.equal(bag.images, pool.images[miner.seen])
        assert torch.equal(bag.labels, pool.labels[miner.seen])
        assert torch.equal(bag.labels.bincount(), pool.labels.bincount())
        assert len(bag.images.unique(dim=0)) < len(bag)
    assert torch.equal(whole.real["main"].images, pool.images)
    assert torch.equal(whole.everything.images, pool.images)

    summaries = run(tmp_path / "whole", **bagging)
    assert [s["real"] for s in summaries] == [18, 18, 18]
    store = Store(str(tmp_path / "whole" / "store"))
    references = {r.reference for k in (0, 1) for r in store.round(k).plan() or [] if r.reference}
    assert references and references <= {id for m in whole.miners for id in m.unseen.ids}
    assert not references <= set(whole.miners[0].unseen.ids)
    weights = [
        (tmp_path / "whole" / "learners" / f"0001-bag-{k}.safetensors").read_bytes()
        for k in range(3)
    ]
    assert len(set(weights)) == 3

    stopped = active_generation(
        colours.parts(**bagging), "a", GUIDED, tmp_path / "stopped", "recipe"
    )
    next(stopped)
    stopped.close()
    assert unclocked(run(tmp_path / "stopped", **bagging)) == unclocked(summaries)
    _same(tmp_path / "stopped", tmp_path / "whole")


def test_a_member_that_judges_nothing_is_of_the_committee_all_the_same(tmp_path):
    from activegen.loop.rounds import _Run

    parts = colours.parts(mining=MiningSettings("bagging", folds=9))
    of = _Run(parts, "a", GUIDED, tmp_path, "recipe")
    assert 0 in [len(miner.unseen) for miner in of.miners]
    assert len(of._judged()) == sum(len(miner.unseen) for miner in of.miners)
    assert len(of._committee()) == 10


def test_without_real_images_the_learner_waits_and_then_makes_up_for_the_steps(tmp_path):
    settings = ArmSettings("guided", judge=False, real=False)
    summaries = run(tmp_path / "whole", settings)
    assert [s["step"] for s in summaries] == [0, 16, 24]
    assert [s["real"] for s in summaries] == [0, 0, 0]
    assert [s["proposed"] for s in summaries] == [6, 6, 0]
    store = Store(str(tmp_path / "whole" / "store"))
    requests = [r for k in store.rounds() for r in store.round(k).plan() or []]
    assert {r.reference for r in requests if r.steering != "plain"} <= set(
        colours.images(6, "train").ids
    )
    assert any(r.reference for r in requests)

    class Stop(Exception):
        pass

    class Stopping:
        def map(self, work, jobs):
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "stopped", settings, executor=Stopping())
    assert unclocked(run(tmp_path / "stopped", settings)) == unclocked(summaries)


def test_nothing_to_learn_from_is_said(tmp_path):
    from activegen.loop.proposing import ProposalSettings

    settings = ArmSettings("plain", judge=False, real=False)
    with pytest.raises(UserError, match="'a' has no real images, and no generated one"):
        run(tmp_path, settings, proposal=ProposalSettings(budget=0))


def test_an_arm_may_have_a_way_of_guidance_of_its_own(tmp_path):
    run(tmp_path, ArmSettings("guided", judge=False, way="adversarial"))
    store = Store(str(tmp_path / "store"))
    requests = [r for k in store.rounds() for r in store.round(k).plan() or []]
    assert {r.steering for r in requests} == {"plain", "adversarial"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"generate": "plain", "way": "guided"}, "generates plain has no way of guidance"),
        ({"generate": "none", "real": False}, "learns from generated ones alone"),
        ({"generate": "plain", "real": False, "more_real": 2}, "leave more_real at 0"),
        ({"more_real": -1}, "more_real is -1"),
    ],
)
def test_an_arm_of_nonsense_is_refused(settings, said):
    with pytest.raises(UserError, match=said):
        ArmSettings(**settings)


def test_an_arm_that_is_told_to_stop_only_trains(undisturbed, tmp_path):
    loop = LoopSettings(rounds=4, generate_until=0.75, batch=2)
    asked = []

    def go_on(past):
        asked.append(len(past))
        return len(past) < 1

    def goes_on(folder, **changes):
        parts = colours.parts(loop=loop, **changes)
        return list(active_generation(parts, "a", GUIDED, folder, "recipe", go_on))

    summaries = goes_on(tmp_path / "whole")
    assert [s["accepted"] > 0 for s in summaries] == [True, False, False, False]
    assert [s.get("stopped", False) for s in summaries] == [False, True, True, False]
    assert [s["step"] for s in summaries] == [6, 12, 18, 24]
    assert asked == [0, 1]
    assert goes_on(tmp_path / "whole") == summaries and asked == [0, 1]


def test_offline_rounds_start_again(tmp_path):
    loop = LoopSettings(rounds=2, generate_until=0.5, restart=True, batch=2)
    assert [s["step"] for s in run(tmp_path, loop=loop)] == [24, 24]
    first, second = (
        (tmp_path / "learners" / f"000{k}-main.safetensors").read_bytes() for k in (0, 1)
    )
    assert first != second  # the second learnt from generated images too, and for all steps


def test_another_recipe_is_refused(undisturbed):
    folder, _ = undisturbed
    with pytest.raises(UserError, match="recipe"):
        list(active_generation(colours.parts(), "a", GUIDED, folder, "other"))


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import colours
from pathlib import Path
from activegen.loop.rounds import active_generation
from activegen.loop.settings import ArmSettings
import activegen.loop.learning as learning
learning.SAVE_SECONDS = 0.05
print("begins", flush=True)
for summary in active_generation(
    colours.parts(), "a", ArmSettings("guided", judge=True), Path({folder!r}), "recipe"
):
    print("round", flush=True)
"""


@pytest.mark.slow
def test_killed_at_random_moments_and_started_again(undisturbed, tmp_path):
    """SIGKILL at 20 or more random moments, each in a run that had begun to write."""
    import random
    import time

    folder, summaries = undisturbed
    script = KILLED.format(tests=str(Path(__file__).parents[1]), folder=str(tmp_path / "run"))
    environment = os.environ | {"OMP_NUM_THREADS": str(1)}
    rng, kills, finished = random.Random(0), 0, 0
    target = tmp_path / "run"
    while kills < 20:
        with subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None and process.stdout.readline() == "begins\n"
            time.sleep(rng.uniform(0, 1.2))
            if process.poll() is None:
                process.kill()
                kills += 1
                continue
        assert process.returncode == 0
        _same(target, folder)
        finished += 1
        target.rename(tmp_path / f"finished-{finished}")
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    _same(target, folder)
    stored = Store(str(tmp_path / "run" / "store"))
    ended = [stored.round(k).summary() for k in stored.rounds()]
    assert unclocked([s for s in ended if s]) == json.loads(json.dumps(unclocked(summaries)))


def _same(ours: Path, theirs: Path) -> None:
    mine, other = Store(str(ours / "store")), Store(str(theirs / "store"))
    assert mine.fingerprints() == other.fingerprints()
