"""Where to steer: masks on the latents, 0 to 1."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from activegen.diffusion.attention import normalised, resized
from activegen.diffusion.sampling import Estimate


class Region(ABC):
    """A mask made from what is known in a step."""

    wants_attention: ClassVar[bool] = False

    @abstractmethod
    def mask(self, estimate: Estimate) -> Float[Tensor, "b 1 h w"]:
        """On the latents, 0 to 1."""


@dataclass(frozen=True)
class Everywhere(Region):
    """The whole picture."""

    def mask(self, estimate: Estimate) -> Float[Tensor, "b 1 h w"]:
        """Ones."""
        return torch.ones_like(estimate.clean[:, :1])


EVERYWHERE = Everywhere()


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

    def mask(self, estimate: Estimate) -> Float[Tensor, "b 1 h w"]:
        """From the maps of the steps so far."""
        assert estimate.attention is not None
        size = (estimate.clean.shape[2], estimate.clean.shape[3])
        if self.released_code:
            steps = estimate.level.index + 1
            return 1 + resized(estimate.attention * steps, size).unsqueeze(1)
        maps = normalised(estimate.attention)
        if self.sharpness > 0:
            maps = torch.sigmoid((maps - 0.5) * self.sharpness)
        return resized(maps, size).unsqueeze(1)


ATTENTION = Attention()
