"""The models beside the learners: those that check labels, and the teacher that guidance asks.

Each is trained on labelled real images once, and kept in the run's folder with what it learnt from.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from activegen.data.scenes import Real, RealScenes
from activegen.data.splits import folds
from activegen.loop.annotating import Annotating, Screened
from activegen.loop.judging import Believed, JudgeSettings, LabelCheck
from activegen.loop.judging_masks import BelievedPixels, MaskJudgeSettings, loss_thresholds
from activegen.loop.segmenting import Segmenting
from activegen.loop.task import Task
from activegen.recipes import data
from activegen.records import TaskModel, UserError, fingerprint
from activegen.store.files import open_folder
from activegen.tasks.committee import Committee
from activegen.tasks.evaluate import evaluate
from activegen.tasks.learner import Learner, TrainSettings
from activegen.tasks.task_network import TaskNetwork

LEARNT_FROM = "learnt_from"  # in the metadata of their files


@dataclass
class Judges:
    """Members that judge, and after them the teacher, by number.

    Args:
        spec: of the judge.
        training: of the learner; theirs differs in the steps and the seed.
        seed: of the recipe.
        data: real images.
        size: height and width of the learner's images; one number for both.
        task: what a label is.
        network: makes an untrained one, by number.
        trained_by: makes the learner that trains a network.
        folder: of their files.
    """

    spec: JudgeSettings | MaskJudgeSettings
    training: TrainSettings
    seed: int
    data: data.Data
    size: int | tuple[int, int]
    task: Task
    network: Callable[[int], TaskNetwork]
    trained_by: Callable[[TaskNetwork, TrainSettings], Learner]
    folder: Path

    @cached_property
    def together(self) -> TaskModel | None:
        """What checks labels: all members; None without a network."""
        return Committee(self.members) if self.spec.network else None

    @cached_property
    def members(self) -> tuple[TaskNetwork, ...]:
        """Those that judge."""
        return tuple(self._member(k) for k in range(self.spec.members))

    @cached_property
    def teacher(self) -> TaskModel | None:
        """What guidance may ask: one more network like the members, but not one that judges."""
        return self._member(self.spec.members) if self.spec.network else None

    def check_of(
        self, task: Task, train: Real, size: Callable[[], tuple[int, int]]
    ) -> LabelCheck | None:
        """What an arm's labels are checked by; None where nothing is.

        Args:
            task: of the arm.
            train: images that it is trained on, in which a request's mask is looked up.
            size: height and width of what is drawn, asked for where one object is redrawn.
        """
        believed = self._believed(task, train, size)
        if isinstance(task, Annotating):
            return Screened(task.annotation.screen, task.rest, believed)
        return believed

    def _believed(
        self, task: Task, train: Real, size: Callable[[], tuple[int, int]]
    ) -> LabelCheck | None:
        model, spec = self.together, self.spec
        if model is None:
            return None
        if isinstance(spec, JudgeSettings):
            return Believed(model, spec.min_probability, self.usual_losses(), spec.significance)
        assert isinstance(task, Segmenting) and isinstance(train, RealScenes)
        where = None
        if task.proposal.objects:
            where = lambda request: task.region(request, size(), train)  # noqa: E731
        thresholds = self.thresholds(spec.loss_factor)
        return BelievedPixels(
            model, thresholds, spec.min_agreement, spec.max_ignored, spec.edge_band, where
        )

    def seen_by(self, member: int) -> tuple[Real, Real]:
        """What a member is trained on, and what it is not.

        For masks each leaves out a part, on which its usual losses are measured, and for classes
        where these are asked for; alone, none.
        """
        train, spec = self.data.train, self.spec
        asked = not isinstance(spec, JudgeSettings) or spec.significance > 0
        if not asked or spec.members == 1 or member == spec.members:
            return train, train
        return folds(train, spec.members, self.seed)[member]

    def usual_losses(self) -> list[list[Tensor]]:
        """Of each member and class, losses on what it was not trained on; none unasked."""
        if not isinstance(self.spec, JudgeSettings) or self.spec.significance == 0:
            return []
        found = []
        for k in range(self.spec.members):
            pool = self.task.gathered(self.seen_by(k)[1])
            losses = evaluate(self.members[k], pool.images, pool.labels).losses
            each = range(len(self.data.train.classes))
            found.append([losses[pool.labels == label] for label in each])
        return found

    def thresholds(self, factor: float) -> Tensor:
        """Of each class of masks: of each member on what it did not see, the mean of these.

        Args:
            factor: of the usual loss.
        """
        found = []
        for k in range(self.spec.members):
            pool = self.task.gathered(self.seen_by(k)[1])
            pairs = zip(pool.images, pool.labels, strict=True)
            found.append(loss_thresholds(self.members[k], pairs, factor))
        each = torch.stack(found)
        known = each.isfinite()
        total = each.masked_fill(~known, 0).sum(0) / known.sum(0)
        return total.masked_fill(~known.any(0), torch.inf)

    def learnt_from(self, member: int) -> frozenset[str]:
        """Contents of the labelled images that a member has learnt from.

        As its file says; where there is none, or one that does not say, as the recipe does.

        Raises:
            UserError: the file is damaged.
        """
        told = self.told_by(member)
        return frozenset(told or data.contents(self.seen_by(member)[0]).values())

    def told_by(self, member: int) -> tuple[str, ...] | None:
        """Contents that the file of a member names; none of one that names none, None without."""
        file = self.file_of(member)
        if not file.exists():
            return None
        try:
            with safe_open(str(file), framework="pt") as weights:
                about = weights.metadata() or {}
            return tuple(json.loads(about.get(LEARNT_FROM, "[]")))
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(f"'{file}' is damaged ({error}); delete it") from error

    def file_of(self, member: int) -> Path:
        """Weights of a member, once it is trained."""
        seen, settings = fingerprint(self.seen_by(member)[0].ids), repr(self._training_of(member))
        made_of = [self.spec.network, settings, self.size, self.data.fingerprint, seen]
        return self.folder / f"{fingerprint(made_of)}-{member}.safetensors"

    def _training_of(self, member: int) -> TrainSettings:
        return replace(
            self.training,
            steps=self.spec.steps,
            warmup_steps=min(self.training.warmup_steps, self.spec.steps),
            seed=self.training.seed + self.seed + 1_000_003 * (member + 1),
        )

    def _member(self, number: int) -> TaskNetwork:
        network, file = self.network(number), self.file_of(number)
        if file.exists():
            with safe_open(str(file), framework="pt") as weights:
                state = {name: weights.get_tensor(name) for name in weights.keys()}
            network.load_state_dict(state)
            return network.eval()
        settings = self._training_of(number)
        learner = self.trained_by(network, settings)
        seen = self.seen_by(number)[0]
        learner.train(self.task.gathered(seen), settings.steps)
        state = {k: v.cpu().contiguous() for k, v in learner.averaged.state_dict().items()}
        about = {LEARNT_FROM: json.dumps(sorted(data.contents(seen).values()))}
        open_folder(str(self.folder)).write(file.name, save(state, about))
        return learner.averaged
