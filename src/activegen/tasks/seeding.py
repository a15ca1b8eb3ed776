"""Randomness that follows from named numbers, and leaves the global generators as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from activegen.records import fingerprint


def derive(*parts: int | str) -> int:
    """A seed, 0 to 2**63 - 1, that follows from the parts and their order.

    >>> derive(7, "augment", 3) == derive(7, "augment", 3) != derive(7, "augment", 4)
    True
    """
    return int(fingerprint(list(parts)), 16) >> 1


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Seed torch's global generators from the parts inside; outside they do not move."""
    devices = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(derive(*parts))
        if devices:
            torch.cuda.manual_seed_all(derive(*parts))
        yield
