"""What a recipe may say, and what is answered to what it may not."""

import re
from pathlib import Path

import pytest
import yaml

from activegen.recipes import load, packaged, parse
from activegen.recipes.schema import keys
from activegen.records import UnknownWord, UserError

DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"
DATA = {"data": {"layout": "world"}}
ASCEND = {"ascend": {"objectives": ["entropy", {"repulsion": {"weight": 0.1}}]}}


@pytest.mark.parametrize("name", sorted(packaged()))
def test_packaged_recipes_are_recipes(name: str) -> None:
    recipe = load(name, ["data.path=somewhere"])
    assert recipe.name == name
    assert list(recipe.arms) == ["real_only", "unguided", "active"]


def test_what_is_written_reads_the_same() -> None:
    recipe = parse(DATA | {"guidance": {"guided": ["reference_pull", ASCEND]}})
    again = parse(yaml.safe_load(recipe.yaml()))
    assert again == recipe
    assert again.fingerprint == recipe.fingerprint


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("name=other", True),
        ("model.device=cpu", True),
        ("model.path=./elsewhere", True),
        ("arms={active: {generate: guided}}", True),
        ("seed=1", False),
        ("training.learning_rate=1e-3", False),
        ("guidance.guided.0.reference_pull.until=0.4", False),
        ("data.test.limit=5", False),
    ],
)
def test_fingerprint_names_what_decides(override: str, same: bool) -> None:
    assert (load("demo", [override]).fingerprint == load("demo").fingerprint) == same


def test_overrides_are_yaml_and_reach_into_lists() -> None:
    recipe = load(
        "demo",
        ["training.learning_rate=1e-3", "data.val={split: val}", "guidance.guided.1.ascend.step=0"],
    )
    assert recipe.training.learning_rate == 1e-3
    assert recipe.data.val is not None and recipe.data.val.split == "val"
    assert recipe.guidance["guided"][1].body.step == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trainin": {}}, "unknown key of the recipe: 'trainin'.*Did you mean 'training'"),
        ({"training": {"step": 1}}, "unknown key in 'training' of.*'step'.*Did you mean 'steps'"),
        ({"sampling": {"steps": 1}}, "unknown key in 'sampling'.*'steps'.*'num_steps'"),
        ({"arms": {"mine": {"jugde": True}}}, "in 'arms.mine'.*Did you mean 'judge'"),
        ({"guidance": {"guided": ["refrence_pull"]}}, "'guidance.guided.0'.*'reference_pull'"),
        (
            {"guidance": {"guided": [{"ascend": {"objectives": ["enthropy"]}}]}},
            "'guidance.guided.0.ascend.objectives.0'.*Did you mean 'entropy'",
        ),
        ({"data": {"layout": "wrld"}}, "unknown data layout 'wrld'.*Did you mean 'world'"),
    ],
)
def test_unknown_words_are_answered_with_the_nearest(change: dict, said: str) -> None:
    with pytest.raises(UnknownWord, match=said):
        parse(DATA | change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"training": {"steps": "many"}},
            "'training.steps' is 'many'; input should be a valid int",
        ),
        ({"training": {"steps": 0}}, "steps must be at least 1; got 0"),
        ({"data": {}}, "'data.layout' is missing"),
        ({"data": {"layout": "csv"}}, "data.path is missing"),
        ({"guidance": {"plain": []}}, "guidance.plain has no terms"),
        (
            {"guidance": {"guided": [{"ascend": {"of": "x"}}]}},
            "'latents', 'conditioning' or 'clean'",
        ),
        ({"guidance": {"guided": [{}]}}, "a term is one of: reference_pull, ascend"),
        ({"arms": {"../up": {}}}, "the arm '../up' names a folder"),
        ({"model": {"decoder": "fast"}}, "choose one of: full, linear, tiny:<folder>"),
    ],
)
def test_wrong_values_name_their_place(change: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse(DATA | change)


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(UnknownWord, match=r"unknown recipe 'dmo'.*Did you mean 'demo'"):
        load("dmo")
    with pytest.raises(UserError, match=r"there is no recipe .*nowhere\.yaml"):
        load(tmp_path / "nowhere.yaml")
    file = tmp_path / "recipe.yaml"
    file.write_text("data: {layout: world")
    with pytest.raises(UserError, match="is no YAML"):
        load(file)
    file.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="is no YAML"):
        load(file)
    file.write_text("- data")
    with pytest.raises(UserError, match="holds no keys"):
        load(file)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.steps", "write it as key=value"),
        ("guidance.guided.7.ascend.step=0", "has 2 items"),
        ("seed.of=1", "has no keys"),
        ("seed=[", "is no YAML value"),
    ],
)
def test_overrides_that_lead_nowhere(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load("demo", [override])


def test_every_key_has_a_line_in_the_docs() -> None:
    said = set(re.findall(r"`([\w.<>*]+)`", DOCS.read_text(encoding="utf-8")))
    parts = {"data", "prompts", "model", "sampling", "guidance", "learner", "training", "mining"}
    parts |= {"proposal", "judge", "loop", "arms", "data.train", "data.test", "data.val"}
    parts |= {f"segmentation{part}" for part in ("", ".proposal", ".judge", ".objects")}
    for key in keys():
        name = key.replace("arms.*", "arms.<name>")
        name = name.rsplit(".", 1)[-1] if key.startswith("guidance.") else name
        assert name in said | parts, f"docs/recipes.md does not explain {key}"
