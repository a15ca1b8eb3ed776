import pytest
import torch

from activegen.guidance import MemoryBank


def latents(seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_it_keeps_the_last_of_each_class():
    bank = MemoryBank.of([(i % 2, latents(i)) for i in range(20)], capacity=3)
    kept = bank.of_class(1)
    assert kept is not None and torch.equal(kept, torch.stack([latents(i) for i in (15, 17, 19)]))
    assert bank.of_class(2) is None


def test_the_id_is_the_content():
    pairs = [(i % 2, latents(i)) for i in range(6)]
    bank = MemoryBank.of(pairs)
    assert len(bank.id) == 16
    assert MemoryBank.of(pairs).id == bank.id
    assert MemoryBank.of(pairs[:5]).id != bank.id
    assert MemoryBank.of([*pairs[:5], (1, latents(5) + 1e-3)]).id != bank.id
    assert MemoryBank.of([(1 - t, z) for t, z in pairs]).id != bank.id
    assert MemoryBank(bank.latents, 2 * bank.spread).id != bank.id


def test_the_order_of_the_classes_does_not_matter():
    pairs = [(i % 2, latents(i)) for i in range(6)]
    bank = MemoryBank.of(pairs)
    turned = MemoryBank.of(sorted(pairs, key=lambda pair: -pair[0]))
    assert turned.id == bank.id and turned.spread == bank.spread
    assert MemoryBank(dict(reversed(bank.latents.items())), bank.spread).id == bank.id


def test_spread_is_within_classes():
    pairs = [(t, 10.0 * t + latents(100 * t + i, 0.7)) for t in range(3) for i in range(8)]
    assert MemoryBank.of(pairs).spread == pytest.approx(0.7, rel=0.03)


@pytest.mark.parametrize("pairs", [[], [(0, latents(0))], [(0, latents(0)), (0, latents(0))]])
def test_spread_is_one_where_it_cannot_be_known(pairs):
    assert MemoryBank.of(pairs).spread == 1.0
