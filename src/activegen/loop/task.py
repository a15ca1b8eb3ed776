"""What the loop asks of a task. Classification and segmentation differ here and nowhere else."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from activegen.data.images import RealImages
from activegen.data.scenes import RealScenes
from activegen.diffusion.model import DiffusionModel
from activegen.diffusion.sampling import Batch, Sampling
from activegen.loop.proposing import Origin
from activegen.records import Request, Sample, TaskModel, Verdict
from activegen.tasks.pool import Pool

Real = RealImages | RealScenes


@runtime_checkable
class Task(Protocol):
    """A kind of label: how it is trained on, measured, asked for and drawn."""

    figure: str  # the number of ``evaluated`` that arms are compared by

    @property
    def budget(self) -> int:
        """Images to train on from each round that generates."""
        ...

    @property
    def candidates(self) -> int:
        """Requests of a round's plan: more than the budget, to replace what is rejected."""
        ...

    def only_guided(self, count: int) -> "Task":
        """The same for one draw of ``count`` images, all of them steered."""
        ...

    def gathered(self, real: Any) -> Pool:
        """Real images in memory."""
        ...

    def synthetic(self, accepted: Iterable[tuple[Sample, Verdict]]) -> Pool:
        """Accepted samples as the learner sees them."""
        ...

    def evaluated(self, model: TaskModel, pool: Pool) -> dict[str, Any]:
        """The figures of a round, "per_class" and "worst_class" among them."""
        ...

    def judged(self, model: TaskModel, unseen: Any) -> Sequence[Any]:
        """Real images as a learner sees them that was not trained on them."""
        ...

    def propose_plain(
        self, count: int, real: Any, origin: Origin, rng: np.random.Generator
    ) -> list[Request]:
        """Requests that know nothing of the learner."""
        ...

    def propose(
        self,
        judged: Sequence[Any],
        real: Any,
        progress: float,
        origin: Origin,
        rng: np.random.Generator,
    ) -> list[Request]:
        """Requests for what the learner gets wrong, the spare ones behind the budget."""
        ...

    def batch(
        self, requests: Sequence[Request], model: DiffusionModel, sampling: Sampling, real: Any
    ) -> Batch:
        """All that the sampler needs to draw them."""
        ...

    def finished(self, drawn: Tensor, request: Request, real: Any) -> tuple[Tensor, Tensor]:
        """The picture to store, uint8 (3, h, w), and its target, a class id or a mask (h, w).

        Args:
            drawn: what came from the sampler, uint8.
            request: what was asked for.
            real: the images it may refer to.
        """
        ...
