"""What cannot work is said of a recipe, and what can is not."""

from typing import Any

import pytest

from activegen.recipes import load, packaged, parse
from activegen.recipes.fitting import check_ways
from activegen.records import UserError

ENTROPY: dict[str, Any] = {"of": "latents", "through": "decoder", "objectives": ["entropy"]}
INSIDE = {"ascend": {**ENTROPY, "objectives": [{"entropy": {"inside": "object"}}]}}
LABELLED = {"ascend": {**ENTROPY, "objectives": [{"entropy": {"inside": "labelled"}}]}}
REPULSION = {"ascend": {**ENTROPY, "objectives": [{"repulsion": {}}]}}
CONSISTENT = {"ascend": {**ENTROPY, "objectives": ["segment_consistency"]}}
REDRAWN = {"ascend": {**ENTROPY, "region": "object"}}
AROUND = {"reference_pull": {"mask": "background"}}


def check(term: Any, kind: str, scheduler: str = "DDIMScheduler") -> None:
    guidance = parse({"data": {"layout": "world"}, "guidance": {"mine": [term]}}).guidance
    check_ways(guidance, kind != "classes", kind == "objects", lambda: scheduler)


@pytest.mark.parametrize(
    ("term", "kinds", "said"),
    [
        (REDRAWN, ("classes", "masks"), "'object' is told by a redrawn object.*objects to true"),
        (INSIDE, ("classes", "masks"), "'object' is told by a redrawn object"),
        (AROUND, ("classes", "masks"), "'background' is told by a redrawn object"),
        (LABELLED, ("classes",), "'labelled' is of masks"),
        ("inpaint", ("classes", "masks"), "guidance.mine: inpaint keeps .*objects to true"),
        ("reference_pull", ("masks",), "no real image to pull to"),
        (REPULSION, ("masks", "objects"), "repulsion compares images of one class"),
        (CONSISTENT, ("classes",), "a class has none"),
    ],
)
def test_what_cannot_work(term: Any, kinds: tuple[str, ...], said: str) -> None:
    for kind in ("classes", "masks", "objects"):
        if kind in kinds:
            with pytest.raises(UserError, match=said):
                check(term, kind)
        else:
            check(term, kind)


def test_repulsion_without_weight_is_not_asked() -> None:
    check({"ascend": {**ENTROPY, "objectives": ["entropy", {"repulsion": {"weight": 0}}]}}, "masks")


def test_a_scheduler_that_remembers_cannot_walk_again() -> None:
    for name in ("DDIMScheduler", "EulerDiscreteScheduler", ""):
        check({"recurrence": {"times": 2}}, "classes", name)
    check({"recurrence": {"times": 1}}, "classes", "UniPCMultistepScheduler")
    with pytest.raises(UserError, match=r"UniPCMultistepScheduler remembers.*one of: ddim, ddpm"):
        check({"recurrence": {"times": 2}}, "masks", "UniPCMultistepScheduler")


@pytest.mark.parametrize("name", sorted(packaged()))
def test_packaged_ways_fit(name: str) -> None:
    recipe = load(name, ["data.path=somewhere"])
    masks = recipe.segmentation
    check_ways(recipe.guidance, masks is not None, bool(masks and masks.proposal.objects), str)
