import numpy as np
import pytest
import torch

import colours
import tiny
from activegen.diffusion.sampling import Sampling
from activegen.guidance import MemoryBank
from activegen.loop.generating import Generator, batches
from activegen.loop.rounds import Learners
from activegen.records import Request
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


def test_what_is_not_finite_is_no_sample():
    drawing = generator()
    weight = drawing.model.unet.conv_out.bias  # type: ignore[attr-defined]
    weight.data[:] = float("nan")
    assert drawing((3, [request(5), request(6)])) == (3, [])
