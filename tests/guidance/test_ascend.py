import itertools

import pytest
import torch
from torch import Tensor

import gaussian
import tiny
from activegen.diffusion.sampling import Estimate, Sampling, sample
from activegen.guidance import Ascend, Attention, During, Objective, Weighted
from activegen.records import UnknownWord, UserError
from guidance import seams
from guidance.seams import Linear, Near, Spy

WEIGHTS = torch.linspace(-1, 2, 48).view(1, 3, 4, 4)


def uneven(size: int = 4) -> gaussian.World:
    """A prior whose three channels have different spreads."""
    world = gaussian.World(size=size)
    world.spread = torch.tensor([1.0, 0.1, 0.01]).view(1, 3, 1, 1)  # type: ignore[assignment]
    return world


def covariance(world: gaussian.World, level) -> Tensor:
    """Of z_0 given z_t."""
    variance = torch.as_tensor(world.spread) ** 2
    return variance * level.sigma**2 / (level.alpha**2 * variance + level.sigma**2)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_full_gradient_is_the_posterior_covariance_times_the_plain_one(prediction):
    world = uneven()
    world.prediction = world.scheduler.config.prediction_type = prediction
    spy = Spy(Ascend("latents", "denoiser", (Linear(WEIGHTS),), 1e-9))
    batch = gaussian.batch(world, ["red", "blue"])
    sample(batch, [spy])
    for level, gradient in zip(batch.solver().levels, spy.gradients, strict=True):
        expected = level.alpha / level.sigma**2 * covariance(world, level) * WEIGHTS
        torch.testing.assert_close(gradient, expected.expand_as(gradient), rtol=1e-3, atol=1e-6)


def test_the_full_gradient_of_a_quadratic_objective():
    world = uneven()
    spy = Spy(Ascend("latents", "denoiser", (Near(0.3),), 1e-9))
    batch = gaussian.batch(world, ["red"])
    sample(batch, [spy])
    for level, gradient, clean in zip(batch.solver().levels, spy.gradients, spy.clean, strict=True):
        expected = level.alpha / level.sigma**2 * covariance(world, level) * (0.3 - clean)
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


def moves(of: str, through: str, step: float, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents and clean before, and after the first move at one step."""
    term = Ascend(of, through, (Linear(WEIGHTS),), step)  # type: ignore[arg-type]
    batch = gaussian.batch(uneven(), ["red", "blue"])
    estimate = seams.seen(batch)[index]
    estimate = gaussian_estimate(estimate, batch)
    move = term.begin(batch).move(estimate, WEIGHTS.expand_as(estimate.latents))
    latents = estimate.latents if move.latents is None else move.latents
    assert move.clean is not None
    return estimate.latents, estimate.clean, latents, move.clean


def gaussian_estimate(estimate, batch):
    """Out of inference mode."""
    return Estimate(
        estimate.level,
        estimate.latents.clone(),
        estimate.clean.clone(),
        estimate.conditioning,
        None,
        batch.target,
        batch.model.full,
    )


@pytest.mark.parametrize("index", [0, 4, 9])
def test_moved_latents_keep_the_noise_estimate_and_clean_moves_along(index):
    level = seams.level(index)
    latents, clean, moved, moved_clean = moves("latents", "decoder", 0.1, index)
    direction = WEIGHTS / WEIGHTS.norm()  # the stop-gradient direction: g / sqrt(abar)
    length = latents.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(moved - latents, 0.1 * length * direction, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        (moved - level.alpha * moved_clean) / level.sigma,
        (latents - level.alpha * clean) / level.sigma,
        atol=2e-4,
        rtol=1e-3,
    )


def test_the_solver_is_given_the_kept_noise():
    """At one step: the next latents are those of an honest solver with the noise kept."""
    batch = gaussian.batch(uneven(), ["red", "blue"])
    term = Ascend("latents", "decoder", (Linear(WEIGHTS),), 0.1)
    plain = seams.seen(batch)
    moved = seams.seen(batch, [During(0.4, 0.45, term)])
    now, then = plain[4].level, plain[5].level
    noise = (plain[4].latents - now.alpha * plain[4].clean) / now.sigma
    length = plain[4].latents.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    change = 0.1 * length * WEIGHTS / WEIGHTS.norm()
    expected = then.alpha * (plain[4].clean + change / now.alpha) + then.sigma * noise
    torch.testing.assert_close(moved[5].latents, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("index", [0, 4, 9])
def test_moved_clean_keeps_the_latents(index):
    level = seams.level(index)
    latents, clean, kept, moved = moves("clean", "decoder", 0.1, index)
    assert torch.equal(kept, latents)
    change = moved - clean
    length = 0.1 * clean.flatten(1).norm(dim=1)
    torch.testing.assert_close(change.flatten(1).norm(dim=1), length, atol=1e-5, rtol=1e-4)
    # clean' = clean - d  <=>  noise' = noise + alpha / sigma * d
    noise = (latents - level.alpha * clean) / level.sigma
    expected = noise - level.alpha / level.sigma * change
    changed = (latents - level.alpha * moved) / level.sigma
    torch.testing.assert_close(changed, expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("of", "through"),
    [("latents", "denoiser"), ("latents", "decoder"), ("clean", "decoder"),
     ("conditioning", "denoiser")],
)  # fmt: skip
def test_a_quadratic_objective_moves_the_mean_towards_its_goal(of, through):
    words, seeds = ["red"] * 16, list(range(16))
    plain = sample(gaussian.batch(gaussian.World(), words, seeds)).latents.mean((0, 2, 3))
    term = Ascend(of, through, (Near(0.5),), 0.02)
    moved = sample(gaussian.batch(gaussian.World(), words, seeds), [term]).latents.mean((0, 2, 3))
    assert ((moved - 0.5).abs() < (plain - 0.5).abs()).all()
    assert ((moved - plain) * (0.5 - plain) > 0).all()


@pytest.mark.parametrize("name", ["dpm++_2m", "euler", "unipc"])
def test_moved_latents_get_as_far_with_every_solver(name):
    """A wide prior keeps what is done to the latents."""

    def share(name: str) -> float:
        """Of the unguided distance."""
        batch = gaussian.batch(
            gaussian.World(0.5), ["red", "blue"], sampling=Sampling(10, 1.0, name)
        )
        term = Ascend("latents", "decoder", (Near(0.5),), 0.05)
        far, near = ((sample(batch, of).latents - 0.5).norm() for of in ([], [term]))
        return float(near / far)

    assert share(name) == pytest.approx(share("ddim"), abs=0.03)
    assert share("ddim") < 0.7


@pytest.mark.parametrize("through", ["denoiser", "decoder"])
@pytest.mark.parametrize("name", ["ddim", "dpm++_2m", "euler", "unipc"])
def test_a_level_without_signal_moves_the_noise_alone(name, through):
    world = gaussian.World(prediction="v_prediction")
    world.scheduler = type(world.scheduler).from_config(
        world.scheduler.config, rescale_betas_zero_snr=True
    )
    batch = gaussian.batch(world, ["red", "blue"], sampling=Sampling(6, 1.0, name))
    assert batch.solver().levels[0].alpha < 3e-4
    plain = sample(batch)
    drawn = sample(batch, [Ascend("latents", through, (Near(0.5),), 0.05)])
    assert drawn.latents.isfinite().all() and (drawn.skipped == 0).all()
    before, after = (seams.final(Near(0.5), of, batch) for of in (plain, drawn))
    assert (after > before).all()


@pytest.fixture(scope="module")
def model():
    return tiny.model()


TEXT = Ascend("conditioning", "denoiser", (Near(1.0),), 0.05)


def texts(batch, term) -> list[Tensor]:
    return [e.conditioning.text.detach() for e in seams.seen(batch, [term])]


def test_the_text_moves_by_the_step_per_image_not_per_token(model):
    batch = tiny.batch(model, ["forest", "river"], sampling=Sampling(4, 3.0))
    seen = texts(batch, TEXT)
    assert torch.equal(seen[0], batch.conditioning.text)
    for before, after in itertools.pairwise(seen):
        change = after - before
        torch.testing.assert_close(
            change.flatten(1).norm(dim=1), torch.full((2,), 0.05), atol=1e-5, rtol=1e-4
        )
        assert change.norm(dim=2).std() > 1e-4  # tokens differ: not each of the same length


def test_only_the_positive_half_moves(model):
    batch = tiny.batch(model, ["forest"], sampling=Sampling(4, 3.0))
    for estimate in seams.seen(batch, [TEXT]):
        assert torch.equal(estimate.conditioning.negative, batch.conditioning.negative)


def test_the_moved_text_stays_after_the_window():
    seen = texts(gaussian.batch(gaussian.World(), ["red"]), During(0, 0.3, TEXT))
    assert not torch.equal(seen[2], seen[3])
    assert all(torch.equal(seen[3], later) for later in seen[4:])


def test_the_radius_bounds_the_way_from_the_prompt():
    batch = gaussian.batch(gaussian.World(), ["red", "blue"])
    term = Ascend("conditioning", "denoiser", (Linear(WEIGHTS + 3),), 0.05, radius=0.12)
    away = [(t - batch.conditioning.text).flatten(1).norm(dim=1) for t in texts(batch, term)]
    torch.testing.assert_close(away[2], torch.full((2,), 0.1), atol=1e-5, rtol=0)
    for later in away[3:]:
        torch.testing.assert_close(later, torch.full((2,), 0.12), atol=1e-5, rtol=0)


class Broken(Objective):
    """Not a number for the second image."""

    def value(self, estimate) -> Tensor:
        scale = torch.tensor([1.0, float("nan")])[: len(estimate.clean)]
        return Near(0.5).value(estimate) * scale


@pytest.mark.parametrize("of", ["latents", "conditioning"])
def test_gradients_that_are_not_finite_are_skipped_and_counted(of):
    def draw(words: list[str], objective: Objective | None):
        terms = [Ascend(of, "denoiser", (objective,), 0.05)] if objective else []
        return sample(gaussian.batch(gaussian.World(), words), terms)

    both, unguided = draw(["red", "blue"], Broken()), draw(["red", "blue"], None)
    alone = draw(["red"], Near(0.5))
    assert both.skipped.tolist() == [0, 10]
    assert unguided.skipped.tolist() == [0, 0]
    torch.testing.assert_close(both.latents[:1], alone.latents)
    torch.testing.assert_close(both.latents[1], unguided.latents[1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(both.latents[0], unguided.latents[0], atol=1e-2)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_length_of_a_move_does_not_depend_on_the_size_of_the_gradient(scale):
    def draw(objective: Objective) -> Tensor:
        terms = [Ascend("latents", "decoder", (objective,), 0.05)]
        return sample(gaussian.batch(gaussian.World(), ["red"]), terms).latents

    torch.testing.assert_close(draw(Weighted(scale, Near(0.5))), draw(Near(0.5)))


def test_a_region_keeps_the_rest_where_it_was():
    term = Ascend("latents", "denoiser", (Near(0.5),), 0.05, region=Attention())
    plain = sample(gaussian.batch(gaussian.World(), ["red"])).latents
    moved = sample(gaussian.batch(gaussian.World(), ["red"]), [term]).latents
    assert (moved - plain)[..., :2].abs().min() > 1e-3
    torch.testing.assert_close(moved[..., 2:], plain[..., 2:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objectives": ()}, "no objectives"),
        ({"of": "conditioning", "through": "decoder"}, "text acts through the denoiser"),
        ({"of": "clean"}, "come after the denoiser"),
        ({"radius": 1.0}, "bounds the text only"),
        ({"of": "conditioning", "region": Attention()}, "no place in the picture"),
        ({"step": -0.1}, "weigh by -1"),
    ],
)
def test_combinations_without_a_meaning(arguments, message):
    good = {"of": "latents", "through": "denoiser", "objectives": (Near(0.0),), "step": 0.1}
    Ascend(**good)
    with pytest.raises(UserError, match=message):
        Ascend(**(good | arguments))


def test_unknown_words_are_answered_with_the_known_ones():
    with pytest.raises(UnknownWord, match="Did you mean 'latents'"):
        seams.checked_with(Ascend("latents", "decoder", (Near(0.0),), 0.1), of="latent")
