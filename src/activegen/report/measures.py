"""The numbers that arms are compared by, and how the page speaks of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ACCURACY, MIOU = "accuracy", "miou"  # names in the summaries of rounds


@dataclass(frozen=True)
class Measure:
    """A number from 0 to 1, higher is better.

    Args:
        title: what it is called in a heading.
        lead: a sentence with places for the number of test images and what it says of all arms.
        told: a part of it about one arm, with places for its name and number.
        of_class: what the number of one class is called.
        explained: what it is.
        drawn: what "accepted" counts in the table of classes.
        beside: what is shown beside it, title by name in a summary.
    """

    title: str
    lead: str
    told: str
    of_class: str
    explained: str
    drawn: str
    beside: Mapping[str, str] = field(default_factory=dict)


MEASURES: Mapping[str, Measure] = {
    ACCURACY: Measure(
        title="Accuracy",
        lead="Of the {images}real test images, {arms}.",
        told="{} is right on {}",
        of_class="accuracy",
        explained="Accuracy: share of real test images that are classified rightly. "
        "Worst class: the lowest accuracy of any class.",
        drawn="synthetic images of the class",
    ),
    MIOU: Measure(
        title="mIoU",
        lead="On the {images}real test images, {arms}.",
        told="{} has an mIoU of {}",
        of_class="IoU",
        explained="IoU of a class: pixels that are rightly called it, of all that are it or are "
        "called it, over all real test images together. mIoU: its mean over the classes. "
        "Boundary IoU: the same, of the pixels along the inner edges of each class alone. "
        "Pixel accuracy: share of the pixels that are right. "
        "Worst class: the lowest IoU of any class.",
        drawn="synthetic images that were drawn for the class",
        beside={"boundary_iou": "Boundary IoU", "pixel_accuracy": "Pixel accuracy"},
    ),
}


def named(summary: Mapping[str, Any]) -> str:
    """The figure of a round's summary or of an arm's result; old ones had accuracy alone."""
    return str(summary.get("figure", ACCURACY))
