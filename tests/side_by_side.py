"""What processes do in tests, where they can import it."""

import os
import time

from activegen.recipes.jobs import Job
from activegen.recipes.progress import Event, Observer
from activegen.records import UnknownWord


def note(job: Job, device: str, observer: Observer) -> None:
    """Waits until both devices are at work, so that they must be."""
    (job.folder / f"{job.arm}-{device}").write_text(str(os.getpid()))
    until = time.monotonic() + 300
    while len({file.read_text() for file in job.folder.iterdir()}) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    observer(Event("train", 1, 1, job.arm))
    observer(Event("round", 1, 2, job.arm))


def fail(job: Job, device: str, observer: Observer) -> None:
    if job.arm == "dies":
        os._exit(1)
    raise UnknownWord("arm", job.arm, ["a"])
