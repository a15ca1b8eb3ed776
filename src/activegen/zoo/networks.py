"""Our small classifier, trained as the generator's measures and its decoder's critics want it."""

import torch
from torch import Tensor

from activegen.tasks.classifier import Classifier
from activegen.tasks.learner import Learner, TrainSettings
from activegen.tasks.networks import build
from activegen.tasks.pool import Pool
from activegen.tasks.seeding import seeded


def real_pool(images: Tensor, labels: Tensor) -> Pool:
    """Of real images, each with weight 1."""
    return Pool(images, labels, torch.ones(len(labels)), torch.zeros(len(labels)).bool())


def trained(
    pool: Pool, classes: int, steps: int, device: str, start: str, network: str = "small"
) -> Classifier:
    """The averaged network after ``steps``; ``start`` names its first weights."""
    settings = TrainSettings(
        steps=steps,
        optimiser="adamw",
        learning_rate=2e-3,
        weight_decay=0.05,
        warmup_steps=100,
        ema_decay=0.99,
        augmentation="land_cover",
        amp="bf16",
    )
    with seeded(0, start):
        learner = Learner(build(network, classes, pool.images.shape[-1]), settings, device)
    learner.train(pool, steps)
    return learner.averaged
