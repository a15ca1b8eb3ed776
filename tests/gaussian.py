"""A world solved by hand: every class is a colour, and pixels are Gaussian around it.

    z_0 ~ N(mean, spread²) for each channel of each pixel, so
    E[z_0 | z_t] = mean + gain * (z_t - alpha * mean),  gain = alpha s² / (alpha² s² + sigma²)

Latents are the pictures themselves. The text of a prompt is its class's mean colour, one token, so
gradients on the text move the colour. The class word looks at the left half.

    world = gaussian.World()
    drawn = sample(gaussian.batch(world, ["red", "blue"]), guidance)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from activegen.diffusion.attention import Maps, Reading, Words
from activegen.diffusion.levels import Level
from activegen.diffusion.model import Branch, Conditioning, Denoised
from activegen.diffusion.sampling import Batch, Sampling, seeded
from activegen.records import Prediction

COLOURS = {"red": (0.8, 0.2, 0.2), "green": (0.2, 0.8, 0.2), "blue": (0.2, 0.2, 0.8)}
NAMES = list(COLOURS)


class World:
    """What ``Batch.model`` needs, in closed form.

    ``calls`` counts the denoiser's; ``decodes`` the differentiable decoder's.
    """

    name = "gaussian"
    device = torch.device("cpu")
    attention_size = 4

    def __init__(self, spread: float = 0.1, size: int = 4, prediction: str = "epsilon"):
        self.spread, self.prediction = spread, prediction
        self.noise_shape = (3, size, size)
        self.scheduler = DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=prediction,
            timestep_spacing="trailing",
            clip_sample=False,
            set_alpha_to_one=True,
        )
        self.calls = self.decodes = 0

    @property
    def size(self) -> tuple[int, int]:
        """Of pictures, which are latents."""
        return self.noise_shape[1:]

    def inpainting(self, images: Tensor, masks: Tensor) -> None:
        """The denoiser takes no picture."""

    def condition(
        self,
        prompts: Sequence[str],
        words: Sequence[str],
        negative: str = "",
        control: Sequence[Tensor] = (),
    ) -> Conditioning:
        """The words' colours; grey, or the named colour, is the negative."""
        text = torch.tensor([COLOURS[word] for word in words]).unsqueeze(1)
        grey = torch.tensor(COLOURS.get(negative, (0.5, 0.5, 0.5))).expand_as(text)
        return Conditioning(text, grey, torch.ones(len(words), 1))

    def words(
        self, prompts: Sequence[str], words: Sequence[Sequence[str]], attribution: bool = False
    ) -> Words:
        """Each is the prompt's one token."""
        most = max(map(len, words))
        counts = torch.tensor([len(named) for named in words])
        return Words((torch.arange(most) < counts.unsqueeze(1)).float().unsqueeze(2))

    def gain(self, level: Level) -> float:
        """d E[z_0 | z_t] / d z_t."""
        alpha, variance = level.alpha, self.spread**2
        return alpha * variance / (alpha**2 * variance + level.sigma**2)

    def posterior(self, latents: Tensor, mean: Tensor, level: Level) -> Tensor:
        """E[z_0 | z_t] for a mean colour (b, 3)."""
        mean = mean.view(len(latents), 3, 1, 1)
        return mean + self.gain(level) * (latents - level.alpha * mean)

    def checkpoint(self) -> bool:
        """Nothing to recompute."""
        return False

    def denoise(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        level: Level,
        cfg_scale: float,
        attention: bool = False,
        reading: Reading | None = None,
        branch: Branch = "both",
    ) -> Denoised:
        """With classifier-free guidance, as diffusers has it."""
        self.calls += 1
        clean = self.posterior(latents, conditioning.text.mean(1), level)
        if cfg_scale > 1:
            seen = latents.detach() if branch == "conditional" else latents
            without = self.posterior(seen, conditioning.negative.mean(1), level)
            clean = without + cfg_scale * (clean - without)
        maps = self.looks(latents) if attention else None
        return Denoised(level.output(clean, latents), clean, maps, self.read(latents, reading))

    def read(self, latents: Tensor, reading: Reading | None) -> Maps | None:
        """Words look left and right in turns."""
        if reading is None:
            return None
        left = self.looks(latents)
        asked = reading.words.focus
        sides = ([left, left.flip(-1)] * asked.shape[1])[: asked.shape[1]]
        return Maps((torch.stack(sides, 1) * asked.unsqueeze(3),), (1,))

    @staticmethod
    def looks(latents: Tensor) -> Tensor:
        """Raw attention of the class word: 0.6 on the left half, 0.1 on the right."""
        maps = torch.full_like(latents[:, 0].detach(), 0.1)
        maps[..., : latents.shape[-1] // 2] = 0.6
        return maps

    def full(self, latents: Tensor) -> Tensor:
        """Pictures are latents; differentiable, not clamped."""
        self.decodes += 1
        return latents * 1.0

    def encode(self, images: Tensor) -> Tensor:
        """Latents are pictures."""
        return images * 1.0

    def decode(self, latents: Tensor) -> Tensor:
        """The finished picture, 0 to 1."""
        return latents.clamp(0, 1)

    def made_by(self) -> dict[str, str]:
        return {"model": self.name, "revision": str(self.spread)}


@dataclass
class Colours:
    """A task model: logits are minus the squared distance of the mean colour, times sharpness."""

    sharpness: float = 10.0
    calls: int = 0

    def predict(self, images: Tensor) -> Prediction:
        self.calls += 1
        mean = images.mean((2, 3))
        colours = torch.tensor(list(COLOURS.values()))
        logits = -self.sharpness * (mean[:, None] - colours).square().sum(2)
        return Prediction(logits.unsqueeze(0), mean.unsqueeze(0))


def batch(
    world: World,
    words: Sequence[str] = ("red",),
    seeds: Sequence[int] | None = None,
    sampling: Sampling | None = None,
    reference: Tensor | None = None,
) -> Batch:
    """One image of each word; the targets are the places of the words in NAMES."""
    sampling = sampling or Sampling(num_steps=10, cfg_scale=1.0)
    seeds = list(range(len(words))) if seeds is None else list(seeds)
    noise, rngs = seeded(seeds, world.noise_shape)
    conditioning = world.condition(
        [f"a {w} picture" for w in words], words, sampling.negative_prompt
    )
    target = torch.tensor([NAMES.index(word) for word in words])
    return Batch(world, sampling, noise, rngs, conditioning, target, reference)
