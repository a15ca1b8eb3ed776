import pytest
import torch
from torch import Tensor

import gaussian
from activegen.diffusion.sampling import Sampling, sample
from activegen.guidance import During, Everywhere, ReferencePull
from activegen.records import UnknownWord, UserError
from guidance import seams

WHOLE = ReferencePull(Everywhere(), until=2.0)
ANCESTRAL = ReferencePull(Everywhere(), until=2.0, trajectory="ancestral")
DDPM = Sampling(40, 1.0, "ddpm")


def reference(count: int = 1, size: int = 4) -> Tensor:
    rng = torch.Generator().manual_seed(11)
    return torch.rand(count, 3, size, size, generator=rng)


def batch(sampling: Sampling, words=("red",), world=None, size: int = 4, of: Tensor | None = None):
    world = world or gaussian.World(size=size)
    of = reference(len(words), size) if of is None else of
    return gaussian.batch(world, words, None, sampling, of)


@pytest.mark.parametrize(
    ("step", "weight"),
    [(0, 1.0), (8, 0.989), (12, 0.62), (13, 0.38), (16, 0.03), (20, 0.0006), (39, 0.0)],
)
def test_the_weights_of_the_paper(step, weight):
    assert ReferencePull().weight(step / 40) == pytest.approx(weight, abs=0.005)
    assert ReferencePull(strength=0.5).weight(step / 40) == pytest.approx(weight / 2, abs=0.005)


@pytest.mark.parametrize("strength", [1.0, 0.002])
def test_it_stops_where_it_is_negligible(strength):
    steering = ReferencePull(strength=strength).begin(batch(Sampling(40)))
    levels = batch(Sampling(40)).solver().levels
    assert [steering.active(level) for level in levels] == [index < 18 for index in range(40)]


@pytest.mark.parametrize(
    "scheduler", ["ddim", "ddpm", "dpm++_2m", "euler", "euler_ancestral", "unipc"]
)
def test_the_deterministic_trajectory_has_the_first_noise_at_every_level(scheduler):
    drawn = batch(Sampling(10, 1.0, scheduler))
    for estimate in seams.seen(drawn, [WHOLE])[1:]:
        expected = estimate.level.noised(reference(), drawn.noise)
        torch.testing.assert_close(estimate.latents, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("term", [WHOLE, ANCESTRAL], ids=["deterministic", "ancestral"])
@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "euler", "euler_ancestral", "unipc"])
def test_at_full_strength_to_the_end_it_is_the_reference(term, scheduler):
    drawn = sample(batch(Sampling(10, 1.0, scheduler)), [term])
    torch.testing.assert_close(drawn.latents, reference(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scheduler", ["dpm++_2m", "euler", "unipc"])
def test_a_pull_by_half_comes_as_near_with_every_solver(scheduler):
    """A wide prior keeps what is done to the latents."""

    def share(name: str) -> float:
        """Of the unguided distance."""
        drawn = batch(Sampling(10, 1.0, name), world=gaussian.World(0.5))
        pull = ReferencePull(Everywhere(), until=0.5, strength=0.5)
        far, near = ((sample(drawn, of).latents - reference()).norm() for of in ([], [pull]))
        return float(near / far)

    assert share(scheduler) == pytest.approx(share("ddim"), abs=0.03)
    assert share("ddim") < 0.9


def test_the_ancestral_trajectory_has_the_marginals_of_the_forward_process():
    drawn = batch(DDPM, ["red"] * 8, size=24, of=torch.full((8, 3, 24, 24), 0.7))
    seen = seams.seen(drawn, [ANCESTRAL])
    for estimate in seen[12:]:
        level, noise = estimate.level, estimate.latents - estimate.level.alpha * 0.7
        assert noise.mean().abs() < 0.03  # 14 thousand numbers: 0.008, and what the start left
        assert noise.std() == pytest.approx(level.sigma, abs=0.02)
    first, last = (e.latents - e.level.alpha * 0.7 for e in (seen[12], seen[36]))
    both = torch.stack([first.flatten(), last.flatten()])
    assert torch.corrcoef(both)[0, 1].abs() < 0.5  # fresh noise on the way


def test_the_ancestral_trajectory_shares_the_noise_of_the_main_chain():
    """A prior without spread draws just its colour, which is then the way of the reference."""
    colour = torch.tensor(gaussian.COLOURS["red"]).view(1, 3, 1, 1).expand(1, 3, 4, 4)

    def run(*guidance):
        return seams.seen(batch(DDPM, of=colour, world=gaussian.World(0.0)), guidance)

    plain, pulled = run(), run(ANCESTRAL)
    late = run(During(0.5, 1, ANCESTRAL))  # the steps in which nobody asked count as well
    for index in range(40):
        torch.testing.assert_close(pulled[index].latents, plain[index].latents)
        torch.testing.assert_close(late[index].latents, plain[index].latents)
    straight = run(WHOLE)
    assert not torch.allclose(straight[20].latents, plain[20].latents, atol=0.1)


def test_the_mask_says_where():
    """The class word looks left; the pixels of this prior do not know each other."""
    plain = sample(batch(Sampling(10, 1.0))).latents
    pulled = sample(batch(Sampling(10, 1.0)), [ReferencePull(until=2.0)]).latents
    torch.testing.assert_close(pulled[..., :2], reference()[..., :2])
    assert torch.equal(pulled[..., 2:], plain[..., 2:])


def test_a_longer_pull_keeps_more_of_the_reference():
    def distance(until: float) -> float:
        drawn = sample(batch(Sampling(40, 1.0)), [ReferencePull(Everywhere(), until)])
        return float((drawn.latents - reference()).norm())

    assert distance(0.9) < distance(0.6) < distance(0.3)


def test_without_a_reference():
    with pytest.raises(UserError, match="needs a reference image"):
        sample(gaussian.batch(gaussian.World()), [ReferencePull()])


def test_numbers_out_of_range_and_unknown_words():
    with pytest.raises(UserError, match="0 to 1"):
        ReferencePull(strength=1.5)
    with pytest.raises(UserError, match="more than 0"):
        ReferencePull(width=0.0)
    with pytest.raises(UnknownWord, match="Did you mean 'ancestral'"):
        seams.checked_with(ReferencePull(), trajectory="ancestor")
