"""A run: words made objects, everything checked before any work, one arm after the other.

```
<run>/recipe.yaml            resolved, with all overrides
<run>/environment.json       versions and machine
<run>/prompts.json           words of the classes, where there are more than the recipe has; of an
                             arm with its own words inside the arm's folder
<run>/judge/                 weights of the model that checks labels
<run>/decoder/               a fitted decoder, where the recipe has one
<run>/arms/<arm>/store/      what was generated
<run>/arms/<arm>/learners/   states of training
<run>/arms/<arm>/model.safetensors
<run>/arms/<arm>/environment.json  of the process that finished the arm
<run>/result.json            figures of each arm
<run>/cost.json              where its seconds went
```

The same run goes on where it was stopped.
"""

import json
import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from diffusers.utils import logging as of_diffusers
from safetensors.torch import save
from transformers import CLIPTokenizer
from transformers.utils import logging as of_transformers

from activegen.data.palettes import palette_of
from activegen.data.prompts import Prompts
from activegen.data.scenes import Real
from activegen.diffusion.decoders import Decoder
from activegen.diffusion.levels import SCHEDULERS
from activegen.diffusion.model import DiffusionModel
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.guidance import Inpaint, MemoryBank
from activegen.loop.annotating import Annotating
from activegen.loop.classifying import Classifying
from activegen.loop.executor import Executor, LocalExecutor, ProcessExecutor
from activegen.loop.judging import Judge, JudgeSettings, trusting
from activegen.loop.judging_masks import MaskJudgeSettings
from activegen.loop.metering import Cost
from activegen.loop.mining import miners
from activegen.loop.parts import Learners, Parts
from activegen.loop.rounds import GoOn, active_generation, always
from activegen.loop.segmenting import Painting, Segmenting
from activegen.loop.settings import ArmSettings
from activegen.loop.task import Task
from activegen.recipes import data, fitting, generator, steering
from activegen.recipes.environment import ENVIRONMENT, environment
from activegen.recipes.folders import RECIPE, check_writable, what_changed
from activegen.recipes.judges import Judges
from activegen.recipes.outcome import figures
from activegen.recipes.progress import (
    Event,
    Observer,
    WatchedCoLearner,
    WatchedExecutor,
    WatchedLearner,
    silent,
)
from activegen.recipes.schema import ControlSpec, Recipe, changes_generator, parse
from activegen.recipes.weights import filled
from activegen.records import TaskModel, UserError, choose, fingerprint
from activegen.scores import SCORES
from activegen.store import OtherRecipe, Store
from activegen.store.files import open_folder
from activegen.tasks.co_training import Pair
from activegen.tasks.learner import Learner, TrainSettings
from activegen.tasks.networks import build
from activegen.tasks.seeding import seeded
from activegen.tasks.segmenter import Segmenter
from activegen.tasks.segmenters import build_segmenter
from activegen.tasks.task_network import TaskNetwork

JUDGE = "judge"  # folder


class Run:
    """A recipe at work in a folder.

    Args:
        recipe: what to do.
        folder: of the run; made when work begins.
        observer: is told of every step.
    """

    def __init__(self, recipe: Recipe, folder: Path, observer: Observer = silent):
        self.recipe, self.folder, self.observer = recipe, folder, observer
        self._loaded: StableDiffusion | None = None
        self._changed: dict[str, Run] = {}

    def of(self, arm: str) -> "Run":
        """What carries out an arm: itself, or where the arm changes keys, a run that has them.

        It shares the folder, the data, the models that check labels, and the diffusion model where
        the arm does not have one of its own.
        """
        if not self.recipe.arms[arm].changes:
            return self
        if arm not in self._changed:
            self._changed[arm] = _Changed(self, arm)
        return self._changed[arm]

    def check(self) -> None:
        """Looks at all that the recipe names, without any work and without writing a file.

        Raises:
            UserError: something is missing or does not fit; the message says what.
        """
        check_writable(self.folder)
        generator.check_sampling(self.recipe.sampling)
        generator.check_decoder(self.recipe.model.decoder)
        self._check_ways()
        if self.recipe.loop.drop_at is not None and isinstance(self.task, Annotating):
            raise UserError(
                "loop.drop_at is for labels that are known before the drawing; masks from text are "
                "not: set it to null"
            )
        if self.generates:
            if self.learner_device != self.device and not self.recipe.loop.processes:
                raise UserError(
                    "learner.device is another than model.device: another process must draw; set "
                    "loop.workers to 1 or more, or loop.overlap"
                )
            for place in (self.place, *self.control_places):
                place.check()
        classes = self.data.train.classes
        if len(classes) < 2:
            raise UserError(
                f"{self.data.train.name} has one class alone ({', '.join(classes)}), and there is "
                "nothing to tell it from: add images of another class, such as of what it is not"
            )
        _ = self.task
        learners = self.untrained()
        stand_in = learners.main if self.judging.network else None  # the judge is not trained here
        steering.terms(self.recipe.guidance, steering.Models(learners, lambda: stand_in))
        steering.check_gradients(self.recipe.guidance, self.recipe.sampling.num_steps)
        fitting.check_committees(self.recipe)
        if self._ranks_by_teacher and not self.judging.network:
            raise UserError(
                "an arm ranks by a score that asks the teacher; name a network in the judge's "
                "settings"
            )
        _ = self.checkpoints
        if self.generates:
            masks = self.recipe.segmentation
            together = masks.text.per_image[1] if masks and masks.text else 1
            asked = [name for name in classes if not masks or name not in masks.background]
            generator.check_prompts(self.place.tokenizer(), self.prompts, asked, together)
            words = {name: self.prompts.words[name] for name in asked}
            generator.warn_untaught(self.place, words)
            if self.place.folder is None or self.recipe.model.lora:
                self.model()
        if self._judged:
            if not len(self.data.train):
                raise UserError(
                    f"{self.data.train.name} has no image to train a judge on; set "
                    "segmentation.judge.network to ''"
                )
            self._network(self.judging.network, False, "judge", 0)
            self.judges.seen_by(0)
        for arm in self.recipe.arms:
            if (own := self.of(arm)) is not self:
                own.check()
                own.release()
                continue
            settings, train = self.recipe.arms[arm], self.train(arm)
            miners(settings, self.recipe.mining, train, self.recipe.seed)
            root = self.folder / "arms" / arm / "store"
            if (root / "store.json").exists():
                try:
                    Store.create_or_open(str(root), self.fingerprint(arm), classes)
                except OtherRecipe as error:
                    changed = what_changed(self.folder, self.recipe, arm)
                    raise UserError(f"{error}; what changed: {changed}") from error

    @property
    def _ranks_by_teacher(self) -> bool:
        return any(SCORES[arm.by].of_teacher for arm in self.recipe.arms.values())

    def carry_out(self) -> dict[str, Any]:
        """All arms; what ``result.json`` then holds.

        Raises:
            UserError: as :meth:`check` does, and what the loop finds on its way.
        """
        begun = time.monotonic()
        self.check()
        self.record()
        arms = {arm: self.arm(arm) for arm in self.recipe.arms}
        return self.conclude(arms, time.monotonic() - begun)

    def conclude(self, arms: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Writes ``result.json`` and ``cost.json``; what the first holds."""
        result = {
            "recipe": self.recipe.name,
            "seed": self.recipe.seed,
            "test_images": len(self.data.test),
            "arms": arms,
            "seconds": round(seconds, 1),
        }
        self._write("result.json", _json(result))
        costs = {arm: Cost.of(of["rounds"]).told() for arm, of in arms.items()}
        self._write("cost.json", _json(costs))
        return result

    def record(self) -> None:
        """Writes down the recipe, the machine, and the words where they are files of their own."""
        self._write(RECIPE, self.recipe.yaml())
        self._write(ENVIRONMENT, _json(environment()))
        if self.generates and self.prompts.varied:
            self._write("prompts.json", _json(self.prompts.record()))
        for arm in self.recipe.arms:
            own = self.of(arm)
            if own is not self and own.generates and own.prompts.varied:
                files = open_folder(str(self.folder / "arms" / arm))
                files.write("prompts.json", _json(own.prompts.record()).encode())

    @cached_property
    def data(self) -> data.Data:
        """The real images."""
        return data.read(
            self.recipe.data, self.recipe.seed, lambda *n: self.observer(Event("read", *n))
        )

    @cached_property
    def prompts(self) -> Prompts:
        """Of the classes."""
        return generator.prompts_of(self.recipe, self.data.train.classes)

    @cached_property
    def task(self) -> Task:
        """What a label is."""
        recipe, spec = self.recipe, self.recipe.segmentation
        height, width = recipe.data.height_width
        if spec is None:
            return Classifying(height, self.prompts, recipe.mining, recipe.proposal)
        classes = self.data.train.classes
        known = dict(zip(classes, range(len(classes)), strict=True))
        paintings = []
        for of in spec.controls:
            palette = palette_of(of.palette, classes)
            palette.of(classes, of.ontology)
            if not isinstance(of.palette, str):
                palette.check_apart(classes, of.ontology)
            paintings.append(Painting(palette, of.ontology))
        made: dict[str, Any] = {
            "size": (height, width),
            "prompts": self.prompts,
            "fits": self._fits,
            "proposal": spec.proposal,
            "paintings": tuple(paintings),
            "things": spec.objects,
            "background": frozenset(choose(known, name, "class") for name in spec.background),
        }
        return Segmenting(**made) if spec.text is None else Annotating(**made, annotation=spec.text)

    def _fits(self, prompt: str) -> bool:
        """Whether the text encoder reads a prompt to its end."""
        found = self._tokenizer(prompt, verbose=False)["input_ids"]
        return len(found) <= self._tokenizer.model_max_length

    @cached_property
    def _tokenizer(self) -> CLIPTokenizer:
        return self.place.tokenizer()

    @cached_property
    def place(self) -> generator.Place:
        """Of the diffusion model."""
        return generator.Place.of(self.recipe.model.path, self.recipe.segmentation is not None)

    @cached_property
    def control_places(self) -> tuple[generator.Place, ...]:
        """Of the ControlNets."""
        return tuple(generator.Place.of_control(of.path) for of in self._controls)

    @property
    def _controls(self) -> tuple[ControlSpec, ...]:
        spec = self.recipe.segmentation
        return () if spec is None else spec.controls

    @property
    def judging(self) -> JudgeSettings | MaskJudgeSettings:
        """Settings of the judge."""
        spec = self.recipe.segmentation
        return self.recipe.judge if spec is None else spec.judge

    @property
    def generates(self) -> bool:
        """Whether any arm needs the diffusion model."""
        return any(settings.generate != "none" for settings in self.recipe.arms.values())

    def fingerprint(self, arm: str) -> str:
        """Of all that decides about an arm's result.

        The recipe's settings, the arm's own, names, labels and pixels of the real images, and the
        diffusion model's files. Not: paths, the device, versions of libraries, the other arms.
        """
        if (own := self.of(arm)) is not self:
            return own.fingerprint(arm)
        settings = self.recipe.arms[arm]
        places = [] if settings.generate == "none" else [self.place, *self.control_places]
        model = [place.fingerprint for place in places]
        if places and self.prompts.varied:  # words and captions are files of their own
            model.append(self.prompts.fingerprint)
        later = (("of", "learner"), ("after", settings.after))  # which change nothing
        plain = {k: v for k, v in asdict(settings).items() if (k, v) not in later}
        made_of = [self.recipe.fingerprint, self.data.fingerprint, model, plain]
        if settings.more_real:
            made_of.append(data.labelled(self.train(arm)))
        return fingerprint(made_of)

    def train(self, arm: str) -> Real:
        """The labelled real images of an arm.

        Raises:
            UserError: it asks for more than there are.
        """
        return self.data.with_more(self.recipe.arms[arm].more_real)

    def model(self) -> StableDiffusion:
        """The diffusion model, loaded once."""
        if self._loaded is None:
            self._loaded = self.place.load(self.recipe.model, self.device, self._controls)
        return self._loaded

    def release(self) -> None:
        """Lets go of the diffusion model; it is loaded again when it is needed."""
        self._loaded = None

    def prepare(self) -> None:
        """Makes what arms share, so that several can be carried out at the same time."""
        if self._judged:
            _ = self.judges.together
        if self.generates:
            self.decoder(self.model())
            self.ways(self.untrained())  # the teacher
        if self._ranks_by_teacher:
            _ = self.judges.teacher

    @cached_property
    def device(self) -> torch.device:
        """Of the diffusion model, and where the recipe says no other of the learner."""
        return generator.device(self.recipe.model.device)

    @cached_property
    def learner_device(self) -> torch.device:
        """Of the learner and the judge."""
        name = self.recipe.learner.device
        return self.device if name is None else generator.device(name, "learner.device")

    def network(self) -> TaskNetwork:
        """The untrained classifier or segmenter, or a pair of them; the same in each arm."""
        spec = self.recipe.learner
        first = self._network(spec.network, spec.pretrained, "learner", 0)
        if spec.co_training is None:
            return first
        second = self._network(spec.network, spec.pretrained, "learner", 1)
        return Pair(cast(Segmenter, first), cast(Segmenter, second))

    def untrained(self) -> Learners:
        """Stand-ins for the learners of a round, to look at ways of drawing or to time them."""
        network = self.network().to(self.device).eval()
        return Learners(network, (network,) * (1 + self.recipe.mining.folds), MemoryBank())

    def learner(self, arm: str = "") -> Learner:
        """An untrained learner; its first weights are the same in each arm."""
        settings = self.recipe.training
        settings = replace(settings, seed=settings.seed + self.recipe.seed)
        # in evaluation mode: one that is read from a file may judge before it is trained on
        network, tell = self.network().eval(), self._tell("train", arm)
        spec, task = self.recipe.learner.co_training, self.task
        if spec is None:
            return WatchedLearner(network, settings, self.learner_device, tell)
        assert isinstance(task, Segmenting)
        more: dict[str, Any] = {"co_training": spec, "background": task.background}
        return WatchedCoLearner(network, settings, self.learner_device, tell, **more)

    def ways(self, learners: Learners) -> dict[str, list[Any]]:
        """Ways of drawing by name."""
        spec, guidance = self.recipe.segmentation, self.recipe.guidance
        made = steering.terms(guidance, steering.Models(learners, lambda: self.judges.teacher))
        if spec is not None and spec.proposal.objects and not self.inpaints:
            made = {name: [*terms, Inpaint()] for name, terms in made.items()}
        return made

    @cached_property
    def inpaints(self) -> bool:
        """Whether the denoiser itself keeps what is outside a region."""
        return self.model().inpaints

    @cached_property
    def judges(self) -> Judges:
        """What checks labels, and the teacher."""

        def untrained(number: int) -> TaskNetwork:
            network = self._network(self.judging.network, False, "judge", number)
            return network.to(self.learner_device)

        def trained_by(network: TaskNetwork, settings: TrainSettings) -> Learner:
            return WatchedLearner(network, settings, self.learner_device, self._tell("judge", ""))

        return Judges(
            spec=self.judging,
            training=self.recipe.training,
            seed=self.recipe.seed,
            data=self.data,
            size=self.recipe.data.size,
            task=self.task,
            network=untrained,
            trained_by=trained_by,
            folder=self.folder / JUDGE,
        )

    def judge(self, settings: ArmSettings) -> Judge:
        """Of an arm."""
        found = self.data
        if not settings.judge or settings.generate == "none":
            return trusting(found.forbidden)
        train = found.with_more(settings.more_real)
        real = data.thumbnails(train) if settings.more_real else found.real
        check = self.judges.check_of(self.task, train, lambda: self.model().size)
        return Judge(check, found.forbidden, real)

    def asked(self, arm: str) -> dict[int, str]:
        """Models beside the learners that decide what an arm's images are, each with its role.

        Judges, where they check its labels; the teacher, where its guidance or its ranking asks it.
        """
        spec, settings = self.judging, self.recipe.arms[arm]
        judged = settings.judge and settings.generate != "none"
        judges = range(spec.members if spec.network and judged else 0)
        teacher = {spec.members: "teacher"} if self.of(arm)._asks_teacher(settings) else {}
        return dict.fromkeys(judges, "judge") | teacher

    def _asks_teacher(self, settings: ArmSettings) -> bool:
        if settings.generate == "selected":
            return SCORES[settings.by].of_teacher
        if not (drawn := self.recipe.drawn_in(settings)):
            return False
        learners, asked = self.untrained(), list[TaskModel]()

        def stand_in() -> TaskModel:
            asked.append(learners.main)
            return learners.main

        guidance = {way: self.recipe.guidance[way] for way in drawn}
        steering.terms(guidance, steering.Models(learners, stand_in))
        return bool(asked)

    def parts(self, arm: str, elsewhere: Executor | None = None) -> Parts:
        """What the loop needs for an arm.

        Args:
            arm: its name.
            elsewhere: draws in other processes; None draws in this one.
        """
        recipe, found = self.recipe, self.data
        return Parts(
            task=self.task,
            train=self.train(arm),
            test=found.test,
            val=found.val,
            learner=lambda: self.learner(arm),
            model=self.model,
            sampling=recipe.sampling,
            steering=self.ways,
            decoder=self.decoder,
            judge=self.judge,
            loop=recipe.loop,
            mining=recipe.mining,
            seed=recipe.seed,
            executor=self.executor(arm, elsewhere),
            source=None if elsewhere is None else self._source(arm),
            checkpoints=lambda: self.checkpoints,
            teacher=lambda: self.judges.teacher,
        )

    def executor(self, arm: str, elsewhere: Executor | None = None) -> WatchedExecutor:
        """Carries out the drawing, in this process if nobody else does."""
        return WatchedExecutor(elsewhere or LocalExecutor(), self._tell("generate", arm))

    def _source(self, arm: str) -> "Source":
        """In other processes everything is where the diffusion model is."""
        there = self.recipe.learner.model_copy(update={"device": None})
        recipe = self.recipe.model_copy(update={"learner": there})
        return Source(recipe.yaml(), self.folder, arm)

    def _processes(self, arm: str) -> AbstractContextManager[ProcessExecutor | None]:
        """Those that draw for an arm; they are asked for nothing where all is drawn."""
        count = self.recipe.loop.processes
        generates = self.recipe.arms[arm].generate != "none"
        return ProcessExecutor(count) if count and generates else nullcontext()

    def decoder(self, model: DiffusionModel, folder: Path | None = None) -> Decoder | None:
        """For pictures that gradients see; None is the model's own.

        Args:
            model: whose latents it reads.
            folder: where a fitted one is kept; by default in the run's.
        """
        of = fingerprint([self.place.fingerprint, self.data.fingerprint])
        folder = folder or self.folder / "decoder"
        return generator.decoder(self.recipe.model.decoder, model, self.data.train, folder, of)

    @cached_property
    def checkpoints(self) -> tuple[TaskNetwork, ...]:
        """Trained models of every committee.

        Raises:
            UserError: a file is not there, or of another network or other classes.
        """
        return tuple(
            filled(self._network(of.network, False, "member", 0), of.file, self.device)
            for of in self.recipe.learner.committee
        )

    def trained(self, file: Path) -> TaskNetwork:
        """The network with the weights of a file: a finished arm's, or a state of training.

        Raises:
            UserError: it is no such file, or of another network.
        """
        return filled(self.network(), file, self.device)

    def finished(self, arm: str) -> bool:
        """Whether nothing of an arm is left to do."""
        return (self.folder / "arms" / arm / "model.safetensors").exists()

    def arm(self, arm: str, go_on: GoOn = always) -> dict[str, Any]:
        """Carries out one arm, or what is left of it; its part of ``result.json``.

        Args:
            arm: its name.
            go_on: whether it shall generate any more.

        Raises:
            UserError: what the loop finds on its way.
        """
        if (own := self.of(arm)) is not self:
            try:
                return own.arm(arm, go_on)
            finally:
                own.release()
        folder, settings = self.folder / "arms" / arm, self.recipe.arms[arm]
        rounds: list[dict[str, Any]] = []
        total = self.recipe.loop.rounds
        with self._processes(arm) as elsewhere:
            parts, of = self.parts(arm, elsewhere), self.fingerprint(arm)
            loop = active_generation(parts, arm, settings, folder, of, go_on)
            for summary in loop:
                rounds.append(summary)
                self.observer(Event("round", len(rounds), total, arm, summary))
        if not self.finished(arm):
            learner = self.learner(arm)
            learner.load(folder / "learners" / f"{total - 1:04d}-main.safetensors")
            weights = {k: v.contiguous() for k, v in learner.averaged.cpu().state_dict().items()}
            about = {
                "network": self.recipe.learner.network,
                "classes": json.dumps(self.data.train.classes),
            }
            files = open_folder(str(folder))
            files.write(ENVIRONMENT, _json(environment()).encode())
            files.write("model.safetensors", save(weights, about))
        return figures(rounds, self.data.train.classes)

    def _network(self, network: str, pretrained: bool, purpose: str, number: int) -> TaskNetwork:
        """New weights from the recipe's seed, its purpose and its number alone."""
        count, size = len(self.data.train.classes), self.recipe.data.height_width
        with seeded(self.recipe.seed, purpose, number):
            if self.recipe.segmentation is None:
                return build(network, count, size[0], pretrained)
            return build_segmenter(network, count, size, pretrained)

    @property
    def _judged(self) -> bool:
        arms = self.recipe.arms.values()
        return bool(self.judging.network) and any(
            settings.judge and settings.generate != "none" for settings in arms
        )

    def _check_ways(self) -> None:
        """The loop asks for ways of drawing by name; an arm with changes is looked at with them."""
        spec, guidance = self.recipe.segmentation, self.recipe.guidance
        arms = [of for of in self.recipe.arms.values() if not of.changes]
        drawn = dict.fromkeys(way for of in arms for way in self.recipe.drawn_in(of))
        for way in drawn:
            if way not in guidance:
                raise UserError(
                    f"guidance.{way} is missing: an arm generates 'guided' and draws in this way; "
                    f"list its terms, or [] for none"
                )
        fitting.check_ways(
            {way: guidance[way] for way in drawn},
            masks=spec is not None,
            objects=spec is not None and spec.proposal.objects,
            scheduler=self._scheduler,
        )

    def _scheduler(self) -> str:
        """Class of the scheduler that draws; "" where the model's folder does not say."""
        if self.recipe.sampling.scheduler:
            return SCHEDULERS[self.recipe.sampling.scheduler]
        if self.place.folder is None:
            return type(self.model().scheduler).__name__
        file = self.place.folder / "scheduler" / "scheduler_config.json"
        try:
            return str(json.loads(file.read_bytes()).get("_class_name", ""))
        except (OSError, ValueError):
            return ""  # loading says so

    def _tell(self, phase: str, arm: str) -> Any:
        return lambda done, total: self.observer(Event(phase, done, total, arm))

    def _write(self, name: str, text: str) -> None:
        open_folder(str(self.folder)).write(name, text.encode())


class _Changed(Run):
    """A run of one arm that changes keys of the recipe; what these do not touch is the run's."""

    def __init__(self, whole: Run, arm: str):
        super().__init__(whole.recipe.of(arm), whole.folder, whole.observer)
        self._whole = whole
        self._draws_otherwise = changes_generator(whole.recipe.arms[arm].changes)

    @cached_property
    def data(self) -> data.Data:
        """The real images."""
        return self._whole.data

    @cached_property
    def judges(self) -> Judges:
        """What checks labels, and the teacher."""
        return self._whole.judges

    @cached_property
    def checkpoints(self) -> tuple[TaskNetwork, ...]:
        """Trained models of every committee."""
        return self._whole.checkpoints

    def model(self) -> StableDiffusion:
        """The diffusion model: the run's, or the arm's own, and then the run's is let go of."""
        if not self._draws_otherwise:
            return self._whole.model()
        self._whole.release()
        return super().model()

    def _source(self, arm: str) -> "Source":
        return self._whole._source(arm)


@dataclass(frozen=True)
class Source:
    """Makes what the loop needs for an arm again, in another process.

    Args:
        recipe: as YAML.
        folder: of the run.
        arm: its name.
    """

    recipe: str
    folder: Path
    arm: str

    def __call__(self) -> Parts:
        """With the diffusion model of that process, where libraries have nobody to tell."""
        warnings.filterwarnings("ignore")
        for logging in (of_diffusers, of_transformers):
            logging.set_verbosity_error()
            logging.disable_progress_bar()
        return Run(parse(yaml.safe_load(self.recipe)), self.folder).of(self.arm).parts(self.arm)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
