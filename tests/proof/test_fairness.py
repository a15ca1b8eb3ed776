import math
from dataclasses import replace

import pytest

from activegen.proof.fairness import CHECKS, LEAKS, Facts, refuse, refuse_leaks, violations
from activegen.records import UnknownWord, UserError

UNGUIDED = Facts(
    arm="unguided",
    seeds=(0, 1, 2),
    steps=800,
    test_set="set",
    test_images=frozenset({"t1", "t2"}),
    real_images=frozenset({"r1", "r2", "r3"}),
    images=3,
    test_distances=(1.0, 4.0, 9.0),
    judge_images=frozenset({"r1", "r2"}),
    sampling={"steps": 20, "cfg_scale": 3.0},
    generator="g",
)
GUIDED = replace(UNGUIDED, arm="guided")

PLANTED = {
    "unchecked images": ({"test_distances": (4.0, 9.0)}, "3 synthetic images, of which 2"),
    "leak": ({"test_distances": (0.99, math.nan, 9.0)}, "2 near-copies of test images"),
    "test images in training": (
        {"real_images": frozenset({"r1", "r2", "r3", "t2"})},
        "used test images as labelled ones: t2",
    ),
    "judge saw the test": ({"judge_images": frozenset({"r1", "t1"})}, "the judge of guided .* t1"),
    "seeds": ({"seeds": (0, 1, 5)}, "different seeds: 2, 5"),
    "steps": ({"steps": 900}, "unequal optimiser steps: guided 900, unguided 800"),
    "test set": ({"test_set": "other"}, "different test sets"),
    "real images": ({"real_images": frozenset({"r1"})}, "labelled real images: r2, r3"),
    "images": ({"images": 2, "test_distances": (2.0, 3.0)}, "guided 2, unguided 3"),
    "generator": ({"generator": "h"}, "different generators"),
    "sampling": ({"sampling": {"steps": 20, "cfg_scale": 6.0, "eta": 1}}, "cfg_scale, eta"),
}


def test_equal_arms_may_be_compared():
    assert violations(GUIDED, UNGUIDED) == ()
    refuse([GUIDED], UNGUIDED)


def test_every_check_has_a_plant():
    assert set(PLANTED) == {*LEAKS, *CHECKS}


@pytest.mark.parametrize("check", sorted(PLANTED))
def test_each_is_refused_with_its_reason(check):
    change, words = PLANTED[check]
    planted = replace(GUIDED, **change)
    assert check in {violation.check for violation in violations(planted, UNGUIDED)}
    with pytest.raises(UserError, match=words):
        refuse([GUIDED, planted], UNGUIDED)


@pytest.mark.parametrize("leak", sorted(LEAKS))
def test_a_leak_is_refused_without_another_arm(leak):
    change, words = PLANTED[leak]
    refuse_leaks([GUIDED, replace(GUIDED, steps=900)])
    with pytest.raises(UserError, match=f"(?s)not to be believed:.*{words}"):
        refuse_leaks([UNGUIDED, replace(GUIDED, **change)])


@pytest.mark.parametrize("check", ["seeds", "steps", "test set", "real images", "images"])
def test_the_baseline_may_be_the_other_one(check):
    planted = replace(UNGUIDED, **PLANTED[check][0])
    assert [violation.check for violation in violations(GUIDED, planted)] == [check]


@pytest.mark.parametrize("check", sorted(LEAKS))
def test_leaks_are_found_in_the_baseline_and_never_allowed(check):
    planted = replace(UNGUIDED, **PLANTED[check][0])
    assert check in {violation.check for violation in violations(GUIDED, planted)}
    with pytest.raises(UnknownWord, match="unknown check"):
        violations(GUIDED, planted, allowed=[check])


def test_other_test_images_under_the_name_of_the_same_set():
    planted = replace(GUIDED, test_images=frozenset({"t1"}))
    assert [violation.check for violation in violations(planted, UNGUIDED)] == ["test set"]


def test_real_only_has_no_generator_to_differ_in():
    real = Facts("real", UNGUIDED.seeds, 800, "set", UNGUIDED.test_images, UNGUIDED.real_images)
    assert violations(GUIDED, real) == violations(real, UNGUIDED) == ()


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_what_differs_on_purpose_may(check):
    planted = replace(GUIDED, **PLANTED[check][0])
    assert violations(planted, UNGUIDED, allowed=[check]) == ()
    refuse([planted], UNGUIDED, {"guided": [check]})


def test_all_reasons_are_told_once():
    changed = {"steps": 900, **PLANTED["leak"][0], **PLANTED["judge saw the test"][0]}
    others = [replace(GUIDED, **changed), replace(GUIDED, arm="pool", seeds=(7,))]
    leaky = replace(UNGUIDED, test_distances=(0.0, 4.0, 9.0))
    with pytest.raises(UserError) as told:
        refuse(others, leaky)
    lines = str(told.value).splitlines()[1:]
    assert len(lines) == 5 and len(set(lines)) == 5
    assert sum("unguided learnt from 1 near-copies" in line for line in lines) == 1


def test_many_differences_are_not_all_listed():
    planted = replace(GUIDED, real_images=frozenset({f"x{i}" for i in range(10)}))
    with pytest.raises(UserError, match="and 10 more"):
        refuse([planted], UNGUIDED)
