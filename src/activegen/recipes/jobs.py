"""Arms of a comparison in processes of their own, on several devices at the same time.

Nothing but time depends on it: each process leaves finished arms in the folder.
"""

import multiprocessing
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty
from typing import Any

import torch

from activegen.recipes import generator
from activegen.recipes.progress import Event, Observer
from activegen.records import UserError

WAIT = 0.2  # seconds between two looks at what the processes tell


@dataclass(frozen=True)
class Job:
    """One arm with one seed.

    Args:
        recipe: of the comparison, as plain values.
        folder: of the comparison.
        seed, arm: which.
        against: the arm that the stop rule compares it with; None goes on without the rule.
        together: arms that share a device at the same time.
    """

    recipe: Mapping[str, Any]
    folder: Path
    seed: int
    arm: str
    against: str | None = None
    together: int = 1


Work = Callable[[Job, str, Observer], None]  # a job, its device, who is told
_mine: dict[str, Any] = {}  # of a process: its device, where it tells


def check_devices(names: Sequence[str]) -> None:
    """Nothing, if this machine has all of them.

    Raises:
        UserError: it has not.
    """
    for name in dict.fromkeys(names):
        if not re.fullmatch(r"cuda(:\d+)?", name):
            generator.device(name, "--devices")
            continue
        there = torch.cuda.device_count()  # without waking them up: others will use them
        if int(name.partition(":")[2] or 0) >= there:
            has = ", ".join(f"cuda:{k}" for k in range(there)) or "none of CUDA"
            raise UserError(f"--devices names '{name}', but this machine has {has}")


def in_parallel(
    jobs: Sequence[Job],
    devices: Sequence[str],
    work: Work,
    observer: Observer,
    over: Callable[[], bool],
) -> None:
    """Carries out all jobs, in their order, one at a time on each device.

    Args:
        jobs: that do not need one another.
        devices: one process for each; a name may be there several times.
        work: carries out one, a function that processes can import.
        observer: is told of rounds.
        over: whether no more job shall begin.

    Raises:
        UserError: as ``work`` does, or a process died; what was begun elsewhere is finished first.
    """
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        free, told = manager.Queue(), manager.Queue()
        for device in devices:
            free.put(device)
        threads = max((os.cpu_count() or 1) // len(devices), 1)
        with ProcessPoolExecutor(
            len(devices), mp_context=context, initializer=_begin, initargs=(free, told, threads)
        ) as pool:
            left, running = list(jobs), set[Future[None]]()
            while running or (left and not over()):
                while left and len(running) < len(devices) and not over():
                    running.add(pool.submit(_do, work, left.pop(0)))
                done, running = wait(running, WAIT, FIRST_COMPLETED)
                with suppress(Empty):
                    while True:
                        observer(told.get_nowait())
                try:
                    for each in done:
                        each.result()
                except BrokenProcessPool as error:
                    raise UserError(
                        "a process ended before its arm did (is there memory for as many?); the "
                        "same command goes on, with fewer --jobs or --devices if need be"
                    ) from error


def _begin(free: Any, told: Any, threads: int) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    device = free.get()
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)  # for what names no device
    _mine.update(device=device, told=told)


def _do(work: Work, job: Job) -> None:
    def tell(event: Event) -> None:
        if event.phase == "round":
            _mine["told"].put(replace(event, arm=f"seed {job.seed} {event.arm}"))

    try:
        work(job, _mine["device"], tell)
    except UserError as error:  # of one class, that every process can read
        raise UserError(str(error)) from None
