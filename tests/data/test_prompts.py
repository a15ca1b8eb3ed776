"""The word whose attention is read is always in the prompt."""

import numpy as np
import pytest

from activegen.data.prompts import Prompts, bare, prompts_for, readable
from activegen.records import UnknownWord, UserError


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("AnnualCrop", "annual crop"),
        ("aquarium_fish", "aquarium fish"),
        ("tv-monitor", "tv monitor"),
        ("SUV", "suv"),
        ("SUVRoof", "suv roof"),
        ("Boeing747Wing", "boeing747 wing"),
        (" pickup   truck_", "pickup truck"),
    ],
)
def test_readable(name: str, words: str) -> None:
    assert readable(name) == words


@pytest.mark.parametrize(
    ("word", "expected"),
    [("a forest", "forest"), ("An area", "area"), ("the sea", "sea"), ("anthill", "anthill")],
)
def test_bare(word: str, expected: str) -> None:
    assert bare(word) == expected


def test_every_template_and_word_is_drawn_and_found_in_the_prompt() -> None:
    prompts = Prompts(("a photo of {word}", "{word} {from above}"), {"F": ("a forest", "woods")})
    rng = np.random.default_rng(0)
    drawn = {prompts.prompt("F", rng) for _ in range(60)}
    assert drawn == {
        ("a photo of a forest", "forest"),
        ("a photo of woods", "woods"),
        ("a forest {from above}", "forest"),
        ("woods {from above}", "woods"),
    }


def test_a_listing_names_all_and_gives_the_word_of_the_first() -> None:
    words = {"R": ("a river", "the stream"), "F": ("a forest",), "H": ("houses",)}
    prompts = Prompts(("a map of {word}",), words)
    rng = np.random.default_rng(0)
    drawn = {prompts.listing(["R", "F", "H"], rng) for _ in range(30)}
    assert drawn == {
        ("a map of a river, a forest and houses", "river"),
        ("a map of the stream, a forest and houses", "stream"),
    }
    assert prompts.listing(["H", "F"], rng) == ("a map of houses and a forest", "houses")
    with pytest.raises(UserError, match="no class to name"):
        prompts.listing([], rng)
    with pytest.raises(UnknownWord, match="unknown class 'X'"):
        prompts.listing(["H", "X"], rng)


def test_the_seed_decides() -> None:
    prompts = prompts_for(["F"], ["{word}", "my {word}"], {"F": ["tree", "wood", "forest"]})
    first, again = (
        [prompts.prompt("F", rng) for _ in range(20)]
        for rng in (np.random.default_rng(4), np.random.default_rng(4))
    )
    assert first == again


def test_words_default_to_the_class_name() -> None:
    prompts = prompts_for(["SeaLake", "Forest"], words={"Forest": ["a wood"]})
    assert prompts.words == {"SeaLake": ("sea lake",), "Forest": ("a wood",)}


def test_unknown_classes_are_answered_with_the_known_ones() -> None:
    prompts = prompts_for(["forest", "lake"])
    with pytest.raises(UnknownWord, match=r"unknown class 'forrest'.*forest, lake"):
        prompts.prompt("forrest", np.random.default_rng(0))
    with pytest.raises(UnknownWord, match="unknown class 'sea'"):
        prompts_for(["forest", "lake"], words={"sea": ["the sea"]})


@pytest.mark.parametrize(
    ("templates", "words", "message"),
    [
        ([], {}, "no prompt template"),
        (["a photo of {name}"], {}, "'a photo of {name}' has no {word}"),
        (["{word}"], {"x": []}, "class 'x' has no word"),
        (["{word}"], {"x": ["a forest", " "]}, "class 'x' has no word"),
    ],
)
def test_what_cannot_be_said_is_an_error(
    templates: list[str], words: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        prompts_for(["x"], templates, words)


def test_a_class_name_without_letters_needs_a_word() -> None:
    with pytest.raises(UserError, match="class '__' has no word"):
        prompts_for(["__"])
