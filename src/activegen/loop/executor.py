"""Where batches are drawn: one ``map``, carried out here or elsewhere."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

Job = TypeVar("Job")
Result = TypeVar("Result")


@runtime_checkable
class Executor(Protocol):
    """Carries out jobs; results come in the order of the jobs."""

    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """``work`` of each job."""
        ...


class LocalExecutor:
    """One after the other, in this process, each when its result is asked for."""

    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """``work`` of each job.

        >>> list(LocalExecutor().map(str, [1, 2]))
        ['1', '2']
        """
        return map(work, jobs)
