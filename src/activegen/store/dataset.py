"""What was accepted as a data set of its own: images, masks and how sure they are."""

import io
import json
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value

from activegen.records import IGNORE, Sample, Verdict
from activegen.store.files import Files
from activegen.store.pixels import from_png, png

ROWS = 500  # of a file
FEATURES = Features(
    {
        "image": Image(),
        "mask": Image(),
        "reliability": Image(),
        "prompt": Value("string"),
        "words": List(Value("string")),
        "classes": List(Value("string")),
        "scores": Value("string"),
        "seed": Value("int64"),
        "id": Value("string"),
    }
)


def write_dataset(
    files: Files, accepted: Iterable[tuple[Sample, Verdict]], classes: Sequence[str]
) -> int:
    """Writes ``train-<number>.parquet``; the number of images.

    ``datasets.load_dataset("parquet", data_dir=...)`` and the layout "parquet" of recipes open
    them. Masks are grey pictures of class ids, 255 ignored; the reliability of their pixels is 255
    where it is certain.
    """
    features = FEATURES.arrow_schema
    known = {"classes": json.dumps(list(classes)), "ignore_index": json.dumps(IGNORE)}
    schema = features.with_metadata({**(features.metadata or {}), **known})
    left, count = iter(accepted), 0
    while some := list(islice(left, ROWS)):
        rows = [_row(sample, verdict, classes) for sample, verdict in some]
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="zstd")
        files.write(f"train-{count // ROWS:05d}.parquet", file.getvalue())
        count += len(rows)
    return count


def _row(sample: Sample, verdict: Verdict, classes: Sequence[str]) -> dict[str, Any]:
    request = sample.request
    mask = from_png(sample.mask)[:1]
    if verdict.ignored:
        mask = mask.masked_fill(from_png(verdict.ignored)[:1] > 0, IGNORE)
    sure = sample.reliability or png(mask.new_full(mask.shape, 255))
    return {
        "image": {"bytes": sample.image, "path": None},
        "mask": {"bytes": png(mask), "path": None},
        "reliability": {"bytes": sure, "path": None},
        "prompt": request.prompt,
        "words": list(request.words or (request.word,)),
        "classes": [classes[k] for k in request.classes or (request.target,)],
        "scores": json.dumps(sample.scores),
        "seed": request.seed,
        "id": request.id,
    }
