import pytest
import torch

from activegen.records import UnknownWord
from activegen.tasks.augment import AUGMENTATIONS, TURN, augmentation
from activegen.tasks.seeding import seeded

IMAGES = torch.rand(16, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_seed_and_step_give_the_same_images(name):
    before = torch.get_rng_state()
    first = augmentation(name)(IMAGES, 1, 2)
    assert torch.equal(first, augmentation(name)(IMAGES, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert first.shape == IMAGES.shape
    assert first.min() >= 0 and first.max() <= 1


@pytest.mark.parametrize("name", set(AUGMENTATIONS) - {"none"})
def test_another_step_gives_other_images(name):
    assert not torch.equal(augmentation(name)(IMAGES, 1, 2), augmentation(name)(IMAGES, 1, 3))
    assert not torch.equal(augmentation(name)(IMAGES, 1, 2), augmentation(name)(IMAGES, 2, 2))


def test_none_changes_nothing():
    assert torch.equal(augmentation("none")(IMAGES, 1, 2), IMAGES)


def test_flips_are_drawn_for_each_image():
    one = IMAGES[:1].expand(16, 3, 12, 12)
    views = augmentation("flips")(one, 0, 0)
    allowed = [one[0], one[0].flip(1), one[0].flip(2), one[0].flip(1, 2)]
    met = {next(i for i, a in enumerate(allowed) if torch.equal(a, view)) for view in views}
    assert met == {0, 1, 2, 3}


def test_turns_leave_oblong_images_in_their_shape():
    with seeded(0):
        oblong = TURN(torch.rand(8, 3, 4, 6))
        square = TURN(IMAGES)
    assert oblong.shape == (8, 3, 4, 6)
    turned = [torch.equal(s, i.rot90(1, (1, 2))) for s, i in zip(square, IMAGES, strict=True)]
    assert 0 < sum(turned) < 16


@pytest.mark.parametrize("name", ["land_cover", "photo"])
def test_an_oblong_batch_keeps_its_shape(name):
    assert augmentation(name)(torch.rand(5, 3, 8, 14), 0, 0).shape == (5, 3, 8, 14)


def test_an_unknown_augmentation_is_answered_with_the_known_ones():
    with pytest.raises(UnknownWord, match="land_cover"):
        augmentation("landcover")
