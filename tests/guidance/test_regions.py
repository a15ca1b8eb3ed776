import pytest
import torch

import gaussian
from activegen.diffusion.sampling import Sampling
from activegen.guidance import (
    Attention,
    Background,
    Everywhere,
    Labelled,
    Object,
    ReferencePull,
    Region,
)
from activegen.guidance.regions import EVERYWHERE
from activegen.records import IGNORE, UserError
from guidance import seams


def estimate(maps: torch.Tensor):
    clean = torch.zeros(len(maps), 3, 8, 8)
    return seams.estimate(clean, [0] * len(maps), maps)


def maps() -> torch.Tensor:
    return 0.02 + 0.1 * torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sharpness", [0.0, 10.0])
def test_attention_is_between_zero_and_one_on_the_latents(sharpness):
    mask = Attention(sharpness).mask(estimate(maps()))
    assert mask.shape == (2, 1, 8, 8)
    assert mask.min() >= 0 and mask.max() <= 1
    assert (mask.amax((1, 2, 3)) > 0.8).all() and (mask.amin((1, 2, 3)) < 0.2).all()


def test_sharpness_brings_the_mask_to_its_ends():
    soft, sharp = (Attention(s).mask(estimate(maps())) for s in (0.0, 50.0))
    assert (sharp - sharp.round()).abs().mean() < (soft - soft.round()).abs().mean()


def test_the_released_code_never_masks():
    at_step_six = estimate(maps())
    mask = Attention(released_code=True).mask(at_step_six)
    assert mask.min() >= 1
    torch.testing.assert_close(mask.mean(), 1 + 6 * maps().mean(), atol=1e-3, rtol=1e-3)


def test_attention_is_the_running_mean_of_the_steps():
    batch = gaussian.batch(
        gaussian.World(), sampling=Sampling(6), reference=torch.zeros(1, 3, 4, 4)
    )
    seen = seams.seen(batch, [ReferencePull(until=2.0)])
    for step in seen:
        assert step.attention is not None
        torch.testing.assert_close(step.attention, gaussian.World.looks(step.clean))


def test_everywhere_is_everywhere():
    assert torch.equal(Everywhere().mask(estimate(maps())), torch.ones(2, 1, 8, 8))
    assert Everywhere() == EVERYWHERE
    assert Attention.wants_attention and not Everywhere.wants_attention


def with_object():
    """Latents of 2 by 3 under pictures of 8 by 12; the object is a strip, the top has no label."""
    region = torch.zeros(1, 1, 8, 12)
    region[..., :6] = 1
    target = torch.zeros(1, 8, 12, dtype=torch.long)
    target[:, :2] = IGNORE
    return seams.estimate(torch.zeros(1, 3, 2, 3), target, region=region)


def test_the_object_is_its_share_of_each_latent():
    marked = with_object()
    expected = torch.tensor([[[[1.0, 0.5, 0.0], [1.0, 0.5, 0.0]]]])
    assert torch.equal(Object().mask(marked), expected)
    assert torch.equal(Background().mask(marked), 1 - expected)
    assert torch.equal(Object().sized(marked, (8, 12)), marked.region)


def test_labelled_is_not_ignored():
    expected = torch.tensor([[[[0.5] * 3, [1.0] * 3]]])
    assert torch.equal(Labelled().mask(with_object()), expected)


@pytest.mark.parametrize("region", [Attention(), Everywhere(), Object(), Background(), Labelled()])
def test_regions_come_in_any_size(region: Region):
    clean = torch.zeros(2, 3, 4, 4)
    target = torch.zeros(2, 8, 8, dtype=torch.long)
    made = seams.estimate(clean, target, maps(), torch.rand(2, 1, 8, 8))
    for size in ((4, 4), (8, 8), (5, 3)):
        mask = region.sized(made, size)
        assert mask.shape == (2, 1, *size)
        assert mask.min() >= 0 and mask.max() <= 1
    assert torch.equal(region.mask(made), region.sized(made, (4, 4)))


def test_what_is_not_there_is_told():
    plain = estimate(maps())
    for region in (Object(), Background()):
        with pytest.raises(UserError, match="no object is marked"):
            region.mask(plain)
    with pytest.raises(UserError, match="needs masks"):
        Labelled().mask(plain)
