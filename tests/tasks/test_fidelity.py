import pytest
import torch

from activegen.records import UserError
from activegen.tasks.fidelity import fidelity, nearest_ratio


def cloud(seed: int, count: int = 300, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)) + shift


def test_two_draws_of_one_distribution_agree():
    found = fidelity(cloud(0), cloud(1))
    assert min(found.precision, found.recall, found.coverage) > 0.8
    assert found.density == pytest.approx(1, abs=0.2)


def test_another_distribution_does_not():
    found = fidelity(cloud(0), cloud(1, shift=20))
    assert found.precision == found.recall == found.density == found.coverage == 0


def test_a_part_of_the_distribution_is_precise_but_does_not_cover():
    part = cloud(1, 3000)
    found = fidelity(cloud(0), part[part[:, 0] > 0.5][:300])
    assert found.precision > 0.8 and found.recall < 0.75 and found.coverage < 0.7


def test_equal_counts_make_equal_figures_of_equal_distributions():
    real, few, many = cloud(0, 600), cloud(1, 60), cloud(2, 700)
    assert fidelity(real, many).coverage > fidelity(real, few).coverage + 0.4
    alike, found = (fidelity(real, of, count=60, seed=3) for of in (many, few))
    assert alike.coverage == pytest.approx(found.coverage, abs=0.1)
    assert alike.recall == pytest.approx(found.recall, abs=0.2)
    assert fidelity(real, many, count=60, seed=4) != alike == fidelity(real, many, count=60, seed=3)
    with pytest.raises(UserError, match="61 generated images are asked for; there are 60"):
        fidelity(real, few, count=61)


def test_counts_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0]])  # distances to the nearest: 1, 1, 2
    found = fidelity(real, torch.tensor([[0.5], [10.0]]), k=1)
    assert found.precision == pytest.approx(1 / 2)  # 0.5 lies within two neighbourhoods
    assert found.density == pytest.approx(1.0)
    assert found.coverage == pytest.approx(2 / 3)


def test_copies_are_near_their_originals():
    train = cloud(0)
    copies = train[:100] + 0.01
    assert nearest_ratio(copies, cloud(1), train) < 0.1
    assert nearest_ratio(cloud(2), cloud(1), train) == pytest.approx(1, abs=0.2)


def test_too_few_images():
    with pytest.raises(UserError, match="at least 6"):
        fidelity(cloud(0, 5), cloud(1, 50))
