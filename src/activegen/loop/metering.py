"""Where the seconds of a round go, and what share of the device's FLOPs they were good for.

Time is one line, cut wherever something begins or ends: each piece belongs to the innermost place
it is in, so the pieces add up to the whole. On CUDA the cuts are events in the stream, and nobody
waits for them before everything has been awaited anyway.
"""

import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from activegen.loop.flops import Flops

START, TRAIN, EVALUATE, MINE, JUDGE = "start", "train", "evaluate", "mine", "judge"
CONDITION, DENOISE, BACKWARD, DECODE = "condition", "denoise", "backward", "decode"
PREDICT, DRAW, STORE, WAIT = "predict", "draw", "store", "wait"
MEASURE, REST = "measure", "rest"

PLACES: Mapping[str, str] = {
    TRAIN: "training of learners",
    EVALUATE: "evaluation",
    MINE: "mining and plan",
    DENOISE: "denoiser",
    BACKWARD: "backward of guidance",
    DECODE: "decoder",
    PREDICT: "task models, scores",
    CONDITION: "texts, references",
    DRAW: "rest of drawing",
    JUDGE: "judge",
    STORE: "store",
    WAIT: "waiting",
    START: "start",
    MEASURE: "this measurement",
    REST: "rest",
}
"""What the places are called."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "drawing": (DENOISE, BACKWARD, DECODE, PREDICT, CONDITION, DRAW, STORE, WAIT),
    "training": (TRAIN,),
}
"""Places whose FLOPs are counted, and what else takes time there."""


@dataclass(frozen=True)
class Cost:
    """What something cost, in one process or in several beside each other.

    Args:
        seconds: by place, names in `PLACES`; those of all processes.
        flops: of the models, by place.
        possible: FLOPs that the device could have done in the seconds of a place, where known.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    flops: Mapping[str, float] = field(default_factory=dict)
    possible: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, rounds: Iterable[Mapping[str, Any]]) -> "Cost":
        """The sum over the summaries of rounds; each was measured by who finished it."""
        total = cls()
        for summary in rounds:
            total = total.plus(cls(**summary.get("cost", {})))
        return total

    def plus(self, other: "Cost") -> "Cost":
        """Both."""
        return Cost(
            _sum(self.seconds, other.seconds),
            _sum(self.flops, other.flops),
            _sum(self.possible, other.possible),
        )

    def plain(self) -> dict[str, dict[str, float]]:
        """For JSON; milliseconds are the smallest."""
        return {
            "seconds": {place: round(of, 3) for place, of in self.seconds.items()},
            "flops": dict(self.flops),
            "possible": {place: float(f"{of:.4g}") for place, of in self.possible.items()},
        }

    def told(self) -> dict[str, Any]:
        """The same with what follows from it."""
        return self.plain() | {"total": round(self.total, 3), "mfu": self.mfu}

    @cached_property
    def total(self) -> float:
        """Seconds."""
        return sum(self.seconds.values())

    def share(self, place: str) -> float:
        """Of the seconds, 0 to 1."""
        return self.seconds.get(place, 0.0) / self.total if self.total else 0.0

    def utilisation(self, *places: str) -> float | None:
        """Model FLOPs utilisation of some places together; None where no FLOPs were counted.

            FLOPs / (seconds * peak)

        Chowdhery et al. (2022), PaLM, https://arxiv.org/abs/2204.02311, appendix B. Differs in the
        peak, which is measured, see `activegen.loop.flops.peak`.
        """
        done = sum(self.flops.get(place, 0) for place in places)
        possible = sum(self.possible.get(place, 0.0) for place in places)
        return done / possible if done and possible else None

    @property
    def mfu(self) -> dict[str, float | None]:
        """The same by the names of `KINDS`."""
        return {kind: self.utilisation(*places) for kind, places in KINDS.items()}


def _sum(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """In the order of `PLACES`."""
    return {k: one.get(k, 0) + other.get(k, 0) for k in PLACES if k in one or k in other}


def reset_peak_memory(devices: Iterable[torch.device]) -> None:
    """Lets `peak_memory` count from now on; of a process only where the system can (Linux)."""
    gpus = _gpus(devices)
    for gpu in gpus:
        torch.cuda.reset_peak_memory_stats(gpu)
    if not gpus:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # see proc_pid_clear_refs(5)


def peak_memory(devices: Iterable[torch.device]) -> int | None:
    """Bytes since the last reset: of tensors on the fullest GPU among them, else of this process.

    None where the system does not tell.
    """
    if gpus := _gpus(devices):
        return max(int(torch.cuda.max_memory_allocated(gpu)) for gpu in gpus)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _gpus(devices: Iterable[torch.device]) -> set[torch.device]:
    return {device for device in devices if device.type == "cuda"}


@runtime_checkable
class Clock(Protocol):
    """Takes moments."""

    def now(self) -> Any:
        """This moment."""
        ...

    def seconds(self, earlier: Any, later: Any) -> float:
        """Between two moments that have passed."""
        ...

    def until(self, moment: Any) -> None:
        """Waits for it."""
        ...


class WallClock:
    """Time as it passes here; right where a call returns when its work is done."""

    def now(self) -> float:
        """In seconds."""
        return time.perf_counter()

    def seconds(self, earlier: float, later: float) -> float:
        """Between them."""
        return later - earlier

    def until(self, moment: float) -> None:
        """It has passed."""


class StreamClock:
    """Time as it passes in a GPU's stream, where work may go on when its call has returned."""

    def __init__(self, device: torch.device):
        self._device = device

    def now(self) -> torch.cuda.Event:
        """When all that was asked for so far will have been done."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds(self, earlier: torch.cuda.Event, later: torch.cuda.Event) -> float:
        """Between them."""
        return earlier.elapsed_time(later) / 1000

    def until(self, moment: torch.cuda.Event) -> None:
        """Waits for it."""
        moment.synchronize()


class Meter:
    """Adds up seconds and FLOPs by place, from when it is made.

    One that is sent to another process is another one there: what is spent there is waiting here.

    Args:
        device: whose time it is.
        outside: the place where one is in no other; None does not count such time.
        clock: by default the device's.
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        outside: str | None = REST,
        clock: Clock | None = None,
    ):
        self.device = torch.device(device)
        self.away = False
        cuda = self.device.type == "cuda"
        self._clock: Clock = clock or (StreamClock(self.device) if cuda else WallClock())
        self._inside: list[str | None] = [outside]
        self._moments: list[tuple[Any, str | None]] = [(self._clock.now(), outside)]
        self._seconds: dict[str, float] = {}
        self._flops: dict[str, float] = {}
        self._known: dict[tuple[str, Hashable], Flops] = {}
        self._owed = 0

    def __reduce__(self) -> Any:
        return Meter.elsewhere, (self.device,)

    @classmethod
    def elsewhere(cls, device: torch.device | str) -> "Meter":
        """In a process that works for another one, in which time between jobs does not count."""
        meter = cls(device, outside=None)
        meter.away = True
        return meter

    @contextmanager
    def at(self, place: str, then: str | None = None) -> Iterator[None]:
        """In this place while the context lasts.

        Args:
            place: its name.
            then: where one is after it, until anything else begins or ends; None is where one was
                before.
        """
        self._inside.append(place)
        self._moments.append((self._clock.now(), place))
        try:
            yield
        finally:
            self._inside.pop()
            self._moments.append((self._clock.now(), then or self._inside[-1]))

    def spent(self, place: str, seconds: float) -> None:
        """Seconds that were measured otherwise."""
        self._seconds[place] = self._seconds.get(place, 0.0) + seconds

    def count(self, place: str, kind: Hashable, images: int, measure: Callable[[], Flops]) -> None:
        """FLOPs of a call.

        Args:
            place: that they belong to.
            kind: all that the FLOPs of an image depend on; each is measured once.
            images: in the call.
            measure: of one image.
        """
        key = (place, kind)
        if key not in self._known:
            with self.at(MEASURE):
                self._known[key] = measure()
        self._flops[place] = self._flops.get(place, 0) + images * self._known[key].forward
        self._owed += images * self._known[key].backward

    def forget_graph(self) -> None:
        """A new graph begins: the backward of the last one was never taken."""
        self._owed = 0

    def count_backward(self) -> None:
        """The gradient of all calls of this graph is taken."""
        if self._owed:
            self._flops[BACKWARD] = self._flops.get(BACKWARD, 0) + self._owed
        self._owed = 0

    def settle(self) -> None:
        """Sums up the past; costs nothing where all work has been awaited."""
        self._clock.until(self._moments[-1][0])
        for (earlier, place), (later, _) in zip(self._moments, self._moments[1:], strict=False):
            if place:
                self.spent(place, self._clock.seconds(earlier, later))
        del self._moments[:-1]

    def take(self, peaks: Mapping[str, float]) -> Cost:
        """All since the last time.

        Args:
            peaks: FLOPs a second that the device can do at best, by the names in `KINDS`.
        """
        self._moments.append((self._clock.now(), self._inside[-1]))
        self.settle()
        possible = {
            place: peak * self._seconds[place]
            for kind, peak in peaks.items()
            for place in KINDS[kind]
            if place in self._seconds
        }
        made = Cost(_sum(self._seconds, {}), _sum(self._flops, {}), possible)
        self._seconds, self._flops = {}, {}
        # models of another round may come to lie where these did
        self._known = {key: of for key, of in self._known.items() if key[0] != PREDICT}
        return made
