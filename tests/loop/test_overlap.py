"""Drawing while the next round trains: one round of staleness, and the same end however it went."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import colours
from activegen.loop.executor import ProcessExecutor
from activegen.loop.rounds import active_generation
from activegen.loop.settings import ArmSettings, LoopSettings
from activegen.records import UserError
from activegen.store import Store, from_png
from activegen.tasks.learner import Learner
from activegen.tasks.pool import Pool
from late import parts
from toy import unclocked

GUIDED = ArmSettings("guided", judge=True)


class Stop(Exception):
    pass


class Eager:
    """Draws when it is asked, as another process that is never late."""

    def map(self, work, jobs):
        return iter([work(job) for job in jobs])


def run(folder: Path, **changes: Any) -> list[dict]:
    return list(active_generation(parts(**changes), "a", GUIDED, folder, "recipe"))


def same(ours: Path, theirs: Path) -> bool:
    mine, other = Store(str(ours / "store")), Store(str(theirs / "store"))
    return mine.fingerprints() == other.fingerprints() != {}


def watched(train: Callable[[Pool, int], None]) -> Callable[[], Learner]:
    """Makes learners that tell what they are trained on."""

    def made() -> Learner:
        learner = colours.learner()
        inner = learner.train

        def told(pool, until, on_step=None):
            train(pool, until)
            return inner(pool, until, on_step)

        learner.train = told
        return learner

    return made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, list[dict], dict[int, set[str]]]:
    """A run, and the synthetic images of each round's training, by the step that it ends with."""
    folder, seen = tmp_path_factory.mktemp("run"), {}

    def note(pool: Pool, until: int) -> None:
        seen[until] = {_print(image) for image in pool.images[pool.synthetic]}

    return folder, run(folder, learner=watched(note)), seen


def _print(image: torch.Tensor) -> str:
    return hashlib.sha256(image.numpy().tobytes()).hexdigest()


def test_images_are_trained_on_exactly_one_round_later(undisturbed):
    folder, summaries, seen = undisturbed
    assert [s["step"] for s in summaries] == [6, 12, 18, 24]
    accepted = [s["accepted"] for s in summaries]
    assert min(accepted[:2]) > 0 and accepted[2:] == [0, 0]
    assert {s["staleness"] for s in summaries} == {1}
    store = Store(str(folder / "store"))
    for number, step in enumerate([6, 12, 18, 24]):
        asked = [sample for sample, _ in store.accepted(before_round=number - 1)]
        assert seen[step] == {_print(from_png(sample.image)) for sample in asked}
    assert [len(seen[step]) for step in (6, 12, 18, 24)] == [0, 0, accepted[0], sum(accepted)]


def test_a_stopped_arm_that_was_killed_stays_stopped(tmp_path):
    once = [True]

    def go_on(past: list) -> bool:
        return not (len(past) >= 1 and once and once.pop())

    loop = LoopSettings(rounds=8, generate_until=0.75, batch=2, overlap=True)

    def goes_on() -> Iterator[dict]:
        made = parts(loop=loop)
        return active_generation(made, "a", GUIDED, tmp_path, "recipe", go_on)

    first = []
    for summary in goes_on():
        first.append(summary)
        if summary.get("stopped"):
            break  # killed while the next round is under way
    summaries = list(goes_on())
    assert not once and summaries[: len(first)] == first
    stopped = [s.get("stopped", False) for s in summaries]
    assert stopped[:6] == [False] * 2 + [True] * 4 and not any(stopped[6:])


def test_seconds_of_waiting_are_told(undisturbed):
    _, summaries, _ = undisturbed
    assert [("wait" in s["seconds"], "generate" in s["seconds"]) for s in summaries] == [
        (True, False),
        (True, False),
        (False, False),
        (False, False),
    ]


def test_it_does_not_matter_which_work_was_done_first(undisturbed, tmp_path):
    folder, summaries, _ = undisturbed
    assert unclocked(run(tmp_path, executor=Eager())) == unclocked(summaries)
    assert same(tmp_path, folder)


def test_another_process_draws_the_same_images_bit_for_bit(undisturbed, tmp_path):
    folder, summaries, _ = undisturbed
    with ProcessExecutor(1, threads=torch.get_num_threads()) as executor:
        assert unclocked(run(tmp_path, executor=executor, source=parts)) == unclocked(summaries)
    mine, other = Store(str(tmp_path / "store")), Store(str(folder / "store"))
    for k in (0, 1):
        assert list(mine.round(k).samples()) == list(other.round(k).samples()) != []
        assert mine.round(k).verdicts() == other.round(k).verdicts()


@pytest.mark.parametrize(
    ("what", "after", "eager"),
    [
        ("train", 4, True),  # in round 1: round 0 is drawn
        ("judge", 3, False),
        *(pytest.param("train", n, n % 2 == 0, marks=pytest.mark.slow) for n in (3, 5, 6, 7, 8)),
        *(pytest.param("draw", n, n % 2 == 1, marks=pytest.mark.slow) for n in (1, 2, 3, 4)),
        *(pytest.param("judge", n, n % 2 == 1, marks=pytest.mark.slow) for n in (1, 2, 4)),
    ],
)
def test_a_run_that_stops_anywhere_goes_on_to_the_same_end(
    undisturbed, tmp_path, what, after, eager
):
    folder, summaries, _ = undisturbed
    left = {what: after}

    def count(of: str) -> None:
        left[of] = left.get(of, -1) - 1
        if left[of] == 0:
            raise Stop

    class Stopping:
        def map(self, work, jobs):
            def told(job):
                count("draw")
                return work(job)

            return Eager().map(told, jobs) if eager else map(told, jobs)

    def judge(settings: ArmSettings):
        made = parts().judge(settings)
        inner = made.verdicts

        def told(*of):
            count("judge")
            return inner(*of)

        made.verdicts = told
        return made

    stopping = {"executor": Stopping(), "judge": judge}
    stopping["learner"] = watched(lambda pool, until: count("train"))
    with pytest.raises(Stop):
        run(tmp_path, **stopping)
    assert unclocked(run(tmp_path)) == unclocked(summaries)
    assert same(tmp_path, folder)


def test_learners_that_a_round_was_not_planned_with_do_not_draw_for_it(tmp_path):
    class Never:
        def map(self, work, jobs):
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path, executor=Never())
    other = colours.learner()
    other.step = 6
    other.save(tmp_path / "learners" / "0000-main.safetensors")
    with pytest.raises(UserError, match="not those that round 0 was planned with"):
        run(tmp_path)


def test_what_is_needed_for_sure_is_asked_for_at_once_and_spares_one_by_one(tmp_path):
    asked: list[int] = []

    class Counting:
        def map(self, work, jobs):
            jobs = list(jobs)
            asked.append(len(jobs))
            return map(work, jobs)

    loop = LoopSettings(rounds=2, generate_until=0.5, batch=1)
    run(tmp_path, executor=Counting(), loop=loop)
    spares = len(Store(str(tmp_path / "store")).round(0).shards()) - 3
    assert spares > 0 and asked == [3] + [1] * spares


def test_images_that_would_come_too_late_are_refused():
    assert LoopSettings(rounds=6, generate_until=0.5, overlap=True).generating == 3
    assert LoopSettings(rounds=1, overlap=True).generating == 0
    with pytest.raises(UserError, match=r"last of 2 rounds.*too late for 3 rounds"):
        LoopSettings(rounds=3, generate_until=0.5, overlap=True)
    with pytest.raises(UserError, match="workers is -1"):
        LoopSettings(workers=-1)
    with pytest.raises(UserError, match=r"loop\.micro_batch"):
        LoopSettings(micro_batch=-1)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import torch
from pathlib import Path
from activegen.loop.executor import ProcessExecutor
from activegen.loop.rounds import active_generation
from activegen.loop.settings import ArmSettings
import activegen.loop.learning as learning
from late import parts
from toy import unclocked
learning.SAVE_SECONDS = 0.05
torch.set_num_threads(1)
with ProcessExecutor(1) as executor:
    made = parts(executor=executor, source=parts)
    print("begins", flush=True)
    folder, arm = Path({folder!r}), ArmSettings("guided", judge=True)
    for summary in active_generation(made, "a", arm, folder, "recipe"):
        pass
"""


@pytest.mark.slow
def test_killed_at_random_moments_and_started_again(undisturbed, tmp_path):
    """SIGKILL of the process that trains; the one that draws ends with it."""
    import random
    import time

    folder, summaries, _ = undisturbed
    script = KILLED.format(tests=str(Path(__file__).parents[1]), folder=str(tmp_path / "run"))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command, rng = [sys.executable, "-c", script], random.Random(0)
    for _ in range(8):
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None and process.stdout.readline() == "begins\n"
            time.sleep(rng.uniform(0, 20))
            process.kill()
        time.sleep(1.5)
    subprocess.run(command, env=environment, check=True)
    assert same(tmp_path / "run", folder)
    stored = Store(str(tmp_path / "run" / "store"))
    ended = [stored.round(k).summary() for k in stored.rounds()]
    assert unclocked([s for s in ended if s]) == unclocked(summaries)
