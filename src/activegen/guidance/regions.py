"""Where to steer: masks on latents or pictures, 0 to 1."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from activegen.diffusion.attention import normalised, resized
from activegen.diffusion.sampling import Estimate
from activegen.records import IGNORE, UserError

Size = tuple[int, int]


class Region(ABC):
    """A mask made from what is known in a step."""

    wants_attention: ClassVar[bool] = False

    @abstractmethod
    def sized(self, estimate: Estimate, size: Size) -> Float[Tensor, "b 1 h w"]:
        """With this height and width, 0 to 1."""

    def mask(self, estimate: Estimate) -> Float[Tensor, "b 1 h w"]:
        """On the latents, 0 to 1."""
        return self.sized(estimate, (estimate.clean.shape[2], estimate.clean.shape[3]))


@dataclass(frozen=True)
class Everywhere(Region):
    """The whole picture."""

    def sized(self, estimate: Estimate, size: Size) -> Float[Tensor, "b 1 h w"]:
        """Ones."""
        return estimate.clean.new_ones(len(estimate.clean), 1, *size)


EVERYWHERE = Everywhere()


@dataclass(frozen=True)
class Object(Region):
    """The object that is drawn anew: ``Batch.region``, its share in each latent.

    Kniesel et al. (2025), https://arxiv.org/abs/2503.09221, outline such objects in Figure 3; how
    they come to the latents' size is not known to us, the share is ours.

    Raises:
        UserError: in a step of a batch without a region.
    """

    def sized(self, estimate: Estimate, size: Size) -> Float[Tensor, "b 1 h w"]:
        """Mean over the pixels of each place."""
        if estimate.region is None:
            raise UserError(
                "no object is marked in these images; ask for an object of a mask (part 1 and on), "
                "or take another region"
            )
        return _shares(estimate.region.to(estimate.clean), size)


OBJECT = Object()


@dataclass(frozen=True)
class Background(Region):
    """All but the object that is drawn anew.

    Raises:
        UserError: in a step of a batch without a region.
    """

    def sized(self, estimate: Estimate, size: Size) -> Float[Tensor, "b 1 h w"]:
        """One minus the object."""
        return 1 - OBJECT.sized(estimate, size)


BACKGROUND = Background()


@dataclass(frozen=True)
class Labelled(Region):
    """Where the mask has a class: not 255. Ours.

    Raises:
        UserError: in a step of a batch whose targets are no masks.
    """

    def sized(self, estimate: Estimate, size: Size) -> Float[Tensor, "b 1 h w"]:
        """Share of the labelled pixels of each place."""
        if estimate.target.ndim == 1:
            raise UserError("the labelled region needs masks for targets, and these are classes")
        return _shares((estimate.target != IGNORE).unsqueeze(1).to(estimate.clean), size)


@dataclass(frozen=True)
class Attention(Region):
    """Where the class word looks: the running mean of its cross-attention, 0 to 1 per image.

    Huang et al. (2024), https://arxiv.org/abs/2403.06517, m_t. Differs from their code, whose mask
    starts at ones, adds raw attention of both halves of classifier-free guidance, and reads the
    fifth token whatever the word: it never falls below 1, so it masks nothing. ``released_code``
    reproduces that floor.

    Args:
        sharpness: 0 = as it is; above, a sigmoid of this slope around one half.
        released_code: ones plus the attention summed over the steps, as in their repository.
    """

    wants_attention: ClassVar[bool] = True
    sharpness: float = 0.0
    released_code: bool = False

    def sized(self, estimate: Estimate, size: Size) -> Float[Tensor, "b 1 h w"]:
        """From the maps of the steps so far."""
        assert estimate.attention is not None
        if self.released_code:
            steps = estimate.level.index + 1
            return 1 + resized(estimate.attention * steps, size).unsqueeze(1)
        maps = normalised(estimate.attention)
        if self.sharpness > 0:
            maps = torch.sigmoid((maps - 0.5) * self.sharpness)
        return resized(maps, size).unsqueeze(1)


ATTENTION = Attention()


def _shares(mask: Float[Tensor, "b 1 height width"], size: Size) -> Float[Tensor, "b 1 h w"]:
    return F.interpolate(mask, size, mode="area")
