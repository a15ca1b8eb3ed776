"""Draw an object anew and keep the rest of the real image."""

import math
from dataclasses import dataclass

from activegen.diffusion.sampling import Batch, Steering
from activegen.guidance.reference_pull import ReferencePull
from activegen.guidance.regions import BACKGROUND


@dataclass(frozen=True)
class Inpaint:
    """After each step, the background is the reference at the same noise level.

        latents = object * latents + (1 - object) * reference_t

    The blend of diffusers' inpainting pipeline for models without an inpainting denoiser, after
    Lugmayr et al. (2022), RePaint, https://arxiv.org/abs/2201.09865, Equation 8; with the noise of
    the start at every level, as diffusers has it. ``Recurrence`` mends seams. Short for
    ``ReferencePull(mask=Background(), until=math.inf)``.
    """

    def begin(self, batch: Batch) -> Steering:
        """For one batch.

        Raises:
            UserError: the batch has no references.
        """
        return ReferencePull(BACKGROUND, until=math.inf).begin(batch)
