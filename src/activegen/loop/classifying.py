"""Classification: a class is the label, mistakes are references."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from activegen.data.images import RealImages
from activegen.data.prompts import Prompts
from activegen.diffusion.attention import Maps
from activegen.diffusion.model import DiffusionModel
from activegen.diffusion.sampling import Batch, Sampling, seeded
from activegen.loop.mining import Judged, MiningSettings, mine
from activegen.loop.proposing import Origin, ProposalSettings, propose_guided, propose_plain
from activegen.loop.task import Finished
from activegen.records import Request, Sample, TaskModel, Verdict
from activegen.store import from_png
from activegen.tasks.evaluate import evaluate
from activegen.tasks.pool import Pool, gather, generated


@dataclass(frozen=True)
class Classifying:
    """A task of the loop.

    Args:
        size: height and width of the learner's images.
        prompts: of the classes.
        mining, proposal: settings.
    """

    size: int
    prompts: Prompts
    mining: MiningSettings
    proposal: ProposalSettings

    figure = "accuracy"

    @property
    def budget(self) -> int:
        """Images to train on from each round that generates."""
        return self.proposal.budget

    @property
    def candidates(self) -> int:
        """Requests of a round's plan."""
        return self.proposal.candidates

    def only_guided(self, count: int) -> "Classifying":
        """The same for one draw of ``count`` images, all of them steered."""
        share = self.proposal.adversarial_share
        settings = ProposalSettings(count, 1.0, plain_share=0.0, adversarial_share=share)
        return replace(self, proposal=settings)

    def gathered(self, real: RealImages) -> Pool:
        """Real images in memory."""
        return gather(real, self.size)

    def synthetic(self, accepted: Iterable[tuple[Sample, Verdict]], real: RealImages) -> Pool:
        """Accepted samples as the learner sees them."""
        samples = [sample for sample, _ in accepted]
        images = [from_png(sample.image) for sample in samples]
        none = torch.zeros(0, 3, self.size, self.size, dtype=torch.uint8)
        labels = torch.tensor([s.request.target for s in samples], dtype=torch.int64)
        return generated(torch.stack(images) if images else none, labels, self.size)

    def evaluated(self, model: TaskModel, pool: Pool) -> dict[str, Any]:
        """Accuracy, and by class."""
        seen = evaluate(model, pool.images, pool.labels)
        return {
            "accuracy": seen.accuracy,
            "per_class": list(seen.per_class),
            "worst_class": seen.worst_class,
            "ece": seen.ece,
        }

    def judged(self, model: TaskModel, unseen: RealImages) -> list[Judged]:
        """Losses and mistakes."""
        pool = self.gathered(unseen)
        seen = evaluate(model, pool.images, pool.labels)
        wrong = (seen.predictions != pool.labels).tolist()
        rows = zip(unseen.ids, unseen.labels, seen.losses.tolist(), wrong, strict=True)
        return [Judged(*row) for row in rows]

    def propose_plain(
        self, count: int, real: RealImages, origin: Origin, rng: np.random.Generator
    ) -> list[Request]:
        """From prompts alone, classes in turn."""
        return propose_plain(count, real.classes, self.prompts, origin, rng)

    def propose(
        self,
        judged: Sequence[Judged],
        real: RealImages,
        progress: float,
        origin: Origin,
        rng: np.random.Generator,
    ) -> list[Request]:
        """A request for each mined image."""
        references = mine(judged, self.proposal.candidates, self.mining, rng)
        # the ways of drawing stand together within the budget, and again in what may replace it
        return [
            request
            for some in (references[: self.budget], references[self.budget :])
            for request in propose_guided(
                some, real.classes, self.prompts, self.proposal, progress, origin, rng
            )
        ]

    def batch(
        self,
        requests: Sequence[Request],
        model: DiffusionModel,
        sampling: Sampling,
        real: RealImages,
    ) -> Batch:
        """Prompts, seeds, and the references' latents where all have one."""
        noise, rngs = seeded([request.seed for request in requests], model.noise_shape)
        references = [request.reference for request in requests if request.reference]
        prompts, words = [r.prompt for r in requests], [r.word for r in requests]
        return Batch(
            model=model,
            sampling=sampling,
            noise=noise.to(model.device),
            rngs=rngs,
            conditioning=model.condition(prompts, words, sampling.negative_prompt),
            target=torch.tensor([r.target for r in requests], device=model.device),
            reference=encoded(references, model, real)
            if len(references) == len(requests)
            else None,
        )

    def finished(
        self,
        images: UInt8[Tensor, "b 3 h w"],
        maps: Maps | None,
        requests: Sequence[Request],
        real: RealImages,
    ) -> list[Finished]:
        """As they were drawn; their classes."""
        pairs = zip(images, requests, strict=True)
        return [Finished(image, torch.tensor(request.target)) for image, request in pairs]


def encoded(ids: Sequence[str], model: DiffusionModel, real: Any) -> Tensor:
    """Latents of real images; one by one: they may differ in size, and a batch must not matter."""
    pictures = [real.image(real.index_of(id)).to(model.device).unsqueeze(0) / 255 for id in ids]
    return torch.cat([model.encode(picture) for picture in pictures])
