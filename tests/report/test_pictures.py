import base64
import io

import numpy as np
import torch
from PIL import Image

from activegen.report.pictures import overlay, picture


def pixels(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_small_picture_keeps_its_pixels():
    image = torch.arange(3 * 5 * 7, dtype=torch.uint8).reshape(3, 5, 7)
    shown = picture(image)
    assert shown.small
    assert (pixels(shown.uri) == image.permute(1, 2, 0).numpy()).all()


def test_a_large_picture_is_made_smaller_in_proportion():
    shown = picture(torch.zeros(3, 300, 1200, dtype=torch.uint8))
    assert pixels(shown.uri).shape == (64, 256, 3)
    assert not shown.small


def test_attention_is_bright_where_it_is_and_as_large_as_the_image():
    attention = torch.zeros(3, 4, 4, dtype=torch.uint8)
    attention[:, :, 2:] = 255
    shown = pixels(overlay(torch.full((3, 16, 16), 100, dtype=torch.uint8), attention).uri)
    assert shown.shape == (16, 16, 3)
    assert shown[:, 12:].mean() > shown[:, :4].mean() + 50
