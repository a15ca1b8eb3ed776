"""Where the text looks: cross-attention maps of words, computed beside the real attention.

The output of a layer stays with its fast kernel; the maps need only softmax(Q K_text) of the words'
columns, tens of keys wide. Words are found by their token ids, never by position, so names of any
number of sub-tokens work in any prompt.

A `Reading` says which words, layers and steps the sampler shall keep; `Maps` is what it kept.

Tang et al. (2023), DAAM, https://arxiv.org/abs/2210.04885; Hertz et al. (2022),
https://arxiv.org/abs/2208.01626. Words that are not in the prompt: Marcos-Manchón et al. (2024),
OVAM, https://arxiv.org/abs/2403.14291.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from activegen.diffusion.levels import Level
from activegen.records import UserError

Sizes = tuple[int, ...] | Literal["auto", "all"]
Steps = float | tuple[float, float]
Join = Callable[[Sequence[Tensor], int], Tensor]  # parts of a batch, along a dimension


def find_tokens(ids: Sequence[int], word: Sequence[int]) -> list[int]:
    """Positions of every occurrence of the token sequence ``word`` in ``ids``.

    >>> find_tokens([0, 5, 7, 8, 1], [7, 8])
    [2, 3]
    """
    return sorted({place for of in occurrences(ids, word) for place in of})


def occurrences(ids: Sequence[int], word: Sequence[int]) -> list[range]:
    """The same, each occurrence by itself."""
    size = len(word)
    starts = [i for i in range(len(ids) - size + 1) if list(ids[i : i + size]) == list(word)]
    return [range(start, start + size) for start in starts if size]


def focus(tokenizer: Any, prompts: Sequence[str], words: Sequence[str]) -> Float[Tensor, "b n"]:
    """For each prompt, the share of each token in its word: the mean over sub-tokens.

    Zeros where the word is "".

    Raises:
        UserError: a word is not in its prompt, or lies behind the tokenizer's length.
    """
    rows = torch.zeros(len(prompts), tokenizer.model_max_length)
    for row, prompt, word in zip(rows, prompts, words, strict=True):
        if word:
            _mark(row, _found(tokenizer, prompt, word))
    return rows / rows.sum(1, keepdim=True).clamp_min(1)


def foci(
    tokenizer: Any, prompts: Sequence[str], words: Sequence[Sequence[str]]
) -> Float[Tensor, "b words n"]:
    """The same for several words of each prompt; zeros fill up where a prompt has fewer.

    Where a word is part of a longer one, as "dog" is of "hot dog", it is that one which is meant.

    Raises:
        UserError: as `focus`, and where a prompt has no word, or an empty one.
    """
    rows = torch.zeros(len(prompts), max(map(len, words)), tokenizer.model_max_length)
    for image, prompt, named in zip(rows, prompts, words, strict=True):
        if not named:
            raise UserError(f"there is no word to find in '{prompt}'; name at least one")
        found = [_found(tokenizer, prompt, word) for word in named]
        for row, own in zip(image, found, strict=False):
            inside = [of for of in own if any(_within(of, it) for some in found for it in some)]
            _mark(row, [of for of in own if of not in inside] or own)
    return rows / rows.sum(2, keepdim=True).clamp_min(1)


def _mark(row: Float[Tensor, " n"], places: Sequence[range]) -> None:
    for of in places:
        row[of.start : of.stop] = 1


def _within(part: range, whole: range) -> bool:
    return len(part) < len(whole) and whole.start <= part.start and part.stop <= whole.stop


def _found(tokenizer: Any, prompt: str, word: str) -> list[range]:
    ids = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length)["input_ids"]
    found = occurrences(ids, tokenizer(word, add_special_tokens=False)["input_ids"])
    if not found:
        raise UserError(
            f"the word '{word}' is not in the prompt '{prompt}' (or lies behind its first "
            f"{tokenizer.model_max_length} tokens); put it in, or name another word"
        )
    return found


def height_of_layers(latent_height: int, least: int) -> int:
    """Of the maps to read: the latents', halved twice (rounded up) unless that is under ``least``.

    16 of 64 with either of our bounds, as in the three papers; the rule for others is ours.
    """
    for _ in range(2):
        half = (latent_height + 1) // 2
        latent_height = half if half >= least else latent_height
    return latent_height


@dataclass(frozen=True)
class Words:
    """Words to find in pictures, several an image.

    Args:
        focus: share of each token in each word; zeros fill up images with fewer words.
        text: states of the attribution prompts whose tokens these are; None = the prompts that the
            images are drawn from, in the state that they have in each step.
    """

    focus: Float[Tensor, "b words n"]
    text: Float[Tensor, "b n d"] | None = None

    def of(self, rows: Int[Tensor, " rows"]) -> "Words":
        """Of some of the pictures."""
        return Words(self.focus[rows], None if self.text is None else self.text[rows])


@dataclass(frozen=True)
class Reading:
    """Which attention to keep while images are drawn. Steps that it does not name cost nothing.

    Args:
        words: whose maps to keep.
        steps: where a single step is read, as a share of all, so 0.5 is number n // 2 of n; or a
            window, (from, until), whose steps are averaged.
        sizes: heights of the layers to read; "all" that are not in the denoiser's middle; "auto"
            = `height_of_layers`, not under `LEAST`.
        self_attention: height of the layers whose attention from picture to picture is kept; None
            for none, "auto" for twice the height of "auto", but not above the latents' (Nguyen et
            al. 2023, https://arxiv.org/abs/2309.14303, have 32 and 16 of 64).

    Raises:
        UserError: steps that are no shares, or an empty window.
    """

    LEAST = 16

    words: Words
    steps: Steps = 0.5
    sizes: Sizes = "auto"
    self_attention: int | Literal["auto"] | None = None

    def __post_init__(self) -> None:
        """Check the steps."""
        start, stop = self._window
        if not 0 <= start < stop <= 1:
            raise UserError(
                f"attention is to be read at {self.steps} of the steps; give one share with "
                "0 <= share < 1, or two with 0 <= from < until <= 1"
            )

    @property
    def _window(self) -> tuple[float, float]:
        return self.steps if isinstance(self.steps, tuple) else (self.steps, 1.0)

    def at(self, level: Level) -> bool:
        """Reads in the step that starts here."""
        if isinstance(self.steps, tuple):
            return self.steps[0] <= level.progress < self.steps[1]
        return level.index == math.floor(self.steps * level.count + 1e-9)

    def of(self, rows: Int[Tensor, " rows"]) -> "Reading":
        """Of some of the images."""
        return replace(self, words=self.words.of(rows))

    def hearing(self, latent_shape: tuple[int, int]) -> "Hearing":
        """For one forward of latents of this height and width."""
        auto = height_of_layers(latent_shape[0], self.LEAST)
        sizes = (auto,) if self.sizes == "auto" else () if self.sizes == "all" else self.sizes
        own = self.self_attention
        if own == "auto":
            own = height_of_layers(latent_shape[0], auto + 1)
        return Hearing(self.words, sizes, latent_shape, own)


@dataclass(frozen=True)
class Maps:
    """Where words look: raw shares of a softmax, mean over sub-tokens, heads, and steps.

    Args:
        words: of each size, largest first: the mean over its layers. Zeros where an image has fewer
            words.
        layers: of each size, how many layers these are.
        self_attention: how much each place looks at each other, sums to 1 over the last two
            dimensions; mean over the layers of its size.
    """

    words: tuple[Float[Tensor, "b words _ _"], ...]
    layers: tuple[int, ...]
    self_attention: Float[Tensor, "b h w h w"] | None = None

    def plus(self, other: "Maps") -> "Maps":
        """The sum of two readings."""
        own, more = self.self_attention, other.self_attention
        words = tuple(a + b for a, b in zip(self.words, other.words, strict=True))
        return Maps(words, self.layers, None if own is None or more is None else own + more)

    def over(self, count: int) -> "Maps":
        """The mean of ``count`` readings whose sum this is."""
        own = self.self_attention
        words = tuple(maps / count for maps in self.words)
        return Maps(words, self.layers, None if own is None else own / count)

    @classmethod
    def joined(cls, parts: "Sequence[Maps]", join: Join) -> "Maps":
        """Of readings of some images each."""
        own = [part.self_attention for part in parts if part.self_attention is not None]
        words = tuple(join(of, 0) for of in zip(*(part.words for part in parts), strict=True))
        return cls(words, parts[0].layers, join(own, 0) if own else None)


def normalised(maps: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Each map from 0 to 1; a constant one becomes 0."""
    low = maps.amin((1, 2), keepdim=True)
    return (maps - low) / (maps.amax((1, 2), keepdim=True) - low).clamp_min(1e-8)


class Recorder:
    """Sits in a UNet's attention layers, but those in its middle, for those who want to hear.

    Args:
        unet: a diffusers UNet whose layers have an ``attn2`` towards the text, and an ``attn1``.
    """

    def __init__(self, unet: nn.Module):
        self._hearings: tuple[Hearing, ...] = ()
        for name, module in unet.named_modules():
            if name.endswith(("attn1", "attn2")) and not name.startswith("mid_block"):
                layer: Any = module
                layer.set_processor(_Beside(layer.processor, self, name.endswith("attn2")))

    @contextmanager
    def listening(self, *hearings: "Hearing | None") -> Iterator[None]:
        """Shows them one forward; the last rows of its batch have the prompts."""
        self._hearings = tuple(hearing for hearing in hearings if hearing is not None)
        try:
            yield
        finally:
            self._hearings = ()

    def see(self, attn: Any, hidden: Tensor, text: Tensor | None) -> None:
        """Called by the layers."""
        for hearing in self._hearings:
            hearing.add(attn, hidden, text)


class Hearing:
    """What is seen in one forward.

    Args:
        words: whose maps are wanted.
        sizes: heights of the layers to read; () = all.
        latent_shape: height and width of the denoiser's input.
        self_attention: height of the layers whose self-attention is wanted.
        differentiable: keep the graph, for those who train on the maps.
    """

    def __init__(
        self,
        words: Words,
        sizes: tuple[int, ...],
        latent_shape: tuple[int, int],
        self_attention: int | None = None,
        differentiable: bool = False,
    ):
        self.words, self.sizes, self.latent_shape = words, sizes, latent_shape
        self.differentiable = differentiable
        self.self_attention = self_attention
        self._maps: dict[tuple[int, int], list[Tensor]] = {}
        self._own: list[Tensor] = []

    def add(self, attn: Any, hidden: Tensor, text: Tensor | None) -> None:
        """The maps of one layer; without text, of its self-attention."""
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            self._add(attn, hidden, text)

    def _add(self, attn: Any, hidden: Tensor, text: Tensor | None) -> None:
        shape = _shape(hidden.shape[1], self.latent_shape)
        hidden = hidden[-len(self.words.focus) :]
        if text is None:
            if shape[0] == self.self_attention:  # image by image: it is large
                own = torch.cat([_weights(attn, row, row) for row in hidden.split(1)])
                self._own.append(own.unflatten(2, shape).unflatten(1, shape))
        elif not self.sizes or shape[0] in self.sizes:
            keys = text[-len(hidden) :] if self.words.text is None else self.words.text.to(hidden)
            weights = _weights(attn, hidden, keys)
            maps = torch.einsum("bpn,bkn->bkp", weights, self.words.focus.to(weights))
            self._maps.setdefault(shape, []).append(maps.unflatten(2, shape))

    def maps(self) -> Maps:
        """Mean over the layers of each size.

        Raises:
            UserError: the UNet has no attention of a size that was asked for.
        """
        heights = {height for height, _ in self._maps}
        missing = [f"text attention at {size} pixels" for size in self.sizes if size not in heights]
        if not heights and not missing:
            missing = ["text attention outside its middle"]
        if self.self_attention is not None and not self._own:
            missing.append(f"self-attention at {self.self_attention} pixels")
        if missing:
            raise UserError(f"the model has no {missing[0]}; choose another size")
        seen = [self._maps[shape] for shape in sorted(self._maps, reverse=True)]
        return Maps(
            tuple(torch.stack(maps).mean(0) for maps in seen),
            tuple(len(maps) for maps in seen),
            torch.stack(self._own).mean(0) if self._own else None,
        )


def _weights(attn: Any, hidden: Tensor, keys: Tensor) -> Float[Tensor, "b p n"]:
    """softmax(Q K^T / sqrt d), mean over heads, in float32."""
    query, key = (
        x.unflatten(-1, (attn.heads, -1)).transpose(1, 2).float()
        for x in (attn.to_q(hidden), attn.to_k(keys))
    )
    with torch.autocast(query.device.type, enabled=False):
        return torch.softmax(query @ key.transpose(-1, -2) * attn.scale, dim=-1).mean(1)


def _shape(pixels: int, latent_shape: tuple[int, int]) -> tuple[int, int]:
    """Of a layer that sees ``pixels``: the latents' height and width, halved (rounded up)."""
    height, width = latent_shape
    while height * width > pixels:
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


class _Beside:
    """An attention processor that shows its inputs to a recorder and leaves the result alone."""

    def __init__(self, processor: Any, recorder: Recorder, of_text: bool):
        self.processor, self.recorder, self.of_text = processor, recorder, of_text

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **rest: Any,
    ) -> Tensor:
        if (encoder_hidden_states is not None) == self.of_text:
            self.recorder.see(attn, hidden_states, encoder_hidden_states)
        return self.processor(attn, hidden_states, encoder_hidden_states, **rest)


def resized(maps: Float[Tensor, "b h w"], size: tuple[int, int]) -> Float[Tensor, "b h2 w2"]:
    """Bilinear, for masks on latents or pictures."""
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear").squeeze(1)
