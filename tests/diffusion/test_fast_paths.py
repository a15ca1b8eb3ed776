"""Every fast path computes what the slow path computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gaussian
import tiny
from activegen.diffusion.attention import Reading
from activegen.diffusion.control import Control
from activegen.diffusion.sampling import Dropping, Estimate, Route, Sampling, sample
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.guidance import (
    Ascend,
    Attention,
    Everywhere,
    Objective,
    Recurrence,
    ReferencePull,
    Weighted,
)
from activegen.records import UserError
from guidance.seams import Spy

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
WORDS = ["river", "forest", "tv"]
SAMPLING = Sampling(4, 3.0, "ddim")


class Rows:
    """Counts the rows that go through a denoiser, with and without a graph."""

    def __init__(self, model: StableDiffusion):
        self.plain, self.followed, self.net = 0, 0, model.unet
        model.unet.register_forward_pre_hook(self._see)

    def _see(self, _: object, inputs: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            self.followed += len(inputs[0])
        else:
            self.plain += len(inputs[0])


class Bright(Objective):
    def value(self, estimate: Estimate) -> Tensor:
        return estimate.images.square().flatten(1).mean(1)


def ascend(of: Any, through: Route, step: float = 0.05) -> Ascend:
    return Ascend(of, through, (Bright(),), step)


def controlled() -> StableDiffusion:
    controls = [Control(tiny.controlnet()), Control(tiny.controlnet(3), guess=True)]
    return tiny.model(controls=controls)


def gradients(model: StableDiffusion, of: str, through: Route) -> list[Tensor]:
    spy = Spy(ascend(of, through))
    sample(batch(model), [spy])
    return spy.gradients


def batch(model: StableDiffusion, words: list[str] = WORDS, sampling: Sampling = SAMPLING):
    if not model.controls:
        return tiny.batch(model, words, sampling=sampling)
    made = tiny.batch(tiny.model(), words, sampling=sampling)
    pictures = torch.rand(len(words), 3, *model.size, generator=torch.Generator().manual_seed(5))
    prompts = [f"a photo of {word}" for word in words]
    conditioning = model.condition(prompts, words, control=(pictures,) * len(model.controls))
    return type(made)(model, sampling, made.noise, made.rngs, conditioning, made.target)


@pytest.mark.parametrize("make", [tiny.model, controlled])
def test_the_texts_gradient_needs_the_half_with_the_prompt_alone(make, monkeypatch):
    model = make()
    rows = Rows(model)
    fast = gradients(model, "conditioning", "denoiser")
    assert (rows.plain, rows.followed) == (12, 12)
    # the slow path: latents that want a gradient too keep both halves in one graph
    inner = model.denoise

    def slow(latents: Tensor, *rest: Any) -> Any:
        return inner(latents.requires_grad_(), *rest)

    monkeypatch.setattr(model, "denoise", slow)
    for a, b in zip(fast, gradients(model, "conditioning", "denoiser"), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
    assert rows.followed == 12 + 24
    monkeypatch.undo()
    for a, b in zip(fast, gradients(model, "conditioning", "conditional"), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("make", [tiny.model, controlled])
def test_the_conditional_route_leaves_the_other_half_constant(make):
    model = make()
    made = batch(model)
    level = made.solver().levels[1]
    latents = made.noise.clone().requires_grad_()
    parts = []
    for branch in ("both", "conditional"):
        seen = model.denoise(latents, made.conditioning, level, 3.0, branch=branch)
        parts.append((seen.clean.detach(), torch.autograd.grad(seen.clean.sum(), latents)[0]))
    torch.testing.assert_close(parts[0][0], parts[1][0], **CLOSE)
    guessing = tuple(control.guess for control in model.controls)
    without = model.denoise(
        latents, swapped(made.conditioning), level, 1.0 if not any(guessing) else 0.0
    )
    if not any(guessing):  # nets that guess see another half alone
        (missing,) = torch.autograd.grad(without.output.sum(), latents)
        expected = parts[0][1] - level.sigma / level.alpha * 2.0 * missing
        torch.testing.assert_close(parts[1][1], expected, atol=1e-4, rtol=1e-3)


def swapped(conditioning):
    return conditioning.with_text(conditioning.negative)


def test_outside_of_its_interval_guidance_without_a_classifier_costs_half():
    model = tiny.model()
    rows = Rows(model)
    whole = sample(batch(model, sampling=Sampling(4, 3.0, "ddim", cfg_interval=(0, 1))))
    assert rows.plain == 4 * 6
    same = sample(batch(model, sampling=Sampling(4, 3.0, "ddim")))
    assert torch.equal(whole.latents, same.latents)
    rows.plain = 0
    part = sample(batch(model, sampling=Sampling(4, 3.0, "ddim", cfg_interval=(0.25, 0.75))))
    assert rows.plain == 2 * 6 + 2 * 3
    none = sample(batch(model, sampling=Sampling(4, 1.0, "ddim")))
    assert not torch.allclose(part.latents, none.latents, atol=1e-3)
    seen = sample(batch(model, sampling=Sampling(4, 3.0, "ddim", cfg_interval=(0.9, 1.0))))
    torch.testing.assert_close(seen.latents, none.latents)


@pytest.mark.parametrize("trajectory", ["deterministic", "ancestral"])
@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "euler", "euler_ancestral", "unipc"])
def test_a_step_that_is_overwritten_does_not_ask_the_denoiser(scheduler, trajectory, monkeypatch):
    world = gaussian.World()
    made = gaussian.batch(
        world, ["red", "blue"], None, Sampling(10, 1.0, scheduler), torch.rand(2, 3, 4, 4)
    )
    pull = ReferencePull(Everywhere(), until=0.45, trajectory=trajectory)
    overwritten = sum(pull.weight(of.progress) >= 0.999 for of in made.solver().levels)
    fast = sample(made, [pull])
    assert fast.calls == 10 - overwritten < 10
    monkeypatch.setattr("activegen.guidance.reference_pull.WHOLE", 2.0)
    slow = sample(made, [pull])
    assert slow.calls == 10
    torch.testing.assert_close(fast.latents, slow.latents, atol=5e-3, rtol=0)


def test_it_is_asked_where_somebody_looks():
    model = tiny.model()
    made = tiny.batch(model, WORDS, sampling=SAMPLING, reference=torch.randn(3, 4, 8, 8))
    whole = ReferencePull(Everywhere(), until=2.0)
    assert sample(made, [whole]).calls == 0
    assert sample(made, [ReferencePull(Attention(), until=2.0)]).calls == 4
    assert sample(made, [whole, ascend("conditioning", "denoiser")]).calls == 4
    reading = Reading(model.words([f"a photo of {w}" for w in WORDS], [[w] for w in WORDS]), 0.5)
    read = type(made)(**{**vars(made), "reading": reading})
    assert sample(read, [whole]).calls == 1


TERMS: dict[str, Callable[[], list[Any]]] = {
    "plain": list,
    "text": lambda: [ascend("conditioning", "denoiser")],
    "latents": lambda: [ascend("latents", "denoiser")],
    "clean": lambda: [ascend("clean", "decoder")],
    "pull": lambda: [ReferencePull(Attention(), until=0.6)],
}


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpm++_2m"])
def test_who_is_not_dropped_is_drawn_as_ever(scheduler, terms):
    model, sampling = tiny.model(), Sampling(6, 3.0, scheduler)
    made = tiny.batch(model, WORDS, sampling=sampling, reference=torch.randn(3, 4, 8, 8))
    rows = Rows(model)
    looked: list[Tensor] = []

    def hopeless(pictures: Tensor) -> Tensor:
        looked.append(pictures.clone())
        return torch.tensor([False, True, False])

    drawn = sample(made, TERMS[terms](), dropping=Dropping(0.5, hopeless))
    assert rows.plain + rows.followed == 2 * (4 * 3 + 2 * 2)
    whole = sample(made, TERMS[terms]())
    assert whole.dropped is None and drawn.dropped is not None
    assert drawn.dropped.tolist() == [False, True, False]
    for a, b in ((drawn.latents, whole.latents), (drawn.images, whole.images)):
        torch.testing.assert_close(a[[0, 2]], b[[0, 2]], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(a[1], b[1], atol=1e-3)
    assert len(looked) == 1
    assert torch.equal(drawn.images[1], looked[0][1])


def test_nobody_left_ends_the_drawing_and_nobody_dropped_changes_nothing():
    model = tiny.model()
    made = tiny.batch(model, WORDS, sampling=SAMPLING)
    for every, calls in ((True, 3), (False, 4)):
        drawn = sample(made, dropping=Dropping(0.5, lambda of, e=every: torch.full((len(of),), e)))
        assert drawn.calls == calls
    assert torch.equal(drawn.latents, sample(made).latents)
    with pytest.raises(UserError, match="earlier"):
        sample(made, dropping=Dropping(0.99, lambda of: torch.zeros(len(of), dtype=torch.bool)))


def test_nobody_left_after_the_first_pass_of_a_step_ends_the_drawing():
    made = tiny.batch(tiny.model(), WORDS, sampling=SAMPLING)
    everyone = Dropping(0.5, lambda of: torch.ones(len(of), dtype=torch.bool))
    drawn = sample(made, [ascend("latents", "decoder"), Recurrence(3)], dropping=everyone)
    assert drawn.calls == 3 + 3 + 1
    assert drawn.dropped is not None and drawn.dropped.all()


def test_maps_of_those_who_are_left():
    model = tiny.model()
    words = model.words([f"a photo of {w}" for w in WORDS], [[w] for w in WORDS])
    made = tiny.batch(model, WORDS, sampling=SAMPLING)
    made = type(made)(**{**vars(made), "reading": Reading(words, (0.7, 1.0))})
    drawn = sample(made, dropping=Dropping(0.5, lambda _: torch.tensor([True, False, False])))
    whole = sample(made)
    assert drawn.maps is not None and whole.maps is not None
    for a, b in zip(drawn.maps.words, whole.maps.words, strict=True):
        torch.testing.assert_close(a[1:], b[1:], **CLOSE)
        assert not a[0].any()


@pytest.mark.parametrize("of", ["conditioning", "latents"])
def test_checkpointing_changes_no_gradient(of):
    kept, recomputed = tiny.model(), tiny.model()
    assert recomputed.checkpoint() and not recomputed.checkpoint()
    rows = Rows(recomputed)
    calls: list[int] = []
    resnet = recomputed.unet.up_blocks[-1].resnets[-1]
    resnet.register_forward_pre_hook(lambda *_: calls.append(1))
    pairs = zip(gradients(kept, of, "denoiser"), gradients(recomputed, of, "denoiser"), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, **CLOSE)
    assert len(calls) == rows.plain / 3 + 2 * 4  # once more in each backward


def test_channels_last_changes_the_order_in_memory_alone():
    plain, other = tiny.model(), tiny.model()
    other.hasten(channels_last=True)
    assert other.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    for terms in ([], [ascend("latents", "denoiser")]):
        a, b = (sample(batch(model), terms).images for model in (plain, other))
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_compiled_where_there_is_no_gradient_and_nobody_reads(monkeypatch):
    compiled: list[int] = []

    def counting(net: Any, **_: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            compiled.append(len(args[0]))
            return net(*args, **kwargs)

        return call

    monkeypatch.setattr(torch, "compile", counting)
    plain, other = tiny.model(), tiny.model()
    other.hasten(compiled=True)
    pulled = [ReferencePull(Attention(), until=2.0)]
    for terms, calls in (([], 4), ([ascend("latents", "denoiser")], 0), (pulled, 0)):
        compiled.clear()
        references = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        a, b = (
            sample(tiny.batch(model, WORDS, sampling=SAMPLING, reference=references), terms)
            for model in (plain, other)
        )
        torch.testing.assert_close(a.images, b.images, atol=1e-4, rtol=1e-4)
        assert len(compiled) == calls


@pytest.mark.slow
def test_compiled_for_real():
    plain, other = tiny.model(), tiny.model()
    other.hasten(compiled=True)
    a, b = (sample(batch(model)) for model in (plain, other))
    torch.testing.assert_close(a.images, b.images, atol=1e-4, rtol=1e-4)


GPU = pytest.param("cuda", marks=pytest.mark.gpu)


def loaded(folder: Path, device: str, dtype: torch.dtype) -> StableDiffusion:
    return StableDiffusion.load(tiny.save(tiny.model(), folder), device, dtype)


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize(("of", "through"), [("latents", "denoiser"), ("clean", "decoder")])
def test_small_and_large_gradients_pass_through_float16(of, through, device, tmp_path):
    def first(model: StableDiffusion, weight: float) -> Tensor:
        spy = Spy(Ascend(of, through, (Weighted(weight, Bright()),), 0.05))
        drawn = sample(tiny.batch(model, WORDS[:2], sampling=Sampling(1, 3.0)), [spy])
        assert (drawn.skipped == 0).all()
        return spy.gradients[0].cpu() / weight

    exact, half = first(tiny.model(), 1.0), loaded(tmp_path, device, torch.float16)
    for weight in (1e-5, 1.0, 1e6):
        torch.testing.assert_close(
            first(half, weight), exact, atol=0.05 * float(exact.abs().amax()), rtol=0
        )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_a_gpu_parts_of_a_batch_are_drawn_as_the_whole(dtype, tmp_path):
    made = tiny.batch(loaded(tmp_path, "cuda", dtype), WORDS, sampling=SAMPLING)
    term = [ascend("latents", "denoiser")]
    second = Dropping(0.5, lambda of: torch.arange(len(of), device=of.device) == 1)
    whole, split = sample(made, term).latents, sample(made, term, micro_batch=2).latents
    torch.testing.assert_close(split, whole, atol=0.05, rtol=0.05)
    drawn = sample(made, term, dropping=second)
    assert drawn.dropped is not None and drawn.dropped.tolist() == [False, True, False]
    torch.testing.assert_close(drawn.latents[::2], whole[::2], atol=0.05, rtol=0.05)
