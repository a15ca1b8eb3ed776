"""Attention that knows where its words are: a loss on the maps of class words, from exact masks.

A large generator learns this by itself; ours has seen too little, and its words look almost
everywhere. Wang et al. (2024), TokenCompose, https://arxiv.org/abs/2312.03626: their token loss.
Differs from them in leaving out their loss of pixels, and in a weight that falls with the noise, in
which no place is known.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from activegen.data.wording import bare
from activegen.diffusion.attention import Hearing, Words, find_tokens

WEIGHT = 0.5  # beside the denoiser's loss


class Grounding:
    """Finds the class words of captions, and what their attention misses.

    Args:
        tokenizer: of the captions.
        captions: that will come.
        wordings: of each class, in the order of their ids.
        size: height of the layers that are grounded, and of the latents.
    """

    def __init__(
        self,
        tokenizer: Any,
        captions: Iterable[str],
        wordings: Mapping[str, Sequence[str]],
        size: int,
    ) -> None:
        self.size, self.tokens = size, tokenizer.model_max_length
        known = [
            [tokenizer(bare(w), add_special_tokens=False)["input_ids"] for w in words]
            for words in wordings.values()
        ]
        self._places = {
            caption: _places(tokenizer(caption)["input_ids"][: self.tokens], known)
            for caption in set(captions)
        }
        self._most = max((len(of) for of in self._places.values()), default=1)

    def hearing(self, captions: Sequence[str], device: torch.device | str) -> Hearing:
        """Of one forward whose last images have these captions."""
        focus = torch.zeros(len(captions), self._most, self.tokens)
        for rows, caption in zip(focus, captions, strict=True):
            for row, places in zip(rows, self._found(caption).values(), strict=False):
                row[places] = 1 / len(places)
        return Hearing(
            Words(focus.to(device)), (self.size,), (self.size, self.size), differentiable=True
        )

    def loss(
        self,
        maps: Float[Tensor, "b words h_a w_a"],
        captions: Sequence[str],
        masks: Integer[Tensor, "b h w"],
        weights: Float[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """(1 - share of a word's attention inside its class)^2, mean over words.

        Args:
            maps: of the words, as the hearing has them after the forward.
            captions: of the images.
            masks: class ids.
            weights: of the images, 0 to 1.
        """
        missed = [maps.new_zeros(())]
        for image, caption, mask, weight in zip(maps, captions, masks, weights, strict=True):
            for map_, label in zip(image, self._found(caption), strict=False):
                inside = F.adaptive_avg_pool2d((mask == label).float()[None], self.size)[0]
                share = (map_ * inside.to(map_)).sum() / map_.sum()
                missed.append(weight * (1 - share) ** 2)
        return torch.stack(missed).sum() / max(len(missed) - 1, 1)

    def _found(self, caption: str) -> dict[int, list[int]]:
        return self._places.get(caption, {})


def _places(ids: Sequence[int], known: Sequence[Sequence[Sequence[int]]]) -> dict[int, list[int]]:
    """The tokens of each class that is named, by its longest wording."""
    found = {}
    for label, wordings in enumerate(known):
        for wording in sorted(wordings, key=len, reverse=True):
            if places := find_tokens(ids, wording):
                found[label] = places
                break
    return found
