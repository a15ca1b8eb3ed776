import torch

from activegen.tasks.seeding import derive, seeded


def test_the_same_parts_draw_the_same_and_leave_the_global_generator():
    before = torch.get_rng_state()
    with seeded(3, "x", 1):
        first = torch.rand(4)
    with seeded(3, "x", 1):
        again = torch.rand(4)
    with seeded(3, "x", 2):
        other = torch.rand(4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_parts_do_not_run_together():
    assert derive(1, 23) != derive(12, 3)
