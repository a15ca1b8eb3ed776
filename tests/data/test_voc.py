"""VOC's folders: images of a list, masks of 21 classes, outlines ignored."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from activegen.data.voc import read_voc
from activegen.records import UnknownWord, UserError
from masked import MASK, palette, picture, write

VOID = np.where(MASK == 1, 255, MASK * 10).astype(np.uint8)


def devkit(root: Path) -> Path:
    for number, name in enumerate(("2007_01", "2007_02", "2007_03")):
        write(root / "JPEGImages" / f"{name}.jpg", picture(number, kind="JPEG"))
        mask = np.where(VOID == 20, 20 - number, VOID).astype(np.uint8)
        write(root / "SegmentationClass" / f"{name}.png", palette(mask))
    lists = root / "ImageSets" / "Segmentation"
    write(lists / "train.txt", b"2007_03\n2007_01 \n\n")
    write(lists / "val.txt", b"2007_02\n")
    return root


def test_lists_images_and_masks(tmp_path: Path) -> None:
    scenes = read_voc(str(devkit(tmp_path)), "train")
    assert scenes.ids == ("2007_03", "2007_01")
    assert len(scenes.classes) == 21
    assert (scenes.classes[0], scenes.classes[15]) == ("background", "person")
    assert scenes.classes[20] == "tvmonitor"
    assert np.array_equal(scenes.mask(1), VOID)
    assert scenes.mask(0).unique().tolist() == [0, 18, 255]
    assert scenes.image(0).shape == (3, 6, 8)
    assert read_voc(str(tmp_path), "val").ids == ("2007_02",)
    with pytest.raises(UnknownWord, match=r"split of .* 'test'; choose one of: train, val"):
        read_voc(str(tmp_path), "test")


def test_masks_of_another_folder(tmp_path: Path) -> None:
    devkit(tmp_path)
    shutil.move(tmp_path / "SegmentationClass", tmp_path / "SegmentationClassAug")
    assert len(read_voc(str(tmp_path), "train", mask_dir="SegmentationClassAug")) == 2
    with pytest.raises(UserError, match=r"no folder .*SegmentationClass; .* VOCdevkit/VOC2012"):
        read_voc(str(tmp_path), "train")


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("SegmentationClass/2007_01.png", None, r"train\.txt lists .*: 1 files .*2007_01\.png"),
        ("JPEGImages/2007_03.jpg", None, r"train\.txt lists what is not there.*2007_03\.jpg"),
        ("SegmentationClass/2007_01.png", palette(VOID + 1), "no class: 21; .* 0 to 20, 255"),
        ("ImageSets/Segmentation/train.txt", b"../../2007_01", r"leads out of .*JPEGImages"),
    ],
)
def test_what_cannot_be_right(tmp_path: Path, file: str, data: bytes | None, message: str) -> None:
    devkit(tmp_path)
    (tmp_path / file).unlink()
    if data:
        write(tmp_path / file, data)
    with pytest.raises(UserError, match=message):
        read_voc(str(tmp_path), "train")


def test_strict_leaves_nothing_out(tmp_path: Path) -> None:
    write(devkit(tmp_path) / "JPEGImages" / "2007_01.jpg", b"broken")
    assert read_voc(str(tmp_path), "train").skipped[0][0] == "2007_01"
    with pytest.raises(UserError, match="1 of 2 images cannot be read"):
        read_voc(str(tmp_path), "train", strict=True)
