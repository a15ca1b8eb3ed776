"""Segmentation without a mask: text becomes an image, and its mask is read out of the attention.

Yoshihashi et al. (2023), https://arxiv.org/abs/2309.01369.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from activegen.data.prompts import Prompts
from activegen.data.scenes import RealScenes
from activegen.data.wording import bare, spoken
from activegen.diffusion.attention import Maps
from activegen.diffusion.model import DiffusionModel
from activegen.diffusion.pseudo_masks import PRESETS, Annotations, PseudoMasks, pseudo_masks
from activegen.diffusion.reliability import (
    Ranks,
    Screen,
    in_bytes,
    log_odds,
    ranked,
    reliability,
    screened,
)
from activegen.diffusion.sampling import Batch, Sampling, seeded
from activegen.loop.judging import LabelCheck, Opinion
from activegen.loop.proposing import Origin
from activegen.loop.segmenting import Segmenting
from activegen.loop.task import Finished
from activegen.records import IGNORE, Request, Sample, UserError, Verdict, choose
from activegen.store import from_png, png
from activegen.tasks.pool import Pool

PRESENCE = "presence of word {}"
Judged = tuple[Sample, Verdict]


def by_margin(made: Annotations) -> Float[Tensor, "b h w"]:
    """The lead of the pixel's class on the normalised maps, about 0 to 1 (attn2mask)."""
    return made.margin


def by_share(made: Annotations) -> Float[Tensor, "b h w"]:
    """The log-odds of its class's share of the raw attention; above a half it has most. Ours."""
    assert made.share is not None
    return log_odds(made.share)


SURE: Mapping[str, Callable[[Annotations], Float[Tensor, "b h w"]]] = {
    "margin": by_margin,
    "share": by_share,
}


@dataclass(frozen=True)
class AnnotationSettings:
    """What is asked for, and how its mask is read.

    Args:
        per_image: classes that a prompt names, least and most.
        masks: how attention becomes masks.
        attribution: look for the classes' own wordings, whichever words the prompt has.
        sure_by: how sure a pixel is, a name of SURE.
        ranked: what it is ranked among, in its class: the pixels of its "image" (attn2mask with
            BECO), or of "all" images of a data set, or of those accepted so far in a run (ours).
        screen: what an image with its mask must have.

    Raises:
        UserError: numbers of classes that cannot be.
        UnknownWord: how sure a pixel is has another name.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    per_image: tuple[int, int] = (1, 1)
    masks: PseudoMasks = field(default_factory=lambda: PRESETS["default"].masks)
    attribution: bool = False
    sure_by: str = "margin"
    ranked: Literal["image", "all"] = "image"
    screen: Screen = field(default_factory=Screen)

    def __post_init__(self):
        least, most = self.per_image
        if not 1 <= least <= most:
            raise UserError(f"per_image is {least} to {most}; give 1 <= least <= most")
        choose(SURE, self.sure_by, "measure of sureness")


@dataclass(frozen=True)
class Annotating(Segmenting):
    """A task of the loop; what is asked for depends on no real image.

    Args:
        annotation: settings.

    Raises:
        UserError: how sure a pixel is cannot be said with a background.
    """

    annotation: AnnotationSettings = field(default_factory=AnnotationSettings)

    def __post_init__(self):
        if self.background and self.annotation.sure_by == "share":
            raise UserError(
                "segmentation.text.sure_by: a background has no attention to have a share of; give "
                "'margin', or no segmentation.background"
            )

    @property
    def rest(self) -> int | None:
        """Id of what no word names, where there is such a class."""
        return min(self.background, default=None)

    def propose_plain(
        self, count: int, real: RealScenes, origin: Origin, rng: np.random.Generator
    ) -> list[Request]:
        """Classes in turn, each with others beside it."""
        return propose_texts(
            count, real.classes, self.background, self.prompts, self.annotation, origin, rng
        )

    def batch(
        self,
        requests: Sequence[Request],
        model: DiffusionModel,
        sampling: Sampling,
        real: RealScenes,
    ) -> Batch:
        """Prompts and seeds, and whose attention is kept."""
        noise, rngs = seeded([request.seed for request in requests], model.noise_shape)
        prompts, words = [r.prompt for r in requests], [r.words for r in requests]
        texts = prompts
        if self.annotation.attribution:
            own = [[self.prompts.words[real.classes[k]][0] for k in r.classes] for r in requests]
            texts, words = [spoken(of) for of in own], [tuple(map(bare, of)) for of in own]
        none = [""] * len(requests)
        return Batch(
            model=model,
            sampling=sampling,
            noise=noise.to(model.device),
            rngs=rngs,
            conditioning=model.condition(prompts, none, sampling.negative_prompt),
            target=torch.full((len(requests), *model.size), IGNORE, device=model.device),
            reading=self.annotation.masks.reading(model, texts, words, self.annotation.attribution),
        )

    def finished(
        self,
        images: UInt8[Tensor, "b 3 h w"],
        maps: Maps | None,
        requests: Sequence[Request],
        real: RealScenes,
    ) -> list[Finished]:
        """As they were drawn, with the masks that the attention gives them."""
        assert maps is not None
        classes = _padded([request.classes for request in requests])
        made = pseudo_masks(maps, classes, self.rest, images.float() / 255, self.annotation.masks)
        mask, sure = made.mask.cpu(), SURE[self.annotation.sure_by](made).cpu()
        if self.annotation.ranked == "image":
            sure = ranked(mask, sure)
        sure = in_bytes(sure)
        mean = reliability(mask, made.margin.cpu(), self.rest)
        finished = []
        for at, request in enumerate(requests):
            peaks = made.presence[at, : len(request.classes)].tolist()
            numbers = {PRESENCE.format(place): peak for place, peak in enumerate(peaks)}
            numbers["reliability"] = float(mean[at])
            finished.append(Finished(images[at], mask[at], sure[at], made.maps[at, 0], numbers))
        return finished

    def synthetic(self, accepted: Iterable[Judged], real: RealScenes) -> Pool:
        """As of any masks; with how sure their pixels are, ranked."""
        kept = list(accepted)
        return super().synthetic(self.ranked(lambda: kept), real)

    def ranked(self, accepted: Callable[[], Iterable[Judged]]) -> Iterator[Judged]:
        """The same with ranks among all of them, where the settings say so.

        Args:
            accepted: what was; is called twice.
        """
        if self.annotation.ranked == "image":
            yield from accepted()
            return
        rank = ranks_among(accepted())
        for sample, verdict in accepted():
            yield rank(sample), verdict


def ranks_among(accepted: Iterable[Judged]) -> Callable[[Sample], Sample]:
    """Gives a sample how sure its pixels are as ranks among those of these samples."""
    ranks = Ranks()

    def parts(sample: Sample) -> tuple[UInt8[Tensor, "h w"], UInt8[Tensor, "h w"]]:
        return from_png(sample.mask)[0], from_png(sample.reliability)[0]

    for sample, _ in accepted:
        ranks.add(*parts(sample))

    def ranked_among(sample: Sample) -> Sample:
        return replace(sample, reliability=png(ranks.of(*parts(sample)).unsqueeze(0)))

    return ranked_among


@dataclass(frozen=True)
class Screened:
    """The mask of an image shows what its prompt names; then another check, where there is one.

    Args:
        screen: what the mask must have.
        rest: id of what no word names, where there is such a class.
        then: asked of what passes.
    """

    screen: Screen
    rest: int | None
    then: LabelCheck | None = None

    def __call__(self, image: UInt8[Tensor, "3 h w"], sample: Sample) -> Opinion:
        """Reasons are those of `screened`."""
        classes = _padded([sample.request.classes])
        peaks = [sample.scores[PRESENCE.format(place)] for place in range(classes.shape[1])]
        mask = from_png(sample.mask)[:1]
        (reason,) = screened(mask, classes, torch.tensor([peaks]), self.rest, self.screen)
        if reason or self.then is None:
            return Opinion(reason, {})
        return self.then(image, sample)


def propose_texts(
    count: int,
    classes: Sequence[str],
    background: frozenset[int],
    prompts: Prompts,
    settings: AnnotationSettings,
    origin: Origin,
    rng: np.random.Generator,
) -> list[Request]:
    """Prompts alone: every class is the first equally often, others are drawn beside it.

    Raises:
        UserError: there are fewer classes than a prompt shall name.
    """
    asked = [label for label in range(len(classes)) if label not in background]
    least, most = settings.per_image
    if most > len(asked):
        raise UserError(f"a prompt cannot name {most} of {len(asked)} classes; lower per_image")
    requests: list[Request] = []
    while len(requests) < count:
        for first in rng.permutation(asked)[: count - len(requests)].tolist():
            others = rng.permutation([label for label in asked if label != first])
            labels: list[int] = [first, *others[: int(rng.integers(least, most + 1)) - 1].tolist()]
            prompt, words = prompts.listing_words([classes[label] for label in labels], rng)
            requests.append(
                Request(
                    prompt=prompt,
                    word=words[0],
                    target=first,
                    seed=int(rng.integers(2**62)),
                    classes=tuple(labels),
                    words=words,
                    round=origin.round,
                    arm=origin.arm,
                )
            )
    return requests


def _padded(classes: Sequence[Sequence[int]]) -> Tensor:
    """(b, words), 255 where an image has fewer."""
    most = max(map(len, classes))
    return torch.tensor([[*some, *[IGNORE] * (most - len(some))] for some in classes])
