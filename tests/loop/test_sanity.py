import pytest
import torch

from activegen.loop.sanity import defect, not_finite


def plain(level: int) -> torch.Tensor:
    return torch.full((3, 16, 16), level, dtype=torch.uint8)


@pytest.mark.parametrize(("level", "reason"), [(0, "black"), (255, "white"), (100, "flat")])
def test_an_empty_image_is_named(level, reason):
    assert defect(plain(level)) == reason


def test_a_plain_colour_is_flat_though_its_channels_differ():
    colour = torch.tensor([10, 120, 240], dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 8)
    assert defect(colour.contiguous()) == "flat"


def test_a_calm_dark_lake_is_a_picture():
    # The flattest EuroSAT lake: mean 0.2, a contrast of 0.0029, which is 0.74 of a level.
    rng = torch.Generator().manual_seed(0)
    noise = 0.7 * torch.randn(3, 64, 64, generator=rng)
    assert defect((50 + noise).round().to(torch.uint8)) == ""


def test_lights_at_night_are_a_picture():
    image = plain(0)
    image[:, 4, 4] = 255
    assert defect(image) == ""


def test_noise_around_black_is_black():
    image = plain(0)
    image[:, ::2] = 4
    assert defect(image) == "black"


def test_not_finite_is_told_per_sample():
    latents = torch.zeros(4, 2, 3, 3)
    latents[1, 0, 1, 1] = float("nan")
    latents[3, 1, 2, 2] = -float("inf")
    assert not_finite(latents).tolist() == [False, True, False, True]
    assert not_finite(latents.half()).tolist() == [False, True, False, True]
