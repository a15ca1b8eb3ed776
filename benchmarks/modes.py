"""Ways of drawing to time: those of the three systems, the packaged recipes', and each lever alone.

C is Huang et al. (2024), https://arxiv.org/abs/2403.06517; A Kniesel et al. (2025),
https://arxiv.org/abs/2503.09221; B Yoshihashi et al. (2023), https://arxiv.org/abs/2309.01369.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from activegen import recipes
from activegen.diffusion.decoders import Decoder
from activegen.diffusion.sampling import Route, Term, Variable
from activegen.guidance import (
    Adversarial,
    Ascend,
    During,
    Every,
    Everywhere,
    Informative,
    Objective,
    ReferencePull,
    Repulsion,
    Weighted,
)
from activegen.loop.parts import Learners
from activegen.recipes.steering import Models, terms
from activegen.records import TaskModel
from activegen.scores import SCORES

PIPELINE, UNGUIDED = "pipeline", "unguided"
SCORED = ("entropy", "margin", "disagreement", "expected_model_change")
STEP = {"conditioning": 0.05, "latents": 0.03, "clean": 0.03}  # as long as in the recipes
WINDOW = (0.2, 0.8)


@dataclass(frozen=True)
class Mode:
    """A way of drawing.

    Args:
        terms: that steer.
        decoder: for gradients, a name of the setting's.
        variant: of the model, a name of ``models.VARIANTS``.
        masks: preset of ``pseudo_masks`` whose masks are made too; "" for none.
        refers: reference images are encoded too.
        dropped: share of the images that is dropped half-way.
        micro_batch: images whose gradient is taken at once; 0 = all.
        sampling: settings of ``Sampling`` that are not the run's.
        beside: the mode that it is to be compared with, besides the pipeline.
        usual: timed where nothing else is asked for.
    """

    terms: Sequence[Term] = ()
    decoder: str = "full"
    variant: str = ""
    masks: str = ""
    refers: bool = False
    dropped: float = 0.0
    micro_batch: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    beside: str = UNGUIDED
    usual: bool = True


@dataclass(frozen=True)
class Setting:
    """What terms are made of.

    Args:
        learners: the learner, a committee of it and others, and a memory bank.
        teacher: a network that does not learn.
        masks: targets are masks, and no classes.
        recipes: packaged ones.
        decoders: for gradients, by name; None is the model's own.
    """

    learners: Learners
    teacher: TaskModel
    masks: bool
    recipes: Sequence[str]
    decoders: Mapping[str, Decoder | None]

    @property
    def models(self) -> Models:
        """As recipes ask for them."""
        return Models(self.learners, lambda: self.teacher)


class Whole(Everywhere):
    """Everywhere, of another type: a pull that does not know that it overwrites the denoiser."""


def modes(of: Setting) -> dict[str, Mode]:
    """By name, unguided first."""
    known = {UNGUIDED: Mode(beside=PIPELINE)}
    known |= {} if of.masks else _actgen(of)
    known |= _active(of) | _masks() | _recipes(of)
    known |= {} if of.masks else _levers_of_pulls()
    return known | _levers(of)


def _actgen(of: Setting) -> dict[str, Mode]:
    repulsion = Repulsion(of.learners.bank)
    adversarial = Weighted(0.1, Adversarial(of.learners.main))

    def text(*objectives: Objective) -> tuple[Term, ...]:
        climb = Ascend("conditioning", "denoiser", objectives, STEP["conditioning"])
        return ReferencePull(), During(0, 0.25, climb)

    both = text(repulsion, adversarial)
    return {
        "C reference pull": Mode((ReferencePull(Everywhere()),), refers=True),
        "C attentive": Mode((ReferencePull(),), refers=True),
        "C contrastive": Mode(text(repulsion), refers=True),
        **{f"C adversarial {name}": Mode(both, name, refers=True) for name in of.decoders},
    }


def _climb(of: Setting, variable: Variable, route: Route, score: str = "entropy") -> Ascend:
    models = of.models
    task = models.committee if score == "disagreement" else models.learner
    return Ascend(variable, route, (Informative(task, SCORES[score]),), STEP[variable])


def _active(of: Setting) -> dict[str, Mode]:
    """Every route, score and decoder; in every step, the dearest window."""
    routes: tuple[tuple[Variable, Route], ...] = (
        ("latents", "denoiser"),
        ("latents", "decoder"),
        ("clean", "decoder"),
    )
    made = {}
    for variable, route in routes:
        for score in SCORED:
            for decoder in of.decoders:
                usual = score == "entropy" or (decoder == "linear" and variable == "clean")
                term = _climb(of, variable, route, score)
                name = f"A {variable}/{route} {score} {decoder}"
                made[name] = Mode((term,), decoder, usual=usual)
    return made


def _masks() -> dict[str, Mode]:
    return {f"B masks {name}": Mode(masks=name) for name in ("default", "dataset_diffusion")}


def _recipes(of: Setting) -> dict[str, Mode]:
    made = {}
    for name in of.recipes:
        recipe = recipes.load(name, ["data.path=unread"])  # only its ways of drawing count
        levers = {"compiled": recipe.model.compile, "channels_last": recipe.model.channels_last}
        for way, found in terms(recipe.guidance, of.models).items():
            if found:
                made[f"recipe {name} {way}"] = Mode(
                    found,
                    recipe.model.decoder,
                    ", ".join(lever for lever, on in levers.items() if on),
                    refers=not of.masks,
                    micro_batch=recipe.loop.micro_batch,
                    sampling={"cfg_interval": recipe.sampling.cfg_interval},
                )
    return made


def _levers_of_pulls() -> dict[str, Mode]:
    attentive, whole = (ReferencePull(),), (ReferencePull(Whole()),)
    return {
        "lever every call": Mode(whole, refers=True, beside="C reference pull"),
        "lever whole softmax": Mode(
            attentive, variant="whole_softmax", refers=True, beside="C attentive"
        ),
    }


def _levers(of: Setting) -> dict[str, Mode]:
    deep, shallow = "A latents/denoiser entropy linear", "A latents/decoder entropy linear"
    through_all = _climb(of, "latents", "denoiser")
    through_half = _climb(of, "latents", "conditional")
    through_decoder = _climb(of, "latents", "decoder")
    return {
        "lever prompt's half": Mode((through_half,), "linear", beside=deep),
        "lever micro-batch": Mode((through_all,), "linear", micro_batch=4, beside=deep),
        "lever checkpointing": Mode((through_all,), "linear", "checkpointing", beside=deep),
        "lever every second step": Mode((Every(2, through_decoder),), "linear", beside=shallow),
        "lever window": Mode((During(*WINDOW, through_decoder),), "linear", beside=shallow),
        "lever CFG interval": Mode(sampling={"cfg_interval": WINDOW}),
        "lever half dropped": Mode(dropped=0.5),
        "lever channels last": Mode(variant="channels_last"),
        "lever number format": Mode(variant="other_format"),
        "lever compiled": Mode(variant="compiled"),
    }
