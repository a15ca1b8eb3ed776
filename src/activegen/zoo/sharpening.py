"""Gives the decoder its texture back: fine-tuned to look right to task models, not only on average.

An autoencoder trained on pixel errors draws the mean of all textures that its latents allow, and
that mean has no texture: the classes that differ by it are lost. Here the decoder alone is trained
on, so latents and denoiser stay as they are, on pixels and on features of classifiers or segmenters
of each domain: their statistics over space, which texture has whatever its phase, and the last
features.

Johnson et al. (2016), https://arxiv.org/abs/1603.08155, with our own models in place of VGG.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from activegen.tasks.task_network import TaskNetwork
from activegen.zoo.networks import real_pool, trained, untrained
from activegen.zoo.running import Run, whole
from activegen.zoo.training import Pictures, dihedral, known

# a step asks one: what only one of them sees is no texture
CLASSIFIERS = ("small", "timm:resnet10t")
SEGMENTERS = ("small", "smp:linknet/mobilenet_v2")
CRITIC_STEPS = 800
LATENT_NOISE = 0.1  # of the latents' spread: the denoiser's are not as clean as the encoder's
TEXTURE = 0.1  # its weight beside that of pixels


def critics(domain: Pictures, work: Path, device: str) -> list[TaskNetwork]:
    """Models of the domain's own training images; trained once and kept."""
    networks = SEGMENTERS if domain.targets.ndim > 1 else CLASSIFIERS
    return [_critic(domain, network, work, device) for network in networks]


def _critic(domain: Pictures, network: str, work: Path, device: str) -> TaskNetwork:
    known = re.sub(r"\W", "-", network)
    file = work / f"critic-{domain.name}-{known}.safetensors"
    count, side = len(domain.classes), domain.images.shape[1]
    if not file.exists():
        images = torch.from_numpy(domain.images).permute(0, 3, 1, 2).contiguous()
        pool = real_pool(images, torch.from_numpy(domain.targets))
        start = f"critic of {domain.name}"
        model = trained(pool, count, CRITIC_STEPS, device, start, network)
        with whole(file) as partial:
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, partial)
    made = untrained(network, count, side, domain.targets.ndim > 1).to(device)
    made.load_state_dict(load_file(file, device=device))
    return made.eval().requires_grad_(False)


def looks(model: TaskNetwork, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
    """Activations after each rectifier, and the last features; images 0 to 1."""
    heard: list[Tensor] = []
    layers = [m for m in model.network.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [m.register_forward_hook(lambda *a: heard.append(a[2].relu())) for m in layers]
    try:
        prediction = model.predict(images)
    finally:
        for hook in hooks:
            hook.remove()
    assert prediction.features is not None
    return [*heard, prediction.features[0]]


def texture_loss(ours: list[Tensor], theirs: list[Tensor], windows: int) -> Tensor:
    """L1 of the means and deviations in each layer, and of the last features.

    Args:
        ours, theirs: as `looks` gives them.
        windows: along each side of a picture, over which means and deviations are taken.
    """
    total = (ours[-1] - theirs[-1]).abs().mean()
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        for one, other in zip(_statistics(a, windows), _statistics(b, windows), strict=True):
            total = total + (one - other).abs().mean()
    return total


def sharpen(
    domains: Sequence[Pictures],
    latents: Sequence[Tensor],
    asked: Sequence[Sequence[TaskNetwork]],
    vae: Any,
    work: Path,
    images: int,
    device: str,
) -> Any:
    """The autoencoder with its decoder trained on.

    Args:
        domains, latents: what it learns from, and as it was encoded.
        asked: critics of each domain.
        vae: the autoencoder.
        work: folder of the state.
        images: to see in all.
        device: of all models.
    """
    vae = vae.to(device)
    models = {"decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    spread = torch.cat([x[0].float().flatten()[:1_000_000] for x in latents]).std()
    # a scene has a texture for each class
    windows = [1 if domain.targets.ndim == 1 else 4 for domain in domains]
    name = f"decoder-{known(vae, domains)}"
    run = Run(name, models, work, images, batch=32, rate=5e-4, device=device)
    for rng in run.steps():
        which = run.step % len(domains)
        domain, encoded = domains[which], latents[which]
        judge = asked[which][run.step // len(domains) % len(asked[which])]
        turn = int(torch.randint(len(encoded), (1,), generator=rng))
        index = torch.randint(encoded.shape[1], (run.batch,), generator=rng)
        z = encoded[turn, index].float()
        z = z + LATENT_NOISE * spread * torch.randn(z.shape, generator=rng)
        real = torch.from_numpy(domain.images[index.numpy()]).permute(0, 3, 1, 2).float() / 127.5
        real = dihedral(real - 1, turn).to(device)
        with run.autocast():
            decoded = vae.decode(z.to(device)).sample
            ours = looks(judge, decoded / 2 + 0.5)
            with torch.no_grad():
                theirs = looks(judge, real / 2 + 0.5)
            texture = texture_loss(ours, theirs, windows[which])
        pixels = (decoded.float() - real).abs().mean()
        run.update(pixels + TEXTURE * texture, {"pixels": pixels.item(), "texture": texture.item()})
    for name, model in run.averaged().items():
        getattr(vae, name).load_state_dict(model.state_dict())
    return vae.eval()


def _statistics(x: Tensor, windows: int) -> tuple[Tensor, Tensor]:
    """Means and deviations in each window."""
    x = x.float()
    grid = min(windows, x.shape[-1])
    mean, square = (F.adaptive_avg_pool2d(y, grid) for y in (x, x**2))
    return mean, ((square - mean**2).clamp_min(0) + 1e-4).sqrt()
