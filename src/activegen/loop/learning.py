"""The learners of an arm, trained from round to round and kept in files."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from activegen.loop.metered import count_training
from activegen.loop.metering import Meter
from activegen.loop.settings import LoopSettings
from activegen.tasks.learner import Learner
from activegen.tasks.pool import Pool

SAVE_SECONDS = 60.0


class Learning(Mapping[str, Learner]):
    """Learners by name, as far as they are trained.

    Each is saved at the end of a round and once a minute; files of the round before stay for a
    process that goes on.

    Args:
        names: of the learners.
        make: an untrained one; the same each time.
        loop: settings.
        folder: of their files.
    """

    def __init__(
        self,
        names: Collection[str],
        make: Callable[[], Learner],
        loop: LoopSettings,
        folder: Path,
    ):
        self.folder = folder
        self._learners = {name: make() for name in names}
        self._make, self._loop = make, loop

    def __getitem__(self, name: str) -> Learner:
        return self._learners[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._learners)

    def __len__(self) -> int:
        return len(self._learners)

    def train(self, name: str, number: int, pool: Pool, meter: Meter) -> bool:
        """To the end of a round; with nothing to learn from later rounds make up for the steps.

        Args:
            name: of the learner.
            number: of the round.
            pool: what it learns from.
            meter: is told of the work.

        Returns:
            whether a process that is no more had begun with it.
        """
        loop, file = self._loop, self._file(name, number)
        if loop.restart and number > 0:
            self._learners[name] = self._make()
        learner = self[name]
        begun = file.exists()
        if begun:
            learner.load(file)
        elif learner.step == 0 and number > 0 and not loop.restart:
            learner.load(self._file(name, number - 1))
        steps = learner.settings.steps
        until = steps if loop.restart else round(steps * (number + 1) / loop.rounds)
        if not len(pool):
            learner.save(file)
        elif learner.step < until or not begun:
            count_training(meter, learner, pool, until - learner.step)
            self._train(learner, pool, until, file)
        self._file(name, number - 2).unlink(missing_ok=True)
        return begun

    def load(self, number: int) -> None:
        """As they were at the end of a round."""
        for name, learner in self.items():
            learner.load(self._file(name, number))

    def _train(self, learner: Learner, pool: Pool, until: int, file: Path) -> None:
        saved = time.monotonic()

        def save_now_and_then(step: int, loss: float) -> None:
            nonlocal saved
            if time.monotonic() - saved > SAVE_SECONDS:
                learner.save(file)
                saved = time.monotonic()

        learner.train(pool, until, save_now_and_then)
        learner.save(file)

    def _file(self, name: str, number: int) -> Path:
        return self.folder / f"{number:04d}-{name}.safetensors"
