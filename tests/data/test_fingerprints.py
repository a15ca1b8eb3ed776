"""Near-copies are found however they are turned; other images of the same class are not."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from activegen.data.fingerprints import is_duplicate, nearest, orientations, thumbnail
from activegen.data.world import read_world

COUNT = 6


@pytest.fixture(scope="module")
def tiles() -> Tensor:
    images = read_world("", "test", count=COUNT, size=64)
    return torch.stack([images.image(index) for index in range(len(images))])


def jpeg(image: Tensor, quality: int) -> Tensor:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)


def brighter(images: Tensor, by: int) -> Tensor:
    return (images.int() + by).clamp(0, 255).byte()


def test_thumbnails_are_area_averages() -> None:
    image = torch.arange(3 * 32 * 32).reshape(3, 32, 32).remainder(256).byte()
    small = thumbnail(image)
    assert small.shape == (1, 3, 16, 16)
    expected = image[1, 2:4, 6:8].float().mean() / 255
    assert small[0, 1, 1, 3] == pytest.approx(float(expected))
    assert thumbnail(torch.full((2, 3, 96, 80), 255, dtype=torch.uint8)).eq(1).all()


def test_the_eight_orientations_differ() -> None:
    turned = orientations(torch.rand(1, 3, 16, 16))
    assert len({tuple(each.flatten().tolist()) for each in turned}) == 8


def test_a_copy_is_at_no_distance(tiles: Tensor) -> None:
    bank = thumbnail(tiles)
    distance, index = nearest(bank, bank)
    assert index.tolist() == list(range(len(tiles)))
    assert distance.abs().max() < 0.05


@pytest.mark.parametrize("turn", range(8))
def test_near_copies_are_found_in_all_orientations(tiles: Tensor, turn: int) -> None:
    turned = tiles.rot90(turn % 4, (-2, -1))
    turned = turned.flip(-1) if turn >= 4 else turned
    copies = torch.stack([jpeg(image, 75) for image in brighter(turned, 4)])
    distance, index = nearest(thumbnail(copies), thumbnail(tiles))
    assert is_duplicate(distance).all()
    assert index.tolist() == list(range(len(tiles)))


def test_a_copy_of_another_size_is_found(tiles: Tensor) -> None:
    large = tiles.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert is_duplicate(nearest(thumbnail(large), thumbnail(tiles))[0]).all()


def test_other_images_of_the_class_are_not_copies(tiles: Tensor) -> None:
    bank = thumbnail(tiles)
    for label in range(0, len(tiles), COUNT):
        for index in range(label, label + COUNT):
            others = [other for other in range(label, label + COUNT) if other != index]
            distance, _ = nearest(bank[index : index + 1], bank[others])
            assert not is_duplicate(distance).any()


def test_two_quiet_images_of_one_colour_are_not_copies() -> None:
    waves = [np.random.default_rng(seed).normal(0, 3, (1, 16, 16)) for seed in range(2)]
    water = [
        torch.from_numpy((np.full((3, 16, 16), 90) + wave).round().astype(np.uint8))
        for wave in waves
    ]
    one, other = (thumbnail(image) for image in water)
    assert (one - other).square().mean().sqrt() < 8 / 255
    assert not is_duplicate(nearest(one, other)[0]).any()
    assert is_duplicate(nearest(thumbnail(brighter(water[0], 3)), one)[0]).all()


@pytest.mark.parametrize(("by", "same"), [(0, True), (5, True), (12, False)])
def test_flat_images_are_compared_by_colour(by: int, same: bool) -> None:
    flat = torch.full((3, 20, 20), 100, dtype=torch.uint8)
    distance, _ = nearest(thumbnail(brighter(flat, by)), thumbnail(flat))
    assert is_duplicate(distance).tolist() == [same]


def test_a_flat_image_is_no_copy_of_a_quiet_one() -> None:
    wave = np.random.default_rng(0).normal(90, 4, (1, 16, 16)).repeat(3, 0)
    flat = torch.full((3, 16, 16), 90, dtype=torch.uint8)
    quiet = torch.from_numpy(wave.round().astype(np.uint8))
    assert not is_duplicate(nearest(thumbnail(flat), thumbnail(quiet))[0]).any()


def test_nothing_is_near_in_an_empty_bank(tiles: Tensor) -> None:
    distance, index = nearest(thumbnail(tiles), torch.empty(0, 3, 16, 16))
    assert not is_duplicate(distance).any()
    assert index.eq(-1).all()
    distance, index = nearest(torch.empty(0, 3, 16, 16), thumbnail(tiles))
    assert len(distance) == len(index) == 0


def test_chunks_change_nothing() -> None:
    rng = torch.Generator().manual_seed(0)
    bank = torch.rand(5000, 3, 16, 16, generator=rng)
    query = bank[torch.arange(70) * 71].flip(-1)
    distance, index = nearest(query, bank)
    assert index.tolist() == (torch.arange(70) * 71).tolist()
    assert is_duplicate(distance).all()
