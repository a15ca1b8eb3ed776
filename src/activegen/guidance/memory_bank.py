"""Latents of earlier accepted images by class: frozen for a round, bounded, named by a hash."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

CAPACITY = 256


@dataclass(frozen=True, eq=False)
class MemoryBank:
    """The latest latents of each class.

    A pure function of the store, so a resumed run has the same bank without a checkpoint of it.
    Differs from Huang et al. (2024), https://arxiv.org/abs/2403.06517, whose bank grows within an
    epoch, differs between processes and is lost on resuming.

    Args:
        latents: class id to (n, c, h, w).
        spread: standard deviation of a latent about its class.
    """

    latents: Mapping[int, Tensor] = field(default_factory=lambda: MappingProxyType({}))
    spread: float = 1.0

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, Tensor]], capacity: int = CAPACITY) -> "MemoryBank":
        """The last ``capacity`` latents of each class, in the order given."""
        kept: dict[int, list[Tensor]] = {}
        for target, latents in pairs:
            kept.setdefault(target, []).append(latents)
            del kept[target][:-capacity]
        stacked = {target: torch.stack(kept[target]) for target in sorted(kept)}
        return cls(MappingProxyType(stacked), _spread(stacked))

    def of_class(self, target: int) -> Tensor | None:
        """(n, c, h, w), or None."""
        return self.latents.get(target)

    @property
    def id(self) -> str:
        """Sixteen hex digits of the content."""
        digest = hashlib.sha256(repr(self.spread).encode())
        for target, latents in sorted(self.latents.items()):
            digest.update(f"{target}:{tuple(latents.shape)}".encode())
            digest.update(latents.float().contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]


def _spread(latents: Mapping[int, Tensor]) -> float:
    """Pooled over the classes; 1 where no class has two different latents."""
    squares = sum(float((v.float() - v.float().mean(0)).square().sum()) for v in latents.values())
    free = sum(v[1:].numel() for v in latents.values())
    return (squares / free) ** 0.5 if squares > 0 else 1.0
