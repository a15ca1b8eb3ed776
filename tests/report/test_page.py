import base64
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from activegen.records import Request, Sample, UserError, Verdict
from activegen.report import page, write
from activegen.report.cards import SHOWN
from activegen.report.choosing import stratified
from activegen.report.facts import Arm, Entry, Facts, read
from activegen.report.plots import PLACE_COLOURS, cost_bars, styles
from activegen.report.words import NBSP, NONE
from activegen.store import Store, png

EVIL = "<script>alert(1)</script>"
CLASSES = ("forest", EVIL, "river & $lake$")
QUOTED = """a "photo" of a 'forest' <b onload="x">, seen"""
REASONS = ("label", "copy", "not finite", "a reason of <i>mine</i>")
RECIPE = f"""
name: toy {EVIL}
seed: 7
loop: {{rounds: 2}}
arms:
  real_only: {{generate: none}}
  active: {{generate: guided}}
"""


def plan(round: int, count: int = 12) -> list[Request]:
    return [
        Request(
            QUOTED if k % 3 == 0 else f"a {CLASSES[k % 3]}",
            "forest" if k % 3 == 0 else CLASSES[k % 3],
            k % 3,
            seed=100 * round + k,
            reference="" if k % 2 else f"real/{k}",
            round=round,
            arm="active",
            steering="plain" if k % 2 else "guided",
        )
        for k in range(count)
    ]


def sample(request: Request) -> Sample:
    rng = torch.Generator().manual_seed(request.seed)
    pixels = torch.randint(0, 256, (3, 8, 8), generator=rng, dtype=torch.uint8)
    scores = {"predicted": float(request.seed % 3), "cross_entropy": 1.234, "entropy": 0.5}
    attention = png(pixels[:1, :4, :4]) if request.target else b""
    return Sample(request, png(pixels), attention=attention, scores=scores)


def verdict(request: Request, index: int) -> Verdict:
    reason = REASONS[index] if index < len(REASONS) else ""
    measured = {"label_probability": 0.031, "distance_leak": 2.5}
    return Verdict(request.id, not reason, reason, measured)


def summary(number: int, accuracy: float, verdicts: list[Verdict]) -> dict:
    return {
        "round": number,
        "step": 10 * (number + 1),
        "accuracy": accuracy,
        "per_class": [accuracy, math.nan, accuracy - 0.1],
        "worst_class": 2,
        "ece": 0.05,
        "proposed": len(verdicts),
        "accepted": sum(v.accepted for v in verdicts),
        "seconds": {"train": 1.5, "generate": 70.0},
    }


def fill(run: Path, arm: str, accuracies: tuple[float, ...], requests: int) -> Store:
    store = Store.create_or_open(str(run / "arms" / arm / "store"), "ab" * 8, CLASSES)
    for number, accuracy in enumerate(accuracies):
        round = store.round(number)
        asked = plan(number, requests)
        verdicts = [verdict(r, k) for k, r in enumerate(asked)]
        round.write_plan(asked)
        lost = {v.id for v in verdicts if v.reason == "not finite"}
        round.write_shard(0, [sample(r) for r in asked if r.id not in lost])
        round.write_verdicts(verdicts)
        round.close(summary(number, accuracy, verdicts))
    return store


def result(accuracy: float, images: int, store: Store) -> dict:
    return {
        "accuracy": accuracy,
        "per_class": {CLASSES[0]: accuracy, CLASSES[1]: math.nan, CLASSES[2]: accuracy - 0.1},
        "worst_class": CLASSES[2],
        "ece": 0.05,
        "images": images,
        "rejected": store.rejections(),
        "steps": 20,
        "rounds": [store.round(k).summary() for k in store.rounds()],
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "environment.json").write_text(json.dumps({"versions": {"torch": "9.8.7"}}))
    base = fill(tmp_path, "real_only", (0.5, 0.7), 0)
    active = fill(tmp_path, "active", (0.55, 0.742), 12)
    arms = {"real_only": result(0.7, 0, base), "active": result(0.742, 16, active)}
    whole = {"recipe": "toy", "seed": 7, "test_images": 1200, "arms": arms, "seconds": 3725.0}
    (tmp_path / "result.json").write_text(json.dumps(whole))
    return tmp_path


def words(page: Path) -> str:
    """What a reader sees, without addresses, styles and line breaks."""
    text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", page.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", text)


def test_names_from_data_are_escaped(run: Path):
    text = write(run).read_text(encoding="utf-8")
    assert "<script" not in text and "<i>mine" not in text and "<b onload" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a reason of &lt;i&gt;mine&lt;/i&gt;" in text
    assert "a &#34;photo&#34; of a &#39;<b>forest</b>&#39; &lt;b onload" in text


def test_the_page_needs_nothing_else(run: Path):
    text = write(run).read_text(encoding="utf-8")
    addresses = re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'>\s]*)", text)
    assert addresses and all(address.startswith("data:image/") for address in addresses)
    bare = re.sub(r"base64,[^\"]*", "", text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", bare, re.I)


def test_the_result_stands_in_words_and_tables(run: Path):
    seen = words(write(run))
    assert "real_only is right on 70.0 %; active is right on 74.2 % (+4.2 points" in seen
    assert "One run with one seed is not a proof" in seen
    for told in ("1 h 02 min", "2 min 20 s", "9.8.7", "64.2 %", "16 66.7 %", "seed 7"):
        assert told in seen, told
    assert "partial" not in seen
    assert all(name in seen for name in ("forest", "river &amp; $lake$", "not finite", "copy"))
    assert "Did not occur: black, white, flat, leak, repeated." in seen


def test_wordings_whose_labels_are_not_believed_are_told(run: Path):
    assert "mostly not believed" not in words(write(run))
    store = Store(str(run / "arms" / "active" / "store"))
    asked = [Request("a <pond>", "<pond>", 0, seed, round=2, arm="active") for seed in range(12)]
    store.round(2).write_plan(asked)
    store.round(2).write_verdicts(
        [Verdict(of.id, k < 2, "label" * (k > 1)) for k, of in enumerate(asked)]
    )
    seen = words(write(run))
    assert (
        "active: labels mostly not believed of 10 of 12 of &#39;&lt;pond&gt;&#39; (forest)" in seen
    )


def test_a_run_that_names_its_figure_has_the_page_of_one_that_does_not(run: Path):
    before = write(run).read_bytes()
    for file in (run / "result.json", *run.glob("arms/*/store/*/round.json")):
        text = file.read_text()
        assert '"accuracy"' in text
        file.write_text(text.replace('"accuracy"', '"figure": "accuracy", "accuracy"'))
    assert write(run).read_bytes() == before


def test_a_figure_of_another_version_is_told(run: Path):
    text = (run / "result.json").read_text()
    (run / "result.json").write_text(text.replace('"accuracy"', '"figure": "recall", "recall"'))
    with pytest.raises(UserError, match="'recall'"):
        write(run)


def test_images_of_each_class_are_counted(run: Path):
    arm = read(run).arms[1]
    counts = [(arm.of_class(c, accepted=True), arm.of_class(c, accepted=False)) for c in CLASSES]
    assert counts == [(4, 8), (6, 8), (6, 8)]
    assert arm.per_class.keys() == {CLASSES[0], CLASSES[2]}  # a class without images has none


def test_plots_are_pictures_without_words_from_data(run: Path):
    text = write(run).read_text(encoding="utf-8")
    plots = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", text)
    drawn = [base64.b64decode(plot).decode() for plot in plots]
    assert len(drawn) == 2 and all("</svg>" in plot for plot in drawn)
    assert not any("active" in plot.replace("activegen", "") for plot in drawn)


def test_samples_are_shown_with_their_references(run: Path):
    asked = []

    def reference(id: str) -> torch.Tensor | None:
        asked.append(id)
        return None if id == "real/0" else torch.full((3, 300, 600), 200, dtype=torch.uint8)

    seen = words(write(run, reference))
    assert set(asked) == {f"real/{k}" for k in range(0, 12, 2) if k != 2}  # 2 was not finite
    assert seen.count("not available") == 2  # real/0 in each round
    assert "label probability 3.1 %" in seen and "cross-entropy 1.23 nats" in seen
    assert "distance to the nearest val or test image 2.5" in seen
    assert seen.count("✓ accepted") == 16
    assert "Of the 1,200 real test images, real_only is right on" in seen


def test_the_same_run_gives_the_same_page(run: Path):
    assert write(run).read_bytes() == write(run).read_bytes()


def test_a_run_without_result_tells_how_far_it_is(run: Path):
    (run / "result.json").unlink()
    (run / "environment.json").unlink()
    (run / "arms/active/store/round-0001/round.json").unlink()
    seen = words(write(run))
    assert "This report is partial" in seen and "there is no result.json" in seen
    assert "Arm active is unfinished: 1 of 2 rounds are complete." in seen
    assert "different numbers of optimiser steps (real_only 20, active 10)" in seen
    assert "+" not in seen.split("Recipe")[0].split("Arms")[0]  # no difference is given


def test_a_round_under_way_shows_what_was_drawn(run: Path):
    (run / "result.json").unlink()
    store = Store(str(run / "arms/active/store"))
    asked = plan(2)
    store.round(2).write_plan(asked)
    store.round(2).write_shard(0, [sample(request) for request in asked[:3]])
    seen = words(write(run))
    assert "not judged yet 12 33.3 %" in seen
    cards = seen.split("Rejections")[0]
    assert cards.count("not judged yet") == 3


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    seen = words(write(tmp_path))
    assert "Nothing has been evaluated yet." in seen
    assert "Arm real_only has not started." in seen


def test_a_damaged_store_is_told_and_the_rest_shown(run: Path):
    (run / "arms/active/store/round-0001/plan.parquet").write_bytes(b"PAR1 no more")
    seen = words(write(run))
    assert "The store of arm active cannot be read" in seen
    assert "active is right on 74.2 %" in seen


@pytest.mark.parametrize(("name", "text"), [("recipe.yaml", "a: ["), ("result.json", "[1]")])
def test_a_damaged_file_is_named(run: Path, name: str, text: str):
    (run / name).write_text(text)
    with pytest.raises(UserError, match=name):
        write(run)


def test_another_folder_is_no_run(tmp_path: Path):
    with pytest.raises(UserError, match="no run folder"):
        write(tmp_path)


def many() -> Iterator[Entry]:
    for k in range(600):
        way = "adversarial" if k == 599 else "plain"
        request = Request("a b", "b", 9 if k == 300 else k % 4, k, steering=way)
        reason = "copy" if k == 5 else "label" if k % 3 == 0 else ""
        yield Entry(request, Verdict(request.id, not reason, reason))


def test_the_choice_covers_what_is_rare():
    chosen = stratified(list(many()), SHOWN)
    assert len(chosen) == SHOWN == len({entry.request.id for entry in chosen})
    assert sum(entry.outcome == "accepted" for entry in chosen) == SHOWN // 2
    assert {entry.outcome for entry in chosen} == {"accepted", "label", "copy"}
    assert {entry.request.steering for entry in chosen} == {"plain", "adversarial"}
    assert {entry.request.target for entry in chosen} == {0, 1, 2, 3, 9}


def test_few_samples_are_all_shown():
    few = list(many())[:10]
    assert stratified(few, SHOWN) == few


def with_costs(run: Path) -> None:
    """As a run writes them."""
    whole = json.loads((run / "result.json").read_text())
    cost = {
        "seconds": {"train": 30.0, "denoise": 60.0, "backward": 9.0, "rest": 1.0},
        "flops": {"train": 3e12, "denoise": 4.5e13, "backward": 9e12},
        "possible": {"train": 3e13, "denoise": 6e13, "backward": 9e12},
    }
    for summary in whole["arms"]["active"]["rounds"]:
        summary["cost"] = cost
    (run / "result.json").write_text(json.dumps(whole))


def test_where_the_time_went(run: Path):
    assert "Where the time went" not in words(write(run))
    with_costs(run)
    seen = words(write(run)).split("Where the time went")[1].split("Recipe")[0]
    rows = seen.replace(NONE, "/").replace(NBSP, " ")
    assert "denoiser / / / / 2 min 00 s 60.0 % 90.0 T 75.0 %" in rows
    assert "training of learners / / / / 1 min 00 s 30.0 % 6.00 T 10.0 %" in rows
    assert "rest / / / / 2.0 s 1.0 % / /" in rows
    assert "all / / 3 min 20 s 114 T" in rows
    assert "drawing as a whole / 78.3 % training as a whole / 10.0 %" in rows
    assert "decoder" not in rows


def test_bars_are_as_long_as_their_seconds(run: Path):
    with_costs(run)
    facts = read(run)
    uri = cost_bars(facts.arms, styles(facts.arms, facts.baseline))
    assert uri is not None
    svg = base64.b64decode(uri.split(",")[1]).decode()
    edges = re.findall(r'd="M ([\d.]+) [\d.]+ \nL ([\d.]+)[^"]*"[^>]*fill: (#\w+)', svg)
    widths = {colour: float(end) - float(begin) for begin, end, colour in edges}
    whole = widths[PLACE_COLOURS["denoise"]]
    for place, share in {"train": 0.5, "backward": 0.15, "rest": 1 / 60}.items():
        assert widths[PLACE_COLOURS[place]] == pytest.approx(share * whole, rel=1e-3)
    assert PLACE_COLOURS["decode"] not in svg and "active" not in svg


@pytest.mark.parametrize(
    ("arm", "among"),
    [
        ({}, "image"),
        ({"changes": {"segmentation.text.ranked": "all"}}, "all"),
        ({"changes": {"segmentation.text": {"ranked": "all"}}}, "all"),
        ({"changes": {"training.steps": 3}}, "image"),
    ],
)
def test_an_arm_may_rank_reliability_otherwise(arm: dict, among: str):
    facts = Facts({"arms": {"a": arm}}, "", {}, (), None, None, ())
    assert page.ranked_among(facts, Arm("a", False, "plain")) == among
