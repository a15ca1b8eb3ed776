import pytest
import torch

import gaussian
from activegen.diffusion.sampling import Sampling, Steering, sample
from activegen.guidance import Ascend, During, Every, ReferencePull, Weighted
from activegen.records import UserError
from guidance import seams
from guidance.seams import Near, Notes

COUNT = 20


class Everything:
    """A term that notes the steps in which it was at work."""

    def __init__(self):
        self.steps: list[int] = []

    def begin(self, batch) -> Steering:
        term = self

        class Noting(Steering):
            def arrive(self, latents, estimate, alpha, sigma):
                term.steps.append(estimate.level.index)
                return latents

        return Noting()


def steps_of_term(window) -> list[int]:
    term = Everything()
    sample(gaussian.batch(gaussian.World(), sampling=Sampling(COUNT, 1.0)), [window(term)])
    return term.steps


def steps_of_objective(window) -> list[int]:
    world = Notes()
    guidance = [Ascend("latents", "decoder", (window(Near(0.5)),), 0.01)]
    sample(gaussian.batch(world, sampling=Sampling(COUNT, 1.0)), guidance)
    return [index for index, inference in enumerate(world.inference) if not inference]


WINDOWS = [
    (lambda x: During(0, 1, x), range(20)),
    (lambda x: During(0.2, 0.8, x), range(4, 16)),
    (lambda x: During(0, 0.25, x), range(5)),
    (lambda x: During(0.9, 2, x), range(18, 20)),
    (lambda x: Every(1, x), range(20)),
    (lambda x: Every(6, x), range(0, 20, 6)),
    (lambda x: During(0.2, 0.8, Every(5, x)), range(5, 16, 5)),
    (lambda x: Every(5, During(0.2, 0.8, x)), range(5, 16, 5)),
    (lambda x: During(0, 0.5, During(0.3, 1, x)), range(6, 10)),
]


@pytest.mark.parametrize(("window", "steps"), WINDOWS)
def test_a_window_covers_its_steps_and_no_more(window, steps):
    assert steps_of_term(window) == list(steps)
    assert steps_of_objective(window) == list(steps)


def test_windows_of_objectives_in_one_term():
    world = Notes()
    objectives = (During(0, 0.2, Near(0.5)), Weighted(2.0, During(0.5, 0.7, Near(0.1))))
    guidance = [Ascend("latents", "decoder", objectives, 0.01)]
    sample(gaussian.batch(world, sampling=Sampling(COUNT, 1.0)), guidance)
    steps = [index for index, inference in enumerate(world.inference) if not inference]
    assert steps == [0, 1, 2, 3, 10, 11, 12, 13]


def test_outside_of_the_window_nothing_is_read():
    reference = torch.zeros(1, 3, 4, 4)
    batch = gaussian.batch(gaussian.World(), sampling=Sampling(COUNT), reference=reference)
    seen = seams.seen(batch, [During(0.1, 0.3, ReferencePull(until=2.0))])
    assert [estimate.attention is not None for estimate in seen[:3]] == [False, False, True]
    plain = seams.seen(batch)
    same = [torch.equal(a.latents, b.latents) for a, b in zip(seen, plain, strict=True)]
    assert same == [index <= 2 for index in range(COUNT)]


def test_windows_are_values():
    assert During(0, 0.5, Every(2, Near(0.5))) == During(0, 0.5, Every(2, Near(0.5)))
    assert During(0, 0.5, Near(0.5)) != During(0, 0.6, Near(0.5))


def test_windows_that_never_open():
    with pytest.raises(UserError, match="is empty"):
        During(0.5, 0.5, Near(0.0))
    with pytest.raises(UserError, match="1 or more"):
        Every(0, Near(0.0))


def test_terms_and_objectives_have_their_places():
    batch = gaussian.batch(gaussian.World())
    with pytest.raises(UserError, match="Near is an objective; put it into an Ascend"):
        sample(batch, [During(0, 1, Near(0.0))])
    with pytest.raises(UserError, match="ReferencePull is a term; put it into the list"):
        sample(batch, [Ascend("latents", "decoder", (During(0, 1, ReferencePull()),), 0.1)])
