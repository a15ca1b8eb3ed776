"""The word whose attention is read is always in the prompt."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from activegen.data.captions import CaptionSettings
from activegen.data.prompts import Prompts, prompts_for
from activegen.data.vocabulary import AugmentSettings, Vocabulary, Wording
from activegen.records import UnknownWord, UserError

DOGS = ("poodle", "airedale")
OTHER = Vocabulary("by hand", {"dog": tuple(Wording(word) for word in DOGS)})
OWN = {"dog": ("dog",), "horse": ("a horse",)}


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


def drawn(prompts: Prompts, *names: str, count: int = 400) -> Counter[tuple[str, ...]]:
    rng = np.random.default_rng(0)
    told = (prompts.listing_words(names, rng) for _ in range(count))
    return Counter((prompt, *words) for prompt, words in told)


def test_further_words_are_drawn_as_often_as_asked() -> None:
    found = drawn(Prompts(("a photo of {word}",), OWN, OTHER, 0.25), "dog", count=2000)
    assert set(found) == {(f"a photo of {word}", word) for word in ("dog", *DOGS)}
    assert 0.7 < found["a photo of dog", "dog"] / 2000 < 0.8
    assert set(drawn(Prompts(("{word}",), OWN, OTHER, 1.0), "dog")) == {(w, w) for w in DOGS}


def test_without_a_share_nothing_changes() -> None:
    plain, idle = (Prompts(("a {word}", "the {word}"), OWN, of) for of in (Vocabulary(), OTHER))
    draws = [
        [prompts.listing(["dog", "horse"], rng) for _ in range(20)]
        for prompts, rng in ((plain, np.random.default_rng(3)), (idle, np.random.default_rng(3)))
    ]
    assert draws[0] == draws[1] and not idle.varied
    assert ("a dog and a horse", "dog") in draws[0]
    # a template's article stays as it was written, as long as nothing is varied
    assert Prompts(("a {word}",), {"x": ("an owl",)}).prompt("x", np.random.default_rng(0)) == (
        "a an owl",
        "owl",
    )


def test_a_listing_gives_the_word_of_each_class() -> None:
    found = drawn(Prompts(("a {word}",), OWN, OTHER, 0.5), "dog", "horse")
    assert set(found) == {
        ("a dog and a horse", "dog", "horse"),
        ("a poodle and a horse", "poodle", "horse"),
        ("an airedale and a horse", "airedale", "horse"),
    }
    rng, again = np.random.default_rng(5), np.random.default_rng(5)
    prompts = Prompts(("{word}",), OWN, OTHER, 0.5)
    for _ in range(20):
        prompt, words = prompts.listing_words(["horse", "dog"], rng)
        assert prompts.listing(["horse", "dog"], again) == (prompt, words[0])


def test_the_longest_listing_has_the_longest_wordings() -> None:
    words = {"dog": ("dog",), "horse": ("horse", "racehorse"), "cat": ("cat",)}
    prompts = Prompts(("a {word}", "a {word} in {scene}"), words, OTHER, 0.5, scenes=("snow",))
    told = prompts.longest_listing(["dog", "horse", "cat"], 2)
    assert told == ("an airedale and racehorse in snow", ("airedale", "racehorse"))


def test_names_alone_say_nothing_that_may_be_untrue() -> None:
    templates = ("a {word}", "a {word} in {scene}")
    prompts = Prompts(templates, OWN, OTHER, 1.0, scenes=("snow",)).of_names
    assert set(drawn(prompts, "dog")) == {("a dog", "dog")}
    bare = Prompts(templates[1:], OWN, scenes=("snow",)).of_names
    assert set(drawn(bare, "dog")) == {("a photo of dog", "dog")}


def test_scenes_and_attributes_fill_their_places() -> None:
    templates = ("a photo of {attribute} {word} in {scene}", "{word}")
    prompts = Prompts(templates, OWN, scenes=("snow", "the rain"), attributes=("old", "big"))
    assert set(drawn(prompts, "horse")) == {
        ("a horse", "horse"),
        ("a photo of an old horse in snow", "horse"),
        ("a photo of an old horse in the rain", "horse"),
        ("a photo of a big horse in snow", "horse"),
        ("a photo of a big horse in the rain", "horse"),
    }
    one = Prompts(("{attribute} {word}",), OWN, attributes=("old",))
    assert set(drawn(one, "horse", "dog")) == {("an old horse and old dog", "horse", "dog")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"templates": ("{word} in {scen}",)}, "place in the template.*'scen'.*mean 'scene'"),
        ({"templates": ("{word} in {scene}",)}, "has {scene}, and there are none"),
        ({"templates": ("{attribute} {word}",)}, "has {attribute}, and there are none"),
        ({"scenes": ("snow",)}, "prompts.scenes, and no template has {scene}"),
        (
            {"templates": ("{word}, {attribute}",), "attributes": ("old",)},
            "{attribute} directly before",
        ),
        ({"templates": ("{word} {scene}",), "scenes": (" ",)}, "has an empty text"),
        ({"templates": ("{word} {scene}",), "scenes": ("a {word}",)}, "one with a place"),
        (
            {"templates": ("{word} {scene}",), "scenes": ("with two horses",)},
            "'with two horses' says a word of the class 'horse'",
        ),
        (
            {"templates": ("{word} of a poodle",), "other": OTHER, "share": 0.5},
            "says a word of the class 'dog'.*prompts.augment.exclude",
        ),
    ],
)
def test_places_that_cannot_be_filled(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Prompts(**({"templates": ("{word}",), "words": OWN} | change))


def captioned(tmp_path: Path, *lines: str, share: float = 1.0, more: float = 0.0) -> Prompts:
    (tmp_path / "captions.txt").write_text("\n".join(lines))
    settings = CaptionSettings(str(tmp_path / "captions.txt"), share)
    made = prompts_for(["dog", "horse"], words=OWN, captions=settings)
    return Prompts(made.templates, OWN, OTHER, more, (), (), made.captions, share)


def test_captions_are_for_just_the_classes_that_they_name(tmp_path: Path) -> None:
    lines = ("a dog asleep", "two dogs", "a horse by a dog")
    prompts = captioned(tmp_path, *lines)
    assert set(drawn(prompts, "dog")) == {("a dog asleep", "dog"), ("two dogs", "dogs")}
    assert set(drawn(prompts, "horse")) == {("a photo of a horse", "horse")}
    assert set(drawn(prompts, "dog", "horse")) == {("a horse by a dog", "dog", "horse")}
    some = drawn(captioned(tmp_path, *lines, share=0.25), "dog", count=2000)
    assert 0.7 < some["a photo of dog", "dog"] / 2000 < 0.8


def test_the_word_of_a_caption_is_replaced(tmp_path: Path) -> None:
    prompts = captioned(tmp_path, "a dog asleep", "two dogs", "my dog and a poodle", more=0.5)
    assert set(drawn(prompts, "dog")) == {
        ("a dog asleep", "dog"),
        ("a poodle asleep", "poodle"),
        ("an airedale asleep", "airedale"),
        ("two dogs", "dogs"),
        ("my dog and a poodle", "dog"),  # here poodle would be there twice
        ("my airedale and a poodle", "airedale"),
    }


def test_prompts_are_shared_between_classes() -> None:
    prompts = Prompts(("a {word}", "the {word}"), OWN | {"cat": ("cat",)}, OTHER, 0.5)
    made = prompts.balanced(20, np.random.default_rng(0))
    assert sorted(Counter(name for name, _, _ in made).values()) == [6, 7, 7]
    known = {"dog": {"dog", *DOGS}, "horse": {"horse"}, "cat": {"cat"}}
    assert all(word in known[name] and word in prompt for name, prompt, word in made)
    assert made == prompts.balanced(20, np.random.default_rng(0))
    assert made != prompts.balanced(20, np.random.default_rng(1))


def test_what_is_tried_before_work_holds_every_word(tmp_path: Path) -> None:
    prompts = captioned(tmp_path, "a dog asleep", "a horse by a dog", more=0.5)
    assert list(prompts.longest("dog")) == [
        ("a photo of dog", "dog"),
        ("a photo of poodle", "poodle"),
        ("a photo of airedale", "airedale"),
        ("a dog asleep", "dog"),
        ("an airedale asleep", "airedale"),
        ("a horse by a dog", "dog"),
        ("a horse by an airedale", "airedale"),
    ]
    templates = ("{word}", "{attribute} {word} {scene}")
    filled = Prompts(templates, OWN, scenes=("in snow", "wet"), attributes=("old", "ancient"))
    assert list(filled.longest("horse")) == [
        ("a horse", "horse"),
        ("an ancient horse in snow", "horse"),
    ]


def test_the_fingerprint_is_of_what_can_be_said(tmp_path: Path) -> None:
    first = Prompts(("{word}",), OWN, OTHER, 0.5)
    renamed = Vocabulary("elsewhere", OTHER.words, {"dog": {"cur": "excluded"}})
    assert Prompts(("{word}",), OWN, renamed, 0.5).fingerprint == first.fingerprint
    fewer = Vocabulary("by hand", {"dog": OTHER.words["dog"][:1]})
    different = [
        Prompts(("{word}",), OWN, fewer, 0.5),
        Prompts(("{word}",), OWN, OTHER, 0.4),
        captioned(tmp_path, "a dog"),
        captioned(tmp_path, "the dog"),
    ]
    assert len({first.fingerprint, *(of.fingerprint for of in different)}) == 5


def test_the_record_says_where_words_are_from(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("a dog\na poodle\nnothing")
    made = prompts_for(
        ["dog", "background"],
        augment=AugmentSettings("table", exclude=("corgi",)),
        captions=CaptionSettings(str(tmp_path / "captions.txt")),
        silent=("background",),
    )
    record = made.record()
    assert record["source"] == "our table" and ["poodle", "", 1] in record["other"]["dog"]
    assert record["dropped"] == {"dog": {"corgi": "excluded"}}
    assert record["captions"] == {"dog": 2, "background": 0}
    assert record["captions_skipped"] == {"names no class": 1}
