import math

import pytest
import torch
from torch import nn

import gaussian
from activegen.diffusion.sampling import sample
from activegen.guidance import (
    Adversarial,
    Ascend,
    Attention,
    During,
    Everywhere,
    Informative,
    Inside,
    Labelled,
    MemoryBank,
    Object,
    Repulsion,
    TargetWindow,
    Weighted,
)
from activegen.records import IGNORE, UserError
from activegen.scores import SCORES, entropy, vote_entropy, within
from activegen.tasks.classifier import Classifier
from guidance import seams


def latents(count: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def gradient(objective, clean: torch.Tensor, target: list[int]) -> torch.Tensor:
    clean = clean.clone().requires_grad_()
    objective.value(seams.estimate(clean, target)).sum().backward()
    assert clean.grad is not None
    return clean.grad


STEERABLE = [name for name, score in SCORES.items() if score.differentiable]


@pytest.mark.parametrize("name", STEERABLE)
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
    for objective in [Adversarial(task), *(Informative(task, SCORES[s]) for s in STEERABLE)]:
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


def test_a_score_without_a_gradient_is_refused():
    with pytest.raises(UserError, match=r"vote_entropy> has no gradient.*'disagreement'"):
        Informative(gaussian.Colours(), vote_entropy)
    assert Informative(gaussian.Colours(), lambda prediction, target: prediction.logits[0, :, 0])


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        (-3.0, -2.0, [-1.0, 0.0, -1.0]),
        (-2.0, math.inf, [-2.0, -0.5, 0.0]),
        (-math.inf, -2.0, [0.0, 0.0, -1.0]),
        (-2.0, -2.0, [-2.0, -0.5, -1.0]),
    ],
)
def test_a_target_window_is_minus_the_distance_to_it(low, high, values):
    # minus half the squared distance: -4, -2.5 and -1
    clean = torch.zeros(3, 3, 1, 1)
    clean[:, 0, 0, 0] = torch.tensor([8.0, 5.0, 2.0]).sqrt()
    objective = TargetWindow(low, high, seams.Near(0.0))
    torch.testing.assert_close(
        objective.value(seams.estimate(clean, [0, 0, 0])), torch.tensor(values)
    )
    moved = gradient(objective, clean, [0, 0, 0]).flatten(1).norm(dim=1) > 0
    assert moved[1:].tolist() == [v != 0 for v in values[1:]]
    assert gradient(objective, clean, [0, 0, 0]).isfinite().all()


def test_climbing_into_a_window_ends_there():
    task = gaussian.Colours()

    def reached(*window: float) -> torch.Tensor:
        batch = gaussian.batch(gaussian.World(spread=1.0), ["red", "blue"])
        objective = TargetWindow(*window, Informative(task, entropy)) if window else seams.Near(0)
        term = Ascend("clean", "decoder", (objective,), 0.05 if window else 0.0)
        return seams.final(Informative(task, entropy), sample(batch, [term]), batch)

    above, below = reached()
    assert above > 0.5 and below < 0.3
    assert ((reached(0.3, 0.5) > 0.29) & (reached(0.3, 0.5) < 0.51)).all()
    assert (reached(0.3, math.inf) > 0.29).all()
    assert reached(0.3, math.inf)[0] > 0.5  # nothing holds it there


def test_windows_without_a_meaning():
    with pytest.raises(UserError, match="swap the two"):
        TargetWindow(1.0, 0.0, seams.Near(0.0))
    with pytest.raises(UserError, match="wants nothing"):
        TargetWindow(-math.inf, math.inf, seams.Near(0.0))


def scene(count: int = 2):
    """Pictures of random colours with masks, an object to the left; the last row is ignored."""
    rng = torch.Generator().manual_seed(0)
    clean = torch.rand(count, 3, 4, 6, generator=rng)
    target = torch.randint(3, (count, 4, 6), generator=rng)
    target[:, -1] = IGNORE
    region = torch.zeros(count, 1, 4, 6)
    region[..., :2] = 1
    return clean, target, region


@pytest.mark.parametrize("name", STEERABLE)
def test_inside_counts_the_pixels_of_the_region_alone(name):
    clean, target, region = scene()
    task, score = seams.Pixels(), SCORES[name]
    objective = Inside(Object(), Informative(task, score))
    value = objective.value(seams.estimate(clean, target, region=region))
    expected = score(task.predict(clean), within(target, region))
    torch.testing.assert_close(value, expected)
    cut = score(task.predict(clean[..., :2]), target[..., :2])
    torch.testing.assert_close(value, cut)
    everywhere = Inside(Everywhere(), Informative(task, score))
    torch.testing.assert_close(
        everywhere.value(seams.estimate(clean, target)), score(task.predict(clean), target)
    )


def test_inside_shares_decode_and_prediction():
    clean, target, region = scene()
    task, decoded = seams.Pixels(), []
    estimate = seams.estimate(clean, target, region=region)
    decode = estimate._decode
    estimate._decode = lambda z: decoded.append(1) or decode(z)
    inner = Informative(task, entropy)
    for objective in (Inside(Object(), inner), Inside(Labelled(), inner), inner):
        objective.value(estimate)
    assert (len(decoded), task.calls) == (1, 1)
    assert estimate.target is target


def test_inside_needs_masks_and_reads_attention_where_its_region_does():
    inner = Informative(gaussian.Colours(), entropy)
    with pytest.raises(UserError, match="Inside needs masks"):
        Inside(Everywhere(), inner).value(seams.estimate(torch.rand(1, 3, 4, 4), [0]))
    level = seams.level(0)
    looking = Inside(Attention(), inner)
    assert looking.wants_attention(level)
    assert Weighted(1.0, During(0, 1, Inside(Everywhere(), looking))).wants_attention(level)
    assert not Inside(Object(), inner).wants_attention(level)


def test_attention_of_an_objective_is_recorded():
    batch = seams.of_scenes(gaussian.batch(gaussian.World(), ["red"]))
    looking = Inside(Attention(), Informative(seams.Pixels(), entropy))
    term = Ascend("latents", "decoder", (During(0.5, 1, looking),), 0.05)
    seen = seams.seen(batch, [term])
    assert [estimate.attention is not None for estimate in seen] == [False] * 5 + [True] * 5


def test_masks_have_no_single_class_to_repel():
    clean, target, _ = scene()
    with pytest.raises(UserError, match="mask has several"):
        Repulsion(MemoryBank()).value(seams.estimate(clean, target))


def test_adversarial_is_capped_pixel_by_pixel():
    clean, target, _ = scene()
    task = seams.Pixels()
    value = Adversarial(task, 1.0).value(seams.estimate(clean, target))
    p = task.predict(clean).logits[0].softmax(1)
    losses = -p.gather(1, target.clamp(max=2).unsqueeze(1)).log()[:, 0, :3]
    assert (losses > 1).any() and (losses < 1).any()
    torch.testing.assert_close(value, losses.clamp(max=1).mean((1, 2)))
