"""Other words for the classes: synonyms and kinds (hyponyms), those that mean one class only.

Prompt augmentation of Yoshihashi et al. (2023), https://arxiv.org/abs/2309.01369: a class's word is
replaced by a synonym or hyponym, and the label stays. Their source of words, their rules and the
probability are not published; what is here is ours.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from activegen.data.word_table import Entry, entry, of_sense
from activegen.data.wording import bare, key, readable, with_article
from activegen.data.wordnet import Synset, WordNet, installed
from activegen.records import UserError, choose

SOURCES = ("auto", "wordnet", "table")
INSTALL = "install it (Debian: wordnet-base; or nltk's corpus 'wordnet')"


@dataclass(frozen=True)
class AugmentSettings:
    """Which other words a prompt may have, and how often.

    Args:
        source: "wordnet", "table" (ours, of common classes), or "auto": WordNet where it is
            installed, else the table.
        share: of the prompts in which the class has another word than its own.
        synonyms: the lemmas of the class's synset.
        hyponyms: the lemmas of its kinds.
        depth: how far below the class kinds may be; 1 is direct. The table has no deeper ones.
        synsets: WordNet's name of what a class is ("crane.n.05"), where it is not the first noun of
            that name; "" gives a class no other words.
        exclude: words not to use.

    Raises:
        UserError: a value out of its range.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    source: str = "auto"
    share: float = 0.5
    synonyms: bool = True
    hyponyms: bool = True
    depth: int = 1
    synsets: dict[str, str] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()

    def __post_init__(self):
        choose(dict.fromkeys(SOURCES), self.source, "prompts.augment.source")
        if not 0 <= self.share <= 1:
            raise UserError(f"prompts.augment.share is {self.share}; give 0 to 1")
        if self.depth < 1:
            raise UserError(f"prompts.augment.depth is {self.depth}; give at least 1")


@dataclass(frozen=True)
class Wording:
    """A word for a class.

    Args:
        text: as one says it, maybe with an article.
        synset: WordNet's name of what it means; "" of a word of our table.
        depth: 0 is a synonym, above it how far below the class.
    """

    text: str
    synset: str = ""
    depth: int = 0


@dataclass(frozen=True)
class Vocabulary:
    """The other words of each class.

    Args:
        source: where they are from, in words.
        words: by class; a class has maybe none.
        dropped: words that were found and are not used, and why, by class.
    """

    source: str = ""
    words: Mapping[str, tuple[Wording, ...]] = field(default_factory=dict)
    dropped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass
class _Found:
    """Words of one class on their way."""

    words: list[Wording] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)


def vocabulary(
    own: Mapping[str, Sequence[str]], settings: AugmentSettings, silent: Collection[str] = ()
) -> Vocabulary:
    """Other words for the classes.

    A word is dropped when

    - its first noun synset is neither the class's nor a kind of it ("crane" for a machine);
    - WordNet marks its usage (slang, slurs, trademarks, ...);
    - what it means is above or below another class of the list ("canine" where there is a dog);
    - another class has it too, or its own name has it before the last word ("boat train").

    A word has an article where the class's own has one.

    Args:
        own: each class's own wordings, which are not repeated.
        settings: of the augmentation.
        silent: classes that are never asked for, and need no words.

    Raises:
        UnknownWord: ``synsets`` of a class that is not there.
        UserError: WordNet is wanted and not there, has no such synset, or a class has no words
            because nothing says what it is.
    """
    for name in settings.synsets:
        choose(own, name, "class")
    wordnet = None if settings.source == "table" else installed()
    if wordnet is None and settings.source == "wordnet":
        raise UserError(
            f"prompts.augment.source: there is no WordNet here; {INSTALL}, or say table"
        )
    asked = [name for name in own if name not in silent and settings.synsets.get(name) != ""]
    found = _looked_up(asked, settings, wordnet)
    for name, of in found.items():
        _leave_out(of, own[name], settings)
    _only_one_class(found, own)
    tabled = any(not word.synset for of in found.values() for word in of.words)
    sources = [wordnet.source] if wordnet else []
    return Vocabulary(
        " and ".join([*sources, "our table"] if tabled or not wordnet else sources),
        {name: _as_said(of.words, own[name]) for name, of in found.items()},
        {name: of.dropped for name, of in found.items() if of.dropped},
    )


def _looked_up(
    asked: Sequence[str], settings: AugmentSettings, wordnet: WordNet | None
) -> dict[str, _Found]:
    senses: dict[str, Synset] = {}
    entries: dict[str, Entry] = {}
    missing: list[str] = []
    for name in asked:
        given, ours = settings.synsets.get(name), entry(name)
        if wordnet is None:
            ours = of_sense(given) if given else ours
        else:
            sense = given or (ours.sense if ours else "")
            if synset := wordnet.named(sense) if sense else wordnet.thing(readable(name)):
                senses[name] = synset
                continue
        if ours is None:
            missing.append(name)
        else:
            entries[name] = ours
    if missing:
        raise _nothing_known(missing, wordnet)
    found = {name: _of_entry(of) for name, of in entries.items()}
    if wordnet is not None:
        lineages = {name: wordnet.lineage(sense) for name, sense in senses.items()}
        for name in senses:
            found[name] = _of_synset(name, senses, lineages, settings.depth, wordnet)
    return {name: found[name] for name in asked}


def _nothing_known(missing: Sequence[str], wordnet: WordNet | None) -> UserError:
    example = f'prompts.augment.synsets: {{{missing[0]}: <such as dog.n.01>}}; "" is no other words'
    if wordnet is None:
        return UserError(
            f"our table has no words for {', '.join(missing)}; WordNet knows more: {INSTALL}; "
            f"or say {example}"
        )
    told = "; ".join(f"'{readable(name)}': {wordnet.near(readable(name))}" for name in missing[:5])
    return UserError(
        f"WordNet has no noun for {', '.join(missing)} ({told}); say what it is by {example}"
    )


def _of_entry(of: Entry) -> _Found:
    words = [Wording(word) for word in of.synonyms]
    return _Found([*words, *(Wording(word, depth=1) for word in of.kinds)])


def _of_synset(
    name: str,
    senses: Mapping[str, Synset],
    lineages: Mapping[str, set[Synset]],
    depth: int,
    wordnet: WordNet,
) -> _Found:
    """The lemmas of a class's synset and of its kinds, without what is ambiguous."""
    own, found = senses[name], _Found()
    # a class that this one is a kind of could have all of its words
    others = {of: sense for of, sense in senses.items() if sense not in lineages[name]}
    for level, synset in [(0, own), *wordnet.kinds(own, depth)]:
        lineage = wordnet.lineage(synset)
        near = [
            of
            for of, sense in others.items()
            if sense in lineage or (level and synset in lineages[of])
        ]
        for lemma in synset.lemmas():
            text = lemma.name().replace("_", " ")
            first = wordnet.first(text)
            marks = [*lemma.usage_domains(), *synset.usage_domains()]
            if near:
                found.dropped[text] = f"also for '{near[0]}'"
            elif first is None or own not in wordnet.lineage(first):
                found.dropped[text] = f"first means {first.name() if first else 'nothing'}"
            elif marks:
                found.dropped[text] = f"marked {marks[0].name()}"
            else:
                found.words.append(Wording(text, synset.name(), level))
    return found


def _leave_out(found: _Found, own: Sequence[str], settings: AugmentSettings) -> None:
    """What the user does not want, what is the class's own word, and what is there twice."""
    excluded = {key(word) for word in settings.exclude}
    known = {key(word) for word in own}
    kept: list[Wording] = []
    for word in found.words:
        wanted = settings.hyponyms if word.depth else settings.synonyms
        said = key(word.text)
        if said in excluded:
            found.dropped[bare(word.text)] = "excluded"
        elif wanted and said not in known:
            kept.append(word)
            known.add(said)
    found.words = kept
    for word in [word for word in found.dropped if key(word) in known]:
        del found.dropped[word]


def _only_one_class(found: Mapping[str, _Found], own: Mapping[str, Sequence[str]]) -> None:
    """Drops words of two classes, and those that have another class's own word inside."""
    named = {name: {key(word) for word in (readable(name), *own[name])} for name in own}
    count = Counter(key(word.text) for of in found.values() for word in of.words)
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for name, words in named.items():
        for word in words:
            holders[word].append(name)
    inside = re.compile(rf"\b({'|'.join(map(re.escape, sorted(holders, key=len)[::-1]))})\b")
    for name, of in found.items():
        kept = []
        for word in of.words:
            said = key(word.text)
            others = [other for other in holders.get(said, ()) if other != name]
            parts = [part[0] for part in inside.finditer(said) if part.end() < len(said)]
            strange = [part for part in parts if name not in holders[part]]
            if count[said] > 1 or others:
                of.dropped[bare(word.text)] = "of two classes"
            elif strange:
                of.dropped[bare(word.text)] = f"says '{holders[strange[0]][0]}'"
            else:
                kept.append(word)
        of.words = kept


def _as_said(words: Sequence[Wording], own: Sequence[str]) -> tuple[Wording, ...]:
    """With an article where the class's own wordings have one."""
    if all(bare(word) == word.strip() for word in own):
        return tuple(Wording(bare(word.text), word.synset, word.depth) for word in words)
    return tuple(
        Wording(with_article(word.text), word.synset, word.depth) if word.synset else word
        for word in words
    )
