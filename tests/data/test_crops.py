"""Pieces lie inside, have the asked shape, and a mask is cut with its image."""

import numpy as np
import pytest
import torch

from activegen.data.crops import cut, cut_mask, random_box, shrunk


@pytest.mark.parametrize(
    ("shape", "size", "least"),
    [
        ((40, 90), (16, 16), 20),
        ((90, 40), (16, 32), 16),
        ((50, 30), (20, 20), 20),
    ],
)
def test_pieces_have_the_shape_and_lie_inside(
    shape: tuple[int, int], size: tuple[int, int], least: int
) -> None:
    rng = np.random.default_rng(0)
    boxes = [random_box(shape, size, 0.5, rng) for _ in range(300)]
    for top, left, height, width in boxes:
        assert 0 <= top and top + height <= shape[0]
        assert 0 <= left and left + width <= shape[1]
        assert abs(width - height * size[1] / size[0]) <= size[1] / size[0]
    heights = [height for _, _, height, _ in boxes]
    most = round(min(shape[0] / size[0], shape[1] / size[1]) * size[0])
    assert min(heights) == least and max(heights) == most


def test_small_images_are_taken_whole() -> None:
    assert random_box((8, 8), (16, 16), 0.5, np.random.default_rng(0)) == (0, 0, 8, 8)


def test_a_whole_image_of_the_size_is_itself() -> None:
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    box = random_box((16, 16), (16, 16), 1.0, np.random.default_rng(0))
    assert box == (0, 0, 16, 16)
    assert torch.equal((cut(image, box, (16, 16)) * 255).round().byte(), image)


def test_a_mask_is_cut_where_its_image_is() -> None:
    mask = torch.zeros(60, 80, dtype=torch.uint8)
    mask[20:45, 30:70] = 7
    image = (mask // 7 * 255).expand(3, -1, -1)
    rng = np.random.default_rng(1)
    for _ in range(20):
        box = random_box((60, 80), (24, 24), 0.3, rng)
        seen, known = cut(image, box, (24, 24))[0], cut_mask(mask, box, (24, 24))
        assert set(known.unique().tolist()) <= {0, 7}
        assert ((seen > 0.5) != (known == 7)).float().mean() < 0.02


def test_shrunk_is_as_small_as_pieces_allow() -> None:
    image = torch.randint(0, 256, (3, 200, 400), dtype=torch.uint8)
    mask = torch.arange(400).expand(200, -1).div(100, rounding_mode="floor").byte()
    small, less = shrunk(image, mask, (16, 16), 0.5)
    assert small.shape == (3, 32, 64) and less is not None and less.shape == (32, 64)
    assert less[0].tolist() == [label for label in range(4) for _ in range(16)]
    same, none = shrunk(small, None, (16, 16), 0.5)
    assert same is small and none is None
