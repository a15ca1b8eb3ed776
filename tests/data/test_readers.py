"""What every reader of the table promises."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from activegen.data.readers import READERS, read_images
from activegen.records import UnknownWord

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


MAKERS: dict[str, Callable[[Path], str]] = {
    "image_folder": folder,
    "hugging_face": parquet,
    "csv": table,
    "world": str,
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


def test_unknown_layouts_are_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownWord, match=r"data layout 'image_folders'.*Did you mean 'image_fold"):
        read_images("image_folders", "", "train")
