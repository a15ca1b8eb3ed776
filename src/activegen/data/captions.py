"""Captions from a file as prompts: those that name classes of ours.

One caption a line; or a CSV file with a column ``caption`` and maybe ``classes`` (names between
semicolons); or JSON lines with the same keys. Without classes a caption is of those that it names.
"""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from activegen.data.wording import Mention, bare, key, mentions, replace_at
from activegen.records import UserError

LONGEST = 300  # characters; what is longer does not fit into 77 tokens


@dataclass(frozen=True)
class CaptionSettings:
    """Captions to draw from.

    Args:
        path: a file of text, .csv or .jsonl.
        share: of the prompts that are captions, where there are any for the classes.
        per_class: captions of each class at most, drawn by the seed, so that all classes have texts
            as varied; null takes all.

    Raises:
        UserError: a value out of its range.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    path: str
    share: float = 0.5
    per_class: int | None = None

    def __post_init__(self):
        if not 0 < self.share <= 1:
            raise UserError(f"prompts.captions.share is {self.share}; give more than 0, up to 1")
        if self.per_class is not None and self.per_class < 1:
            raise UserError(f"prompts.captions.per_class is {self.per_class}; give at least 1")


@dataclass(frozen=True)
class Caption:
    """A text and where it names classes.

    Args:
        text: of it.
        mentions: every place, in its order.
    """

    text: str
    mentions: tuple[Mention, ...]

    @property
    def names(self) -> frozenset[str]:
        """Of the classes that it names."""
        return frozenset(of.name for of in self.mentions)

    def word(self, name: str) -> str:
        """The first word that names a class, as it stands."""
        return self.text[slice(*self._places(name)[0])]

    def replaceable(self, name: str) -> bool:
        """It names the class by one word, and not in the plural."""
        said = {self.text[start:end].casefold() for start, end in self._places(name)}
        return len(said) == 1 and not any(of.plural for of in self.mentions if of.name == name)

    def replaced(self, words: Mapping[str, str]) -> str:
        """The text with other words for classes, in all places."""
        text = self.text
        for of in reversed(self.mentions):
            if of.name in words:
                text = replace_at(text, of.start, of.end, bare(words[of.name]))
        return text

    def _places(self, name: str) -> list[tuple[int, int]]:
        return [(of.start, of.end) for of in self.mentions if of.name == name]


@dataclass(frozen=True)
class Captions:
    """What a file gave.

    Args:
        captions: those that can be used.
        skipped: how many cannot, by reason.
    """

    captions: tuple[Caption, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)


def read_captions(path: str, wordings: Mapping[str, Sequence[str]]) -> Captions:
    """The captions that name classes.

    One that says its classes must name each of them, and no other of ours. A caption that is there
    twice counts once. A word of two classes is sure only where the caption's classes decide.

    Args:
        path: of the file.
        wordings: words of each class to look for.

    Raises:
        UserError: there is no such file, it cannot be read, or no caption can be used.
    """
    file = Path(path).expanduser()
    table = _table(wordings)
    skipped: Counter[str] = Counter()
    captions: dict[str, Caption] = {}
    for text, classes in _rows(file):
        made = _caption(" ".join(text.split()), classes, table, wordings)
        if isinstance(made, str):
            skipped[made] += 1
        elif made.text in captions:
            skipped["is there twice"] += 1
        else:
            captions[made.text] = made
    if not captions:
        told = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise UserError(
            f"no caption of {file} can be used ({told or 'it is empty'}); write captions that say "
            f"a word of a class, such as '{next(iter(table), '')}'"
        )
    return Captions(tuple(captions.values()), dict(skipped))


def at_most(
    captions: Sequence[Caption], per_class: int, rng: np.random.Generator
) -> tuple[Caption, ...]:
    """Captions in a drawn order until each class has so many; the others are left out.

    A caption of several classes counts for each, and is left out when one of them has enough.
    """
    left: dict[str, int] = {name: per_class for of in captions for name in of.names}
    chosen = []
    for index in rng.permutation(len(captions)).tolist():
        names = captions[index].names
        if all(left[name] for name in names):
            chosen.append(index)
            left.update({name: left[name] - 1 for name in names})
    return tuple(captions[index] for index in sorted(chosen))


def _table(wordings: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The class of each word; "" of the words of several."""
    table: dict[str, str] = {}
    for name, words in wordings.items():
        for word in map(key, words):
            table[word] = name if table.get(word, name) == name else ""
    return table


def _caption(
    text: str,
    classes: Sequence[str] | None,
    table: Mapping[str, str],
    wordings: Mapping[str, Sequence[str]],
) -> Caption | str:
    """A caption, or why it is none."""
    if len(text) > LONGEST:
        return f"has more than {LONGEST} characters"
    if classes is not None:
        classes = [name for name in classes if name in wordings]
        if not classes:
            return "is of no class of ours"
        table = {**table, **{key(word): name for name in classes for word in wordings[name]}}
    found = mentions(text, table)
    names = {of.name for of in found}
    if classes is not None and names != set(classes):
        return "names others than its classes"
    if not names:
        return "names no class"
    return "has a word of two classes" if "" in names else Caption(text, tuple(found))


def _rows(file: Path) -> list[tuple[str, list[str] | None]]:
    """Texts, and classes where the file says them."""
    if not file.is_file():
        raise UserError(f"there is no file of captions {file}")
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            if file.suffix.lower() == ".csv":
                rows = csv.DictReader(lines)
                return [_row(row, file, rows.line_num) for row in rows]
            given = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read as text in UTF-8: {error}") from error
    if file.suffix.lower() != ".jsonl":
        return [(line, None) for _, line in given]
    try:
        return [_row(json.loads(line), file, number) for number, line in given]
    except ValueError as error:
        raise UserError(f"{file} is no JSON, one object a line: {error}") from error


def _row(row: Any, file: Path, number: int) -> tuple[str, list[str] | None]:
    text = row.get("caption") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise UserError(f"{file}, line {number}: there is no 'caption'; name the text so")
    classes = row.get("classes")
    if isinstance(classes, str):
        classes = [name.strip() for name in classes.split(";") if name.strip()]
    if classes is not None and not isinstance(classes, list):
        raise UserError(f"{file}, line {number}: 'classes' is no list of names")
    return text, [str(name) for name in classes] if classes else None
