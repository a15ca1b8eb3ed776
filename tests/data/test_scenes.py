"""Scenes keep images and masks together, and what cannot be right is said before it is learnt."""

import pickle

import numpy as np
import pytest
import torch

from activegen.data.images import RealImages
from activegen.data.masks import EncodedMasks, coding_of
from activegen.data.scenes import RealScenes, check_scenes, encoded_scenes
from activegen.records import IGNORE, UserError
from masked import MASK, grey, picture

NAMES = ("sky", "tree", "road")


def numbered(index: int) -> torch.Tensor:
    return torch.full((3, 2, 2), index, dtype=torch.uint8)


def masked(index: int) -> torch.Tensor:
    return torch.tensor([[index % 3, 0], [IGNORE, index % 2]], dtype=torch.uint8)


FIVE = RealScenes("five", NAMES, tuple("vwxyz"), numbered, masked)


def of_bytes(images: list[bytes], masks: list[bytes], strict: bool = False) -> RealScenes:
    names = tuple(f"{number}.png" for number in range(len(masks)))
    read = EncodedMasks(masks.__getitem__, names, coding_of(NAMES)[1])
    ids = [f"{number}.jpg" for number in range(len(images))]
    return encoded_scenes("set", NAMES, ids, images.__getitem__, read, strict)


def test_subsets_keep_images_and_masks_together() -> None:
    some = FIVE.subset([4, 1, -2]).subset([0, 2])
    assert (len(some), some.ids, some.classes) == (2, ("z", "y"), NAMES)
    for index, number in enumerate((4, 3)):
        assert torch.equal(some.image(index), numbered(number))
        assert torch.equal(some.mask(index), masked(number))
    assert some.index_of("y") == 1
    with pytest.raises(IndexError):
        some.mask(2)
    with pytest.raises(UserError, match="five has no image 'v'"):
        some.index_of("v")


def test_targets_are_numbers_to_reckon_with() -> None:
    assert FIVE.target(2).dtype == torch.int64
    assert FIVE.target(2).tolist() == [[2, 0], [255, 0]]
    images = RealImages("two", NAMES, ("a", "b"), (2, 0), numbered)
    assert [int(images.target(index)) for index in range(2)] == [2, 0]
    assert images.target(0).shape == ()
    assert images.target(0).dtype == torch.int64


def test_pixels_are_counted_once() -> None:
    read: list[int] = []

    def reading(index: int) -> torch.Tensor:
        read.append(index)
        return masked(index)

    scenes = RealScenes("five", NAMES, tuple("vwxyz"), numbered, reading)
    assert [scenes.pixels(index) for index in range(3)] == [(3, 0, 0), (1, 2, 0), (2, 0, 1)]
    some = scenes.subset([2, 1, 4])
    assert [some.pixels(index) for index in range(3)] == [(2, 0, 1), (1, 2, 0), (2, 1, 0)]
    assert read == [0, 1, 2, 4]
    assert some.by_class() == {0: [0, 1, 2], 1: [1, 2], 2: [0]}


def test_scenes_travel_to_workers() -> None:
    sent = pickle.loads(pickle.dumps(FIVE.subset([3])))
    assert torch.equal(sent.mask(0), masked(3))


@pytest.mark.parametrize(
    ("classes", "ids", "message"),
    [
        (NAMES, ("a", "a"), "there twice: a"),
        (("sky", "sky"), ("a",), "classes named twice: sky"),
        ((), ("a",), "has 0 classes"),
        (tuple(map(str, range(256))), ("a",), "256 classes; a mask has room for 1 to 255"),
    ],
)
def test_what_does_not_fit_together_is_said(
    classes: tuple[str, ...], ids: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        RealScenes("set", classes, ids, numbered, masked)


def test_what_cannot_be_learnt_from_is_named_and_left_out() -> None:
    void = grey(np.full_like(MASK, IGNORE))
    images = [picture(0), b"broken", picture(2), picture(3), picture(4)]
    masks = [grey(), grey(), b"broken", void, grey(MASK[::-1].copy())]
    scenes = of_bytes(images, masks)
    assert scenes.ids == ("0.jpg", "4.jpg")
    assert np.array_equal(scenes.mask(1), MASK[::-1])
    assert [id for id, _ in scenes.skipped] == ["1.jpg", "2.jpg", "3.jpg"]
    reasons = [reason for _, reason in scenes.skipped]
    assert reasons[0].startswith("1.jpg cannot be read")
    assert reasons[1].startswith("2.png cannot be read")
    assert reasons[2] == "3.png has no pixel of a class; all are ignored"
    assert len(scenes.subset([0]).skipped) == 3
    with pytest.raises(UserError, match=r"3 of 5 images cannot be read: 1\.jpg .*; 2\.png .*; 3"):
        of_bytes(images, masks, strict=True)


def test_a_set_of_which_nothing_is_left_is_an_error() -> None:
    with pytest.raises(UserError, match=r"set has no image with a mask: 0\.png cannot be read"):
        of_bytes([picture()], [b"broken"])
    with pytest.raises(UserError, match=r"set has no image with a mask\. Add some"):
        of_bytes([], [])


def test_a_mask_of_another_size_is_an_error_with_both_names() -> None:
    with pytest.raises(
        UserError, match=r"1\.jpg has 8 x 6 pixels, but 1\.png has 6 x 8; give each image a mask"
    ):
        of_bytes([picture(), picture()], [grey(), grey(MASK.T.copy())])
    with pytest.raises(UserError, match=r"if 0\.jpg is turned by its EXIF orientation, turn the"):
        of_bytes([picture()], [grey(MASK.T.copy())])
    with pytest.raises(UserError, match=r"a mask of its own size$"):
        of_bytes([picture()], [grey(MASK[:4])])


def test_ids_of_no_class_are_an_error() -> None:
    with pytest.raises(UserError, match=r"0\.png has ids that are no class: 3;"):
        of_bytes([picture()], [grey(MASK + 1)])
    few = RealScenes("few", ("sky", "tree"), tuple("vwx"), numbered, masked)
    with pytest.raises(UserError, match="the mask of x has the id 2, and there are 2 classes"):
        check_scenes(few)
