"""The images of a round: drawn where the executor draws, kept as they come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from activegen.loop.executor import Executor
from activegen.loop.generating import Job
from activegen.loop.metered import Metered
from activegen.loop.metering import STORE, Cost
from activegen.records import Sample
from activegen.store import RoundStore

Made = tuple[int, list[Sample], Cost]  # the number of a job, its samples, and what they cost


class Drawing:
    """The samples of a plan, those that are surely needed asked for at once.

    Args:
        executor: carries it out.
        work: of a job, which stores what it makes; found when there is a job.
        stored: what was drawn before.
        jobs: all of the plan.
        needed: requests that are judged whatever comes of them; jobs behind them may replace what
            is rejected, and are drawn one by one.
    """

    def __init__(
        self,
        executor: Executor,
        work: Callable[[], Callable[[Job], Made]],
        stored: RoundStore,
        jobs: Sequence[Job],
        needed: int,
    ):
        self._executor, self._find, self._present = executor, work, stored.shards()
        self._known = {sample.request.id: sample for sample in stored.samples()}
        begins = np.cumsum([0, *(len(requests) for _, requests in jobs)]).tolist()
        sure = [job for job, begin in zip(jobs, begins, strict=False) if begin < needed]
        missing = [job for job in sure if job[0] not in self._present]
        self._sure = {number for number, _ in missing}
        self._made = executor.map(self._work, missing) if missing else iter(())

    @cached_property
    def _work(self) -> Callable[[Job], Made]:
        return self._find()

    def of(self, job: Job) -> tuple[list[Sample], Cost]:
        """Of a job, and what it cost elsewhere; to be asked in the order of the plan."""
        number, requests = job
        if number in self._present:
            return [self._known[r.id] for r in requests if r.id in self._known], Cost()
        if number in self._sure:
            return next(self._made)[1:]
        return next(self._executor.map(self._work, [job]))[1:]


@dataclass(frozen=True)
class Storing:
    """Draws a batch and keeps it at once, so that a killed run loses no more than one."""

    draw: Metered
    stored: RoundStore

    def __call__(self, job: Job) -> Made:
        """Draws a batch."""
        number, samples = self.draw(job)
        with self.draw.meter.at(STORE):
            self.stored.write_shard(number, samples)
        return number, samples, self.draw.cost()
