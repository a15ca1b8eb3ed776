"""What every way of steering promises; an addition is tested by being listed in CASES."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

import gaussian
import tiny
from activegen.diffusion.sampling import Batch, Sampling, sample
from activegen.guidance import (
    OBJECTIVES,
    REGIONS,
    TERMS,
    Adversarial,
    Ascend,
    Attention,
    Background,
    During,
    Every,
    Everywhere,
    Informative,
    Inpaint,
    Inside,
    Labelled,
    Object,
    Objective,
    Recurrence,
    ReferencePull,
    Repulsion,
    SegmentConsistency,
    TargetWindow,
    TeacherAnchor,
    TeacherStudent,
    Weighted,
)
from activegen.records import UserError
from activegen.scores import entropy, expected_model_change
from guidance import seams

STEPS = 8
TASK = gaussian.Colours()
PIXELS = seams.Pixels()
TEACHER = seams.Pixels(4.0)
BANK = seams.bank(gaussian.World())
GREY = 0.5


def ascend(objective: Objective, of="latents", through="denoiser", **rest):
    return lambda strength: [Ascend(of, through, (objective,), 0.05 * strength, **rest)]


@dataclass(frozen=True)
class Case:
    covers: set[str]
    guidance: Callable[[float], list]
    wanted: Objective
    guided: range = range(STEPS)  # the calls of the denoiser with a gradient
    scheduler: str = "ddim"
    scenes: bool = False  # with masks and objects
    calls: int = STEPS


ENTROPY = Informative(TASK, entropy)
ADVERSARIAL = Adversarial(TASK)
REPULSION = Repulsion(BANK, margin=1.5)
OF_PIXELS = Informative(PIXELS, entropy)
INSIDE = Inside(Object(), OF_PIXELS)
WINDOW = TargetWindow(0.5, 0.6, ENTROPY)
ANCHOR, LOOSE = TeacherAnchor(TEACHER, 0.1), TeacherAnchor(TEACHER, 1.0)
STUDENT = TeacherStudent(PIXELS, TEACHER, 0.5)
ALIKE = SegmentConsistency(PIXELS)
CASES = {
    "entropy of latents": Case({"ascend", "informative"}, ascend(ENTROPY), ENTROPY),
    "through the decoder": Case({"ascend"}, ascend(ENTROPY, through="decoder"), ENTROPY),
    "with fresh noise": Case({"ascend"}, ascend(ENTROPY), ENTROPY, scheduler="ddpm"),
    "with a corrector": Case({"ascend"}, ascend(ENTROPY), ENTROPY, scheduler="unipc"),
    "clean": Case({"ascend"}, ascend(ENTROPY, "clean", "decoder"), ENTROPY),
    "text": Case({"adversarial"}, ascend(ADVERSARIAL, "conditioning"), ADVERSARIAL),
    "text within a radius": Case(
        {"ascend"}, ascend(ADVERSARIAL, "conditioning", radius=0.1), ADVERSARIAL
    ),
    "repulsion": Case({"repulsion"}, ascend(REPULSION), REPULSION),
    "weighted": Case({"weighted"}, ascend(Weighted(-0.1, seams.Near(2.0))), seams.Near(-1.0)),
    "objective during": Case(
        {"during"}, ascend(During(0.25, 0.5, ENTROPY)), ENTROPY, guided=range(2, 4)
    ),
    "term during": Case(
        {"during"},
        lambda strength: [During(0.5, 1, term) for term in ascend(ENTROPY)(strength)],
        ENTROPY,
        guided=range(4, 8),
    ),
    "objective every": Case(
        {"every"}, ascend(Every(3, ENTROPY)), ENTROPY, guided=range(0, STEPS, 3)
    ),
    "term every": Case(
        {"every"},
        lambda strength: [Every(2, term) for term in ascend(ENTROPY)(strength)],
        ENTROPY,
        guided=range(0, STEPS, 2),
    ),
    "region": Case({"attention"}, ascend(ENTROPY, region=Attention()), ENTROPY),
    "pull": Case(
        {"reference_pull", "attention"},
        lambda strength: [ReferencePull(strength=strength)],
        seams.Near(GREY),
        guided=range(0),
    ),
    "pull everywhere": Case(
        {"everywhere"},
        lambda strength: [ReferencePull(Everywhere(), strength=strength)],
        seams.Near(GREY),
        guided=range(0),
        calls=STEPS - 2,  # the first are overwritten
    ),
    "ancestral pull": Case(
        {"reference_pull"},
        lambda strength: [ReferencePull(strength=strength, trajectory="ancestral")],
        seams.Near(GREY),
        guided=range(0),
        scheduler="ddpm",
    ),
    "pull of the background": Case(
        {"reference_pull", "background"},
        lambda strength: [ReferencePull(Background(), until=math.inf, strength=strength)],
        seams.Near(GREY),
        guided=range(0),
        scenes=True,
    ),
    "inpaint": Case(
        {"inpaint"},
        lambda strength: [Inpaint()] if strength else [],
        seams.Near(GREY),
        guided=range(0),
        scenes=True,
    ),
    "object": Case({"inside", "object"}, ascend(INSIDE, region=Object()), INSIDE, scenes=True),
    "labelled": Case({"labelled"}, ascend(OF_PIXELS, region=Labelled()), OF_PIXELS, scenes=True),
    "model change": Case(
        {"informative"},
        ascend(Informative(PIXELS, expected_model_change)),
        Informative(PIXELS, expected_model_change),
        scenes=True,
    ),
    "target window": Case({"target_window"}, ascend(WINDOW), WINDOW),
    "teacher anchor": Case({"teacher_anchor"}, ascend(ANCHOR), ANCHOR, scenes=True),
    "teacher and student": Case({"teacher_student"}, ascend(STUDENT), STUDENT, scenes=True),
    "segments": Case({"segment_consistency"}, ascend(ALIKE), ALIKE, scenes=True),
    "recurrence": Case(
        {"recurrence"},
        lambda strength: [*ascend(ENTROPY)(strength), Recurrence(3 if strength else 1)],
        ENTROPY,
        guided=range(3 * STEPS),
        calls=3 * STEPS,
    ),
    "recurrence with fresh noise": Case(
        {"recurrence", "during"},
        lambda strength: [
            *ascend(ENTROPY, "conditioning")(strength),
            During(0.25, 0.5, Recurrence(2 if strength else 1)),
        ],
        ENTROPY,
        guided=range(STEPS + 2),
        scheduler="euler_ancestral",
        calls=STEPS + 2,
    ),
    "an object, all together": Case(
        {"ascend", "inpaint"},
        lambda strength: [
            Ascend(
                "latents",
                "decoder",
                (INSIDE, Weighted(0.01, Inside(Object(), ALIKE)), Inside(Object(), LOOSE)),
                0.05 * strength,
                region=Object(),
            ),
            *([Inpaint(), Every(4, Recurrence(2))] if strength else []),
        ],
        INSIDE,
        guided=range(STEPS + 2),
        scenes=True,
        calls=STEPS + 2,
    ),
    "everything": Case(
        {"reference_pull", "ascend"},
        lambda strength: [
            ReferencePull(strength=strength / 2),
            Ascend(
                "conditioning",
                "denoiser",
                (During(0, 0.25, Weighted(0.1, ADVERSARIAL)), During(0, 0.5, REPULSION)),
                0.05 * strength,
            ),
            During(0.5, 1, Ascend("latents", "decoder", (ENTROPY,), 0.05 * strength)),
        ],
        ENTROPY,
    ),
}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request) -> Case:
    return CASES[request.param]


def batch(case: Case, model=None, words=("red", "green", "blue"), seeds=(3, 4, 5)) -> Batch:
    sampling = Sampling(STEPS, 1.0, case.scheduler)
    model = model or gaussian.World()
    reference = torch.full((len(words), *model.noise_shape), GREY)
    made = gaussian.batch(model, words, seeds, sampling, reference)
    return seams.of_scenes(made) if case.scenes else made


def real(case: Case, model, words: list[str], seeds: list[int]) -> Batch:
    sampling = Sampling(3, 3.0, case.scheduler)
    reference = torch.full((len(words), *model.noise_shape), GREY)
    return tiny.batch(model, words, seeds, sampling, reference)


@pytest.fixture(scope="module")
def model():
    return tiny.model()


def test_everything_in_the_tables_is_tested():
    covered = set().union(*(case.covers for case in CASES.values()))
    assert covered == {*TERMS, *OBJECTIVES, *REGIONS}


def test_strength_zero_is_unguided_bit_for_bit(case):
    unguided = sample(batch(case)).latents
    assert torch.equal(sample(batch(case), case.guidance(0.0)).latents, unguided)
    assert not torch.equal(sample(batch(case), case.guidance(1.0)).latents, unguided)


def test_a_sample_does_not_depend_on_its_batch(case):
    together = sample(batch(case), case.guidance(1.0))
    alone = sample(batch(case, words=("green",), seeds=(4,)), case.guidance(1.0))
    torch.testing.assert_close(together.latents[1:2], alone.latents, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2])
def test_gradients_of_a_few_images_at_a_time_are_the_same(case, size):
    world = seams.Notes()
    whole = sample(batch(case), case.guidance(1.0))
    split = sample(batch(case, world), case.guidance(1.0), micro_batch=size)
    for a, b in ((split.latents, whole.latents), (split.images, whole.images)):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert (split.attention is None) == (whole.attention is None)
    if split.attention is not None:
        torch.testing.assert_close(split.attention, whole.attention, atol=1e-5, rtol=1e-4)
    pieces = -(-3 // size)
    assert split.calls == case.calls
    assert world.calls == case.calls + (pieces - 1) * len(case.guided)


def test_the_same_batch_twice_is_bit_exact(case):
    once = sample(batch(case), case.guidance(1.0))
    again = sample(batch(case), case.guidance(1.0))
    assert torch.equal(once.latents, again.latents)
    assert torch.equal(once.images, again.images)


def test_the_objective_climbs(case):
    drawn = batch(case)
    before = seams.final(case.wanted, sample(drawn), drawn)
    after = seams.final(case.wanted, sample(batch(case), case.guidance(0.4)), drawn)
    assert (after > before).all(), (before, after)


def test_one_forward_one_backward_one_decode_one_prediction_a_step(case, monkeypatch):
    grad, backwards = torch.autograd.grad, []
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: backwards.append(1) or grad(*a, **k)
    )
    world = seams.Notes()
    tasks = (TASK, PIXELS, TEACHER)
    for task in tasks:
        task.calls = 0
    drawn = sample(batch(case, world), case.guidance(1.0))
    assert drawn.calls == world.calls == case.calls
    assert len(backwards) == len(case.guided)
    assert world.decodes <= len(case.guided)
    assert all(task.calls <= len(case.guided) for task in tasks)


def test_steps_without_a_gradient_run_in_inference_mode(case):
    world = seams.Notes()
    sample(batch(case, world), case.guidance(1.0))
    assert world.inference == [call not in case.guided for call in range(case.calls)]


REAL = ["entropy of latents", "text within a radius", "pull", "ancestral pull"]


@pytest.mark.parametrize("name", REAL)
def test_real_networks_keep_the_same_promises(name, model):
    case, words = CASES[name], ["forest", "river"]
    together = sample(real(case, model, words, [3, 4]), case.guidance(1.0))
    alone = sample(real(case, model, words[:1], [3]), case.guidance(1.0))
    none = sample(real(case, model, words, [3, 4]), case.guidance(0.0))
    unguided = sample(real(case, model, words, [3, 4]))
    assert torch.equal(none.latents, unguided.latents)
    assert not torch.equal(together.latents, unguided.latents)
    assert together.calls == 3
    torch.testing.assert_close(together.latents[:1], alone.latents, atol=1e-3, rtol=1e-3)


def test_two_gradients_in_one_step_are_an_error():
    def both(start: float):
        first, second = ascend(ENTROPY)(1.0)[0], ascend(seams.Near(0.0))(1.0)[0]
        return [During(0, 0.5, first), During(start, 1, second)]

    case = CASES["entropy of latents"]
    with pytest.raises(UserError, match="step 3; give one Ascend both objectives"):
        sample(batch(case), both(0.375))
    sample(batch(case), both(0.5))
