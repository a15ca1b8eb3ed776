import math
from dataclasses import dataclass

import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_jaccard_index,
)

from activegen.records import IGNORE, Prediction, UserError
from activegen.tasks.committee import Committee
from activegen.tasks.evaluate_masks import evaluate_masks
from activegen.tasks.segmenters import build_segmenter


@dataclass
class Levels:
    """Says that the class of a pixel is its brightness, with this probability."""

    sure: float
    classes: int = 4

    def predict(self, images):
        seen = (images[:, 0] * 255).round().long()
        rest = (1 - self.sure) / (self.classes - 1)
        odds = torch.full((len(images), self.classes, *seen.shape[1:]), rest)
        return Prediction(odds.scatter(1, seen[:, None], self.sure).log()[None])


def shown(masks):
    """Images that the model reads these masks from."""
    return masks.to(torch.uint8)[:, None].expand(-1, 3, -1, -1)


def test_numbers_solved_by_hand():
    truth = torch.tensor([[[0, 0, 1, IGNORE]], [[0, 1, 1, IGNORE]]])
    seen = torch.tensor([[[0, 0, 0, 2]], [[0, 1, 1, 3]]])
    found = evaluate_masks(Levels(0.7), shown(seen), truth, batch=1)
    assert found.confusion.tolist() == [[3, 0, 0, 0], [1, 2, 0, 0], [0] * 4, [0] * 4]
    assert found.per_class[:2] == pytest.approx((3 / 4, 2 / 3))
    assert math.isnan(found.per_class[2]) and math.isnan(found.per_class[3])
    assert found.miou == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert found.worst_class == 1
    assert found.accuracy == pytest.approx(5 / 6)
    assert found.ece == pytest.approx(5 / 6 - 0.7, abs=1e-5)
    right, wrong = -math.log(0.7), -math.log(0.1)
    assert found.losses.tolist() == pytest.approx([(2 * right + wrong) / 3, right])
    assert found.class_losses[:2].tolist() == pytest.approx([right, (wrong + 2 * right) / 3])
    assert found.class_losses[2:].isnan().all()


def test_a_class_that_is_only_predicted_costs_the_class_whose_pixels_it_takes():
    truth, seen = torch.zeros(1, 2, 2).long(), torch.tensor([[[0, 0], [0, 2]]])
    found = evaluate_masks(Levels(0.7), shown(seen), truth)
    assert math.isnan(found.per_class[2]) and math.isnan(found.per_class_boundary[2])
    assert found.worst_class == 0
    assert found.miou == pytest.approx(3 / 4)
    assert found.class_losses[2].isnan()


def test_all_pixels_count_alike_whatever_their_image():
    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 4, (5, 12, 9), generator=rng)
    truth[:, :3] = IGNORE
    images = torch.randint(0, 256, (5, 3, 12, 9), generator=rng, dtype=torch.uint8)
    model = build_segmenter("small", 4, 16).eval()
    found = evaluate_masks(model, images, truth, batch=2)
    with torch.no_grad():
        odds = model.predict(images.float() / 255).logits[0].softmax(1)
    iou = multiclass_jaccard_index(odds, truth, 4, average="none", ignore_index=IGNORE)
    assert found.per_class == pytest.approx(iou.tolist(), abs=1e-5)
    ece = multiclass_calibration_error(odds, truth, 4, n_bins=15, ignore_index=IGNORE)
    assert found.ece == pytest.approx(float(ece), abs=1e-5)
    again = evaluate_masks(model, images, truth.to(torch.uint8), batch=5)
    assert again.confusion.equal(found.confusion)
    assert again.per_class_boundary == pytest.approx(found.per_class_boundary)


def square(top, left, side, size=50):
    """A square of class 1 on class 0; the diagonal is 71 pixels, so a boundary is 1 wide."""
    mask = torch.zeros(1, size, size).long()
    mask[:, top : top + side, left : left + side] = 1
    return mask


def test_the_boundary_of_a_square():
    truth, seen = square(10, 10, 20), square(10, 11, 20)
    found = evaluate_masks(Levels(0.7), shown(seen), truth)
    ring = 20 * 20 - 18 * 18
    both = 2 * 19  # of the two rings: upper and lower sides; left and right ones miss each other
    assert found.per_class_boundary[1] == pytest.approx(both / (2 * ring - both))
    assert found.per_class[1] == pytest.approx(380 / 420)
    assert found.boundary_iou == pytest.approx(sum(found.per_class_boundary[:2]) / 2)
    perfect = evaluate_masks(Levels(0.7), shown(truth), truth)
    assert perfect.boundary_iou == perfect.miou == 1


def test_a_boundary_is_as_wide_as_two_percent_of_the_diagonal():
    truth, seen = square(40, 40, 80, size=200), square(40, 45, 80, size=200)
    found = evaluate_masks(Levels(0.7), shown(seen), truth)  # 283 pixels: 6 wide
    ring = 80 * 80 - 68 * 68
    both = 2 * 6 * 75 + 2 * 1 * 68
    assert found.per_class_boundary[1] == pytest.approx(both / (2 * ring - both))


def test_the_edge_of_the_image_is_a_boundary():
    truth, seen = torch.zeros(1, 50, 50).long(), square(0, 0, 10)
    found = evaluate_masks(Levels(0.7), shown(seen), truth)
    ring, lost = 50 * 50 - 48 * 48, 10 + 9
    inner = 10 + 10 + 1  # beyond the square, away from the edge
    assert found.per_class_boundary[0] == pytest.approx((ring - lost) / (ring + inner - 2))


def test_ignored_pixels_make_no_boundary():
    truth = square(10, 10, 20)
    truth[:, :, 25:] = IGNORE
    whole, cut = square(10, 10, 20), square(10, 10, 17)
    found = [evaluate_masks(Levels(0.7), shown(seen), truth) for seen in (whole, cut)]
    assert found[0].boundary_iou == 1
    ring, lower, both = 48, 45, 31  # above, below and to the left; nothing on the right
    assert found[1].per_class_boundary[1] == pytest.approx(both / (ring + lower - both))


def test_a_committee_is_judged_by_its_mean_probability():
    committee = Committee((Levels(0.9), Levels(0.3)))
    found = evaluate_masks(committee, shown(torch.zeros(1, 2, 2)), torch.zeros(1, 2, 2).long())
    assert found.losses[0] == pytest.approx(-math.log(0.6))


def test_an_image_without_a_pixel_that_counts_has_no_loss():
    truth = torch.stack([torch.zeros(2, 2), torch.full((2, 2), IGNORE)]).long()
    found = evaluate_masks(Levels(0.7), shown(torch.zeros(2, 2, 2)), truth, batch=1)
    assert found.losses[1] == 0 and found.accuracy == 1


def test_dropout_is_off_and_every_mode_comes_back():
    model = build_segmenter("small", 3, 16).train()
    model.network.norm.eval()
    images, masks = torch.zeros(3, 3, 16, 16, dtype=torch.uint8), torch.ones(3, 16, 16).long()
    first, again = (evaluate_masks(model, images, masks) for _ in range(2))
    assert first.losses.equal(again.losses)
    assert model.training and not model.network.norm.training
    assert not first.losses.requires_grad


def test_nothing_to_judge_and_wrong_labels_are_told():
    image = shown(torch.zeros(1, 2, 2))
    with pytest.raises(UserError, match="no pixel"):
        evaluate_masks(Levels(0.7), image[:0], torch.zeros(0, 2, 2).long())
    with pytest.raises(UserError, match="no pixel"):
        evaluate_masks(Levels(0.7), image, torch.full((1, 2, 2), IGNORE))
    with pytest.raises(UserError, match=r"0 to 3.*or 255"):
        evaluate_masks(Levels(0.7), image, torch.full((1, 2, 2), 4))
