"""Rendered splits: the same for the same seed, without a shared tile, the tail where it belongs."""

import pytest
import torch

from activegen.data.world import TAIL, read_world, tiles
from activegen.records import UnknownWord, UserError
from activegen.zoo import world


def test_images_are_rendered_tiles_of_their_class() -> None:
    images = read_world("", "train", count=2, size=32)
    known = tiles("train", count=2)
    assert images.classes == world.CLASSES
    assert [len(positions) for positions in images.by_class().values()] == [2] * 8
    assert tuple(known) == images.ids
    for index, (id, label) in enumerate(zip(images.ids, images.labels, strict=True)):
        assert known[id].landcover == images.classes[label]
        assert images.image(index).shape == (3, 32, 32)


def test_the_same_seed_gives_the_same_pixels_and_more_tiles_contain_the_fewer() -> None:
    few = read_world("", "val", count=1, seed=3)
    many = read_world("", "val", count=2, seed=3)
    other = read_world("", "val", count=1, seed=4)
    for index, id in enumerate(few.ids):
        assert torch.equal(few.image(index), many.image(many.index_of(id)))
        assert not torch.equal(few.image(index), other.image(index))
    assert not set(few.ids) & set(other.ids)


def test_splits_share_no_tile() -> None:
    sets = [read_world("", split, count=2, tail=True) for split in TAIL]
    ids = [id for images in sets for id in images.ids]
    pictures = {images.image(n).numpy().tobytes() for images in sets for n in range(len(images))}
    assert len(pictures) == len(set(ids)) == len(ids) == 16 * len(TAIL)


@pytest.mark.parametrize("split", TAIL)
def test_the_tail_is_where_it_belongs(split: str) -> None:
    rare = [world.is_rare(tile) for tile in tiles(split, count=30).values()]
    share = sum(rare) / len(rare)
    assert share == pytest.approx(world.RARE_SHARE if TAIL[split] else 0, abs=0.1)
    turned = tiles(split, count=30, tail=not TAIL[split]).values()
    assert any(map(world.is_rare, turned)) is not TAIL[split]


def test_what_is_kept_cannot_be_painted_over() -> None:
    images = read_world("", "train", count=1)
    first = images.image(0)
    kept = first.clone()
    first.zero_()
    assert torch.equal(images.image(0), kept)


def test_bad_options_are_named() -> None:
    with pytest.raises(UnknownWord, match=r"split of the world 'tset'.*test"):
        read_world("", "tset")
    with pytest.raises(UserError, match="count is 0"):
        read_world("", "train", count=0)
    with pytest.raises(UserError, match="seed is -1"):
        tiles("train", seed=-1)
    with pytest.raises(UserError, match="size is 4"):
        read_world("", "train", size=4)
