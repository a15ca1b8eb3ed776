import base64
import io

import numpy as np
import torch
from PIL import Image

from activegen.report.pictures import (
    LEFT_OUT,
    LINED,
    heat,
    marked,
    outlined,
    overlay,
    painted,
    picture,
)

COLOURS = [(128, 0, 0), (0, 128, 0)]


def pixels(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.split(";base64,")[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def halves(height: int = 16, width: int = 16) -> torch.Tensor:
    """Class 0 on the left, class 1 on the right, and nothing in the first row."""
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[:, width // 2 :] = 1
    mask[0] = 255
    return mask


def test_a_small_picture_keeps_its_pixels():
    image = torch.arange(3 * 5 * 7, dtype=torch.uint8).reshape(3, 5, 7)
    shown = picture(image)
    assert shown.small
    assert (pixels(shown.uri) == image.permute(1, 2, 0).numpy()).all()


def test_a_large_picture_is_made_smaller_in_proportion():
    shown = picture(torch.zeros(3, 300, 1200, dtype=torch.uint8))
    assert pixels(shown.uri).shape == (64, 256, 3)
    assert not shown.small


def test_a_large_photo_has_few_bytes_and_looks_the_same():
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 40, 40, generator=rng) * 255
    image = torch.nn.functional.interpolate(coarse, (256, 256), mode="bicubic")[0]
    image = (image + torch.randn(image.shape, generator=rng) * 4).clamp(0, 255).to(torch.uint8)
    uri = picture(image).uri
    assert len(uri) < 100_000
    assert np.abs(pixels(uri).astype(float) - image.permute(1, 2, 0).numpy()).mean() < 6


def test_attention_is_bright_where_it_is_and_as_large_as_the_image():
    attention = torch.zeros(3, 4, 4, dtype=torch.uint8)
    attention[:, :, 2:] = 255
    shown = pixels(overlay(torch.full((3, 16, 16), 100, dtype=torch.uint8), attention).uri)
    assert shown.shape == (16, 16, 3)
    assert shown[:, 12:].mean() > shown[:, :4].mean() + 50


def test_uncertainty_is_black_where_there_is_none_and_yellow_where_it_is_highest():
    values = torch.zeros(6, 9, dtype=torch.uint8)
    values[:, 3:6], values[:, 6:] = 128, 255
    shown = pixels(heat(values).uri)
    assert shown.shape == (6, 9, 3)
    assert shown[0, 0].max() < 5 and shown[0, 8].min() > 150
    assert shown[0, 0].sum() < shown[0, 4].sum() < shown[0, 8].sum()


def test_a_mask_alone_has_the_full_colours_of_its_classes_and_black_elsewhere():
    shown = pixels(painted(halves(), COLOURS).uri)
    assert (shown[1:, :8] == COLOURS[0]).all() and (shown[1:, 8:] == COLOURS[1]).all()
    assert (shown[0] == 0).all()


def test_a_mask_over_an_image_of_another_size_lets_it_through():
    image = torch.zeros(3, 32, 64, dtype=torch.uint8)
    image[:, 16:] = 255
    shown = pixels(painted(halves(), COLOURS, image).uri).astype(int)
    assert shown.shape == (16, 16, 3)
    assert (shown[4, 2] == [77, 0, 0]).all()
    assert (shown[12, 2] - shown[4, 2] == 102).all()


def test_lines_are_along_the_edges_of_the_mask_and_nowhere_else():
    image = torch.full((3, 16, 16), 200, dtype=torch.uint8)
    shown = pixels(outlined(image, halves(), COLOURS).uri)
    assert shown.shape == (LINED, LINED, 3)
    middle, row = LINED // 2, LINED - 5
    assert (shown[row, middle - 2 : middle] == COLOURS[0]).all()
    assert (shown[row, middle : middle + 2] == COLOURS[1]).all()
    first = LINED // 16
    assert (shown[first - 2 : first, 5] == 0).all() and (shown[first, 5] == COLOURS[0]).all()
    plain = (shown == 200).all(2)
    assert plain[row, : middle - 2].all() and plain[row, middle + 2 :].all()


def test_a_large_image_is_not_enlarged_for_its_lines():
    image = torch.zeros(3, 300, 600, dtype=torch.uint8)
    assert pixels(outlined(image, halves(300, 600), COLOURS).uri).shape == (128, 256, 3)


def test_what_is_not_learnt_is_marked_over_grey():
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    image[0] = 150
    ignored = torch.zeros(16, 16, dtype=torch.uint8)
    ignored[8:, :8] = 255
    shown = pixels(marked(image, halves(), ignored).uri).astype(int)
    assert np.abs(shown[12, 3] - np.array(LEFT_OUT) * 0.75 - 12.5).max() <= 1
    assert (shown[12, 12] == 50).all() and (shown[4, 3] == 50).all()
    assert shown[0, 3].max() < 10
    assert (pixels(marked(image, halves(), None).uri)[12, 3] == 50).all()
