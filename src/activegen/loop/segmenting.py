"""Segmentation: the mask of a real image is the label, and what is drawn is another image for it.

Kniesel et al. (2025), https://arxiv.org/abs/2503.09221: whole scenes through a ControlNet. Kupyn &
Rupprecht (2024): one object of a real image, the rest of which stays real.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor
from torch.nn import functional

from activegen.data.palettes import SAME, Palette, paint
from activegen.data.prompts import Prompts
from activegen.data.scenes import RealScenes
from activegen.diffusion.attention import Maps
from activegen.diffusion.model import DiffusionModel
from activegen.diffusion.sampling import Batch, Sampling, seeded
from activegen.loop.objects import (
    Mask,
    Object,
    ObjectSettings,
    Region,
    composite,
    dilated,
    layered,
    objects,
    softened,
)
from activegen.loop.proposing import Origin
from activegen.loop.proposing_masks import (
    JudgedScene,
    MaskProposalSettings,
    Scene,
    has_room,
    judged_scene,
    propose_scenes,
    propose_scenes_plain,
)
from activegen.loop.task import Finished
from activegen.records import IGNORE, Request, Sample, TaskModel, UserError, Verdict
from activegen.store import from_png
from activegen.tasks.evaluate_masks import evaluate_masks
from activegen.tasks.pool import Pool, gather, generated
from activegen.tasks.seeding import derive
from activegen.tasks.unreliable import CERTAIN

Accepted = tuple[Sample, Verdict]


@dataclass(frozen=True)
class Painting:
    """How a mask is shown to one ControlNet.

    Args:
        palette: that it was trained on.
        ontology: its name of each class that is called otherwise there.
    """

    palette: Palette
    ontology: Any = field(default_factory=lambda: SAME)


@dataclass(frozen=True)
class Segmenting:
    """A task of the loop.

    Args:
        size: height and width of the learner's images.
        prompts: of the classes.
        proposal: which masks to draw for.
        paintings: one for each ControlNet.
        things: which pieces of a mask are objects.
        background: class ids that are never asked for.
        fits: whether the text encoder has room for a prompt.
    """

    size: tuple[int, int]
    prompts: Prompts
    proposal: MaskProposalSettings
    paintings: tuple[Painting, ...] = ()
    things: ObjectSettings = field(default_factory=ObjectSettings)
    background: frozenset[int] = frozenset()
    fits: Callable[[str], bool] = field(default=has_room, compare=False, repr=False)
    _found: dict[str, list[Object]] = field(default_factory=dict, compare=False, repr=False)

    figure = "miou"

    @property
    def budget(self) -> int:
        """Images to train on from each round that generates."""
        return self.proposal.budget

    @property
    def candidates(self) -> int:
        """Requests of a round's plan."""
        return self.proposal.candidates

    def only_guided(self, count: int) -> "Segmenting":
        """The same for one draw of ``count`` images, all of them steered."""
        settings = replace(self.proposal, budget=count, spare=1.0, plain_share=0.0)
        return replace(self, proposal=settings)

    def gathered(self, real: RealScenes) -> Pool:
        """Real images in memory."""
        return gather(real, self.size, real.read_reliability)

    def synthetic(self, accepted: Iterable[Accepted], real: RealScenes) -> Pool:
        """Accepted samples as the learner sees them, without the pixels that the judge ignores.

        With other redrawn objects of their real images in them, see `ObjectSettings.together`.
        """
        images, masks, sure = [], [], []
        for sample, image, ignored in self._shown(accepted, real):
            images.append(image)
            mask = from_png(sample.mask)[0]
            masks.append(mask.masked_fill(ignored, IGNORE))
            known = sample.reliability
            sure.append(from_png(known)[0] if known else torch.full_like(mask, CERTAIN))
        if not images:
            none = torch.zeros(0, *self.size, dtype=torch.uint8)
            return generated(none.unsqueeze(1).expand(-1, 3, -1, -1), none, self.size)
        stacked = [torch.stack(of) for of in (images, masks, sure)]
        return generated(stacked[0], stacked[1], self.size, reliability=stacked[2])

    def _shown(
        self, accepted: Iterable[Accepted], real: RealScenes
    ) -> Iterator[tuple[Sample, UInt8[Tensor, "3 h w"], Region]]:
        """Each sample with the image and the ignored pixels that the learner gets.

        Of each other object of its real image that has accepted redraws, one of them is in the
        image with the probability `ObjectSettings.together`. Kupyn & Rupprecht (2024), equation 2.
        Ours: larger objects are behind smaller ones, theirs are ordered by depth; and what is shown
        together follows from the sample's seed and from which samples there are.
        """
        redrawn: dict[str, dict[int, list[Accepted]]] = {}
        if self.things.together:
            accepted = list(accepted)
            redrawn = _by_object(accepted)
        for sample, verdict in accepted:
            others = self._others(sample.request, redrawn.get(sample.request.mask, {}))
            yield sample, *self._joined(sample, verdict, others, real)

    def _others(
        self, request: Request, redrawn: Mapping[int, Sequence[Accepted]]
    ) -> list[Accepted]:
        """That are shown with the object of a request, by chance; none with a whole scene."""
        chosen = []
        for part, choice in redrawn.items():
            rng = np.random.default_rng(derive(request.seed, "together", part))
            if request.part not in (0, part) and rng.random() < self.things.together:
                chosen.append(choice[int(rng.integers(len(choice)))])
        return chosen

    def _joined(
        self, sample: Sample, verdict: Verdict, others: Sequence[Accepted], real: RealScenes
    ) -> tuple[UInt8[Tensor, "3 h w"], Region]:
        """A sample with others in it; and what is ignored in it.

        That is what its verdict ignores, and of that of each other what lies where that one is
        drawn, be it ever so faintly (alpha > 0).
        """
        image = from_png(sample.image)
        size = (image.shape[1], image.shape[2])
        ignored = _ignored(verdict, size)
        if not others:
            return image, ignored
        layers = {sample.request.part: (image, self._alpha(sample, size, real))}
        for other, told in others:
            alpha = self._alpha(other, size, real)
            layers[other.request.part] = from_png(other.image), alpha
            ignored |= _ignored(told, size) & (alpha[0] > 0)
        back_to_front = [layers[part] for part in sorted(layers)]  # numbered by size
        return layered(_kept(real, sample.request, size), back_to_front), ignored

    def _alpha(
        self, sample: Sample, size: tuple[int, int], real: RealScenes
    ) -> Float[Tensor, "1 h w"]:
        """How much of each pixel is drawn in its image, as `composite` has it."""
        return softened(self.region(sample.request, size, real))

    def evaluated(self, model: TaskModel, pool: Pool) -> dict[str, Any]:
        """Mean IoU, and by class."""
        seen = evaluate_masks(model, pool.images, pool.labels)
        return {
            "miou": seen.miou,
            "per_class": list(seen.per_class),
            "worst_class": seen.worst_class,
            "boundary_iou": seen.boundary_iou,
            "pixel_accuracy": seen.accuracy,
            "ece": seen.ece,
        }

    @torch.inference_mode()
    def judged(self, model: TaskModel, unseen: RealScenes) -> list[JudgedScene]:
        """Losses of each class in each scene."""
        pool = self.gathered(unseen)
        device = next(model.parameters()).device if isinstance(model, torch.nn.Module) else "cpu"
        found = []
        for index, id in enumerate(unseen.ids):
            image = pool.images[index : index + 1].to(device).float() / 255
            logits = model.predict(image).logits[:, 0]
            found.append(judged_scene(self._scene(unseen, id), logits, pool.labels[index]))
        return found

    def propose_plain(
        self, count: int, real: RealScenes, origin: Origin, rng: np.random.Generator
    ) -> list[Request]:
        """Masks in turn."""
        scenes = [self._scene(real, id) for id in real.ids]
        things = self.proposal.objects
        return propose_scenes_plain(
            count, scenes, real.classes, self.prompts, origin, rng, things, self.fits
        )

    def propose(
        self,
        judged: Sequence[JudgedScene],
        real: RealScenes,
        progress: float,
        origin: Origin,
        rng: np.random.Generator,
    ) -> list[Request]:
        """Masks by what the learner finds hard."""
        return propose_scenes(
            judged, real.classes, self.prompts, self.proposal, progress, origin, rng, self.fits
        )

    def batch(
        self,
        requests: Sequence[Request],
        model: DiffusionModel,
        sampling: Sampling,
        real: RealScenes,
    ) -> Batch:
        """Prompts, seeds, pictures of the masks; of objects their region and the real image."""
        noise, rngs = seeded([request.seed for request in requests], model.noise_shape)
        masks = torch.stack([self._mask(request, model, real) for request in requests])
        control = tuple(
            torch.stack([paint(mask, real.classes, of.palette, of.ontology) for mask in masks])
            for of in self.paintings
        )
        target, region, reference, extra = masks.long(), None, None, None
        if all(request.part for request in requests):
            regions = torch.stack([self.region(r, model.size, real) for r in requests])
            target = target.masked_fill(~regions, IGNORE)
            region = regions.unsqueeze(1).float().to(model.device)
            pictures = torch.stack([_picture(real, r, model.size) for r in requests])
            reference = model.encode(pictures.to(model.device) / 255)
            extra = model.inpainting(pictures.to(model.device) / 255, region)
        conditioning = model.condition(
            [request.prompt for request in requests],
            [request.word for request in requests],
            sampling.negative_prompt,
            control=tuple(picture.to(model.device) for picture in control),
        )
        return Batch(
            model=model,
            sampling=sampling,
            noise=noise.to(model.device),
            rngs=rngs,
            conditioning=replace(conditioning, extra=extra),
            target=target.to(model.device),
            reference=reference,
            region=region,
        )

    def finished(
        self,
        images: UInt8[Tensor, "b 3 h w"],
        maps: Maps | None,
        requests: Sequence[Request],
        real: RealScenes,
    ) -> list[Finished]:
        """As they were drawn, or the real image with the drawn object in it; and their masks."""
        pairs = zip(images, requests, strict=True)
        return [self._finished(image, request, real) for image, request in pairs]

    def _finished(self, image: Tensor, request: Request, real: RealScenes) -> Finished:
        size = (image.shape[1], image.shape[2])
        mask = resized_mask(real.mask(real.index_of(request.mask)), size)
        if not request.part:
            return Finished(image, mask)
        kept = _kept(real, request, size)
        region = self.region(request, size, real)
        counted = mask.masked_fill(~region, IGNORE)  # what steering counts, as `batch` has it
        return Finished(composite(kept, image, region), mask, counted=counted)

    def region(self, request: Request, size: tuple[int, int], real: RealScenes) -> Tensor:
        """What is drawn for a request: its object and what lies near it, (height, width) bool.

        Raises:
            UserError: the mask has no such object.
        """
        found = self._objects(real, request.mask)
        if not 1 <= request.part <= len(found):
            raise UserError(
                f"there is no object {request.part} in the mask of '{request.mask}', which has "
                f"{len(found)}: the masks or the settings of objects have changed since it was "
                "asked for"
            )
        where = resized_mask(found[request.part - 1].region.to(torch.uint8), size).bool()
        return dilated(where, self.things.dilation)

    def _scene(self, real: RealScenes, id: str) -> Scene:
        mask = real.mask(real.index_of(id))
        things = self._objects(real, id) if self.proposal.objects else ()
        return Scene.of(id, mask, self.background, things)

    def _objects(self, real: RealScenes, id: str) -> list[Object]:
        """Numbered in the mask as it was read, whatever size is drawn."""
        if id not in self._found:
            mask = real.mask(real.index_of(id))
            self._found[id] = objects(mask, self.things, self.background)
        return self._found[id]

    def _mask(self, request: Request, model: DiffusionModel, real: RealScenes) -> Mask:
        return resized_mask(real.mask(real.index_of(request.mask)), model.size)


def resized_mask(mask: Mask, size: tuple[int, int]) -> Integer[Tensor, "height width"]:
    """By the nearest pixel."""
    if tuple(mask.shape) == size:
        return mask
    values = mask[None, None].float()
    return functional.interpolate(values, size, mode="nearest-exact")[0, 0].to(mask.dtype)


def _picture(real: RealScenes, request: Request, size: tuple[int, int]) -> Float[Tensor, "3 h w"]:
    """The real image of a request, 0 to 255."""
    values = real.image(real.index_of(request.mask)).float()[None]
    if tuple(values.shape[2:]) != size:
        values = functional.interpolate(values, size, mode="bilinear", antialias=True)
    return values[0].clamp(0, 255)


def _kept(real: RealScenes, request: Request, size: tuple[int, int]) -> UInt8[Tensor, "3 h w"]:
    """What a redrawn object is put into."""
    return _picture(real, request, size).round().to(torch.uint8)


def _ignored(verdict: Verdict, size: Sequence[int]) -> Region:
    """Pixels that a verdict ignores, of an image of this size."""
    if not verdict.ignored:
        return torch.zeros(tuple(size), dtype=torch.bool)
    return from_png(verdict.ignored)[0] > 0


def _by_object(accepted: Iterable[Accepted]) -> dict[str, dict[int, list[Accepted]]]:
    """Redraws by the id of their mask and the number of their object.

    In the order of their own ids, so that rounds and the order of plans do not matter.
    """
    found: dict[str, dict[int, list[Accepted]]] = {}
    for pair in sorted(accepted, key=lambda pair: pair[0].request.id):
        request = pair[0].request
        if request.part:
            found.setdefault(request.mask, {}).setdefault(request.part, []).append(pair)
    return found
