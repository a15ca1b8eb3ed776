import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from activegen.loop.judging import REASONS, Judge
from activegen.loop.judging_masks import (
    BelievedPixels,
    MaskJudgeSettings,
    class_losses,
    loss_thresholds,
)
from activegen.records import Prediction, Request, Sample, UserError
from activegen.scores import consensus
from activegen.store import from_png, png
from activegen.tasks.committee import Committee

COLOURS = torch.tensor([[40, 160, 40], [40, 60, 200], [200, 120, 60]], dtype=torch.uint8)
NOTHING = torch.zeros(0, 3, 16, 16)
SIDE = 16
HALVES = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
HALVES[:, 8:] = 1


class Eye(nn.Module):
    """Knows each class by its colour alone."""

    def __init__(self, sharpness: float = 20.0):
        super().__init__()
        self.colours = nn.Parameter(COLOURS.float() / 255)
        self.dropout = nn.Dropout(0.5)
        self.sharpness = sharpness

    def predict(self, images):
        away = (images[:, None] - self.colours[None, :, :, None, None]).square().sum(2)
        return Prediction(self.dropout(-self.sharpness * away)[None])


def painted(mask: torch.Tensor, seed: int = 0, noise: float = 12.0) -> torch.Tensor:
    """The colours of a mask, and of ignored pixels black, with noise."""
    rng = torch.Generator().manual_seed(seed)
    palette = torch.cat([COLOURS, torch.zeros(253, 3, dtype=torch.uint8)])
    clean = palette[mask.long()].permute(2, 0, 1).float()
    noisy = clean + noise * torch.randn(3, *mask.shape, generator=rng)
    return noisy.round().clamp(0, 255).to(torch.uint8)


def teacher() -> Eye:
    return Eye().eval()


THRESHOLDS = loss_thresholds(teacher(), [(painted(HALVES, seed), HALVES) for seed in range(4)], 4.0)


def check(**changes) -> BelievedPixels:
    strict = BelievedPixels(teacher(), THRESHOLDS, min_agreement=0.7, max_ignored=0.2)
    return replace(strict, **changes)


def sample(image: torch.Tensor, mask: torch.Tensor, part: int = 0) -> Sample:
    return Sample(Request("a", "a", 0, 0, mask="real", part=part), png(image), png(mask[None]))


def opinion(asked: BelievedPixels, image: torch.Tensor, mask: torch.Tensor = HALVES):
    with torch.inference_mode():
        return asked(image, sample(image, mask))


def test_thresholds_are_the_mean_loss_of_each_class_times_the_factor():
    pairs = [(painted(HALVES, seed, noise=40), HALVES) for seed in range(3)]
    found = loss_thresholds(teacher(), pairs, 1.25)
    with torch.no_grad():
        logits = torch.cat([teacher().predict(image[None] / 255).logits for image, _ in pairs], 1)
    of_truth = torch.nn.functional.cross_entropy(
        logits[0], HALVES.long().expand(3, -1, -1), reduction="none"
    )
    for label in (0, 1):
        mean = float(of_truth[:, HALVES == label].mean())
        assert float(found[label]) == pytest.approx(1.25 * mean, rel=1e-5)
    assert found[2] == math.inf


def test_thresholds_ignore_ignored_pixels_and_keep_the_mode_of_the_teacher():
    hidden = HALVES.clone()
    hidden[:4, :] = 255  # painted black, which no class is
    model = Eye().train()
    found = loss_thresholds(model, [(painted(hidden), hidden)])
    assert float(found[:2].max()) < 0.1
    assert model.training and model.dropout.training
    with pytest.raises(UserError, match="no real images"):
        loss_thresholds(teacher(), [])


def test_images_may_differ_in_size():
    small = HALVES[:8, 4:12]
    one = loss_thresholds(teacher(), [(painted(HALVES), HALVES), (painted(small), small)])
    assert one[:2].isfinite().all()


def test_members_are_asked_together():
    images = painted(HALVES, noise=60)[None] / 255
    members = Committee((Eye(5.0).eval(), Eye(40.0).eval()))
    with torch.no_grad():
        logits = members.predict(images).logits
    assert torch.allclose(consensus(logits).exp(), logits.softmax(2).mean(0), atol=1e-6)


def test_class_losses_are_sums_and_numbers():
    log_p = torch.tensor([0.5, 0.25, 0.25]).log().view(3, 1, 1).expand(3, 2, 2)
    sums, counts = class_losses(log_p, torch.tensor([[0, 0], [2, 255]]))
    assert counts.tolist() == [2, 0, 1]
    assert sums.tolist() == pytest.approx([2 * math.log(2), 0, math.log(4)])


def test_an_image_as_asked_for_is_believed():
    said = opinion(check(), painted(HALVES, 9))
    assert said.reason == ""
    assert said.numbers["label_agreement"] == 1
    assert said.numbers["ignored_share"] < 0.05 and said.numbers["most_ignored"] < 0.1


def test_exactly_the_pixels_of_high_loss_are_ignored():
    shown = HALVES.clone()
    shown[2:6, 2:6] = 2  # drawn, but not in the mask
    said = opinion(check(), painted(shown, noise=0))
    assert said.reason == ""
    assert torch.equal(from_png(said.ignored)[0] == 255, shown == 2)
    assert said.numbers["ignored_share"] == pytest.approx(16 / 256)
    assert said.numbers["label_agreement"] == pytest.approx(1 - 16 / 256)


def test_the_threshold_decides_what_is_ignored():
    image = painted(HALVES, noise=40)
    with torch.no_grad():
        logits = teacher().predict(image[None] / 255).logits
    losses = torch.nn.functional.cross_entropy(logits[0], HALVES[None].long(), reduction="none")[0]
    said = opinion(check(thresholds=torch.tensor([0.01, 0.3, 0.5]), max_ignored=1.0), image)
    expected = losses > torch.where(HALVES == 0, 0.01, 0.3)
    assert 0 < expected.sum() < 256
    assert torch.equal(from_png(said.ignored)[0] == 255, expected)


def test_nothing_to_ignore_is_no_png():
    assert opinion(check(), painted(HALVES, noise=0)).ignored == b""


def test_another_picture_is_no_label():
    swapped = opinion(check(), painted(1 - HALVES))
    assert (swapped.reason, swapped.numbers["label_agreement"]) == ("label", 0)


def test_a_class_that_is_nowhere_is_no_label_however_much_the_rest_agrees():
    mask = HALVES.clone()
    mask[:3, :3] = 2
    missing = opinion(check(), painted(HALVES), mask)
    assert missing.reason == "" and missing.numbers["most_ignored"] < 0.1
    assert missing.numbers["label_agreement"] == 1  # not in real images, so it is not judged
    known = check(thresholds=torch.full((3,), 0.1))
    missing = opinion(known, painted(HALVES), mask)
    assert missing.reason == "label" and missing.numbers["label_agreement"] > 0.9
    assert missing.numbers["most_ignored"] == 1
    assert opinion(known, painted(mask), mask).reason == ""
    partly = HALVES.clone()
    partly[0, 0] = 2  # one pixel of it is there
    assert opinion(known, painted(partly, noise=0), mask).reason == ""


def test_a_class_that_the_teacher_does_not_find_in_real_images_either_is_believed():
    mask = HALVES.clone()
    mask[:3, :3] = 2
    overlooked = [(painted(HALVES), mask)] * 4  # real images in which it looks like another class
    thresholds = loss_thresholds(teacher(), overlooked)
    said = opinion(check(thresholds=thresholds), painted(HALVES), mask)
    assert said.reason == "" and said.numbers["label_agreement"] < 1


def test_a_class_of_hardly_a_pixel_may_be_overlooked():
    mask = HALVES.clone()
    mask[0, 0] = 2
    assert opinion(check(thresholds=torch.full((3,), 0.1)), painted(HALVES), mask).reason == ""


def test_much_to_ignore_is_unclear():
    shown = HALVES.clone()
    shown[:, 1:5] = 2
    assert opinion(check(), painted(shown)).reason == "unclear"
    assert opinion(check(max_ignored=0.3), painted(shown)).reason == ""


def test_pixels_that_are_ignored_in_the_mask_do_not_count():
    mask, shown = HALVES.clone(), HALVES.clone()
    mask[:, :6] = 255
    shown[:, :6] = 2
    said = opinion(check(), painted(shown, noise=0), mask)
    assert said == ("", {"label_agreement": 1, "ignored_share": 0, "most_ignored": 0}, b"")
    nothing = opinion(check(), painted(HALVES), torch.full_like(HALVES, 255))
    assert nothing == ("unclear", {}, b"")


def test_the_band_along_edges_is_ignored_and_not_judged():
    shown = HALVES.clone()
    shown[:, 7:9] = 2
    said = opinion(check(edge_band=1), painted(shown, noise=0))
    band = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    band[:, 7:9] = True
    assert torch.equal(from_png(said.ignored)[0] == 255, band)
    assert said.numbers["label_agreement"] == 1 and said.numbers["ignored_share"] == 0


def test_of_a_redrawn_object_only_its_pixels_are_judged():
    thing = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    thing[4:8, 2:14] = True
    shown = HALVES.clone()
    shown[~thing] = 2  # real, whatever it looks like
    asked = check(where=lambda request: thing if request.part else ~thing, edge_band=1)
    image = painted(shown, noise=0)
    with torch.inference_mode():
        said = asked(image, sample(image, HALVES, part=1))
        whole = asked(image, sample(image, HALVES))
    assert said.reason == "" and whole.reason == "label"
    assert not (from_png(said.ignored)[0] == 255)[~thing].any()


def test_the_judge_hands_on_reason_numbers_and_pixels():
    shown = HALVES.clone()
    shown[2:6, 2:6] = 2
    good = sample(painted(shown, noise=0), HALVES)
    bad = replace(good, request=replace(good.request, seed=1), image=png(painted(1 - HALVES, 3)))
    judge = Judge(check(), NOTHING, NOTHING)
    first, second = judge.verdicts([good.request, bad.request], [good, bad], NOTHING)
    assert first.accepted and (from_png(first.ignored) == 255).sum() == 3 * 16
    assert second.reason == "label" and "label" in REASONS and "unclear" in REASONS


@pytest.mark.parametrize(
    "wrong",
    [
        {"members": 0},
        {"steps": 0},
        {"loss_factor": 0},
        {"min_agreement": 1.1},
        {"max_ignored": -1},
        {"edge_band": -1},
    ],
)
def test_bad_settings(wrong):
    with pytest.raises(UserError):
        MaskJudgeSettings(**wrong)
