"""Our small U-Net: quick on a CPU core, made for scenes of 64 pixels."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (24, 48, 96, 160)  # channels at a half, a quarter, an eighth and a sixteenth of the size
DETAIL = 16  # channels at full size


class SmallUNet(nn.Module):
    """Down to a sixteenth of the size and up again, with a shortcut at each size.

    Ronneberger et al. (2015), https://arxiv.org/abs/1505.04597.
    Differs from them in adding shortcuts instead of joining them, in a single convolution for each
    size, and in seeing full size through one convolution only: all for speed. Ours.

    Args:
        classes: number of output channels.
        dropout: probability of a channel to be dropped in front of the last layer.
    """

    multiple = 16  # of pixels, that the sides of images must be

    def __init__(self, classes: int, dropout: float = 0.1):
        super().__init__()
        self.detail = nn.Conv2d(3, DETAIL, 3, padding=1, bias=False)
        self.down = nn.ModuleList(_block(a, b, stride=2) for a, b in pairwise((3, *WIDTHS)))
        self.bottom = _block(WIDTHS[-1], WIDTHS[-1])
        upwards = list(pairwise(WIDTHS[::-1]))
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in upwards)
        self.up = nn.ModuleList(_block(b, b) for _, b in upwards)
        self.spread = nn.Conv2d(WIDTHS[0], 4 * DETAIL, 1, bias=False)
        self.norm = nn.BatchNorm2d(DETAIL)
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(DETAIL, classes, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes h w"]:
        """Logits of each pixel."""
        images = images.contiguous(memory_format=torch.channels_last)
        levels = [images]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        x = x + self.bottom(x)
        for narrow, up in zip(self.narrow, self.up, strict=True):
            x = functional.interpolate(narrow(x), scale_factor=2.0, mode="nearest")
            x = up(x + levels.pop())
        x = functional.pixel_shuffle(self.spread(x), 2) + self.detail(images)
        return self.head(self.dropout(functional.relu(self.norm(x))))


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
