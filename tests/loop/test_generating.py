from dataclasses import replace

import numpy as np
import pytest
import torch

import colours
import tiny
from activegen.diffusion.sampling import Sampling
from activegen.guidance import Ascend, Informative, MemoryBank
from activegen.loop.generating import Generator, batches
from activegen.loop.judging import DROPPED, HOPELESS, Opinion, trusting
from activegen.loop.parts import Learners
from activegen.records import Request, Sample, UserError
from activegen.scores import entropy
from activegen.store import from_png


def request(seed: int, steering: str = "plain", reference: str = "") -> Request:
    return Request("a photo of river", "river", 1, seed, reference=reference, steering=steering)


def generator() -> Generator:
    train = colours.images(3, "train")
    learner = colours.learner().model.eval()
    return Generator(
        task=colours.task(),
        model=tiny.model(),
        sampling=Sampling(num_steps=3, cfg_scale=2.0),
        steering=colours.steering(Learners(learner, (learner,), MemoryBank())),
        real=train,
        learner=learner,
    )


def test_pieces_are_of_one_way_each():
    plan = [request(0), request(1), request(2), request(3, "guided", "train/3")]
    pieces = batches(plan, 2)
    assert [number for number, _ in pieces] == [0, 1, 2]
    assert [[r.seed for r in piece] for _, piece in pieces] == [[0, 1], [2], [3]]


def test_a_sample_has_its_picture_latents_attention_scores_and_origin():
    number, samples = generator()((7, [request(5, "guided", "train/3")]))
    (made,) = samples
    assert number == 7
    assert from_png(made.image).shape == (3, 16, 16)
    assert np.frombuffer(made.latents, np.float16).shape == (4 * 8 * 8,)
    assert from_png(made.attention).shape == (3, 8, 8)
    assert made.scores.keys() == {
        "entropy", "cross_entropy", "predicted", "presence", "skipped_gradients"
    }  # fmt: skip
    assert made.made_by["model"] == "tiny" and made.made_by["revision"]


def test_scores_are_of_the_stored_8_bit_image():
    drawing = generator()
    _, (made,) = drawing((0, [request(5)]))
    logits = drawing.learner.predict(from_png(made.image).unsqueeze(0) / 255).logits
    expected = torch.nn.functional.cross_entropy(logits[0].detach(), torch.tensor([1]))
    assert made.scores["cross_entropy"] == pytest.approx(float(expected), abs=1e-5)


def test_a_request_gives_the_same_image_alone_and_in_company():
    drawing = generator()
    wanted = request(5, "guided", "train/3")
    alone = from_png(drawing((0, [wanted]))[1][0].image).int()
    company = [request(6, "guided", "train/4"), wanted, request(7, "guided", "train/5")]
    together = from_png(drawing((0, company))[1][1].image).int()
    assert (alone - together).abs().max() <= 1


def test_the_reference_matters():
    drawing = generator()
    one = drawing((0, [request(5, "guided", "train/3")]))[1][0].image
    other = drawing((0, [request(5, "guided", "train/0")]))[1][0].image
    assert one != other


class Doubtful:
    """Refuses every second picture, and keeps what it saw."""

    def __init__(self):
        self.seen: list[tuple[torch.Tensor, Sample]] = []

    def __call__(self, image, sample):
        self.seen.append((image, sample))
        return Opinion("label" if sample.request.seed % 2 else "", {})


def test_what_is_hopeless_half_drawn_is_not_finished():
    plan, check = [request(5), request(6), request(7)], Doubtful()
    whole = generator()((0, plan))[1]
    _, samples = replace(generator(), preview=(0.4, check))((0, plan))
    assert [sample.request.seed for _, sample in check.seen] == [5, 6, 7]
    assert [DROPPED in sample.scores for sample in samples] == [True, False, True]
    assert samples[0].scores[DROPPED] == 0.4
    for half, (picture, _) in zip(samples[::2], check.seen[::2], strict=True):
        assert torch.equal(from_png(half.image), picture)
    difference = from_png(samples[1].image).int() - from_png(whole[1].image).int()
    assert difference.abs().max() <= 1
    verdicts = trusting(torch.zeros(0, 3, 16, 16)).verdicts(
        plan, samples, torch.zeros(0, 3, 16, 16)
    )
    assert [verdict.reason for verdict in verdicts] == [HOPELESS, "", HOPELESS]


def test_short_of_memory_gradients_recompute_and_then_it_is_an_error(monkeypatch):
    climbing = Ascend("latents", "denoiser", (Informative(generator().learner, entropy),), 0.05)
    steering = {"guided": [climbing]}
    plan = [request(5, "guided")]
    _, (expected,) = replace(generator(), steering=steering)((0, plan))
    drawing, fails = replace(generator(), steering=steering), [1]
    inner = drawing.model.denoise

    def full(*args, **kwargs):
        if torch.is_grad_enabled() and fails and fails.pop():
            raise torch.OutOfMemoryError("full")
        return inner(*args, **kwargs)

    monkeypatch.setattr(drawing.model, "denoise", full)
    _, (made,) = drawing((0, plan))
    assert drawing.model.unet.is_gradient_checkpointing  # type: ignore[attr-defined]
    assert (from_png(made.image).int() - from_png(expected.image).int()).abs().max() <= 1
    fails.append(1)
    with pytest.raises(UserError, match=r"loop\.batch"):
        drawing((0, plan))


def test_gradients_of_a_micro_batch_make_the_same_images(monkeypatch):
    climbing = Ascend("conditioning", "denoiser", (Informative(generator().learner, entropy),), 1.0)
    plan = [request(seed, "guided") for seed in (5, 6, 7)]
    whole = replace(generator(), steering={"guided": [climbing]})
    pieces = replace(whole, micro_batch=2, model=tiny.model())
    rows: list[int] = []
    pieces.model.unet.register_forward_pre_hook(  # type: ignore[attr-defined]
        lambda _, inputs: rows.append(len(inputs[0])) if torch.is_grad_enabled() else None
    )
    pairs = zip(whole((0, plan))[1], pieces((0, plan))[1], strict=True)
    for a, b in pairs:
        assert (from_png(a.image).int() - from_png(b.image).int()).abs().max() <= 1
    assert rows == [2, 1] * 3


def test_what_is_not_finite_is_no_sample():
    drawing = generator()
    weight = drawing.model.unet.conv_out.bias  # type: ignore[attr-defined]
    weight.data[:] = float("nan")
    assert drawing((3, [request(5), request(6)])) == (3, [])
