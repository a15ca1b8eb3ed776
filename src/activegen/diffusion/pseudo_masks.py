"""Masks read out of the generator's attention: no annotation, no trained segmenter.

    masks = PRESETS["attn2mask"].masks
    reading = masks.reading(model, prompts, words)
    drawn = sample(Batch(model, sampling, noise, rngs, conditioning, target, reading=reading))
    made = pseudo_masks(drawn.maps, classes, background, drawn.images, masks)

One function; the published ways are settings of it, in PRESETS. Nothing depends on the batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from activegen.diffusion.attention import Maps, Reading, Sizes, Steps, normalised
from activegen.diffusion.mean_field import DenseCRF, certain, mean_field
from activegen.diffusion.model import DiffusionModel
from activegen.records import IGNORE, Images, UserError, choose

Channels = Float[Tensor, "b words h_a w_a"]
Walk = Callable[[Tensor], Tensor]  # of maps along the self-attention


@dataclass(frozen=True)
class PseudoMasks:
    """How attention becomes masks.

    Args:
        steps: as `Reading` has it.
        sizes: as `Reading` has it.
        aggregate: how the layers' maps become one of each class, a name of AGGREGATES.
        beta: taken off the background; of one class, what is above (1 - beta) / 2 is foreground.
        band: pixels of a smaller margin are 255.
        refine: how often the maps walk along the self-attention.
        refine_size: height of its layers; None = as `Reading`'s "auto".
        crf: a field on the labels; None = without.

    Raises:
        UserError: a band or a number of walks below 0.
        UnknownWord: the aggregate is not in the table.
    """

    steps: Steps = 0.5
    sizes: Sizes = "auto"
    aggregate: str = "layers"
    beta: float = 0.2
    band: float = 0.0
    refine: int = 0
    refine_size: int | None = None
    crf: DenseCRF | None = None

    def __post_init__(self) -> None:
        """Check words and numbers."""
        choose(AGGREGATES, self.aggregate, "aggregate of attention")
        if self.band < 0 or self.refine < 0:
            raise UserError(f"a band of {self.band} and {self.refine} walks; give 0 or more")

    def reading(
        self,
        model: DiffusionModel,
        prompts: Sequence[str],
        words: Sequence[Sequence[str]],
        attribution: bool = False,
    ) -> Reading:
        """What the sampler shall keep; the arguments are those of ``DiffusionModel.words``."""
        found = model.words(prompts, words, attribution)
        size = self.refine_size or "auto" if self.refine else None
        return Reading(found, self.steps, self.sizes, size)


@dataclass(frozen=True)
class Annotations:
    """Masks and how sure they are.

    Args:
        mask: class ids; 255 is uncertain.
        margin: of the pixel's class before the next one, on their channels, which span about 0 to
            1; below 0 where the field has decided against the attention.
        presence: of each word: the peak of its raw attention; small where it found no place.
        maps: each word's channel, 0 to 1.
        share: of the raw attention of all classes that the image shall show, that of the pixel's
            own; None with a background, which has no attention.
    """

    mask: UInt8[Tensor, "b h w"]
    margin: Float[Tensor, "b h w"]
    presence: Float[Tensor, "b words"]
    maps: Channels
    share: Float[Tensor, "b h w"] | None


@torch.no_grad()
def pseudo_masks(
    maps: Maps,
    classes: Int[Tensor, "b words"],
    background: int | None,
    images: Images,
    settings: PseudoMasks,
) -> Annotations:
    """The class of each pixel from the attention of the class words.

        a_0 = 1 - max_c a_c - beta,  mask = argmax_c upsampled(a_c)

    Yoshihashi et al. (2023), https://arxiv.org/abs/2309.01369, as a third party replicates it;
    several classes are its natural extension, ours. The margin is the best channel's lead over the
    best of another class; without any other, the channel itself.

    Args:
        maps: from ``Drawn.maps``.
        classes: class id of each word; 255 where an image has fewer words. Words of one class are
            joined.
        background: id of what no word names; None where every pixel has one of the classes, and
            there is no a_0.
        images: RGB 0..1; masks have their size.
        settings: how.
    """
    walk = partial(_walked, maps=maps, times=settings.refine)
    channels, raw = AGGREGATES[settings.aggregate](maps, walk), _mean(maps)
    classes = classes.to(channels.device)
    channels = channels.masked_fill((classes == IGNORE)[:, :, None, None], 0)
    stack, ids = channels, classes
    if background is not None:
        rest = 1 - channels.amax(1, keepdim=True) - settings.beta
        stack = torch.cat([rest, channels], 1)
        ids = torch.cat([torch.full_like(classes[:, :1], background), classes], 1)
    stack, ids = _joined(stack, ids)
    stack = F.interpolate(stack, images.shape[2:], mode="bilinear")
    stack = stack.masked_fill((ids == IGNORE)[:, :, None, None], -torch.inf)
    best = stack.argmax(1)
    if settings.crf is not None:
        best = _along_edges(best, ids, images, settings.crf)
    labels = ids.gather(1, best.flatten(1)).view_as(best)
    margin = _margin(stack, best.unsqueeze(1))
    mask = torch.where(margin < settings.band, IGNORE, labels) if settings.band else labels
    share = None if background is not None else _share(raw, classes, best)
    return Annotations(mask.to(torch.uint8), margin, raw.amax((2, 3)), channels, share)


def _joined(channels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of the channels of one class in its first; the others become no class."""
    same = ids.unsqueeze(2) == ids.unsqueeze(1)
    spread = torch.where(same[..., None, None], channels.unsqueeze(1), -torch.inf)
    return spread.amax(2), ids.masked_fill(same.tril(-1).any(2), IGNORE)


def _margin(stack: Tensor, best: Tensor) -> Tensor:
    others = stack.scatter(1, best, -torch.inf).amax(1)
    return stack.gather(1, best).squeeze(1) - torch.where(others.isfinite(), others, 0)


def _share(raw: Channels, classes: Tensor, best: Tensor) -> Float[Tensor, "b h w"]:
    """Of the attention of all classes, what the best one has."""
    raw, ids = _joined(raw, classes)
    known = raw.masked_fill((ids == IGNORE)[:, :, None, None], 0)
    known = F.interpolate(known, best.shape[1:], mode="bilinear")
    return known.gather(1, best.unsqueeze(1)).squeeze(1) / known.sum(1).clamp_min(1e-12)


def _along_edges(best: Tensor, ids: Tensor, images: Tensor, field: DenseCRF) -> Tensor:
    """The channel of each pixel in the field that starts from the given ones."""
    given = F.one_hot(best, ids.shape[1]).movedim(3, 1).float()
    probabilities = certain(given, (ids != IGNORE).float(), field.certainty)
    return mean_field(probabilities, images.to(best.device), field).argmax(1)


def _walked(channels: Channels, maps: Maps, times: int) -> Float[Tensor, "b words h w"]:
    """Each place has what it looks at, so maps fill the regions that look at themselves.

        M = A_self^times M_cross

    Nguyen et al. (2023), Dataset Diffusion, https://arxiv.org/abs/2309.14303, who normalise M
    afterwards as we do.
    """
    if times == 0:
        return channels
    along = maps.self_attention
    if along is None:
        raise UserError("maps are to be refined and no self-attention was kept; read it too")
    height, width = along.shape[1:3]
    affinity = along.flatten(3).flatten(1, 2)
    walked = _sized(channels, (height, width)).flatten(2)
    for _ in range(times):
        walked = torch.einsum("bij,bkj->bki", affinity, walked)
    return walked.unflatten(2, (height, width))


def _sized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bicubic, not below 0, as DAAM does."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, list(size), mode="bicubic").clamp_min(0)


def _mean(maps: Maps) -> Channels:
    """Over all layers, at the size of the largest."""
    size = maps.words[0].shape[2:]
    seen = zip(maps.layers, maps.words, strict=True)
    total = torch.stack([count * _sized(layers, size) for count, layers in seen]).sum(0)
    return total / sum(maps.layers)


def by_layers(maps: Maps, walk: Walk) -> Channels:
    """Mean over layers, each class from 0 to 1 (attn2mask, DAAM, Dataset Diffusion)."""
    joined = walk(_mean(maps))
    return normalised(joined.flatten(0, 1)).view_as(joined)


def by_peaks(maps: Maps, walk: Walk) -> Channels:
    """Mean over sizes, each map over its peak (DiffuMask)."""
    size = maps.words[0].shape[2:]
    over = [layers / layers.amax((2, 3), keepdim=True).clamp_min(1e-8) for layers in maps.words]
    return walk(torch.stack([_sized(layers, size) for layers in over]).mean(0))


AGGREGATES: Mapping[str, Callable[[Maps, Walk], Channels]] = {
    "layers": by_layers,
    "peaks": by_peaks,
}


@dataclass(frozen=True)
class Preset:
    """Settings with a name.

    Args:
        masks: how.
        source: who does so, and where we differ.
    """

    masks: PseudoMasks
    source: str


PRESETS: Mapping[str, Preset] = {
    "default": Preset(
        PseudoMasks(),
        "attn2mask's rule on the layers of 16 alone, which OVAM's ablation finds best (Marcos-"
        "Manchón et al. 2024, https://arxiv.org/abs/2403.14291).",
    ),
    "attn2mask": Preset(
        PseudoMasks(sizes="all"),
        "Yoshihashi et al. (2023), https://arxiv.org/abs/2309.01369, as OVAM's authors replicate "
        "it. Differs from them in the denoiser's middle layers, which are left out, and in the "
        "dense CRF, which is a setting of its own (crf).",
    ),
    "daam": Preset(
        PseudoMasks(steps=(0.0, 1.0), sizes="all"),
        "Tang et al. (2023), https://arxiv.org/abs/2210.04885: mean over time, threshold 0.4. "
        "Differs in that layers meet at the largest one's size, not at the latents'.",
    ),
    "diffumask": Preset(
        PseudoMasks(steps=(0.0, 1.0), sizes="all", aggregate="peaks", beta=0.1),
        "Wu et al. (2023), https://arxiv.org/abs/2303.11681: mean over time, maps over their "
        "peaks. Differs in the threshold, 0.45, about the middle of those that they try: theirs "
        "is chosen by a trained affinity network.",
    ),
    "dataset_diffusion": Preset(
        PseudoMasks(steps=(0.0, 1.0), beta=-0.1, band=0.1, refine=4),
        "Nguyen et al. (2023), https://arxiv.org/abs/2309.14303: mean over time, four walks, "
        "foreground above 0.6, uncertain from 0.5. Differs in that pixels between two classes can "
        "be uncertain too.",
    ),
}
