"""What a run tells while it works."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from activegen.loop.executor import Executor
from activegen.tasks.co_training import CoLearner
from activegen.tasks.learner import Learner, TrainSettings
from activegen.tasks.pool import Pool
from activegen.tasks.task_network import TaskNetwork

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Event:
    """Something was done.

    Args:
        phase: "read", "judge", "train" (optimiser steps), "generate" (images) or "round".
        done: how much of it.
        total: how much there is; of rounds, in the arm.
        arm: whose; "" before the first.
        summary: of a round that ended, as ``active_generation`` yields it.
    """

    phase: str
    done: int
    total: int
    arm: str = ""
    summary: dict[str, Any] = field(default_factory=dict)


Observer = Callable[[Event], None]


def silent(event: Event) -> None:
    """Tells nobody."""


class WatchedLearner(Learner):
    """A learner that tells of each step."""

    def __init__(
        self,
        model: TaskNetwork,
        settings: TrainSettings,
        device: Any,
        tell: Callable[[int, int], None],
        **more: Any,
    ):
        super().__init__(model, settings, device, **more)
        self._tell = tell

    def train(
        self,
        pool: Pool,
        until_step: int,
        on_step: Callable[[int, float], None] | None = None,
    ) -> dict[str, float]:
        """As a learner does."""
        start = self.step

        def told(step: int, loss: float) -> None:
            self._tell(step - start, until_step - start)
            if on_step is not None:
                on_step(step, loss)

        return super().train(pool, until_step, told)


class WatchedCoLearner(WatchedLearner, CoLearner):
    """Two that teach one another, and tell of each step."""


@dataclass(frozen=True)
class WatchedExecutor:
    """An executor that tells of each job.

    Args:
        inner: does the work.
        tell: is told images done and in all.
    """

    inner: Executor
    tell: Callable[[int, int], None]

    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """``work`` of each (number, requests), begun when the executor begins it."""
        jobs = list(jobs)
        counts = [len(job[1]) for job in jobs]  # pyright: ignore[reportIndexIssue]
        return self._told(counts, self.inner.map(work, jobs))

    def _told(self, counts: Sequence[int], results: Iterator[Result]) -> Iterator[Result]:
        done = 0
        for count, result in zip(counts, results, strict=True):
            done += count
            if count:
                self.tell(done, sum(counts))
            yield result
