"""Scenes whose classes are colours: a block of one in a field of another; and a small segmenter."""

import torch
from torch import Tensor, nn

from activegen.data.scenes import RealScenes
from activegen.tasks.learner import Learner, TrainSettings
from activegen.tasks.seeding import seeded
from activegen.tasks.segmenter import Segmenter

CLASSES = ("forest", "river", "table")
COLOURS = torch.tensor([[0.2, 0.7, 0.2], [0.2, 0.3, 0.8], [0.7, 0.5, 0.3]])
SIZE = 16


def mask(index: int) -> Tensor:
    """A block of one class in a field of another; row 0 is ignored."""
    made = torch.full((SIZE, SIZE), index % 3, dtype=torch.uint8)
    made[4:12, 4:12] = (index + 1) % 3
    made[0] = 255
    return made


def scenes(count: int, split: str) -> RealScenes:
    salt = sum(split.encode())

    def read(index: int) -> Tensor:
        rng = torch.Generator().manual_seed(salt * 1000 + index)
        labels = mask(index).long().masked_fill(mask(index) == 255, 0)
        picture = COLOURS[labels].permute(2, 0, 1) + 0.1 * torch.randn(3, SIZE, SIZE, generator=rng)
        return (picture.clamp(0, 1) * 255).round().to(torch.uint8)

    ids = tuple(f"{split}/{index}" for index in range(count))
    return RealScenes("scenes", CLASSES, ids, read, mask)


def learner() -> Learner:
    settings = TrainSettings(steps=12, batch_size=4, optimiser="adamw", learning_rate=0.02)
    with seeded(0, "learner"):
        layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, len(CLASSES), 1)
        )
        made = Segmenter(layers, len(CLASSES), (SIZE, SIZE))
    return Learner(made, settings, "cpu")
