"""Parquet files and saved data sets, however they hold images and labels."""

import io
import json
import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from activegen.data import hugging_face
from activegen.data.hugging_face import read_hugging_face
from activegen.records import UnknownWord, UserError

REPOSITORY = Path(__file__).parents[2]


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (level, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(
    file: Path,
    images: list[Any],
    labels: list[Any],
    names: list[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
) -> None:
    table = pa.table({columns[0]: images, columns[1]: labels, "more": ["?"] * len(labels)})
    if names is not None:
        table = table.replace_schema_metadata({"classes": json.dumps(names)})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=1)


def levels(images: Any) -> list[int]:
    return [int(images.image(index)[0, 0, 0]) for index in range(len(images))]


def test_files_of_a_split_and_names_in_the_schema(tmp_path: Path) -> None:
    write(tmp_path / "set_train-0.parquet", [png(1), png(2)], [1, 0], ["lake", "wood"])
    write(tmp_path / "set_train-1.parquet", [png(3)], [1], ["lake", "wood"])
    write(tmp_path / "latest_val.parquet", [png(4), png(5)], [0, 1], ["lake", "wood"])
    images = read_hugging_face(str(tmp_path), "train")
    assert images.classes == ("lake", "wood")
    assert images.labels == (1, 0, 1)
    assert images.ids == (
        "set_train-0.parquet#0",
        "set_train-0.parquet#1",
        "set_train-1.parquet#0",
    )
    assert levels(images) == [1, 2, 3]
    assert images.image(0).shape == (3, 6, 8)
    with pytest.raises(UserError, match=r"named after split 'test'; there are latest_val\.parquet"):
        read_hugging_face(str(tmp_path), "test")


def test_large_files_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face, "IN_MEMORY", 0)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "data" / "train.parquet", [png(1), png(2)], [1, 0], ["lake", "wood"])
    images = read_hugging_face(str(tmp_path / "data"), "train")
    assert levels(images) == [1, 2]
    assert images.labels == (1, 0)
    assert list((tmp_path / "cache").rglob("*.arrow"))


def test_structs_string_labels_and_other_columns(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), (9, 0, 0)).save(tmp_path / "here.png")
    rows = [{"bytes": png(1), "path": "x.png"}, {"bytes": None, "path": str(tmp_path / "here.png")}]
    write(tmp_path / "train" / "0.parquet", rows, ["wood", "lake"], columns=("img", "kind"))
    write(tmp_path / "test" / "0.parquet", rows[:1], ["alp"], columns=("img", "kind"))
    named = {"image_column": "img", "label_column": "kind"}
    images = read_hugging_face(str(tmp_path), "train", classes=["lake", "wood"], **named)
    assert images.labels == (1, 0)
    assert levels(images) == [1, 9]
    with pytest.raises(UserError, match="no readable image of class alp"):
        read_hugging_face(str(tmp_path), "train", **named)  # classes are those of all splits
    with pytest.raises(UnknownWord, match=r"column of 0\.parquet 'image'; .*img, kind, more"):
        read_hugging_face(str(tmp_path), "train")


def test_corrupt_and_missing_images_are_named(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [png(1), b"broken", None], [0, 0, 0], ["lake"])
    images = read_hugging_face(str(tmp_path), "train")
    assert images.ids == ("train.parquet#0",)
    assert [id for id, _ in images.skipped] == ["train.parquet#1", "train.parquet#2"]
    with pytest.raises(UserError, match=r"2 of 3 images cannot be read: train\.parquet#1"):
        read_hugging_face(str(tmp_path), "train", strict=True)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1], None, "numbers without names"),
        ([0, 2], ["lake", "wood"], "labels without a class: 2"),
        ([0, -1], ["lake", "wood"], "labels without a class: -1"),
        ([0, None], ["lake"], "labels without a class: None"),
        (["lake", "alp"], ["lake"], "labels without a class: alp; the classes are lake"),
        ([0, 0], ["lake", "wood"], "no readable image of class wood"),
    ],
)
def test_labels_without_a_class(
    tmp_path: Path, labels: list[Any], names: list[str] | None, message: str
) -> None:
    write(tmp_path / "train.parquet", [png(1), png(2)], labels, names)
    with pytest.raises(UserError, match=message):
        read_hugging_face(str(tmp_path), "train")


def test_a_file_of_two_splits_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train_val.parquet", [png(1)], [0], ["lake"])
    with pytest.raises(UserError, match="named after both 'train' and 'val'"):
        read_hugging_face(str(tmp_path), "train")


def test_files_with_other_class_names_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", [png(1)], [0], ["cat", "dog"])
    write(tmp_path / "train-1.parquet", [png(2)], [0], ["dog", "cat"])
    with pytest.raises(
        UserError, match=r"metadata of train-0\.parquet and train-1\.parquet differ"
    ):
        read_hugging_face(str(tmp_path), "train")
    for file, names in (("train-0", ["cat", "dog"]), ("train-1", ["dog", "cat"])):
        features = datasets.Features(
            {"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=names)}
        )
        rows = datasets.Dataset.from_dict({"image": [png(1)], "label": [0]}, features=features)
        rows.to_parquet(tmp_path / f"{file}.parquet")
    with pytest.raises(UserError, match="differ in their class names"):
        read_hugging_face(str(tmp_path), "train")


@pytest.mark.parametrize("in_memory", [0, 2**30])
def test_files_that_do_not_fit_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(hugging_face, "IN_MEMORY", in_memory)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    files = tmp_path / "data"
    write(files / "train-0.parquet", [png(1)], [0], ["cat"])
    write(files / "train-1.parquet", [png(1)], ["cat"], ["cat"])
    with pytest.raises(UserError, match=r"train-1\.parquet: column 'label' is of another type"):
        read_hugging_face(str(files), "train")
    whole = (files / "train-0.parquet").read_bytes()
    (files / "train-1.parquet").write_bytes(whole[:-20])
    with pytest.raises(UserError, match=r"train-1\.parquet cannot be read as parquet"):
        read_hugging_face(str(files), "train")


def test_saved_data_sets(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["lake", "wood"])}
    )

    def of(first: int) -> datasets.Dataset:
        rows = {"image": [{"bytes": png(first + n), "path": None} for n in range(2)]}
        return datasets.Dataset.from_dict({**rows, "label": [1, 0]}, features=features)

    both = datasets.DatasetDict({"train": of(1), "test": of(5)})
    both.save_to_disk(str(tmp_path / "both"))
    images = read_hugging_face(str(tmp_path / "both"), "test")
    assert images.classes == ("lake", "wood")
    assert images.labels == (1, 0)
    assert images.ids == ("test#0", "test#1")
    assert levels(images) == [5, 6]
    with pytest.raises(UnknownWord, match="choose one of: test, train"):
        read_hugging_face(str(tmp_path / "both"), "val")

    of(1).save_to_disk(str(tmp_path / "one"))
    assert levels(read_hugging_face(str(tmp_path / "one"), "train")) == [1, 2]
    with pytest.raises(UnknownWord, match="choose one of: train"):  # one part is never two splits
        read_hugging_face(str(tmp_path / "one"), "test")


def test_saved_data_sets_with_names_for_labels_and_a_split_without(tmp_path: Path) -> None:
    images = [{"bytes": png(n), "path": None} for n in range(2)]
    parts = datasets.DatasetDict(
        train=datasets.Dataset.from_dict({"image": images, "label": ["wood", "lake"]}),
        hidden=datasets.Dataset.from_dict({"image": images}),
    )
    parts.save_to_disk(str(tmp_path / "set"))
    train = read_hugging_face(str(tmp_path / "set"), "train")
    assert train.classes == ("lake", "wood")
    assert train.labels == (1, 0)
    assert levels(train) == [0, 1]
    with pytest.raises(UnknownWord, match=r"column of .* 'label'"):
        read_hugging_face(str(tmp_path / "set"), "hidden")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither parquet files nor a saved data set"):
        read_hugging_face(str(tmp_path), "train")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is no folder"):
        read_hugging_face(str(tmp_path / "file"), "train")


@pytest.mark.slow
def test_eurosat() -> None:
    data = Path(os.environ.get("ACTIVEGEN_DATA", REPOSITORY / ".." / "shared" / "data"))
    if not (data / "eurosat_rgb").is_dir():
        pytest.skip(f"there is no {data / 'eurosat_rgb'}; set ACTIVEGEN_DATA to the data folder")
    images = read_hugging_face(str(data / "eurosat_rgb"), "val")
    assert len(images) == 5400
    assert images.skipped == ()
    assert images.classes[:2] == ("AnnualCrop", "Forest")
    assert images.ids[7] == "eurosat_rgb_val.parquet#7"
    assert min(len(positions) for positions in images.by_class().values()) > 300
    assert images.image(5399).shape == (3, 64, 64)
    assert images.image(0).float().std() > 1
