"""The loop on masks: scenes whose classes are colours, and a real ControlNet at toy size."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from activegen.data.fingerprints import thumbnail
from activegen.data.palettes import Palette
from activegen.data.prompts import Prompts
from activegen.data.scenes import RealScenes
from activegen.data.splits import bags
from activegen.diffusion.control import Control
from activegen.diffusion.sampling import Sampling
from activegen.guidance import Ascend, Informative, Inpaint
from activegen.loop.generating import Generator
from activegen.loop.judging import Judge, trusting
from activegen.loop.judging_masks import BelievedPixels
from activegen.loop.mining import MiningSettings
from activegen.loop.objects import ObjectSettings, dilated, softened
from activegen.loop.parts import Learners, Parts
from activegen.loop.proposing_masks import MaskProposalSettings
from activegen.loop.rounds import active_generation, best
from activegen.loop.segmenting import Painting, Segmenting, resized_mask
from activegen.loop.settings import ArmSettings, LoopSettings
from activegen.records import Prediction, Request, Sample, UserError, Verdict
from activegen.scores import SCORES
from activegen.store import Store, from_png, png
from blocks import CLASSES, SIZE, learner, scenes
from toy import unclocked


class Moody:
    """Sees a class in each pixel by its brightness alone, and is rather sure of it."""

    def predict(self, images: Tensor) -> Prediction:
        mood = (images * 255).round().sum(1).long() % len(CLASSES)
        seen = nn.functional.one_hot(mood, len(CLASSES)).movedim(3, 1) * 2.0
        return Prediction(seen.unsqueeze(0))


def task(**changes: Any) -> Segmenting:
    prompts = Prompts(("a photo of {word}",), {name: (name,) for name in CLASSES})
    proposal = MaskProposalSettings(budget=4, **changes)
    return Segmenting((SIZE, SIZE), prompts, proposal, (Painting(Palette.own(CLASSES)),))


def model() -> Any:
    return tiny.model(controls=(Control(tiny.controlnet()),))


def parts(of: Segmenting) -> Parts:
    train, test = scenes(6, "train"), scenes(4, "test")
    forbidden = thumbnail(torch.stack([test.image(k) for k in range(len(test))]))
    check = BelievedPixels(Moody(), torch.full((3,), 0.9), 0.0, 1.0)

    def judge(settings: ArmSettings) -> Judge:
        return Judge(check, forbidden, forbidden[:0]) if settings.judge else trusting(forbidden)

    def steering(learners: Learners) -> dict[str, list]:
        up = Ascend(
            "latents", "decoder", (Informative(learners.main, SCORES["entropy"]),), step=0.1
        )
        kept = [Inpaint()] if of.proposal.objects else []
        return {"plain": kept, "guided": [up, *kept]}

    return Parts(
        task=of,
        train=train,
        test=test,
        learner=learner,
        model=model,
        sampling=Sampling(num_steps=3, cfg_scale=1.5, scheduler="ddim"),
        steering=steering,
        decoder=lambda model: None,
        judge=judge,
        loop=LoopSettings(rounds=3, generate_until=0.67, batch=2),
        mining=MiningSettings(folds=2),
    )


def run(folder: Path, of: Segmenting, settings: ArmSettings) -> list[dict[str, Any]]:
    summaries = active_generation(parts(of), "a", settings, folder, "recipe")
    return unclocked(summaries)


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("guided")
    return folder, run(folder, task(), ArmSettings("guided"))


def test_a_run_draws_images_for_real_masks(guided: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, summaries = guided
    assert [s["figure"] for s in summaries] == ["miou"] * 3
    assert all(0 <= s["miou"] <= 1 and 0 <= s["boundary_iou"] <= 1 for s in summaries)
    real = scenes(6, "train")
    accepted = list(Store(str(folder / "store")).accepted(before_round=3))
    assert len(accepted) == sum(s["accepted"] for s in summaries) > 0
    for sample, verdict in accepted:
        asked = real.mask(real.index_of(sample.request.mask))
        assert torch.equal(from_png(sample.mask)[0], asked)
        assert sample.request.target in asked.unique()
        assert CLASSES[sample.request.target] in sample.request.prompt
        assert from_png(sample.uncertainty).shape == (3, SIZE, SIZE)
        assert sample.scores.keys() >= {"entropy", "cross_entropy"}
        assert "label_agreement" in verdict.scores


def test_ignored_pixels_are_not_learnt(guided: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = guided
    accepted = list(Store(str(folder / "store")).accepted(before_round=3))
    pool = task().synthetic(accepted, scenes(6, "train"))
    assert pool.labels.shape == (len(accepted), SIZE, SIZE)
    for labels, (sample, verdict) in zip(pool.labels, accepted, strict=True):
        stored = from_png(sample.mask)[0]
        left_out = torch.zeros_like(stored).bool()
        if verdict.ignored:
            left_out = from_png(verdict.ignored)[0] > 0
        assert torch.equal(labels, stored.masked_fill(left_out, 255))
    assert any(verdict.ignored for _, verdict in accepted)
    assert len(task().synthetic([], scenes(6, "train"))) == 0


def test_a_run_that_goes_on_is_the_same(
    guided: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, summaries = guided
    again = active_generation(parts(task()), "a", ArmSettings("guided"), tmp_path, "recipe")
    next(again)
    again.close()
    assert run(tmp_path, task(), ArmSettings("guided")) == summaries
    there, here = (Store(str(f / "store")).accepted(before_round=3) for f in (folder, tmp_path))
    assert [s.image for s, _ in there] == [s.image for s, _ in here]


def test_a_committee_of_bags_of_scenes_goes_on_to_the_same_end(tmp_path: Path) -> None:
    made = replace(parts(task()), mining=MiningSettings("bagging", folds=2))

    def rounds(folder: Path) -> Iterator[dict[str, Any]]:
        return active_generation(made, "a", ArmSettings("guided"), folder, "recipe")

    whole = unclocked(rounds(tmp_path / "whole"))
    assert whole[0]["accepted"] > 0 and whole[0]["real"] == len(made.train)
    stopped = rounds(tmp_path / "stopped")
    next(stopped)
    stopped.close()
    assert unclocked(rounds(tmp_path / "stopped")) == whole
    there, here = (Store(str(tmp_path / name / "store")) for name in ("whole", "stopped"))
    assert there.fingerprints() == here.fingerprints()
    unseen = {id for _, rest in bags(made.train, 2, made.seed) for id in rest.ids}
    asked = {request.mask for k in (0, 1) for request in there.round(k).plan() or []}
    assert asked and asked <= unseen < set(made.train.ids)


def test_one_object_is_redrawn_and_the_rest_stays_real(tmp_path: Path) -> None:
    of = task(objects=True)
    run(tmp_path, of, ArmSettings("guided", judge=False))
    real = scenes(6, "train")
    accepted = list(Store(str(tmp_path / "store")).accepted(before_round=3))
    assert accepted
    for sample, _ in accepted:
        place = real.index_of(sample.request.mask)
        assert sample.request.part >= 1
        region = of.region(sample.request, (SIZE, SIZE), real)
        assert (real.mask(place)[region] == sample.request.target).all()
        near = torch.nn.functional.max_pool2d(region[None].float(), 5, 1, 2)[0] > 0
        drawn, kept = from_png(sample.image), real.image(place)
        assert torch.equal(drawn[:, ~near], kept[:, ~near])
        assert not torch.equal(drawn[:, region], kept[:, region])
        assert torch.equal(from_png(sample.mask)[0], real.mask(place))  # the label is whole


class Divided:
    """Is certain of what is bright, and knows nothing of the rest."""

    def predict(self, images: Tensor) -> Prediction:
        sure = (images.mean(1, keepdim=True) > 0.5) * 20.0
        return Prediction(torch.cat([sure, -sure, -sure], 1)[None])


def test_scores_count_the_object_alone_as_steering_does() -> None:
    of, real = task(objects=True), scenes(3, "train")
    request = Request("a photo of river", "river", 1, 0, mask="train/0", part=2)
    generator = Generator(
        of, model(), Sampling(num_steps=1, scheduler="ddim"), {"plain": []}, real, Divided()
    )
    (sample,) = generator((0, [request]))[1]
    region = of.region(request, (SIZE, SIZE), real)
    assert 0 < region.sum() < region.numel() / 2
    drawn = from_png(sample.image)[None] / 255
    asked = real.mask(0).long().masked_fill(~region, 255)[None]
    batch = of.batch([request], generator.model, generator.sampling, real)
    assert torch.equal(batch.target, asked)
    for name in ("entropy", "cross_entropy"):
        told, whole = (
            float(SCORES[name](Divided().predict(drawn), target))
            for target in (asked, real.mask(0).long()[None])
        )
        assert sample.scores[name] == pytest.approx(told)
        assert abs(told - whole) > 0.01
    assert from_png(sample.uncertainty)[0, 1:][~region[1:]].any()  # the picture shows all


def test_what_lies_near_an_object_may_be_redrawn_with_it() -> None:
    real, request = scenes(1, "train"), Request("a photo of river", "river", 1, 0, "train/0", 2)
    alone = task(objects=True).region(request, (SIZE, SIZE), real)
    of = replace(task(objects=True), things=ObjectSettings(dilation=2))
    around = of.region(request, (SIZE, SIZE), real)
    assert torch.equal(around, dilated(alone, 2)) and around.sum() > alone.sum()
    drawn = torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8)
    (made,) = of.finished(drawn, None, [request], real)
    counted = real.mask(0).masked_fill(~around, 255)
    assert made.counted is not None and torch.equal(made.counted, counted)
    assert made.image[:, alone].max() < 16 and torch.equal(made.target, real.mask(0))
    for part in (0, 3):
        with pytest.raises(UserError, match=f"no object {part} in the mask of 'train/0'"):
            of.region(replace(request, part=part), (SIZE, SIZE), real)


EDGES = (0, 8, 13, 16)  # of three objects side by side, the largest first


def stripes() -> RealScenes:
    """One real image of noise."""
    made = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    for label, (start, stop) in enumerate(pairwise(EDGES)):
        made[:, start:stop] = label
    noise = torch.randint(0, 256, (3, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    return RealScenes(
        "stripes", CLASSES, ("one",), lambda index: noise.to(torch.uint8), lambda index: made
    )


def shown(probability: float) -> Segmenting:
    return replace(task(objects=True), things=ObjectSettings(dilation=2, together=probability))


def redrawn(parts: Sequence[int]) -> tuple[Tensor, list[tuple[Sample, Verdict]]]:
    """Noise for objects of the stripes, and what is stored of it; 0 is the whole scene."""
    rng = torch.Generator().manual_seed(1)
    drawn = torch.randint(0, 256, (len(parts), 3, SIZE, SIZE), generator=rng).to(torch.uint8)
    asked = [Request("a river", "river", 1, 7 + k, "one", part) for k, part in enumerate(parts)]
    made = shown(0).finished(drawn, None, asked, stripes())
    samples = [
        Sample(request, png(of.image), png(of.target[None]))
        for request, of in zip(asked, made, strict=True)
    ]
    return drawn, [(sample, Verdict(sample.request.id, True)) for sample in samples]


def test_redrawn_objects_of_an_image_are_learnt_together() -> None:
    drawn, accepted = redrawn([2, 1, 3])
    of, real = shown(1.0), stripes()
    result = real.image(0).float()
    for part, image in ((1, drawn[1]), (2, drawn[0]), (3, drawn[2])):  # the largest is behind
        alpha = softened(of.region(Request("", "", 0, 0, "one", part), (SIZE, SIZE), real))
        result = alpha * image + (1 - alpha) * result
    pool = of.synthetic(iter(accepted), real)
    assert len(pool) == 3 and pool.synthetic.all()
    for image, labels in zip(pool.images, pool.labels, strict=True):
        assert (image.int() - result.round().int()).abs().max() <= 1
        assert torch.equal(labels, real.mask(0))


def test_redrawn_objects_stay_alone_by_default() -> None:
    _, accepted = redrawn([2, 1, 3])
    pool = shown(0.0).synthetic(accepted, scenes(1, "train"))  # their real image is not read
    stored = torch.stack([from_png(sample.image) for sample, _ in accepted])
    assert torch.equal(pool.images, stored)


def test_which_are_learnt_together_is_chance_that_repeats() -> None:
    _, accepted = redrawn([1] * 100 + [3, 3])
    of, real = shown(0.3), stripes()
    stored = torch.stack([from_png(sample.image) for sample, _ in accepted])
    images = of.synthetic(accepted, real).images
    again = shown(0.3).synthetic(accepted[::-1], stripes()).images
    assert torch.equal(images, again.flip(0))
    assert 20 < (images != stored).flatten(1).any(1)[:100].sum() < 40
    always = shown(1.0).synthetic(accepted, real).images[:100, :, :, 14:]
    which = [(always == stored[k, :, :, 14:]).flatten(1).all(1) for k in (100, 101)]
    assert (which[0] ^ which[1]).all() and min(int(of.sum()) for of in which) > 30


def test_a_whole_scene_is_learnt_as_it_was_drawn() -> None:
    drawn, accepted = redrawn([0, 1])
    images = shown(1.0).synthetic(accepted, stripes()).images
    assert torch.equal(images[0], drawn[0])
    assert torch.equal(images[1], from_png(accepted[1][0].image))


def test_what_a_judge_ignores_of_an_added_object_counts_where_it_is_drawn() -> None:
    _, accepted = redrawn([1, 3])
    row = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    row[5] = 255
    (one, _), (other, _) = accepted
    doubts = [
        Verdict(one.request.id, True),
        Verdict(other.request.id, True, ignored=png(row[None])),
    ]
    of, real = shown(1.0), stripes()
    pool = of.synthetic([(one, doubts[0]), (other, doubts[1])], real)
    region = of.region(other.request, (SIZE, SIZE), real)
    faintly = softened(region)[0] > 0
    assert region.sum() < faintly.sum() < region.numel() / 2
    kept = real.mask(0)
    assert torch.equal(pool.labels[0], kept.masked_fill(faintly & (row > 0), 255))
    assert torch.equal(pool.labels[1], kept.masked_fill(row > 0, 255))  # its own, all of it


def test_a_selected_arm_keeps_the_best_of_its_pool(tmp_path: Path) -> None:
    settings = ArmSettings("selected", judge=False, pool=3, by="margin")
    summaries = run(tmp_path, task(), settings)
    assert [s["accepted"] for s in summaries] == [4, 4, 0]
    stored = Store(str(tmp_path / "store")).round(0)
    values = {s.request.id: s.scores["margin"] for s in stored.samples()}
    verdicts = stored.verdicts() or []
    assert len(verdicts) == 12
    kept = [values[v.id] for v in verdicts if v.accepted]
    lost = [values[v.id] for v in verdicts if v.reason == "outscored"]
    assert len(lost) == 8 and min(kept) >= max(lost)


def test_a_selected_arm_may_ask_a_committee(tmp_path: Path) -> None:
    settings = ArmSettings("selected", judge=False, pool=3, by="disagreement", of="committee")
    summaries = run(tmp_path, task(), settings)
    assert [s["real"] for s in summaries] == [6, 6, 6]
    stored = Store(str(tmp_path / "store")).round(0)
    values = {s.request.id: s.scores["disagreement of committee"] for s in stored.samples()}
    assert len(set(values.values())) > 1 and min(values.values()) > 0
    kept = [values[v.id] for v in stored.verdicts() or [] if v.accepted]
    assert sorted(kept) == sorted(values.values())[-4:]


def test_a_selected_arm_may_ask_the_learner_and_a_teacher(tmp_path: Path) -> None:
    settings = ArmSettings("selected", judge=False, pool=3, by="teacher_student")
    taught = replace(parts(task()), teacher=Moody)
    list(active_generation(taught, "a", settings, tmp_path, "recipe"))
    stored = Store(str(tmp_path / "store")).round(0)
    samples = list(stored.samples())
    values = {s.request.id: s.scores["teacher_student"] for s in samples}
    for sample in samples:  # the learner's part is at most its cap
        drawn = from_png(sample.image).unsqueeze(0) / 255
        target = from_png(sample.mask)[:1].long()
        teacher = SCORES["cross_entropy"](Moody().predict(drawn), target)
        student = sample.scores["cross_entropy"]
        assert values[sample.request.id] == pytest.approx(student - float(teacher), abs=1e-4)
    kept = [values[v.id] for v in stored.verdicts() or [] if v.accepted]
    assert sorted(kept) == sorted(values.values())[-4:]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"by": "disagreement"}, "disagreement of one learner is 0"),
        ({"by": "vote_entropy"}, "vote_entropy of one learner is 0"),
        ({"of": "everybody"}, "not of 'everybody'"),
        ({"of": "committee", "real": False}, "has real images"),
        ({"of": "committee", "generate": "plain"}, "generates 'selected'"),
    ],
)
def test_a_ranking_that_says_nothing_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ArmSettings(**{"generate": "selected", **settings})


def test_the_best_are_among_the_accepted() -> None:
    verdicts = [Verdict("a", True), Verdict("b", False, "black"), Verdict("c", True)]
    found = best(verdicts, {"a": 1.0, "b": 9.0, "c": 2.0}, 1)
    assert [v.reason for v in found] == ["outscored", "black", ""]


def test_masks_are_resized_by_the_nearest_pixel() -> None:
    small = torch.tensor([[0, 255], [1, 2]], dtype=torch.uint8)
    large = resized_mask(small, (4, 4))
    assert torch.equal(large, small.repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_what_is_learnt_carries_its_reliability() -> None:
    asked, sure = scenes(1, "train").mask(0), torch.arange(SIZE**2).view(SIZE, SIZE).to(torch.uint8)
    of = Request("a river", "river", 1, 0)
    image = png(torch.zeros(3, SIZE, SIZE, dtype=torch.uint8))
    known = Sample(of, image, png(asked[None]), png(sure[None]))
    without = Sample(of, image, png(asked[None]))
    accepted = [(one, Verdict(of.id, True)) for one in (known, without)]
    pool = task().synthetic(accepted, scenes(1, "train"))
    assert pool.reliability is not None
    assert torch.equal(pool.reliability[0], sure)
    assert (pool.reliability[1] == 255).all()
