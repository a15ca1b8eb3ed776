import base64
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from activegen.data.palettes import Palette
from activegen.data.readers import read_scenes
from activegen.loop.judging import REASONS
from activegen.records import Request, Sample, Verdict
from activegen.report import write
from activegen.report.cards import SHOWN_SCENES
from activegen.report.facts import read
from activegen.store import Store, png

EVIL = "<script>alert(1)</script>"
CLASSES = ("field", EVIL, "river & lake", "road")
COLOURS = Palette.own(CLASSES).of(CLASSES)
SIZE = (12, 16)
ENDS = {0: "outscored", 1: "unclear", 2: "not finite"}  # of requests by their place
RECIPE = """
name: toy
seed: 7
loop: {rounds: 2}
segmentation: {controls: []}
arms:
  real_only: {generate: none}
  chosen: {generate: selected, judge: false}
  active: {generate: guided}
"""


def mask(target: int) -> torch.Tensor:
    """The target on the left, water on the right, and a column that has no label."""
    pixels = torch.full(SIZE, target, dtype=torch.uint8)
    pixels[:, 8:] = 2
    pixels[:, 15] = 255
    return pixels


def plan(arm: str, round: int, count: int) -> list[Request]:
    return [
        Request(
            f"a {CLASSES[k % 2]} and others",
            CLASSES[k % 2],
            k % 2,
            seed=100 * round + k,
            mask=f"real/{k}",
            part=2 if arm == "active" and k == 4 else 0,
            round=round,
            arm=arm,
            steering="guided" if arm == "active" and k % 2 else "plain",
        )
        for k in range(count)
    ]


def sample(request: Request) -> Sample:
    rng = torch.Generator().manual_seed(request.seed)
    image = torch.randint(0, 256, (3, *SIZE), generator=rng, dtype=torch.uint8)
    uncertainty = torch.zeros(1, *SIZE, dtype=torch.uint8)
    uncertainty[:, :6] = 255
    scores = {"entropy": 0.5, "cross_entropy": 1.234}
    shown = mask(request.target)[None]
    return Sample(request, png(image), png(shown), uncertainty=png(uncertainty), scores=scores)


def verdict(request: Request, end: str) -> Verdict:
    if request.arm != "active":
        return Verdict(request.id, not end, end)
    ignored = torch.zeros(1, *SIZE, dtype=torch.uint8)
    ignored[:, :4, :4] = 255
    measured = {"label_agreement": 0.875, "ignored_share": 0.083, "most_ignored": 0.25}
    return Verdict(request.id, not end, end, measured, png(ignored))


def summary(number: int, miou: float, verdicts: list[Verdict]) -> dict:
    return {
        "round": number,
        "step": 10 * (number + 1),
        "figure": "miou",
        "miou": miou,
        "per_class": [miou, math.nan, miou - 0.1, miou + 0.1],
        "worst_class": 2,
        "boundary_iou": miou - 0.3,
        "pixel_accuracy": miou + 0.25,
        "ece": 0.05,
        "proposed": len(verdicts),
        "accepted": sum(v.accepted for v in verdicts),
        "seconds": {"train": 1.5},
    }


def fill(run: Path, arm: str, reached: tuple[float, ...], count: int, ends: dict) -> dict:
    """A store of an arm; its part of result.json, as a run writes it."""
    store = Store.create_or_open(str(run / "arms" / arm / "store"), "ab" * 8, CLASSES)
    for number, miou in enumerate(reached):
        round, asked = store.round(number), plan(arm, number, count)
        verdicts = [verdict(r, ends.get(k, "")) for k, r in enumerate(asked)]
        round.write_plan(asked)
        lost = {v.id for v in verdicts if v.reason == "not finite"}
        round.write_shard(0, [sample(r) for r in asked if r.id not in lost])
        round.write_verdicts(verdicts)
        round.close(summary(number, miou, verdicts))
    rounds = [store.round(k).summary() for k in store.rounds()]
    last = rounds[-1]
    assert last is not None
    figures = {name: last[name] for name in ("figure", "miou", "boundary_iou", "pixel_accuracy")}
    numbers = [None if math.isnan(x) else x for x in last["per_class"]]
    per_class = dict(zip(CLASSES, numbers, strict=True))
    images = sum(summary["accepted"] for summary in rounds if summary)
    rest = {"worst_class": CLASSES[2], "ece": 0.05, "images": images, "steps": 20}
    return figures | rest | {"per_class": per_class, "rejected": {}, "rounds": rounds}


def finished(run: Path) -> Path:
    (run / "recipe.yaml").write_text(RECIPE)
    (run / "environment.json").write_text('{"python": "3"}')
    arms = {
        "real_only": fill(run, "real_only", (0.5, 0.61), 0, {}),
        "chosen": fill(run, "chosen", (0.5, 0.6), 4, {0: "outscored"}),
        "active": fill(run, "active", (0.55, 0.642), 6, ENDS),
    }
    whole = {"recipe": "toy", "seed": 7, "arms": arms, "seconds": 60.0}
    (run / "result.json").write_text(json.dumps(whole))
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a finished run whose real images are known; for tests that change nothing."""
    return write(finished(tmp_path_factory.mktemp("run")), real)


def real(id: str) -> torch.Tensor:
    return torch.full((3, 24, 32), 200, dtype=torch.uint8)


def words(text: str) -> str:
    """What a reader sees."""
    text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.S)
    return re.sub(r"\s+", " ", text)


def cards(page: Path, arm: str) -> list[dict[str, np.ndarray | None]]:
    """The pictures of each card of an arm by their captions, None for an empty frame."""
    album = page.read_text(encoding="utf-8").split(f"<h3>{arm} ")[1].split("<h3>")[0]
    found = []
    for card in re.findall(r"<article.*?</article>", album.split("<h2>")[0], re.S):
        frames = {}
        for figure in re.findall(r"<figure>(.*?)</figure>", card, re.S):
            caption = re.search(r"<figcaption>(.*?)</figcaption>", figure)
            data = re.search(r'base64,([^"]*)"', figure)
            assert caption
            frames[caption[1]] = None if data is None else pixels(data[1])
        found.append(frames)
    return found


def pixels(data: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def test_the_page_speaks_of_intersection_over_union(page: Path):
    seen = words(page.read_text(encoding="utf-8"))
    assert "real_only has an mIoU of 61.0 %; chosen has an mIoU of 60.0 % (" in seen
    assert "active has an mIoU of 64.2 % (+3.2 points against real_only)" in seen
    assert "Boundary IoU Pixel accuracy Worst class" in seen
    assert "64.2 % +3.2 points 34.2 % 89.2 % 54.2 % river &amp; lake" in seen
    assert "Class IoU IoU difference accepted IoU difference accepted" in seen
    rest = seen.replace("Pixel accuracy", "")
    assert "ccuracy" not in rest and "is right on" not in rest
    assert "partial" not in seen


def test_the_curve_is_of_the_figure(page: Path):
    facts = read(page.parent)
    assert [arm.reached for arm in facts.arms] == [0.61, 0.6, 0.642]
    text = page.read_text(encoding="utf-8")
    assert 'alt="mIoU of each arm against optimiser steps"' in text
    assert "No round has been evaluated yet" not in text


def test_a_run_under_way_is_told_by_its_summaries(run: Path):
    (run / "result.json").unlink()
    (run / "arms/active/store/round-0001/round.json").unlink()
    facts = read(run)
    assert [arm.reached for arm in facts.arms] == [0.61, 0.6, 0.55]
    assert facts.arms[2].per_class == {"field": 0.55, "river & lake": 0.55 - 0.1, "road": 0.65}
    assert facts.arms[2].worst_class == "river & lake"
    assert facts.arms[2].value("boundary_iou") == 0.55 - 0.3
    assert "25.0 %" in words(write(run, real).read_text(encoding="utf-8"))


def test_a_run_that_has_only_begun_knows_what_it_will_be_compared_by(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    seen = words(write(tmp_path).read_text(encoding="utf-8"))
    assert "Nothing has been evaluated yet." in seen
    assert "mIoU" in seen and "Accuracy" not in seen


def test_each_sample_shows_what_became_of_the_mask(run: Path):
    asked: list[str] = []
    page = write(run, lambda id: asked.append(id) or real(id))
    shown = cards(page, "active")
    assert len(shown) == 10  # 2 of 12 were not finite
    assert set(asked) == {f"real/{k}" for k in range(6)}
    captions = ["real", "mask", "generated", "with its mask", "uncertainty", "not learnt"]
    for frames in shown:
        assert list(frames) == captions
        assert all(picture is not None for picture in frames.values())
    assert all((frames["real"] == 200).all() for frames in shown)
    assert all(frames["uncertainty"][9].max() < 5 for frames in shown)
    assert all(frames["uncertainty"][2].min() > 150 for frames in shown)


def test_masks_have_the_colours_of_the_legend(run: Path):
    page = write(run)
    text = page.read_text(encoding="utf-8")
    legend = text.split('<div class="legend classes">')[1].split("</div>")[0]
    pairs = re.findall(r"background: rgb\((.*?)\)\"></i>(.*?)</span>", legend)
    told = {name: tuple(map(int, colour.split(", "))) for colour, name in pairs}
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;"
    names = ["field", escaped, "river &amp; lake", "no label"]  # no mask has a road
    assert list(told) == names
    for frames in cards(page, "active"):
        assert frames["real"] is None
        painted = frames["mask"]
        assert tuple(painted[0, 0]) in (told["field"], told[escaped])
        assert tuple(painted[0, 10]) == told["river &amp; lake"] == COLOURS[2]
        assert tuple(painted[0, 15]) == told["no label"] == (0, 0, 0)
    assert {tuple(f["mask"][0, 0]) for f in cards(page, "active")} == set(COLOURS[:2])


def test_what_the_judge_left_out_is_marked_where_there_is_any(page: Path):
    for frames in cards(page, "active"):
        left_out = frames["not learnt"]
        assert left_out[1, 1, 0] > left_out[1, 1, 2] + 100  # orange
        assert np.ptp(left_out[8, 5]) == 0  # grey
    for frames in cards(page, "chosen"):  # there only the column without label
        assert np.ptp(frames["not learnt"][1, 1]) == 0 and frames["not learnt"][1, 15].max() < 45


def test_a_column_that_would_be_empty_is_not_there(run: Path):
    store = Store(str(run / "arms/chosen/store"))
    asked = plan("chosen", 2, 2)
    store.round(2).write_plan(asked)
    store.round(2).write_shard(0, [whole(request) for request in asked])
    (run / "arms/chosen/store/round-0000/plan.parquet").unlink()
    (run / "arms/chosen/store/round-0001/plan.parquet").unlink()
    shown = cards(write(run, real), "chosen")
    assert len(shown) == 2 and all("not learnt" not in frames for frames in shown)


def whole(request: Request) -> Sample:
    """A sample of which each pixel has a label."""
    pixels = torch.full((1, *SIZE), request.target, dtype=torch.uint8)
    return Sample(request, png(pixels.expand(3, -1, -1)), png(pixels), uncertainty=png(pixels))


def test_verdicts_and_figures_stand_beside_the_pictures(page: Path):
    seen = words(page.read_text(encoding="utf-8"))
    samples = seen.split("Rejections")[0]
    assert samples.count("✓ accepted") == 6 + 6
    assert samples.count("✕ rejected: outscored " + REASONS["outscored"]) == 2 + 2
    assert samples.count("✕ rejected: unclear") == 2
    assert samples.count("label agreement 87.5 %") == 10
    assert samples.count("not learnt 8.3 %") == 10
    assert samples.count("entropy 0.5 nats · cross-entropy 1.23 nats") == 10 + 8
    assert samples.count(", object 2 alone") == 2
    assert "Did not occur: black, white, flat, leak, copy, repeated, label." in seen


def test_nothing_from_data_is_run_or_fetched(page: Path):
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    addresses = re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'>\s]*)", text)
    assert addresses and all(address.startswith("data:image/") for address in addresses)
    assert not re.search(r"https?:|url\(|@import", re.sub(r"base64,[^\"]*", "", text), re.I)


def test_real_images_come_from_the_data_of_the_recipe(run: Path):
    scenes = read_scenes("world_scenes", "", "train", count=2, size=12)
    data = "data: {layout: world_scenes, train: {split: train, options: {count: 2, size: 12}}}"
    (run / "recipe.yaml").write_text(RECIPE + data)
    store = Store(str(run / "arms/chosen/store"))
    asked = [replace(request, mask=scenes.ids[0]) for request in plan("chosen", 2, 1)]
    store.round(2).write_plan(asked)
    store.round(2).write_shard(0, [whole(request) for request in asked])
    page = write(run)
    shown = [frames["real"] for frames in cards(page, "chosen") if frames["real"] is not None]
    assert len(shown) == 1 and (shown[0] == scenes.image(0).permute(1, 2, 0).numpy()).all()
    seen = words(page.read_text(encoding="utf-8"))
    assert "Real images cannot be shown: " in seen and "has no image &#39;real/" in seen


def test_few_samples_of_many_are_shown(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    fill(tmp_path, "active", (0.5,), SHOWN_SCENES + 6, {})
    page = write(tmp_path, real)
    assert len(cards(page, "active")) == SHOWN_SCENES
    assert f"{SHOWN_SCENES} of {SHOWN_SCENES + 6} proposed" in words(page.read_text("utf-8"))
