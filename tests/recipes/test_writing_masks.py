"""A recipe for somebody's own images with masks: found, written, and taken by a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from activegen import cli
from activegen.recipes import Run, load, parse, writing
from activegen.recipes.writing_masks import SceneLook, classes_in, stored
from activegen.records import UserError
from activegen.zoo import LAND_COVER_SCENES
from masked import grey, held, palette, picture, write

pytestmark = pytest.mark.filterwarnings("ignore")

SIZE = (40, 60)
HALVES = np.repeat([0, 1], 20 * 60).reshape(SIZE).astype(np.uint8)
COLOURS = np.array([[0, 128, 0], [0, 0, 255]], dtype=np.uint8)
REAL_ONLY = "arms={real_only: {generate: none}}"


def pairs(folder: Path, count: int, mask: bytes, images: str = "images") -> None:
    for number in range(count):
        write(folder / images / f"{number}.png", picture(number, SIZE))
        write(folder / images.replace("images", "masks") / f"{number}.png", mask)


def mask_folder(root: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        pairs(root / split, count, held(Image.fromarray(COLOURS[HALVES])))


def split_files(root: Path) -> None:
    pairs(root, 5, palette(HALVES * 2))
    write(root / "train.txt", b"0\n1\n2\n")
    write(root / "val.txt", b"3\n4\n")


def voc(root: Path) -> None:
    for number in range(5):
        write(root / "JPEGImages" / f"{number}.jpg", picture(number, SIZE, "JPEG"))
        write(root / "SegmentationClass" / f"{number}.png", palette(HALVES * 15))
    lists = root / "ImageSets" / "Segmentation"
    write(lists / "train.txt", b"0\n1\n2\n")
    write(lists / "val.txt", b"3\n4\n")
    write(lists / "test.txt", b"of these nobody has masks\n")


def cityscapes(root: Path) -> None:
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for number in range(count):
            name = f"ulm_{number}"
            image = root / "leftImg8bit" / split / "ulm" / f"{name}_leftImg8bit.png"
            write(image, picture(number, SIZE))
            mask = root / "gtFine" / split / "ulm" / f"{name}_gtFine_labelIds.png"
            write(mask, grey(HALVES * 0 if split == "test" else HALVES + 7))


def coco(root: Path, start: str = "instances_", images: str = "") -> None:
    for split, count in (("train2017", 3), ("val2017", 2)):
        found: dict[str, Any] = {
            "images": [],
            "categories": [{"id": 3, "name": "cat"}],
            "annotations": [],
        }
        for number in range(count):
            write(root / images / split / f"{number}.png", picture(number, SIZE))
            named = {"id": number, "file_name": f"{number}.png", "height": 40, "width": 60}
            found["images"].append(named)
            box = [0, 20, 60, 20, 60, 40, 0, 40]
            of = {"image_id": number, "category_id": 3, "segmentation": [box]}
            found["annotations"].append(of)
        write(root / "annotations" / f"{start}{split}.json", json.dumps(found).encode())


def parquet(root: Path, mask: NDArray[np.uint8] = HALVES, **columns: list[Any]) -> None:
    for split, count in (("train", 3), ("validation", 2)):
        rows = {"image": [picture(of, SIZE) for of in range(count)], "mask": [grey(mask)] * count}
        table = pa.table({**rows, **{name: of[:count] for name, of in columns.items()}})
        file = write(root / f"{split}-0.parquet", b"")
        pq.write_table(table, file)


def labels(root: Path) -> None:
    for split, count in (("train", 3), ("test", 2), ("val", 1)):
        pairs(root / split, count, held(Image.fromarray(COLOURS[HALVES])))
        (root / split / "masks").rename(root / split / "labels")


LAYOUTS: dict[str, Any] = {
    "mask_folder": (mask_folder, {"colours": {"class_0": [0, 0, 255], "class_1": [0, 128, 0]}}),
    "split files": (split_files, {"ids": {0: "class_0", 2: "class_1"}}),
    "folder of labels": (
        labels,
        {"mask_dir": "labels", "colours": {"class_0": [0, 0, 255], "class_1": [0, 128, 0]}},
    ),
    "voc": (voc, {}),
    "cityscapes": (cityscapes, {}),
    "coco": (coco, {}),
    "own coco": (
        lambda root: coco(root, "", "images"),
        {"annotations": "annotations/{split}.json", "image_dir": "images/{split}"},
    ),
    "parquet": (parquet, {"ids": {0: "class_0", 1: "class_1"}}),
}


@pytest.mark.parametrize("name", ["2024", "2024-01-15", "no", "caf\u00e9"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    make, _ = LAYOUTS["mask_folder"]
    make(folder)
    assert parse(yaml.safe_load(writing.look(folder).recipe)).name == name


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_recognised_and_written(tmp_path: Path, name: str) -> None:
    make, options = LAYOUTS[name]
    make(tmp_path)
    seen = writing.look(tmp_path)
    assert isinstance(seen, SceneLook)
    assert (len(seen.train), len(seen.test)) == (3, 2)
    recipe = parse(yaml.safe_load(seen.recipe))
    of = {"own coco": "coco"}.get(name, "mask_folder" if "f" in name else name)
    assert recipe.data.layout == of
    assert (recipe.data.val is not None) == (name == "folder of labels")
    assert recipe.data.options == options
    assert recipe.data.size == (48, 64)
    assert recipe.segmentation is not None
    shown = {row[0] for row in seen.rows[2:] if row[1:] == ("50.00%", "50.00%")}
    known = {
        "voc": {"background", "person"},
        "cityscapes": {"road", "sidewalk"},
        "coco": {"background", "cat"},
    }
    assert shown == known.get(recipe.data.layout, {"class_0", "class_1"})
    assert recipe.segmentation.background == (("background",) if "background" in shown else ())
    assert set(recipe.prompts.words) == (set() if seen.stored.unnamed else set(seen.train.classes))


def test_from_a_folder_to_a_checked_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mask = HALVES * 255
    mask[:10] = 0
    mask[35:] = 255
    pairs(tmp_path / "my nuclei", 10, grey(mask))
    write(tmp_path / "my nuclei" / "images" / "broken.png", b"\x89PNG\r\n\x1a\nno more")
    write(tmp_path / "my nuclei" / "masks" / "broken.png", grey(mask))
    with pytest.raises(SystemExit) as ended:
        cli.app(["init", "my nuclei"])
    assert not ended.value.code
    seen = capsys.readouterr()
    rows = [line.strip("│ ").replace("│", " ").split() for line in seen.out.splitlines()]
    assert ["class_1", "50.00%", "50.00%"] in rows
    assert any(row[:1] == ["(images)"] for row in rows)
    assert "about 60 x 40 pixels; the learner's have 64 x 48" in seen.out
    text = Path("recipe.yaml").read_text()
    assert "255: class_1                    # 50.00% of the pixels" in text
    Path("recipe.yaml").write_text(text.replace("class_1", "nucleus"))
    overrides = [] if LAND_COVER_SCENES.is_dir() else [REAL_ONLY]
    quick = ["segmentation.judge.members=1", "segmentation.judge.steps=1", "training.batch_size=2"]
    run = Run(load("recipe.yaml", [*overrides, *quick]), tmp_path / "run")
    run.check()
    assert run.data.train.classes == ("class_0", "nucleus")
    assert run.prompts.words["nucleus"] == ("nucleus",)


@pytest.mark.parametrize(
    ("masks", "found"),
    [
        ([grey(HALVES), grey(HALVES * 255)], {"ids": {0: "class_0", 1: "class_1"}}),
        ([grey(HALVES * 255)], {"ids": {0: "class_0", 255: "class_1"}}),
        ([palette(HALVES), palette(HALVES * 7)], {"ids": dict(zip((0, 1, 7), "012", strict=True))}),
        ([held(Image.fromarray(HALVES).convert("RGB"))], {"ids": {0: "class_0", 1: "class_1"}}),
        (
            [grey(HALVES * 0), held(Image.fromarray(COLOURS[HALVES]))],
            {"colours": {"class_0": [0, 0, 0], "class_1": [0, 0, 255], "class_2": [0, 128, 0]}},
        ),
        ([b"no picture", grey(HALVES)], {"ids": {0: "class_0", 1: "class_1"}}),
    ],
)
def test_classes_are_what_the_masks_hold(masks: list[bytes], found: dict[str, Any]) -> None:
    if 7 in found.get("ids", {}):
        found = {"ids": {number: f"class_{of}" for number, of in found["ids"].items()}}
    assert classes_in(masks, Path("here")) == found


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (grey(HALVES * 0), "masks in here are all of one class"),
        (picture(0, SIZE), "more than 255 colours, so they are no classes; give each class one"),
        (picture(0, SIZE, "JPEG"), "is a JPEG, which blurs its ids; save masks as PNG"),
        (grey((HALVES * np.uint16(999)).astype(np.uint16)), "no class: 999; .* recipe by hand"),
    ],
)
def test_masks_without_classes(mask: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        classes_in([mask], Path("here"))


def test_labels_of_images_stay_labels(tmp_path: Path) -> None:
    parquet(tmp_path / "both", label=["a", "b", "c"])
    write(tmp_path / "folder" / "cat" / "masks" / "0.png", picture())
    write(tmp_path / "folder" / "dog" / "images" / "0.png", picture())
    assert stored(tmp_path / "both") is None
    assert stored(tmp_path / "folder") is None
    assert stored(tmp_path / "nowhere") is None
    write(tmp_path / "boxes" / "images" / "0.png", picture())
    write(tmp_path / "boxes" / "labels" / "0.txt", b"0 0.5 0.5 1 1")
    assert stored(tmp_path / "boxes") is None


@pytest.mark.parametrize(("count", "val"), [(2, "null"), (10, '{split: "val"}')])
def test_a_val_part_is_looked_at_where_there_is_one(tmp_path: Path, count: int, val: str) -> None:
    for number in range(count):
        for name in ("cat", "dog"):
            write(tmp_path / name / f"{number}.png", picture(number + 20 * (name == "cat")))
    seen = writing.look(tmp_path)
    recipe = parse(yaml.safe_load(seen.recipe))
    assert seen.val_split.startswith(val)
    assert (recipe.data.val is None) == ("no readable image of class cat, dog" in seen.val_split)


def test_what_can_be_mended(tmp_path: Path) -> None:
    pairs(tmp_path / "alone" / "train", 3, grey(HALVES))
    with pytest.raises(UserError, match=r"nothing to measure on: .*'test'.* Put some images"):
        writing.look(tmp_path / "alone")
    pairs(tmp_path / "one" / "train", 1, grey(HALVES))
    with pytest.raises(UserError, match="one image to learn from; add some, at least 2"):
        writing.look(tmp_path / "one")
    write(tmp_path / "coco" / "annotations" / "instances_val2017.json", b"{}")
    with pytest.raises(UserError, match="named after 'train'; call those to learn from"):
        writing.look(tmp_path / "coco")
    write(tmp_path / "damaged" / "train.parquet", b"no more")
    with pytest.raises(UserError, match=r"parquet file in .*damaged is damaged"):
        writing.look(tmp_path / "damaged")
    parquet(tmp_path / "coloured")
    coloured = [held(Image.fromarray(COLOURS[HALVES]))]
    table = pa.table({"image": [picture(0, SIZE)], "mask": coloured})
    pq.write_table(table, tmp_path / "coloured" / "train-1.parquet")
    with pytest.raises(UserError, match="pictures in colours; put 'classes' and 'palette'"):
        writing.look(tmp_path / "coloured")
