"""Names and words as one says and finds them in a text."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ARTICLE = re.compile(r"^(a|an|the)\s+", re.IGNORECASE)
TOKEN = re.compile(r"\w+(?:-\w+)*")


def readable(name: str) -> str:
    """A class name as words.

    >>> [readable(name) for name in ("AnnualCrop", "aquarium_fish", "tv-monitor", "SUV")]
    ['annual crop', 'aquarium fish', 'tv monitor', 'suv']
    """
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.sub(r"[\s_\-]+", " ", parted).strip().lower()


def spoken(words: Sequence[str]) -> str:
    """Words as one says them in a row.

    >>> spoken(["a river", "a forest", "houses"])
    'a river, a forest and houses'
    """
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def bare(word: str) -> str:
    """A wording without its article.

    >>> bare("an industrial area")
    'industrial area'
    """
    return ARTICLE.sub("", word.strip())


def with_article(word: str) -> str:
    """With the indefinite article, by its first letters.

    >>> with_article("airliner"), with_article("unicycle")
    ('an airliner', 'a unicycle')
    """
    vowel = re.match(r"(?!uni|eu|one)[aeiou]", word, re.IGNORECASE)
    return f"{'an' if vowel else 'a'} {word}"


def qualified(word: str, attribute: str) -> str:
    """A wording with an attribute before its noun.

    >>> qualified("a forest", "old"), qualified("houses", "old")
    ('an old forest', 'old houses')
    """
    noun = f"{attribute} {bare(word)}"
    article = ARTICLE.match(word.strip())
    if not article:
        return noun
    return f"the {noun}" if article[1].lower() == "the" else with_article(noun)


def replace_at(text: str, start: int, end: int, word: str) -> str:
    """A text with ``word`` in place of what stands from ``start`` to ``end``.

    Where "a" or "an" stands before it, the word loses its own article and that one is made to fit.

    >>> replace_at("a photo of a {word}", 13, 19, "an airliner")
    'a photo of an airliner'
    """
    before = text[:start]
    if article := re.search(r"\b(a)n?\s$", before, re.IGNORECASE):
        before, word = before[: article.end(1)], with_article(bare(word))[1:]
    return before + word + text[end:]


@dataclass(frozen=True)
class Mention:
    """Where a text names a class.

    Args:
        name: of the class.
        start, end: of the word, in characters.
        plural: it is one of our words with a plural's ending.
    """

    name: str
    start: int
    end: int
    plural: bool = False


def key(word: str) -> str:
    """What stands for a wording in the table of :func:`mentions`.

    >>> key("an Aquarium fish")
    'aquarium fish'
    """
    return " ".join(TOKEN.findall(bare(word))).casefold()


def mentions(text: str, table: Mapping[str, str]) -> list[Mention]:
    """Every place where a text names a class, whole words only; the longest wording counts.

    Args:
        text: any.
        table: names of classes by the `key` of their wordings.

    >>> [(m.name, m.plural) for m in mentions("Two dogs at a hot dog stand", {"dog": "Dog"})]
    [('Dog', True), ('Dog', False)]
    >>> [m.name for m in mentions("a hot dog stand", {"dog": "Dog", "hot dog": "Food"})]
    ['Food']
    """
    tokens = list(TOKEN.finditer(text))
    words = [token[0].casefold() for token in tokens]
    longest = max((name.count(" ") + 1 for name in table), default=0)
    found: list[Mention] = []
    at = 0
    while at < len(tokens):
        for count in range(min(longest, len(tokens) - at), 0, -1):
            said = " ".join(words[at : at + count])
            name, plural = table.get(said), False
            if name is None:
                name = next((table[of] for of in _singulars(said) if of in table), None)
                plural = name is not None
            if name is not None:
                last = tokens[at + count - 1]
                found.append(Mention(name, tokens[at].start(), last.end(), plural))
                at += count - 1
                break
        at += 1
    return found


def _singulars(word: str) -> list[str]:
    """What a plural may come from."""
    endings = (("ies", "y"), ("es", ""), ("s", ""))
    return [word.removesuffix(old) + new for old, new in endings if word.endswith(old)]
