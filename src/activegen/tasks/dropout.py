"""One network as a committee: its members differ in what dropout leaves out.

Gal & Ghahramani (2016), https://arxiv.org/abs/1506.02142. Batch norm and all else stay as in
evaluation. A mask belongs to a member and a place in the network and is the same for all images, so
that an image's result does not depend on its batch; dropout that a network does by itself, without
a dropout layer, is not reached.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from activegen.records import Images, Prediction, TaskModel, UserError
from activegen.tasks.seeding import derive
from activegen.tasks.task_network import TRY_SIZE, modes_kept

WHOLE_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
LAYERS = (nn.Dropout, *WHOLE_CHANNELS)
HEADS = (nn.Linear, nn.Conv2d)


@dataclass(frozen=True)
class _Place:
    """Where values are dropped.

    Args:
        name: of the layer whose input it is.
        layer: that layer.
        rate: share that is dropped.
        shape: of a mask for an input without its first dimension.
    """

    name: str
    layer: nn.Module
    rate: float
    shape: Callable[[tuple[int, ...]], tuple[int, ...]]


class _Members(nn.Module, ABC):
    """What both kinds share; a kind says which masks are due."""

    def __init__(self, model: TaskModel, members: int, seed: int, rate: float | None = None):
        super().__init__()
        if not isinstance(model, nn.Module):
            raise UserError("dropout members need a torch.nn.Module for a task model")
        if members < 1:
            raise UserError(f"{members} dropout members; give at least 1, and 2 to disagree")
        if rate is not None and not 0 < rate < 1:
            raise UserError(f"rate is {rate}; give the share that is dropped, between 0 and 1")
        self.model, self.members, self.seed = model, members, seed
        self._places = _layers(model) if rate is None else [_before_the_head(model, rate)]

    @abstractmethod
    def _draw(self) -> int:
        """Number of the set of masks for the prediction that is due."""

    def predict(self, images: Images) -> Prediction:
        """Every member's logits and features in the first dimension.

        Differentiable in the images. Costs as many forwards of the network as there are members.
        """
        draw = self._draw()
        predictions: list[Prediction] = []
        for member in range(self.members):
            with _evaluating(self.model), self._dropping(draw, member):
                predictions.append(self.model.predict(images))
        features = [p.features for p in predictions if p.features is not None]
        return Prediction(
            torch.cat([p.logits for p in predictions]), torch.cat(features) if features else None
        )

    @contextmanager
    def _dropping(self, draw: int, member: int) -> Iterator[None]:
        calls: Counter[str] = Counter()  # a layer may be used several times

        def hook(place: _Place) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
            def masked(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
                seed = derive(self.seed, draw, member, place.name, calls[place.name])
                calls[place.name] += 1
                return (inputs[0] * _mask(place, inputs[0], seed), *inputs[1:])

            return masked

        hooks = [p.layer.register_forward_pre_hook(hook(p)) for p in self._places]
        try:
            yield
        finally:
            for made in hooks:
                made.remove()


class FrozenDropout(_Members):
    """Dropout members whose masks are drawn once, from the seed, for all steps and images.

    Common random numbers: what rises along a gradient is the score and not the luck of a draw,
    which Kniesel et al. (2025), https://arxiv.org/abs/2503.09221, Figure 4, found unreliable to
    climb. Freezing is ours; their earlier code repeats one seed, drops in training mode and so
    takes batch statistics of the image itself. Ours as well: one mask for the whole batch.

    Args:
        model: a task model that is a ``torch.nn.Module`` with dropout layers.
        members: how many masks of each layer.
        seed: of the masks.
        rate: for a model without dropout layers, the share of channels that is dropped in front of
            its last layer (ours; a crude committee, since the network never learnt with it);
            dropout layers that it has stay off then. None = its own layers.

    Raises:
        UserError: the model has no dropout layer, or with ``rate`` no linear layer or convolution
            that makes its logits; or it is no module; or a number is out of its range.
    """

    def _draw(self) -> int:
        return 0


class NaiveDropout(_Members):
    """Dropout members with fresh masks in each call; only to compare :class:`FrozenDropout` with.

    Gradients of its disagreement are noise in part (Kniesel et al. 2025, Figure 4), and a result
    depends on how many calls came before, so no run with it can be repeated in parts.

    Args:
        model: as above.
        members: as above.
        seed: of the masks of the first call.
        rate: as above.
    """

    drawn = 0

    def _draw(self) -> int:
        self.drawn += 1
        return self.drawn


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    with modes_kept(model):
        model.eval()
        yield


def _mask(place: _Place, like: Tensor, seed: int) -> Tensor:
    """0 with probability ``rate``, else what keeps the mean; drawn on the CPU."""
    rng = torch.Generator().manual_seed(seed)
    kept = torch.rand(place.shape(tuple(like.shape[1:])), generator=rng) >= place.rate
    return kept.to(like) / (1 - place.rate)


def _layers(model: nn.Module) -> list[_Place]:
    places = [
        _Place(name, layer, layer.p, _channels if isinstance(layer, WHOLE_CHANNELS) else _all)
        for name, layer in model.named_modules()
        if isinstance(layer, LAYERS) and 0 < layer.p < 1
    ]
    if not places:
        raise UserError(
            "the task model has no dropout layer (torch.nn.Dropout) that drops anything: in a "
            "recipe choose a learner.network that has one, as 'small' has, or score the committee "
            "(of: committee); in Python give a rate, which drops inputs of the last layer"
        )
    return places


def _before_the_head(model: nn.Module, rate: float) -> _Place:
    """The layer that is called last among those with one output per class."""
    called: list[tuple[str, nn.Module]] = []

    def note(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda layer, inputs: called.append((name, layer))

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, HEADS)]
    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in layers]
    like = next(model.parameters(), torch.zeros(()))
    try:
        with _evaluating(model), torch.no_grad():
            blank = torch.zeros(1, 3, *TRY_SIZE, device=like.device)
            classes = model.predict(blank).logits.shape[2]  # pyright: ignore[reportCallIssue]
    finally:
        for hook in hooks:
            hook.remove()
    for name, layer in reversed(called):
        if isinstance(layer, nn.Linear) and layer.out_features == classes:
            return _Place(name, layer, rate, _last)
        if isinstance(layer, nn.Conv2d) and layer.out_channels == classes:
            return _Place(name, layer, rate, _channels)
    raise UserError(
        f"the task model has no linear layer or convolution with {classes} outputs, one per class, "
        "to put dropout in front of; use a network with dropout layers"
    )


def _all(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape


def _channels(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *[1] * (len(shape) - 1))


def _last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[-1:]
