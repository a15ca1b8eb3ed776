"""What every network needs to be a task model, whatever its answers look like.

It is given images in the size and the normalisation it wants, tried once before it is believed,
and overheard at its last layer.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from activegen.records import Images, Prediction, UserError

TRY_SIZE = (64, 64)  # of the dry run where no input size is given


class TaskNetwork(nn.Module, ABC):
    """A network for normalised images, made a task model.

    Dropout and batch norm follow the mode (``train()``, ``eval()``) the model is in.

    Args:
        network: any module with one output per class.
        classes: number of classes.
        size: (height, width) that the network sees; None leaves images as they are.
        mean: subtracted from each channel of the 0..1 image.
        std: what each channel is divided by after that.
        head: name of the layer of the network that makes the logits; None without one.
    """

    space: ClassVar[int]
    """Dimensions of an answer: 0 for the class of an image, 2 for those of its pixels."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        size: tuple[int, int] | None,
        mean: Sequence[float],
        std: Sequence[float],
        head: str | None,
    ):
        super().__init__()
        self.network = network
        self.classes = classes
        self.size = size
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(tuple(std)).view(3, 1, 1), persistent=False)
        self._head = head

    @abstractmethod
    def predict(self, images: Images) -> Prediction:
        """Logits and features, differentiable in the images."""

    def prepared(self, images: Images) -> Float[Tensor, "b 3 height width"]:
        """As the network wants them."""
        images = images.to(self.mean.device, torch.float32)  # no other type resizes everywhere
        if self.size is not None and images.shape[-2:] != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=True)
        return ((images - self.mean) / self.std).to(self.mean.dtype)

    @property
    def head(self) -> nn.Module | None:
        """The layer that makes the logits."""
        return None if self._head is None else self.network.get_submodule(self._head)


@contextmanager
def listening(layer: nn.Module | None) -> Iterator[list[Tensor]]:
    """The inputs that a layer is called with, in order, while the context lasts."""
    heard: list[Tensor] = []
    if layer is None:
        yield heard
        return
    hook = layer.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    try:
        yield heard
    finally:
        hook.remove()


@contextmanager
def modes_kept(model: object) -> Iterator[None]:
    """Leave every module of the model in the mode (training or not) in which it came."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def dry_run(
    network: nn.Module,
    size: tuple[int, int],
    layers: tuple[type[nn.Module], ...],
    remedy: str = "give the size that it was made for",
) -> tuple[Any, list[tuple[str, Any]]]:
    """What the network makes of two blank images, and its layers of these types as it called them.

    Raises:
        UserError: it cannot take such images.
    """
    called: list[tuple[str, Any]] = []

    def note(name: str, layer: nn.Module) -> Callable[[nn.Module, object], None]:
        return lambda module, inputs: called.append((name, layer))

    hooks = [
        layer.register_forward_pre_hook(note(name, layer))
        for name, layer in network.named_modules()
        if isinstance(layer, layers)
    ]
    try:
        with modes_kept(network), torch.no_grad(), torch.random.fork_rng([]):
            return network.eval()(_blank(network, size)), called
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        raise UserError(
            f"the network cannot take images of shape (2, 3, {size[0]}, {size[1]}): {error}; "
            f"{remedy}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


def shape_of(output: Any) -> tuple[int, ...] | str:
    """For messages: the shape of a tensor, the type of anything else."""
    return tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__


def _blank(network: nn.Module, size: tuple[int, int]) -> Tensor:
    like = next(network.parameters(), torch.zeros(()))
    return torch.zeros(2, 3, *size, dtype=like.dtype, device=like.device)
