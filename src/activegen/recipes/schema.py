"""What a recipe may say. A recipe is one YAML file; every key has a default but the data.

Unknown keys are errors that name the nearest known one. ``docs/recipes.md`` has a line for each.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from activegen.data.captions import CaptionSettings
from activegen.data.palettes import PALETTES, Colour, colours_of
from activegen.data.prompts import TEMPLATES
from activegen.data.readers import READERS, SCENE_READERS
from activegen.data.vocabulary import AugmentSettings
from activegen.diffusion.lora import content
from activegen.diffusion.pseudo_masks import PRESETS
from activegen.diffusion.sampling import Sampling
from activegen.loop.annotating import AnnotationSettings
from activegen.loop.judging import JudgeSettings
from activegen.loop.judging_masks import MaskJudgeSettings
from activegen.loop.mining import MiningSettings
from activegen.loop.objects import ObjectSettings
from activegen.loop.proposing import ADVERSARIAL, GUIDED, PLAIN, ProposalSettings
from activegen.loop.proposing_masks import MaskProposalSettings
from activegen.loop.settings import ArmSettings, LoopSettings
from activegen.recipes.adaptation import AdaptSettings
from activegen.recipes.keys import refuse_unknown
from activegen.recipes.nested import put
from activegen.recipes.steering import Guidance, Spec
from activegen.recipes.weights import by_content, content_of
from activegen.records import UnknownWord, UserError, choose, fingerprint
from activegen.tasks.co_training import CoTraining
from activegen.tasks.learner import TrainSettings
from activegen.tasks.unreliable import HALF

LAYOUT = "data layout"
RENDERED = ("world", "world_scenes", "classes")  # layouts without a path
LATER = {  # keys that came later and change nothing by default: folders of before stay readable
    "learner": {"committee": []},
    "mining": {"balance": 0.0},
    "judge": {"significance": 0.0},
    "loop": {"overlap": False, "drop_at": None},
    "segmentation.objects": {"dilation": 0, "together": 0.0},
    "sampling": {"cfg_interval": [0.0, 1.0]},
    "training": {"reliable_share": HALF},
}
COMPUTED = ("workers", "micro_batch")  # of the loop: where and how, and not what
GENERATOR = ("model", "segmentation.controls")  # keys that decide what draws
CHANGEABLE = (  # by an arm; all else is the same for every arm
    *GENERATOR,
    "prompts",
    "learner.co_training",
    "training",
    "mining",
    "proposal",
    "segmentation.proposal",
    "segmentation.text",
)
# inside of these, but no arm may change them
FIXED = ("training.steps", "training.batch_size", "training.seed", "model.device")
UNDECISIVE = ("path", "device", "compile", "channels_last")  # of the model
Side = Annotated[int, Field(ge=8)]  # pixels


class SplitSpec(Spec):
    """A split to read.

    Args:
        split: its name, as the layout has it.
        layout, path: where it is stored otherwise than the rest of the data; null is not. With
            a layout of its own it has the options of its own alone.
        options: of the reader, for this split alone.
    """

    split: str
    layout: str | None = None
    path: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class TrainSplit(SplitSpec):
    """What to learn from.

    Args:
        per_class: images of each class, drawn by the seed; null takes all.
        count: the same for images with masks, in all.
    """

    split: str = "train"
    per_class: int | None = None
    count: int | None = None


class TestSplit(SplitSpec):
    """What figures are measured on.

    Args:
        limit: images of each class at most (of images with masks, in all), the same for every
            seed; null takes all.
    """

    __test__ = False  # no test of pytest

    split: str = "test"
    limit: int | None = None


class DataSpec(Spec):
    """The real images.

    Args:
        layout: how they are stored; a name in ``data.READERS``, with masks in ``SCENE_READERS``.
        path: of the data, as the layout has it.
        train, test, val: splits; val is only kept from being learnt (and may be null).
        options: of the reader, for all splits.
        size: height and width of the learner's images, in pixels; one number for both.
        strict: an image that cannot be read is an error, not left out and named.
    """

    layout: str
    path: str = ""
    train: TrainSplit = TrainSplit()
    test: TestSplit = TestSplit()
    val: SplitSpec | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    size: Side | tuple[Side, Side] = 64
    strict: bool = False

    @model_validator(mode="after")
    def _read_from(self) -> "DataSpec":
        for split in self.splits():
            layout, path, _ = self.of(split)
            choose({**READERS, **SCENE_READERS}, layout, LAYOUT)
            if layout not in RENDERED and not path:
                raise UserError("data.path is missing; add --set data.path=<where your images are>")
        return self

    def splits(self) -> list[SplitSpec]:
        """Those that are read."""
        return [split for split in (self.train, self.test, self.val) if split is not None]

    def of(self, split: SplitSpec) -> tuple[str, str, dict[str, Any]]:
        """Layout, path and options of a split."""
        path = self.path if split.path is None else split.path
        if split.layout is None:
            return self.layout, path, {**self.options, **split.options}
        return split.layout, path, split.options

    @property
    def height_width(self) -> tuple[int, int]:
        """Of the learner's images."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)


class PromptSpec(Spec):
    """What to say to the generator.

    Args:
        templates: texts with ``{word}`` where the class is named.
        words: wordings by class; a class without is called as its name reads.
        augment: synonyms and kinds of the classes; null has none.
        scenes: for ``{scene}`` in a template.
        attributes: for ``{attribute}`` directly before ``{word}``.
        captions: texts beside the templates; null has none.
    """

    templates: tuple[str, ...] = TEMPLATES
    words: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    augment: AugmentSettings | None = None
    scenes: tuple[str, ...] | None = None
    attributes: tuple[str, ...] | None = None
    captions: CaptionSettings | None = None


class LoraSpec(Spec):
    """A LoRA.

    Args:
        path: a folder with one safetensors file, or the file.
        scale: of its change; 0 is without it.
    """

    path: str
    scale: float = 1.0


class ModelSpec(Spec):
    """The diffusion model.

    Args:
        path: "embedded", a folder in diffusers' layout, or a Hub id where there is a network.
        dtype: of its weights; "auto" is bfloat16 where that is fast, else float32.
        device: "auto" takes a GPU where there is one; the learner is on the same.
        decoder: for pictures that gradients see: "full", "linear" or "tiny:<folder>".
        attention_size: height of the attention maps to read; null is a quarter of the latents.
        size: height and width of the pictures that it draws; null is what it was made for.
        lora: a path, or a list of LoRAs; null adds none.
        compile, channels_last: for speed alone, see `StableDiffusion.hasten`.
    """

    path: str = "embedded"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    decoder: str = "full"
    attention_size: int | None = None
    size: tuple[int, int] | None = None
    lora: tuple[LoraSpec, ...] | None = None
    compile: bool = False
    channels_last: bool = False

    @field_validator("lora", mode="before")
    @classmethod
    def _one(cls, given: Any) -> Any:
        return [{"path": given}] if isinstance(given, str) else given

    @model_validator(mode="after")
    def _known(self) -> "ModelSpec":
        if self.decoder not in ("full", "linear") and not re.match("tiny:.", self.decoder):
            raise UnknownWord("model.decoder", self.decoder, ("full", "linear", "tiny:<folder>"))
        return self


class ControlSpec(Spec):
    """A ControlNet, and how masks are shown to it.

    Args:
        path: "embedded", a folder in diffusers' layout, or a Hub id where there is a network.
        scale: how strongly it acts.
        guess: act without a prompt (diffusers' guess mode).
        start, stop: share of the steps in which it acts.
        palette: "own" (ours, for any classes), a name in ``data.palettes.PALETTES``, a mapping of
            names to [red, green, blue], or the path of a JSON file of it, which is read at once.
        ontology: the palette's name of each class that is called otherwise there.
    """

    path: str = "embedded"
    scale: float = 1.0
    guess: bool = False
    start: float = 0.0
    stop: float = 1.0
    palette: str | dict[str, Colour] = "own"
    ontology: dict[str, str] = Field(default_factory=dict)

    @field_validator("palette", mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if isinstance(given, str) and not given.endswith(".json"):
            choose({"own": None, **PALETTES}, given, "palette")
            return given
        return colours_of(given, "segmentation.controls.*.palette")


class SegmentationSpec(Spec):
    """What a recipe for masks says beside the rest.

    Args:
        controls: ControlNets that draw an image for a mask.
        proposal, judge, objects: settings.
        background: names of classes that are never asked for.
        text: masks are read out of the attention, and no ControlNet is needed; null draws for real
            masks.
    """

    controls: tuple[ControlSpec, ...] = (ControlSpec(),)
    proposal: MaskProposalSettings = MaskProposalSettings()
    judge: MaskJudgeSettings = MaskJudgeSettings()
    objects: ObjectSettings = ObjectSettings()
    background: tuple[str, ...] = ()
    text: AnnotationSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _spelled(cls, given: Any) -> Any:
        """Text alone has no mask to show to a ControlNet."""
        text = given.get("text") if isinstance(given, dict) else None
        if text is None:
            return given
        return {"controls": (), **given, "text": text}

    @model_validator(mode="after")
    def _fits(self) -> "SegmentationSpec":
        if self.text is None:
            return self
        if self.controls or self.proposal.objects:
            raise UserError(
                "segmentation.text makes images without a mask: take controls and proposal.objects "
                "out, which need one"
            )
        if len(self.background) > 1:
            raise UserError(
                "segmentation.text has one class for all that no word names; give one background"
            )
        return self


class MemberSpec(Spec):
    """A model that is trained already: a checkpoint of another run, a snapshot.

    Args:
        weights: a run's model.safetensors, or a state of training.
        network: whose weights they are, as `LearnerSpec` names it.
    """

    weights: str
    network: str = "small"

    @property
    def file(self) -> Path:
        """Where the weights are."""
        return Path(self.weights).expanduser()


class LearnerSpec(Spec):
    """The model the data is for.

    Args:
        network: "small", "timm:<model>" (of masks "smp:<architecture>/<encoder>" or
            "transformers:<architecture>") or "<module>:<factory>".
        pretrained: start from timm's weights.
        co_training: of masks, train two of it that teach one another; null trains one.
        device: where it and the judge are, while the images are drawn in other processes; null is
            the diffusion model's.
        committee: trained models that are asked where guidance or a ranking asks the committee,
            beside the learner and those that mine.
    """

    network: str = "small"
    pretrained: bool = False
    co_training: CoTraining | None = None
    device: str | None = None
    committee: tuple[MemberSpec, ...] = ()


ARMS = {
    "real_only": ArmSettings("none"),
    "unguided": ArmSettings("plain", judge=False),
    "active": ArmSettings("guided"),
}


class Recipe(Spec):
    """All settings of a run.

    Args:
        name: what to call it.
        seed: of the choice of images, the first weights, the order, and all that is drawn.
        data, prompts, model, sampling, learner, training, mining, proposal, judge, loop: parts.
        guidance: ways of drawing by name; "plain" always is there and has no terms.
        segmentation: labels are masks; with it ``proposal`` and ``judge`` are inside it.
        arms: what to compare, in this order.
        adapt: how to train the generator on; a run does without.
    """

    name: str = Field("unnamed", pattern=r"^[\w.\-]+$")
    seed: int = Field(0, ge=0)
    data: DataSpec
    prompts: PromptSpec = PromptSpec()
    model: ModelSpec = ModelSpec()
    sampling: Sampling = Sampling()
    guidance: Guidance = Field(default_factory=dict)
    segmentation: SegmentationSpec | None = None
    learner: LearnerSpec = LearnerSpec()
    training: TrainSettings = TrainSettings()
    mining: MiningSettings = MiningSettings()
    proposal: ProposalSettings = ProposalSettings()
    judge: JudgeSettings = JudgeSettings()
    loop: LoopSettings = LoopSettings()
    arms: dict[str, ArmSettings] = Field(ARMS, min_length=1)
    adapt: AdaptSettings | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        readers = READERS if self.segmentation is None else SCENE_READERS
        for split in self.data.splits():
            choose(readers, self.data.of(split)[0], LAYOUT)
        if self.segmentation is not None:
            for key in self.model_fields_set & {"proposal", "judge"}:
                raise UserError(f"'{key}' is for labels of classes; write segmentation.{key}")
        elif isinstance(self.data.size, tuple):
            raise UserError("data.size is one number for images of a class")
        space = 0 if self.segmentation is None else 2
        self.training.check_fits(space)
        if self.learner.co_training is not None:
            self.learner.co_training.check_fits(self.training, space)
        if self.segmentation is not None and self.segmentation.text is not None:
            for arm, settings in self.arms.items():
                if settings.generate == "guided":
                    raise UserError(
                        f"the arm '{arm}' is guided, for which segmentation.text has no masks; "
                        "let it generate plain or selected"
                    )
        for arm, settings in self.arms.items():
            if settings.way is not None:
                choose(self.guidance, settings.way, f"way of guidance of the arm '{arm}'")
        if PLAIN in self.guidance:
            raise UserError("guidance.plain has no terms; give your way of drawing another name")
        for arm in self.arms:
            if not re.fullmatch(r"[A-Za-z0-9_\-]+", arm):
                raise UserError(f"the arm '{arm}' names a folder; use letters, digits, _ and -")
            self.of(arm)
        return self

    @property
    def guided_ways(self) -> list[str]:
        """Ways of guidance that a guided arm draws in, if it does not name one."""
        adversarial = self.segmentation is None and self.proposal.adversarial_share > 0
        return [GUIDED, ADVERSARIAL] if adversarial else [GUIDED]

    def drawn_in(self, arm: ArmSettings) -> list[str]:
        """Ways of guidance that an arm draws in."""
        if arm.generate != "guided":
            return []
        return self.guided_ways if arm.way is None else [arm.way]

    def of(self, arm: str) -> "Recipe":
        """The recipe as an arm has it: where the arm changes keys, with these and this arm alone.

        Raises:
            UserError: a key that all arms share, or a value that does not fit.
        """
        settings = self.arms[arm]
        if not settings.changes:
            return self
        raw, where = self.plain(), f"arms.{arm}.changes"
        raw["arms"] = {arm: asdict(replace(settings, changes={}))}
        for key, value in settings.changes.items():
            if not _inside(key, CHANGEABLE):
                raise UserError(
                    f"{where}: '{key}' is the same for all arms; an arm may change what is in "
                    f"{', '.join(CHANGEABLE)}"
                )
            put(raw, key, value, where)
        changed = parse(raw, where)
        for key in FIXED:
            if attrgetter(key)(changed) != attrgetter(key)(self):
                raise UserError(
                    f"{where}: all arms have the same {key}, or a difference may come of it alone; "
                    "change the recipe's"
                )
        return changed

    def plain(self) -> dict[str, Any]:
        """As JSON-able values, without what is null; reading them gives the same recipe."""
        values = self.model_dump(mode="json", exclude_none=True)
        if self.segmentation is not None:  # which has them inside
            del values["proposal"], values["judge"]
        return values

    def yaml(self) -> str:
        """As a file that gives the same recipe."""
        return yaml.safe_dump(self.plain(), sort_keys=False, allow_unicode=True)

    @cached_property
    def fingerprint(self) -> str:
        """Of `decisive`."""
        return fingerprint(self.decisive)

    @cached_property
    def decisive(self) -> dict[str, Any]:
        """All settings but name, devices, speed, paths, the arms and ``adapt``.

        What the paths lead to is named by its content, and each arm by its own settings, in
        :meth:`activegen.recipes.run.Run.fingerprint`.
        """
        decisive = {k: v for k, v in self.plain().items() if k not in ("name", "arms", "adapt")}
        decisive["data"] = _pathless(decisive["data"])
        for split in decisive["data"].keys() & {"train", "test", "val"}:
            decisive["data"][split] = _pathless(decisive["data"][split])
        decisive["model"] = {k: v for k, v in decisive["model"].items() if k not in UNDECISIVE}
        decisive["learner"] = {k: v for k, v in decisive["learner"].items() if k != "device"}
        decisive["loop"] = {k: v for k, v in decisive["loop"].items() if k not in COMPUTED}
        for path, usual in LATER.items():
            *above, last = path.split(".")
            holder = decisive
            for name in above:
                holder = holder.get(name, {})
            if last in holder:
                of = holder[last].items()
                holder[last] = {k: v for k, v in of if k not in usual or v != usual[k]}
        decisive = by_content(decisive)
        if self.learner.committee:
            members = [[of.network, content_of(of.file)] for of in self.learner.committee]
            decisive["learner"]["committee"] = members
        if self.model.lora:
            decisive["model"]["lora"] = [[content(of.path), of.scale] for of in self.model.lora]
        if self.prompts.captions is not None:
            captions = {k: v for k, v in decisive["prompts"]["captions"].items() if k != "path"}
            decisive["prompts"] = {**decisive["prompts"], "captions": captions}
        if self.segmentation is not None:
            controls = decisive["segmentation"]["controls"]
            without = [{k: v for k, v in of.items() if k != "path"} for of in controls]
            decisive["segmentation"] = {**decisive["segmentation"], "controls": without}
        return decisive


def changes_generator(keys: Iterable[str]) -> bool:
    """Whether keys that an arm changes are of what draws."""
    return any(_inside(key, GENERATOR) for key in keys)


def _inside(key: str, parts: Iterable[str]) -> bool:
    """Whether a key is one of the parts of a recipe, or in one of them."""
    return any(f"{key}.".startswith(f"{part}.") for part in parts)


def parse(raw: dict[str, Any], where: str = "the recipe") -> Recipe:
    """A recipe from plain values.

    Raises:
        UserError: as `load` does.
    """
    raw = _presets_written_out(raw)
    refuse_unknown(raw, Recipe, where)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(_told(e) for e in error.errors())) from error


def _presets_written_out(raw: dict[str, Any]) -> dict[str, Any]:
    """``masks: daam`` and ``masks: {preset: daam, crf: {}}`` with all that the preset says."""
    segmentation = _mapping(raw, "segmentation")
    text = _mapping(segmentation, "text")
    masks = text.get("masks")
    if isinstance(masks, str):
        masks = {"preset": masks}
    if not isinstance(masks, dict) or "preset" not in masks:
        return raw
    preset = choose(PRESETS, str(masks["preset"]), "segmentation.text.masks.preset").masks
    own = {key: value for key, value in masks.items() if key != "preset"}
    text = {**text, "masks": asdict(preset) | own}
    return {**raw, "segmentation": {**segmentation, "text": text}}


def _mapping(of: dict[str, Any], key: str) -> dict[str, Any]:
    """What is there, empty where it is no mapping."""
    found = of.get(key)
    return found if isinstance(found, dict) else {}


def _pathless(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k != "path"}


def _told(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"]) or "the whole"
    if error["type"] == "missing":
        return f"'{path}' is missing"
    return f"'{path}' is {error['input']!r}; {error['msg'][0].lower()}{error['msg'][1:]}"
