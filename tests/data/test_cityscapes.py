"""Cityscapes' folders, with the 19 classes that are evaluated."""

from pathlib import Path

import numpy as np
import pytest

from activegen.data.cityscapes import read_cityscapes
from activegen.records import IGNORE, UnknownWord, UserError
from masked import grey, picture, write

NUMBERS = np.array([[0, 3, 4, 6, 7, 8, 11, 24], [26, 29, 30, 31, 32, 33, 13, 255]], dtype=np.uint8)
LABELS = [
    [IGNORE, IGNORE, IGNORE, IGNORE, 0, 1, 2, 11],
    [13, IGNORE, IGNORE, 16, 17, 18, 4, IGNORE],
]


def city(root: Path, split: str, name: str, kind: str = "labelIds", fine: str = "gtFine") -> Path:
    town = name.split("_")[0]
    image = root / "leftImg8bit" / split / town / f"{name}_leftImg8bit.png"
    write(image, picture(len(name), (2, 8)))
    mask = NUMBERS if kind == "labelIds" else np.array(LABELS, dtype=np.uint8)
    folder = root / fine / split / town
    write(folder / f"{name}_{fine}_instanceIds.png", grey(mask.astype(np.uint16) * 1000))
    return write(folder / f"{name}_{fine}_{kind}.png", grey(mask))


def test_numbers_become_the_evaluated_classes(tmp_path: Path) -> None:
    city(tmp_path, "train", "ulm_000000_000019")
    city(tmp_path, "train", "bonn_000001_000019")
    city(tmp_path, "val", "jena_000000_000019")
    scenes = read_cityscapes(str(tmp_path), "train")
    assert scenes.ids == (
        "leftImg8bit/train/bonn/bonn_000001_000019_leftImg8bit.png",
        "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png",
    )
    assert len(scenes.classes) == 19
    named = {label: scenes.classes[label] for label in (0, 4, 11, 13, 16, 18)}
    assert named == {0: "road", 4: "fence", 11: "person", 13: "car", 16: "train", 18: "bicycle"}
    assert scenes.mask(0).tolist() == LABELS
    assert scenes.image(1).shape == (3, 2, 8)
    assert len(read_cityscapes(str(tmp_path), "val")) == 1
    with pytest.raises(UnknownWord, match=r"split of .* 'test'; choose one of: train, val"):
        read_cityscapes(str(tmp_path), "test")


def test_train_ids_are_classes_already(tmp_path: Path) -> None:
    city(tmp_path, "train", "ulm_000000_000019", "labelTrainIds")
    assert read_cityscapes(str(tmp_path), "train").mask(0).tolist() == LABELS


def test_coarse_masks(tmp_path: Path) -> None:
    city(tmp_path, "train_extra", "ulm_000000_000019", fine="gtCoarse")
    scenes = read_cityscapes(str(tmp_path), "train_extra", mask_dir="gtCoarse")
    assert scenes.mask(0).tolist() == LABELS
    with pytest.raises(UserError, match=r"there is no folder .*gtFine"):
        read_cityscapes(str(tmp_path), "train_extra")


def test_what_cannot_be_right(tmp_path: Path) -> None:
    mask = city(tmp_path, "train", "ulm_000000_000019")
    city(tmp_path, "train", "bonn_000001_000019")
    mask.write_bytes(grey(NUMBERS + 1))
    with pytest.raises(UserError, match=r"labelIds\.png has ids that are no class: 34; .* 0 to 33"):
        read_cityscapes(str(tmp_path), "train")
    mask.unlink()
    with pytest.raises(UserError, match=r"1 masks are missing: .*ulm_000000_000019_gtFine_labelId"):
        read_cityscapes(str(tmp_path), "train")
    (tmp_path / "leftImg8bit" / "val").mkdir()
    with pytest.raises(UserError, match=r"val has no files \*_leftImg8bit\.png"):
        read_cityscapes(str(tmp_path), "val")


def test_empty_masks_are_left_out(tmp_path: Path) -> None:
    city(tmp_path, "train", "ulm_000000_000019")
    city(tmp_path, "train", "bonn_000001_000019").write_bytes(grey(np.zeros_like(NUMBERS)))
    scenes = read_cityscapes(str(tmp_path), "train")
    assert len(scenes) == 1
    assert scenes.skipped[0][0].endswith("bonn_000001_000019_leftImg8bit.png")
