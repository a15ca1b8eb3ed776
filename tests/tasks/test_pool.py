from dataclasses import dataclass

import pytest
import torch

from activegen.records import IGNORE, UserError
from activegen.tasks.pool import Pool, gather, generated


@dataclass
class Few:
    """Grey real images, brighter by the index."""

    labels: list
    as_bytes: bool = True

    def __len__(self):
        return len(self.labels)

    def image(self, index):
        image = torch.full((3, 6, 9), index * 10, dtype=torch.uint8)
        return image if self.as_bytes else image.float() / 255

    def target(self, index):
        return torch.tensor(self.labels[index])


@dataclass
class Scene:
    """One image, and its mask."""

    mask: torch.Tensor

    def __len__(self):
        return 1

    def image(self, index):
        return torch.zeros(3, *self.mask.shape, dtype=torch.uint8)

    def target(self, index):
        return self.mask


def a_pool(real, synthetic):
    pool = gather(Few(list(range(real))), 4)
    images = torch.full((synthetic, 3, 4, 4), 200, dtype=torch.uint8)
    return pool + generated(images, torch.zeros(synthetic, dtype=torch.int64), 4)


@pytest.mark.parametrize("as_bytes", [True, False])
def test_real_images_are_gathered_in_one_size(as_bytes):
    pool = gather(Few([2, 0, 1], as_bytes), 4)
    assert pool.images.shape == (3, 3, 4, 4)
    assert pool.images[:, 0, 0, 0].tolist() == [0, 10, 20]
    assert pool.labels.tolist() == [2, 0, 1]
    assert pool.weights.tolist() == [1, 1, 1]
    assert not pool.synthetic.any()


def test_synthetic_images_are_marked_and_weighted():
    pool = generated(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([1, 2]), 4, 0.5)
    assert pool.images.shape == (2, 3, 4, 4)
    assert pool.weights.tolist() == [0.5, 0.5]
    assert pool.synthetic.all()
    whole = gather(Few([0]), 4) + pool
    assert whole.reweighted(0.5).weights.tolist() == [1, 0.25, 0.25]


def test_no_synthetic_image_is_fine():
    pool = gather(Few([0, 1]), 4)
    none = generated(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(0).long(), 4)
    assert len(pool + none) == 2


def test_a_batch_follows_from_seed_and_step():
    pool = a_pool(10, 6)
    assert torch.equal(pool.batch(3, 1, 5), pool.batch(3, 1, 5))
    assert not torch.equal(pool.batch(3, 1, 5), pool.batch(4, 1, 5))
    assert not torch.equal(pool.batch(3, 1, 5), pool.batch(3, 2, 5))


def test_each_image_comes_once_per_epoch():
    pool = a_pool(10, 0)
    drawn = torch.cat([pool.batch(step, 0, 4) for step in range(10)])  # four epochs
    epochs = drawn.view(4, 10)
    assert all(sorted(epoch.tolist()) == list(range(10)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_a_batch_may_be_larger_than_the_pool():
    drawn = a_pool(3, 0).batch(0, 0, 7)
    assert drawn.bincount().min() >= 2


@pytest.mark.parametrize("share, expected", [(0.3, 0.3), (None, 6 / 16), (0.0, 0.0), (1.0, 1.0)])
def test_the_synthetic_share_is_kept(share, expected):
    pool = a_pool(10, 6)
    batches = [pool.batch(step, 0, 7, share) for step in range(50)]
    assert all(len(batch) == 7 for batch in batches)
    drawn = pool.synthetic[torch.cat(batches)].float()
    assert abs(drawn.sum() - expected * 350) <= 1


def test_a_missing_kind_is_filled_by_the_other():
    assert len(a_pool(10, 0).batch(0, 0, 8, 0.5)) == 8
    assert len(a_pool(1, 8).reweighted(0.0).batch(0, 0, 8, 0.5)) == 8


def test_images_of_weight_zero_are_never_drawn():
    pool = a_pool(10, 6)
    unloved = Pool(pool.images, pool.labels, pool.weights * pool.synthetic, pool.synthetic)
    drawn = torch.cat([unloved.batch(step, 0, 4, 0.5) for step in range(20)])
    assert unloved.synthetic[drawn].all()


def test_an_empty_pool_says_so():
    pool = a_pool(1, 2)
    nothing = Pool(pool.images, pool.labels, pool.weights * 0, pool.synthetic)
    with pytest.raises(UserError, match="nothing to train on"):
        nothing.batch(0, 0, 4)
    with pytest.raises(UserError, match="no real image"):
        gather(Few([]), 4)


def test_pools_of_different_sizes_do_not_join():
    with pytest.raises(UserError, match="size"):
        gather(Few([0]), 4) + gather(Few([0]), 5)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64])
def test_masks_are_resized_by_the_nearest_pixel(kind):
    mask = torch.tensor([[0, 0, 7, 7], [0, 0, 7, 7], [IGNORE] * 4, [3] * 4], dtype=kind)
    pool = gather(Scene(mask), 4)
    assert pool.labels.dtype == torch.uint8
    assert torch.equal(pool.labels[0], mask.to(torch.uint8))
    smaller = gather(Scene(mask), (4, 2)).labels[0]
    assert smaller.tolist() == [[0, 7], [0, 7], [IGNORE] * 2, [3] * 2]
    larger = gather(Scene(mask), 8).labels[0]
    assert torch.equal(larger, mask.to(torch.uint8).repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_masks_of_synthetic_images_join_those_of_real_ones():
    real = gather(Scene(torch.ones(4, 6, dtype=torch.uint8)), (2, 3))
    drawn = torch.zeros(2, 3, 8, 12, dtype=torch.uint8)
    pool = real + generated(drawn, torch.full((2, 8, 12), 5, dtype=torch.uint8), (2, 3))
    assert pool.labels.shape == (3, 2, 3)
    assert pool.labels[:, 0, 0].tolist() == [1, 5, 5]
    none = generated(drawn[:0], torch.zeros(0, 8, 12, dtype=torch.uint8), (2, 3))
    assert len(pool + none) == 3 and (pool + none).labels.dtype == torch.uint8


def test_classes_and_masks_do_not_join():
    mask = torch.ones(4, 4, dtype=torch.uint8)
    with pytest.raises(UserError, match="labelled by mask"):
        gather(Few([0]), 4) + gather(Scene(mask), 4)


def test_a_mask_that_does_not_fit_a_byte_is_told():
    with pytest.raises(UserError, match="got 0 to 300"):
        gather(Scene(torch.tensor([[0, 300]])), 4)


def test_a_subset_may_hold_an_image_twice():
    chosen = a_pool(3, 2).subset(torch.tensor([4, 1, 1]))
    assert chosen.images[:, 0, 0, 0].tolist() == [200, 10, 10]
    assert chosen.labels.tolist() == [0, 1, 1]
    assert chosen.synthetic.tolist() == [True, False, False]
    assert len(chosen.weights) == 3


def test_reliability_stays_with_its_mask():
    masks = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)
    drawn = torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    sure = masks * 20
    pool = generated(drawn, masks, 2, reliability=sure).reweighted(0.5)
    assert torch.equal(pool.reliability, sure)
    assert torch.equal(pool.subset(torch.tensor([2, 0])).reliability, sure[[2, 0]])
    real = gather(Scene(masks[0]), 2)
    assert real.reliability is None and (real + real).reliability is None
    for joined, place in ((real + pool, 0), (pool + real, 3)):
        assert (joined.reliability[place] == 255).all()
        kept = joined.reliability[joined.synthetic]
        assert torch.equal(kept, sure)


def test_reliability_is_resized_like_its_mask():
    mask = torch.tensor([[0, 0, 7, 7], [0, 0, 7, 7], [1] * 4, [3] * 4], dtype=torch.uint8)
    pool = gather(Scene(mask), (4, 2), lambda index: mask * 10 + index)
    assert torch.equal(pool.reliability, pool.labels * 10)
    drawn = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    pool = generated(drawn, mask[None], (2, 4), reliability=mask[None] * 10)
    assert torch.equal(pool.reliability, pool.labels * 10)
