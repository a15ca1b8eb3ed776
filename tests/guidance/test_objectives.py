import pytest
import torch
from torch import nn

import gaussian
from activegen.diffusion.sampling import sample
from activegen.guidance import (
    Adversarial,
    Ascend,
    During,
    Informative,
    MemoryBank,
    Repulsion,
    Weighted,
)
from activegen.scores import SCORES
from activegen.tasks.classifier import Classifier
from guidance import seams


def latents(count: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def gradient(objective, clean: torch.Tensor, target: list[int]) -> torch.Tensor:
    clean = clean.clone().requires_grad_()
    objective.value(seams.estimate(clean, target)).sum().backward()
    assert clean.grad is not None
    return clean.grad


@pytest.mark.parametrize("name", SCORES)
def test_any_score_is_an_objective(name):
    clean = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    task = gaussian.Colours()
    value = Informative(task, SCORES[name]).value(seams.estimate(clean, [0, 1]))
    torch.testing.assert_close(
        value, SCORES[name](task.predict(clean), torch.tensor([0, 1])), atol=1e-6, rtol=1e-5
    )


def test_one_decode_and_one_prediction_serve_all_objectives():
    task = gaussian.Colours()
    decoded = []
    estimate = seams.estimate(torch.rand(2, 3, 4, 4), [0, 1])
    decode = estimate._decode
    estimate._decode = lambda z: decoded.append(1) or decode(z)
    for objective in [Adversarial(task), *(Informative(task, s) for s in SCORES.values())]:
        objective.value(estimate)
    assert (len(decoded), task.calls) == (1, 1)


def test_adversarial_is_capped():
    clean = torch.stack([torch.full((3, 4, 4), 0.5), torch.zeros(3, 4, 4)])
    clean[1, 2] = 0.8  # blue
    objective = Adversarial(gaussian.Colours(), cap=2.0)
    value = objective.value(seams.estimate(clean, [0, 0]))
    torch.testing.assert_close(value, torch.tensor([1.0986, 2.0]), atol=1e-4, rtol=0)
    moved = gradient(objective, clean, [0, 0])
    assert moved[0].abs().max() > 0
    assert moved[1].abs().max() == 0


class Sees(nn.Module):
    """A network that keeps its input."""

    def forward(self, images):
        self.images = images.detach()
        return images.mean((2, 3))


def test_the_classifier_normalises_and_nobody_else():
    network = Sees()
    task = Classifier(network, 3, None, (0.5,) * 3, (0.25,) * 3)
    clean = torch.stack([torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), 7.0)])
    Adversarial(task).value(seams.estimate(clean, [0, 0]))
    assert torch.equal(network.images[0], torch.zeros(3, 4, 4))  # grey is its normalised grey
    assert torch.equal(network.images[1], torch.full((3, 4, 4), 2.0))  # white, no whiter


@pytest.mark.parametrize("scale", [0.7, 1.0, 5.0])
def test_strangers_are_at_relative_distance_one(scale):
    bank = MemoryBank.of([(0, z) for z in latents(20, 0, scale)])
    value = Repulsion(bank, margin=2.0).value(seams.estimate(latents(4, 1, scale), [0] * 4))
    torch.testing.assert_close(value, torch.full((4,), -1.0), atol=0.03, rtol=0)
    far = Repulsion(bank, margin=0.9).value(seams.estimate(latents(4, 1, scale), [0] * 4))
    assert torch.equal(far, torch.zeros(4))


def test_a_near_copy_is_repelled():
    bank = MemoryBank.of([(0, z) for z in latents(5, 0)])
    copy = bank.latents[0][:1] + 1e-3 * latents(1, 9)
    objective = Repulsion(bank)
    for _ in range(20):
        g = gradient(objective, copy, [0])
        assert g.isfinite().all() and g.norm() > 0
        copy = copy + g / g.norm()
    away = (copy - bank.latents[0][0]).norm() / (bank.spread * (2 * copy.numel()) ** 0.5)
    assert away > 0.2


def test_an_exact_copy_has_a_finite_gradient_and_flees_the_others():
    bank = MemoryBank.of([(0, z) for z in latents(5, 0)])
    objective = Repulsion(bank, margin=1.5)
    copy = bank.latents[0][:1]
    assert objective.value(seams.estimate(copy, [0])) == pytest.approx(-0.7, abs=0.05)
    g = gradient(objective, copy, [0])
    assert g.isfinite().all() and g.norm() > 0
    single = MemoryBank.of([(0, copy[0])])
    assert torch.equal(gradient(Repulsion(single), copy, [0]), torch.zeros_like(copy))


def test_a_class_without_latents_is_not_moved():
    world = gaussian.World()
    bank = seams.bank(world)
    bank = MemoryBank({k: v for k, v in bank.latents.items() if k == 0}, bank.spread)
    value = Repulsion(bank, 1.5).value(seams.estimate(bank.latents[0][:2], [0, 1]))
    assert value[0] < 0 and value[1] == 0
    guidance = [Ascend("conditioning", "denoiser", (Repulsion(bank, 1.5),), 0.05)]
    plain = sample(gaussian.batch(world, ["red", "green"])).latents
    moved = sample(gaussian.batch(world, ["red", "green"]), guidance).latents
    assert not torch.equal(moved[0], plain[0])
    assert torch.equal(moved[1], plain[1])


def test_an_empty_bank_costs_nothing():
    world = seams.Notes()
    guidance = [Ascend("latents", "denoiser", (Repulsion(MemoryBank()),), 0.05)]
    drawn = sample(gaussian.batch(world, ["red"]), guidance)
    assert all(world.inference)
    assert torch.equal(drawn.latents, sample(gaussian.batch(world, ["red"])).latents)


def test_weighted():
    near = seams.Near(0.5)
    clean = torch.rand(2, 3, 4, 4)
    estimate = seams.estimate(clean, [0, 1])
    torch.testing.assert_close(Weighted(-0.1, near).value(estimate), -0.1 * near.value(estimate))
    assert Weighted(1.0, near).active(seams.level(0))
    assert not Weighted(0.0, near).active(seams.level(0))
    assert not Weighted(1.0, During(0.5, 1, near)).active(seams.level(0))
