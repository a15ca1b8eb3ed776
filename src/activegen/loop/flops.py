"""How many FLOPs a call takes, and how many a second the device can do at best.

A multiplication and an addition are two. Counted are products of matrices and convolutions, as is
usual; norms, activations and sums are not.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

PATIENCE = 0.3  # seconds that the search for the peak may take
SIDES = (256, 512, 1024, 2048, 4096, 8192)  # of the matrices


@dataclass(frozen=True)
class Flops:
    """Of one image.

    Args:
        forward: of the call.
        backward: of the gradient of its result, where one is wanted.
    """

    forward: int
    backward: int = 0


class Counting(TorchDispatchMode):
    """What `torch.utils.flop_counter.FlopCounterMode` counts, and not in which module.

    Its hooks in all modules of the process take longer than the call, and refuse some graphs. In
    inference mode operations come whole, and are counted by what they are made of.
    """

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None and _composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        made = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=made)
        return made


@cache
def _composite(func: Any) -> bool:
    """Is made of other operations."""
    return func._can_decompose()


def counted(work: Callable[[], Tensor], inputs: Sequence[Tensor] = ()) -> Flops:
    """FLOPs of a call, which is carried out once for that; what ``torch.compile`` made is left out.

    Args:
        work: the call.
        inputs: whose gradient is wanted. Of frozen weights no gradient is taken, so a backward
            costs about one forward here and not the usual two.
    """
    with torch.compiler.set_stance("force_eager"), Counting() as seen:
        made = work()
        forward = seen.total
        if inputs and made.requires_grad:
            torch.autograd.grad(made.sum(), inputs, allow_unused=True)
    return Flops(forward, seen.total - forward)


@cache
def peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second: the best of a few large products of matrices, and the same as convolutions.

    Measured once in a process, and no number from a data sheet (ours): what a program can attain on
    this machine, with these libraries and threads, and beside all else that runs there.
    """
    best, left = 0.0, PATIENCE
    for side in SIDES:
        begun = time.perf_counter()
        values = torch.linspace(-1, 1, side * side, device=device).to(dtype)
        matrix, pixels = values.view(side, side), values.view(1, side, 16, side // 16)
        for product in (
            lambda: matrix @ matrix,  # noqa: B023
            lambda: functional.conv2d(pixels, matrix.view(side, side, 1, 1)),  # noqa: B023
        ):
            product()
            seconds = min(_seconds(product, device) for _ in range(2))
            best = max(best, 2 * side**3 / seconds)
        spent = time.perf_counter() - begun
        left -= spent
        if 8 * spent > left:
            break
    return best


@torch.inference_mode()
def _seconds(work: Callable[[], object], device: torch.device) -> float:
    awaited(device)
    begun = time.perf_counter()
    work()
    awaited(device)
    return time.perf_counter() - begun


def awaited(device: torch.device) -> None:
    """All that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
