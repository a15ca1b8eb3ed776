"""Any network as a task model: it resizes, normalises, and hands out its last features."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from activegen.records import Images, Prediction, UserError

TRY_SIZE = (64, 64)  # of the dry run where no input size is given


class Classifier(nn.Module):
    """A network that maps normalised images (b, 3, h, w) to logits (b, classes), made a task model.

    Dropout and batch norm follow the mode (``train()``, ``eval()``) the model is in.

    Args:
        network: any module with one output per class.
        classes: number of classes.
        size: (height, width) that the network sees; None leaves images as they are.
        mean: subtracted from each channel of the 0..1 image.
        std: what each channel is divided by after that.

    Raises:
        UserError: a dry run showed that the network cannot take such images, or does not give
            one logit per class.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        size: tuple[int, int] | None = None,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ):
        super().__init__()
        self.network = network
        self.classes = classes
        self.size = size
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(tuple(std)).view(3, 1, 1), persistent=False)
        self._head = _dry_run(network, classes, size or TRY_SIZE)

    def forward(self, images: Images) -> Float[Tensor, "b classes"]:
        """Logits for images in 0..1 of any size."""
        return self.network(self._prepare(images))

    def predict(self, images: Images) -> Prediction:
        """Float32 logits (1, b, classes), and the inputs of the last linear layer (1, b, d).

        Differentiable in the images. Features are None where the network ends in no linear layer.
        """
        with _listening(self._last_linear()) as heard:
            logits = self(images)
        features = heard[-1].float()[None] if heard else None
        return Prediction(logits.float()[None], features)

    def _prepare(self, images: Images) -> Float[Tensor, "b 3 height width"]:
        images = images.to(self.mean.device, torch.float32)  # no other type resizes everywhere
        if self.size is not None and images.shape[-2:] != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=True)
        return ((images - self.mean) / self.std).to(self.mean.dtype)

    def _last_linear(self) -> nn.Module | None:
        return None if self._head is None else self.network.get_submodule(self._head)


@contextmanager
def _listening(layer: nn.Module | None) -> Iterator[list[Tensor]]:
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


def _dry_run(network: nn.Module, classes: int, size: tuple[int, int]) -> str | None:
    """Name of the linear layer that makes the logits, None without; complains of wrong outputs."""
    called: list[tuple[str, nn.Linear]] = []

    def note(name: str, layer: nn.Linear) -> Callable[[nn.Module, object], None]:
        return lambda module, inputs: called.append((name, layer))

    hooks = [
        layer.register_forward_pre_hook(note(name, layer))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        with modes_kept(network), torch.no_grad(), torch.random.fork_rng([]):
            logits = network.eval()(_blank(network, size))
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        raise UserError(
            f"the network cannot take images of shape (2, 3, {size[0]}, {size[1]}): {error}; "
            "give the size that it was made for"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if got != (2, classes):
        raise UserError(
            f"the network must map 2 images to logits of shape (2, {classes}), one per class; "
            f"got {got}: change its number of outputs, or the number of classes"
        )
    return called[-1][0] if called and called[-1][1].out_features == classes else None


def _blank(network: nn.Module, size: tuple[int, int]) -> Tensor:
    like = next(network.parameters(), torch.zeros(()))
    return torch.zeros(2, 3, *size, dtype=like.dtype, device=like.device)
