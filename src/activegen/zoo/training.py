"""What the trainings of the embedded generators share: the autoencoder, its latents, captions.

Rombach et al. (2022), https://arxiv.org/abs/2112.10752 (latent diffusion); Salimans & Ho (2022),
https://arxiv.org/abs/2202.00512 (v-prediction).
"""

import argparse
import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTokenizer

from activegen.precision import mixed_precision
from activegen.zoo.architecture import (
    Architecture,
    autoencoder,
    noise_schedule,
    text_encoder,
    text_tokenizer,
)
from activegen.zoo.running import Run, whole


@runtime_checkable
class Pictures(Protocol):
    """Captioned pictures of one domain."""

    @property
    def name(self) -> str:
        """Of the domain."""
        ...

    @property
    def images(self) -> np.ndarray:
        """(n, 64, 64, 3) uint8."""
        ...

    @property
    def captions(self) -> list[tuple[str, ...]]:
        """Of each picture, to draw from."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """What is told apart in them."""
        ...

    @property
    def targets(self) -> np.ndarray:
        """Places in `classes`, of each picture (n,) or each pixel (n, 64, 64)."""
        ...

    @property
    def any_orientation(self) -> bool:
        """May be flipped and turned by 90 degrees without becoming untrue."""
        ...


def train_autoencoder(
    domains: Sequence[Pictures],
    architecture: Architecture,
    work: Path,
    images: int,
    device: str,
    start: Path | None = None,
) -> Any:
    """L1 of pixels and of their differences, and a small KL; some pictures are mixtures of two."""
    torch.manual_seed(0)
    vae = started(autoencoder(architecture), start and start / "vae").to(device)
    every = torch.cat([torch.from_numpy(domain.images) for domain in domains])
    turn = torch.cat([torch.full((len(d.images),), d.any_orientation) for d in domains])
    run = Run("autoencoder", {"vae": vae}, work, images, batch=32, rate=1e-3, device=device)
    for rng in run.steps():
        index = torch.randint(len(every), (run.batch,), generator=rng)
        batch = every[index].permute(0, 3, 1, 2).float() / 127.5 - 1
        batch = _mixed(_turned(batch, turn[index], rng), rng).to(device)
        with run.autocast():
            posterior = vae.encode(batch).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=rng).to(device)
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        decoded = decoded.float()
        edges = sum(
            (torch.diff(decoded, dim=k) - torch.diff(batch, dim=k)).abs().mean() for k in (2, 3)
        )
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = (decoded - batch).abs().mean() + edges + 2e-3 * kl
        psnr = -10 * math.log10(F.mse_loss(decoded.detach(), batch).item() / 4)
        run.update(loss, {"psnr": psnr, "kl": kl.item()})
    return run.averaged()["vae"].eval()


def encoded(vae: Any, domains: Sequence[Pictures], work: Path, device: str) -> list[Tensor]:
    """The latents of each domain, (orientations, n, c, h, w) float16, unscaled; made once.

    Sets the autoencoder's scale by their spread.
    """
    file = work / f"latents-{known(vae, domains)}.pt"
    if not file.exists():
        with whole(file) as partial:
            torch.save([_encoded(vae, domain, device) for domain in domains], partial)
    latents: list[Tensor] = torch.load(file, weights_only=True)
    spread = torch.cat([x[0].float().flatten() for x in latents]).std().item()
    vae.register_to_config(scaling_factor=1 / spread)
    return latents


def known(vae: Any, domains: Sequence[Pictures]) -> str:
    """Name of the latents that this encoder makes of these pictures, and of all learnt on them."""
    digest = hashlib.sha256()
    for part in (vae.encoder, vae.quant_conv):
        for name, weights in part.state_dict().items():
            digest.update(name.encode() + weights.float().cpu().numpy().tobytes())
    for domain in domains:
        digest.update(f"{domain.name} {domain.images.shape}".encode())
        digest.update(np.ascontiguousarray(domain.images).tobytes())
    return digest.hexdigest()[:8]


@torch.inference_mode()
def _encoded(vae: Any, domain: Pictures, device: str) -> Tensor:
    turns = range(8) if domain.any_orientation else range(1)
    result = []
    for turn in turns:
        parts = []
        for start in range(0, len(domain.images), 500):
            batch = torch.from_numpy(domain.images[start : start + 500]).permute(0, 3, 1, 2)
            batch = dihedral(batch.float() / 127.5 - 1, turn).to(device)
            with mixed_precision(device):
                parts.append(vae.encode(batch).latent_dist.mode().float().half().cpu())
        result.append(torch.cat(parts))
    return torch.stack(result)


class Captions:
    """The text encoder in training, and the captions of its domains as token ids.

    Args:
        domains: whose captions it reads.
        length: tokens that a prompt may have.
        start: a generator to begin with; its tokenizer is kept.
        device: of the encoder.
    """

    def __init__(
        self, domains: Sequence[Pictures], length: int, start: Path | None, device: str
    ) -> None:
        corpus = {caption for d in domains for captions in d.captions for caption in captions}
        self.tokenizer = (
            CLIPTokenizer.from_pretrained(start / "tokenizer", model_max_length=length)
            if start
            else text_tokenizer(corpus, length)
        )
        made = text_encoder(self.tokenizer)
        self.encoder = started(made, start and start / "text_encoder").to(device)
        self._ids = {caption: self._tokens(caption) for caption in {*corpus, ""}}

    def states(self, captions: Sequence[str]) -> Tensor:
        """(b, tokens, width); each wording is encoded once."""
        ids = torch.stack([self._ids[caption] for caption in captions])
        ids, which = ids.unique(dim=0, return_inverse=True)
        device = self.encoder.device
        return self.encoder(ids.to(device)).last_hidden_state[which.to(device)]

    def _tokens(self, caption: str) -> Tensor:
        length = self.tokenizer.model_max_length
        found = self.tokenizer(caption, padding="max_length", max_length=length, truncation=True)
        return torch.tensor(found["input_ids"])


class Noising:
    """The forward process and what the denoiser shall say of it, v."""

    def __init__(self, device: str) -> None:
        self.alphas = noise_schedule().alphas_cumprod.to(device)

    def __call__(self, clean: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Noised latents, their levels, and v."""
        t = torch.randint(len(self.alphas), (len(clean),), generator=rng).to(clean.device)
        noise = torch.randn(clean.shape, generator=rng).to(clean.device)
        alpha, sigma = (x.sqrt().view(-1, 1, 1, 1) for x in (self.alphas[t], 1 - self.alphas[t]))
        return alpha * clean + sigma * noise, t, alpha * noise - sigma * clean


def plain_attention(model: Any, device: str) -> None:
    """Matrix products on a CPU: the backward of its flash attention is slow for few tokens."""
    model.set_attn_processor(AttnProcessor() if device == "cpu" else AttnProcessor2_0())


def started(model: Any, folder: Path | None) -> Any:
    """The model with the weights of a generator's part, if there is one."""
    if folder:
        (file,) = folder.glob("*.safetensors")
        model.load_state_dict(load_file(file))
    return model


def dihedral(images: Tensor, turn: int) -> Tensor:
    """Mirrored from 4 on, then turned by quarters."""
    images = images.flip(3) if turn >= 4 else images
    return images.rot90(turn % 4, (2, 3))


def arguments(description: str | None, out: Path) -> argparse.ArgumentParser:
    """The options that both trainings have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--eurosat", type=Path, required=True, help="folder of eurosat_rgb_train.parquet"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for states to resume from")
    parser.add_argument("--out", type=Path, default=out, help="folder of the generator")
    parser.add_argument("--start", type=Path, help="folder of a generator to begin with")
    parser.add_argument("--compile", action="store_true", help="minutes at the start, then faster")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def prepared(options: argparse.Namespace) -> argparse.Namespace:
    """The work folder is there; the processes of ``torchrun`` know each other, each on its GPU."""
    options.work.mkdir(parents=True, exist_ok=True)
    if "RANK" in os.environ:
        if options.device == "cuda":
            options.device = f"cuda:{os.environ['LOCAL_RANK']}"
            torch.cuda.set_device(options.device)
        dist.init_process_group()
    return options


def is_first() -> bool:
    """Of the processes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def _turned(images: Tensor, may_turn: Tensor, rng: torch.Generator) -> Tensor:
    turn = int(torch.randint(8, (1,), generator=rng))
    return torch.where(may_turn.view(-1, 1, 1, 1), dihedral(images, turn), images)


def _mixed(images: Tensor, rng: torch.Generator) -> Tensor:
    """A third of the pictures get a smooth-edged piece of their neighbour."""
    count, _, height, width = images.shape
    field = F.interpolate(
        torch.randn(count, 1, 4, 4, generator=rng), (height, width), mode="bicubic"
    )
    chosen = torch.rand(count, 1, 1, 1, generator=rng) < 1 / 3
    return torch.where(chosen & (field > 0.2), images.roll(1, 0), images)
