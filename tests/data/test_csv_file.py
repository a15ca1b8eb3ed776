"""CSV files with and without splits, and what is said of the broken ones."""

from pathlib import Path

import pytest
from PIL import Image

from activegen.data.csv_file import read_csv
from activegen.records import UnknownWord, UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def write(folder: Path, text: str, encoding: str = "utf-8") -> str:
    (folder / "table.csv").write_text(text, encoding=encoding)
    return str(folder / "table.csv")


def test_splits_and_classes(folder: Path) -> None:
    (folder / "sub").mkdir()
    text = (
        "path,label,split\n0.png,b,train\n1.png, a,train\n\n"
        f"sub/../2.png,c,train\n{folder}/3.png,c,test\n4.png,a,test\n5.png,b,test\n"
    )
    train = read_csv(write(folder, text, "utf-8-sig"), "train")
    assert train.classes == ("a", "b", "c")
    assert train.ids == ("0.png", "1.png", "sub/../2.png")
    assert train.labels == (1, 0, 2)
    assert [int(train.image(index)[0, 0, 0]) for index in range(3)] == [0, 1, 2]
    assert int(read_csv(str(folder / "table.csv"), "test").image(0)[0, 0, 0]) == 3


def test_without_a_split_column_each_class_is_divided(folder: Path) -> None:
    file = write(folder, "path,label\n" + "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(6)))
    parts = [set(read_csv(file, split).ids) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [2, 2, 2]
    assert len(set.union(*parts)) == 6


def test_columns_may_have_other_names(folder: Path) -> None:
    file = write(folder, "file,kind,part,split\n0.png,a,x,1\n1.png,a,y,1\n")
    images = read_csv(file, "y", path_column="file", label_column="kind", split_column="part")
    assert images.ids == ("1.png",)


def test_missing_images_are_named(folder: Path) -> None:
    file = write(folder, "path,label,split\n0.png,a,train\ngone.png,a,train\nlost.png,a,test\n")
    with pytest.raises(UserError, match=r"1 images are missing: .*gone\.png"):
        read_csv(file, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("path,label\n", "has no rows"),
        ("path,class\n0.png,a\n", "unknown column of table.csv 'label'; choose one of: class"),
        ("path,label\n0.png\n", "row 2: as many words as columns"),
        ("path,label\n0.png,\n", "row 2: path or label is missing"),
        ("path,label\n0.png,a\n0.png,b\n", r"there twice: 0\.png"),
        ("path,label,split\n0.png,a,train\n1.png,a,\n", "row 3: split is missing; fill it in"),
        ("path,label,split\n0.png,a,train\n1.png,a,Train\n", "splits 'train' and 'Train'; write"),
        ("path,label,split\n0.png,a,test\n", "unknown split of table.csv 'train'"),
    ],
)
def test_broken_tables_are_explained(folder: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_csv(write(folder, text), "train")


def test_a_missing_table_and_a_wrong_encoding(folder: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        read_csv(str(folder / "none.csv"), "train")
    with pytest.raises(UserError, match="no CSV file in UTF-8"):
        read_csv(write(folder, "path,label\n0.png,caf\xe9\n", "latin-1"), "train")


def test_an_unknown_split_lists_the_known(folder: Path) -> None:
    file = write(folder, "path,label,split\n0.png,a,train\n1.png,a,test\n")
    with pytest.raises(UnknownWord, match="choose one of: test, train"):
        read_csv(file, "val")
