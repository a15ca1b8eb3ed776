"""Whether ways of drawing can work with what a recipe draws, said before any work."""

from collections.abc import Callable

from activegen.guidance.recurrence import ONE_STEP, walks_again
from activegen.recipes.schema import Recipe
from activegen.recipes.steering import Guidance, Spec, TermSpec, check_committee, objectives
from activegen.records import UserError

OF_ONE_OBJECT = ("object", "background")
MEND = "set segmentation.proposal.objects to true"


def check_ways(ways: Guidance, masks: bool, objects: bool, scheduler: Callable[[], str]) -> None:
    """Looks for terms and objectives that would fail when drawing begins.

    Args:
        ways: that images are drawn in, by name.
        masks: labels are masks.
        objects: each image redraws one object of a real one.
        scheduler: the class of the scheduler, "" if unknown; asked only if it matters.

    Raises:
        UserError: there are.
    """
    for name, specs in ways.items():
        for spec in specs:
            if problem := _problem(spec, masks, objects, scheduler):
                raise UserError(f"guidance.{name}: {problem}")


def check_committees(recipe: Recipe) -> None:
    """Looks for arms that ask a committee which they do not have.

    Raises:
        UserError: there are.
    """
    for name, arm in recipe.arms.items():
        if not arm.mines or arm.changes:
            continue  # an arm that changes keys is looked at with these
        own = recipe.mining.members(arm)
        members = 1 + own + len(recipe.learner.committee)
        if arm.of == "committee" and members == 1:
            raise UserError(
                f"the arm '{name}' ranks by the score of a committee, and the learner is alone: "
                "set mining.split to cross_fit or bagging, learner.committee, or 'of: learner'"
            )
        if arm.generate == "guided":
            check_committee(recipe.guidance, members)


def _problem(spec: TermSpec, masks: bool, objects: bool, scheduler: Callable[[], str]) -> str:
    """What is wrong with a term; "" where nothing is."""
    body: Spec = spec.body
    found = [_of_region(getattr(body, key, ""), masks, objects) for key in ("mask", "region")]
    if spec.word == "inpaint" and not objects:
        found.append(f"inpaint keeps what is around a redrawn object, and there is none; {MEND}")
    if spec.word == "reference_pull" and masks and not objects:
        found.append(
            "reference_pull has no real image to pull to where whole scenes are drawn for masks; "
            f"leave it out, or {MEND}"
        )
    if spec.word == "recurrence" and spec.body.times > 1:
        kind = scheduler()
        if kind and not walks_again(kind):
            found.append(
                f"recurrence walks steps again, and {kind} remembers earlier ones; set "
                f"sampling.scheduler to one of: {', '.join(ONE_STEP)}"
            )
    for objective in objectives([spec]):
        if objective.body.weight == 0:
            continue
        if masks and objective.word == "repulsion":
            found.append("repulsion compares images of one class, and a mask has several")
        if not masks and objective.word == "segment_consistency":
            found.append("segment_consistency is of the segments of masks, and a class has none")
        inside = objective.body.inside
        found.append(_of_region(inside, masks, objects))
        if not masks and inside != "everywhere":
            found.append(f"{objective.word} inside '{inside}' is of the pixels of masks")
    return next(filter(None, found), "")


def _of_region(word: str, masks: bool, objects: bool) -> str:
    if word in OF_ONE_OBJECT and not objects:
        return f"the region '{word}' is told by a redrawn object, and there is none; {MEND}"
    if word == "labelled" and not masks:
        return "the region 'labelled' is of masks, and labels are classes"
    return ""
