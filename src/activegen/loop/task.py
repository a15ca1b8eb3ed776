"""What the loop asks of a task. Classification and segmentation differ here and nowhere else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

from activegen.diffusion.attention import Maps
from activegen.diffusion.model import DiffusionModel
from activegen.diffusion.sampling import Batch, Sampling
from activegen.loop.proposing import Origin
from activegen.records import Request, Sample, TaskModel, Verdict
from activegen.tasks.pool import Pool


@dataclass(frozen=True)
class Finished:
    """A picture as it is stored.

    Args:
        image: as drawn, or inside of a real one.
        target: its class id (), or the class of each pixel (h, w), 255 ignored.
        reliability: of each pixel of the target, 255 = certain; None where all are.
        attention: of the request's word, 0 to 1; None where that is the sampler's.
        numbers: what was measured, by name.
        counted: the target with 255 also where pixels do not count in scores; None where all do.
    """

    image: UInt8[Tensor, "3 h w"]
    target: Integer[Tensor, "*space"]
    reliability: UInt8[Tensor, "h w"] | None = None
    attention: Float[Tensor, "h_a w_a"] | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    counted: Integer[Tensor, "h w"] | None = None


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

    def synthetic(self, accepted: Iterable[tuple[Sample, Verdict]], real: Any) -> Pool:
        """Accepted samples as the learner sees them, one image each, in their order.

        Args:
            accepted: all that it gets; they may be shown together.
            real: the images that they may refer to.
        """
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

    def finished(
        self,
        images: UInt8[Tensor, "b 3 h w"],
        maps: Maps | None,
        requests: Sequence[Request],
        real: Any,
    ) -> list[Finished]:
        """What is stored of each picture; none depends on the others.

        Args:
            images: that came from the sampler.
            maps: of attention that came with them.
            requests: what was asked for.
            real: the images they may refer to.
        """
        ...
