"""A little WordNet is read as Princeton's is, from wherever it is."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import nltk.data
import pytest

import little_wordnet
from activegen.data import wordnet
from activegen.data.wordnet import FOLDERS, WordNet, installed
from activegen.records import UserError

DEBIAN = FOLDERS[0]


@pytest.fixture
def little(tmp_path: Path) -> WordNet:
    return WordNet(str(little_wordnet.write(tmp_path)))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Nothing is installed."""
    monkeypatch.delenv("WNSEARCHDIR", raising=False)
    monkeypatch.setattr(wordnet, "FOLDERS", ())
    monkeypatch.setattr(nltk.data, "path", [])
    installed.cache_clear()
    yield monkeypatch
    installed.cache_clear()


def names(synsets: object) -> list[str]:
    return [of.name() for of in synsets]  # pyright: ignore


def test_senses_of_a_name(little: WordNet) -> None:
    first, thing = little.first("crane"), little.thing("crane")
    assert first.name() == "crane.n.01" and first.definition() == "a poet"
    assert thing.name() == "crane.n.02" and thing.definition() == "a hoist"
    assert little.first("toy dog").name() == "toy_dog.n.01"
    assert little.first("puppies").name() == little.first("puppy").name()
    assert little.first("cat") is None and little.thing("Hart Crane") is None
    assert little.named("crane.n.03").definition() == "a wader"


def test_kinds_are_said_once_and_by_depth(little: WordNet) -> None:
    dog = little.named("dog.n.01")
    direct = ["cur.n.01", "griffon.n.02", "puppy.n.01", "spaniel.n.01", "toy_dog.n.01"]
    found = [(depth, of.name()) for depth, of in little.kinds(dog, 1)]
    assert found == [(1, name) for name in direct]
    deeper = [(depth, of.name()) for depth, of in little.kinds(dog, 5)]
    assert deeper == [*found, (2, "toy_spaniel.n.01")]


def test_a_lineage_has_all_that_it_is_a_kind_of(little: WordNet) -> None:
    found = names(little.lineage(little.named("toy_spaniel.n.01")))
    assert sorted(found) == [
        *("animal.n.01", "canine.n.01", "dog.n.01", "entity.n.01"),
        *("spaniel.n.01", "toy_dog.n.01", "toy_spaniel.n.01"),
    ]


@pytest.mark.parametrize(
    ("sense", "said"),
    [
        ("crane.n.09", r"crane\.n\.01 \(a poet\) or crane\.n\.02 \(a hoist\) or crane\.n\.03"),
        ("crane.n.00", r"crane\.n\.01"),
        ("crane", r"did you mean crane\.n\.01"),
        ("dog.v.01", r"did you mean dog\.n\.01"),
        ("spanniel.n.01", "did you mean spaniel"),
        ("big_red_dog.n.01", r"did you mean dog\.n\.01"),
        ("zzz.n.01", "nothing is near"),
    ],
)
def test_an_unknown_synset_is_answered_with_near_ones(
    little: WordNet, sense: str, said: str
) -> None:
    with pytest.raises(UserError, match=f"no noun synset '{sense}'.*{said}"):
        little.named(sense)


def test_it_is_found_where_its_own_variable_says(
    elsewhere: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert installed() is None
    installed.cache_clear()
    elsewhere.setenv("WNSEARCHDIR", str(little_wordnet.write(tmp_path)))
    found = installed()
    assert found is not None and found.source == f"WordNet 3.0 in {tmp_path}"


def test_it_is_found_among_the_data_of_nltk(elsewhere: pytest.MonkeyPatch, tmp_path: Path) -> None:
    little_wordnet.write(tmp_path / "corpora" / "wordnet")
    elsewhere.setattr(nltk.data, "path", [str(tmp_path)])
    found = installed()
    assert found is not None and found.first("dog").name() == "dog.n.01"


def test_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    folder = little_wordnet.write(tmp_path)
    (folder / "index.noun").write_text("dog n no\n")
    with pytest.raises(UserError, match="cannot be read"):
        WordNet(str(folder))
    (folder / "index.noun").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        WordNet(str(folder))


def test_a_damaged_archive_is_an_error(elsewhere: pytest.MonkeyPatch, tmp_path: Path) -> None:
    little_wordnet.write(tmp_path / "wordnet")
    made = shutil.make_archive(str(tmp_path / "corpora" / "wordnet"), "zip", tmp_path, "wordnet")
    elsewhere.setattr(nltk.data, "path", [str(tmp_path)])
    archive, whole = Path(made), Path(made).read_bytes()
    found = installed()
    assert found is not None and found.first("dog").name() == "dog.n.01"
    installed.cache_clear()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"archive of WordNet .* cannot be read"):
        installed()
    with ZipFile(io.BytesIO(whole)) as zipped:
        at = zipped.getinfo("wordnet/data.noun").header_offset + 60
    archive.write_bytes(whole[:at] + bytes(20) + whole[at + 20 :])
    with pytest.raises(UserError, match=r"cannot be read: data\.noun"):
        assert (half := installed()) is not None and half.first("dog")


@pytest.mark.slow
@pytest.mark.skipif(not Path(DEBIAN, "data.noun").is_file(), reason="no wordnet-base here")
def test_the_package_of_debian() -> None:
    found = WordNet(DEBIAN)
    assert found.source.startswith("WordNet 3")
    assert found.thing("crane").name() == "crane.n.04"
    dog = found.named("dog.n.01")
    assert "puppy.n.01" in [of.name() for _, of in found.kinds(dog, 1)]
