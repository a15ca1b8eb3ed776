import pytest
import torch

from activegen.data.fingerprints import thumbnail
from activegen.loop.judging import (
    REASONS,
    Believed,
    Judge,
    JudgeSettings,
    Opinion,
    p_value,
    trusting,
)
from activegen.records import Prediction, Request, Sample, UserError
from activegen.store import png

NOTHING = torch.zeros(0, 3, 16, 16)


class Sure:
    """Believes in one class."""

    def __init__(self, label: int):
        self.label = label

    def predict(self, images):
        logits = torch.full((1, len(images), 3), -4.0)
        logits[:, :, self.label] = 4.0
        return Prediction(logits)


def sample(picture: torch.Tensor, target: int = 0, seed: int = 0, part: int = 0) -> Sample:
    return Sample(Request("a forest", "forest", target, seed, part=part), png(picture))


def noise(seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 16, 16), generator=rng).to(torch.uint8)


def reasons(judge: Judge, samples: list[Sample], earlier: torch.Tensor = NOTHING) -> list[str]:
    found = judge.verdicts([s.request for s in samples], samples, earlier)
    assert all(v.accepted == (not v.reason) for v in found)
    assert all(v.reason in REASONS for v in found if v.reason)
    return [v.reason for v in found]


def test_each_reason():
    test, train = noise(1), noise(2)
    judge = Judge(Believed(Sure(0), 0.1), thumbnail(test), thumbnail(train))
    samples = [
        sample(torch.zeros(3, 16, 16, dtype=torch.uint8), seed=0),
        sample(torch.full((3, 16, 16), 255, dtype=torch.uint8), seed=1),
        sample(torch.full((3, 16, 16), 99, dtype=torch.uint8), seed=2),
        sample(test.flip(2), seed=3),
        sample(train, seed=4),
        sample(noise(3), seed=5),
        sample(noise(3), seed=6),
        sample(noise(4), target=1, seed=7),
        sample(noise(4), seed=8),
    ]
    expected = ["black", "white", "flat", "leak", "copy", "", "repeated", "label", ""]
    assert reasons(judge, samples) == expected


def test_a_missing_sample_was_not_finite():
    judge = Judge(None, NOTHING, NOTHING)
    request = Request("a forest", "forest", 0, 0)
    assert [v.reason for v in judge.verdicts([request], [], NOTHING)] == ["not finite"]


def test_earlier_rounds_count_as_repeated():
    judge = Judge(None, NOTHING, NOTHING)
    assert reasons(judge, [sample(noise(3))], thumbnail(noise(3))) == ["repeated"]


def test_the_probability_decides():
    picture = noise(9)
    strict, lenient = (Judge(Believed(Sure(1), p), NOTHING, NOTHING) for p in (0.05, 0.0))
    assert reasons(strict, [sample(picture, target=0)]) == ["label"]
    assert reasons(lenient, [sample(picture, target=0)]) == [""]
    verdict = lenient.verdicts([sample(picture).request], [sample(picture)], NOTHING)[0]
    assert 0 < verdict.scores["label_probability"] < 0.05


def test_the_p_value_counts_real_images_that_look_as_little_like_the_class() -> None:
    usual = [torch.tensor([0.1, 0.5, 2.0]), torch.tensor([0.2, 3.0])]
    # of the first member 2.0 and 0.5 are as far, of the second 3.0
    assert p_value(torch.tensor([0.5, 1.0]), usual) == (1 + 3) / (1 + 5)
    assert p_value(torch.tensor([9.0, 9.0]), usual) == 1 / 6
    assert p_value(torch.tensor([0.0, 0.0]), usual) == 1
    assert p_value(torch.tensor([9.0]), [torch.zeros(0)]) == 1


@pytest.mark.parametrize("images", [3, 20, 200])
def test_of_real_images_no_more_than_the_significance_are_refused(images: int) -> None:
    rng = torch.Generator().manual_seed(images)
    drawn = torch.empty(2000, 1 + images).exponential_(generator=rng)
    found = torch.tensor([p_value(one[:1], [one[1:]]) for one in drawn])
    assert found.min() >= 1 / (images + 1)
    for significance in (0.1, 0.3):
        # what counts of that share can be told with so many images
        expected = int(significance * (images + 1)) / (images + 1)
        share = float((found <= significance).float().mean())
        assert share == pytest.approx(expected, abs=0.03)


def test_a_label_that_is_unusual_for_its_class_is_refused() -> None:
    picture = sample(noise(9), target=1)  # its loss is 8
    low, high = torch.full((20,), 0.1), torch.full((20,), 9.0)
    for usual, said in ((low, "label"), (high, "")):
        check = Believed(Sure(0), 0.0, [[torch.zeros(0), usual, torch.zeros(0)]], 0.1)
        opinion = check(noise(9), picture)
        assert opinion.reason == said
        assert opinion.numbers["label_p_value"] == (1 / 21 if said else 1)
    nine = Believed(Sure(0), 0.0, [[low[:9]] * 3], 0.1)
    assert nine(noise(9), picture).reason == "label"  # a tenth exactly
    few = Believed(Sure(0), 0.0, [[low[:4]] * 3], 0.1)
    assert few(noise(9), picture).reason == ""  # four images cannot tell a tenth
    assert Believed(Sure(0), 0.5, [[high] * 3], 0.1)(noise(9), picture).reason == "label"


@pytest.mark.parametrize(
    ("given", "said"),
    [({"significance": 1.0}, "0 to below 1"), ({"significance": 0.1, "members": 1}, "at least 2")],
)
def test_what_cannot_be_asked_of_a_judge(given: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        JudgeSettings(**given)


def test_trusting_rejects_leaks_but_not_repetition():
    judge = trusting(thumbnail(noise(1)))
    samples = [sample(noise(1), seed=0), sample(noise(2), seed=1), sample(noise(2), seed=2)]
    assert reasons(judge, samples) == ["leak", "", ""]


def test_a_redrawn_object_may_leave_its_image_as_it_was_but_not_leak():
    test, train = noise(1), noise(2)
    judge = Judge(None, thumbnail(test), thumbnail(train))
    samples = [sample(train, seed=0, part=1), sample(train, seed=1, part=2), sample(train, seed=2)]
    assert reasons(judge, samples) == ["", "", "copy"]
    assert reasons(judge, [sample(test, part=1)]) == ["leak"]


def test_what_the_check_says_is_in_the_verdict():
    ignored = png(torch.full((1, 16, 16), 255, dtype=torch.uint8))
    opinions = iter([Opinion("", {"x": 1.0}, ignored), Opinion("unclear", {"x": 2.0})])
    seen = []

    def check(image: torch.Tensor, one: Sample) -> Opinion:
        seen.append((image, one))
        return next(opinions)

    samples = [sample(noise(3), seed=0), sample(noise(4), seed=1)]
    judge = Judge(check, NOTHING, thumbnail(noise(5)))
    first, second = judge.verdicts([s.request for s in samples], samples, NOTHING)
    assert (first.accepted, first.ignored, first.scores["x"]) == (True, ignored, 1.0)
    assert (second.reason, second.ignored, second.scores["x"]) == ("unclear", b"", 2.0)
    assert "distance_copy" in first.scores
    assert torch.equal(seen[1][0], noise(4)) and seen[1][1] is samples[1]
