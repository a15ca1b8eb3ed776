"""Work in other processes: in order, with its errors, and without orphans."""

import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from activegen.loop.executor import Executor, LocalExecutor, ProcessExecutor, WorkerError
from activegen.records import UserError, choose


@pytest.fixture(scope="module")
def executor() -> Iterator[ProcessExecutor]:
    made = ProcessExecutor(1, threads=1)
    yield made
    made.close()


def test_results_come_in_the_order_of_the_jobs_and_are_not_computed_here(executor):
    assert isinstance(executor, Executor)
    assert list(executor.map(operator.neg, range(20))) == [-k for k in range(20)]
    pids = set(executor.map(eval, ["__import__('os').getpid()"] * 3))
    assert len(pids) == 1 and os.getpid() not in pids
    assert list(executor.map(eval, ["__import__('torch').get_num_threads()"])) == [1]
    (doubled,) = executor.map(partial(operator.mul, 2), [torch.ones(3)])
    assert doubled.tolist() == [2, 2, 2]


def test_jobs_begin_when_they_are_asked_for_not_when_results_are(executor, tmp_path):
    results = executor.map(os.mkdir, [tmp_path / "made"])
    end = time.monotonic() + 30
    while not (tmp_path / "made").exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert (tmp_path / "made").exists()
    assert list(results) == [None]
    assert list(LocalExecutor().map(operator.neg, [1])) == [-1]


def test_errors_come_back_with_the_workers_traceback_and_the_worker_goes_on(executor):
    answers = executor.map(operator.index, [1, "one", 2])
    assert next(answers) == 1
    with pytest.raises(
        WorkerError, match=r"TypeError(.|\n)*in the worker:\nTraceback(.|\n)*_serve"
    ):
        next(answers)
    asked = executor.map(partial(choose, {"entropy": 1}, kind="score"), ["enthropy"])
    with pytest.raises(UserError, match=r"unknown score.*Did you mean 'entropy'") as found:
        next(asked)
    assert isinstance(found.value.__cause__, WorkerError)
    assert list(executor.map(operator.neg, [1])) == [-1]


def test_a_killed_worker_is_told_and_no_job_waits_for_ever(executor):
    answers = executor.map(signal.raise_signal, [signal.SIGKILL, 0])
    others = executor.map(operator.neg, [1])
    for results in (answers, others):
        with pytest.raises(UserError, match=r"ended from outside.*the same command goes on"):
            next(results)
    executor.close()


def test_threads_are_shared():
    ours = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        made = ProcessExecutor(2)
        with made:
            assert (made.threads, torch.get_num_threads()) == (1, 2)
        assert torch.get_num_threads() == 4
        torch.set_num_threads(1)
        with ProcessExecutor(2) as made:
            assert (made.threads, torch.get_num_threads()) == (1, 1)
    finally:
        torch.set_num_threads(ours)


ORPHAN = """
import time
from activegen.loop.executor import ProcessExecutor
executor = ProcessExecutor(1, threads=1)
print(next(executor.map(eval, ["__import__('os').getpid()"])), flush=True)
executor.map(time.sleep, [100])
time.sleep(100)
"""


@pytest.mark.slow
def test_a_worker_ends_with_its_killed_parent_in_the_middle_of_a_job():
    script = [sys.executable, "-c", ORPHAN]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        time.sleep(0.5)
        os.kill(worker, 0)
        process.kill()
    end = time.monotonic() + 20
    while _alive(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(worker)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False
