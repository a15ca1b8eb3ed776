"""Nouns of Princeton's WordNet, read by nltk from where it is installed. Nothing is downloaded.

Miller (1995), https://doi.org/10.1145/219717.219748. It is looked for in the folder ``WNSEARCHDIR``
(WordNet's own variable), where Debian's package wordnet-base puts it, and among nltk's data.
"""

import difflib
import io
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from activegen.records import UserError

FOLDERS = ("/usr/share/wordnet", "/usr/local/WordNet-3.0/dict")
NLTK = ("corpora/wordnet", "corpora/wordnet.zip/wordnet/")
LEXICOGRAPHERS = 45  # files, whose names Debian leaves out and we do not use

Synset = Any  # nltk's


class WordNet:
    """Senses of nouns by their names ("crane.n.05"), and their kinds.

    Args:
        root: a folder with data.noun and the other files, or nltk's pointer to one.

    Raises:
        UserError: it cannot be read.
    """

    def __init__(self, root: Any):
        from nltk.corpus.reader.wordnet import WordNetError

        try:
            self._reader = _reader(root)
        except (OSError, ValueError, AssertionError, WordNetError) as error:
            raise UserError(f"WordNet in {root} cannot be read: {error}") from error
        self.source = f"WordNet {self._reader.get_version() or ''} in {root}"

    def first(self, name: str) -> Synset | None:
        """The first noun synset of a name, WordNet's most frequent; None where it has none."""
        found = self._reader.synsets(name.strip().replace(" ", "_"), "n")
        return found[0] if found else None

    def thing(self, name: str) -> Synset | None:
        """The first noun synset of a name that is no single thing (the bird, not a poet Crane)."""
        found = self._reader.synsets(name.strip().replace(" ", "_"), "n")
        return next((of for of in found if not of.instance_hypernyms()), None)

    def named(self, sense: str) -> Synset:
        """A synset by its name.

        Raises:
            UserError: there is none; the message names those that are near.
        """
        from nltk.corpus.reader.wordnet import WordNetError

        numbered = re.fullmatch(r"(.+)\.n\.0*[1-9]\d*", sense)
        try:
            if numbered:
                return self._reader.synset(sense)
        except WordNetError:
            pass
        lemma = numbered[1] if numbered else sense.split(".")[0]
        raise UserError(f"WordNet has no noun synset '{sense}'; {self.near(lemma)}")

    def near(self, name: str) -> str:
        """What a name may mean, in words: its senses, its last word's, or names like it."""
        name = name.strip().lower().replace(" ", "_")
        for said in (name, name.rpartition("_")[2]):
            if senses := self._reader.synsets(said, "n"):
                told = [f"{of.name()} ({of.definition()})" for of in senses[:6]]
                return f"did you mean {' or '.join(told)}?"
        like = [of for of in self._reader.all_lemma_names("n") if of[:2] == name[:2]]
        near = difflib.get_close_matches(name, like, n=3)
        return f"did you mean {' or '.join(near)}?".replace("_", " ") if near else "nothing is near"

    def kinds(self, synset: Synset, depth: int) -> Iterator[tuple[int, Synset]]:
        """The hyponyms down to a depth, 1 is direct; each once, by depth and name."""
        seen, level = {synset}, [synset]
        for number in range(1, depth + 1):
            below = {of for above in level for of in above.hyponyms()} - seen
            level = sorted(below, key=lambda of: of.name())
            seen |= below
            for of in level:
                yield number, of

    def lineage(self, synset: Synset) -> set[Synset]:
        """The synset and all that it is a kind of."""
        return {of for path in synset.hypernym_paths() for of in path}


@cache
def installed() -> WordNet | None:
    """The first that is found; None without any.

    Raises:
        UserError: one is there and cannot be read.
    """
    for folder in (os.environ.get("WNSEARCHDIR", ""), *FOLDERS):
        if folder and (Path(folder) / "data.noun").is_file():
            return WordNet(folder)
    import nltk.data

    for place in NLTK:
        try:
            return WordNet(nltk.data.find(place))
        except LookupError:
            continue
        except BadZipFile as error:
            raise UserError(
                f"the archive of WordNet among nltk's data ({nltk.data.path}) cannot be read: "
                f"{error}; install it again, or remove it"
            ) from error
    return None


def _reader(root: Any) -> Any:
    """nltk's reader, without other languages."""
    import nltk.data
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class Reader(WordNetCorpusReader):
        def open(self, file: str) -> Any:
            if file == "lexnames":
                return io.StringIO("".join(f"{n} {n} 0\n" for n in range(LEXICOGRAPHERS)))
            try:
                return super().open(file)
            except (BadZipFile, zlib.error) as error:  # some files are read late
                raise UserError(f"WordNet in {root} cannot be read: {file}: {error}") from error

        def map_wn(self, version: str = "wordnet") -> None:
            """No numbers of other versions; nltk needs its own data to tell them."""

    if isinstance(root, str) and root not in nltk.data.path:
        nltk.data.path.append(root)  # nltk reads files of these folders only
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no other languages
        return Reader(root, None)
