"""The table is clean: no word of it is dropped, and land cover has what the generator knows."""

import pytest

from activegen.data.palettes import PALETTES
from activegen.data.vocabulary import AugmentSettings, vocabulary
from activegen.data.word_table import LAND_COVER, OTHER_NAMES, TABLE, entry, of_sense
from activegen.data.wording import bare, readable
from activegen.recipes import load
from activegen.zoo.attributes import ADJECTIVES, HEADS, WORDS
from activegen.zoo.domains import EUROSAT_WORDS
from activegen.zoo.scenes import SCENE_WORDS

LISTS = {
    "voc": tuple(PALETTES["voc"].colours),
    "cityscapes": tuple(PALETTES["cityscapes"].colours),
    "imagenet_s": tuple(load("annotate_imagenet_s").data.options["names"]),
    "tiles": tuple(WORDS),
    "scenes": tuple(SCENE_WORDS),
    "eurosat": tuple(EUROSAT_WORDS),
}


@pytest.mark.parametrize("name", LISTS)
def test_every_class_has_words_of_its_own(name: str) -> None:
    own = {of: (readable(of),) for of in LISTS[name]}
    made = vocabulary(own, AugmentSettings("table"), silent=("background",))
    assert made.dropped == {}
    assert [of for of in own if not made.words.get(of)] == [of for of in own if of == "background"]


def test_of_land_cover_it_has_what_the_embedded_generator_was_taught() -> None:
    taught = {
        bare(word)
        for words in (WORDS, SCENE_WORDS, EUROSAT_WORDS)
        for of in words.values()
        for word in of
    }
    taught |= {
        f"{adjective} {head}" for adjective in ADJECTIVES.values() for head in HEADS.values()
    }
    for name, of in LAND_COVER.items():
        for word in (*of.synonyms, *of.kinds):
            assert bare(word) in taught, f"{name}: {word}"


def test_names_may_be_written_in_many_ways() -> None:
    assert entry("diningtable") is entry("dining_table") is entry("DiningTable") is not None
    assert entry("motorcycle") is entry("motorbike") is of_sense("motorcycle.n.01")
    assert entry("zebra") is None and of_sense("") is None
    assert set(OTHER_NAMES.values()) <= set(TABLE)
