"""Mosaics as a data set, and a list of classes as one without images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from activegen.data.readers import read_scenes
from activegen.records import UnknownWord, UserError
from activegen.zoo.domains import EUROSAT_WORDS
from textures import plain_tiles


@pytest.fixture
def eurosat(tmp_path: Path) -> Path:
    return plain_tiles(tmp_path)


def test_more_mosaics_contain_the_fewer_and_each_is_the_same_again(eurosat: Path):
    few = read_scenes("mosaics", str(eurosat), "train", count=3)
    more = read_scenes("mosaics", str(eurosat), "train", count=5)
    assert more.ids[:3] == few.ids
    for index in (2, 0):
        assert torch.equal(few.image(index), more.image(index))
        assert torch.equal(few.mask(index), more.mask(index))


def test_a_pixel_has_the_texture_of_its_class_and_split(eurosat: Path):
    for bright, split in ((60, "train"), (180, "test")):
        scenes = read_scenes("mosaics", str(eurosat), split, count=4)
        water = scenes.classes.index("water")
        seen = 0
        for index in range(4):
            image, mask = scenes.image(index), scenes.mask(index)
            assert (image[0].int() - bright).abs().max() <= 1
            inside = mask == water
            inner = inside & ~(
                torch.nn.functional.max_pool2d((~inside).float()[None], 3, 1, 1)[0].bool()
            )
            lake = list(EUROSAT_WORDS).index("SeaLake")
            seen += int(inner.sum())
            assert ((image[1].int() - 20 * lake).abs()[inner] <= 1).all()
        assert seen > 0


def test_splits_share_no_mask(eurosat: Path):
    train = read_scenes("mosaics", str(eurosat), "train", count=3, tail=False)
    val = read_scenes("mosaics", str(eurosat), "val", count=3, tail=False)
    assert not any(torch.equal(train.mask(k), val.mask(k)) for k in range(3))


def test_what_is_missing_is_told(eurosat: Path, tmp_path: Path):
    with pytest.raises(UserError, match="EuroSAT"):
        read_scenes("mosaics", str(tmp_path / "nowhere"), "train")
    with pytest.raises(UnknownWord, match="train"):
        read_scenes("mosaics", str(eurosat), "trian")
    with pytest.raises(UserError, match="at least 1"):
        read_scenes("mosaics", str(eurosat), "train", count=0)


def test_a_list_of_classes_has_no_images():
    scenes = read_scenes("classes", "", "train", names=["cat", "dog"])
    assert scenes.classes == ("cat", "dog")
    assert len(scenes) == 0
    assert np.size(scenes.ids) == 0
    with pytest.raises(UserError, match="twice"):
        read_scenes("classes", "", "train", names=["cat", "cat"])
