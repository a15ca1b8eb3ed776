"""Parquet files with an image and its mask in each row.

The schema's metadata may say what masks hold: ``classes``, a JSON list of names in the order of
the numbers; ``ignore_index``, the number that is ignored, which then is no class; ``palette``, a
JSON list of [red, green, blue] in the same order, for masks in RGB.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from activegen.data.hugging_face import (
    Bytes,
    column_of,
    joined,
    named_after,
    names_in,
    require,
    rows_of,
    schema_of,
    undecoded,
)
from activegen.data.masks import Coding, Colour, EncodedMasks, coding_of, colour_of
from activegen.data.scenes import RealScenes, encoded_scenes
from activegen.records import UserError, choose


def read_mask_parquet(
    path: str,
    split: str,
    *,
    image_column: str = "image",
    mask_column: str = "mask",
    reliability_column: str = "reliability",
    split_column: str = "split",
    classes: Sequence[str] | None = None,
    ids: Mapping[int | str, str] | None = None,
    ignore: Sequence[int] = (),
    strict: bool = False,
) -> RealScenes:
    """The rows of one split; ids are file#row.

    The split is in a column or, where there is none, in the files' names, as a word of its own.

    Args:
        path: a folder of parquet files, or one file.
        split: as the column or the files name it.
        image_column: encoded bytes, or a struct of bytes and path.
        mask_column: likewise.
        reliability_column: likewise, grey: how sure each pixel is; where the files have it.
        split_column: name of the column.
        classes: names in the order of the numbers in the masks; without, the metadata's.
        ids: the class of each number in the masks, instead; several may be of one class.
        ignore: numbers that are ignored, beside the metadata's; 255 is, unless ``ids`` names it.
        strict: what cannot be used is an error, not skipped.

    Raises:
        UserError: there is no such file, split or column, files cannot be read or differ, the
            metadata cannot be understood, or as `masks.coding_of`, `masks.decode_mask` and
            `scenes.check_scenes` do.
    """
    root = Path(path)
    files, rows = _of_split(root, split, split_column)
    for file in files:
        require(schema_of(file).names, (image_column, mask_column), file.name)
    said = {_said(file) for file in files}
    if len(said) > 1:
        raise UserError(f"{root}: the metadata of {files[0].name} and others differ; read one file")
    names, coding = said.pop().coding(classes, ids, ignore)
    numbers = [number for number, _ in rows]
    sure = all(reliability_column in schema_of(file).names for file in files)
    columns = [image_column, mask_column, *[reliability_column] * sure]
    dataset = joined(files, columns).select(numbers)
    scene_ids = [id for _, id in rows]
    return encoded_scenes(
        f"{root.stem} ({split})",
        names,
        scene_ids,
        Bytes(undecoded(dataset, image_column), image_column),
        EncodedMasks(
            Bytes(undecoded(dataset, mask_column), mask_column),
            tuple(f"the mask of {id}" for id in scene_ids),
            coding,
        ),
        strict,
        Bytes(undecoded(dataset, reliability_column), reliability_column) if sure else None,
    )


@dataclass(frozen=True)
class _Said:
    """What the metadata of a file say of its masks."""

    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    ignore: int | None

    def coding(
        self,
        classes: Sequence[str] | None,
        ids: Mapping[int | str, str] | None,
        ignore: Sequence[int],
    ) -> tuple[tuple[str, ...], Coding]:
        """Class names and what masks hold; the options speak before the metadata."""
        explained = {int(number) for number in ids or () if str(number).isdecimal()}
        ignored = [*ignore]
        if self.ignore is not None and self.ignore not in explained:
            ignored.append(self.ignore)
        names, coding = coding_of(None if ids else classes or self.classes, ids, None, ignored)
        colours = {
            colour: coding.ids[number]
            for number, colour in enumerate(self.palette)
            if number in coding.ids
        }
        return names, replace(coding, colours=colours)


def _of_split(root: Path, split: str, column: str) -> tuple[list[Path], list[tuple[int, str]]]:
    """The files with rows of the split, and place and id of each of its rows in them."""
    files = [root] if root.is_file() else sorted(root.rglob("*.parquet"))
    if not files:
        raise UserError(f"{root} holds no parquet files; give the folder that does")
    split_of: dict[Path, list[str]] = {}
    if all(column in schema_of(file).names for file in files):
        split_of = {file: [str(of) for of in column_of([file], column)] for file in files}
        there = {of: None for each in split_of.values() for of in each}
        choose(there, split, f"split of {root}")
        files = [file for file in files if split in split_of[file]]
    else:
        files = named_after(split, files, root if root.is_dir() else root.parent)
    rows, start = [], 0
    for file in files:
        name = file.name if file == root else file.relative_to(root).as_posix()
        of_file = split_of.get(file) or [split] * rows_of(file)
        rows += [(start + row, f"{name}#{row}") for row, of in enumerate(of_file) if of == split]
        start += len(of_file)
    return files, rows


def _said(file: Path) -> _Said:
    schema = schema_of(file)
    colours = _json(schema, file, "palette") or []
    ignore = _json(schema, file, "ignore_index")
    if not isinstance(colours, list):
        raise UserError(f"{file}: 'palette' in its metadata is no list of colours")
    if ignore is not None and type(ignore) is not int:
        raise UserError(f"{file}: 'ignore_index' in its metadata is no whole number")
    return _Said(
        tuple(names_in(schema, file) or ()), tuple(colour_of(colour) for colour in colours), ignore
    )


def _json(schema: pa.Schema, file: Path, key: str) -> Any:
    text = (schema.metadata or {}).get(key.encode())
    try:
        return None if text is None else json.loads(text)
    except ValueError as problem:
        raise UserError(f"{file}: '{key}' in its metadata is no JSON: {problem}") from problem
