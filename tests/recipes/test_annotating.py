"""``activegen annotate``: prompts to a data set with masks."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from datasets import load_dataset
from typer.testing import CliRunner

from activegen.cli import app
from activegen.data.readers import read_scenes
from activegen.diffusion.mean_field import DenseCRF
from activegen.diffusion.pseudo_masks import PRESETS
from activegen.loop.annotating import ranks_among
from activegen.recipes import load, parse
from activegen.recipes.annotating import annotate
from activegen.records import UserError
from activegen.report import write
from activegen.report.pictures import heat
from activegen.store import Store, from_png
from activegen.tasks.pool import gather
from activegen.zoo.layouts import SCENE_CLASSES

FEW = ("sampling.num_steps=3", "loop.batch=4", "segmentation.text.screen.least=0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("annotated")
    return folder, annotate(load("annotate_scenes", FEW), folder, 6)


@pytest.fixture(scope="module")
def rows(made: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    cache = str(tmp_path_factory.mktemp("cache"))
    folder = str(made[0] / "dataset")
    return load_dataset("parquet", data_dir=folder, split="train", cache_dir=cache)


def test_datasets_opens_it(made, rows):
    assert made[1] == {"images": 6, "proposed": 6, "rejected": {}}
    assert len(rows) == 6
    for row in rows:
        mask = np.asarray(row["mask"])
        assert row["image"].size == row["mask"].size == row["reliability"].size == (64, 64)
        assert len(row["words"]) == len(row["classes"]) in (2, 3, 4)
        assert all(word in row["prompt"] for word in row["words"])
        assert mask.max() < 7


def test_segmentation_models_pytorch_trains_on_it_as_it_is(rows):
    images = torch.stack([torch.tensor(np.array(row["image"])) for row in rows])
    masks = torch.stack([torch.tensor(np.array(row["mask"])) for row in rows]).long()
    network = smp.Unet("resnet18", encoder_weights=None, classes=7)
    logits = network(images.permute(0, 3, 1, 2).float() / 255)
    loss = smp.losses.DiceLoss("multiclass", ignore_index=255)(logits, masks)
    loss.backward()
    assert torch.isfinite(loss)


def test_our_reader_gives_masks_with_their_reliability(made):
    scenes = read_scenes("parquet", str(made[0] / "dataset"), "train")
    assert scenes.classes[0] == "field"
    assert scenes.read_reliability is not None
    pool = gather(scenes, 64, scenes.read_reliability)
    assert pool.reliability is not None
    assert pool.reliability.shape == (6, 64, 64)
    for label in pool.labels.unique():  # among the pixels of its class in all images
        sure = pool.reliability[pool.labels == label] > 127
        assert sure.float().mean() == pytest.approx(0.5, abs=0.03)
    some = scenes.subset([3])
    assert some.read_reliability is not None
    assert torch.equal(some.read_reliability(0), scenes.read_reliability(3))


def test_it_goes_on_where_it_was_stopped(made, monkeypatch):
    folder, first = made
    before = {f: f.read_bytes() for f in sorted(folder.rglob("*.parquet"))}
    monkeypatch.setattr("activegen.recipes.run.Run.model", lambda self: pytest.fail("drew again"))
    assert annotate(load("annotate_scenes", FEW), folder, 6) == first
    assert {f: f.read_bytes() for f in sorted(folder.rglob("*.parquet"))} == before


def test_another_number_of_images_needs_another_folder(made):
    with pytest.raises(UserError, match=r"begun with --count 6.*--out"):
        annotate(load("annotate_scenes", FEW), made[0], 7)


def test_each_image_says_where_it_came_from(made):
    recipe = json.loads(json.dumps(load("annotate_scenes", FEW).plain()))
    assert recipe["segmentation"]["controls"] == []
    assert (made[0] / "recipe.yaml").exists()
    assert (made[0] / "environment.json").exists()
    cost = json.loads((made[0] / "cost.json").read_text())["annotated"]
    assert cost["seconds"]["denoise"] > 0 and cost["flops"]["denoise"] > 0


@pytest.mark.parametrize(
    "override, message",
    [
        ("segmentation.controls=[{path: embedded}]", "take controls"),
        ("segmentation.proposal.objects=true", "take controls"),
        ("segmentation.background=[field, water]", "one background"),
        ("arms.annotated.generate=guided", "plain or selected"),
        ("segmentation.text.masks=dam", "daam"),
        ("segmentation.text.per_image=[3, 2]", "least"),
    ],
)
def test_what_cannot_be_is_refused(override, message):
    with pytest.raises(UserError, match=message):
        load("annotate_scenes", [override])


def test_a_judge_needs_real_images(tmp_path):
    recipe = load("annotate_scenes", [*FEW, "segmentation.judge.network=small"])
    with pytest.raises(UserError, match="train a judge"):
        annotate(recipe, tmp_path, 2)


def test_a_recipe_for_real_masks_annotates_nothing(tmp_path):
    with pytest.raises(UserError, match=r"text: \{\}"):
        annotate(load("demo_segmentation"), tmp_path, 2)


def test_a_runs_folder_is_refused(tmp_path):
    (tmp_path / "arms" / "active").mkdir(parents=True)
    with pytest.raises(UserError, match=r"arms of a run \(active\)"):
        annotate(load("annotate_scenes", FEW), tmp_path, 2)
    assert not (tmp_path / "recipe.yaml").exists()


def test_a_prompt_of_too_many_classes_is_refused_before_work(tmp_path):
    words = [f"prompts.words.{name}=['{'long ' * 8}{name}']" for name in SCENE_CLASSES]
    recipe = load("annotate_scenes", [*FEW, *words])
    with pytest.raises(
        UserError, match=r"a prompt of 4 classes.*lower segmentation\.text\.per_image"
    ):
        annotate(recipe, tmp_path, 2)


def test_the_report_ranks_as_the_data_set_does(made, rows):
    store = Store(str(made[0] / "arms" / "annotated" / "store"))
    rank = ranks_among(store.accepted())
    told = {row["id"]: row for row in rows}
    page = write(made[0]).read_text(encoding="utf-8")
    assert "in all accepted images" in page
    for sample, _ in store.accepted():
        ranked = from_png(rank(sample).reliability)[0]
        assert np.array_equal(ranked.numpy(), np.asarray(told[sample.request.id]["reliability"]))
        assert heat(ranked).uri in page and heat(from_png(sample.reliability)[0]).uri not in page


def test_the_report_shows_attention_masks_and_reliability(made):
    page = write(made[0]).read_text(encoding="utf-8")
    for caption in ("attention", "mask", "with its mask", "reliability"):
        assert f"<figcaption>{caption}</figcaption>" in page
    assert "<figcaption>real</figcaption>" not in page
    assert "not stored" not in page
    assert "partial" not in page  # all that was asked for is there


def test_the_command_says_how_many_and_why_not_all(tmp_path):
    options = [word for key in FEW[:2] for word in ("--set", key)]
    strict = ["--set", "segmentation.text.screen.peak=1"]
    asked = ["annotate", "annotate_scenes", "--count", "2", "--out", str(tmp_path)]
    said = CliRunner().invoke(app, [*asked, *options, *strict, "--json"])
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout.splitlines()[-1])
    assert (told["images"], told["proposed"], told["rejected"]) == (0, 2, {"unseen": 2})


def test_a_preset_can_be_changed_by_keys():
    words = ["segmentation.text.masks.crf={}", "segmentation.text.masks.beta=0.3"]
    masks = load("annotate_voc", words).segmentation.text.masks
    assert masks == replace(PRESETS["attn2mask"].masks, crf=DenseCRF(), beta=0.3)
    daam = load("annotate_voc", ["segmentation.text.masks=daam"]).segmentation.text.masks
    assert daam == PRESETS["daam"].masks
    again = load("annotate_voc", words)
    assert parse(again.plain()).segmentation == again.segmentation
    with pytest.raises(UserError, match="preset"):
        load("annotate_voc", ["segmentation.text.masks.preset=dam"])
