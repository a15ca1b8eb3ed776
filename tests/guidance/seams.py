"""What the tests of guidance stand on: plain objectives, a world that takes notes, final values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import gaussian
from activegen.diffusion.levels import Level
from activegen.diffusion.sampling import (
    Batch,
    Drawn,
    Estimate,
    Sampling,
    Steering,
    Term,
    sample,
)
from activegen.guidance import (
    Ascend,
    MemoryBank,
    Objective,
    ReferencePull,
    SegmentConsistency,
)
from activegen.records import IGNORE, Prediction


class Notes(gaussian.World):
    """Notes for every call of the denoiser whether it was in inference mode."""

    def __init__(self, spread: float = 0.1, size: int = 4):
        super().__init__(spread, size)
        self.inference: list[bool] = []

    def denoise(self, *args, **kwargs):
        self.inference.append(torch.is_inference_mode_enabled())
        return super().denoise(*args, **kwargs)


@dataclass(frozen=True, eq=False)
class Linear(Objective):
    """The sum of the clean latents, weighed."""

    weights: Tensor

    def value(self, estimate: Estimate) -> Tensor:
        return (estimate.clean * self.weights).flatten(1).sum(1)


@dataclass(frozen=True)
class Near(Objective):
    """Minus half the squared distance to a constant."""

    goal: float

    def value(self, estimate: Estimate) -> Tensor:
        return -0.5 * (estimate.clean - self.goal).square().flatten(1).sum(1)


@dataclass
class Pixels:
    """A segmenter: logits are minus the squared distance of a pixel's colour, times sharpness."""

    sharpness: float = 10.0
    calls: int = 0

    def predict(self, images: Tensor) -> Prediction:
        self.calls += 1
        colours = torch.tensor(list(gaussian.COLOURS.values())).view(1, 3, 3, 1, 1)
        logits = -self.sharpness * (images.unsqueeze(1) - colours).square().sum(2)
        return Prediction(logits.unsqueeze(0), images.unsqueeze(0))


def of_scenes(batch: Batch) -> Batch:
    """The same with masks: the class of the image to the left, which is the object; the next class
    to the right; nothing in the last row.
    """
    size = batch.noise.shape[2:]
    target = batch.target.view(-1, 1, 1).repeat(1, *size)
    target[..., size[1] // 2 :] = (target[..., size[1] // 2 :] + 1) % len(gaussian.NAMES)
    target[:, -1] = IGNORE
    region = torch.zeros(len(target), 1, *size)
    region[..., : size[1] // 2] = 1
    return replace(batch, target=target, region=region)


class Spy:
    """A term around another that keeps what its steering was given."""

    def __init__(self, inner: Term):
        self.inner, self.gradients, self.clean = inner, [], []

    def begin(self, batch: Batch) -> Steering:
        steering = self.inner.begin(batch)
        move = steering.move

        def spied(estimate, gradient):
            self.gradients.append(gradient.clone())
            self.clean.append(estimate.clean.detach().clone())
            return move(estimate, gradient)

        steering.move = spied
        return steering


def level(index: int = 5, count: int = 10) -> Level:
    """One of the Gaussian world's."""
    return gaussian.batch(gaussian.World(), sampling=Sampling(count)).solver().levels[index]


def estimate(
    clean: Tensor,
    target: Sequence[int] | Tensor,
    attention: Tensor | None = None,
    region: Tensor | None = None,
) -> Estimate:
    """By hand, half-way."""
    world = gaussian.World()
    words = ["red"] * len(clean)
    conditioning = world.condition(words, words)
    wanted = torch.as_tensor(target)
    return Estimate(level(), clean, clean, conditioning, attention, wanted, world.full, region)


def final(objective: Objective, drawn: Drawn, batch: Batch) -> Tensor:
    """The objective of what was drawn."""
    last = batch.solver().levels[-1]
    whole = Estimate(
        last,
        drawn.latents,
        drawn.latents,
        batch.conditioning,
        None,
        batch.target,
        batch.model.full,
        batch.region,
    )
    return objective.value(whole)


def seen(batch: Batch, guidance: Sequence[Term] = ()) -> list[Estimate]:
    """Every step's estimate."""
    estimates: list[Estimate] = []
    sample(batch, guidance, on_step=estimates.append)
    return estimates


def bank(world: gaussian.World, count: int = 6) -> MemoryBank:
    """Pictures of each class, as the world draws them."""
    rng = torch.Generator().manual_seed(7)
    pairs = []
    for target, colour in enumerate(gaussian.COLOURS.values()):
        for _ in range(count):
            noise = torch.randn(world.noise_shape, generator=rng)
            pairs.append((target, torch.tensor(colour).view(3, 1, 1) + world.spread * noise))
    return MemoryBank.of(pairs)


def checked_with(term: Ascend | ReferencePull | SegmentConsistency, **words: str) -> None:
    """The term's own check of words, which the tests' type checker would forestall."""
    for name, word in words.items():
        object.__setattr__(term, name, word)
    term.__post_init__()
