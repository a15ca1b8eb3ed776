"""Words are said in good English and found again, whole words only."""

import pytest

from activegen.data.wording import (
    bare,
    key,
    mentions,
    qualified,
    readable,
    replace_at,
    with_article,
)


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


@pytest.mark.parametrize(
    ("word", "expected"),
    [("airliner", "an airliner"), ("dog", "a dog"), ("unicycle", "a unicycle"), ("Ox", "an Ox")],
)
def test_with_article(word: str, expected: str) -> None:
    assert with_article(word) == expected


@pytest.mark.parametrize(
    ("word", "attribute", "expected"),
    [
        ("a forest", "old", "an old forest"),
        ("an owl", "small", "a small owl"),
        ("the sea", "old", "the old sea"),
        ("houses", "old", "old houses"),
    ],
)
def test_an_attribute_stands_before_the_noun(word: str, attribute: str, expected: str) -> None:
    assert qualified(word, attribute) == expected


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        ("a photo of a X", "airliner", "a photo of an airliner"),
        ("a photo of a X", "a dog", "a photo of a dog"),
        ("An X runs", "dog", "A dog runs"),
        ("my X runs", "airliner", "my airliner runs"),
        ("X", "a forest", "a forest"),
        ("a banana X", "owl", "a banana owl"),
    ],
)
def test_an_article_is_made_to_fit(text: str, word: str, expected: str) -> None:
    at = text.index("X")
    assert replace_at(text, at, at + 1, word) == expected


def said(text: str, *words: str) -> list[tuple[str, str, bool]]:
    """What is found, as it stands, with the class called like the word."""
    found = mentions(text, {key(word): word for word in words})
    return [(of.name, text[of.start : of.end], of.plural) for of in found]


def test_mentions_are_whole_words_in_any_case() -> None:
    assert said("A Dog, a dogfight and a hot-dog.", "dog") == [("dog", "Dog", False)]
    assert said("the dog's bowl", "dog") == [("dog", "dog", False)]
    assert said("a St. Bernard sleeps", "St. Bernard") == [("St. Bernard", "St. Bernard", False)]
    assert said("nothing", "dog") == said("a dog") == []


def test_plurals_are_found_and_told() -> None:
    words = ("dog", "bus", "puppy", "houses")
    assert said("dogs, buses and puppies by houses", *words) == [
        ("dog", "dogs", True),
        ("bus", "buses", True),
        ("puppy", "puppies", True),
        ("houses", "houses", False),
    ]


def test_the_longest_wording_counts_and_only_once() -> None:
    words = ("table", "dining table", "car", "dining car")
    assert said("a dining table and a table in a dining car", *words) == [
        ("dining table", "dining table", False),
        ("table", "table", False),
        ("dining car", "dining car", False),
    ]
