"""From latents to pictures: the model's own decoder, and cheap ones for gradients.

The decoder, not the denoiser, dominates the cost of guidance that stops at the clean latents.
"""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from jaxtyping import Float
from torch import Tensor

from activegen.records import Images, Latents, UserError


@runtime_checkable
class Decoder(Protocol):
    """Differentiable; not clamped. Task models see the pictures clamped."""

    def __call__(self, latents: Latents) -> Images:
        """RGB, about 0 to 1, for latents as the diffusion model sees them."""
        ...


class FullDecoder:
    """The model's own autoencoder."""

    def __init__(self, vae: Any):
        self.vae = vae

    def __call__(self, latents: Latents) -> Images:
        """RGB, about 0 to 1."""
        shift = self.vae.config.shift_factor or 0.0
        latents = latents / self.vae.config.scaling_factor + shift
        dtype = next(self.vae.parameters()).dtype
        return self.vae.decode(latents.to(dtype)).sample.float() / 2 + 0.5


class LinearDecoder:
    """Each patch of pixels as a linear map of the 3 by 3 latents around it.

    Args:
        weight: (3 * patch², channels * 9).
        bias: (3 * patch²,).
        patch: pixels per latent.
    """

    def __init__(self, weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"], patch: int):
        self.weight, self.bias, self.patch = weight, bias, patch

    def __call__(self, latents: Latents) -> Images:
        """RGB, about 0 to 1."""
        near = F.unfold(F.pad(latents.float(), (1, 1, 1, 1), mode="replicate"), 3)
        pixels = torch.einsum("oi,bil->bol", self.weight, near) + self.bias.view(-1, 1)
        return F.pixel_shuffle(pixels.unflatten(2, latents.shape[2:]), self.patch)

    @classmethod
    @torch.no_grad()
    def fit(cls, latents: Latents, images: Images) -> "LinearDecoder":
        """The least-squares map for pairs of latents and their pictures."""
        patch = images.shape[-1] // latents.shape[-1]
        near = F.unfold(F.pad(latents.float(), (1, 1, 1, 1), mode="replicate"), 3)
        inputs = near.transpose(1, 2).flatten(0, 1)
        inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1)
        outputs = F.pixel_unshuffle(images.float(), patch).flatten(2).transpose(1, 2).flatten(0, 1)
        # the only driver that takes inputs of any rank, and it is on the CPU
        solution = torch.linalg.lstsq(inputs.cpu(), outputs.cpu(), driver="gelsd").solution
        solution = solution.to(latents.device)
        return cls(solution[:-1].T.contiguous(), solution[-1].contiguous(), patch)


class TinyDecoder(FullDecoder):
    """An ``AutoencoderTiny`` of diffusers (TAESD and its like), by path.

    Raises:
        UserError: there is none, or its weights are not safetensors.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu"):
        try:
            vae: Any = AutoencoderTiny.from_pretrained(path, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise UserError(
                f"no tiny autoencoder with safetensors weights at '{path}': {error}"
            ) from error
        super().__init__(vae.to(device).eval().requires_grad_(False))
