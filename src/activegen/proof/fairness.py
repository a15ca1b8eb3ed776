"""Whether two arms may be compared at all; each thing that forbids it has words."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from activegen.records import UserError, choose

NEAR_COPY = 1.0  # distances of fingerprints below this are of near-copies
SHOWN = 3  # ids named in a message


@dataclass(frozen=True)
class Facts:
    """What an arm was made with. Images are named by their content, never by a path.

    Args:
        arm: its name.
        seeds: it was run with.
        steps: optimiser steps of each training.
        test_set: fingerprint of the test images with their labels, in their order.
        test_images: ids of the test images.
        real_images: ids of all labelled real images that the arm used: learnt from, mined, steered
            towards. What one arm mines from, the others must train on.
        images: synthetic images learnt from.
        test_distances: of each of those to the nearest test image, `fingerprints.nearest`'s unit:
            below 1 is a near-copy.
        judge_images: ids of the images that the judge, or a teacher, has learnt from.
        sampling: settings of sampler, guidance scale and prompts, by name.
        generator: fingerprint of the generator; "" for an arm without one.
    """

    arm: str
    seeds: tuple[int, ...]
    steps: int
    test_set: str
    test_images: frozenset[str]
    real_images: frozenset[str]
    images: int = 0
    test_distances: tuple[float, ...] = ()
    judge_images: frozenset[str] = frozenset()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    generator: str = ""


class Violation(NamedTuple):
    """Why not.

    Args:
        check: name of what forbids it, a key of `LEAKS` or `CHECKS`.
        words: which arms, and how they differ.
    """

    check: str
    words: str


def _unchecked(arm: Facts) -> str:
    if len(arm.test_distances) == arm.images:
        return ""
    return (
        f"{arm.arm} learnt from {arm.images} synthetic images, of which"
        f" {len(arm.test_distances)} were compared with the test images"
    )


def _leak(arm: Facts) -> str:
    found = sum(not distance >= NEAR_COPY for distance in arm.test_distances)  # nan is one
    return f"{arm.arm} learnt from {found} near-copies of test images" if found else ""


def _test_in_training(arm: Facts) -> str:
    shared = arm.real_images & arm.test_images
    return f"{arm.arm} used test images as labelled ones: {_some(shared)}" if shared else ""


def _judge_saw(arm: Facts) -> str:
    shared = arm.judge_images & arm.test_images
    return f"the judge of {arm.arm} has learnt from test images: {_some(shared)}" if shared else ""


def _seeds(arm: Facts, baseline: Facts) -> str:
    return _unequal(arm, baseline, "seeds", set(arm.seeds) ^ set(baseline.seeds))


def _steps(arm: Facts, baseline: Facts) -> str:
    if arm.steps == baseline.steps:
        return ""
    return (
        f"unequal optimiser steps: {arm.arm} {arm.steps}, {baseline.arm} {baseline.steps};"
        " train both for as long"
    )


def _test_set(arm: Facts, baseline: Facts) -> str:
    if arm.test_set == baseline.test_set and arm.test_images == baseline.test_images:
        return ""
    return f"{arm.arm} and {baseline.arm} were tested on different test sets"


def _real_images(arm: Facts, baseline: Facts) -> str:
    return _unequal(arm, baseline, "labelled real images", arm.real_images ^ baseline.real_images)


def _images(arm: Facts, baseline: Facts) -> str:
    if not arm.images or not baseline.images or arm.images == baseline.images:
        return ""
    return (
        f"unequal numbers of synthetic images: {arm.arm} {arm.images},"
        f" {baseline.arm} {baseline.images}"
    )


def _generator(arm: Facts, baseline: Facts) -> str:
    if not arm.generator or not baseline.generator or arm.generator == baseline.generator:
        return ""
    return f"{arm.arm} and {baseline.arm} were drawn by different generators"


def _sampling(arm: Facts, baseline: Facts) -> str:
    if not arm.generator or not baseline.generator:
        return ""
    names = sorted({*arm.sampling, *baseline.sampling})
    unequal = [name for name in names if arm.sampling.get(name) != baseline.sampling.get(name)]
    return _unequal(arm, baseline, "settings of sampling", unequal)


def _unequal(arm: Facts, baseline: Facts, what: str, differing: Collection[object]) -> str:
    if not differing:
        return ""
    return f"{arm.arm} and {baseline.arm} have different {what}: {_some(differing)}"


def _some(names: Collection[object]) -> str:
    listed = sorted(map(str, names))
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


LEAKS: Mapping[str, Callable[[Facts], str]] = {
    "unchecked images": _unchecked,
    "leak": _leak,
    "test images in training": _test_in_training,
    "judge saw the test": _judge_saw,
}

CHECKS: Mapping[str, Callable[[Facts, Facts], str]] = {
    "seeds": _seeds,
    "steps": _steps,
    "test set": _test_set,
    "real images": _real_images,
    "images": _images,
    "generator": _generator,
    "sampling": _sampling,
}


def violations(arm: Facts, baseline: Facts, allowed: Collection[str] = ()) -> tuple[Violation, ...]:
    """All that forbids to compare the two.

    Leaks are looked for in both arms, and no leak can be allowed. Arms without synthetic images
    have neither a number of them, nor a generator, nor sampling that could differ.

    Args:
        arm: the one that is asked about.
        baseline: the one that it is compared with.
        allowed: keys of `CHECKS` that differ on purpose: "real images" of an arm of more real
            images, "images" where the budget is of seconds.

    Raises:
        UnknownWord: ``allowed`` names no check.
    """
    for name in allowed:
        choose(CHECKS, name, "check")
    unequal = [(name, find(arm, baseline)) for name, find in CHECKS.items() if name not in allowed]
    found = tuple(Violation(name, words) for name, words in unequal if words)
    return (*leaks(arm), *leaks(baseline), *found)


def leaks(arm: Facts) -> tuple[Violation, ...]:
    """All that forbids to believe an arm's figure, whatever it is compared with."""
    found = [(name, find(arm)) for name, find in LEAKS.items()]
    return tuple(Violation(name, words) for name, words in found if words)


def refuse_leaks(arms: Iterable[Facts]) -> None:
    """Nothing, if no arm's figure comes of a leak.

    Raises:
        UserError: with all leaks, one a line.
    """
    _refuse([v.words for arm in arms for v in leaks(arm)], "these figures are not to be believed")


def refuse(
    arms: Sequence[Facts], baseline: Facts, allowed: Mapping[str, Collection[str]] | None = None
) -> None:
    """Nothing, if each arm may be compared with the baseline.

    Args:
        arms: those that are asked about.
        baseline: the one that they are compared with.
        allowed: by name of the arm, what differs on purpose; see `violations`.

    Raises:
        UserError: with all that forbids it, one a line.
    """
    found = [
        v.words for arm in arms for v in violations(arm, baseline, (allowed or {}).get(arm.arm, ()))
    ]
    _refuse(found, "these arms cannot be compared")


def _refuse(found: Sequence[str], what: str) -> None:
    if found:
        reasons = "\n".join(f"- {words}" for words in dict.fromkeys(found))
        raise UserError(f"{what}:\n{reasons}")
