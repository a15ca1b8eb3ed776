"""A CSV file with one image a row: columns path, label and, if there are splits, split."""

import csv
from pathlib import Path

from activegen.data.image_folder import Files
from activegen.data.images import RealImages, encoded, listed, repeated
from activegen.data.splits import by_hash
from activegen.records import UserError, choose


def read_csv(
    path: str,
    split: str,
    *,
    path_column: str = "path",
    label_column: str = "label",
    split_column: str = "split",
    strict: bool = False,
) -> RealImages:
    """The rows of one split; ids are the paths as they are written.

    Relative paths are relative to the CSV file. Labels are class names, in the order of the
    alphabet over all splits. Without a split column, `splits.by_hash` divides each class: 70 %
    train, 10 % val, 20 % test.

    Raises:
        UserError: the CSV file, a column, a cell or an image is missing, a path is there twice, or
            as `images.check` does.
    """
    file = Path(path)
    columns, rows = _rows(file)
    known = dict.fromkeys(columns)
    for column in (path_column, label_column):
        choose(known, column, f"column of {file.name}")
    for number, row in enumerate(rows, start=2):
        if not row[path_column] or not row[label_column]:
            raise UserError(f"{file}, row {number}: path or label is missing; fill it in")
        if row.get(split_column) == "":
            raise UserError(f"{file}, row {number}: {split_column} is missing; fill it in")
    if twice := repeated(row[path_column] for row in rows):
        raise UserError(f"{file}: there twice: {listed(twice)}; keep one row for each image")
    classes = sorted({row[label_column] for row in rows})
    labels = [classes.index(row[label_column]) for row in rows]
    ids = [row[path_column] for row in rows]
    split_of = [row[split_column] for row in rows] if split_column in known else None
    split_of = split_of or by_hash(ids, labels)
    choose(dict.fromkeys(split_of), split, f"split of {file.name}")
    for of in split_of:
        if of != split and of.lower() == split.lower():
            raise UserError(f"{file} has the splits '{split}' and '{of}'; write both the same way")
    chosen = [index for index, of in enumerate(split_of) if of == split]
    paths = tuple(file.parent / ids[index] for index in chosen)
    if missing := [str(image) for image in paths if not image.is_file()]:
        raise UserError(
            f"{file}: {len(missing)} images are missing: {listed(missing)}; paths are relative to "
            "the CSV file"
        )
    return encoded(
        f"{file.stem} ({split})",
        classes,
        [ids[index] for index in chosen],
        [labels[index] for index in chosen],
        Files(paths),
        strict,
    )


def _rows(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Column names and rows, without blanks around the words."""
    if not file.is_file():
        raise UserError(f"there is no file {file}; give a CSV file with columns path and label")
    with file.open(newline="", encoding="utf-8-sig") as lines:
        try:
            table = [[word.strip() for word in row] for row in csv.reader(lines) if row]
        except (UnicodeDecodeError, csv.Error) as problem:
            raise UserError(f"{file} is no CSV file in UTF-8: {problem}") from problem
    if len(table) < 2:
        raise UserError(f"{file} has no rows; the first line names the columns path and label")
    header = table[0]
    short = [number for number, row in enumerate(table, start=1) if len(row) != len(header)]
    if short:
        raise UserError(f"{file}, row {short[0]}: as many words as columns are needed")
    return header, [dict(zip(header, row, strict=True)) for row in table[1:]]
