"""Every part holds every class, depends on the seed alone, and shares nothing with the others.

Of scenes, a part holds every class where it can.
"""

import numpy as np
import pytest
import torch

from activegen.data.images import RealImages
from activegen.data.scenes import RealScenes
from activegen.data.splits import bags, by_hash, few_shot, folds, held_out
from activegen.records import UserError

LABELS = tuple([0] * 20 + [1] * 7 + [2] * 40)


def numbered(index: int) -> torch.Tensor:
    return torch.full((3, 2, 2), index, dtype=torch.uint8)


MANY = RealImages("many", ("a", "b", "c"), tuple(f"i{n}" for n in range(67)), LABELS, numbered)


def counts(images: RealImages) -> list[int]:
    return [len(positions) for positions in images.by_class().values()]


def test_few_shot() -> None:
    few = few_shot(MANY, 3, seed=1)
    assert counts(few) == [3, 3, 3]
    assert few.ids == few_shot(MANY, 3, seed=1).ids
    assert few.ids != few_shot(MANY, 3, seed=2).ids
    assert set(few.ids) < set(few_shot(MANY, 5, seed=1).ids)
    for at, id in enumerate(few.ids):
        assert f"i{int(few.image(at)[0, 0, 0])}" == id


def test_few_shot_is_the_same_on_every_machine() -> None:
    order = np.random.default_rng((5, 1)).permutation(7)[:2]
    assert few_shot(MANY, 2, seed=5).ids[2:4] == tuple(f"i{20 + n}" for n in sorted(order))


def test_too_few_says_how_many_there_are() -> None:
    with pytest.raises(UserError, match="class 'b' has 7 images, but 8 are asked for"):
        few_shot(MANY, 8, seed=0)
    with pytest.raises(UserError, match="count is 0"):
        few_shot(MANY, 0, seed=0)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.25, [5, 2, 10]), (0.01, [1, 1, 1]), (0.99, [19, 6, 39])]
)
def test_held_out_has_a_share_of_each_class(share: float, expected: list[int]) -> None:
    rest, held = held_out(MANY, share, seed=3)
    assert counts(held) == expected
    assert sorted(rest.ids + held.ids) == sorted(MANY.ids)
    assert held.ids == held_out(MANY, share, seed=3)[1].ids
    assert held.ids != held_out(MANY, share, seed=4)[1].ids


def test_one_image_cannot_be_on_both_sides() -> None:
    with pytest.raises(UserError, match="class 'a' has 1 images"):
        held_out(MANY.subset([0, 20, 21, 30, 31]), 0.5, seed=0)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_is_between_zero_and_one(share: float) -> None:
    with pytest.raises(UserError, match="share"):
        held_out(MANY, share, seed=0)


def test_folds_cover_everything_once() -> None:
    parts = folds(MANY, 5, seed=2)
    assert sorted(id for _, held in parts for id in held.ids) == sorted(MANY.ids)
    for rest, held in parts:
        assert sorted(rest.ids + held.ids) == sorted(MANY.ids)
        assert all(counts(held))
        assert all(counts(rest))
    assert max(len(held) for _, held in parts) - min(len(held) for _, held in parts) <= 1
    assert [held.ids for _, held in parts] == [held.ids for _, held in folds(MANY, 5, seed=2)]


def test_folds_need_an_image_each() -> None:
    with pytest.raises(UserError, match="class 'b' has 7 images, but 8 folds"):
        folds(MANY, 8, seed=0)
    with pytest.raises(UserError, match="k is 1"):
        folds(MANY, 1, seed=0)


def test_bags_are_drawn_with_replacement_within_each_class() -> None:
    thousand = RealImages("m", ("a", "b"), tuple(map(str, range(1000))), (0, 1) * 500, numbered)
    parts = bags(thousand, 3, seed=4)
    for bag, _ in parts:
        assert [sum(thousand.labels[at] == k for at in bag) for k in (0, 1)] == [500, 500]
        assert len(set(bag)) == pytest.approx(632, abs=50)  # 1 - 1 / e
        assert max(bag.count(at) for at in bag) > 2
    (first, out), (second, _), _ = parts
    assert first != second and len(out) == pytest.approx(368, abs=50)
    assert sum(len(unseen) for _, unseen in parts) == pytest.approx(1000 * (1 - 0.632**3), abs=50)
    assert first != bags(thousand, 3, seed=5)[0][0]


@pytest.mark.parametrize("real", ["images", "scenes"])
def test_an_image_is_judged_by_the_first_that_did_not_see_it(real: str) -> None:
    whole = MANY if real == "images" else SCENES
    parts = bags(whole, 4, seed=1)
    judges = {id: member for member, (_, unseen) in enumerate(parts) for id in unseen.ids}
    assert sum(len(unseen) for _, unseen in parts) == len(judges)  # each by one
    for at, id in enumerate(whole.ids):
        without = [member for member, (bag, _) in enumerate(parts) if at not in bag]
        assert judges.get(id) == next(iter(without), None)
    assert None in map(judges.get, whole.ids)
    assert [len(bag) for bag, _ in parts] == [len(whole)] * 4
    again = bags(whole, 6, seed=1)  # the first are the same however many there are
    assert [(bag, unseen.ids) for bag, unseen in again][:4] == [(b, u.ids) for b, u in parts]


def test_an_unseen_image_is_the_image_of_its_id() -> None:
    for whole in (MANY, SCENES):
        unseen = bags(whole, 2, seed=0)[0][1]
        for at, id in enumerate(unseen.ids):
            assert int(unseen.image(at)[0, 0, 0]) == whole.ids.index(id)


def test_images_in_every_bag_can_be_judged_by_nobody() -> None:
    with pytest.raises(UserError, match=r"each of 3 images is in all of 5 bags.*mining\.folds"):
        bags(MANY.subset([0, 20, 30]), 5, seed=0)
    with pytest.raises(UserError, match="members is 0"):
        bags(MANY, 0, seed=0)
    several = MANY.subset([0, *range(20, 27), *range(27, 37)])
    assert "i0" not in {id for _, unseen in bags(several, 9, seed=0) for id in unseen.ids}


def test_hashed_splits_have_their_shares_of_each_class() -> None:
    split = by_hash(MANY.ids, MANY.labels)
    of = [[split[n] for n in positions] for positions in MANY.by_class().values()]
    assert [part.count("test") for part in of] == [4, 1, 8]
    assert [part.count("val") for part in of] == [2, 1, 4]
    assert [part.count("train") for part in of] == [14, 5, 28]


def test_hashed_splits_follow_the_id_not_the_order() -> None:
    split = dict(zip(MANY.ids, by_hash(MANY.ids, MANY.labels), strict=True))
    turned = by_hash(MANY.ids[::-1], MANY.labels[::-1])
    assert dict(zip(MANY.ids[::-1], turned, strict=True)) == split


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, {"train"}), (2, {"train", "test"}), (3, {"train", "test", "val"})],
)
def test_small_classes_are_trained_on_first(count: int, expected: set[str]) -> None:
    assert set(by_hash([str(n) for n in range(count)], [0] * count)) == expected


# what each scene shows: sky and road are usual, the others rare
SHOWN = ["sr", "s", "r", "sr", "st", "sr", "rc", "s", "stp", "r", "sr", "sc"]


def masked(index: int) -> torch.Tensor:
    labels = ["srtcp".index(letter) for letter in SHOWN[index]]
    return torch.tensor(labels, dtype=torch.uint8).repeat(2, 12 // len(labels))


SCENES = RealScenes("scenes", tuple("srtcpx"), tuple(map(str, range(12))), numbered, masked)


def shown(scenes: RealScenes) -> set[str]:
    return {name for id in scenes.ids for name in SHOWN[int(id)]}


def test_few_scenes_show_all_classes_that_there_are() -> None:
    sets = {few_shot(SCENES, 3, seed).ids for seed in range(20)}
    assert all(shown(SCENES.subset(map(int, ids))) == set("srtcp") for ids in sets)
    assert len(sets) > 3
    for count in (2, 5, 12):
        few = few_shot(SCENES, count, seed=1)
        assert len(few) == count
        assert set(few.ids) >= set(few_shot(SCENES, 2, seed=1).ids)
        assert few.ids == few_shot(SCENES, count, seed=1).ids
        assert [int(few.image(at)[0, 0, 0]) for at in range(count)] == [int(id) for id in few.ids]


def test_after_all_classes_any_scene_is_as_good() -> None:
    often = [id for seed in range(60) for id in few_shot(SCENES, 6, seed).ids]
    assert min(often.count(id) for id in SCENES.ids) > 5


def test_a_few_pixels_do_not_show_a_class() -> None:
    def mask(index: int) -> torch.Tensor:
        found = torch.zeros(2, 6, dtype=torch.uint8)
        found[:, 6 - index :] = 1  # twice as many pixels as the number of the scene
        return found

    scenes = RealScenes("few", ("sky", "tree"), tuple("012345"), numbered, mask)
    taken = {few_shot(scenes, 1, seed).ids[0] for seed in range(40)}
    assert taken == {"2", "3", "4"}  # the others have 12 and 0, 10 and 2, or 2 and 10 pixels


def test_parts_of_scenes_cover_everything_once() -> None:
    rest, held = held_out(SCENES, 0.25, seed=0)
    assert (len(rest), len(held)) == (9, 3)
    assert sorted(rest.ids + held.ids) == sorted(SCENES.ids)
    assert held.ids == held_out(SCENES, 0.25, seed=0)[1].ids
    assert held.ids != held_out(SCENES, 0.25, seed=1)[1].ids
    parts = folds(SCENES, 5, seed=2)
    assert sorted(id for _, part in parts for id in part.ids) == sorted(SCENES.ids)
    for rest, part in parts:
        assert sorted(rest.ids + part.ids) == sorted(SCENES.ids)
        assert len(part) in (2, 3)
    assert torch.equal(parts[0][1].mask(0), masked(int(parts[0][1].ids[0])))


def test_too_few_scenes() -> None:
    for wrong in (
        lambda: few_shot(SCENES, 13, seed=0),
        lambda: folds(SCENES, 13, seed=0),
        lambda: held_out(SCENES.subset([0]), 0.5, seed=0),
    ):
        with pytest.raises(UserError, match=r"scenes has \d+ images, but "):
            wrong()
