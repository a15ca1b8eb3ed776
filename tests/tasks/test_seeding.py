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


def test_every_gpu_is_seeded_and_set_back(monkeypatch):
    states = {0: 10, 1: 11}

    def seed_all(seed: int) -> None:
        states.update(dict.fromkeys(states, seed))

    for name, instead in {
        "is_initialized": lambda: True,
        "device_count": lambda: 2,
        "current_device": lambda: 0,
        "get_rng_state": lambda device: states[device],
        "set_rng_state": lambda state, device: states.update({device: state}),
        "manual_seed": lambda seed: states.update({0: seed}),
        "manual_seed_all": seed_all,
    }.items():
        monkeypatch.setattr(torch.cuda, name, instead)
    with seeded(3):
        assert states == {0: derive(3), 1: derive(3)}
    assert states == {0: 10, 1: 11}


def test_parts_do_not_run_together():
    assert derive(1, 23) != derive(12, 3)
