"""What the arms of a run were made with, as far as the run's folder and its data show."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import torch

from activegen.data.fingerprints import nearest, thumbnail
from activegen.loop.settings import ArmSettings
from activegen.proof.fairness import Facts
from activegen.recipes.data import contents, labelled
from activegen.recipes.run import Run
from activegen.records import UserError, fingerprint
from activegen.store import Store, from_png


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
            for images in run.judge_learnt_from():
                seen = contents(images)
                names = {content: id for id, content in seen.items()} | names
                judge |= set(seen.values())
        return Facts(
            arm=arm,
            seeds=(run.recipe.seed,),
            steps=0,
            test_set=self._test_set,
            test_images=frozenset(self._test_names.values()),
            real_images=frozenset(names[content] for content in real.values()),
            judge_images=frozenset(names[content] for content in judge),
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

    def _drawn_from(self, store: Store) -> frozenset[str]:
        """Labelled images that requests refer to."""
        requests = [request for k in store.rounds() for request in store.round(k).plan() or []]
        used = {id for request in requests for id in (request.reference, request.mask) if id}
        return frozenset(self._train_names[id] for id in used)

    @cached_property
    def _train_names(self) -> dict[str, str]:
        """By id."""
        real = contents(self.run.data.train)
        called = {content: id for id, content in real.items()} | self._test_names
        return {id: called[content] for id, content in real.items()}

    @cached_property
    def _test_names(self) -> dict[str, str]:
        """By content."""
        test = contents(self.run.data.test)
        return {content: f"test image {id}" for id, content in test.items()}

    @cached_property
    def _test_set(self) -> str:
        return labelled(self.run.data.test)


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
