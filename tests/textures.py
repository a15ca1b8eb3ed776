"""EuroSAT's files with plain tiles: a colour for each class, another brightness in each split."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from activegen.zoo.domains import EUROSAT_WORDS

BRIGHT = {"train": 60, "val": 120, "test": 180}  # red of all tiles of a split; green is the class


def plain_tiles(folder: Path) -> Path:
    """A tile of each class in each split; the folder."""
    for split, bright in BRIGHT.items():
        rows = []
        for label in range(len(EUROSAT_WORDS)):
            file = io.BytesIO()
            Image.new("RGB", (64, 64), (bright, 20 * label, 90)).save(file, "PNG")
            rows.append({"image": file.getvalue(), "label": label})
        pq.write_table(pa.Table.from_pylist(rows), folder / f"eurosat_rgb_{split}.parquet")
    return folder
