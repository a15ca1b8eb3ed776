from collections import Counter

import numpy as np
import pytest

import blocks
import colours
from activegen.loop.mining import Judged, MiningSettings, mine, miners
from activegen.loop.settings import ArmSettings
from activegen.records import UserError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def judged(label: int, wrong: int, right: int) -> list[Judged]:
    mistakes = [Judged(f"{label}-wrong-{i}", label, 1.0 + i / 100, True) for i in range(wrong)]
    hits = [Judged(f"{label}-right-{i}", label, 0.1 + i / 100, False) for i in range(right)]
    return mistakes + hits


def test_mistakes_come_first_and_classes_share_by_their_mistakes():
    found = mine(judged(0, 30, 20) + judged(1, 10, 40), 20, MiningSettings(drop_highest=0), rng())
    assert len(found) == 20 and all(j.wrong for j in found)
    assert Counter(j.label for j in found) == {0: 15, 1: 5}


@pytest.mark.parametrize(("balance", "shares"), [(0, (24, 6)), (0.5, (20, 10)), (1, (15, 15))])
def test_balance_evens_the_classes(balance, shares):
    settings = MiningSettings(drop_highest=0, balance=balance)
    found = mine(judged(0, 32, 20) + judged(1, 8, 40), 30, settings, rng())
    assert Counter(j.label for j in found) == dict(enumerate(shares))


def test_a_class_without_mistakes_has_its_part_where_classes_are_even():
    found = mine(judged(0, 9, 9) + judged(1, 0, 9), 8, MiningSettings(balance=1), rng())
    assert sum(j.label == 1 for j in found) == 4


def test_the_highest_losses_are_taken_for_mislabelled():
    pool = judged(0, 20, 0)
    found = mine(pool, 160, MiningSettings(drop_highest=0.1, max_repeats=8), rng())
    used = {j.id for j in found}
    assert used == {j.id for j in pool if j.loss < 1.175}
    assert len(used) == 18


def test_no_reference_is_used_more_often_than_allowed():
    found = mine(judged(0, 2, 1), 100, MiningSettings(drop_highest=0, max_repeats=3), rng())
    assert Counter(j.id for j in found) == {"0-wrong-0": 3, "0-wrong-1": 3, "0-right-0": 3}


def test_without_mistakes_the_hardest_hits_follow():
    found = mine(judged(0, 0, 5), 2, MiningSettings(), rng())
    assert [j.id for j in found] == ["0-right-4", "0-right-3"]


def test_one_seed_one_choice():
    pool = judged(0, 9, 9) + judged(1, 9, 9)
    settings = MiningSettings()
    assert mine(pool, 12, settings, rng(1)) == mine(pool, 12, settings, rng(1))
    assert mine(pool, 12, settings, rng(1)) != mine(pool, 12, settings, rng(2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": "odd"},
        {"folds": 1},
        {"split": "bagging", "folds": 1},
        {"share": 1.0},
        {"max_repeats": 0},
        {"balance": 1.5},
    ],
)
def test_bad_settings(wrong):
    with pytest.raises(UserError):
        MiningSettings(**wrong)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("cross_fit", ["fold-0", "fold-1", "fold-2"]),
        ("bagging", ["bag-0", "bag-1", "bag-2"]),
        ("held_out", ["main"]),
    ],
)
@pytest.mark.parametrize("real", [colours.images(6, "train"), blocks.scenes(12, "train")])
def test_nobody_judges_what_it_saw(split, names, real):
    settings, arm = MiningSettings(split, folds=3), ArmSettings("guided")
    found = miners(arm, settings, real, seed=1)
    assert [miner.learner for miner in found] == names
    assert settings.members(arm) == sum(name != "main" for name in names)
    judged = [id for miner in found for id in miner.unseen.ids]
    assert len(judged) == len(set(judged)) and set(judged) <= set(real.ids)
    assert (set(judged) == set(real.ids)) == (split == "cross_fit")
    for miner in found:
        seen = [real.ids[at] for at in miner.seen]
        assert not set(seen) & set(miner.unseen.ids)
        assert (len(seen) > len(set(seen))) == (split == "bagging")
        assert len(seen) + (0 if split == "bagging" else len(miner.unseen)) == len(real)


@pytest.mark.parametrize("split", ["cross_fit", "bagging", "held_out"])
def test_arms_without_miners(split):
    settings, real = MiningSettings(split), colours.images(2, "train")
    assert miners(ArmSettings("plain"), settings, real, seed=0) == []
    arm = ArmSettings("guided", real=False)
    (main,) = miners(arm, settings, real, seed=0)
    assert main.learner == "main" and not len(main.seen) and main.unseen is real
    assert settings.members(arm) == settings.members(ArmSettings("plain")) == 0
