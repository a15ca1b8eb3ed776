import pytest
import torch
from torch.nn import functional

from activegen.records import IGNORE, UnknownWord
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
        (oblong,) = TURN((torch.rand(8, 3, 4, 6),))
        (square,) = TURN((IMAGES,))
    assert oblong.shape == (8, 3, 4, 6)
    turned = [torch.equal(s, i.rot90(1, (1, 2))) for s, i in zip(square, IMAGES, strict=True)]
    assert 0 < sum(turned) < 16


@pytest.mark.parametrize("name", ["land_cover", "photo", "street"])
def test_an_oblong_batch_keeps_its_shape(name):
    assert augmentation(name)(torch.rand(5, 3, 8, 14), 0, 0).shape == (5, 3, 8, 14)


@pytest.mark.parametrize(("name", "at"), [("photo", 1), ("street", 1), ("land_cover", 3)])
def test_a_piece_of_an_oblong_image_is_stretched_no_more_than_one_of_a_square(name, at):
    change = AUGMENTATIONS[name].changes[at]

    def stretches(height, width):
        """Slopes of a ramp across over slopes of one down: 1 if nothing is stretched."""
        down = torch.arange(height).expand(width, height).T / 1000
        across = torch.arange(width).expand(height, width) / 1000
        ramps = torch.stack([across, down, down * 0]).expand(200, 3, height, width)
        with seeded(0):
            (changed,) = change((ramps,))
        middle = changed[:, :, height // 4 : -height // 4, width // 4 : -width // 4]
        return middle[:, 1].diff(dim=1).mean((1, 2)) / middle[:, 0].diff(dim=2).mean((1, 2))

    square, oblong = stretches(64, 64), stretches(64, 128)
    assert 0.9 < oblong.quantile(0.5) < 1.1
    assert torch.allclose(square.quantile(0.5), oblong.quantile(0.5), atol=0.08)
    assert 1.1 < square.quantile(0.9) < 1.5


def test_pieces_of_squares_are_torchvisions():
    for side in (64, 97, 224):
        assert AUGMENTATIONS["photo"].changes[1].make((side, side)).ratio == (3 / 4, 4 / 3)


def scenes(count, side):
    """Pictures in which a class is a brightness: two halves, their edge somewhere."""
    across = torch.arange(side).expand(side, side)
    edges = torch.arange(count) % (side // 2) + side // 4
    masks = (across > edges.view(-1, 1, 1)).to(torch.uint8)
    return masks[:, None].float().expand(-1, 3, -1, -1) * 0.8 + 0.1, masks


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_mask_moves_with_its_image(name):
    images, masks = scenes(64, 16)
    changed, moved = augmentation(name).joint(images, masks, 0, 0)
    assert changed.shape == images.shape
    assert moved.shape == masks.shape and moved.dtype == torch.uint8
    assert set(moved.unique().tolist()) <= {0, 1, IGNORE}
    assert torch.equal(changed, augmentation(name)(images, 0, 0))
    if name != "none":
        assert not torch.equal(moved, masks)
    # wherever no edge is near, the brightness still tells the class
    of_class = [functional.pad((moved == c).float(), (1,) * 4, value=1.0) for c in (0, 1)]
    inside = torch.stack([-functional.max_pool2d(-m, 3, 1) for m in of_class]) > 0
    bright = changed.mean(1)
    dark_highest, bright_lowest = bright[inside[0]], bright[inside[1]]
    assert len(dark_highest) and len(bright_lowest)
    assert (dark_highest < 0.35).all() and (bright_lowest > 0.5).all()


def test_a_cropped_mask_is_not_shifted_against_its_image():
    images, masks = scenes(256, 32)
    changed, moved = AUGMENTATIONS["photo"].changes[1]((images, masks))
    found = (changed[:, 0] > 0.5).float().sum((1, 2)) / 32
    told = moved.float().sum((1, 2)) / 32
    assert not torch.equal(moved, masks)
    assert (found - told).mean().abs() < 0.05


def test_what_is_erased_or_beyond_the_edge_is_ignored():
    images, masks = torch.full((32, 3, 16, 16), 0.4), torch.zeros(32, 16, 16, dtype=torch.uint8)
    erase = AUGMENTATIONS["photo"].changes[3]
    with seeded(0):
        erased, left = erase((images, masks))
    assert (left == IGNORE).any()
    assert torch.equal(left == IGNORE, (erased == 0).all(1))
    with seeded(0):
        smaller, ignored = AUGMENTATIONS["street"].changes[1]((images, masks))
    grey = (smaller > 0.45).all(1)
    assert (ignored == IGNORE).any()
    assert ((ignored == IGNORE) == grey).float().mean() > 0.98


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_map_beside_a_mask_moves_with_it(name):
    images, masks = scenes(32, 16)
    alone, moved = augmentation(name).joint(images, masks, 0, 0)
    changed, same, beside = augmentation(name).joint(images, masks, 0, 0, masks * 100)
    assert torch.equal(changed, alone) and torch.equal(same, moved)
    kept = moved != IGNORE
    assert torch.equal(beside[kept], moved[kept] * 100)


def test_classes_stay_as_they_are():
    labels = torch.arange(16)
    changed, same = augmentation("photo").joint(IMAGES, labels, 1, 2)
    assert same is labels
    assert torch.equal(changed, augmentation("photo")(IMAGES, 1, 2))


def test_an_unknown_augmentation_is_answered_with_the_known_ones():
    with pytest.raises(UnknownWord, match="land_cover"):
        augmentation("landcover")
