"""What a recipe may say, and what is answered to what it may not."""

import re
from pathlib import Path

import pytest
import yaml

from activegen.data.palettes import palette_of
from activegen.recipes import Recipe, load, packaged, parse
from activegen.recipes.keys import keys
from activegen.records import UnknownWord, UserError
from activegen.tasks.co_training import CoTraining

DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"
DATA = {"data": {"layout": "world"}}
MASKS = {"data": {"layout": "world_scenes"}, "segmentation": {}}
CO_TRAINING = {"learner": {"co_training": {}}}
ASCEND = {"ascend": {"objectives": ["entropy", {"repulsion": {"weight": 0.1}}]}}


@pytest.mark.parametrize("name", sorted(packaged()))
def test_packaged_recipes_are_recipes(name: str) -> None:
    recipe = load(name, ["data.path=somewhere"])
    assert recipe.name == name
    if name.startswith("ablation_"):
        of_text = recipe.segmentation is not None and recipe.segmentation.text is not None
        assert list(recipe.arms)[:2] == ["real_only", "one_word" if of_text else "unguided"]
        assert {of.way for of in recipe.arms.values() if of.way} <= set(recipe.guidance)
        return
    of_text = name.startswith("annotate_")
    assert list(recipe.arms) == (["annotated"] if of_text else ["real_only", "unguided", "active"])


@pytest.mark.parametrize("name", ["", *sorted(packaged())])
def test_what_is_written_reads_the_same(name: str) -> None:
    recipe = parse(DATA | {"guidance": {"guided": ["reference_pull", ASCEND]}})
    recipe = load(name, ["data.path=somewhere"]) if name else recipe
    again = parse(yaml.safe_load(recipe.yaml()))
    assert again == recipe
    assert again.fingerprint == recipe.fingerprint


def test_training_on_masks_that_may_be_wrong() -> None:
    training = {"loss": "symmetric", "unreliable": "weight"}
    recipe = parse(MASKS | {"training": training})
    assert (recipe.training.loss, recipe.training.unreliable) == ("symmetric", "weight")
    assert recipe.learner.co_training is None
    two = parse(MASKS | CO_TRAINING)
    assert two.learner.co_training == CoTraining(0.5, 0.2, 0.95)
    written = yaml.safe_load(two.yaml())
    assert parse(MASKS | {part: written[part] for part in ("learner", "training")}) == two
    assert two.fingerprint != parse(MASKS).fingerprint


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


def test_weights_in_a_word_are_known_by_their_content(tmp_path: Path) -> None:
    def named(folder: str, weights: bytes) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "model.safetensors").write_bytes(weights)
        words = [f"judge.network=timm:local-dir:{tmp_path / folder}"]
        return load("demo", [*words, f"model.decoder=tiny:{tmp_path / folder}"]).fingerprint

    one = named("one", b"1")
    assert named("moved", b"1") == one != named("one", b"2")


def test_colours_of_a_file_are_in_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "colours.json"
    file.write_text('{"forest": [1, 2, 3], "sea": [4, 5, 6]}')

    def of(palette: str) -> Recipe:
        return load("demo_segmentation", [f"segmentation.controls.0.palette={palette}"])

    named, told = of(str(file)), of("{forest: [1, 2, 3], sea: [4, 5, 6]}")
    file.unlink()
    assert named == told == parse(yaml.safe_load(named.yaml()))
    assert named.segmentation is not None
    assert named.segmentation.controls[0].palette == {"forest": (1, 2, 3), "sea": (4, 5, 6)}
    others = [of("own"), of("{forest: [1, 2, 4], sea: [4, 5, 6]}")]
    assert len({recipe.fingerprint for recipe in (told, *others)}) == 3


def test_keys_that_came_later_change_no_fingerprint() -> None:
    one = load("demo_segmentation")
    assert one.fingerprint == "ae8f91188f2e1fa9"  # as before there was a dilation
    for changed in ("dilation=2", "together=0.3"):
        other = load("demo_segmentation", [f"segmentation.objects.{changed}"])
        assert other.fingerprint != one.fingerprint
    assert load("demo").fingerprint == "37962a5093c370bf"  # as before a judge was calibrated
    assert load("demo", ["judge.significance=0.1"]).fingerprint != load("demo").fingerprint


def test_a_controlnet_of_stable_diffusion_may_redraw_objects() -> None:
    changes = ["data.path=somewhere", "segmentation.proposal.objects=true"]
    changes += ["guidance.guided.0.ascend.region=object", "segmentation.objects.dilation=2"]
    recipe = load("controlnet_sd", changes)
    spec = recipe.segmentation
    assert spec is not None and spec.proposal.objects and spec.objects.dilation == 2
    classes = recipe.data.options["classes"]
    assert len(set(palette_of("ade20k", classes).of(classes, spec.controls[0].ontology))) == 7


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
        ({"training": {"loss": "crossentropy"}}, "unknown loss.*Did you mean 'cross_entropy'"),
        ({"training": {"unreliable": "ignore"}}, "only pixels of masks can be unreliable"),
        ({"training": {"unreliable": "teacher"}}, "set ema_decay"),
        (MASKS | {"training": {"mixup": 0.2}}, "masks cannot be mixed: set mixup to 0"),
        ({"learner": {"co_training": {}}}, "co_training is for masks"),
        (MASKS | CO_TRAINING | {"training": {"unreliable": "ignore"}}, "set unreliable to 'trust'"),
        (MASKS | {"learner": {"co_training": {"mixing": 2}}}, "mixing and confidence must be"),
        (MASKS | {"learner": {"co_training": True}}, "'learner.co_training' is True"),
        (MASKS | {"learner": {"co_training": {"mixin": 1}}}, "'learner.co_training'.*'mixing'"),
        ({"data": {}}, "'data.layout' is missing"),
        ({"data": {"layout": "csv"}}, "data.path is missing"),
        ({"guidance": {"plain": []}}, "guidance.plain has no terms"),
        (
            {"guidance": {"guided": [{"ascend": {"of": "x"}}]}},
            "'latents', 'conditioning' or 'clean'",
        ),
        ({"guidance": {"guided": [{}]}}, "a term is one of: reference_pull, ascend"),
        ({"arms": {"../up": {}}}, "the arm '../up' names a folder"),
        ({"arms": {"a": {"way": "gided"}}, "guidance": {"guided": []}}, "the arm 'a' 'gided'"),
        (
            MASKS | {"segmentation": {"controls": [{"palette": {"a": [0, 0, 256]}}]}},
            r"the colour of 'a' is \[0, 0, 256\]",
        ),
        (
            MASKS | {"segmentation": {"controls": [{"palette": "mine.json"}]}},
            "'mine.json' cannot be read",
        ),
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
        ("seed.of=1", "what is above it is 0"),
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
    parts.add("segmentation.text.screen")
    for key in keys(Recipe):
        name = key.replace("arms.*", "arms.<name>")
        name = name.rsplit(".", 1)[-1] if key.startswith("guidance.") else name
        assert name in said | parts, f"docs/recipes.md does not explain {key}"
