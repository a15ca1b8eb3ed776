"""A further word means one class, and says where it is from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import little_wordnet
from activegen.data import vocabulary as tested
from activegen.data.vocabulary import AugmentSettings, Vocabulary, vocabulary
from activegen.data.wordnet import FOLDERS, WordNet
from activegen.records import UnknownWord, UserError


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> WordNet:
    return WordNet(str(little_wordnet.write(tmp_path_factory.mktemp("wordnet"))))


@pytest.fixture(autouse=True)
def installed(little: WordNet, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The little one is what is found."""
    monkeypatch.setattr(tested, "installed", lambda: little)
    yield monkeypatch


def of(*names: str, settings: AugmentSettings | None = None, **own: tuple[str, ...]) -> Vocabulary:
    words = {name: (name,) for name in names} | own
    return vocabulary(words, settings or AugmentSettings("wordnet"))


def texts(found: Vocabulary, name: str) -> list[str]:
    return [word.text for word in found.words[name]]


def test_synonyms_and_kinds_with_their_synsets(little: WordNet) -> None:
    found = of("dog")
    assert [(word.text, word.synset, word.depth) for word in found.words["dog"]] == [
        ("domestic dog", "dog.n.01", 0),
        ("Brussels griffon", "griffon.n.02", 1),
        ("puppy", "puppy.n.01", 1),
        ("spaniel", "spaniel.n.01", 1),
        ("toy dog", "toy_dog.n.01", 1),
    ]
    assert found.source == little.source


def test_each_half_can_be_left_out_and_kinds_go_deeper() -> None:
    assert texts(of("dog", settings=AugmentSettings(hyponyms=False)), "dog") == ["domestic dog"]
    without = AugmentSettings(synonyms=False, depth=2)
    assert "domestic dog" not in texts(of("dog", settings=without), "dog")
    assert "toy spaniel" in texts(of("dog", settings=without), "dog")
    assert "toy spaniel" not in texts(of("dog"), "dog")


def test_words_whose_first_sense_is_another_are_dropped() -> None:
    found = of("dog", "bird")
    assert found.dropped["dog"]["griffon"] == "first means gryphon.n.01"
    assert found.dropped["dog"]["toy"] == "first means plaything.n.01"
    assert texts(found, "bird") == ["wading crane", "owl"]
    assert found.dropped["bird"] == {"crane": "first means crane.n.01"}


def test_words_whose_use_is_marked_are_dropped() -> None:
    assert of("dog").dropped["dog"]["cur"] == "marked slur.n.01"


def test_words_of_two_classes_are_dropped() -> None:
    one, both = of("car"), of("car", "boat")
    assert "amphicar" in texts(one, "car") and "amphicar" not in texts(both, "car")
    assert both.dropped["car"]["amphicar"] == "also for 'boat'"
    assert both.dropped["boat"]["amphicar"] == "also for 'car'"
    same = of("car", "automobile")
    assert texts(same, "car") == texts(same, "automobile") == []
    assert same.dropped["car"]["motorcar"] == "of two classes"
    assert same.dropped["automobile"]["car"] == "of two classes"  # the other's own word


def test_a_class_inside_another_keeps_its_words() -> None:
    found = of("animal", "dog", settings=AugmentSettings(depth=4))
    assert texts(found, "dog")[0] == "domestic dog" and "puppy" in texts(found, "dog")
    assert texts(found, "animal") == ["beast", "bird", "wading crane", "owl"]
    assert found.dropped["animal"]["puppy"] == "also for 'dog'"
    assert found.dropped["animal"]["canine"] == "also for 'dog'"  # a dog is one


def test_a_word_that_begins_with_another_class_is_dropped() -> None:
    assert texts(of("train"), "train") == ["railroad train", "boat train"]
    found = of("train", "boat")
    assert found.dropped["train"] == {"boat train": "says 'boat'"}
    # its last word may be a class: a toy dog is one
    assert "toy dog" in texts(of("dog", "train"), "dog")


def test_the_user_says_what_a_class_is_and_what_not_to_use() -> None:
    settings = AugmentSettings(synsets={"crane": "crane.n.03", "dog": ""}, exclude=("A puppy",))
    found = of("crane", "dog", "boat", settings=settings)
    assert texts(found, "crane") == ["wading crane"]
    assert "dog" not in found.words
    assert texts(of("crane"), "crane") == ["derrick crane"]  # no poet
    excluded = of("dog", settings=settings.__class__(exclude=("A puppy",)))
    assert "puppy" not in texts(excluded, "dog")
    assert excluded.dropped["dog"]["puppy"] == "excluded"


def test_own_words_are_not_repeated_and_lend_their_article() -> None:
    found = of(dog=("a dog", "a puppy"))
    assert texts(found, "dog")[:2] == ["a domestic dog", "a Brussels griffon"]
    assert "a puppy" not in texts(found, "dog") and found.dropped["dog"].keys() == {
        "griffon",
        "toy",
        "cur",
    }


def test_silent_classes_need_no_words() -> None:
    found = vocabulary({"dog": ("dog",), "zzz": ("zzz",)}, AugmentSettings(), silent=("zzz",))
    assert list(found.words) == ["dog"]


def test_what_nobody_knows_is_an_error_with_near_words() -> None:
    with pytest.raises(UserError, match=r"no noun for BigDogg, zzz.*'big dogg'.*synsets"):
        of("dog", "BigDogg", "zzz")
    with pytest.raises(UserError, match=r"no noun synset 'crane.n.09'.*crane\.n\.02 \(a hoist\)"):
        of("crane", settings=AugmentSettings(synsets={"crane": "crane.n.09"}))
    with pytest.raises(UnknownWord, match=r"unknown class 'dgo'.*Did you mean 'dog'"):
        of("dog", settings=AugmentSettings(synsets={"dgo": "dog.n.01"}))
    with pytest.raises(UserError, match="our table has no words for zebra"):
        of("zebra", settings=AugmentSettings("table"))


def test_without_wordnet_there_is_the_table(installed: pytest.MonkeyPatch) -> None:
    installed.setattr(tested, "installed", lambda: None)
    found = of("dog", "tvmonitor", settings=AugmentSettings("auto"))
    assert found.source == "our table" and "poodle" in texts(found, "dog")
    assert {word.synset for word in found.words["dog"]} == {""}
    with pytest.raises(UserError, match="no WordNet here; install it"):
        of("dog")


def test_the_table_is_used_when_asked_for_and_where_wordnet_has_no_noun(little: WordNet) -> None:
    assert of("dog", settings=AugmentSettings("table")).source == "our table"
    found = of("dog", "Residential")
    assert texts(found, "Residential") == ["residential area", "suburb"]
    assert found.source == f"{little.source} and our table"


def test_the_table_says_articles_and_knows_senses() -> None:
    settings = AugmentSettings("table", synsets={"moto": "motorcycle.n.01"})
    found = of(settings=settings, moto=("a moto",), cow=("a cow",))
    assert texts(found, "moto")[0] == "a motorcycle"
    assert texts(found, "cow") == ["cattle", "a heifer", "a dairy cow", "an ox", "a bull"]


def test_a_word_of_two_classes_in_the_table_is_dropped() -> None:
    found = of("meadow", "Pasture", "water", "lake", settings=AugmentSettings("table"))
    assert found.dropped["meadow"] == {"pasture": "of two classes"}  # the other's own word
    assert found.dropped["water"] == {"lake": "of two classes", "pond": "of two classes"}
    assert found.dropped["lake"]["pond"] == "of two classes"
    assert found.dropped["lake"]["water reservoir"] == "says 'water'"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"source": "wordnt"}, "unknown prompts.augment.source 'wordnt'.*'wordnet'"),
        ({"share": 1.5}, "share is 1.5"),
        ({"depth": 0}, "depth is 0"),
    ],
)
def test_values_out_of_range(settings: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        AugmentSettings(**settings)


@pytest.mark.slow
@pytest.mark.skipif(not Path(FOLDERS[0], "data.noun").is_file(), reason="no wordnet-base here")
def test_voc_with_princetons(installed: pytest.MonkeyPatch) -> None:
    real = WordNet(FOLDERS[0])
    installed.setattr(tested, "installed", lambda: real)
    found = of("dog", "car", "bus", "train", "boat", "motorbike", "diningtable")
    assert {"puppy", "poodle", "corgi"} <= set(texts(found, "dog"))
    assert {"machine", "cab", "saloon", "bus"} <= found.dropped["car"].keys()
    assert found.dropped["train"]["boat train"] == "says 'boat'"
    assert "motorcycle" in texts(found, "motorbike")
    assert "dinner table" in texts(found, "diningtable")
