"""Makes the embedded generator of scenes: ``python -m activegen.zoo.train_scenes --eurosat D ...``.

As :mod:`activegen.zoo.train`, with a ControlNet from mask to picture. Both nets learn together:
half of a batch has its mask, the other half the text alone, so the same denoiser draws with and
without, and there the attention of class words is grounded (`grounding`). Differs from Zhang et al.
(2023), https://arxiv.org/abs/2302.05543, who freeze a denoiser that exists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from activegen.data.palettes import Palette
from activegen.diffusion.attention import Recorder
from activegen.records import IGNORE
from activegen.zoo import LAND_COVER_SCENES
from activegen.zoo.architecture import SCENES, control, denoiser, export
from activegen.zoo.domains import Scenes, eurosat, mosaics, rendered_scenes
from activegen.zoo.grounding import WEIGHT, Grounding
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

SEED = 20_25
WITHOUT_MASK = 0.5  # share of a batch
WITHOUT_TEXT = 0.15


class Controlled(nn.Module):
    """The two nets as one, for the part of a batch that has masks."""

    def __init__(self, unet: Any, net: Any):
        super().__init__()
        self.unet, self.net = unet, net

    def forward(self, z: Tensor, t: Tensor, states: Tensor, pictures: Tensor) -> Tensor:
        """The denoiser's output; the first of the batch have pictures of their masks."""
        some = len(pictures)
        down, middle = self.net(z[:some], t[:some], states[:some], pictures, return_dict=False)
        down = [_padded(x, len(z)) for x in down]
        return self.unet(
            z,
            t,
            states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=_padded(middle, len(z)),
        ).sample


def _padded(x: Tensor, count: int) -> Tensor:
    return F.pad(x, (0, 0) * 3 + (0, count - len(x)))


def train_denoiser(
    domains: list[Scenes],
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
    """Denoiser, ControlNet and text encoder together; the domains have the same classes.

    Arguments are those of `train.train_denoiser`.
    """
    torch.manual_seed(1)
    unet = denoiser(SCENES, captions.encoder.config.hidden_size)
    unet = started(unet, start and start / "unet").to(device)
    net = started(control(SCENES, unet), start and start / "controlnet").to(device)
    plain_attention(unet, device)
    plain_attention(net, device)
    both: Any = Controlled(unet, net)
    both = torch.compile(both) if compiled else both
    noised, palette = Noising(device), colours(domains[0].classes)
    models = {"unet": unet, "controlnet": net, "text_encoder": captions.encoder}
    run = Run(f"denoiser-{of}", models, work, images, batch=32, rate=4e-4, device=device)
    masked = run.batch - round(run.batch * WITHOUT_MASK)
    recorder = Recorder(unet)
    every = [caption for domain in domains for some in domain.captions for caption in some]
    grounding = Grounding(captions.tokenizer, every, domains[0].words, SCENES.latents[1])
    for rng in run.steps():
        which = torch.randint(len(domains), (run.batch,), generator=rng)
        draws = torch.rand(run.batch, 3, generator=rng)
        clean, masks, said = [], [], []
        for domain, (a, b, empty) in zip(which.tolist(), draws.tolist(), strict=True):
            index = int(a * latents[domain].shape[1])
            clean.append(latents[domain][0, index])
            masks.append(domains[domain].masks[index])
            options = domains[domain].captions[index]
            said.append("" if empty < WITHOUT_TEXT else options[int(b * len(options))])
        z, t, wanted = noised(torch.stack(clean).float().to(device) * scale, rng)
        ids = torch.from_numpy(np.stack(masks)).long()
        pictures = palette[ids[:masked]].permute(0, 3, 1, 2)
        heard = grounding.hearing(said[masked:], device)
        with run.autocast(), recorder.listening(heard):
            v = both(z, t, captions.states(said), pictures.to(device))
        loss = F.mse_loss(v.float(), wanted, reduction="none").mean((1, 2, 3))
        maps, alphas = heard.maps().words[0], noised.alphas[t[masked:]]
        lost = grounding.loss(maps, said[masked:], ids[masked:], alphas)
        report = {"masked": loss[:masked].mean().item(), "text": loss[masked:].mean().item()}
        run.update(loss.mean() + WEIGHT * lost, report | {"attention": lost.item()})
    return run.averaged()


def colours(classes: Sequence[str]) -> Tensor:
    """(256, 3), 0 to 1, as our ControlNet knows them; what is ignored is black."""
    table = torch.zeros(IGNORE + 1, 3)
    table[: len(classes)] = torch.tensor(Palette.own(classes).of(classes)) / 255
    return table


def scenes(work: Path, count: int, tiles: Path) -> list[Scenes]:
    """Rendered scenes and mosaics, drawn once and kept."""
    made = []
    for name in ("scenes", "mosaics"):
        cache = work / f"{name}-{count}.npz"
        if not cache.exists():
            drawn = (
                rendered_scenes(count, SEED)
                if name == "scenes"
                else mosaics(count, SEED, eurosat(tiles))
            )
            said = ["|".join(c) for c in drawn.captions]
            with whole(cache) as file:
                np.savez(file, images=drawn.images, masks=drawn.masks, captions=said)
        stored = np.load(cache)
        captions = [tuple(text.split("|")) for text in stored["captions"].tolist()]
        made.append(Scenes(name, stored["images"], stored["masks"], captions))
    return made


@dataclass(frozen=True)
class Seen:
    """How many pictures each part sees: the autoencoder, its decoder with critics, the denoiser."""

    autoencoder: int
    decoder: int
    denoiser: int


def make(
    domains: list[Scenes],
    seen: Seen,
    work: Path,
    out: Path,
    device: str,
    compiled: bool = False,
    start: Path | None = None,
    new_words: bool = False,
) -> None:
    """Trains all parts, one after the other, and writes the generator.

    Args:
        domains: what it learns from, with the same classes.
        seen: how long.
        work: folder of states; the same call goes on from there.
        out: folder of the generator.
        device: to train on.
        compiled: the denoiser.
        start: a generator to begin with.
        new_words: but for its tokenizer and its text encoder, which are made for the captions.
    """
    vae = train_autoencoder(domains, SCENES, work, seen.autoencoder, device, start)
    latents = encoded(vae, domains, work, device)
    if seen.decoder:
        asked = [critics(domain, work, device) for domain in domains]
        vae = sharpen(domains, latents, asked, vae, work, seen.decoder, device)
    captions = Captions(domains, SCENES.tokens, None if new_words else start, device)
    scale, of = vae.config.scaling_factor, known(vae, domains)
    models = train_denoiser(
        domains, latents, captions, scale, of, work, seen.denoiser, device, compiled, start
    )
    if is_first():
        export({"vae": vae, **models}, captions.tokenizer, out)


def main() -> None:
    """The command."""
    parser = arguments(__doc__, LAND_COVER_SCENES)
    parser.add_argument("--autoencoder-images", type=int, default=90_000)
    parser.add_argument("--decoder-images", type=int, default=60_000)
    parser.add_argument("--images", type=int, default=1_500_000, help="images the denoiser sees")
    parser.add_argument("--scenes", type=int, default=24_000, help="of each of the two domains")
    options = prepared(parser.parse_args())
    domains = scenes(options.work, options.scenes, options.eurosat)
    seen = Seen(options.autoencoder_images, options.decoder_images, options.images)
    make(domains, seen, options.work, options.out, options.device, options.compile, options.start)


if __name__ == "__main__":
    main()
