"""Where the text looks: cross-attention maps of a word, computed beside the real attention.

The output of a layer stays with its fast kernel; the map needs only softmax(Q K_text) of the words'
columns, tens of keys wide. Words are found by their token ids, never by position, so names of any
number of sub-tokens work in any prompt.

Tang et al. (2023), DAAM, https://arxiv.org/abs/2210.04885; Hertz et al. (2022),
https://arxiv.org/abs/2208.01626.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from activegen.records import UserError


def find_tokens(ids: Sequence[int], word: Sequence[int]) -> list[int]:
    """Positions of every occurrence of the token sequence ``word`` in ``ids``.

    >>> find_tokens([0, 5, 7, 8, 1], [7, 8])
    [2, 3]
    """
    size = len(word)
    starts = [i for i in range(len(ids) - size + 1) if list(ids[i : i + size]) == list(word)]
    return sorted({start + k for start in starts for k in range(size)})


def focus(tokenizer: Any, prompts: Sequence[str], words: Sequence[str]) -> Float[Tensor, "b n"]:
    """For each prompt, the share of each token in its word: the mean over sub-tokens.

    Zeros where the word is "".

    Raises:
        UserError: a word is not in its prompt, or lies behind the tokenizer's length.
    """
    rows = torch.zeros(len(prompts), tokenizer.model_max_length)
    for row, prompt, word in zip(rows, prompts, words, strict=True):
        if not word:
            continue
        ids = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length)["input_ids"]
        found = find_tokens(ids, tokenizer(word, add_special_tokens=False)["input_ids"])
        if not found:
            raise UserError(
                f"the word '{word}' is not in the prompt '{prompt}' (or lies behind its first "
                f"{tokenizer.model_max_length} tokens); put it in, or name another word"
            )
        row[found] = 1 / len(found)
    return rows


def normalised(maps: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Each map from 0 to 1; a constant one becomes 0."""
    low = maps.amin((1, 2), keepdim=True)
    return (maps - low) / (maps.amax((1, 2), keepdim=True) - low).clamp_min(1e-8)


class Recorder:
    """Sits in a UNet's text attention layers of one size and keeps the word's maps when asked.

    Args:
        unet: a diffusers UNet whose layers have an ``attn2`` towards the text.
        size: height of the maps to read; layers of another size are left out.
    """

    def __init__(self, unet: nn.Module, size: int):
        self.size = size
        self._hearing: _Hearing | None = None
        for name, module in unet.named_modules():
            if name.endswith("attn2") and not name.startswith("mid_block"):
                layer: Any = module
                layer.set_processor(_Beside(layer.processor, self))

    @contextmanager
    def listening(
        self, focus: Float[Tensor, "b n"], latent_shape: tuple[int, int]
    ) -> Iterator["_Hearing"]:
        """Records one forward; the last ``len(focus)`` rows of its batch have the prompts."""
        self._hearing = _Hearing(self.size, focus, latent_shape)
        try:
            yield self._hearing
        finally:
            self._hearing = None

    def see(self, attn: Any, hidden: Tensor, text: Tensor) -> None:
        """Called by the layers."""
        if self._hearing is not None:
            self._hearing.add(attn, hidden, text)


class _Hearing:
    """What was seen in one forward."""

    def __init__(self, size: int, focus: Tensor, latent_shape: tuple[int, int]):
        self.size, self.focus, self.latent_shape = size, focus, latent_shape
        self._maps: list[Tensor] = []

    @torch.no_grad()
    def add(self, attn: Any, hidden: Tensor, text: Tensor) -> None:
        """The word's map in one layer: softmax(Q K^T / sqrt d) in its columns, mean over heads."""
        shape = _shape(hidden.shape[1], self.latent_shape)
        if shape[0] != self.size:
            return
        rows = len(self.focus)
        query, key = attn.to_q(hidden[-rows:]), attn.to_k(text[-rows:])
        query, key = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2).float() for x in (query, key)
        )
        weights = torch.softmax(query @ key.transpose(-1, -2) * attn.scale, dim=-1).mean(1)
        maps = torch.einsum("bpn,bn->bp", weights, self.focus.to(weights))
        self._maps.append(maps.unflatten(1, shape))

    def mean(self) -> Float[Tensor, "b h w"]:
        """Over layers.

        Raises:
            UserError: the UNet has no text attention of this size.
        """
        if not self._maps:
            raise UserError(
                f"the model has no text attention at {self.size} pixels; choose another size"
            )
        return torch.stack(self._maps).mean(0)


def _shape(pixels: int, latent_shape: tuple[int, int]) -> tuple[int, int]:
    """Of a layer that sees ``pixels``: the latents' height and width, halved (rounded up)."""
    height, width = latent_shape
    while height * width > pixels:
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


class _Beside:
    """An attention processor that shows its inputs to a recorder and leaves the result alone."""

    def __init__(self, processor: Any, recorder: Recorder):
        self.processor, self.recorder = processor, recorder

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **rest: Any,
    ) -> Tensor:
        if encoder_hidden_states is not None:
            self.recorder.see(attn, hidden_states, encoder_hidden_states)
        return self.processor(attn, hidden_states, encoder_hidden_states, **rest)


def resized(maps: Float[Tensor, "b h w"], size: tuple[int, int]) -> Float[Tensor, "b h2 w2"]:
    """Bilinear, for masks on latents or pictures."""
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear").squeeze(1)
