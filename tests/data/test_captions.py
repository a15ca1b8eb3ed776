"""Captions are prompts of the classes that they name, and of no others."""

import json
from pathlib import Path

import numpy as np
import pytest

from activegen.data.captions import Caption, CaptionSettings, at_most, read_captions
from activegen.data.wording import Mention
from activegen.records import UserError

WORDS = {"Dog": ("dog", "puppy"), "Horse": ("a horse",), "Car": ("car",)}


def written(tmp_path: Path, text: str, name: str = "captions.txt") -> str:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


def test_lines_are_of_the_classes_that_they_name(tmp_path: Path) -> None:
    lines = [
        "A dog  on\tgrass",
        "a dog beside a horse",
        "no thing",
        "",
        "A dog on grass",
        "x" * 301,
    ]
    found = read_captions(written(tmp_path, "\n".join(lines)), WORDS)
    assert [(of.text, of.names) for of in found.captions] == [
        ("A dog on grass", {"Dog"}),
        ("a dog beside a horse", {"Dog", "Horse"}),
    ]
    assert found.captions[1].word("Horse") == "horse"
    assert found.skipped == {
        "names no class": 1,
        "is there twice": 1,
        "has more than 300 characters": 1,
    }


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_may_say_their_classes(tmp_path: Path, form: str) -> None:
    rows = [
        ("A dog on a car, parked", "Dog; Car"),
        ("A dog on a car", "Dog"),
        ("a horse", "Dog; Horse"),
        ("a horse, grazing", "Horse; Zebra"),
        ("a zebra", "Zebra"),
        ("a puppy", ""),
    ]
    if form == "csv":
        text = "caption,classes\n" + "\n".join(f'"{said}",{names}' for said, names in rows)
    else:
        split = [(said, names.split("; ") if names else None) for said, names in rows]
        text = "\n".join(json.dumps({"caption": said, "classes": of}) for said, of in split)
    found = read_captions(written(tmp_path, text, f"captions.{form}"), WORDS)
    assert [(of.text, of.names) for of in found.captions] == [
        ("A dog on a car, parked", {"Dog", "Car"}),
        ("a horse, grazing", {"Horse"}),
        ("a puppy", {"Dog"}),
    ]
    assert found.skipped == {"names others than its classes": 2, "is of no class of ours": 1}


def test_a_word_of_two_classes_needs_the_file_to_say_which(tmp_path: Path) -> None:
    words = {"Bird": ("crane", "bird"), "Machine": ("crane",)}
    text = "caption,classes\na crane,Bird\na crane at work,\na bird,\n"
    found = read_captions(written(tmp_path, text, "captions.csv"), words)
    assert [(of.text, of.names) for of in found.captions] == [
        ("a crane", {"Bird"}),
        ("a bird", {"Bird"}),
    ]
    assert found.skipped == {"has a word of two classes": 1}


def test_another_word_takes_all_places_of_the_class() -> None:
    dogs = (Mention("Dog", 2, 5), Mention("Dog", 18, 21), Mention("Horse", 28, 33))
    caption = Caption("A dog and another dog by an horse", dogs)
    assert caption.replaceable("Dog")
    assert caption.replaced({"Dog": "an owl"}) == "An owl and another owl by an horse"
    assert caption.replaced({"Horse": "mare"}) == "A dog and another dog by a mare"
    assert caption.replaced({}) == caption.text


@pytest.mark.parametrize("text", ["two dogs", "a dog and a puppy"])
def test_plurals_and_several_words_stay(tmp_path: Path, text: str) -> None:
    (caption,) = read_captions(written(tmp_path, text), WORDS).captions
    assert not caption.replaceable("Dog")


def test_so_many_of_each_class(tmp_path: Path) -> None:
    lines = [f"dog {n}" for n in range(20)] + [f"dog and horse {n}" for n in range(5)] + ["car"]
    captions = read_captions(written(tmp_path, "\n".join(lines)), WORDS).captions
    chosen = [at_most(captions, 4, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    for some in chosen:
        count = {name: sum(name in of.names for of in some) for name in WORDS}
        assert count["Dog"] == 4 and count["Horse"] <= 4 and count["Car"] == 1
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("captions.txt", "a zebra\n", "no caption of .* can be used .1 names no class"),
        ("captions.txt", "", "it is empty"),
        ("captions.csv", "text\na dog\n", "line 2: there is no 'caption'"),
        ("captions.jsonl", "{a dog}\n", "is no JSON"),
        ("captions.jsonl", '{"caption": "a dog", "classes": 3}', "line 1: 'classes' is no list"),
        ("captions.jsonl", '["a dog"]', "line 1: there is no 'caption'"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_captions(written(tmp_path, text, name), WORDS)
    with pytest.raises(UserError, match="no file of captions"):
        read_captions(str(tmp_path / "nowhere"), WORDS)


def test_no_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_bytes(b"a dog \xff\xfe")
    with pytest.raises(UserError, match="text in UTF-8"):
        read_captions(str(tmp_path / "captions.txt"), WORDS)


@pytest.mark.parametrize("change", [{"share": 0.0}, {"share": 1.1}, {"per_class": 0}])
def test_values_out_of_range(change: dict) -> None:
    with pytest.raises(UserError, match=f"prompts.captions.{next(iter(change))} is"):
        CaptionSettings("captions.txt", **change)
