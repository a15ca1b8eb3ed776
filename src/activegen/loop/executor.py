"""Where batches are drawn: one ``map``, carried out here or in other processes."""

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch

from activegen.records import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")
Answer = Future[bytes]


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


class WorkerError(RuntimeError):
    """Work failed in a worker; the message ends with the worker's traceback."""


class ProcessExecutor:
    """Jobs in processes of their own, which begin as soon as :meth:`map` is called.

    Processes start with the first job and live until :meth:`close`; they end by themselves when
    this process does, however it ends. Work, jobs and results are pickled by value, and each
    process keeps the work as long as it stays the same. A script that starts them needs
    ``if __name__ == "__main__":`` around what it does.

    ```
    with ProcessExecutor() as executor:
        for result in executor.map(work, jobs):
    ```

    Args:
        workers: how many processes.
        threads: that torch computes with in each; None divides this process's evenly among all,
            and inside of ``with`` this one keeps the rest.
    """

    def __init__(self, workers: int = 1, threads: int | None = None):
        self.workers, self._ours = workers, torch.get_num_threads()
        self.threads = max(1, self._ours // (workers + 1)) if threads is None else threads
        self._left = self._ours if threads else max(1, self._ours - workers * self.threads)
        self._waiting: queue.SimpleQueue[tuple[Answer, bytes, bytes] | None] = queue.SimpleQueue()
        self._started: list[_Worker] = []

    def map(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """``work`` of each job, all of which are asked for at once.

        Raises:
            UserError: a job raised one, or a process was killed; when its result is asked for.
            WorkerError: a job raised anything else.
        """
        if not self._started:
            self._started = [_Worker(self.threads, self._waiting) for _ in range(self.workers)]
        sent, answers = pickle.dumps(work), deque[Answer]()
        for job in jobs:
            answers.append(Future())
            self._waiting.put((answers[-1], sent, pickle.dumps(job)))

        def results() -> Iterator[Result]:
            while answers:
                yield _result(answers.popleft())

        return results()

    def close(self) -> None:
        """Ends the processes, whatever they are doing; another ``map`` starts new ones."""
        started, self._started = self._started, []
        for worker in started:
            worker.kill()
        for _ in started:
            self._waiting.put(None)
        for worker in started:
            worker.join()
        self._waiting = queue.SimpleQueue()

    def __enter__(self) -> "ProcessExecutor":
        torch.set_num_threads(self._left)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        torch.set_num_threads(self._ours)


class _Worker:
    """A process, and the thread of this one that gives it jobs."""

    def __init__(
        self, threads: int, waiting: "queue.SimpleQueue[tuple[Answer, bytes, bytes] | None]"
    ):
        context = multiprocessing.get_context("spawn")  # a forked one could not use a GPU
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, threads), daemon=True)
        self._process.start()
        theirs.close()  # so that we read the end of the file when the process dies
        self._known = b""
        self._feeding = threading.Thread(target=self._feed, args=(waiting,), daemon=True)
        self._feeding.start()

    def _feed(self, waiting: "queue.SimpleQueue[tuple[Answer, bytes, bytes] | None]") -> None:
        while (item := waiting.get()) is not None:
            answer, work, job = item
            try:
                answer.set_result(self._asked(work, job))
            except (EOFError, OSError) as gone:
                answer.set_exception(gone)

    def _asked(self, work: bytes, job: bytes) -> bytes:
        new = work != self._known
        self._pipe.send_bytes(pickle.dumps((work if new else None, job)))
        self._known = work
        return self._pipe.recv_bytes()

    def kill(self) -> None:
        self._process.kill()

    def join(self) -> None:
        self._process.join()
        self._feeding.join()
        self._pipe.close()


class _Failed(NamedTuple):
    """What a job raised."""

    error: str
    traceback: str
    of_user: bool


def _result(answer: Answer):
    try:
        done = pickle.loads(answer.result())
    except (EOFError, OSError) as gone:
        raise UserError(
            "a process that draws was ended from outside, maybe for lack of memory; what was done "
            "is kept: the same command goes on. A script of your own that starts a run needs "
            "'if __name__ == \"__main__\":' around it"
        ) from gone
    if not isinstance(done, _Failed):
        return done
    told = WorkerError(f"{done.error}\n\nin the worker:\n{done.traceback}")
    if done.of_user:
        raise UserError(done.error) from told
    raise told


def _serve(pipe: Connection, threads: int) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # our parent hears it too, and ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    work: Callable[[object], object] | bytes | None = None
    with contextlib.suppress(EOFError, OSError):
        while True:
            new, job = pickle.loads(pipe.recv_bytes())
            work = work if new is None else new
            try:
                if isinstance(work, bytes):
                    work = pickle.loads(work)
                answer = pickle.dumps(work(pickle.loads(job)))  # pyright: ignore[reportCallIssue, reportOptionalCall]
            except Exception as error:
                what = str(error) if isinstance(error, UserError) else repr(error)
                of_user = isinstance(error, UserError)
                answer = pickle.dumps(_Failed(what, traceback.format_exc(), of_user))
            pipe.send_bytes(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive() and os.getppid() == parent.pid:
        parent.join(1.0)
    os._exit(1)
