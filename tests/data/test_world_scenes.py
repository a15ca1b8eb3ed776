"""Scenes of the embedded world: drawn once, the same everywhere, never in two splits."""

import numpy as np
import pytest
import torch

from activegen.data.world_scenes import read_world_scenes, scenes
from activegen.records import UnknownWord, UserError
from activegen.zoo.scenes import is_rare, present


def test_images_and_masks_are_those_of_the_scene() -> None:
    real = read_world_scenes("", "test", count=4, size=32)
    shown = scenes("test", count=4)
    assert real.ids == tuple(shown)
    for index, id in enumerate(real.ids):
        mask = real.mask(index)
        assert mask.shape == real.image(index).shape[1:] == (32, 32)
        names = {real.classes[int(label)] for label in mask.unique()}
        assert names <= set(shown[id].layout.classes)
    full = read_world_scenes("", "test", count=1)
    assert present(full.mask(0).numpy()) == shown[full.ids[0]].layout.classes


def test_the_same_options_give_the_same_scenes() -> None:
    few, many = (read_world_scenes("", "train", count=count, size=16) for count in (2, 4))
    assert many.ids[:2] == few.ids
    again = read_world_scenes("", "train", count=2, size=16)
    assert torch.equal(again.mask(1), many.mask(1))  # the mask first
    for index in range(2):
        assert torch.equal(few.image(index), many.image(index))
        assert torch.equal(few.mask(index), many.mask(index))
    assert again.image(1).flatten().tolist() != again.image(0).flatten().tolist()


def test_what_is_read_may_be_changed() -> None:
    real = read_world_scenes("", "train", count=1, size=16)
    first = real.image(0).clone(), real.mask(0).clone()
    real.image(0).zero_(), real.mask(0).zero_()
    assert torch.equal(real.image(0), first[0])
    assert torch.equal(real.mask(0), first[1])


def test_splits_share_nothing_and_only_some_have_the_tail() -> None:
    rare = {
        split: [is_rare(scene.layout) for scene in scenes(split, count=60).values()]
        for split in ("train", "val", "test", "pool", "judge")
    }
    assert not any(rare["train"] + rare["val"])
    assert all(5 < sum(rare[split]) < 35 for split in ("test", "pool", "judge"))
    assert any(is_rare(of.layout) for of in scenes("train", count=60, tail=True).values())
    train, val = (read_world_scenes("", split, count=1, size=16) for split in ("train", "val"))
    assert not np.array_equal(train.image(0), val.image(0))
    assert scenes("train", count=3) != scenes("train", count=3, seed=1)


@pytest.mark.parametrize("options", [{"count": 0}, {"seed": -1}, {"size": 4}])
def test_what_is_too_small(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"give at least|at least 1, seed at least 0"):
        read_world_scenes("", "train", **options)


def test_unknown_splits() -> None:
    with pytest.raises(UnknownWord, match="split of the world 'dev'"):
        read_world_scenes("", "dev")
