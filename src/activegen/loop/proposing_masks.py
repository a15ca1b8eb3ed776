"""Which masks to draw images for, and how often.

FreeMask, Yang et al. (2023), https://arxiv.org/abs/2310.15160, draws more images for masks of
classes that are hard to learn.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from activegen.data.prompts import Prompts
from activegen.loop.judging_masks import NOTICED, class_losses
from activegen.loop.objects import Mask, Object
from activegen.loop.proposing import ADVERSARIAL, PLAIN, Origin, ProposalSettings
from activegen.records import IGNORE, Request, UserError
from activegen.scores import consensus

SAMPLINGS = ("hardness", "balanced", "uniform")
MOST = 20  # images of the hardest mask; FreeMask's


@dataclass(frozen=True)
class MaskProposalSettings:
    """How many images, and of which masks.

    Args:
        budget: images to train on from each round that generates; the same for every arm.
        spare: how many times the budget is planned, so that others can replace what is rejected;
            drawing stops when the budget is filled. Ours.
        plain_share: of images without guidance in the first round; falls linearly to 0.
        sampling: "hardness" (masks of hard classes more often), "balanced" (each class as often) or
            "uniform" (each mask as often).
        max_repeats: how often one mask, or one object, may be drawn in one round. Ours.
        objects: redraw one object of an image and keep the rest of it.

    Raises:
        UserError: a value out of its range.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    budget: int = 64
    spare: float = 2.0
    plain_share: float = 0.0
    sampling: str = "hardness"
    max_repeats: int = 8
    objects: bool = False

    def __post_init__(self):
        _ = self.mixture
        if self.sampling not in SAMPLINGS:
            raise UserError(
                f"proposal.sampling is '{self.sampling}'; choose one of: {', '.join(SAMPLINGS)}"
            )
        if self.max_repeats < 1:
            raise UserError("proposal.max_repeats must be at least 1")

    @property
    def mixture(self) -> ProposalSettings:
        """The amounts, as for images of a class alone; nothing is adversarial."""
        return ProposalSettings(self.budget, self.spare, self.plain_share, 0.0)

    @property
    def candidates(self) -> int:
        """Requests of a round's plan."""
        return self.mixture.candidates

    def shares(self, progress: float) -> Mapping[str, float]:
        """Of "plain" and "guided"; ``progress`` is 0 in the first round, 1 in the last."""
        shares = self.mixture.shares(progress)
        return {way: share for way, share in shares.items() if way != ADVERSARIAL}


@dataclass(frozen=True)
class Scene:
    """What the mask of a real image shows.

    Args:
        id: of the image.
        pixels: how many each class has; neither background nor ignored ones.
        objects: class id of each object, in the order of their numbers.
    """

    id: str
    pixels: Mapping[int, int]
    objects: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        id: str,
        mask: Mask,
        background: Collection[int] = (),
        objects: Sequence[Object] = (),
    ) -> "Scene":
        """Counts the pixels of a mask; ``background`` are classes that are not asked for."""
        labels, counts = mask.unique(return_counts=True)
        pixels = {
            label: count
            for label, count in zip(labels.tolist(), counts.tolist(), strict=True)
            if label != IGNORE and label not in background
        }
        return cls(id, pixels, tuple(thing.label for thing in objects))

    @property
    def named(self) -> list[int]:
        """The classes that are large enough to be noticed, and to be named; largest first."""
        by_size = sorted(self.pixels, key=lambda label: (-self.pixels[label], label))
        least = NOTICED * sum(self.pixels.values())
        return [label for label in by_size if self.pixels[label] >= least] or by_size[:1]


@dataclass(frozen=True)
class JudgedScene:
    """A scene as a learner sees it that was not trained on it.

    Args:
        scene: what its mask shows.
        losses: mean cross-entropy of each class's pixels, in nats; a class that is too small to be
            there at the learner's size is absent.
    """

    scene: Scene
    losses: Mapping[int, float]

    @property
    def loss(self) -> float:
        """Mean cross-entropy of the pixels of all classes but the background, in nats."""
        return _mean(self.losses, self.scene.pixels)


def judged_scene(
    scene: Scene, logits: Float[Tensor, "members classes h w"], mask: Mask
) -> JudgedScene:
    """The scene with a learner's losses on its image."""
    sums, counts = class_losses(consensus(logits[:, None])[0].cpu(), mask.cpu())
    means = (sums / counts).tolist()
    return JudgedScene(scene, {k: means[k] for k in scene.pixels if counts[k] > 0})


def has_room(prompt: str) -> bool:
    """For whatever a prompt says."""
    return True


def propose_scenes(
    judged: Sequence[JudgedScene],
    classes: Sequence[str],
    prompts: Prompts,
    settings: MaskProposalSettings,
    progress: float,
    origin: Origin,
    rng: np.random.Generator,
    fits: Callable[[str], bool] = has_room,
) -> list[Request]:
    """Masks, or objects of masks, drawn with replacement as ``settings.sampling`` says.

    "hardness" takes a mask in proportion to FreeMask's number of images, `copies`, of its hardness:
    the mean over its pixels of the mean losses of their classes. With ``objects`` each object
    counts as a mask of its own. "balanced" shares the requests between classes, and a class's part
    between the masks that show it.

    Each request is drawn for one class, its target, which its prompt names first: of an object its
    class; of a mask the hardest that is named; with "balanced" the one whose turn it is. The others
    follow, the largest first; the last of them are left out for which the text encoder has no room
    (``fits`` says no): it would cut them off, and the request would not say so. Those of one way of
    drawing stand together within the budget, and again in what may replace it. Fewer than
    ``settings.candidates`` come back only when each was drawn ``max_repeats`` times.

    Differs from Yang et al. (2023), https://arxiv.org/abs/2310.15160: they draw `copies` images of
    each mask, once; here the budget decides how many there are, in each round anew, and losses are
    a learner's on images that it was not trained on.

    Raises:
        UserError: there is nothing to draw.
    """
    hardness = class_hardness(judged)
    found = _choices(judged, hardness, settings)
    if not found:
        raise UserError(
            "no mask has an object: lower objects.min_area, or set proposal.objects to false"
            if settings.objects
            else "no mask shows a class that is not background; check data.options"
        )
    weights = _weights(found, settings.sampling)
    chosen = _drawn(found, weights, settings.candidates, settings.max_repeats, rng)
    shares = settings.shares(progress)
    ways, share = list(shares), list(shares.values())
    requests = []
    for choice in chosen:
        way = ways[rng.choice(len(ways), p=share)]
        request = _request(choice, classes, prompts, origin, rng, fits)
        state = "" if way == PLAIN else origin.state
        requests.append(replace(request, steering=way, state=state))
    budget = settings.budget
    return [
        request
        for some in (requests[:budget], requests[budget:])
        for request in sorted(some, key=lambda request: ways.index(request.steering))
    ]


def propose_scenes_plain(
    count: int,
    scenes: Sequence[Scene],
    classes: Sequence[str],
    prompts: Prompts,
    origin: Origin,
    rng: np.random.Generator,
    objects: bool = False,
    fits: Callable[[str], bool] = has_room,
) -> list[Request]:
    """Every mask equally often, without guidance, for any of its classes or objects.

    Prompts are as `propose_scenes` has them.

    Raises:
        UserError: there is nothing to draw.
    """
    options = [found for scene in scenes if (found := _options(scene, objects))]
    if not options and count:
        raise UserError(f"no mask shows {'an object' if objects else 'a class'} that can be drawn")
    requests = []
    while len(requests) < count:
        for index in rng.permutation(len(options))[: count - len(requests)]:
            choice = options[index][rng.integers(len(options[index]))]
            requests.append(_request(choice, classes, prompts, origin, rng, fits))
    return requests


def class_hardness(judged: Sequence[JudgedScene]) -> dict[int, float]:
    """Mean loss over the pixels of all scenes of each class that was judged, in nats."""
    pixels: defaultdict[int, int] = defaultdict(int)
    losses: defaultdict[int, float] = defaultdict(float)
    for one in judged:
        for label, loss in one.losses.items():
            pixels[label] += one.scene.pixels[label]
            losses[label] += loss * one.scene.pixels[label]
    return {label: losses[label] / pixels[label] for label in pixels}


def copies(hardness: Sequence[float]) -> list[int]:
    """Images of each mask by its rank: min(1 + round(rank / total * 20), 20).

    Yang et al. (2023), https://arxiv.org/abs/2310.15160, as their code has it. The rank is the
    number of masks that are easier, so equally hard masks are equal.

    >>> copies([0.1, 0.4, 0.4, 3.0])
    [1, 6, 6, 16]
    """
    ranks = np.searchsorted(np.sort(hardness), hardness, side="left")
    return [min(1 + round(rank / len(hardness) * MOST), MOST) for rank in ranks.tolist()]


@dataclass(frozen=True)
class _Choice:
    """A mask or one object of it, for a class."""

    scene: Scene
    target: int
    part: int = 0
    hardness: float = 0.0


def _options(scene: Scene, objects: bool) -> list[_Choice]:
    if objects:
        return [_Choice(scene, label, part) for part, label in enumerate(scene.objects, start=1)]
    return [_Choice(scene, label) for label in scene.named]


def _choices(
    judged: Sequence[JudgedScene], hardness: Mapping[int, float], settings: MaskProposalSettings
) -> list[_Choice]:
    found = []
    for scene in (one.scene for one in judged):
        options = _options(scene, settings.objects)
        if settings.objects:
            found += [
                replace(option, hardness=hardness.get(option.target, 0.0)) for option in options
            ]
        elif settings.sampling == "balanced":
            found += options
        elif options:
            hardest = max(options, key=lambda option: hardness.get(option.target, 0.0))
            found.append(replace(hardest, hardness=_mean(hardness, scene.pixels)))
    return found


def _weights(choices: Sequence[_Choice], sampling: str) -> list[float]:
    if sampling == "hardness":
        return [float(number) for number in copies([choice.hardness for choice in choices])]
    if sampling == "balanced":
        alike = Counter(choice.target for choice in choices)
        return [1 / alike[choice.target] for choice in choices]
    return [1.0] * len(choices)


def _drawn(
    choices: Sequence[_Choice],
    weights: Sequence[float],
    count: int,
    max_repeats: int,
    rng: np.random.Generator,
) -> list[_Choice]:
    """In proportion to the weights, until a mask or object was drawn ``max_repeats`` times."""
    left = np.array(weights)
    names = [(choice.scene.id, choice.part) for choice in choices]
    drawn: Counter[tuple[str, int]] = Counter()
    chosen: list[_Choice] = []
    while len(chosen) < count and left.any():
        index = int(rng.choice(len(left), p=left / left.sum()))
        name = names[index]
        chosen.append(choices[index])
        drawn[name] += 1
        if drawn[name] == max_repeats:
            left[[other == name for other in names]] = 0
    return chosen


def _request(
    choice: _Choice,
    classes: Sequence[str],
    prompts: Prompts,
    origin: Origin,
    rng: np.random.Generator,
    fits: Callable[[str], bool],
) -> Request:
    others = [label for label in choice.scene.named if label != choice.target]
    names = [classes[label] for label in (choice.target, *others)]
    prompt, word = prompts.listing(names, rng)
    while len(names) > 1 and not fits(prompt):
        names.pop()
        prompt, word = prompts.listing(names, rng)
    return Request(
        prompt=prompt,
        word=word,
        target=choice.target,
        seed=int(rng.integers(2**62)),
        mask=choice.scene.id,
        part=choice.part,
        round=origin.round,
        arm=origin.arm,
    )


def _mean(values: Mapping[int, float], pixels: Mapping[int, int]) -> float:
    """Over the pixels of the classes that have a value; 0 without any."""
    total = sum(pixels[label] for label in pixels if label in values)
    return sum(values[label] * pixels[label] for label in pixels if label in values) / max(total, 1)
