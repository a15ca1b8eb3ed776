"""Stable Diffusion XL, and anything with the same parts.

Two text encoders, whose states stand side by side, token by token; and besides the text one state
of each whole prompt, and the sizes of the picture: as if from one of the pictures' own size, uncut.

Podell et al. (2023), https://arxiv.org/abs/2307.01952.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from activegen.diffusion.control import Control
from activegen.diffusion.lora import Lora
from activegen.diffusion.model import Conditioning
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.records import UserError, fingerprint

ZEROS = "force_zeros_for_empty_prompt"  # a key of model_index.json
SIZES = 6  # numbers: original height and width, top and left of the cut, target height and width


class StableDiffusionXL(StableDiffusion):
    """As `StableDiffusion`, with a second text encoder.

    Words are found by the first tokenizer; the second has the same vocabulary, so they are at the
    same places in its text, but for prompts with "!!", which pads there and is cut otherwise.

    Args:
        unet: denoiser.
        vae: autoencoder.
        text_encoder: CLIP text model.
        text_encoder_2: the larger one, with the projection that gives a state of the whole prompt.
        tokenizer: of the first.
        tokenizer_2: of the second.
        scheduler: the checkpoint's own scheduler.
        name: as the other class has it, like the rest.
        attention_size: see there.
        controls: see there.
        size: see there.
        zeros: without a negative prompt the denoiser wants zeros, not the states of an empty text.

    Raises:
        UserError: as the other class, and where the second text encoder does not fit.
    """

    PARTS = (*StableDiffusion.PARTS, "text_encoder_2")
    BESIDE = "text_time"

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        text_encoder_2: CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        tokenizer_2: CLIPTokenizer,
        scheduler: Any,
        name: str = "unnamed",
        attention_size: int | None = None,
        controls: Sequence[Control] = (),
        size: tuple[int, int] | None = None,
        zeros: bool = True,
    ):
        self.text_encoder_2: Any = text_encoder_2.eval()
        self.tokenizer_2, self.zeros = tokenizer_2, zeros
        super().__init__(
            unet, vae, text_encoder, tokenizer, scheduler, name, attention_size, controls, size
        )
        self._check_second()

    @classmethod
    def load(
        cls, path: str | Path, *args: Any, loras: Sequence[Lora] = (), **settings: Any
    ) -> "StableDiffusionXL":
        """From a folder in diffusers' layout (or a Hub id), as `StableDiffusion.load`.

        In half precision the autoencoder stays in float32 if its config says ``force_upcast``:
        the one that came with SDXL overflows in float16.

        Raises:
            UserError: as there; or there are LoRAs, which this family does not take yet.
        """
        if loras:
            raise UserError(
                f"'{path}' is of the SDXL family, which takes no LoRA here; leave model.lora away, "
                "or give a folder with the LoRA fused into its weights"
            )
        made = super().load(path, *args, **settings)
        assert isinstance(made, cls)
        return made

    def made_by(self) -> dict[str, str]:
        """Name, content and versions, for provenance."""
        made = super().made_by()
        return made | {"revision": fingerprint([made["revision"], self.zeros])}

    @torch.no_grad()
    def condition(
        self,
        prompts: Sequence[str],
        words: Sequence[str],
        negative: str = "",
        control: Sequence[Float[Tensor, "b 3 height width"]] = (),
    ) -> Conditioning:
        """As `StableDiffusion.condition`, with pooled states.

        Differs from diffusers: there ``negative`` "" is a text, and None is none; here "" is none.
        """
        made = super().condition(prompts, words, negative, control)
        if negative or not self.zeros or made.pooled is None:
            return made
        return replace(
            made,
            negative=torch.zeros_like(made.negative),
            negative_pooled=torch.zeros_like(made.pooled),
        )

    @property
    def _text_width(self) -> int:
        return super()._text_width + self.text_encoder_2.config.hidden_size

    def _encoded(self, prompts: list[str]) -> tuple[Tensor, Tensor | None]:
        """Of both encoders the states before the last layer; of the second also the pooled one."""
        first, second = (
            encoder(self._tokens(tokenizer, prompts)["input_ids"], output_hidden_states=True)
            for tokenizer, encoder in (
                (self.tokenizer, self.text_encoder),
                (self.tokenizer_2, self.text_encoder_2),
            )
        )
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        return states.float(), second.text_embeds.float()

    def _beside(
        self, conditioning: Conditioning, latents: Tensor, prompted: bool
    ) -> dict[str, Tensor]:
        if conditioning.pooled is None or conditioning.negative_pooled is None:
            raise UserError(
                f"the denoiser of '{self.name}' wants pooled states of the prompts; take what its "
                "own condition() gives"
            )
        rows = len(latents)
        pooled = torch.cat([conditioning.negative_pooled, conditioning.pooled])
        size = [side * self.factor for side in latents.shape[2:]]
        columns = [latents.new_full((rows,), side, dtype=torch.float32) for side in size]
        uncut = torch.zeros_like(columns[0])
        return {
            "text_embeds": pooled[-rows:] if prompted else pooled[:rows],
            "time_ids": torch.stack([*columns, uncut, uncut, *columns], 1),
        }

    @classmethod
    def _texts(cls, folder: Path) -> dict[str, Any]:
        return super()._texts(folder) | {
            "tokenizer_2": CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
            "text_encoder_2": CLIPTextModelWithProjection.from_pretrained(
                folder / "text_encoder_2", use_safetensors=True
            ),
            "zeros": index_of(folder).get(ZEROS, True),
        }

    @classmethod
    def _precise(cls, folder: Path, dtype: torch.dtype) -> torch.dtype:
        config: Any = AutoencoderKL.load_config(folder / "vae")
        overflows = config.get("force_upcast", True)
        return torch.float32 if overflows else super()._precise(folder, dtype)

    def _check_second(self) -> None:
        """Refuses parts of SDXL's relatives."""
        unet, second = self.unet.config, self.text_encoder_2.config
        beside = SIZES * (unet.addition_time_embed_dim or 0) + second.projection_dim
        wrong = {
            "takes other pooled states or other sizes (an SDXL refiner's?)": (
                unet.projection_class_embeddings_input_dim != beside
            ),
            "has two tokenizers of different vocabulary or length": (
                self.tokenizer.get_vocab() != self.tokenizer_2.get_vocab()
                or self.tokenizer.model_max_length != self.tokenizer_2.model_max_length
            ),
            "has latents with a mean and a spread of each channel": (
                self.vae.config.latents_mean is not None or self.vae.config.latents_std is not None
            ),
        }
        for what, found in wrong.items():
            if found:
                raise UserError(f"'{self.name}' {what}, which is not supported; take SDXL's own")


def index_of(folder: Path) -> dict[str, Any]:
    """What diffusers wrote of a whole pipeline; nothing where there is no such file.

    Raises:
        UserError: the file is damaged.
    """
    file = folder / "model_index.json"
    try:
        return json.loads(file.read_text()) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); copy it again") from error
