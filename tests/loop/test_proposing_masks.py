from collections import Counter

import numpy as np
import pytest
import torch

from activegen.data.prompts import Prompts
from activegen.loop.objects import ObjectSettings, objects
from activegen.loop.proposing import Origin
from activegen.loop.proposing_masks import (
    JudgedScene,
    MaskProposalSettings,
    Scene,
    class_hardness,
    copies,
    judged_scene,
    propose_scenes,
    propose_scenes_plain,
)
from activegen.records import UserError

CLASSES = ("sky", "forest", "river", "houses")
WORDS = {"sky": ("the sky",), "forest": ("a forest",), "river": ("a river",), "houses": ("houses",)}
PROMPTS = Prompts(("a photo of {word}",), WORDS)
ORIGIN = Origin(3, "active", "state")
LOSSES = {1: 0.1, 2: 0.5, 3: 2.0}
# easy, middle and hard masks; of the hardest class there are two only
SCENES = (
    [Scene(f"easy-{k}", {1: 100}, (1, 1)) for k in range(12)]
    + [Scene(f"middle-{k}", {1: 60, 2: 40}, (1, 2)) for k in range(6)]
    + [Scene(f"hard-{k}", {1: 50, 3: 50}, (3, 1)) for k in range(2)]
)
JUDGED = [JudgedScene(scene, {k: LOSSES[k] for k in scene.pixels}) for scene in SCENES]
BY_ID = {scene.id: scene for scene in SCENES}


def proposed(progress: float = 1.0, judged=JUDGED, seed: int = 0, **settings):
    made = MaskProposalSettings(**({"budget": 200, "max_repeats": 1000} | settings))
    rng = np.random.default_rng(seed)
    return propose_scenes(judged, CLASSES, PROMPTS, made, progress, ORIGIN, rng)


def kinds(requests) -> Counter:
    return Counter(request.mask.split("-")[0] for request in requests)


def test_copies_follow_the_rank():
    # of 100 masks: rank / 100 * 20, rounded, plus 1, at most 20
    made = copies([float(k) for k in range(100)])
    assert made[0] == 1 and made[50] == 11 and made[99] == made[95] == 20 and made[90] == 19
    assert sorted(made) == made
    assert copies([2.0] * 5) == [1] * 5


def test_hardness_of_a_class_is_its_mean_over_pixels():
    judged = [
        JudgedScene(Scene("a", {1: 30, 2: 10}), {1: 1.0, 2: 4.0}),
        JudgedScene(Scene("b", {1: 10}), {1: 5.0}),
    ]
    assert class_hardness(judged) == {1: 2.0, 2: 4.0}
    assert judged[0].loss == pytest.approx(1.75)


def test_masks_are_drawn_in_proportion_to_their_copies():
    requests = proposed()
    assert len(requests) == 400
    # ranks 0, 12 and 18 of 20: 1, 13 and 19 images
    weights = {"easy": 12 * 1, "middle": 6 * 13, "hard": 2 * 19}
    found = kinds(requests)
    for kind, weight in weights.items():
        assert found[kind] / 400 == pytest.approx(weight / sum(weights.values()), abs=0.08)


def test_a_mask_is_as_hard_as_its_pixels_on_average():
    judged = [
        JudgedScene(Scene("speck-0", {1: 98, 3: 2}), {1: 0.1, 3: 2.0}),
        JudgedScene(Scene("whole-0", {2: 100}), {2: 0.5}),
    ]
    found = kinds(proposed(judged=judged))
    assert found["whole"] / 400 == pytest.approx(11 / 12, abs=0.08)


def test_uniform_takes_each_mask_and_balanced_each_class_equally_often():
    uniform = kinds(proposed(sampling="uniform"))
    assert uniform["hard"] / 400 == pytest.approx(2 / 20, abs=0.04)
    requests = proposed(sampling="balanced")
    targets = Counter(request.target for request in requests)
    assert set(targets) == {1, 2, 3}
    assert all(count / 400 == pytest.approx(1 / 3, abs=0.08) for count in targets.values())
    assert all(request.target in BY_ID[request.mask].pixels for request in requests)


def test_the_target_is_the_hardest_class_and_named_first():
    for request in proposed():
        kind = request.mask.split("-")[0]
        target, prompt, word = {
            "easy": (1, "a photo of a forest", "forest"),
            "middle": (2, "a photo of a river and a forest", "river"),
            "hard": (3, "a photo of houses and a forest", "houses"),
        }[kind]
        assert (request.target, request.prompt, request.word) == (target, prompt, word)
        assert (request.round, request.arm, request.part) == (3, "active", 0)


def test_names_without_room_are_left_out_from_the_end():
    scene = Scene("all", {1: 50, 2: 30, 3: 20}, (3, 2))
    judged = [JudgedScene(scene, LOSSES)]
    settings = MaskProposalSettings(budget=3, spare=1.0)

    def told(fits) -> set[str]:
        rng = np.random.default_rng(0)
        found = propose_scenes(judged, CLASSES, PROMPTS, settings, 1.0, ORIGIN, rng, fits)
        rng = np.random.default_rng(0)
        plain = propose_scenes_plain(2, [scene], CLASSES, PROMPTS, ORIGIN, rng, True, fits)
        assert {request.target for request in found} == {3}
        assert all(request.word in request.prompt for request in (*found, *plain))
        return {request.prompt for request in (*found, *plain) if request.target == 3}

    assert told(lambda prompt: True) == {"a photo of houses, a forest and a river"}
    assert told(lambda prompt: "river" not in prompt) == {"a photo of houses and a forest"}
    assert told(lambda prompt: False) == {"a photo of houses"}


def test_no_mask_is_drawn_more_often_than_allowed():
    requests = proposed(max_repeats=3, budget=25)
    assert len(requests) == 50
    assert max(Counter(request.mask for request in requests).values()) == 3
    assert len(proposed(max_repeats=2)) == 2 * len(SCENES)
    balanced = Counter(r.mask for r in proposed(max_repeats=2, sampling="balanced"))
    assert set(balanced.values()) == {2} and len(balanced) == len(SCENES)


def test_objects_are_drawn_by_the_hardness_of_their_class():
    requests = proposed(objects=True)
    for request in requests:
        assert request.target == BY_ID[request.mask].objects[request.part - 1]
        assert request.prompt.startswith(f"a photo of {WORDS[CLASSES[request.target]][0]}")
    targets = Counter(request.target for request in requests)
    # 32 easy objects of rank 0, 6 of rank 32 and 2 of rank 38 of 40: 1, 17 and 20 images
    weights = {1: 32 * 1, 2: 6 * 17, 3: 2 * 20}
    for label, weight in weights.items():
        assert targets[label] / 400 == pytest.approx(weight / sum(weights.values()), abs=0.08)
    once = proposed(objects=True, max_repeats=1)
    assert len({(r.mask, r.part) for r in once}) == len(once) == 40


def test_ways_stand_together_within_the_budget_and_plain_ones_have_no_state():
    requests = proposed(progress=0.0, plain_share=0.5)
    for part in (requests[:200], requests[200:]):
        ways = [request.steering for request in part]
        assert ways == sorted(ways, key=["plain", "guided"].index)
        assert ways.count("plain") == pytest.approx(100, abs=30)
    assert all((r.state == "state") == (r.steering == "guided") for r in requests)
    assert {r.steering for r in proposed(progress=1.0, plain_share=0.5)} == {"guided"}


def test_seeds_and_ids_differ_and_the_generator_decides():
    requests = proposed()
    assert len({r.id for r in requests}) == len({r.seed for r in requests}) == 400
    assert proposed() == requests != proposed(seed=1)


def test_plain_ones_take_masks_equally_often_for_any_class():
    rng = np.random.default_rng(0)
    requests = propose_scenes_plain(410, SCENES, CLASSES, PROMPTS, ORIGIN, rng)
    assert len(requests) == 410
    assert set(Counter(r.mask for r in requests).values()) == {20, 21}
    assert all(r.steering == "plain" and not r.state for r in requests)
    hard = Counter(r.target for r in requests if r.mask.startswith("hard"))
    assert set(hard) == {1, 3} and hard[3] / hard.total() == pytest.approx(0.5, abs=0.2)
    parts = propose_scenes_plain(80, SCENES, CLASSES, PROMPTS, ORIGIN, rng, objects=True)
    assert all(r.target == BY_ID[r.mask].objects[r.part - 1] for r in parts)


def test_a_scene_counts_what_its_mask_shows():
    mask = torch.zeros(20, 20, dtype=torch.uint8)
    mask[:, 10:] = 2
    mask[:10, 10:] = 1
    mask[0, 0] = 3
    mask[19] = 255
    things = objects(mask, ObjectSettings(min_area=0), background=(0,))
    scene = Scene.of("a", mask, background=(0,), objects=things)
    assert scene == Scene("a", {1: 100, 2: 90, 3: 1}, (1, 2, 3))
    assert scene.named == [1, 2]  # one pixel is not worth a word


def test_a_judged_scene_has_the_mean_loss_of_each_class():
    mask = torch.tensor([[0, 1, 1], [255, 1, 0]])
    scene = Scene.of("a", mask, background=(0,))
    logits = torch.zeros(2, 3, 2, 3)
    logits[:, 1, 0, 1] = 50.0
    judged = judged_scene(scene, logits, mask)
    assert judged.losses == {1: pytest.approx(2 / 3 * np.log(3))}
    assert judged.loss == pytest.approx(2 / 3 * np.log(3))


def test_a_class_that_the_learner_cannot_see_is_not_hard():
    mask = torch.tensor([[0, 1], [1, 1]])
    scene = Scene("a", {1: 3, 2: 50})
    judged = [judged_scene(scene, torch.zeros(1, 3, 2, 2), mask)]
    assert judged[0].losses == {1: pytest.approx(np.log(3))}
    assert judged[0].loss == class_hardness(judged)[1] == pytest.approx(np.log(3))
    assert {request.target for request in proposed(judged=judged)} == {1}


def test_masks_without_a_class_are_not_drawn():
    empty = Scene("empty", {})
    judged = [*JUDGED[-1:], JudgedScene(empty, {})]
    assert {r.mask for r in proposed(judged=judged)} == {"hard-1"}
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="no mask shows a class"):
        proposed(judged=judged[1:])
    with pytest.raises(UserError, match="no mask has an object"):
        proposed(judged=judged[1:], objects=True)
    with pytest.raises(UserError, match="no mask shows an object"):
        propose_scenes_plain(1, [empty], CLASSES, PROMPTS, ORIGIN, rng, objects=True)


@pytest.mark.parametrize(
    "wrong", [{"budget": -1}, {"spare": 0.5}, {"sampling": "hard"}, {"max_repeats": 0}]
)
def test_bad_settings(wrong):
    with pytest.raises(UserError, match="proposal"):
        MaskProposalSettings(**wrong)
