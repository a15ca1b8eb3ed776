"""The splits of a recipe, each where it is stored."""

import pytest
from PIL import Image

from activegen.recipes import data, load, packaged, parse
from activegen.records import UserError


def test_a_split_may_be_stored_elsewhere():
    made = {"layout": "world_scenes", "train": {"count": 2, "options": {"count": 3}}}
    test = {"layout": "world_scenes", "split": "val", "options": {"count": 2, "seed": 5}}
    recipe = parse({"data": {**made, "options": {"tail": True}, "test": test}, "segmentation": {}})
    found = data.read(recipe.data, 0, lambda *_: None)
    assert all("/train/tail-0/" in id for id in found.train.ids)
    assert all("/val/common-5/" in id for id in found.test.ids)  # without the others' options


def test_strict_is_only_told_to_readers_that_know_it():
    made = {"layout": "world_scenes", "strict": True, "options": {"count": 2}}
    recipe = parse({"data": made, "segmentation": {}})
    assert len(data.read_split(recipe.data, recipe.data.train)) == 2


def test_skipped_images_of_all_splits_are_told(tmp_path):
    for light, split in enumerate(("train", "val", "test")):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("RGB", (8, 8), (light, 0, 0)).save(tmp_path / split / "cat" / "a.png")
        (tmp_path / split / "cat" / "b.png").write_bytes(b"broken")
    of = {"layout": "image_folder", "path": str(tmp_path), "val": {"split": "val"}}
    found = data.read(parse({"data": of}).data, 0, lambda *_: None)
    assert [id for id, _ in found.skipped] == [f"{of}/cat/b.png" for of in ("train", "val", "test")]


def test_val_images_are_no_test_images():
    def of(val: dict) -> data.Data:
        made = {"layout": "world", "size": 16, "options": {"size": 16, "count": 1}}
        return data.read(parse({"data": {**made, "val": val}}).data, 0, lambda *_: None)

    assert len(of({"split": "val"}).val or ())
    with pytest.raises(UserError, match=r"val images are test images too, such as .*data\.val"):
        of({"split": "test", "options": {"count": 2}})
    with pytest.raises(UserError, match=r"val images are labelled images too, such as .*data\.val"):
        of({"split": "train", "options": {"count": 2}})


def test_labelled_images_that_are_test_images_are_told(caplog):
    made = {"layout": "world", "size": 16, "options": {"size": 16, "count": 1}}
    data.read(parse({"data": made}).data, 0, lambda *_: None)
    assert not caplog.records
    data.read(parse({"data": {**made, "train": {"split": "test"}}}).data, 0, lambda *_: None)
    [told] = [record.getMessage() for record in caplog.records]
    assert "8 labelled images are test images too, such as world/test/" in told


def test_another_path_of_a_split_is_the_same_recipe():
    of = {"layout": "voc", "path": "a", "test": {"path": "b"}}
    elsewhere = {"layout": "voc", "path": "c", "test": {"path": "d"}}
    one, other = (parse({"data": some, "segmentation": {}}) for some in (of, elsewhere))
    assert one.fingerprint == other.fingerprint
    assert one.data.of(one.data.test) == ("voc", "b", {})
    assert one.data.of(one.data.train) == ("voc", "a", {})
    with pytest.raises(UserError, match=r"data\.path"):
        parse({"data": {"layout": "voc", "test": {"path": "b"}}, "segmentation": {}})


RENDERED = [
    name
    for name in sorted(packaged())
    if load(name, ["data.path=mine"]).data.layout in ("world", "world_scenes")
]


@pytest.mark.parametrize("name", RENDERED)
def test_packaged_recipes_of_the_world_find_their_images(name: str) -> None:
    found = data.read(load(name).data, 0, lambda *_: None)
    assert len(found.train)
    assert len(found.test)
