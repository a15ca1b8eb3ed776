"""Wordings whose labels a judge does not believe are told, and no others."""

from pathlib import Path

import pytest

from activegen.loop.doubts import WHY, Doubted, doubted, judged
from activegen.loop.judging import HOPELESS, NOT_NEEDED
from activegen.recipes.notices import not_believed
from activegen.records import Request, Verdict
from activegen.store import Store

CLASSES = ("lake", "river")


def of(word: str, target: int, *reasons: str, first: int = 0) -> list[tuple[Request, Verdict]]:
    requests = [Request(f"a {word}", word, target, first + k) for k in range(len(reasons))]
    return [
        (request, Verdict(request.id, not reason, reason))
        for request, reason in zip(requests, reasons, strict=True)
    ]


def test_at_least_half_of_at_least_ten_the_worst_first() -> None:
    pairs = of("frozen lake", 0, *["label"] * 9, "")
    pairs += of("lake", 0, *["unclear"] * 3, HOPELESS, HOPELESS, *[""] * 5)
    pairs += of("river", 1, *["label"] * 4, *[""] * 6)  # fewer than half
    pairs += of("stream", 1, *["label"] * 9)  # fewer than ten
    pairs += of("brook", 1, *["copy"] * 10)  # of which the label may be right
    assert doubted(pairs) == [Doubted("frozen lake", 0, 9, 10), Doubted("lake", 0, 5, 10)]


def test_what_was_not_drawn_does_not_count() -> None:
    pairs = of("lake", 0, *["label"] * 6, *[""] * 6, *[NOT_NEEDED] * 20)
    assert doubted(pairs) == [Doubted("lake", 0, 6, 12)]
    assert doubted(of("lake", 0, *["label"] * 9, *[NOT_NEEDED] * 20)) == []


def test_a_word_of_two_classes_is_two_wordings() -> None:
    pairs = of("water", 0, *["label"] * 10) + of("water", 1, *[""] * 10)
    assert doubted(pairs) == [Doubted("water", 0, 10, 10)]


def test_the_class_is_named_beside_another_word() -> None:
    assert Doubted("frozen lake", 0, 9, 10).told("lake") == "9 of 10 of 'frozen lake' (lake)"
    assert Doubted("lake", 0, 9, 10).told("lake") == "9 of 10 of 'lake'"


def filled(run: Path, arm: str, pairs: list[tuple[Request, Verdict]]) -> Path:
    store = Store.create_or_open(str(run / "arms" / arm / "store"), "ab" * 8, CLASSES)
    half = len(pairs) // 2
    for number, some in enumerate((pairs[:half], pairs[half:], of("river", 1, "label"))):
        store.round(number).write_plan([request for request, _ in some])
        if number < 2:  # the last round is under way
            store.round(number).write_verdicts([verdict for _, verdict in some])
    return run


def test_all_runs_of_an_arm_count_together(tmp_path: Path) -> None:
    first = filled(tmp_path / "1", "judged", of("frozen lake", 0, *["label"] * 6))
    second = filled(tmp_path / "2", "judged", of("frozen lake", 0, *["label"] * 5, "", first=9))
    filled(second, "free", of("frozen lake", 0, *[""] * 12))
    assert len(list(judged(Store(str(first / "arms" / "judged" / "store"))))) == 6
    assert not_believed([first], ["judged"]) == []  # six images alone
    [told] = not_believed([first, second], ["real_only", "free", "judged"])
    assert told.startswith("the judge of judged refused the labels of 11 of 12 of 'frozen lake'")
    assert WHY in told and "more wordings" not in told


@pytest.mark.parametrize("count", [3, 5])
def test_many_are_cut_off(tmp_path: Path, count: int) -> None:
    words = [f"pond {k}" for k in range(count)]
    pairs = [pair for word in words for pair in of(word, 0, *["label"] * 10)]
    [told] = not_believed([filled(tmp_path, "judged", pairs)], ["judged"])
    assert told.count("10 of 10") == 3
    assert ("and 2 more wordings" in told) == (count == 5)
