"""Two segmenters that teach one another where their labels cannot be relied on.

BECO, Rong et al. (2023), "Boundary-enhanced co-training for weakly supervised semantic
segmentation". Reliable pixels have their labels; on the others each network learns what the other
sees. Reliable boundaries, which such labels lack, are made by pasting objects of one image into
another.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor, nn
from torch.nn import functional

from activegen.records import IGNORE, Images, Prediction, UserError
from activegen.tasks.learner import Learner, TrainSettings, weights_hash
from activegen.tasks.losses import Loss, cross_entropy, mean_of_pixels
from activegen.tasks.seeding import seeded
from activegen.tasks.segmenter import Segmenter
from activegen.tasks.task_network import TaskNetwork
from activegen.tasks.unreliable import CERTAIN, TRUST, Masks, Reliability, reliable, taught

Places = Bool[Tensor, "b h w"]


@dataclass(frozen=True)
class CoTraining:
    """How two segmenters teach one another; the defaults are the paper's.

    Args:
        mixing: probability that an image is mixed; 0 is off.
        boundary_weight: how much more the edges of what was pasted count.
        confidence: probability from which on the networks' own answer is relied on.

    Raises:
        UserError: a value is out of its range.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    mixing: float = 0.5
    boundary_weight: float = 0.2
    confidence: float = 0.95

    def __post_init__(self):
        if not 0 <= self.boundary_weight < math.inf:
            raise UserError("co_training: boundary_weight must be at least 0")
        if not 0 <= self.mixing <= 1 or not 0 <= self.confidence <= 1:
            raise UserError("co_training: mixing and confidence must be between 0 and 1")

    @staticmethod
    def check_fits(settings: TrainSettings, space: int) -> None:
        """See that two networks can be trained so on labels of these dimensions.

        Raises:
            UserError: they cannot.
        """
        if space != 2:
            raise UserError("co_training is for masks: leave it out for labels of classes")
        if settings.unreliable != TRUST:
            raise UserError(
                "co_training has its own labels for unreliable pixels: set unreliable to "
                f"'{TRUST}'; got '{settings.unreliable}'"
            )


BECO = CoTraining()


@dataclass(frozen=True)
class Belief:
    """What pixels are thought to be.

    Args:
        labels: class ids, 255 where ignored.
        sure: which of them are relied on, the M of the paper.
    """

    labels: Masks
    sure: Places

    @property
    def doubted(self) -> Bool[Tensor, " b"]:
        """Images with a pixel that is not relied on."""
        return (~self.sure & (self.labels != IGNORE)).flatten(1).any(1)


class Pair(TaskNetwork):
    """Two segmenters as one task model, whose logits are the mean of theirs.

    Args:
        first, second: of the same classes; each normalises for itself.

    Raises:
        UserError: they have different classes.
    """

    space = 2

    def __init__(self, first: Segmenter, second: Segmenter):
        if first.classes != second.classes:
            raise UserError(
                f"a pair needs the same classes twice; got {first.classes} and {second.classes}"
            )
        both = nn.ModuleList((first, second))
        super().__init__(both, first.classes, first.size, (0.0,) * 3, (1.0,) * 3, None)

    @property
    def members(self) -> tuple[Segmenter, Segmenter]:
        """Both."""
        first, second = cast(nn.ModuleList, self.network)
        return cast(Segmenter, first), cast(Segmenter, second)

    def forward(self, images: Images) -> Float[Tensor, "2 b classes h w"]:
        """Logits of each of the two."""
        return torch.stack([member(images) for member in self.members])

    def predict(self, images: Images) -> Prediction:
        """Mean logits (1, b, classes, h, w), and both features behind one another.

        The mean logits are linear in them. They are None where they do not fit together.
        """
        first, second = (member.predict(images) for member in self.members)
        logits = (first.logits + second.logits) / 2
        one, other = first.features, second.features
        if one is None or other is None or one.shape[3:] != other.shape[3:]:
            return Prediction(logits)
        return Prediction(logits, torch.cat([one, other], 2))


class CoLearner(Learner[Pair]):
    """Two segmenters that are trained together, on the same batches.

    With the label y, the reliability M (1 from a half on), the edges B of what was pasted and the
    other's likeliest class s', each network pays in each pixel

        M * loss(y) * (1 + boundary_weight * B) + (1 - M) * loss(s')

    and an image the mean over its pixels, as for a `Learner`. A share of the images, before their
    augmentation, has objects of another one pasted into it; its labels and M are then what both
    networks see together, in the pasted pixels and in the others. Till ``teach_from`` of the
    settings (in the paper for the first of 80 epochs) they are those that were given, and B is 0.

    Differs from the paper in that till then the term with s' is left out, too: networks that start
    from nothing would agree on their first guesses. Images without an unreliable pixel are not
    mixed, because their labels are better than what networks see; nor are images that nothing can
    be pasted into. Ignored pixels count nowhere and are not pasted, while in the paper's code the
    networks learn what they see there. Ours: of the chosen classes those pixels are pasted in which
    the other image is relied on.

    Args:
        model: both networks.
        settings: how to train; ``loss`` is the loss above.
        device: where; None takes what accelerate finds.
        co_training: how they teach one another.
        background: classes that are never pasted.

    Raises:
        UserError: the settings do not fit together, or both networks are the same.
    """

    def __init__(
        self,
        model: Pair,
        settings: TrainSettings,
        device: str | torch.device | None = None,
        co_training: CoTraining = BECO,
        background: frozenset[int] = frozenset(),
    ):
        co_training.check_fits(settings, model.space)
        if len({weights_hash(member) for member in model.members}) == 1:
            raise UserError(
                "co_training needs two networks that differ: give them different first weights"
            )
        super().__init__(model, settings, device)
        self.co_training = co_training
        self.background = background

    @property
    def _decisive(self) -> dict[str, Any]:
        own = {"co_training": asdict(self.co_training), "background": sorted(self.background)}
        return super()._decisive | own

    def _prepared(
        self,
        images: Images,
        labels: Integer[Tensor, "b *space"],
        reliability: UInt8[Tensor, "b h w"] | None,
    ) -> tuple[Tensor, ...]:
        sure = torch.ones_like(labels, dtype=torch.bool)
        if reliability is not None:
            sure = reliable(reliability, self.settings.reliable_share)
        given = Belief(labels, sure)
        with seeded(self.settings.seed, "mix", self.step, self._accelerator.process_index):
            drawn = torch.rand(len(images)) < self.co_training.mixing
            chosen = drawn.to(labels.device) & given.doubted & (len(images) > 1)
            online = self.settings.teaches(self.step) and bool(chosen.any())
            shown = self._seen_by_both(images, labels) if online else given
            places = shown.sure if online else labels != IGNORE
            pasted = partners(pieces(shown.labels, places, self.background))
            pasted &= chosen.view(-1, 1, 1)
        images, belief = mix(images, given, shown, pasted)
        edges = boundary(pasted) & online
        return images, belief.labels, _bytes(belief.sure), _bytes(edges)

    def _seen_by_both(self, images: Images, labels: Masks) -> Belief:
        highest, classes = self._seen(self.model, images).softmax(1).max(1)
        ignored = labels == IGNORE
        sure = (highest > self.co_training.confidence) & ~ignored
        return Belief(classes.to(labels).masked_fill(ignored, IGNORE), sure)

    def _loss(
        self,
        images: Images,
        labels: Integer[Tensor, "b *space"],
        weights: Float[Tensor, " b"],
        *maps: UInt8[Tensor, "b h w"],
    ) -> Float[Tensor, ""]:
        reliability, edges = maps
        if not self.settings.teaches(self.step):
            labels = labels.masked_fill(~reliable(reliability), IGNORE)
        losses = co_training_loss(
            self._logits(images),
            labels,
            reliability,
            edges > 0,
            self.co_training.boundary_weight,
            self.settings.per_pixel,
        )
        return (losses * weights).sum()


def co_training_loss(
    logits: Float[Tensor, "2 b classes h w"],
    labels: Masks,
    reliability: Reliability,
    edges: Places,
    boundary_weight: float = BECO.boundary_weight,
    loss: Loss = cross_entropy,
) -> Float[Tensor, " b"]:
    """The sum of what both networks pay for an image, as `CoLearner` says."""
    weights = 1 + boundary_weight * (edges & reliable(reliability))
    first, second = logits
    pixels = torch.zeros_like(weights)
    for own, other in ((first, second), (second, first)):
        targets, _ = taught(labels, reliability, lambda other=other: other.argmax(1))
        pixels = pixels + loss(own, targets)
    return mean_of_pixels(pixels, labels, weights)


def pieces(labels: Masks, places: Places, background: frozenset[int]) -> Places:
    """Pixels of half of the classes in each image, rounded up, drawn from the global generator.

    Args:
        labels: class ids.
        places: pixels that may be taken; others do not show a class.
        background: classes that are never taken.
    """
    taken = torch.zeros_like(places)
    for index in range(len(labels)):
        there = [c for c in labels[index][places[index]].unique().tolist() if c not in background]
        half = torch.randperm(len(there))[: (len(there) + 1) // 2].tolist()
        for one in half:
            taken[index] |= places[index] & (labels[index] == there[one])
    return taken


def partners(of: Tensor) -> Tensor:
    """What each image is mixed with: the halves of a batch change places."""
    return of.roll(len(of) // 2, 0)


def mix(images: Images, given: Belief, shown: Belief, pasted: Places) -> tuple[Images, Belief]:
    """Images with these pixels of their partners, and what their pixels then are thought to be.

    Args:
        images: all of a batch.
        given: of an image that nothing is pasted into.
        shown: of all pixels of one that something is pasted into, those that are its own too.
        pasted: pixels, in the image that they are pasted into.
    """

    def composite(of: Tensor) -> Tensor:
        return torch.where(pasted, partners(of), of)

    mixed = pasted.flatten(1).any(1).view(-1, 1, 1)
    labels = torch.where(mixed, composite(shown.labels), given.labels)
    sure = torch.where(mixed, composite(shown.sure), given.sure)
    pictures = torch.where(pasted.unsqueeze(1), partners(images), images)
    return pictures, Belief(labels, sure)


def boundary(places: Places) -> Places:
    """Dilated minus eroded by 3x3 pixels: two pixels wide, one on each side of an edge."""
    inside = places.unsqueeze(1).float()
    dilated = functional.max_pool2d(inside, 3, 1, 1) > 0
    eroded = functional.max_pool2d(1 - inside, 3, 1, 1) == 0
    return (dilated & ~eroded).squeeze(1)


def _bytes(places: Places) -> UInt8[Tensor, "b h w"]:
    return places.to(torch.uint8) * CERTAIN
