"""Text becomes image and mask: requests, masks from attention, verdicts, the loop around them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from activegen.data.prompts import Prompts
from activegen.diffusion.pseudo_masks import PseudoMasks
from activegen.diffusion.reliability import Screen
from activegen.diffusion.sampling import Sampling
from activegen.loop.annotating import (
    PRESENCE,
    Annotating,
    AnnotationSettings,
    Screened,
    propose_texts,
)
from activegen.loop.generating import Generator
from activegen.loop.judging import Judge, Opinion, trusting
from activegen.loop.mining import MiningSettings
from activegen.loop.parts import Parts
from activegen.loop.proposing import Origin
from activegen.loop.proposing_masks import MaskProposalSettings
from activegen.loop.rounds import active_generation
from activegen.loop.settings import ArmSettings, LoopSettings
from activegen.records import Request, Sample, UserError, Verdict
from activegen.store import Store, from_png, png
from blocks import CLASSES, SIZE, learner, scenes

PROMPTS = Prompts(("a photo of {word}",), {name: (f"a {name}",) for name in CLASSES})
ORIGIN = Origin(0, "text", "")


def task(background: frozenset[int] = frozenset(), **changes: Any) -> Annotating:
    settings = AnnotationSettings(**{"per_image": (1, 2), "masks": PseudoMasks(), **changes})
    proposal = MaskProposalSettings(budget=4)
    return Annotating((SIZE, SIZE), PROMPTS, proposal, background=background, annotation=settings)


def requests(count: int, of: Annotating) -> list[Request]:
    return of.propose_plain(count, scenes(1, "train"), ORIGIN, np.random.default_rng(0))


def drawn(of: Annotating, asked: list[Request]) -> list[Sample]:
    sampling = Sampling(num_steps=3, cfg_scale=1.5, scheduler="ddim")
    model = tiny.model()
    generator = Generator(of, model, sampling, {"plain": []}, scenes(1, "train"), None)
    return generator((0, asked))[1]


def test_every_class_is_the_first_equally_often_and_background_is_never_asked_for():
    settings = AnnotationSettings(per_image=(1, 2))
    rng = np.random.default_rng(0)
    asked = propose_texts(60, CLASSES, frozenset({1}), PROMPTS, settings, ORIGIN, rng)
    assert Counter(request.target for request in asked) == {0: 30, 2: 30}
    assert {len(request.classes) for request in asked} == {1, 2}
    for request in asked:
        assert request.classes[0] == request.target
        assert 1 not in request.classes
        assert len(set(request.classes)) == len(request.classes)
        assert request.words == tuple(CLASSES[k] for k in request.classes)
        assert all(word in request.prompt for word in request.words)


def test_more_classes_than_there_are_is_an_error():
    with pytest.raises(UserError, match="lower per_image"):
        requests(1, task(per_image=(1, 4)))
    with pytest.raises(UserError, match="least"):
        AnnotationSettings(per_image=(2, 1))


@pytest.mark.parametrize("background", [frozenset(), frozenset({1})])
def test_masks_have_the_classes_of_the_prompt(background):
    of = task(background)
    for sample in drawn(of, requests(6, of)):
        mask = from_png(sample.mask)[0]
        assert mask.shape == (SIZE, SIZE)
        assert set(mask.unique().tolist()) <= {*sample.request.classes, *background}
        sure = from_png(sample.reliability)[0]
        for label in mask.unique():
            ranks = sure[mask == label].float() / 255
            assert float(ranks.max()) == pytest.approx(1 - 1 / len(ranks), abs=1 / 255)
            assert int((ranks >= 0.5).sum()) == len(ranks) // 2
        assert PRESENCE.format(0) in sample.scores
        assert sample.attention


def test_ranks_are_among_all_images_where_the_recipe_says_so():
    of = task(sure_by="share", ranked="all")
    verdicts = [Verdict(f"{k}", True) for k in range(5)]
    accepted = list(zip(drawn(of, requests(5, of)), verdicts, strict=True))
    pool = of.synthetic(iter(accepted), scenes(1, "train"))
    masks, known = pool.labels, pool.reliability
    assert known is not None
    for label in masks.unique():
        shares = known[masks == label].float() / 255
        assert shares.mean() == pytest.approx(0.5, abs=0.01)
    own = torch.stack([(at > 127).float().mean() for at in known])
    assert own.std() > 0.05  # an image is sure as a whole, or not
    stored = torch.stack([from_png(sample.reliability)[0] for sample, _ in accepted])
    assert not torch.equal(stored, known)
    for label in masks.unique():
        at = masks == label
        order = stored[at].argsort(stable=True)
        assert (known[at][order].int().diff() >= 0).all()
    within = task(sure_by="share")
    assert [kept for kept, _ in within.ranked(lambda: accepted)] == [kept for kept, _ in accepted]


def test_a_background_has_no_share_of_the_attention():
    with pytest.raises(UserError, match=r"sure_by.*margin"):
        task(frozenset({1}), sure_by="share")
    with pytest.raises(UserError, match="measure of sureness"):
        AnnotationSettings(sure_by="luck")


def test_a_sample_does_not_depend_on_its_neighbours():
    of = task()
    asked = requests(4, of)
    together = drawn(of, asked)
    alone = [drawn(of, [request])[0] for request in asked]
    for one, other in zip(together, alone, strict=True):
        assert (from_png(one.image).int() - from_png(other.image).int()).abs().max() <= 1
        agree = (from_png(one.mask) == from_png(other.mask)).float().mean()
        assert agree > 0.98


def test_attribution_finds_the_class_when_the_prompt_has_another_word():
    prompts = Prompts(("a photo of {word}",), {name: (f"a {name}",) for name in CLASSES})
    of = replace(task(attribution=True), prompts=prompts)
    (request,) = requests(1, of)
    other = replace(request, prompt="a photo of fish", word="fish", words=("fish",), classes=(0,))
    (sample,) = drawn(of, [other])
    assert set(from_png(sample.mask)[0].unique().tolist()) == {0}
    without = replace(of, annotation=replace(of.annotation, attribution=False))
    absent = replace(other, words=("forest",))
    with pytest.raises(UserError, match="forest"):
        drawn(without, [absent])


def judged(screen: Screen, mask: torch.Tensor, peak: float, then: Any = None) -> Opinion:
    request = Request("a photo of a forest", "forest", 0, 0, classes=(0, 2), words=("x", "y"))
    scores = {PRESENCE.format(0): peak, PRESENCE.format(1): 0.9}
    sample = Sample(request, b"", png(mask.unsqueeze(0)), scores=scores)
    return Screened(screen, None, then)(torch.zeros(3, SIZE, SIZE, dtype=torch.uint8), sample)


def test_screening_has_reasons_and_comes_before_other_checks():
    half = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    half[:8] = 2
    refuses = lambda image, sample: Opinion("label", {"seen": 1.0})  # noqa: E731
    assert judged(Screen(), half, 0.5).reason == ""
    assert judged(Screen(peak=0.6), half, 0.5).reason == "unseen"
    assert judged(Screen(), torch.zeros_like(half), 0.5, refuses).reason == "missing"
    assert judged(Screen(), half, 0.5, refuses) == Opinion("label", {"seen": 1.0})


def test_the_loop_trains_on_what_text_alone_made(tmp_path: Path):
    of = task()
    forbidden = torch.zeros(0, 3, 16, 16)
    check = Screened(of.annotation.screen, of.rest)

    def judge(settings: ArmSettings) -> Judge:
        return Judge(check, forbidden, forbidden) if settings.judge else trusting(forbidden)

    parts = Parts(
        task=of,
        train=scenes(3, "train"),
        test=scenes(2, "test"),
        learner=learner,
        model=tiny.model,
        sampling=Sampling(num_steps=3, cfg_scale=1.5, scheduler="ddim"),
        steering=lambda learners: {"plain": []},
        decoder=lambda model: None,
        judge=judge,
        loop=LoopSettings(rounds=2, generate_until=0.5, batch=2),
        mining=MiningSettings(),
    )
    settings = ArmSettings("plain", judge=False)
    first, last = active_generation(parts, "text", settings, tmp_path, "recipe")
    assert first["accepted"] == 4
    assert 0 <= last["miou"] <= 1
    pool = of.synthetic(Store(str(tmp_path / "store")).accepted(), parts.train)
    assert pool.reliability is not None
    assert pool.reliability.shape == pool.labels.shape == (4, SIZE, SIZE)
