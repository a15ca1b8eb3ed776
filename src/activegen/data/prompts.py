"""What to say to the generator: templates, captions, and the wordings of each class.

The word that names the class is always a part of the prompt, as it stands.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from activegen.data.captions import Caption, Captions, CaptionSettings, at_most, read_captions
from activegen.data.vocabulary import AugmentSettings, Vocabulary, Wording, vocabulary
from activegen.data.wording import (
    bare,
    key,
    mentions,
    qualified,
    readable,
    replace_at,
    spoken,
)
from activegen.records import UnknownWord, UserError, choose, fingerprint

PLACE, SCENE, ATTRIBUTE = "{word}", "{scene}", "{attribute}"
ATTRIBUTED = f"{ATTRIBUTE} {PLACE}"
TEMPLATES = ("a photo of {word}",)
EMPTY: Mapping[str, Sequence[str]] = {}
NO_WORDS = Vocabulary()
NO_CAPTIONS = Captions()


@dataclass(frozen=True)
class Prompts:
    """Templates and, for each class, its wordings; one of each makes a prompt.

    Args:
        templates: texts with ``{word}`` where the class is named, ``{attribute}`` directly before
            it, ``{scene}`` anywhere.
        words: the class's own wordings, by its name; they may carry an article ("a forest").
        other: further wordings of the classes.
        share: of the prompts in which a class has one of them.
        scenes, attributes: what the templates' places are filled with.
        captions: texts that are prompts as they are, or with another word for a class.
        caption_share: of the prompts that are captions, where there are any for the classes.

    Raises:
        UserError: there is no template, one has no ``{word}`` or a place that we do not know, or
            there is nothing for it; a class has no wording; a scene or an attribute (with further
            wordings, a template) says a word of a class.
    """

    templates: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]
    other: Vocabulary = NO_WORDS
    share: float = 0.0
    scenes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    captions: Captions = NO_CAPTIONS
    caption_share: float = 0.0

    def __post_init__(self) -> None:
        """Check templates and words."""
        if not self.templates:
            raise UserError(f"there is no prompt template; give one such as '{TEMPLATES[0]}'")
        for template in self.templates:
            _check_places(template)
        _check_used(SCENE, self.scenes, self.templates)
        _check_used(ATTRIBUTE, self.attributes, self.templates)
        for name, wordings in self.words.items():
            if not wordings or not all(bare(word) for word in wordings):
                raise UserError(f"class '{name}' has no word, or an empty one; give it a word")
        self._check_texts()

    def prompt(self, class_name: str, rng: np.random.Generator) -> tuple[str, str]:
        """A prompt for the class, and the word in it whose attention is the class's.

        Raises:
            UnknownWord: the class has no words.
        """
        return self.listing((class_name,), rng)

    def listing(self, class_names: Sequence[str], rng: np.random.Generator) -> tuple[str, str]:
        """A prompt for several classes in one image, and the word in it that names the first.

        >>> scenes = prompts_for(["river", "forest"], words={"forest": ["a forest"]})
        >>> scenes.listing(["forest", "river"], np.random.default_rng(0))
        ('a photo of a forest and river', 'forest')

        Raises:
            UnknownWord: a class has no words.
            UserError: there is no class.
        """
        prompt, words = self.listing_words(class_names, rng)
        return prompt, words[0]

    def listing_words(
        self, class_names: Sequence[str], rng: np.random.Generator
    ) -> tuple[str, tuple[str, ...]]:
        """The same prompt as :meth:`listing`, and a word in it for each class.

        A caption is taken where one names these classes and no others.

        Raises:
            UnknownWord: a class has no words.
            UserError: there is no class.
        """
        if not class_names:
            raise UserError("there is no class to name in a prompt")
        known = [choose(self.words, name, "class") for name in class_names]
        captions = self._by_classes.get(frozenset(class_names), ())
        if captions and rng.random() < self.caption_share:
            return self._captioned(captions[rng.integers(len(captions))], class_names, rng)
        template = self.templates[rng.integers(len(self.templates))]
        said = []
        for name, wordings in zip(class_names, known, strict=True):
            word = self._another(name, rng) or wordings[rng.integers(len(wordings))]
            attribute = self._drawn(self.attributes, rng) if ATTRIBUTE in template else ""
            said.append((word, attribute))
        scene = self._drawn(self.scenes, rng) if SCENE in template else ""
        return self._filled(template, said, scene), tuple(bare(word) for word, _ in said)

    def balanced(self, count: int, rng: np.random.Generator) -> list[tuple[str, str, str]]:
        """So many prompts as (class, prompt, word), of each class equally many but for one.

        The order is drawn, and which classes have one more.
        """
        names = list(self.words)
        turns = [names[at] for at in rng.permutation(len(names))]
        dealt = [turns[index % len(turns)] for index in range(count)]
        return [(dealt[at], *self.prompt(dealt[at], rng)) for at in rng.permutation(count)]

    def longest(self, class_name: str) -> Iterator[tuple[str, str]]:
        """Prompts of a class to try before work, and their words.

        Each template with each of its own wordings; the longest one with each further wording;
        each caption with its own word and with the longest other one.
        """
        scene, attribute = (max(of, key=len, default="") for of in (self.scenes, self.attributes))
        others = [of.text for of in self.other.words.get(class_name, ())] if self.share else []
        longest = (max(self.templates, key=len),)
        own = choose(self.words, class_name, "class")
        for templates, wordings in ((self.templates, own), (longest, others)):
            for template in templates:
                for word in wordings:
                    yield self._filled(template, [(word, attribute)], scene), bare(word)
        for caption in self.captions.captions:
            if class_name not in caption.names:
                continue
            yield caption.text, caption.word(class_name)
            fitting = [word for word in others if _fits(caption, class_name, word)]
            for word in sorted(fitting, key=len)[-1:]:
                yield caption.replaced({class_name: word}), bare(word)

    def longest_listing(self, class_names: Sequence[str], most: int) -> tuple[str, tuple[str, ...]]:
        """The longest prompt of so many of the classes, and their words, to try before work."""
        further = self.other.words if self.share else {}
        said = [
            max((*self.words[name], *(of.text for of in further.get(name, ()))), key=len)
            for name in class_names
        ]
        said = sorted(said, key=len)[-most:]
        scene, attribute = (max(of, key=len, default="") for of in (self.scenes, self.attributes))
        text = self._filled(
            max(self.templates, key=len), [(word, attribute) for word in said], scene
        )
        return text, tuple(map(bare, said))

    @property
    def of_names(self) -> "Prompts":
        """Of the classes' own wordings alone: what is true of every image that shows them."""
        without = [of for of in self.templates if SCENE not in of and ATTRIBUTE not in of]
        return Prompts(tuple(without) or TEMPLATES, self.words)

    @property
    def varied(self) -> bool:
        """There is more than templates and the classes' own wordings."""
        more = bool(self.other.words) and self.share > 0
        return more or bool(self.scenes or self.attributes or self.captions.captions)

    @property
    def fingerprint(self) -> str:
        """Of all that can be said."""
        return fingerprint(asdict(self) | {"other": _plain(self.other.words)})

    def record(self) -> dict[str, Any]:
        """What there is to say, and what was left out, as JSON-able values."""
        alone = {name: len(self._by_classes.get(frozenset([name]), ())) for name in self.words}
        return {
            "source": self.other.source,
            "own": {name: list(words) for name, words in self.words.items()},
            "other": _plain(self.other.words),
            "dropped": {name: dict(words) for name, words in self.other.dropped.items()},
            "captions": alone if self.captions.captions else {},
            "captions_skipped": dict(self.captions.skipped),
        }

    @cached_property
    def _by_classes(self) -> dict[frozenset[str], tuple[Caption, ...]]:
        found: defaultdict[frozenset[str], list[Caption]] = defaultdict(list)
        for caption in self.captions.captions:
            found[caption.names].append(caption)
        return {names: tuple(captions) for names, captions in found.items()}

    def _another(self, name: str, rng: np.random.Generator) -> str:
        """One of the further wordings, in so many cases; "" in the others."""
        others = self.other.words.get(name, ())
        if not others or not self.share or rng.random() >= self.share:
            return ""
        return others[rng.integers(len(others))].text

    def _drawn(self, texts: tuple[str, ...], rng: np.random.Generator) -> str:
        return texts[rng.integers(len(texts))]

    def _captioned(
        self, caption: Caption, class_names: Sequence[str], rng: np.random.Generator
    ) -> tuple[str, tuple[str, ...]]:
        drawn = {name: self._another(name, rng) for name in class_names}
        new = {name: word for name, word in drawn.items() if word and _fits(caption, name, word)}
        words = tuple(bare(new[of]) if of in new else caption.word(of) for of in class_names)
        return caption.replaced(new), words

    def _filled(self, template: str, said: Sequence[tuple[str, str]], scene: str) -> str:
        """The template with wordings and attributes; "a" and "an" are made to fit if varied."""
        if not self.varied:
            return template.replace(PLACE, spoken([word for word, _ in said]))
        phrases = [qualified(*of) if ATTRIBUTED in template else of[0] for of in said]
        text = template.replace(ATTRIBUTED, PLACE).replace(SCENE, scene)
        for place in reversed(list(re.finditer(re.escape(PLACE), text))):
            text = replace_at(text, *place.span(), spoken(phrases))
        return text

    def _check_texts(self) -> None:
        """Nothing but the places may name a class."""
        more = self.share > 0 and bool(self.other.words)
        texts = [*self.scenes, *self.attributes, *(self.templates if more else ())]
        table = {key(word): name for name, words in self.words.items() for word in words}
        if more:
            for name, words in self.other.words.items():
                table |= {key(of.text): name for of in words}
        for text in texts:
            if found := mentions(re.sub(r"\{\w+\}", "", text), table):
                raise UserError(
                    f"'{text}' says a word of the class '{found[0].name}'; take it out, or put the "
                    "word into prompts.augment.exclude"
                )


def prompts_for(
    classes: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    words: Mapping[str, Sequence[str]] = EMPTY,
    *,
    augment: AugmentSettings | None = None,
    scenes: Sequence[str] = (),
    attributes: Sequence[str] = (),
    captions: CaptionSettings | None = None,
    silent: Collection[str] = (),
    seed: int = 0,
) -> Prompts:
    """Prompts for these classes; a class without words is called as it is `readable`.

    >>> prompts_for(["AnnualCrop"]).prompt("AnnualCrop", np.random.default_rng(0))
    ('a photo of annual crop', 'annual crop')

    Args:
        classes: their names.
        templates, words, scenes, attributes: as of `Prompts`.
        augment: which further wordings there are; none without.
        captions: the file they are in; none without.
        silent: classes that are never asked for.
        seed: of the choice of captions.

    Raises:
        UnknownWord: words for a class that is not there.
        UserError: as `Prompts`, `vocabulary.vocabulary` and `captions.read_captions` do.
    """
    for name in words:
        choose(dict.fromkeys(classes), name, "class")
    said = {name: tuple(words.get(name, (readable(name),))) for name in classes}
    other = vocabulary(said, augment, silent) if augment else NO_WORDS
    return Prompts(
        tuple(templates),
        said,
        other,
        augment.share if augment else 0.0,
        tuple(scenes),
        tuple(attributes),
        _captions(captions, said, other, silent, seed) if captions else NO_CAPTIONS,
        captions.share if captions else 0.0,
    )


def _captions(
    settings: CaptionSettings,
    own: Mapping[str, Sequence[str]],
    other: Vocabulary,
    silent: Collection[str],
    seed: int,
) -> Captions:
    wordings = {
        name: [*words, readable(name), *(of.text for of in other.words.get(name, ()))]
        for name, words in own.items()
        if name not in silent
    }
    found = read_captions(settings.path, wordings)
    if settings.per_class is None:
        return found
    rng = np.random.default_rng(seed)
    return Captions(at_most(found.captions, settings.per_class, rng), found.skipped)


def _check_places(template: str) -> None:
    if PLACE not in template:
        raise UserError(f"template '{template}' has no {PLACE}; put it where the class is")
    known = [place.strip("{}") for place in (PLACE, SCENE, ATTRIBUTE)]
    for name in re.findall(r"\{(\w+)\}", template):
        if name not in known:
            raise UnknownWord(f"place in the template '{template}':", name, known)
    if template.count(ATTRIBUTE) != template.count(ATTRIBUTED):
        raise UserError(f"template '{template}': write {ATTRIBUTE} directly before {PLACE}")


def _check_used(place: str, texts: Sequence[str], templates: Sequence[str]) -> None:
    """A place has texts, and texts have a place."""
    told = f"prompts.{place.strip('{}')}s"
    if not all(text.strip() and "{" not in text for text in texts):
        raise UserError(f"{told} has an empty text or one with a place; write plain words")
    used = [template for template in templates if place in template]
    if used and not texts:
        raise UserError(f"template '{used[0]}' has {place}, and there are none; give {told}")
    if texts and not used:
        raise UserError(f"there are {told}, and no template has {place}; put it into one")


def _fits(caption: Caption, name: str, word: str) -> bool:
    """May the word stand for the class there? Not if the text has it elsewhere."""
    return caption.replaceable(name) and not mentions(caption.text, {key(word): name})


def _plain(words: Mapping[str, Sequence[Wording]]) -> dict[str, list[list[Any]]]:
    return {name: [[of.text, of.synset, of.depth] for of in words[name]] for name in words}
