"""Masks from maps that are made by hand, and from the tiny model's own."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gaussian
import tiny
from activegen.diffusion.attention import Maps
from activegen.diffusion.mean_field import DenseCRF
from activegen.diffusion.pseudo_masks import (
    AGGREGATES,
    PRESETS,
    Annotations,
    PseudoMasks,
    pseudo_masks,
)
from activegen.diffusion.reliability import Screen, reliable, screened
from activegen.diffusion.sampling import Sampling, sample
from activegen.records import IGNORE, UnknownWord, UserError

BLANK = torch.full((2, 3, 24, 24), 0.5)


def maps(words: int = 1, seed: int = 0) -> Maps:
    """Shares of two images at 6 and 3 pixels, smooth enough to have regions."""
    rng = torch.Generator().manual_seed(seed)
    fine, coarse = (torch.rand(2, words, n, n, generator=rng) * 0.2 + 0.01 for n in (6, 3))
    return Maps((fine, coarse), (3, 2))


def one_size(words: int = 1, seed: int = 0) -> Maps:
    both = maps(words, seed)
    return Maps(both.words[:1], both.layers[:1])


def made(
    of: Maps, classes: list[list[int]], background: int | None, settings: PseudoMasks
) -> Annotations:
    return pseudo_masks(of, torch.tensor(classes), background, BLANK, settings)


def upsampled(x: Tensor) -> Tensor:
    return F.interpolate(x, (24, 24), mode="bilinear")


def spanned(x: Tensor) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return (x - low) / (high - low)


@pytest.mark.parametrize("beta", [0.2, 0.0, -0.2])
def test_one_class_is_a_threshold_on_the_interpolated_map(beta: float):
    of = one_size()
    got = made(of, [[7], [9]], 0, PseudoMasks(beta=beta))
    share = upsampled(spanned(of.words[0]))[:, 0]
    ids = torch.tensor([7, 9]).view(2, 1, 1)
    near = (share - (1 - beta) / 2).abs() < 1e-5
    expected = torch.where(share > (1 - beta) / 2, ids, 0)
    assert torch.equal(got.mask.long()[~near], expected[~near]) and near.sum() < 5
    assert got.mask.dtype == torch.uint8 and len(got.mask.unique()) == 3
    margin = (2 * share - 1 + beta).abs()
    torch.testing.assert_close(got.margin, margin, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got.presence, of.words[0].amax((2, 3)))
    torch.testing.assert_close(got.maps, spanned(of.words[0]))


def test_several_classes_are_the_largest_channel():
    of = one_size(3)
    got = made(of, [[4, 2, 6], [1, 3, 5]], 0, PseudoMasks())
    share = spanned(of.words[0])
    stack = upsampled(torch.cat([1 - share.amax(1, keepdim=True) - 0.2, share], 1))
    ids = torch.tensor([[0, 4, 2, 6], [0, 1, 3, 5]])
    for image in range(2):
        assert torch.equal(got.mask[image].long(), ids[image][stack[image].argmax(0)])
    top = stack.topk(2, 1).values
    torch.testing.assert_close(got.margin, top[:, 0] - top[:, 1])
    assert len(got.mask.unique()) == 7


def test_without_a_background_every_pixel_has_a_class():
    of = one_size(2)
    got = made(of, [[4, 2], [1, 3]], None, PseudoMasks(beta=-5.0))
    first, second = upsampled(spanned(of.words[0])).unbind(1)
    ids = torch.tensor([[4, 2], [1, 3]])[:, :, None, None]
    assert torch.equal(got.mask.long(), torch.where(first >= second, ids[:, 0], ids[:, 1]))
    torch.testing.assert_close(got.margin, (first - second).abs())


def test_a_pixels_share_is_of_the_raw_attention_of_all_classes():
    of = one_size(3)
    of.words[0][1] *= 7  # of what is left for other words, nothing shows
    got = made(of, [[4, 2, 6], [1, 3, 1]], None, PseudoMasks())
    raw = of.words[0]
    two = torch.stack([raw[1, [0, 2]].amax(0), raw[1, 1]])
    for image, maps, ids in ((0, raw[0], [4, 2, 6]), (1, two, [1, 3])):
        known = upsampled(maps[None])[0]
        own = torch.stack([known[ids.index(k)] for k in ids])
        chosen = torch.stack([got.mask[image] == k for k in ids])
        assert got.share is not None
        torch.testing.assert_close(got.share[image], (own * chosen).sum(0) / known.sum(0))
    assert made(of, [[4, 2, 6], [1, 3, 1]], 0, PseudoMasks()).share is None


@pytest.mark.parametrize("background", [0, None])
@pytest.mark.parametrize("crf", [None, DenseCRF(appearance=0.0)])
def test_images_with_fewer_words_are_filled_up(background: int | None, crf: DenseCRF | None):
    of = one_size(3)
    of.words[0][1, 1:] = 0
    of.words[0][1, 2, 0, 0] = 0.5  # whatever is there
    settings = PseudoMasks(crf=crf)
    got = made(of, [[4, 2, 6], [3, IGNORE, IGNORE]], background, settings)
    alone = Maps((of.words[0][1:, :1],), of.layers)
    single = pseudo_masks(alone, torch.tensor([[3]]), background, BLANK[1:], settings)
    assert torch.equal(got.mask[1:], single.mask)
    torch.testing.assert_close(got.margin[1:], single.margin)
    assert got.share is None or (got.share[1] == 1).all()
    assert set(got.mask[1].unique().tolist()) == ({0, 3} if background == 0 else {3})
    assert (got.maps[1, 1:] == 0).all() and got.margin.isfinite().all()


@pytest.mark.parametrize("name", PRESETS)
def test_an_image_does_not_depend_on_its_batch(name: str):
    of = self_looking(maps(2))
    settings = replace(PRESETS[name].masks, crf=DenseCRF(iterations=2))
    pictures = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    both = pseudo_masks(of, torch.tensor([[1, 2], [3, 4]]), 0, pictures, settings)
    own = of.self_attention
    last = Maps(tuple(w[1:] for w in of.words), of.layers, None if own is None else own[1:])
    one = pseudo_masks(last, torch.tensor([[3, 4]]), 0, pictures[1:], settings)
    assert torch.equal(both.mask[1:], one.mask)
    torch.testing.assert_close(both.margin[1:], one.margin)
    torch.testing.assert_close(both.presence[1:], one.presence)


def test_words_of_one_class_are_joined():
    of = one_size(3)
    got = made(of, [[4, 2, 4], [1, 1, 1]], 0, PseudoMasks())
    share = spanned(of.words[0])
    front = torch.stack([share[0, [0, 2]].amax(0), share[0, 1]])
    stack = upsampled(torch.stack([1 - share[0].amax(0) - 0.2, *front])[None])[0]
    assert torch.equal(got.mask[0].long(), torch.tensor([0, 4, 2])[stack.argmax(0)])
    top = stack.topk(2, 0).values
    torch.testing.assert_close(got.margin[0], top[0] - top[1])
    assert set(got.mask[1].unique().tolist()) == {0, 1}


def test_layers_weigh_the_same_whatever_their_size():
    of = maps()
    got = made(of, [[1], [1]], 0, PseudoMasks())
    large = F.interpolate(of.words[1], (6, 6), mode="bicubic").clamp_min(0)
    joined = (3 * of.words[0] + 2 * large) / 5
    torch.testing.assert_close(got.maps, spanned(joined))
    torch.testing.assert_close(got.presence, joined.amax((2, 3)))


def test_maps_over_their_peaks_are_not_stretched():
    of = maps()
    got = made(of, [[1], [1]], 0, PseudoMasks(aggregate="peaks", beta=0.1))
    over = [m / m.amax((2, 3), keepdim=True) for m in of.words]
    large = F.interpolate(over[1], (6, 6), mode="bicubic").clamp_min(0)
    torch.testing.assert_close(got.maps, (over[0] + large) / 2)
    front = upsampled(got.maps)[:, 0] > 0.45
    assert torch.equal(got.mask == 1, front)
    empty = Maps((torch.zeros(2, 1, 4, 4),), (1,))
    assert (made(empty, [[1], [1]], 0, PseudoMasks(aggregate="peaks")).mask == 0).all()


def self_looking(of: Maps, size: int = 6) -> Maps:
    rng = torch.Generator().manual_seed(3)
    weights = torch.rand(2, size * size, size * size, generator=rng).mul(3).softmax(2)
    own = weights.unflatten(2, (size, size)).unflatten(1, (size, size))
    return Maps(of.words, of.layers, own)


@pytest.mark.parametrize("times", [1, 3])
def test_maps_walk_along_the_self_attention(times: int):
    of = self_looking(one_size(2))
    assert of.self_attention is not None
    got = made(of, [[1, 2]] * 2, 0, PseudoMasks(refine=times))
    power = torch.linalg.matrix_power(of.self_attention.flatten(3).flatten(1, 2), times)
    walked = (power @ of.words[0].flatten(2).mT).mT.unflatten(2, (6, 6))
    torch.testing.assert_close(got.maps, spanned(walked), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got.presence, of.words[0].amax((2, 3)))  # of what was read


def test_maps_walk_at_the_size_of_the_self_attention():
    of = self_looking(one_size(), 8)
    assert of.self_attention is not None
    got = made(of, [[1], [1]], 0, PseudoMasks(refine=1))
    large = F.interpolate(of.words[0], (8, 8), mode="bicubic").clamp_min(0)
    walked = of.self_attention.flatten(3).flatten(1, 2) @ large.flatten(2).mT
    torch.testing.assert_close(got.maps, spanned(walked.mT.unflatten(2, (8, 8))))


def test_a_walk_needs_self_attention():
    with pytest.raises(UserError, match="no self-attention was kept"):
        made(one_size(), [[1], [1]], 0, PseudoMasks(refine=1))


def test_the_band_of_dataset_diffusion_is_a_half_to_six_tenths():
    preset = replace(PRESETS["dataset_diffusion"].masks, refine=0)
    of = one_size()
    got = made(of, [[1], [1]], 0, preset)
    share = upsampled(spanned(of.words[0]))[:, 0]
    expected = torch.where(share > 0.6, 1, torch.where(share < 0.5, 0, IGNORE))
    near = ((share - 0.5).abs() < 1e-5) | ((share - 0.6).abs() < 1e-5)
    assert torch.equal(got.mask.long()[~near], expected[~near]) and near.sum() < 5
    assert set(got.mask.unique().tolist()) == {0, 1, IGNORE}


def test_the_field_moves_the_mask_to_the_edge_and_the_margin_says_so():
    share = torch.zeros(1, 1, 8, 8)
    share[..., 5:] = 1  # the picture's edge is at 4 of 8
    picture = torch.zeros(1, 3, 32, 32)
    picture[..., 16:] = 1
    of, classes = Maps((share,), (1,)), torch.tensor([[1]])
    plain = pseudo_masks(of, classes, 0, picture, PseudoMasks())
    mended = pseudo_masks(of, classes, 0, picture, PseudoMasks(crf=DenseCRF()))
    truth = (picture[:, 0] > 0).to(torch.uint8)
    assert (plain.mask != truth).float().mean() > 0.05
    assert torch.equal(mended.mask, truth)
    moved = mended.mask != plain.mask
    torch.testing.assert_close(mended.margin[~moved], plain.margin[~moved])
    torch.testing.assert_close(mended.margin[moved], -plain.margin[moved])
    kept = reliable(mended.mask, mended.margin, 0.9)
    assert kept[~moved].float().mean() > 0.9 and not kept[moved].all()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_from_a_drawing_to_its_masks(name: str):
    model, settings = tiny.model(latent_size=8), PRESETS[name].masks
    batch = tiny.batch(model, ["river", "forest"], sampling=Sampling(3, 3.0))
    prompts = ["a photo of river", "a photo of forest"]
    reading = settings.reading(model, prompts, [["river", "photo"], ["forest"]])
    drawn = sample(replace(batch, reading=reading))
    assert drawn.maps is not None
    classes = torch.tensor([[1, 2], [3, IGNORE]])
    got = pseudo_masks(drawn.maps, classes, 0, drawn.images, settings)
    assert got.mask.shape == (2, *model.size) == got.margin.shape
    assert set(got.mask.unique().tolist()) <= {0, 1, 2, 3, IGNORE}
    assert (got.mask[0] != 3).all() and not (got.mask[1] == 1).any()
    assert 0 <= got.maps.amin() and got.maps.amax() <= 1 + 1e-6
    assert (got.presence[classes != IGNORE] > 0).all() and got.presence.amax() < 1
    assert (drawn.maps.self_attention is not None) == (settings.refine > 0)
    assert "https://arxiv.org/abs/" in PRESETS[name].source


def test_a_world_whose_words_look_left_and_right():
    """Closed form: "red" looks left, "blue" right, so the mask is two halves."""
    world = gaussian.World(size=8)
    words = [["red", "blue"], ["red"]]
    reading = PseudoMasks().reading(world, ["red and blue", "red"], words)
    drawn = sample(replace(gaussian.batch(world, ["red", "green"]), reading=reading))
    assert drawn.maps is not None
    classes = torch.tensor([[3, 5], [3, IGNORE]])
    got = pseudo_masks(drawn.maps, classes, 1, drawn.images, PseudoMasks())
    assert (got.mask[..., :4] == 3).all()
    assert (got.mask[0, :, 4:] == 5).all() and (got.mask[1, :, 4:] == 1).all()
    torch.testing.assert_close(got.presence[:, 0], torch.full((2,), 0.6))
    reasons = screened(got.mask, classes, got.presence, 1, Screen(peak=0.7))
    assert reasons == ["unseen", "unseen"]
    assert screened(got.mask, classes, got.presence, 1, Screen()) == ["full", ""]


def test_what_cannot_be_is_said():
    with pytest.raises(UnknownWord, match="layers, peaks"):
        PseudoMasks(aggregate="layer")
    for wrong in ({"band": -0.1}, {"refine": -1}):
        with pytest.raises(UserError, match="give 0 or more"):
            PseudoMasks(**wrong)
    assert {preset.masks.aggregate for preset in PRESETS.values()} == set(AGGREGATES)
