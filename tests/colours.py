"""A data set whose classes are colours, and all parts of a loop around it, in seconds on a CPU."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import tiny
from activegen.data.fingerprints import thumbnail
from activegen.data.images import RealImages
from activegen.data.prompts import Prompts
from activegen.diffusion.sampling import Sampling, Term
from activegen.guidance import (
    Adversarial,
    Ascend,
    During,
    ReferencePull,
    Repulsion,
    Weighted,
)
from activegen.loop.classifying import Classifying
from activegen.loop.judging import Believed, Judge, trusting
from activegen.loop.mining import MiningSettings
from activegen.loop.parts import Learners, Parts
from activegen.loop.proposing import ProposalSettings
from activegen.loop.settings import ArmSettings, LoopSettings
from activegen.records import Images, Prediction
from activegen.tasks.classifier import Classifier
from activegen.tasks.learner import Learner, TrainSettings
from activegen.tasks.seeding import seeded

CLASSES = ("forest", "river", "table")
COLOURS = torch.tensor([[0.2, 0.7, 0.2], [0.2, 0.3, 0.8], [0.7, 0.5, 0.3]])
SIZE = 16


def images(count: int, split: str) -> RealImages:
    """``count`` noisy pictures of each class; every second "forest" is as blue as a river."""
    labels = tuple(label for label in range(len(CLASSES)) for _ in range(count))
    salt = sum(split.encode())

    def read(index: int) -> Tensor:
        rng = torch.Generator().manual_seed(salt * 10_000 + index)
        label = labels[index]
        colour = COLOURS[1 if label == 0 and index % 2 else label].view(3, 1, 1)
        picture = colour + 0.15 * torch.randn(3, SIZE, SIZE, generator=rng)
        return (picture.clamp(0, 1) * 255).round().to(torch.uint8)

    ids = tuple(f"{split}/{index}" for index in range(len(labels)))
    return RealImages("colours", CLASSES, ids, labels, read)


def network(classes: int) -> nn.Module:
    """A linear model of the mean colour and its square."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


def learner(steps: int = 24) -> Learner:
    """Untrained, always the same."""
    settings = TrainSettings(
        steps=steps, batch_size=8, optimiser="adamw", learning_rate=0.02, ema_decay=0.9
    )
    with seeded(0, "learner"):
        made = Classifier(network(len(CLASSES)), len(CLASSES), None, (0.5,) * 3, (0.25,) * 3)
    return Learner(made, settings, "cpu")


class Moody:
    """Judges by the sum of all pixels alone: is sure of a class, or in every fourth case unsure."""

    def predict(self, images: Images) -> Prediction:
        mood = (images * 255).round().flatten(1).sum(1).long() % 4
        sure = torch.nn.functional.one_hot(mood, 4)[:, :3] * 20.0
        return Prediction(sure.unsqueeze(0))


def steering(learners: Learners) -> Mapping[str, Sequence[Term]]:
    """The four terms of Huang et al. (2024)."""
    repulsion = During(0, 0.5, Repulsion(learners.bank))
    attack = During(0, 0.5, Weighted(0.1, Adversarial(learners.main)))

    def ascend(*objectives: Any) -> Ascend:
        return Ascend("conditioning", "denoiser", objectives, step=0.05)

    return {
        "plain": (),
        "guided": (ReferencePull(), ascend(repulsion)),
        "adversarial": (ReferencePull(), ascend(repulsion, attack)),
    }


def task(
    mining: MiningSettings | None = None, proposal: ProposalSettings | None = None
) -> Classifying:
    """Of these classes."""
    prompts = Prompts(("a photo of {word}",), {name: (name,) for name in CLASSES})
    return Classifying(
        SIZE, prompts, mining or MiningSettings(folds=2), proposal or ProposalSettings(budget=6)
    )


def parts(**changes: Any) -> Parts:
    """Three rounds of which two generate six images each."""
    train, test = images(6, "train"), images(10, "test")
    forbidden = thumbnail(torch.stack([test.image(i) for i in range(len(test))]))
    real = thumbnail(torch.stack([train.image(i) for i in range(len(train))]))

    def judge(settings: ArmSettings) -> Judge:
        if not settings.judge:
            return trusting(forbidden)
        return Judge(Believed(Moody(), 0.2), forbidden, real)

    mining = changes.get("mining", MiningSettings(folds=2))
    proposal = changes.pop("proposal", ProposalSettings(budget=6))
    made = Parts(
        task=task(mining, proposal),
        train=train,
        test=test,
        learner=learner,
        model=tiny.model,
        sampling=Sampling(num_steps=4, cfg_scale=2.0),
        steering=steering,
        decoder=lambda model: None,
        judge=judge,
        loop=LoopSettings(rounds=3, generate_until=0.67, batch=2),
        mining=mining,
    )
    return replace(made, **changes)
