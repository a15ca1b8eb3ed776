"""Makes the embedded generator: ``python -m activegen.zoo.train --eurosat DIR --work DIR``.

Three stages, each resumable from its state in ``--work`` and better for being run longer with a
larger ``--images``: the autoencoder, the latents of all images, the denoiser with its text encoder.
The result is a folder in diffusers' own layout, float16 safetensors.

Rombach et al. (2022), https://arxiv.org/abs/2112.10752 (latent diffusion); Salimans & Ho (2022),
https://arxiv.org/abs/2202.00512 (v-prediction).
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from diffusers.training_utils import EMAModel
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from activegen.zoo import LAND_COVER
from activegen.zoo.domains import Domain, eurosat, rendered

TOKENS = 32
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY_START = {BEGIN: 0, END: 1}
WORLD_TILES = 24_000
WORLD_SEED = 20_24


# diffusers annotates its models' settings as tuples of one; hence Any
def autoencoder() -> Any:
    """64 pixels to 8 by 8 by 8."""
    settings: dict[str, Any] = {
        "block_out_channels": (24, 48, 64, 96),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    return AutoencoderKL(
        **settings,
        latent_channels=8,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=64,
    )


def denoiser(width: int) -> Any:
    """Two levels, 8 by 8 and 4 by 4, each with attention to the text."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(96, 112),
        attention_head_dim=4,
        cross_attention_dim=width,
        norm_num_groups=16,
    )


def noise_schedule() -> DDIMScheduler:
    """Stable Diffusion's noise levels, predicting v."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def text_tokenizer(captions: Iterable[str]) -> CLIPTokenizer:
    """CLIP's byte-pair tokenizer with a small vocabulary, learned on the captions.

    Every byte is a token, inside and at the end of a word, so any text can be written.
    """
    learner: Any = CLIPTokenizer(vocab=VOCABULARY_START, merges=[]).backend_tokenizer
    alphabet = sorted(ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=1024,
        special_tokens=[BEGIN, END],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(sorted(set(captions)), trainer)
    learned = json.loads(learner.to_str())["model"]
    tokens = sorted(learned["vocab"], key=learned["vocab"].get)
    tokens += [byte + "</w>" for byte in alphabet if byte + "</w>" not in learned["vocab"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges: Any = [tuple(merge) for merge in learned["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)


def text_encoder(tokenizer: CLIPTokenizer) -> Any:
    """An untrained one."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        projection_dim=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=VOCABULARY_START[BEGIN],
        eos_token_id=VOCABULARY_START[END],
        pad_token_id=VOCABULARY_START[END],
    )
    return CLIPTextModel._from_config(config, attn_implementation="eager")


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


class Run:
    """One training: AdamW, warm-up and cosine, an exponential average, a state to resume from.

    The batch at step ``k`` is drawn from a generator seeded with ``k``, so nothing but the weights
    and the optimiser needs to be kept.
    """

    def __init__(
        self,
        name: str,
        models: dict[str, nn.Module],
        work: Path,
        images: int,
        batch: int,
        rate: float,
        device: str,
    ):
        self.name, self.models, self.batch, self.device = name, models, batch, device
        self.total, self.rate = images // batch, rate
        self.file = work / f"{name}.pt"
        parameters = [p for model in models.values() for p in model.parameters()]
        self.optimiser = torch.optim.AdamW(
            parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.01
        )
        self.average = EMAModel(
            parameters, decay=0.999, use_ema_warmup=True, inv_gamma=10, power=0.8
        )
        self.parameters, self.step = parameters, 0
        if self.file.exists():
            state = torch.load(self.file, map_location=device, weights_only=True)
            for key, model in models.items():
                model.load_state_dict(state["models"][key])
            self.optimiser.load_state_dict(state["optimiser"])
            self.average.load_state_dict(state["average"])
            self.step = state["step"]

    def autocast(self) -> torch.autocast:
        """To bfloat16 where it pays; the weights stay float32."""
        return torch.autocast(self.device.split(":")[0], torch.bfloat16)

    def steps(self) -> Iterator[torch.Generator]:
        """A generator per step until the end; prints twice a minute and saves every five."""
        self.losses: list[dict[str, float]] = []
        printed, saved, since = time.time(), time.time(), self.step
        while self.step < self.total:
            yield torch.Generator().manual_seed(self.step)
            self.step += 1
            if time.time() - printed > 30:
                rate = (self.step - since) * self.batch / (time.time() - printed)
                mean = {
                    k: round(sum(x[k] for x in self.losses) / len(self.losses), 4)
                    for k in self.losses[0]
                }
                print(self.name, self.step * self.batch, f"{rate:.0f}/s", mean, flush=True)
                printed, since, self.losses = time.time(), self.step, []
            if time.time() - saved > 300:
                self.save()
                saved = time.time()
        self.save()

    def update(self, loss: Tensor, report: dict[str, float]) -> None:
        """One optimiser step; a loss that is not finite stops the training."""
        if not math.isfinite(loss.item()):
            raise RuntimeError(f"{self.name}: the loss is {loss.item()} at step {self.step}")
        done = self.step / self.total
        factor = min(1.0, (self.step + 1) / 300) * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * max(factor, 0.01)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.average.step(self.parameters)
        self.losses.append(report)

    def save(self) -> None:
        """Whole or not at all."""
        state = {
            "models": {key: model.state_dict() for key, model in self.models.items()},
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict(),
            "step": self.step,
        }
        partial = self.file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.file)

    def averaged(self) -> dict[str, nn.Module]:
        """Copies of the models with the averaged weights."""
        with self._swapped():
            return {key: copy.deepcopy(model) for key, model in self.models.items()}

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        self.average.store(self.parameters)
        self.average.copy_to(self.parameters)
        yield
        self.average.restore(self.parameters)


def export(parts: dict[str, Any], tokenizer: Path, out: Path) -> None:
    """Writes the folder: float16 safetensors, tokenizer, scheduler, model_index.json."""
    for name, part in parts.items():
        part.half().save_pretrained(out / name, safe_serialization=True)
        part.float()
    CLIPTokenizer.from_pretrained(tokenizer, model_max_length=TOKENS).save_pretrained(
        out / "tokenizer"
    )
    noise_schedule().save_pretrained(out / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


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
    parser.add_argument("--images", type=int, default=1_500_000, help="images the denoiser sees")
    parser.add_argument("--world-tiles", type=int, default=WORLD_TILES)
    parser.add_argument("--compile", action="store_true", help="minutes at the start, then faster")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--snapshot", action="store_true", help="export what there is, train nothing"
    )
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    cache = options.work / f"world-{options.world_tiles}.npz"
    if not cache.exists():
        tiles = rendered(options.world_tiles, WORLD_SEED)
        np.savez(
            cache,
            images=tiles.images,
            labels=tiles.labels,
            captions=["|".join(c) for c in tiles.captions],
        )
    stored = np.load(cache)
    captions = [tuple(text.split("|")) for text in stored["captions"].tolist()]
    world = Domain("world", stored["images"], captions, stored["labels"].tolist(), False)
    domains = [eurosat(options.eurosat), world]
    if options.snapshot:
        options.autoencoder_images = options.images = 0

    vae = train_autoencoder(domains, options.work, options.autoencoder_images, options.device)
    latent_file = options.work / "latents.pt"
    if not latent_file.exists():
        torch.save([encode_all(vae, domain, options.device) for domain in domains], latent_file)
    latents = torch.load(latent_file, weights_only=True)
    spread = torch.cat([x[0].float() for x in latents]).std().item()
    vae.register_to_config(scaling_factor=1 / spread)
    models = train_denoiser(
        domains, latents, vae, options.work, options.images, options.device, options.compile
    )
    export({"vae": vae, **models}, options.work / "tokenizer", options.out)


if __name__ == "__main__":
    main()
