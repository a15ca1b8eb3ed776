"""Folders of images as people have them: all kinds of files, split or not."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from activegen.data.image_folder import read_image_folder
from activegen.records import UnknownWord, UserError


def picture(seed: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(seed)
    rgb = Image.fromarray(rng.integers(0, 256, (80, 96, 3), dtype=np.uint8))
    return rgb.quantize(16) if mode == "P" else rgb.convert(mode)


def save(file: Path, seed: int = 0, mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, mode).save(file)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Three classes, all kinds of files, one of them corrupt."""
    for split in ("train", "test"):
        save(tmp_path / split / "cat" / "grey.png", 1, "L")
        save(tmp_path / split / "cat" / "more" / "photo.JPG", 2)
        save(tmp_path / split / "dog" / "clear.png", 3, "RGBA")
        save(tmp_path / split / "rare bird" / "palette.png", 4, "P")
        broken = tmp_path / split / "dog" / "broken.png"
        broken.write_bytes((tmp_path / split / "dog" / "clear.png").read_bytes()[:500])
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "cat" / ".hidden.png").write_bytes(b"")
    (tmp_path / "train" / ".cache" / "x").mkdir(parents=True)
    return tmp_path


def test_all_kinds_are_read_and_the_corrupt_one_is_named(mixed: Path) -> None:
    images = read_image_folder(str(mixed), "train")
    assert images.classes == ("cat", "dog", "rare bird")
    assert images.ids == (
        "train/cat/grey.png",
        "train/cat/more/photo.JPG",
        "train/dog/clear.png",
        "train/rare bird/palette.png",
    )
    assert images.labels == (0, 0, 1, 2)
    assert {tuple(images.image(index).shape) for index in range(4)} == {(3, 80, 96)}
    assert images.image(0)[:, 5, 7].tolist() == [picture(1, "L").getpixel((7, 5))] * 3
    [(id, reason)] = images.skipped
    assert id == "train/dog/broken.png"
    assert reason.startswith("train/dog/broken.png cannot be read")


def test_strict_names_the_corrupt_one(mixed: Path) -> None:
    with pytest.raises(UserError, match=r"1 of 5 images cannot be read: test/dog/broken\.png"):
        read_image_folder(str(mixed), "test", strict=True)


def test_a_split_that_is_not_there(mixed: Path) -> None:
    with pytest.raises(UnknownWord, match=r"split of .* 'val'; choose one of: test, train"):
        read_image_folder(str(mixed), "val")
    with pytest.raises(UnknownWord, match="unknown split 'tset'"):
        read_image_folder(str(mixed), "tset")


def test_a_class_is_the_same_number_in_every_split(mixed: Path) -> None:
    save(mixed / "test" / "ant" / "a.png")
    assert read_image_folder(str(mixed), "test").classes[0] == "ant"
    with pytest.raises(UserError, match="no readable image of class ant"):
        read_image_folder(str(mixed), "train")


def test_validation_is_val(tmp_path: Path) -> None:
    for split in ("Training", "validation"):
        save(tmp_path / split / "cat" / "a.png")
    for word in ("val", "validation"):
        assert read_image_folder(str(tmp_path), word).ids == ("validation/cat/a.png",)
    assert read_image_folder(str(tmp_path), "train").ids == ("Training/cat/a.png",)


@pytest.mark.parametrize("names", [("Training", "train"), ("val", "validation")])
def test_two_folders_of_one_split_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        save(tmp_path / name / "cat" / "a.png")
    with pytest.raises(UserError, match=rf"{names[0]} and .*{names[1]} are both of split '"):
        read_image_folder(str(tmp_path), "train")


def test_names_that_are_no_utf8_are_spelled(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    try:
        save(tmp_path / "train" / name / "a.png")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    images = read_image_folder(str(tmp_path), "train")
    assert images.classes == ("caf\\xe9",)
    assert images.ids == ("train/caf\\xe9/a.png",)


def test_without_split_folders_each_class_is_divided(tmp_path: Path) -> None:
    for name in ("cat", "train"):  # a class may be called train
        for number in range(10):
            save(tmp_path / name / f"{number}.png", number)
    parts = {split: read_image_folder(str(tmp_path), split) for split in ("train", "val", "test")}
    ids = [id for part in parts.values() for id in part.ids]
    assert sorted(ids) == sorted(f"{name}/{n}.png" for name in ("cat", "train") for n in range(10))
    for split, count in {"train": 7, "val": 1, "test": 2}.items():
        assert [len(of) for of in parts[split].by_class().values()] == [count, count]
    assert parts["test"].ids == read_image_folder(str(tmp_path), "test").ids


def test_links_are_followed_once(tmp_path: Path) -> None:
    save(tmp_path / "data" / "cat" / "a.png")
    save(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "data" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "cat" / "again").symlink_to(tmp_path / "data" / "cat")
    ids = [
        id
        for split in ("train", "test")
        for id in read_image_folder(str(tmp_path / "data"), split).ids
    ]
    assert sorted(ids) == ["cat/a.png", "cat/more/b.png"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no folder"),
        (lambda path: path.mkdir(), "has no folders"),
        (lambda path: (path / "train" / "cat").mkdir(parents=True), "no readable image of class"),
        (lambda path: path.write_text("x"), "there is no folder"),
    ],
    ids=["missing", "empty", "empty class", "a file"],
)
def test_what_is_missing_is_named(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "set")
    with pytest.raises(UserError, match=message):
        read_image_folder(str(tmp_path / "set"), "train")
