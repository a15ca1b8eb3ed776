"""Makes the embedded generator of tiles: ``python -m activegen.zoo.train --eurosat D --work W``.

Each stage is resumable from its state in ``--work`` and better for being run longer with larger
numbers: the autoencoder, the latents of all images, the decoder alone, the denoiser with its text
encoder. With a longer autoencoder what follows begins anew. ``--start DIR`` begins with the weights
of a generator instead of random ones. Several processes or devices share the work under
``torchrun``, once pictures, latents and critics are there.
The result is a folder in diffusers' own layout, float16 safetensors.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from activegen.zoo import LAND_COVER
from activegen.zoo.architecture import TILES, denoiser, export
from activegen.zoo.domains import Domain, eurosat, rendered
from activegen.zoo.running import Run, whole
from activegen.zoo.sharpening import critics, sharpen
from activegen.zoo.training import (
    Captions,
    Noising,
    arguments,
    encoded,
    is_first,
    known,
    plain_attention,
    prepared,
    started,
    train_autoencoder,
)

WORLD_SEED = 20_24


def train_denoiser(
    domains: list[Domain],
    latents: list[Tensor],
    captions: Captions,
    scale: float,
    of: str,
    work: Path,
    images: int,
    device: str,
    compiled: bool,
    start: Path | None = None,
) -> dict[str, nn.Module]:
    """The denoiser and the text encoder together, one caption in ten empty.

    Args:
        domains, latents: what it learns from, and as it was encoded.
        captions: the text encoder.
        scale: of the latents.
        of: name of the latents.
        work: folder of the state.
        images: to see in all.
        device: of all models.
        compiled: whether the denoiser is.
        start: a generator to begin with.
    """
    torch.manual_seed(1)
    unet = denoiser(TILES, captions.encoder.config.hidden_size)
    unet = started(unet, start and start / "unet").to(device)
    plain_attention(unet, device)
    denoise = torch.compile(unet) if compiled else unet
    noised = Noising(device)
    share = torch.tensor([0.6, 0.4])
    models = {"unet": unet, "text_encoder": captions.encoder}
    run = Run(f"denoiser-{of}", models, work, images, batch=128, rate=8e-4, device=device)
    for rng in run.steps():
        which = torch.multinomial(share, run.batch, replacement=True, generator=rng)
        draws = torch.rand(run.batch, 4, generator=rng)
        clean, said = [], []
        for domain, (a, b, c, empty) in zip(which.tolist(), draws.tolist(), strict=True):
            turns, count = latents[domain].shape[:2]
            index = int(a * count)
            clean.append(latents[domain][int(b * turns), index])
            options = domains[domain].captions[index]
            said.append("" if empty < 0.1 else options[int(c * len(options))])
        z, t, wanted = noised(torch.stack(clean).float().to(device) * scale, rng)
        with run.autocast():
            v = denoise(z, t, captions.states(said)).sample
        loss = F.mse_loss(v.float(), wanted)
        run.update(loss, {"loss": loss.item()})
    return run.averaged()


def world(work: Path, count: int) -> Domain:
    """Rendered tiles, drawn once and kept."""
    cache = work / f"world-{count}.npz"
    if not cache.exists():
        tiles = rendered(count, WORLD_SEED)
        said = ["|".join(c) for c in tiles.captions]
        with whole(cache) as file:
            np.savez(file, images=tiles.images, labels=tiles.labels, captions=said)
    stored = np.load(cache)
    captions = [tuple(text.split("|")) for text in stored["captions"].tolist()]
    return Domain("world", stored["images"], captions, stored["labels"].tolist(), False)


def main() -> None:
    """The command."""
    parser = arguments(__doc__, LAND_COVER)
    parser.add_argument("--autoencoder-images", type=int, default=120_000)
    parser.add_argument("--decoder-images", type=int, default=160_000)
    parser.add_argument("--images", type=int, default=1_500_000, help="images the denoiser sees")
    parser.add_argument("--world-tiles", type=int, default=24_000)
    options = prepared(parser.parse_args())
    work, device, start = options.work, options.device, options.start

    domains = [eurosat(options.eurosat), world(work, options.world_tiles)]
    vae = train_autoencoder(domains, TILES, work, options.autoencoder_images, device, start)
    latents = encoded(vae, domains, work, device)
    if options.decoder_images:
        asked = [critics(domain, work, device) for domain in domains]
        vae = sharpen(domains, latents, asked, vae, work, options.decoder_images, device)
    captions = Captions(domains, TILES.tokens, start, device)
    models = train_denoiser(
        domains,
        latents,
        captions,
        vae.config.scaling_factor,
        known(vae, domains),
        work,
        options.images,
        device,
        options.compile,
        start,
    )
    if is_first():
        export({"vae": vae, **models}, captions.tokenizer, options.out)


if __name__ == "__main__":
    main()
