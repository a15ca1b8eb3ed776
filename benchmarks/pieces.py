"""Small pieces of a data set of masks, for generators and learners of 64 pixels.

    python benchmarks/pieces.py --data DIR --sides 160 360 --out pieces/camvid

Each split becomes one parquet file that ``layout: parquet`` reads, with the classes of the data.
Pieces are squares anywhere in an image, with a side drawn evenly between two numbers of pixels.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from activegen.data.crops import cut, cut_mask
from activegen.data.mask_parquet import read_mask_parquet
from activegen.data.scenes import RealScenes
from activegen.records import IGNORE
from activegen.store import png
from activegen.tasks.seeding import derive

SIZE = (64, 64)
PER_IMAGE = {"train": 24, "val": 2, "test": 2}
NAMED = 0.5  # of a piece's pixels have a class at least


def pieces(
    real: RealScenes, split: str, per_image: int, sides: tuple[int, int]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, image (3, 64, 64) and mask (64, 64) of each piece, uint8."""
    for index, id in enumerate(real.ids):
        image, mask = real.image(index), real.mask(index)
        rng = np.random.default_rng(derive(0, "pieces", split, id))
        height, width = mask.shape
        for place in range(per_image):
            side = min(int(rng.integers(sides[0], sides[1] + 1)), height, width)
            top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
            box = (int(top), int(left), side, side)
            part = cut_mask(mask, box, SIZE)
            if (part != IGNORE).float().mean() >= NAMED:
                piece = (cut(image, box, SIZE) * 255).round().to(torch.uint8)
                yield f"{id} {place}", piece, part


def write(real: RealScenes, split: str, per_image: int, sides: tuple[int, int], out: Path) -> int:
    """Writes a split; how many pieces it has."""
    made = list(pieces(real, split, per_image, sides))
    columns = {
        "image": [png(piece) for _, piece, _ in made],
        "mask": [png(mask[None]) for _, _, mask in made],
        "filename": [name for name, _, _ in made],
    }
    table = pa.table(columns).replace_schema_metadata({"classes": json.dumps(real.classes)})
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, out / f"{split}.parquet", compression="none")
    return len(made)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of parquet files with masks")
    parser.add_argument("--sides", type=int, nargs=2, required=True, metavar=("LEAST", "MOST"))
    parser.add_argument("--out", type=Path, required=True)
    for split, count in PER_IMAGE.items():
        parser.add_argument(f"--{split}", type=int, default=count, help="pieces of each image")
    options = parser.parse_args()
    for split in PER_IMAGE:
        real = read_mask_parquet(options.data, split)
        count = write(real, split, getattr(options, split), tuple(options.sides), options.out)
        print(f"{split}: {count} pieces of {len(real)} images", flush=True)


if __name__ == "__main__":
    main()
