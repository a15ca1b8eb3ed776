"""What to say to the generator: templates, and the wordings of each class.

The word that names the class is always a part of the prompt, as it stands.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from activegen.records import UserError, choose

PLACE = "{word}"
TEMPLATES = ("a photo of {word}",)
EMPTY: Mapping[str, Sequence[str]] = {}


@dataclass(frozen=True)
class Prompts:
    """Templates and, for each class, its wordings; one of each makes a prompt.

    Args:
        templates: texts with ``{word}`` where the class is named.
        words: by class name; a wording may carry an article ("a forest").

    Raises:
        UserError: there is no template, one has no ``{word}``, or a class has no wording.
    """

    templates: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        """Check templates and words."""
        if not self.templates:
            raise UserError(f"there is no prompt template; give one such as '{TEMPLATES[0]}'")
        for template in self.templates:
            if PLACE not in template:
                raise UserError(f"template '{template}' has no {PLACE}; put it where the class is")
        for name, wordings in self.words.items():
            if not wordings or not all(bare(word) for word in wordings):
                raise UserError(f"class '{name}' has no word, or an empty one; give it a word")

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
        if not class_names:
            raise UserError("there is no class to name in a prompt")
        template = self.templates[rng.integers(len(self.templates))]
        known = [choose(self.words, name, "class") for name in class_names]
        said = [wordings[rng.integers(len(wordings))] for wordings in known]
        return template.replace(PLACE, spoken(said)), bare(said[0])


def prompts_for(
    classes: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    words: Mapping[str, Sequence[str]] = EMPTY,
) -> Prompts:
    """Prompts for these classes; a class without words is called as it is `readable`.

    >>> prompts_for(["AnnualCrop"]).prompt("AnnualCrop", np.random.default_rng(0))
    ('a photo of annual crop', 'annual crop')

    Raises:
        UnknownWord: words for a class that is not there.
        UserError: as `Prompts` does.
    """
    for name in words:
        choose(dict.fromkeys(classes), name, "class")
    said = {name: tuple(words.get(name, (readable(name),))) for name in classes}
    return Prompts(tuple(templates), said)


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
    return re.sub(r"^(a|an|the)\s+", "", word.strip(), flags=re.IGNORECASE)
