"""Latents of earlier accepted images by class: frozen for a round, bounded, named by a hash."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

CAPACITY = 256


@dataclass(frozen=True)
class MemoryBank:
    """The latest latents of each class.

    A pure function of the store, so a resumed run has the same bank without a checkpoint of it.
    Differs from Huang et al. (2024), https://arxiv.org/abs/2403.06517, whose bank grows within an
    epoch, differs between processes and is lost on resuming.

    Args:
        latents: class id to (n, c, h, w).
        spread: standard deviation of all latents.
    """

    latents: Mapping[int, Tensor] = field(default_factory=lambda: MappingProxyType({}))
    spread: float = 1.0

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, Tensor]], capacity: int = CAPACITY) -> "MemoryBank":
        """The last ``capacity`` latents of each class, in the order given."""
        kept: dict[int, list[Tensor]] = {}
        for target, latents in pairs:
            kept.setdefault(target, []).append(latents)
        stacked = {k: torch.stack(v[-capacity:]) for k, v in sorted(kept.items())}
        every = (
            torch.cat([v.float().flatten() for v in stacked.values()])
            if stacked
            else torch.zeros(1)
        )
        spread = float(every.std()) if len(every) > 1 else 1.0
        return cls(MappingProxyType(stacked), spread if spread > 0 else 1.0)

    def of_class(self, target: int) -> Tensor | None:
        """(n, c, h, w), or None."""
        return self.latents.get(target)

    @property
    def id(self) -> str:
        """Sixteen hex digits of the content."""
        digest = hashlib.sha256()
        for target, latents in self.latents.items():
            digest.update(f"{target}:{tuple(latents.shape)}".encode())
            digest.update(latents.float().contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]
