"""Scenes: same request, same pixels; the picture shows its mask; captions say what is there."""

from dataclasses import replace

import numpy as np
import pytest

from activegen.zoo.attributes import SEASONS
from activegen.zoo.domains import rendered_scenes
from activegen.zoo.layouts import KINDS, SCENE_CLASSES, Layout, draw_mask, present
from activegen.zoo.scenes import (
    SCENE_WORDS,
    Scene,
    draw_scene,
    listing,
    render_scene,
    scene_caption,
)

RIVER = Scene(Layout("bands", ("forest", "field"), line="river"))


def test_same_scene_and_seed_give_the_same_pixels() -> None:
    image, mask = render_scene(RIVER, seed=7)
    assert image.dtype == mask.dtype == np.uint8
    assert image.shape == (64, 64, 3)
    again, again_mask = render_scene(RIVER, seed=7)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, again_mask)
    assert np.abs(image.astype(int) - render_scene(RIVER, seed=8)[0]).mean() > 5


def test_the_mask_is_that_of_the_layout() -> None:
    np.testing.assert_array_equal(render_scene(RIVER, seed=2)[1], draw_mask(RIVER.layout, seed=2))


def test_size_keeps_the_places() -> None:
    image = render_scene(RIVER, seed=4)[0].astype(float)
    large = render_scene(RIVER, seed=4, size=128)[0].astype(float)
    halved = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(halved - image).mean() < 6
    assert render_scene(RIVER, seed=4, size=50)[0].shape == (50, 50, 3)


@pytest.mark.parametrize("season", SEASONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_class_is_painted_in_every_season(season: str, kind: str) -> None:
    for regions, line in (
        (("field", "houses", "water"), "road"),
        (("meadow", "forest", "industry"), "stream"),
    ):
        image, mask = render_scene(Scene(Layout(kind, regions, line=line), season=season), seed=1)
        assert len(present(mask)) == 4
        for name in np.unique(mask):
            assert image[mask == name].std() > 4  # not flat


def test_the_picture_changes_at_the_borders_of_the_mask() -> None:
    scene = Scene(Layout("bands", ("field", "water")))
    image, mask = render_scene(scene, seed=0)
    water = mask == SCENE_CLASSES.index("water")
    blue = image[..., 2].astype(int) - image[..., 0]
    told = blue > np.mean([blue[water].mean(), blue[~water].mean()])
    assert (told == water).mean() > 0.95


def test_season_light_and_haze_are_seen() -> None:
    image = render_scene(RIVER, seed=3)[0].astype(int)
    for change in ({"season": "winter"}, {"light": "evening"}, {"haze": "hazy"}):
        other, _ = render_scene(replace(RIVER, **change), seed=3)
        assert np.abs(image - other).mean() > 3
    with pytest.raises(ValueError, match=r"unknown season 'monsoon'"):
        replace(RIVER, season="monsoon")


def test_captions_name_the_classes_of_the_mask_and_no_other() -> None:
    rng = np.random.default_rng(0)
    for detail in (0, 1, 2):
        for _ in range(150):
            scene = draw_scene(rng)
            said = scene_caption(scene, scene.layout.classes, rng, detail)
            listed = said.removeprefix("a rendered scene of ").split(" in ")[0]
            words = listed.replace(" and ", ", ").split(", ")
            named = {name for name in SCENE_CLASSES for word in words if word in SCENE_WORDS[name]}
            assert named == set(scene.layout.classes)
            assert len(words) == len(named)


def test_wordings_tell_one_class() -> None:
    words = [word for name in SCENE_CLASSES for word in SCENE_WORDS[name]]
    assert len(words) == len(set(words))


def test_captions_read_as_english() -> None:
    scene = replace(RIVER, season="winter", light="evening", haze="hazy")
    names = ("field", "forest", "water")
    assert scene_caption(scene, names) == "a rendered scene of a field, a forest and water"
    assert scene_caption(scene, names[:2], detail=2) == (
        "a rendered scene of a field and a forest in winter, evening light, hazy"
    )
    assert listing(["houses"]) == "houses"


def test_captions_are_shuffled() -> None:
    rng = np.random.default_rng(0)
    names = ("field", "forest", "water")
    assert len({scene_caption(RIVER, names, rng) for _ in range(60)}) > 30


def test_a_domain_of_scenes_is_the_same_at_each_index() -> None:
    domain, longer = rendered_scenes(3, seed=5), rendered_scenes(5, seed=5)
    np.testing.assert_array_equal(domain.images, longer.images[:3])
    np.testing.assert_array_equal(domain.masks, longer.masks[:3])
    assert domain.captions == longer.captions[:3]
    for mask, captions in zip(longer.masks, longer.captions, strict=True):
        plain = listing([SCENE_WORDS[name][0] for name in present(mask)])
        assert captions[0] == f"a rendered scene of {plain}"
