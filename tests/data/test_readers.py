"""What every reader of the table promises."""

import inspect
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from activegen.data.readers import READERS, SCENE_READERS, read_images, read_scenes
from activegen.records import UnknownWord
from textures import plain_tiles

NAMES = ("lake", "wood")


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def folder(path: Path) -> str:
    for number in range(8):
        file = path / ("train", "test")[number // 4] / NAMES[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number))
    return str(path)


def parquet(path: Path) -> str:
    for half, split in enumerate(("train", "test")):
        rows = {"image": [png(4 * half + n) for n in range(4)], "label": [*NAMES, *NAMES]}
        pq.write_table(pa.table(rows), path / f"{split}.parquet")
    return str(path)


def table(path: Path) -> str:
    lines = ["path,label,split"]
    for number in range(8):
        (path / f"{number}.png").write_bytes(png(number))
        lines.append(f"{number}.png,{NAMES[number % 2]},{('train', 'test')[number // 4]}")
    (path / "set.csv").write_text("\n".join(lines))
    return str(path / "set.csv")


def mask(seed: int) -> bytes:
    buffer = io.BytesIO()
    ids = np.random.default_rng(seed).integers(0, 2, (20, 24), dtype=np.uint8)
    Image.fromarray(ids).save(buffer, "PNG")
    return buffer.getvalue()


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def mask_folder(path: Path) -> str:
    for number in range(8):
        split = ("train", "test")[number // 4]
        put(path / "images" / split / f"{number}.png", png(number))
        put(path / "masks" / split / f"{number}.png", mask(number))
    return str(path)


def voc(path: Path) -> str:
    for number in range(8):
        put(path / "JPEGImages" / f"{number}.jpg", png(number))
        put(path / "SegmentationClass" / f"{number}.png", mask(number))
    for half, split in enumerate(("train", "test")):
        names = "\n".join(str(4 * half + number) for number in range(4))
        put(path / "ImageSets" / "Segmentation" / f"{split}.txt", names.encode())
    return str(path)


def cityscapes(path: Path) -> str:
    for number in range(8):
        town = Path(("train", "test")[number // 4], "ulm")
        put(path / "leftImg8bit" / town / f"{number}_leftImg8bit.png", png(number))
        put(path / "gtFine" / town / f"{number}_gtFine_labelTrainIds.png", mask(number))
    return str(path)


def coco(path: Path) -> str:
    for half, split in enumerate(("train", "test")):
        found = {
            "categories": [{"id": 3, "name": "wood"}],
            "images": [
                {"id": number, "file_name": f"{4 * half + number}.png", "height": 20, "width": 24}
                for number in range(4)
            ],
            "annotations": [
                {"image_id": n, "category_id": 3, "segmentation": [[n, 0, 20, half, 20, 20]]}
                for n in range(4)
            ],
        }
        put(path / "annotations" / f"instances_{split}.json", json.dumps(found).encode())
        for number in range(4):
            put(path / split / f"{4 * half + number}.png", png(4 * half + number))
    return str(path)


def mask_parquet(path: Path) -> str:
    for half, split in enumerate(("train", "test")):
        numbers = range(4 * half, 4 * half + 4)
        rows = {"image": [png(n) for n in numbers], "mask": [mask(n) for n in numbers]}
        said = {"classes": json.dumps(NAMES)}
        pq.write_table(pa.table(rows).replace_schema_metadata(said), path / f"{split}.parquet")
    return str(path)


MAKERS: dict[str, Callable[[Path], str]] = {
    "image_folder": folder,
    "hugging_face": parquet,
    "csv": table,
    "world": str,
}
SCENE_MAKERS: dict[str, Callable[[Path], str]] = {
    "mask_folder": mask_folder,
    "voc": voc,
    "cityscapes": cityscapes,
    "coco": coco,
    "parquet": mask_parquet,
    "world_scenes": str,
    "mosaics": lambda folder: str(plain_tiles(folder)),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "mask_folder": {"classes": NAMES},
    "world_scenes": {"count": 4},
    "mosaics": {"count": 4},
}


@pytest.mark.parametrize("layout", READERS)
def test_splits_of_every_layout(layout: str, tmp_path: Path) -> None:
    path = MAKERS[layout](tmp_path)
    train, test = (read_images(layout, path, split) for split in ("train", "test"))
    assert train.classes == test.classes
    assert not set(train.ids) & set(test.ids)
    assert all(train.by_class().values())
    assert train.image(0).dtype == torch.uint8
    assert not torch.equal(train.image(0), test.image(0))
    again = read_images(layout, path, "train")
    assert (again.ids, again.labels) == (train.ids, train.labels)
    assert torch.equal(again.image(1), train.image(1))


@pytest.mark.parametrize("layout", READERS)
def test_unknown_options_are_answered_with_the_known_ones(layout: str, tmp_path: Path) -> None:
    known = "seed" if layout == "world" else "strict"
    with pytest.raises(UnknownWord, match=f"option of {layout} 'strikt'.*{known}"):
        read_images(layout, MAKERS[layout](tmp_path), "train", strikt=True)


@pytest.mark.parametrize(
    "layout", sorted(SCENE_READERS.keys() - {"classes"})
)  # which has no images
def test_splits_of_every_layout_with_masks(layout: str, tmp_path: Path) -> None:
    path, options = SCENE_MAKERS[layout](tmp_path), OPTIONS.get(layout, {})
    train, test = (read_scenes(layout, path, split, **options) for split in ("train", "test"))
    assert train.classes == test.classes
    assert len(train) == len(test) == 4
    assert not set(train.ids) & set(test.ids)
    for scenes in (train, test):
        for index in range(4):
            image, ids = scenes.image(index), scenes.mask(index)
            assert (image.dtype, ids.dtype) == (torch.uint8, torch.uint8)
            assert image.shape[1:] == ids.shape
            assert len(ids.unique()) > 1
            assert set(ids.unique().tolist()) <= {*range(len(scenes.classes)), 255}
    assert not torch.equal(train.image(0), test.image(0))
    assert not torch.equal(train.mask(0), test.mask(0))
    again = read_scenes(layout, path, "train", **options)
    assert again.ids == train.ids
    assert torch.equal(again.mask(1), train.mask(1))


@pytest.mark.parametrize("layout", SCENE_READERS)
def test_unknown_options_of_layouts_with_masks(layout: str, tmp_path: Path) -> None:
    known = {"world_scenes": "seed", "mosaics": "seed", "classes": "names"}.get(layout, "strict")
    with pytest.raises(UnknownWord, match=f"option of {layout} 'strikt'.*{known}"):
        read_scenes(layout, "", "train", strikt=True)


def test_a_layout_is_of_one_kind() -> None:
    assert not set(READERS) & set(SCENE_READERS)


def test_unknown_layouts_are_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownWord, match=r"data layout 'mask_folders'.*Did you mean 'mask_folde"):
        read_scenes("mask_folders", "", "train")
    with pytest.raises(UnknownWord, match=r"data layout 'image_folders'.*Did you mean 'image_fold"):
        read_images("image_folders", "", "train")


@pytest.mark.parametrize("layout", [*READERS, *SCENE_READERS])
def test_the_documents_have_every_layout_with_all_its_options(layout: str) -> None:
    documents = Path(__file__).parents[2] / "docs" / "recipes.md"
    rows = [line for line in documents.read_text().splitlines() if line.startswith("| ")]
    files = [row for row in rows if f"`{layout}`" in row.split("|")[1]]
    assert len(files) == 1
    parameters = inspect.signature({**READERS, **SCENE_READERS}[layout]).parameters.values()
    for of in parameters:
        if of.kind is inspect.Parameter.KEYWORD_ONLY and of.name != "strict":
            assert f"`{of.name}`" in files[0], of.name
