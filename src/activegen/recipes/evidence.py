"""What the arms of a run were made with, as far as the run's folder and its data show."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import cached_property
from typing import Any

import torch

from activegen.data.fingerprints import is_duplicate, nearest, thumbnail
from activegen.loop.settings import ArmSettings
from activegen.proof.fairness import Facts
from activegen.recipes.data import contents, labelled, thumbnails
from activegen.recipes.run import Run
from activegen.recipes.schema import Recipe
from activegen.records import UserError, fingerprint
from activegen.store import Store, from_png

PAIRS = 2_000_000  # of labelled and test images that are looked at for near-copies, at most


class Evidence:
    """Of one run, with one seed. Images are named by their pixels, and called by their ids."""

    def __init__(self, run: Run):
        self.run = run

    def before(self, arm: str) -> Facts:
        """What is known before an arm begins: no steps yet, and no synthetic images."""
        run, settings = self.run, self.run.recipe.arms[arm]
        real = contents(run.train(arm))
        names = {content: id for id, content in real.items()} | self._test_names
        judge: set[str] = set()
        if settings.judge and settings.generate != "none":
            names = {content: id for id, content in self._train.items()} | names
            judge = judge.union(*run.judge_learnt_from())
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
            UserError: it was not trained on the real images that it should have.
        """
        run, settings = self.run, self.run.recipe.arms[arm]
        store = Store(str(run.folder / "arms" / arm / "store"))
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
            known = replace(known, real_images=self._drawn_from(store))
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
        return self._unsaid + self._near_copies

    @property
    def _unsaid(self) -> list[str]:
        silent = self.run.silent_judges()
        if not silent:
            return []
        return [
            f"a judge's file does not say which images it has learnt from ({silent[0]}): it is "
            "taken for one that this version would have trained; without the file it is trained "
            "again"
        ]

    @cached_property
    def _near_copies(self) -> list[str]:
        """Labelled images that are no test image to the bit, but look like one.

        Of large sets a part is looked at, evenly; it takes seconds.
        """
        run = self.run
        train, test = max(map(run.train, run.recipe.arms), key=len), run.data.test
        own = contents(train)
        places = [k for k, id in enumerate(train.ids) if own[id] not in self._test_names]
        part = places[:: 1 + len(places) * len(test) // PAIRS]
        distances, at = nearest(thumbnails(train.subset(part)), thumbnails(test))
        near = is_duplicate(distances).nonzero()[:, 0].tolist()
        if not near:
            return []
        pair = f"{train.ids[part[near[0]]]} of {test.ids[int(at[near[0]])]}"
        looked = "" if len(part) == len(places) else f" of {len(part)} that were looked at"
        return [
            f"{len(near)} labelled real images{looked} are near-copies of test images, such as "
            f"{pair}: figures may be higher than on new images, those of all arms alike"
        ]

    def _drawn_from(self, store: Store) -> frozenset[str]:
        """Labelled images that requests refer to."""
        requests = [request for k in store.rounds() for request in store.round(k).plan() or []]
        used = {id for request in requests for id in (request.reference, request.mask) if id}
        return frozenset(self._train_names[id] for id in used)

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


def trained_otherwise(recipe: Recipe) -> list[str]:
    """What arms change of the training, so that a difference may come of it."""
    told = []
    for arm in recipe.arms:
        own, usual = recipe.of(arm).training, recipe.training
        changed = [
            f"{of.name} {getattr(own, of.name)} instead of {getattr(usual, of.name)}"
            for of in fields(own)
            if getattr(own, of.name) != getattr(usual, of.name)
        ]
        if changed:
            told.append(f"{arm} is trained otherwise than the recipe says: {', '.join(changed)}")
    return told


def differs_on_purpose(
    arm: Facts, baseline: Facts, settings: Sequence[ArmSettings], budget: int
) -> Collection[str]:
    """Checks of fairness that the settings of two arms ask to leave out.

    More real images contain the others, and synthetic ones alone are drawn from no others. Arms
    may change their prompts and the number of their images. An arm whose candidates were rejected
    before the budget was filled has the fewer images by its own doing; more than the budget is
    never allowed.

    Args:
        arm, baseline: of the two.
        settings: of the two.
        budget: synthetic images that the one of them with more may learn from.
    """
    allowed = []
    real = {(of.real, of.more_real) for of in settings}
    ours, theirs = arm.real_images, baseline.real_images
    if len(real) > 1 and (ours <= theirs or theirs <= ours):
        allowed.append("real images")
    if max(arm.images, baseline.images) <= budget:
        allowed.append("images")
    if any(key.partition(".")[0] == "prompts" for of in settings for key in of.changes):
        allowed.append("sampling")  # of which prompts are all that an arm can change
    return tuple(allowed)
