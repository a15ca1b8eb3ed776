"""From mistakes to requests: what each image of a round shall be.

Three ways of drawing, as in Huang et al. (2024), https://arxiv.org/abs/2403.06517: at first half
of the images come from the prompt alone, later none; of the others an ever larger share is
adversarial.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from activegen.data.prompts import Prompts
from activegen.loop.mining import Judged
from activegen.records import Request, UserError

PLAIN, GUIDED, ADVERSARIAL = "plain", "guided", "adversarial"


@dataclass(frozen=True)
class ProposalSettings:
    """How many images, and in which mixture.

    Args:
        budget: images to train on from each round that generates; the same for every arm.
        spare: how many times the budget is planned, so that others can replace what is rejected;
            drawing stops when the budget is filled. Ours.
        plain_share: of images from the prompt alone in the first round; falls linearly to 0.
        adversarial_share: of all images in the last round that generates; grows linearly from 0.

    Raises:
        UserError: a value out of its range.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    budget: int = 64
    spare: float = 2.0
    plain_share: float = 0.5
    adversarial_share: float = 0.5

    def __post_init__(self):
        if self.budget < 0:
            raise UserError("proposal.budget must be at least 0")
        if self.spare < 1:
            raise UserError("proposal.spare must be at least 1")
        if not 0 <= self.plain_share <= 1 or not 0 <= self.adversarial_share <= 1:
            raise UserError("proposal: shares must be between 0 and 1")

    @property
    def candidates(self) -> int:
        """Requests of a round's plan."""
        return round(self.budget * self.spare)

    def shares(self, progress: float) -> Mapping[str, float]:
        """Of each way of drawing; ``progress`` is 0 in the first round, 1 in the last."""
        plain = self.plain_share * (1 - progress)
        adversarial = min(self.adversarial_share * progress, 1 - plain)
        return {PLAIN: plain, GUIDED: 1 - plain - adversarial, ADVERSARIAL: adversarial}


@dataclass(frozen=True)
class Origin:
    """What all requests of a round share."""

    round: int
    arm: str
    state: str


def propose_guided(
    references: Sequence[Judged],
    classes: Sequence[str],
    prompts: Prompts,
    settings: ProposalSettings,
    progress: float,
    origin: Origin,
    rng: np.random.Generator,
) -> list[Request]:
    """A request for each reference, those of one way of drawing together."""
    shares = settings.shares(progress)
    ways = rng.choice(list(shares), size=len(references), p=list(shares.values()))
    requests = []
    for reference, way in zip(references, ways.tolist(), strict=True):
        prompt, word = prompts.prompt(classes[reference.label], rng)
        requests.append(
            Request(
                prompt=prompt,
                word=word,
                target=reference.label,
                seed=int(rng.integers(2**62)),
                reference="" if way == PLAIN else reference.id,
                round=origin.round,
                arm=origin.arm,
                steering=way,
                state="" if way == PLAIN else origin.state,
            )
        )
    order = list(shares)
    return sorted(requests, key=lambda r: order.index(r.steering))


def propose_plain(
    count: int,
    classes: Sequence[str],
    prompts: Prompts,
    origin: Origin,
    rng: np.random.Generator,
) -> list[Request]:
    """From the prompt alone, classes in turn."""
    start = int(rng.integers(len(classes)))
    requests = []
    for index in range(count):
        target = (start + index) % len(classes)
        prompt, word = prompts.prompt(classes[target], rng)
        requests.append(
            Request(
                prompt=prompt,
                word=word,
                target=target,
                seed=int(rng.integers(2**62)),
                round=origin.round,
                arm=origin.arm,
            )
        )
    return requests
