"""Folders of images and masks, however they are split and whatever their masks hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from activegen.data.mask_folder import read_mask_folder
from activegen.data.scenes import RealScenes
from activegen.records import UnknownWord, UserError
from masked import MASK, grey, palette, picture, write

NAMES = ["sky", "tree", "road"]


def turned(number: int) -> np.ndarray:
    return np.ascontiguousarray(np.roll(MASK, number, axis=0))


def pair(root: Path, name: str, number: int = 0, image_dir: str = "images") -> None:
    mask_dir = image_dir.replace("images", "masks")
    write(root / image_dir / f"{name}.jpg", picture(number, kind="JPEG"))
    write(root / mask_dir / f"{name}.png", grey(turned(number)))


def read(root: Path, split: str = "train", **options: Any) -> RealScenes:
    return read_mask_folder(str(root), split, **{"classes": NAMES, **options})


def check(scenes: RealScenes, numbers: dict[str, int]) -> None:
    assert set(scenes.ids) == set(numbers)
    for index, id in enumerate(scenes.ids):
        assert np.array_equal(scenes.mask(index), turned(numbers[id]))
        assert scenes.image(index).shape == (3, 6, 8)


def test_split_folders_within(tmp_path: Path) -> None:
    pair(tmp_path, "town/a", 1, "images/train")
    pair(tmp_path, "b", 2, "images/train")
    pair(tmp_path, "a", 3, "images/validation")
    scenes = read(tmp_path)
    assert scenes.classes == tuple(NAMES)
    assert scenes.name == f"{tmp_path.name} (train)"
    check(scenes, {"images/train/town/a.jpg": 1, "images/train/b.jpg": 2})
    check(read(tmp_path, "val"), {"images/validation/a.jpg": 3})
    with pytest.raises(UnknownWord, match=r"split of .* 'test'; choose one of: train, val"):
        read(tmp_path, "test")


def test_split_folders_outside(tmp_path: Path) -> None:
    pair(tmp_path, "a", 1, "train/images")
    pair(tmp_path, "a", 2, "extra/images")
    check(read(tmp_path), {"train/images/a.jpg": 1})
    check(read(tmp_path, "extra"), {"extra/images/a.jpg": 2})


@pytest.mark.parametrize(
    "folders", [("images/val", "images/validation"), ("Train/images", "images/train")]
)
def test_two_folders_of_one_split_are_refused(tmp_path: Path, folders: tuple[str, str]) -> None:
    for folder in folders:
        pair(tmp_path, "a", 0, folder)
    with pytest.raises(UserError, match=rf"{folders[0]} and .*{folders[1]} are both of split '"):
        read(tmp_path)


def test_split_files(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "town/c", "d")):
        pair(tmp_path, name, number)
    write(tmp_path / "train.txt", b"\xef\xbb\xbftown/c\r\nb.jpg\n\nb\n")
    write(tmp_path / "few.txt", b"a")
    scenes = read(tmp_path)
    assert scenes.ids == ("images/town/c.jpg", "images/b.jpg")
    check(scenes, {"images/town/c.jpg": 2, "images/b.jpg": 1})
    check(read(tmp_path, "few"), {"images/a.jpg": 0})
    with pytest.raises(UnknownWord, match=r"split file of .* 'test'; choose one of: few, train"):
        read(tmp_path, "test")
    write(tmp_path / "test.txt", b"a\ntown/e\nnone.jpg")
    with pytest.raises(UserError, match=r"test\.txt lists 2 images .*: town/e, none\.jpg; mend"):
        read(tmp_path, "test")
    write(tmp_path / "test.txt", b"\xff\xfe")
    with pytest.raises(UserError, match=r"test\.txt is no text in UTF-8"):
        read(tmp_path, "test")


def test_without_splits_they_are_divided(tmp_path: Path) -> None:
    for number in range(10):
        pair(tmp_path, f"n{number}", number)
    parts = {split: read(tmp_path, split) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 7, "val": 1, "test": 2}
    assert len({id for part in parts.values() for id in part.ids}) == 10
    assert read(tmp_path, "validation").ids == parts["val"].ids
    for part in parts.values():
        check(part, {id: int(id[len("images/n")]) for id in part.ids})
    with pytest.raises(UnknownWord, match="split 'pool'"):
        read(tmp_path, "pool")


def test_masks_beside_images_and_other_folders(tmp_path: Path) -> None:
    write(tmp_path / "all" / "train" / "a.png", picture())
    write(tmp_path / "all" / "train" / "a_mask.png", palette())
    options: dict[str, Any] = {"image_dir": "all", "mask_dir": "all", "mask_ending": "_mask"}
    scenes = read(tmp_path, **options)
    assert scenes.ids == ("all/train/a.png",)
    assert np.array_equal(scenes.mask(0), MASK)
    with pytest.raises(UserError, match=r"there is no folder .*train; name it with .* mask_dir"):
        read(tmp_path, image_dir="all")
    with pytest.raises(UserError, match=r"no folder .*images; name it with the option image_dir"):
        read(tmp_path)


def test_ids_colours_and_ignored_numbers(tmp_path: Path) -> None:
    pair(tmp_path, "a", 0, "images/train")
    scenes = read(tmp_path, classes=None, ids={0: "land", 1: "land", 2: "water"})
    assert scenes.classes == ("land", "water")
    assert np.array_equal(scenes.mask(0), MASK // 2)
    scenes = read(tmp_path, ignore=[0])
    assert scenes.classes == ("tree", "road")
    assert np.array_equal(scenes.mask(0), np.array([255, 0, 1])[MASK])
    colours = {"sky": [0, 0, 255], "tree": [0, 255, 0], "road": [255, 0, 0]}
    painted = np.array([*colours.values()], dtype=np.uint8)[MASK]
    Image.fromarray(painted).save(tmp_path / "masks" / "train" / "a.png")
    scenes = read(tmp_path, classes=None, colours=colours)
    assert scenes.classes == tuple(NAMES)
    assert np.array_equal(scenes.mask(0), MASK)


def test_white_masks_are_not_taken_for_void(tmp_path: Path) -> None:
    write(tmp_path / "images" / "train" / "a.png", picture())
    mask = write(tmp_path / "masks" / "train" / "a.png", grey(MASK // 2 * 255))
    names = ["land", "water"]
    with pytest.raises(UserError, match=r"'land' or 255.* ids: {0: land, 255: water}; .*ignore"):
        read(tmp_path, classes=names)
    assert read(tmp_path, classes=names, ignore=[255]).pixels(0) == (32, 0)
    scenes = read(tmp_path, classes=None, ids={0: "land", 255: "water"})
    assert np.array_equal(scenes.mask(0), MASK // 2)
    assert read(tmp_path, classes=["land"]).pixels(0) == (32,)
    mask.write_bytes(grey(np.zeros_like(MASK)))
    assert read(tmp_path, classes=names).pixels(0) == (48, 0)


def test_what_cannot_be_learnt_from_is_left_out(tmp_path: Path) -> None:
    pair(tmp_path, "a", 0, "images/train")
    pair(tmp_path, "b", 0, "images/train")
    pair(tmp_path, "c", 0, "images/train")
    write(tmp_path / "masks" / "train" / "b.png", grey(np.full_like(MASK, 255)))
    write(tmp_path / "images" / "train" / "c.jpg", b"broken")
    scenes = read(tmp_path)
    assert scenes.ids == ("images/train/a.jpg",)
    assert [id for id, _ in scenes.skipped] == ["images/train/b.jpg", "images/train/c.jpg"]
    assert str(tmp_path / "masks" / "train" / "b.png") in scenes.skipped[0][1]
    with pytest.raises(UserError, match="2 of 3 images cannot be read"):
        read(tmp_path, strict=True)


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("images/train/b.jpg", picture(), r"1 files have no mask in .*masks/train: .*b\.jpg\. An "),
        ("masks/train/b.png", grey(), r"1 files have no image in .*images/train: .*b\.png"),
        ("images/train/a.png", picture(), r"a\.jpg and .*a\.png have one name|a\.png and .*a\.jpg"),
        ("masks/train/a.tif", grey(), r"a\.png and .*a\.tif have one name"),
        (
            "masks/train/a.png",
            grey(MASK[:4]),
            r"images/train/a\.jpg has 8 x 6 pixels, but .*masks/train/a\.png has 8 x 4",
        ),
        (
            "masks/train/a.png",
            grey(MASK + 1),
            r"masks/train/a\.png has ids that are no class: 3; the known are 0 to 2, 255: add",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, file: str, data: bytes, message: str) -> None:
    pair(tmp_path, "a", 0, "images/train")
    write(tmp_path / file, data)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*gone"):
        read(tmp_path / "gone")
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "masks" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match="has no images of split 'train'"):
        read(tmp_path)
    with pytest.raises(UserError, match="no class names"):
        read(tmp_path, classes=None)
