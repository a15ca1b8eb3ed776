from pathlib import Path
from typing import Any

from activegen.recipes.looks import earlier_looks, look_of, looked_before, with_look
from activegen.store.files import open_folder


def made(**seeds: list[int]) -> dict[str, Any]:
    """A comparison of each arm with "real"."""
    comparisons = [
        {"arm": arm, "baseline": "real", "seeds": of, "p_value": 0.5 if len(of) > 1 else None}
        for arm, of in seeds.items()
    ]
    return {"comparisons": comparisons}


def told(now: dict[str, Any], *before: dict[str, Any]) -> list[str]:
    looks: list[Any] = []
    for one in before:
        looks = with_look(looks, one)
    return looked_before(looks, now)


def test_one_seed_is_no_look() -> None:
    assert look_of(made(a=[0], b=[0, 1])) == {"b against real": [0, 1]}
    assert not told(made(a=[0, 1]), made(a=[0]))


def test_the_same_again_is_no_earlier_look() -> None:
    assert not told(made(a=[0, 1]), made(a=[0, 1]), made(a=[0, 1]))


def test_another_arm_beside_all_earlier_ones_is_corrected_for() -> None:
    assert not told(made(a=[0, 1], b=[0, 1]), made(a=[0, 1]))


def test_added_seeds_are_told() -> None:
    [found] = told(made(a=[0, 1, 2, 3]), made(a=[0, 1]), made(a=[0, 1, 2]))
    assert found.startswith("there were verdicts already with 2, 3 seeds, and now with 4:")


def test_arms_that_are_left_out_are_told() -> None:
    [found] = told(made(b=[0, 1]), made(a=[0, 1], b=[0, 1]))
    assert "left out now (a against real)" in found


def test_fewer_and_other_seeds_are_told() -> None:
    [fewer] = told(made(a=[0, 1]), made(a=[0, 1, 2, 3]))
    assert "left out now (seed 2, seed 3)" in fewer
    [other] = told(made(a=[4, 5]), made(a=[0, 1]))
    assert "left out now (seed 0, seed 1)" in other


def test_older_files_know_numbers_of_seeds_alone(tmp_path: Path) -> None:
    files = open_folder(str(tmp_path))
    files.write("comparison.json", b'{"looks": [2, 3], "comparisons": []}')
    looks = earlier_looks(files, "comparison.json")
    [found] = looked_before(looks, made(a=[0, 1, 2]))
    assert "already with 2 seeds, and now with 3" in found


def test_a_damaged_file_has_no_looks(tmp_path: Path) -> None:
    files = open_folder(str(tmp_path))
    assert earlier_looks(files, "comparison.json") == []
    files.write("comparison.json", b"{")
    assert earlier_looks(files, "comparison.json") == []
