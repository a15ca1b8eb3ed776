"""Further words, scenes and captions reach the run, its fingerprint and its folder."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import tiny
from activegen.recipes import Run, parse
from activegen.records import UnknownWord, UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # other people's, on loading a model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tiny.model(), tmp_path_factory.mktemp("model"))


@pytest.fixture
def settings(model: Path) -> dict:
    return {
        "data": {
            "layout": "world",
            "size": 16,
            "options": {"size": 16},
            "train": {"per_class": 1, "options": {"count": 1}},
            "test": {"limit": 1, "options": {"count": 1}},
        },
        "model": {"path": str(model), "decoder": "linear", "device": "cpu"},
        "sampling": {"num_steps": 1, "scheduler": "ddim"},
        "training": {"steps": 2, "batch_size": 2},
        "proposal": {"budget": 2, "spare": 1.0},
        "judge": {"network": ""},
        "loop": {"rounds": 2, "batch": 2},
        "arms": {"unguided": {"generate": "plain", "judge": False}},
    }


def prompted(settings: dict, **prompts: object) -> dict:
    return settings | {"prompts": prompts}


def test_a_recipe_without_them_is_what_it_was(settings: dict, tmp_path: Path) -> None:
    recipe = parse(settings)
    assert set(recipe.plain()["prompts"]) == {"templates", "words"}
    assert not Run(recipe, tmp_path).prompts.varied


def test_a_run_says_further_words_and_keeps_a_record(settings: dict, tmp_path: Path) -> None:
    augment = {"source": "table", "share": 1.0, "synsets": {"industry": ""}}
    recipe = parse(prompted(settings, augment=augment))
    assert parse(recipe.plain()) == recipe
    run = Run(recipe, tmp_path / "run")
    run.carry_out()
    record = json.loads((tmp_path / "run" / "prompts.json").read_text())
    assert record["source"] == "our table" and "industry" not in record["other"]
    assert ["conifer forest", "", 1] in record["other"]["forest"]
    own, other = run.prompts.words, run.prompts.other.words
    plans = sorted((tmp_path / "run" / "arms" / "unguided" / "store").rglob("plan.parquet"))
    rows = [row for plan in plans for row in pq.read_table(plan).to_pylist()]
    assert len(rows) == 2
    for row in rows:
        name = run.data.train.classes[row["label"]]
        words = [of.text for of in other.get(name, ())] or own[name]
        assert row["word"] in words and row["prompt"] == f"a photo of {row['word']}"


def test_fingerprints_know_the_words_and_the_captions(settings: dict, tmp_path: Path) -> None:
    def of(**prompts: object) -> str:
        return Run(parse(prompted(settings, **prompts)), tmp_path / "a").fingerprint("unguided")

    for name, text in (("one", "a forest"), ("same", "a forest"), ("other", "the forest")):
        (tmp_path / name).write_text(text)
    one, same, other = ({"path": str(tmp_path / of)} for of in ("one", "same", "other"))
    assert of(captions=one) == of(captions=same)
    table = {"source": "table"}
    found = [
        of(),
        of(captions=one),
        of(captions=other),
        of(captions=one | {"share": 0.6}),
        of(augment=table),
        of(augment=table | {"exclude": ["woods"]}),
        of(templates=["{word} {scene}"], scenes=["in snow"]),
    ]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({"augment": {"source": "tabel"}}, "unknown prompts.augment.source 'tabel'"),
        ({"augment": {"depht": 2}}, "'depht'.*Did you mean 'depth'"),
        ({"captions": {"share": 0.5}}, "'prompts.captions.path' is missing"),
    ],
)
def test_bad_keys(settings: dict, prompts: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse(prompted(settings, **prompts))


def test_what_does_not_fit_is_refused_before_any_work(settings: dict, tmp_path: Path) -> None:
    def check(**prompts: object) -> None:
        Run(parse(prompted(settings, **prompts)), tmp_path / "run").check()

    with pytest.raises(UnknownWord, match="unknown class 'forrest'"):
        check(augment={"source": "table", "synsets": {"forrest": ""}})
    with pytest.raises(UserError, match="no file of captions"):
        check(captions={"path": str(tmp_path / "nowhere.txt")})
    (tmp_path / "long.txt").write_text("very " * 50 + "dark forest")
    with pytest.raises(UserError, match=r"class 'forest'.*is not in the prompt"):
        check(captions={"path": str(tmp_path / "long.txt")})
    assert not (tmp_path / "run").exists()


def test_the_background_needs_no_words(settings: dict, tmp_path: Path) -> None:
    data = settings["data"] | {"layout": "world_scenes", "train": {"options": {"count": 2}}}
    data |= {"test": {"options": {"count": 1}}, "options": {"size": 16}}
    left = {k: v for k, v in settings.items() if k not in ("proposal", "judge")}
    recipe = prompted(left, augment={"source": "table"}) | {
        "data": data,
        "segmentation": {"background": ["meadow"]},
    }
    prompts = Run(parse(recipe), tmp_path).prompts
    assert prompts.other.words["forest"] and "meadow" not in prompts.other.words
