"""What the arms of a run were made with, as far as the run's folder and its data show."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import torch

from activegen.data.fingerprints import is_duplicate, nearest, thumbnail
from activegen.data.scenes import Real
from activegen.loop.settings import ArmSettings
from activegen.proof.fairness import SHOWN, Facts
from activegen.recipes.data import contents, labelled, thumbnails
from activegen.recipes.generator import adapted_to
from activegen.recipes.run import Run
from activegen.recipes.schema import changes_generator
from activegen.records import UserError, fingerprint
from activegen.store import Store, from_png

PAIRS = 8_000_000  # of images of two splits that are looked at for near-copies, at most


class Evidence:
    """Of one run, with one seed. Images are named by their pixels, and called by their ids."""

    def __init__(self, run: Run):
        self.run = run

    def before(self, arm: str) -> Facts:
        """What is known before an arm begins: no steps yet, and no synthetic images.

        Its judge is all that decides beside the learners what its images are, teachers too.

        Raises:
            UserError: a judge, a teacher or an adapted generator has learnt from test images.
        """
        run = self.run
        self._refuse_generators(arm)
        real = contents(run.train(arm))
        called = {content: id for id, content in (self._train | real).items()}
        names = called | self._test_names
        judge = self._learnt_by_asked(arm)
        return Facts(
            arm=arm,
            seeds=(run.recipe.seed,),
            steps=0,
            test_set=self._test_set,
            test_images=frozenset(self._test_names.values()),
            real_images=frozenset(names[content] for content in real.values()),
            judge_images=frozenset(names.get(content, f"image {content}") for content in judge),
        )

    def after(self, arm: str, result: Mapping[str, Any]) -> Facts:
        """What an arm came to.

        Args:
            arm: its name.
            result: its part of the run's result.

        Raises:
            UserError: it was not trained on the real images that it should have; or as `before`.
        """
        run, settings = self.run, self.run.recipe.arms[arm]
        store = self._store(arm)
        prints, generators = [], set()
        for sample, _ in store.accepted():
            prints.append(thumbnail(from_png(sample.image)))
            generators.add(sample.made_by.get("revision", ""))
        known = self.before(arm)
        expected = len(run.train(arm)) if settings.real else 0
        trained = result["rounds"][-1].get("real", expected)
        if trained != expected:
            raise UserError(f"{arm} was trained on {trained} real images, not on {expected}")
        if not settings.real:
            known = replace(known, real_images=self._drawn_from(arm))
        if not prints:
            return replace(known, steps=result["steps"])
        distances, _ = nearest(torch.cat(prints), run.data.forbidden)
        return replace(
            known,
            steps=result["steps"],
            images=len(prints),
            test_distances=tuple(distances.tolist()),
            sampling=asdict(run.recipe.sampling) | {"prompts": run.of(arm).prompts.fingerprint},
            generator=fingerprint(sorted(generators)),
        )

    @property
    def doubts(self) -> list[str]:
        """What forbids nothing, but should be known."""
        return self._unsaid + self._members + self._adapted + self._shown + self._near_copies

    @property
    def _unsaid(self) -> list[str]:
        asked = {member: role for of in self._asked.values() for member, role in of.items()}
        silent = [member for member in asked if self.run.judges.told_by(member) == ()]
        if not silent:
            return []
        return [
            f"a {asked[silent[0]]}'s file does not say which images it has learnt from "
            f"({self.run.judges.file_of(silent[0])}): it is taken for one that this version would "
            "have trained; without the file it is trained again"
        ]

    @property
    def _members(self) -> list[str]:
        """Of the committee's trained models, whose files are the user's."""
        members = self.run.recipe.learner.committee
        if not members or not self.run.generates:
            return []
        files = ", ".join(str(of.file) for of in members)
        return [
            f"it is not known which images the models of learner.committee have learnt from "
            f"({files}): if test images are among them, arms that ask the committee are flattered"
        ]

    @property
    def _adapted(self) -> list[str]:
        """Of a generator that has learnt from more than learners have."""
        known = set(self._train.values())
        generators: dict[str, frozenset[str]] = {}
        for arm in self.run.recipe.arms:
            generators |= self._generators(arm)
        return [
            f"the generator in '{folder}' has learnt from {len(learnt)} real images, and not all "
            "learners from all of these, so arms that generate may know more of real images than "
            "their number of labelled ones says"
            for folder, learnt in generators.items()
            if not learnt <= known
        ]

    @property
    def _shown(self) -> list[str]:
        """What differs between arms without real images: those that they are drawn from."""
        recipe = self.run.recipe
        alone = [
            name for name, of in recipe.arms.items() if not of.real and self.run.finished(name)
        ]
        shown = {arm: self._drawn_from(arm) for arm in alone}
        if len(set(shown.values())) < 2:
            return []
        return [
            f"{arm} learns from no real images, but was drawn with {len(of)} of {len(self._train)} "
            f"labelled ones in sight with seed {recipe.seed}: {_some(of)}; other arms without real "
            "images were shown others, or none"
            for arm, of in shown.items()
            if of
        ]

    @cached_property
    def _near_copies(self) -> list[str]:
        """Images that are the same to no bit, but look alike, across splits.

        Of large sets a part of the first is looked at, evenly; it takes seconds.
        """
        run = self.run
        train = max(map(run.train, run.recipe.arms), key=len)
        own = contents(train)
        train = train.subset(k for k, id in enumerate(train.ids) if own[id] not in self._test_names)
        told = self._near("labelled real", train, "test", run.data.test)
        if val := run.data.val:
            told += self._near("labelled real", train, "val", val)
            told += self._near("val", val, "test", run.data.test)
        return told

    def _near(self, what: str, images: Real, other: str, others: Real) -> list[str]:
        part = range(0, len(images), 1 + len(images) * len(others) // PAIRS)
        distances, at = nearest(thumbnails(images.subset(part)), thumbnails(others))
        near = is_duplicate(distances).nonzero()[:, 0].tolist()
        looked = "" if len(part) == len(images) else f" of {len(part)} that were looked at"
        if near:
            pair = f"{images.ids[part[near[0]]]} of {others.ids[int(at[near[0]])]}"
            return [
                f"{len(near)} {what} images{looked} are near-copies of {other} images, such as "
                f"{pair}: figures may be higher than on new images, those of all arms alike"
            ]
        if looked:
            return [
                f"{len(part)} of {len(images)} {what} images were looked at, evenly, for near-"
                f"copies of {other} images: none is"
            ]
        return []

    def _learnt_by_asked(self, arm: str) -> frozenset[str]:
        """Contents of the images that all models have learnt from which an arm asks."""
        known: frozenset[str] = frozenset()
        for member, role in self._asked[arm].items():
            learnt = self.run.judges.learnt_from(member)
            unlabelled = learnt.difference(self._train.values())  # others are a matter of the data
            if saw := [self._test_names[of] for of in unlabelled if of in self._test_names]:
                drawn = [name for name, of in self._asked.items() if member in of]
                raise UserError(
                    f"the {role} of {arm} has learnt from test images: {_some(saw)}; delete "
                    f"'{self.run.judges.file_of(member)}' and, of what was drawn with it, the "
                    f"folders {', '.join(drawn)} in '{self.run.folder / 'arms'}': all of it is "
                    "made again, by labelled images alone"
                )
            known |= learnt
        return known

    def _refuse_generators(self, arm: str) -> None:
        for folder, learnt in self._generators(arm).items():
            unlabelled = learnt.difference(self._train.values())  # others are a matter of the data
            if saw := [self._test_names[of] for of in unlabelled if of in self._test_names]:
                raise UserError(
                    f"the generator in '{folder}' was adapted to test images: {_some(saw)}; adapt "
                    "it to labelled images alone, in another folder"
                )

    def _generators(self, arm: str) -> dict[str, frozenset[str]]:
        """By folder, contents of the images that an arm's was adapted to, if its card says so."""
        recipe = self.run.of(arm).recipe
        if recipe.arms[arm].generate == "none":
            return {}
        controls = recipe.segmentation.controls if recipe.segmentation else ()
        folders = [of.path for of in (recipe.model, *(recipe.model.lora or ()), *controls)]
        learnt = {folder: adapted_to(folder) for folder in folders}
        return {folder: of for folder, of in learnt.items() if of}

    @cached_property
    def _asked(self) -> dict[str, dict[int, str]]:
        """By arm."""
        return {arm: self.run.asked(arm) for arm in self.run.recipe.arms}

    def _drawn_from(self, arm: str) -> frozenset[str]:
        """Labelled images that requests refer to."""
        store = self._store(arm)
        requests = [request for k in store.rounds() for request in store.round(k).plan() or []]
        used = {id for request in requests for id in (request.reference, request.mask) if id}
        return frozenset(self._train_names[id] for id in used)

    def _store(self, arm: str) -> Store:
        return Store(str(self.run.folder / "arms" / arm / "store"))

    @cached_property
    def _train_names(self) -> dict[str, str]:
        """By id."""
        called = {content: id for id, content in self._train.items()} | self._test_names
        return {id: called[content] for id, content in self._train.items()}

    @cached_property
    def _train(self) -> dict[str, str]:
        return contents(self.run.data.train)

    @cached_property
    def _test_names(self) -> dict[str, str]:
        """By content."""
        test = contents(self.run.data.test)
        return {content: f"test image {id}" for id, content in test.items()}

    @cached_property
    def _test_set(self) -> str:
        return labelled(self.run.data.test)


def _some(names: Collection[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def differs_on_purpose(
    arm: Facts, baseline: Facts, settings: Sequence[ArmSettings], budget: int
) -> Collection[str]:
    """Checks of fairness that the settings of two arms ask to leave out.

    More real images contain the others, and synthetic ones alone are drawn from no others. Two arms
    of synthetic ones alone learn from no real images, whatever they are drawn from. Arms may change
    their generator, their prompts and the number of their images. An arm whose candidates were
    rejected before the budget was filled has the fewer images by its own doing; more than the
    budget is never allowed.

    Args:
        arm, baseline: of the two.
        settings: of the two.
        budget: synthetic images that the one of them with more may learn from.
    """
    allowed = []
    real = {(of.real, of.more_real) for of in settings}
    ours, theirs = arm.real_images, baseline.real_images
    alone = not any(of.real for of in settings)
    if alone or (len(real) > 1 and (ours <= theirs or theirs <= ours)):
        allowed.append("real images")
    if max(arm.images, baseline.images) <= budget:
        allowed.append("images")
    changed = {key for of in settings for key in of.changes}
    if any(key.partition(".")[0] == "prompts" for key in changed):
        allowed.append("sampling")  # of which prompts are all that an arm can change
    if changes_generator(changed):
        allowed.append("generator")
    return tuple(allowed)
