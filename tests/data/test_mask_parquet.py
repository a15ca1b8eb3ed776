"""Parquet files of images and masks, and what their metadata say."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from activegen.data.mask_parquet import read_mask_parquet
from activegen.data.scenes import RealScenes
from activegen.records import IGNORE, UnknownWord, UserError
from masked import MASK, grey, held, palette, picture

REPOSITORY = Path(__file__).parents[2]
NAMES = ["sky", "tree", "road"]


def save(
    file: Path,
    masks: list[Any],
    splits: list[str] | None = None,
    images: list[Any] | None = None,
    **metadata: Any,
) -> None:
    columns: dict[str, list[Any]] = {
        "image": images or [picture(number) for number in range(len(masks))],
        "mask": masks,
    }
    if splits:
        columns["split"] = splits
    said = {"classes": NAMES, **metadata}
    text = {
        key: value if type(value) is bytes else json.dumps(value) for key, value in said.items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns).replace_schema_metadata(text), file, row_group_size=1)


def read(path: Path, split: str = "train", **options: Any) -> RealScenes:
    return read_mask_parquet(str(path), split, **options)


def test_files_of_a_split(tmp_path: Path) -> None:
    save(tmp_path / "town_train-0.parquet", [grey(), palette(2 - MASK)])
    save(tmp_path / "town_train-1.parquet", [palette(np.roll(MASK, 1))])
    save(tmp_path / "town_val.parquet", [grey(MASK[::-1].copy())])
    scenes = read(tmp_path)
    assert scenes.classes == tuple(NAMES)
    assert scenes.ids == (
        "town_train-0.parquet#0",
        "town_train-0.parquet#1",
        "town_train-1.parquet#0",
    )
    for index, mask in enumerate((MASK, 2 - MASK, np.roll(MASK, 1))):
        assert np.array_equal(scenes.mask(index), mask)
    assert scenes.image(2).shape == (3, 6, 8)
    assert np.array_equal(read(tmp_path, "val").mask(0), MASK[::-1])
    with pytest.raises(UserError, match="no parquet file is named after split 'test'"):
        read(tmp_path, "test")
    assert len(read(tmp_path / "town_train-0.parquet")) == 2


def test_a_column_of_splits(tmp_path: Path) -> None:
    save(tmp_path / "a.parquet", [grey(), grey(2 - MASK), grey()], ["train", "val", "train"])
    save(tmp_path / "b" / "a.parquet", [grey(), grey(np.roll(MASK, 1))], ["val", "train"])
    train, val = read(tmp_path), read(tmp_path, "val")
    assert train.ids == ("a.parquet#0", "a.parquet#2", "b/a.parquet#1")
    assert np.array_equal(train.mask(2), np.roll(MASK, 1))
    assert not np.array_equal(train.image(0), train.image(1))
    assert val.ids == ("a.parquet#1", "b/a.parquet#0")
    assert np.array_equal(val.mask(0), 2 - MASK)
    with pytest.raises(UnknownWord, match=r"split of .* 'test'; choose one of: train, val"):
        read(tmp_path, "test")
    assert read(tmp_path / "a.parquet").ids == ("a.parquet#0", "a.parquet#2")


@pytest.mark.parametrize(
    ("ignore", "classes", "labels"),
    [
        (2, ("sky", "tree"), [0, 1, IGNORE]),
        (0, ("tree", "road"), [IGNORE, 0, 1]),
        (255, ("sky", "tree", "road"), [0, 1, 2]),
    ],
)
def test_the_ignored_number_is_no_class(
    tmp_path: Path, ignore: int, classes: tuple[str, ...], labels: list[int]
) -> None:
    save(tmp_path / "train.parquet", [palette()], ignore_index=ignore)
    scenes = read(tmp_path)
    assert scenes.classes == classes
    assert np.array_equal(scenes.mask(0), np.array(labels)[MASK])


def test_a_palette_tells_the_colours_of_masks_in_rgb(tmp_path: Path) -> None:
    colours = [[9, 9, 9], [0, 0, 0], [7, 8, 9]]
    painted = held(Image.fromarray(np.array(colours, dtype=np.uint8)[MASK]))
    save(tmp_path / "train.parquet", [painted, grey()], palette=colours, ignore_index=0)
    scenes = read(tmp_path)
    for index in range(2):
        assert np.array_equal(scenes.mask(index), np.array([IGNORE, 0, 1])[MASK])


def test_options_speak_before_the_metadata(tmp_path: Path) -> None:
    save(tmp_path / "train.parquet", [grey()], ignore_index=2)
    joined = read(tmp_path, ids={0: "land", 1: "water", 2: "water"})
    assert joined.classes == ("land", "water")
    assert joined.pixels(0) == (16, 32)
    assert read(tmp_path, ids={"0": "land", "1": "water"}).pixels(0) == (16, 16)
    assert read(tmp_path, classes=["a", "b", "c"]).classes == ("a", "b")
    assert read(tmp_path, ignore=[0]).classes == ("tree",)


def test_other_columns_and_structs(tmp_path: Path) -> None:
    table = pa.table(
        {
            "photo": [{"bytes": picture(), "path": "a.png"}],
            "labels": [{"bytes": grey(), "path": "a.png"}],
        }
    )
    pq.write_table(table, tmp_path / "train.parquet")
    columns = {"image_column": "photo", "mask_column": "labels"}
    assert np.array_equal(read(tmp_path, classes=NAMES, **columns).mask(0), MASK)
    with pytest.raises(UserError, match="no class names"):
        read(tmp_path, **columns)
    with pytest.raises(UnknownWord, match=r"column of train\.parquet 'mask'; .* labels, photo"):
        read(tmp_path, image_column="photo")


def test_what_cannot_be_learnt_from_is_left_out(tmp_path: Path) -> None:
    images = [picture(), b"broken", picture(), picture()]
    masks = [grey(), grey(), None, grey(np.full_like(MASK, 255))]
    save(tmp_path / "train.parquet", masks, images=images)
    scenes = read(tmp_path)
    assert scenes.ids == ("train.parquet#0",)
    reasons = dict(scenes.skipped)
    assert "no image in column 'mask'" in reasons["train.parquet#2"]
    assert reasons["train.parquet#3"].startswith("the mask of train.parquet#3 has no pixel")
    with pytest.raises(UserError, match="3 of 4 images cannot be read"):
        read(tmp_path, strict=True)


@pytest.mark.parametrize(
    ("mask", "metadata", "message"),
    [
        (grey(MASK + 1), {}, r"the mask of train\.parquet#0 has ids that are no class: 3"),
        (
            grey(MASK[:3]),
            {},
            r"train\.parquet#0 has 8 x 6 .* the mask of train\.parquet#0 has 8 x 3",
        ),
        (grey(), {"classes": b"["}, "'classes' in its metadata is no JSON"),
        (grey(), {"classes": [1]}, "'classes' in its metadata is no list of names"),
        (grey(), {"palette": 3}, "'palette' in its metadata is no list of colours"),
        (grey(), {"palette": [[1, 2]]}, r"\[1, 2\] is no colour"),
        (grey(), {"palette": b"["}, "'palette' in its metadata is no JSON"),
        (grey(), {"ignore_index": "x"}, "'ignore_index' in its metadata is no whole number"),
    ],
)
def test_what_cannot_be_right(
    tmp_path: Path, mask: bytes, metadata: dict[str, Any], message: str
) -> None:
    save(tmp_path / "train.parquet", [mask], **metadata)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_files_that_say_different_things(tmp_path: Path) -> None:
    save(tmp_path / "train-0.parquet", [grey()])
    save(tmp_path / "train-1.parquet", [grey()], classes=NAMES[::-1])
    with pytest.raises(UserError, match=r"metadata of train-0\.parquet and others differ"):
        read(tmp_path)
    with pytest.raises(UserError, match="holds no parquet files"):
        read(tmp_path / "gone")


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save(tmp_path / "train-0.parquet", [grey()])
    save(tmp_path / "train-1.parquet", [{"bytes": grey(), "path": "a.png"}])
    with pytest.raises(UserError, match=r"train-1\.parquet: column 'mask' is of another type"):
        read(tmp_path)
    whole = (tmp_path / "train-0.parquet").read_bytes()
    (tmp_path / "train-1.parquet").write_bytes(whole[:-20])
    with pytest.raises(UserError, match=r"train-1\.parquet cannot be read as parquet"):
        read(tmp_path)


def folder(name: str) -> Path:
    data = Path(os.environ.get("ACTIVEGEN_DATA", REPOSITORY / ".." / "shared" / "data"))
    if not (data / name).is_dir():
        pytest.skip(f"there is no {data / name}; set ACTIVEGEN_DATA to the data folder")
    return data / name


@pytest.mark.slow
def test_camvid() -> None:
    sizes = {}
    for split in ("train", "val", "test"):
        scenes = read(folder("camvid"), split)
        sizes[split] = len(scenes) + len(scenes.skipped)
        assert scenes.skipped == ()
        assert len(scenes.classes) == 11
        assert (scenes.classes[0], scenes.classes[10]) == ("Sky", "Bicyclist")
        assert all(scenes.by_class().values())
        assert scenes.mask(0).shape == scenes.image(0).shape[1:] == (360, 480)
        assert int(scenes.mask(0).max()) == IGNORE
        road = sum(scenes.pixels(index)[3] for index in range(len(scenes)))
        assert 0.2 < road / (len(scenes) * 360 * 480) < 0.4
    assert sizes == {"train": 367, "val": 101, "test": 233}


@pytest.mark.slow
def test_nuclei() -> None:
    sizes = {
        split: len(read(folder("dsb2018_nuclei"), split)) for split in ("train", "val", "test")
    }
    assert sizes == {"train": 465, "val": 66, "test": 133}
    scenes = read(folder("dsb2018_nuclei"), "val")
    assert scenes.classes == ("background", "nucleus", "nucleus_border")
    plain = {0: "background", 1: "nucleus", 2: "nucleus"}
    joined = read(folder("dsb2018_nuclei"), "val", ids=plain)
    for index in range(len(joined)):
        background, interior, border = scenes.pixels(index)
        assert joined.pixels(index) == (background, interior + border)


@pytest.mark.slow
def test_voc() -> None:
    scenes = read(folder("voc2012_seg_2007subset"), "val")
    assert len(scenes) == 321
    assert len(scenes.classes) == 21
    assert int(scenes.mask(0).max()) == IGNORE
