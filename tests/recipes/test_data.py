"""The splits of a recipe, each where it is stored."""

import pytest

from activegen.recipes import data, parse
from activegen.records import UserError


def test_a_split_may_be_stored_elsewhere():
    made = {"layout": "world_scenes", "train": {"count": 2, "options": {"count": 3}}}
    test = {"layout": "world_scenes", "split": "val", "options": {"count": 2, "seed": 5}}
    recipe = parse({"data": {**made, "options": {"tail": True}, "test": test}, "segmentation": {}})
    found = data.read(recipe.data, 0, lambda *_: None)
    assert all("/train/tail-0/" in id for id in found.train.ids)
    assert all("/val/common-5/" in id for id in found.test.ids)  # without the others' options


def test_another_path_of_a_split_is_the_same_recipe():
    of = {"layout": "voc", "path": "a", "test": {"path": "b"}}
    elsewhere = {"layout": "voc", "path": "c", "test": {"path": "d"}}
    one, other = (parse({"data": some, "segmentation": {}}) for some in (of, elsewhere))
    assert one.fingerprint == other.fingerprint
    assert one.data.of(one.data.test) == ("voc", "b", {})
    assert one.data.of(one.data.train) == ("voc", "a", {})
    with pytest.raises(UserError, match=r"data\.path"):
        parse({"data": {"layout": "voc", "test": {"path": "b"}}, "segmentation": {}})
