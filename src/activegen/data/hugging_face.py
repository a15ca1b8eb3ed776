"""Hugging Face datasets: parquet files, saved data sets, and the Hub.

Encoded bytes are kept (or mapped from disk); an image is decoded when it is asked for.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from activegen.data.images import RealImages, UnreadableImage, encoded, listed
from activegen.records import UserError, choose

if TYPE_CHECKING:
    from datasets import Dataset

IN_MEMORY = 2**30  # bytes of parquet files; above, datasets maps its own copy from disk
SPLITS = ("train", "val", "validation", "test")


def read_hugging_face(
    path: str,
    split: str,
    *,
    image_column: str = "image",
    label_column: str = "label",
    classes: Sequence[str] | None = None,
    config: str | None = None,
    revision: str | None = None,
    strict: bool = False,
) -> RealImages:
    """The rows of one split; ids are file#row or split#row.

    ``path`` is a folder of parquet files with the split in their name (as a word of its own:
    "eurosat_train.parquet", "data/test-00000.parquet"), or a folder that
    ``Dataset.save_to_disk`` wrote, or, if nothing of that name is here, an id of the Hub.

    Class names are ``classes``, else those of the ClassLabel feature, else the JSON list under
    "classes" in the parquet schema's metadata, else the labels of all splits, if they are strings.

    Args:
        path: folder or Hub id.
        split: as the files or the data set name it.
        image_column: encoded bytes, a struct of bytes and path, or an Image feature.
        label_column: numbers or strings.
        classes: names, in the order of the label numbers.
        config: which part of a Hub data set; only for the Hub.
        revision: commit of a Hub data set; only for the Hub.
        strict: an image that cannot be read is an error, not skipped.

    Raises:
        UserError: there is no such split or column, labels have no names, files cannot be read or
            differ in their names or types, or as `images.check` does.
    """
    columns = (image_column, label_column)
    rows = _load(Path(path), path, split, columns, config, revision)
    names = list(classes or rows.names or sorted({of for of in rows.all_labels if of is not None}))
    if not all(isinstance(name, str) for name in names):
        raise UserError(
            f"{path}: the labels in '{label_column}' are numbers without names; give the names as "
            "classes"
        )
    return encoded(
        f"{Path(path).name} ({split})",
        names,
        rows.ids,
        _numbers(rows.labels, names, path),
        Bytes(rows.images, image_column),
        strict,
    )


@dataclass(frozen=True)
class _Rows:
    """A split before its labels are numbers."""

    images: "Dataset"
    ids: list[str]
    labels: list[Any]
    all_labels: list[Any]
    names: list[str] | None


@dataclass(frozen=True)
class Bytes:
    """The encoded image of each row."""

    images: "Dataset"
    column: str

    def __call__(self, index: int) -> bytes | Path:
        """The bytes of a row, or the file that the row names."""
        value = self.images[index][self.column]
        if isinstance(value, dict):
            if not value.get("bytes") and value.get("path"):
                return Path(value["path"])
            value = value.get("bytes")
        if not isinstance(value, bytes):
            raise UnreadableImage(f"row {index} has no image in column '{self.column}'")
        return value


def _load(
    path: Path,
    name: str,
    split: str,
    columns: tuple[str, str],
    config: str | None,
    revision: str | None,
) -> _Rows:
    import datasets

    if not path.exists():
        try:
            splits = datasets.load_dataset(name, config, revision=revision)
        except (OSError, ValueError, RuntimeError) as problem:
            raise UserError(
                f"there is no folder {name}, and the Hub gave no data set of that name: {problem}"
            ) from problem
    elif not path.is_dir():
        raise UserError(f"{path} is no folder; give the folder that holds it")
    elif (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        splits = datasets.load_from_disk(str(path))
    else:
        return _of_parquet(path, split, columns)
    if isinstance(splits, datasets.Dataset):
        splits = datasets.DatasetDict({str(splits.split or "train"): splits})
    return _of_splits({str(key): of for key, of in splits.items()}, name, split, columns)


def _of_splits(splits: dict[str, Any], name: str, split: str, columns: tuple[str, str]) -> _Rows:
    dataset = choose(splits, split, f"split of {name}")
    image, label = columns
    require(dataset.column_names, columns, name)
    names = getattr(dataset.features[label], "names", None)
    labelled = [] if names else [each for each in splits.values() if label in each.column_names]
    return _Rows(
        images=undecoded(dataset, image),
        ids=[f"{split}#{row}" for row in range(len(dataset))],
        labels=list(dataset[label]),
        all_labels=[of for each in labelled for of in set(each[label])],
        names=names,
    )


def _of_parquet(path: Path, split: str, columns: tuple[str, str]) -> _Rows:
    everything = sorted(path.rglob("*.parquet"))
    files = named_after(split, everything, path)
    image, label = columns
    said: list[list[str] | None] = []
    for file in files:
        schema = schema_of(file)
        require(schema.names, columns, file.name)
        said.append(_names_of(schema, label, file))
        if said[-1] != said[0]:
            raise UserError(
                f"{path}: the metadata of {files[0].name} and {file.name} differ in their class "
                "names; write both with the same"
            )
    dataset = joined(files, [image, label])
    ids = [
        f"{file.relative_to(path).as_posix()}#{row}"
        for file in files
        for row in range(rows_of(file))
    ]
    labelled = [file for file in everything if label in schema_of(file).names]
    return _Rows(
        images=undecoded(dataset, image),
        ids=ids,
        labels=column_of(files, label),
        all_labels=list(set(column_of(labelled, label))),
        names=said[0],
    )


def _names_of(schema: pa.Schema, label: str, file: Path) -> list[str] | None:
    import datasets

    one = pa.schema([schema.field(label)], schema.metadata)
    feature = datasets.Features.from_arrow_schema(one)[label]
    return getattr(feature, "names", None) or names_in(schema, file)


def named_after(split: str, files: list[Path], path: Path) -> list[Path]:
    """The files of the split: by their own names, else by those of their folders.

    A file that is named after two splits would be in both, so it is an error.
    """
    if not files:
        raise UserError(f"{path} holds neither parquet files nor a saved data set")

    def chosen(part: Callable[[Path], str], word: str) -> list[Path]:
        pattern = re.compile(f"(?<![a-z]){re.escape(word)}(?![a-z])", re.IGNORECASE)
        return [file for file in files if pattern.search(part(file))]

    for part in (lambda file: file.name, lambda file: file.parent.relative_to(path).as_posix()):
        if found := chosen(part, split):
            for other in (word for word in SPLITS if word != split):
                if both := set(found).intersection(chosen(part, other)):
                    raise UserError(f"{min(both)} is named after both '{split}' and '{other}'")
            return found
    names = listed(str(file.relative_to(path)) for file in files)
    raise UserError(f"{path}: no parquet file is named after split '{split}'; there are {names}")


@contextmanager
def reading(file: Path) -> Iterator[pq.ParquetFile]:
    """A parquet file, open; what is wrong with it is an error with its name."""
    try:
        with pq.ParquetFile(file) as opened:
            yield opened
    except (OSError, pa.ArrowException) as problem:
        raise UserError(
            f"{file} cannot be read as parquet: {problem}; copy it again or remove it"
        ) from problem


def schema_of(file: Path) -> pa.Schema:
    """Columns and metadata of a parquet file."""
    with reading(file) as opened:
        return opened.schema_arrow


def rows_of(file: Path) -> int:
    """How many rows a parquet file has."""
    with reading(file) as opened:
        return opened.metadata.num_rows


def _table(file: Path, columns: list[str]) -> pa.Table:
    with reading(file) as opened:
        return opened.read(columns)


def joined(files: list[Path], columns: list[str]) -> "Dataset":
    """Some columns of files, one after the other."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    if sum(file.stat().st_size for file in files) <= IN_MEMORY:
        _require_same_types(files, columns)
        return datasets.Dataset(pa.concat_tables([_table(file, columns) for file in files]))
    try:
        mapped = datasets.Dataset.from_parquet([str(file) for file in files], columns=columns)
    except DatasetGenerationError as problem:
        _require_same_types(files, columns)  # datasets casts what it can
        why = problem.__cause__ or problem
        raise UserError(f"{files[0]} and others cannot be read as parquet: {why}") from problem
    assert isinstance(mapped, datasets.Dataset)  # not an iterable one: streaming is off
    return mapped


def _require_same_types(files: list[Path], columns: list[str]) -> None:
    first, *others = [(file, schema_of(file)) for file in files]
    for file, schema in others:
        for column in columns:
            one, other = first[1].field(column), schema.field(column)
            if not one.equals(other):
                raise UserError(
                    f"{file}: column '{column}' is of another type than in {first[0].name}, "
                    f"{other} and not {one}; write both with the same"
                )


def column_of(files: list[Path], column: str) -> list[Any]:
    """All values of a column, file after file."""
    return [value for file in files for value in _table(file, [column])[column].to_pylist()]


def undecoded(dataset: "Dataset", column: str) -> "Dataset":
    """The image column alone, as it is encoded."""
    import datasets

    dataset = dataset.select_columns([column]).with_format(None)
    if isinstance(dataset.features[column], datasets.Image):
        return dataset.cast_column(column, datasets.Image(decode=False))
    return dataset


def names_in(schema: pa.Schema, file: Path) -> list[str] | None:
    """The JSON list of class names in the schema's metadata, if there is one."""
    text = (schema.metadata or {}).get(b"classes")
    if text is None:
        return None
    try:
        names = json.loads(text)
    except ValueError as problem:
        raise UserError(f"{file}: 'classes' in its metadata is no JSON: {problem}") from problem
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: 'classes' in its metadata is no list of names")
    return names


def _numbers(labels: list[Any], names: list[str], path: str) -> list[int]:
    """Class ids of labels that are numbers or names."""
    known: dict[Any, int] = {name: number for number, name in enumerate(names)}
    known |= {number: number for number in range(len(names))}
    if unknown := {str(label) for label in labels if label not in known}:
        raise UserError(
            f"{path}: labels without a class: {listed(sorted(unknown))}; the classes are "
            f"{', '.join(names)}"
        )
    return [known[label] for label in labels]


def require(there: Iterable[str], columns: Iterable[str], where: str) -> None:
    """Columns that are not there are an `UnknownWord`."""
    for column in columns:
        choose(dict.fromkeys(there), column, f"column of {where}")
