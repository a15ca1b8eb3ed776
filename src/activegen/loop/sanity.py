"""Is it a picture at all? The checks that need no model."""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

# In units of 0..1. Of EuroSAT's 13 500 training tiles the darkest has mean 0.16 and the brightest
# 0.82; the flattest is a lake with a contrast of 0.0029.
BLACK = 0.02
WHITE = 0.98
EMPTY = 0.02  # contrast below which a black or white image shows nothing
FLAT = 0.0015  # 0.4 of an 8-bit level: half of the flattest real tile


def defect(image: UInt8[Tensor, "3 h w"]) -> str:
    """What is broken about an image: "black", "white", "flat", or "" when nothing is.

    Contrast is the standard deviation over space of the channel that varies most, so a plain
    colour has none. Black is a mean below ``BLACK``, white one above ``WHITE``, both with a
    contrast below ``EMPTY`` (a night sky with lights is a picture); flat is any mean with a
    contrast below ``FLAT``.
    """
    values = image.double() / 255
    mean = values.mean().item()
    contrast = values.std(dim=(1, 2), correction=0).max().item()
    if contrast < EMPTY and mean < BLACK:
        return "black"
    if contrast < EMPTY and mean > WHITE:
        return "white"
    return "flat" if contrast < FLAT else ""


def not_finite(values: Float[Tensor, "b *space"]) -> Bool[Tensor, " b"]:
    """Which samples of a batch of latents or float images hold a NaN or an infinity."""
    return ~torch.isfinite(values).flatten(1).all(dim=1)
