from dataclasses import dataclass

import pytest
import torch

import gaussian
from activegen.diffusion.levels import SCHEDULERS
from activegen.diffusion.sampling import Move, Sampling, Steering, sample
from activegen.guidance import Ascend, During, Every, Recurrence
from activegen.guidance.recurrence import ONE_STEP
from activegen.records import UserError
from guidance import seams


@pytest.mark.parametrize("name", ONE_STEP)
def test_one_pass_changes_nothing(name):
    sampling = Sampling(6, 1.0, name)
    plain = sample(gaussian.batch(gaussian.World(), ["red", "blue"], sampling=sampling))
    once = sample(
        gaussian.batch(gaussian.World(), ["red", "blue"], sampling=sampling), [Recurrence(1)]
    )
    assert torch.equal(once.latents, plain.latents)
    assert once.calls == 6


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "euler_ancestral", "lcm"])
def test_every_pass_starts_at_the_level_of_its_step(name):
    """A prior without spread has a perfect denoiser, whatever the solver and its units."""
    world = gaussian.World(spread=0.0, size=48)
    batch = gaussian.batch(world, ["red"], sampling=Sampling(12, 1.0, name))
    colour = torch.tensor(gaussian.COLOURS["red"]).view(1, 3, 1, 1)
    seen = seams.seen(batch, [Recurrence(3)])
    assert len(seen) == 36
    for estimate in seen:
        noise = (estimate.latents - estimate.level.alpha * colour) / estimate.level.sigma
        assert noise.mean().abs() < 0.05 and noise.std() == pytest.approx(1.0, abs=0.04)


@dataclass(frozen=True)
class Push(Steering):
    """The same change of the latents in each pass."""

    change: float

    def begin(self, batch):
        return self

    def gradient(self, level):
        return "latents", "decoder"

    def objective(self, estimate):
        return estimate.clean.flatten(1).sum(1)

    def move(self, estimate, gradient):
        change = self.change * torch.ones_like(gradient)
        return Move(estimate.latents + change, estimate.clean + change / estimate.level.alpha)


@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_each_pass_keeps_of_the_earlier_moves_what_the_model_believes(name):
    """In the Gaussian world: change * (keep + keep² + ...) at the start of each pass."""
    world = gaussian.World(spread=0.5)

    def latents(*guidance) -> list[torch.Tensor]:
        batch = gaussian.batch(world, sampling=Sampling(20, 1.0, name))
        seen = seams.seen(batch, [During(0.5, 0.55, term) for term in guidance])
        return [e.latents for e in seen if e.level.index == 10]

    plain, pushed = latents(Recurrence(5)), latents(Push(0.1), Recurrence(5))
    now, then = gaussian.batch(world, sampling=Sampling(20, 1.0, name)).solver().levels[10:12]
    share, gain = now.alpha / then.alpha, now.alpha * world.gain(now)
    keep = gain + share * then.sigma / now.sigma * (1 - gain)
    # a move keeps the noise estimate: of itself nothing is lost
    moved, expected = 0.0, []
    for _ in range(5):
        expected.append(moved)
        moved = keep * moved + 0.1
    for before, after, distance in zip(plain, pushed, expected, strict=True):
        torch.testing.assert_close(
            after - before, torch.full_like(before, distance), atol=1e-4, rtol=1e-3
        )
    assert 0.1 < expected[2] < expected[4]


def test_a_level_without_signal_is_fresh_noise():
    world = gaussian.World(prediction="v_prediction")
    world.scheduler = type(world.scheduler).from_config(
        world.scheduler.config, rescale_betas_zero_snr=True
    )
    seen = seams.seen(gaussian.batch(world, sampling=Sampling(4, 1.0)), [Recurrence(2)])
    assert len(seen) == 8 and seen[0].level.index == seen[1].level.index == 0
    assert abs(torch.corrcoef(torch.stack([e.latents.flatten() for e in seen[:2]]))[0, 1]) < 0.6
    assert all(estimate.latents.isfinite().all() for estimate in seen)


@pytest.mark.parametrize("through", ["denoiser", "decoder"])
@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler"])
def test_more_passes_of_a_step_come_nearer_to_the_goal(name, through):
    wanted, words, seeds = seams.Near(0.5), ["red", "green", "blue"] * 4, list(range(12))

    def reached(times: int) -> torch.Tensor:
        world = gaussian.World(spread=0.5)
        batch = gaussian.batch(world, words, seeds, Sampling(10, 1.0, name))
        values = []
        for step in (0.0, 0.05):  # with the same noise
            guidance = [Ascend("latents", through, (wanted,), step), Recurrence(times)]
            drawn = sample(batch, [During(0.6, 0.7, term) for term in guidance])
            values.append(seams.final(wanted, drawn, batch))
        return (values[1] - values[0]).mean()

    one, two, four = reached(1), reached(2), reached(4)
    assert 0 < one < two < four


def test_windows_and_the_count_of_calls():
    def levels(*guidance) -> list[int]:
        batch = gaussian.batch(gaussian.World(), sampling=Sampling(5, 1.0))
        seen = seams.seen(batch, guidance)
        assert sample(batch, guidance).calls == len(seen)
        return [estimate.level.index for estimate in seen]

    assert levels(During(0.2, 0.6, Recurrence(3))) == [0, 1, 1, 1, 2, 2, 2, 3, 4]
    assert levels(Every(2, Recurrence(2))) == [0, 0, 1, 2, 2, 3, 4, 4]
    assert levels(Recurrence(2), During(0.8, 1, Recurrence(3))) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]


@pytest.mark.parametrize("name", sorted(set(SCHEDULERS) - set(ONE_STEP)))
def test_solvers_that_remember_are_refused(name):
    world = gaussian.World()
    batch = gaussian.batch(world, sampling=Sampling(6, 1.0, name))
    with pytest.raises(UserError, match=f"{SCHEDULERS[name]} remembers .* ddim, ddpm, euler"):
        sample(batch, [During(0, 0.5, Recurrence(2))])
    assert world.calls == 0
    sample(batch, [Recurrence(1)])


def test_fewer_than_one_pass():
    with pytest.raises(UserError, match="1 or more"):
        Recurrence(0)
