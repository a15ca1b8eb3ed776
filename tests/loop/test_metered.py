"""With a meter and without: the same images, bit for bit; and what the meter is told."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import colours
import tiny
from activegen.diffusion.decoders import LinearDecoder
from activegen.diffusion.sampling import Sampling, seeded
from activegen.guidance import Ascend, Informative, MemoryBank
from activegen.loop.flops import counted
from activegen.loop.generating import Generator
from activegen.loop.metered import Metered, TimedTerm, count_training, timed_model
from activegen.loop.metering import (
    BACKWARD,
    CONDITION,
    DECODE,
    DENOISE,
    DRAW,
    MEASURE,
    PREDICT,
    REST,
    TRAIN,
    Cost,
    Meter,
)
from activegen.loop.parts import Learners
from activegen.loop.rounds import active_generation
from activegen.loop.settings import ArmSettings
from activegen.records import Request
from activegen.scores import SCORES

STEPS = 3
WAYS = ("plain", "adversarial", "latents", "decoder")


def requests(way: str) -> list[Request]:
    reference = "" if way == "plain" else "train/3"
    return [
        Request("a photo of river", "river", 1, seed, reference=reference, steering=way)
        for seed in (5, 6)
    ]


def generator(learner: Any = None) -> Generator:
    learner = learner or colours.learner().model.eval()
    model = tiny.model()
    up = (Informative(learner, SCORES["entropy"]),)
    steering = dict(colours.steering(Learners(learner, (learner,), MemoryBank())))
    steering |= {
        "latents": [Ascend("latents", "denoiser", up, step=0.1)],
        "decoder": [Ascend("latents", "decoder", up, step=0.1)],
    }
    noise, _ = seeded(range(8), model.noise_shape)
    return Generator(
        task=colours.task(),
        model=model,
        sampling=Sampling(num_steps=STEPS, cfg_scale=2.0),
        steering=steering,
        real=colours.images(3, "train"),
        learner=learner,
        decoder=LinearDecoder.fit(noise, model.decode(noise)),
    )


@pytest.fixture(scope="module")
def metered() -> dict[str, tuple[Any, Any, Cost]]:
    """Samples of each way without a meter and with one, and what they cost."""
    drawing, found = generator(), {}
    for way in WAYS:
        job, meter = (0, requests(way)), Meter("cpu", outside=None)
        state = torch.random.get_rng_state()
        with_meter = Metered(drawing, meter)(job)
        assert torch.equal(torch.random.get_rng_state(), state)
        found[way] = (drawing(job), with_meter, meter.take({"drawing": 1e9}))
    return found


@pytest.mark.parametrize("way", WAYS)
def test_no_image_and_no_number_changes(metered: dict[str, Any], way: str):
    without, with_meter, _ = metered[way]
    assert with_meter == without and without[1]


def test_seconds_are_where_the_work_is(metered: dict[str, Any]):
    plain, steered = metered["plain"][2].seconds, metered["latents"][2].seconds
    assert set(plain) == {DENOISE, DECODE, PREDICT, CONDITION, DRAW, MEASURE}
    assert set(steered) == {*plain, BACKWARD}
    assert all(seconds > 0 for seconds in steered.values())


def test_flops_are_those_of_all_calls(metered: dict[str, Any]):
    drawing = generator()
    model = drawing.model
    batch = tiny.batch(model, ["river"], sampling=drawing.sampling)  # type: ignore[arg-type]
    level = batch.solver().levels[0]

    def denoised(noise: torch.Tensor) -> torch.Tensor:
        return model.denoise(noise, batch.conditioning, level, 2.0).clean

    noise = batch.noise.clone().requires_grad_()
    call = counted(lambda: denoised(noise), [noise])
    picture = counted(lambda: model.decode(batch.noise)).forward
    linear = counted(lambda: drawing.decoder(noise), [noise])  # type: ignore[misc]
    seen = torch.rand(1, 3, 16, 16, requires_grad=True)
    asked = counted(lambda: drawing.learner.predict(seen).logits, [seen])  # type: ignore[union-attr]

    plain, latents, decoder = (metered[way][2].flops for way in ("plain", "latents", "decoder"))
    assert plain == {
        DENOISE: 2 * STEPS * call.forward,
        DECODE: 2 * picture,
        PREDICT: 2 * asked.forward,
    }
    assert latents[DENOISE] == decoder[DENOISE] == plain[DENOISE]
    assert latents[DECODE] == decoder[DECODE] == 2 * (picture + STEPS * linear.forward)
    assert latents[PREDICT] == decoder[PREDICT] == 2 * (1 + STEPS) * asked.forward
    cheap = linear.backward + asked.backward
    assert decoder[BACKWARD] == 2 * STEPS * cheap
    assert latents[BACKWARD] == 2 * STEPS * (call.backward + cheap)
    # the text's gradient passes through the half with the prompt alone, in 2 of 3 steps
    text = metered["adversarial"][2].flops[BACKWARD]
    assert 0 < text < 2 * 2 * (0.6 * call.backward + cheap)


def test_only_calls_from_outside_are_timed():
    model, meter = tiny.model(), Meter("cpu", outside=None)
    timed = timed_model(model, meter)
    assert timed.size == model.size and timed.made_by() == model.made_by()
    timed.decode(torch.zeros(1, *model.noise_shape))
    timed.condition(["a photo of river"], ["river"])
    assert set(meter.take({}).seconds) == {DECODE, CONDITION, MEASURE}
    model.decode(torch.zeros(1, *model.noise_shape))
    assert not meter.take({}).seconds


def test_a_steering_stays_what_it_is():
    learner = colours.learner().model
    term = Ascend("latents", "decoder", (Informative(learner, SCORES["entropy"]),), step=0.1)
    batch = tiny.batch(tiny.model(), ["river"])
    own, timed = term.begin(batch), TimedTerm(Meter(), term).begin(batch)
    level = batch.solver().levels[0]
    assert type(timed) is type(own)
    assert timed.gradient(level) == own.gradient(level) == ("latents", "decoder")


def test_training_counts_three_forwards_of_each_image():
    learner, meter = colours.learner(), Meter()
    pool = colours.task().gathered(colours.images(2, "train"))
    state = {name: of.clone() for name, of in learner.model.state_dict().items()}
    count_training(meter, learner, pool, 5)
    seen = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        forward = counted(lambda: learner.model.predict(seen).logits).forward
    assert meter.take({}).flops == {TRAIN: 3 * forward * 5 * learner.settings.batch_size}
    assert all(torch.equal(state[name], of) for name, of in learner.model.state_dict().items())


def test_a_round_tells_where_its_seconds_went(tmp_path: Path):
    parts = colours.parts()
    summaries = list(active_generation(parts, "a", ArmSettings("guided"), tmp_path, "recipe"))
    for summary in summaries:
        cost, phases = Cost(**summary["cost"]), summary["seconds"]
        for phase in ("train", "evaluate"):
            assert cost.seconds[phase] <= phases[phase] + 0.002
        assert cost.total >= sum(phases.values()) - 0.02
        assert cost.seconds[REST] < cost.total
        assert 0 < cost.mfu["training"] < 1  # type: ignore[operator]
        drawing = cost.mfu["drawing"]
        assert (drawing is None) == (not summary["proposed"])
    whole = Cost.of(summaries)
    assert whole.flops[TRAIN] == sum(s["cost"]["flops"][TRAIN] for s in summaries)
    assert whole.flops[DENOISE] > whole.flops[BACKWARD] > 0


def test_what_another_process_spends_is_added(tmp_path: Path):
    class Elsewhere:
        """Work as another process has it: a copy."""

        def map(self, work, jobs):
            sent = copy.deepcopy(work)
            return iter([sent(job) for job in jobs])

    parts = replace(colours.parts(), executor=Elsewhere(), steering=_plain)
    settings = ArmSettings("plain", judge=False)
    away = list(active_generation(parts, "a", settings, tmp_path / "away", "recipe"))
    here = replace(colours.parts(), steering=_plain)
    home = list(active_generation(here, "a", settings, tmp_path / "home", "recipe"))
    for ours, theirs in zip(away, home, strict=True):
        assert ours["cost"]["flops"] == theirs["cost"]["flops"]
    assert away[0]["cost"]["seconds"][DENOISE] > 0


def _plain(learners: Learners) -> dict[str, Any]:
    return {"plain": ()}
