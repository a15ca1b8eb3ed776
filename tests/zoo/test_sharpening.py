"""The loss that gives a decoder its texture back."""

import torch

from activegen.tasks.segmenters import build_segmenter
from activegen.zoo.sharpening import looks, texture_loss


def stripes(shift: int = 0) -> torch.Tensor:
    """Vertical stripes, four pixels wide."""
    row = ((torch.arange(64) + shift) // 4 % 2).float()
    return row.expand(1, 3, 64, 64)


def textures(model, images, others, windows):
    ours, theirs = ([*looks(model, x)[:-1], images] for x in (images, others))
    return texture_loss(ours, theirs, windows)


def critic():
    torch.manual_seed(0)
    return build_segmenter("small", 3, 64).eval()


@torch.no_grad()
def test_a_moved_texture_is_the_same_texture_and_a_blurred_one_is_not():
    model = critic()
    same = textures(model, stripes(), stripes(), 1)
    moved = textures(model, stripes(), stripes(4), 1)
    blurred = textures(model, stripes(), torch.full_like(stripes(), 0.5), 1)
    assert same == 0
    assert moved < 0.1 * blurred


@torch.no_grad()
def test_windows_see_where_a_texture_is():
    model = critic()
    left, right = stripes().clone(), stripes().clone()
    left[..., 32:], right[..., :32] = 0.5, 0.5
    assert textures(model, left, right, 4) > 3 * textures(model, left, right, 1)


def test_the_critic_hands_its_gradient_to_the_picture():
    model = critic().requires_grad_(False)
    torch.manual_seed(1)
    picture = torch.rand(1, 3, 64, 64, requires_grad=True)
    texture_loss(looks(model, picture), looks(model, stripes()), 4).backward()
    assert picture.grad is not None and picture.grad.abs().sum() > 0
