"""Task models trained as the generators' measures and their decoders' critics want them."""

import torch
from jaxtyping import Integer, UInt8
from torch import Tensor

from activegen.tasks.learner import Learner, TrainSettings
from activegen.tasks.networks import build
from activegen.tasks.pool import Pool
from activegen.tasks.seeding import seeded
from activegen.tasks.segmenters import build_segmenter
from activegen.tasks.task_network import TaskNetwork


def real_pool(images: UInt8[Tensor, "n 3 h w"], labels: Integer[Tensor, "n *space"]) -> Pool:
    """Of real images, each with weight 1."""
    return Pool(images, labels, torch.ones(len(labels)), torch.zeros(len(labels)).bool())


def untrained(network: str, classes: int, size: int, masks: bool) -> TaskNetwork:
    """A classifier, or a segmenter where there are masks, by name."""
    return (build_segmenter if masks else build)(network, classes, size)


def trained(
    pool: Pool, classes: int, steps: int, device: str, start: str, network: str = "small"
) -> TaskNetwork:
    """The averaged network after ``steps``; ``start`` names its first weights."""
    masks = pool.labels.ndim > 1
    settings = TrainSettings(
        steps=steps,
        batch_size=32 if masks else 64,
        optimiser="adamw",
        learning_rate=2e-3,
        weight_decay=0.05,
        warmup_steps=min(100, steps),
        ema_decay=0.99,
        augmentation="flips" if masks else "land_cover",
        amp="auto",
    )
    with seeded(0, start):
        made = untrained(network, classes, pool.images.shape[-1], masks)
        learner = Learner(made, settings, device)
    learner.train(pool, steps)
    return learner.averaged
