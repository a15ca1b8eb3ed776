from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from activegen.data.readers import read_scenes
from activegen.report.real import Recorded


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    for split in ("train", "test"):
        for name, level in (("dark", 20), ("light", 220)):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (9, 7), (level,) * 3).save(folder / "a.png")
    return {"layout": "image_folder", "path": str(tmp_path), "train": {"split": "train"}}


def ids(real: Recorded) -> dict[str, str]:
    assert real._images is not None
    return {Path(id).parent.name: id for id in real._images.ids}


def test_a_real_image_is_read_by_its_id(data: dict[str, Any]):
    real = Recorded({"data": data})
    found = real(ids(real)["light"])
    assert found is not None and found.shape == (3, 7, 9) and (found == 220).all()
    assert real.problem == ""


def test_a_scene_is_read_with_the_options_of_its_split():
    options = {"count": 3, "size": 24}
    scenes = read_scenes("world_scenes", "", "train", seed=5, **options)
    train = {"split": "train", "options": options}
    real = Recorded({"data": {"layout": "world_scenes", "train": train, "options": {"seed": 5}}})
    found = real(scenes.ids[2])
    assert found is not None and (found == scenes.image(2)).all()


def test_a_split_may_have_its_own_place(data: dict[str, Any], tmp_path: Path):
    own = {"train": {"path": data["path"], "options": data.get("options")}}
    elsewhere = Recorded({"data": data | {"path": str(tmp_path / "gone")} | own})
    assert elsewhere(ids(elsewhere)["dark"]) is not None
    own["train"]["layout"] = data["layout"]
    other = {"layout": "world", "path": "", "options": {"seed": 5}}
    alone = Recorded({"data": data | other | own})
    assert alone(ids(alone)["dark"]) is not None and alone.problem == ""


def test_an_image_that_is_gone_is_told_and_the_others_are_given(data: dict[str, Any]):
    real = Recorded({"data": data})
    assert real("nowhere.png") is None and "nowhere.png" in real.problem
    assert real(ids(real)["dark"]) is not None


def test_data_that_is_gone_is_told(data: dict[str, Any], tmp_path: Path):
    real = Recorded({"data": data | {"path": str(tmp_path / "gone")}})
    assert real("a") is None and str(tmp_path / "gone") in real.problem


def test_an_unknown_layout_is_told(data: dict[str, Any]):
    real = Recorded({"data": data | {"layout": "tapes"}})
    assert real("a") is None and "'tapes'" in real.problem


def test_a_recipe_without_data_has_no_images():
    real = Recorded({})
    assert real("a") is None and real.problem == ""
