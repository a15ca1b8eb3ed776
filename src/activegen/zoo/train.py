"""Makes the embedded generator: ``python -m activegen.zoo.train --eurosat DIR --work DIR``.

Three stages, each resumable from its state in ``--work`` and better for being run longer with a
larger ``--images``: the autoencoder, the latents of all images, the denoiser with its text encoder.
Several processes or devices share the work under ``torchrun``, once the latents are there.
The result is a folder in diffusers' own layout, float16 safetensors.

Rombach et al. (2022), https://arxiv.org/abs/2112.10752 (latent diffusion); Salimans & Ho (2022),
https://arxiv.org/abs/2202.00512 (v-prediction).
"""

import argparse
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from transformers import CLIPTokenizer

from activegen.zoo import LAND_COVER
from activegen.zoo.architecture import (
    TOKENS,
    autoencoder,
    denoiser,
    export,
    noise_schedule,
    text_encoder,
    text_tokenizer,
)
from activegen.zoo.domains import Domain, eurosat, rendered
from activegen.zoo.running import Run
from activegen.zoo.sharpening import sharpen

WORLD_TILES = 24_000
WORLD_SEED = 20_24


def train_autoencoder(domains: list[Domain], work: Path, images: int, device: str) -> Any:
    """L1 of pixels and of their differences, and a small KL; some pictures are mixtures of two."""
    torch.manual_seed(0)
    vae = autoencoder().to(device)
    every = torch.cat([torch.from_numpy(domain.images) for domain in domains])
    turn = torch.cat([torch.full((len(d.images),), d.any_orientation) for d in domains])
    run = Run("autoencoder", {"vae": vae}, work, images, batch=64, rate=1.5e-3, device=device)
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


@torch.inference_mode()
def encode_all(vae: Any, domain: Domain, device: str) -> Tensor:
    """(orientations, n, 8, 8, 8) float16, unscaled."""
    turns = range(8) if domain.any_orientation else range(1)
    result = []
    for turn in turns:
        parts = []
        for start in range(0, len(domain.images), 500):
            batch = torch.from_numpy(domain.images[start : start + 500]).permute(0, 3, 1, 2)
            batch = _dihedral(batch.float() / 127.5 - 1, turn).to(device)
            with torch.autocast(device.split(":")[0], torch.bfloat16):
                parts.append(vae.encode(batch).latent_dist.mode().float().half().cpu())
        result.append(torch.cat(parts))
    return torch.stack(result)


def train_denoiser(
    domains: list[Domain],
    latents: list[Tensor],
    vae: Any,
    work: Path,
    images: int,
    device: str,
    compiled: bool,
) -> dict[str, nn.Module]:
    """The denoiser and the text encoder together, one caption in ten empty."""
    torch.manual_seed(1)
    corpus = [caption for d in domains for captions in d.captions for caption in captions]
    tokenizer = text_tokenizer(corpus)
    tokenizer.save_pretrained(work / "tokenizer")
    text = text_encoder(tokenizer)
    unet = denoiser(text.config.hidden_size).to(device)
    text = text.to(device)
    # plain matrix products: the backward of CPU flash attention is slow for 64 tokens
    unet.set_attn_processor(AttnProcessor() if device == "cpu" else AttnProcessor2_0())
    denoise = torch.compile(unet) if compiled else unet
    schedule = noise_schedule()
    alphas = schedule.alphas_cumprod.to(device)
    scale = vae.config.scaling_factor
    tokens = {c: _tokens(tokenizer, c) for c in {*corpus, ""}}
    share = torch.tensor([0.6, 0.4]) if len(domains) == 2 else torch.ones(len(domains))
    models = {"unet": unet, "text_encoder": text}
    run = Run("denoiser", models, work, images, batch=128, rate=8e-4, device=device)
    for rng in run.steps():
        which = torch.multinomial(share, run.batch, replacement=True, generator=rng)
        draws = torch.rand(run.batch, 4, generator=rng)
        clean, captions = [], []
        for domain, (a, b, c, empty) in zip(which.tolist(), draws.tolist(), strict=True):
            turns, count = latents[domain].shape[:2]
            index = int(a * count)
            clean.append(latents[domain][int(b * turns), index])
            options = domains[domain].captions[index]
            captions.append("" if empty < 0.1 else options[int(c * len(options))])
        z = torch.stack(clean).float().to(device) * scale
        t = torch.randint(len(alphas), (run.batch,), generator=rng).to(device)
        noise = torch.randn(z.shape, generator=rng).to(device)
        alpha, sigma = (x.view(-1, 1, 1, 1) for x in (alphas[t].sqrt(), (1 - alphas[t]).sqrt()))
        ids = torch.stack([tokens[caption] for caption in captions])
        ids, which = ids.unique(dim=0, return_inverse=True)
        with run.autocast():
            states = text(ids.to(device)).last_hidden_state[which.to(device)]
            v = denoise(alpha * z + sigma * noise, t, states).sample
        loss = F.mse_loss(v.float(), alpha * noise - sigma * z)
        run.update(loss, {"loss": loss.item()})
    return run.averaged()


def _tokens(tokenizer: CLIPTokenizer, caption: str) -> Tensor:
    encoded = tokenizer(caption, padding="max_length", max_length=TOKENS, truncation=True)
    return torch.tensor(encoded["input_ids"])


def _dihedral(images: Tensor, turn: int) -> Tensor:
    images = images.flip(3) if turn >= 4 else images
    return images.rot90(turn % 4, (2, 3))


def _turned(images: Tensor, may_turn: Tensor, rng: torch.Generator) -> Tensor:
    turn = int(torch.randint(8, (1,), generator=rng))
    return torch.where(may_turn.view(-1, 1, 1, 1), _dihedral(images, turn), images)


def _mixed(images: Tensor, rng: torch.Generator) -> Tensor:
    """A third of the pictures get a smooth-edged piece of their neighbour."""
    count, _, height, width = images.shape
    field = F.interpolate(
        torch.randn(count, 1, 4, 4, generator=rng), (height, width), mode="bicubic"
    )
    chosen = torch.rand(count, 1, 1, 1, generator=rng) < 1 / 3
    return torch.where(chosen & (field > 0.2), images.roll(1, 0), images)


def _world(work: Path, count: int) -> Domain:
    """Rendered once and kept."""
    cache = work / f"world-{count}.npz"
    if not cache.exists():
        tiles = rendered(count, WORLD_SEED)
        np.savez(
            cache,
            images=tiles.images,
            labels=tiles.labels,
            captions=["|".join(c) for c in tiles.captions],
        )
    stored = np.load(cache)
    captions = [tuple(text.split("|")) for text in stored["captions"].tolist()]
    return Domain("world", stored["images"], captions, stored["labels"].tolist(), False)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--eurosat", type=Path, required=True, help="folder of eurosat_rgb_train.parquet"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for states to resume from")
    parser.add_argument("--out", type=Path, default=LAND_COVER, help="folder of the generator")
    parser.add_argument("--autoencoder-images", type=int, default=120_000)
    parser.add_argument("--decoder-images", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=1_500_000, help="images the denoiser sees")
    parser.add_argument("--world-tiles", type=int, default=WORLD_TILES)
    parser.add_argument("--compile", action="store_true", help="minutes at the start, then faster")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--snapshot", action="store_true", help="export what there is, train nothing"
    )
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if "RANK" in os.environ:  # under torchrun
        dist.init_process_group()

    domains = [eurosat(options.eurosat), _world(options.work, options.world_tiles)]
    if options.snapshot:
        options.autoencoder_images = options.images = 0

    vae = train_autoencoder(domains, options.work, options.autoencoder_images, options.device)
    latent_file = options.work / "latents.pt"
    if not latent_file.exists():
        torch.save([encode_all(vae, domain, options.device) for domain in domains], latent_file)
    latents = torch.load(latent_file, weights_only=True)
    spread = torch.cat([x[0].float() for x in latents]).std().item()
    if options.decoder_images:
        vae = sharpen(
            domains, latents, vae, _dihedral, options.work, options.decoder_images, options.device
        )
    vae.register_to_config(scaling_factor=1 / spread)
    models = train_denoiser(
        domains, latents, vae, options.work, options.images, options.device, options.compile
    )
    if not dist.is_initialized() or dist.get_rank() == 0:
        export({"vae": vae, **models}, options.work / "tokenizer", options.out)


if __name__ == "__main__":
    main()
