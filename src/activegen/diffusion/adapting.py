"""Training a generator on: what is trained, and the loss of one batch.

    z = alpha clean + sigma noise,    loss = |denoiser(z, t, text) - wanted|^2

where ``wanted`` is what the model itself predicts: noise, or v = alpha noise - sigma clean.

Ho et al. (2020), https://arxiv.org/abs/2006.11239, equation 14; Salimans & Ho (2022),
https://arxiv.org/abs/2202.00512, appendix D (v); Zhang et al. (2023),
https://arxiv.org/abs/2302.05543, equation 5 (a ControlNet).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ControlNetModel, DDPMScheduler
from jaxtyping import Float, Int
from torch import Tensor, nn

from activegen.diffusion import lora
from activegen.diffusion.control import Control, check_fit
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.records import Images, Latents, UserError, choose

PICTURE_WIDTHS = (16, 32, 96, 256)  # of a new ControlNet's first layers, as in diffusers


class Denoising(nn.Module):
    """The denoiser at its task; what has gradients is trained.

    Args:
        model: whose parts these are.
        net: a ControlNet beside the denoiser.

    Raises:
        UserError: as `check_adaptable`, or it predicts something else than epsilon or v.
    """

    def __init__(self, model: StableDiffusion, net: Any = None):
        super().__init__()
        check_adaptable(model)
        self.unet, self.text_encoder, self.net = model.unet, model.text_encoder, net
        self.schedule: Any = DDPMScheduler.from_config(model.scheduler.config)
        wanted(self.schedule, torch.zeros(1), torch.zeros(1), torch.zeros(1, dtype=torch.long))

    def forward(
        self,
        clean: Latents,
        noise: Latents,
        level: Int[Tensor, " b"],
        tokens: Int[Tensor, "b n"],
        heard: Int[Tensor, "b n"],
        pictures: Float[Tensor, "b 3 height width"] | None = None,
    ) -> Float[Tensor, " b"]:
        """The squared error of each image, mean over its latents.

        Args:
            clean: latents of real images.
            noise: standard normal.
            level: of noise, one of those that the model was trained on.
            tokens: of the captions, as `tokenised` gives them.
            heard: 1 where a token is no padding.
            pictures: that the ControlNet sees, RGB 0 to 1.
        """
        masked = getattr(self.text_encoder.config, "use_attention_mask", False)
        text = self.text_encoder(tokens, attention_mask=heard if masked else None).last_hidden_state
        noisy = self.schedule.add_noise(clean, noise, level)
        added = {}
        if self.net is not None:
            down, middle = self.net(noisy, level, text, pictures, return_dict=False)
            added = {"down_block_additional_residuals": down}
            added |= {"mid_block_additional_residual": middle}
        output = self.unet(noisy, level, text, **added).sample.float()
        error = output - wanted(self.schedule, clean, noise, level)
        return error.square().mean((1, 2, 3))


def check_adaptable(model: StableDiffusion) -> None:
    """Looks for a family that we have no training for.

    Raises:
        UserError: the denoiser inpaints, or sees more than the text (SDXL).
    """
    if model.inpaints:
        raise UserError(
            f"the denoiser of '{model.name}' inpaints, and cannot be adapted; take a model "
            "that draws from noise alone"
        )
    if model.BESIDE is not None:
        raise UserError(
            f"'{model.name}' is of the SDXL family, which cannot be adapted; take a model of "
            "Stable Diffusion 1.x or 2.x"
        )


def wanted(schedule: Any, clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """What a denoiser shall say at this level of noise: noise or v, as it predicts.

    Raises:
        UserError: it predicts something else.
    """
    prediction = schedule.config.prediction_type
    if prediction == "epsilon":
        return noise
    if prediction == "v_prediction":
        return schedule.get_velocity(clean, noise, level)
    raise UserError(f"a model that predicts '{prediction}' is not supported; use epsilon or v")


def tokenised(
    tokenizer: Any, captions: Sequence[str]
) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"]]:
    """Captions as the text encoder reads them, and where they are no padding."""
    found = tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return found["input_ids"], found["attention_mask"]


class Reconstruction(nn.Module):
    """The autoencoder at its task, for pictures that it draws badly.

    Args:
        model: whose autoencoder it is.
        part: "decoder" leaves the latents as they are; "whole" changes them, and the denoiser has
            to learn them anew.
    """

    def __init__(self, model: StableDiffusion, part: str):
        super().__init__()
        self.vae = model.vae
        parts = {
            "decoder": (self.vae.decoder, self.vae.post_quant_conv),
            "whole": (self.vae,),
        }
        for of in choose(parts, part, "part of the autoencoder"):
            if of is not None:
                of.requires_grad_(True)

    def forward(self, images: Images) -> Float[Tensor, " b"]:
        """The mean absolute error of each image, in 0 to 1, from its most likely latents."""
        latents = self.vae.encode(images * 2 - 1).latent_dist.mode()
        decoded = self.vae.decode(latents).sample.float()
        return ((decoded + 1) / 2 - images).abs().mean((1, 2, 3))


def adapt_lora(
    model: StableDiffusion, rank: int, targets: Sequence[str], text_encoder: bool
) -> Denoising:
    """A new LoRA in the denoiser's attention, and maybe in the text encoder's; only it is trained.

    Raises:
        UserError: as `lora.add` and `Denoising` do.
    """
    lora.add(model.unet, rank, targets)
    if text_encoder:
        lora.add(model.text_encoder, rank, lora.TEXT_TARGETS)
    return Denoising(model)


def adapt_full(model: StableDiffusion, text_encoder: bool) -> Denoising:
    """The whole denoiser, and maybe the text encoder, are trained.

    Raises:
        UserError: as `Denoising` does.
    """
    model.unet.requires_grad_(True)
    if text_encoder:
        model.text_encoder.requires_grad_(True)
    return Denoising(model)


def adapt_control(model: StableDiffusion, start: Control | None = None) -> Denoising:
    """A ControlNet is trained beside a denoiser that stays as it is.

    Args:
        model: with the denoiser.
        start: what to train on; without, a copy of the denoiser's encoder that adds nothing yet.

    Raises:
        UserError: it does not fit the model, or as `Denoising` does.
    """
    if start is None:
        widths = PICTURE_WIDTHS[: model.factor.bit_length()]
        net: Any = ControlNetModel.from_unet(model.unet, conditioning_embedding_out_channels=widths)
        start = Control(net, name="new")
    check_fit(start, model.unet, model.latent_channels, model.factor)
    net = start.net
    return Denoising(model, net.to(model.device).requires_grad_(True))


def save_model(folder: Path, model: StableDiffusion) -> None:
    """Writes the parts in diffusers' layout."""
    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    for name in parts:
        getattr(model, name).save_pretrained(folder / name)
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
    }
    for name in parts:
        kind = type(getattr(model, name))
        index[name] = [kind.__module__.split(".")[0], kind.__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
