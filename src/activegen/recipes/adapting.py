"""A generator trained on somebody's real images: ``activegen adapt``.

```
<out>/pytorch_lora_weights.safetensors     a LoRA, or
<out>/diffusion_pytorch_model.safetensors  a ControlNet with its config.json, or
<out>/unet/ vae/ text_encoder/ ...         a whole model; each as diffusers reads it
<out>/card.json                            from what it was made, and how; "finished" when it is
<out>/state-*.safetensors                  to go on from, until then
```

Nothing but the recipe's training split is read.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from jaxtyping import Float
from torch import Tensor, nn

from activegen.data.crops import cut, cut_mask, random_box, shrunk
from activegen.data.images import Pixels, RealImages
from activegen.data.masks import Mask
from activegen.data.palettes import Palette, paint, palette_of
from activegen.data.prompts import Prompts
from activegen.data.scenes import Real, RealScenes
from activegen.data.splits import few_shot
from activegen.diffusion import lora
from activegen.diffusion.adapting import (
    Denoising,
    Reconstruction,
    adapt_control,
    adapt_full,
    adapt_lora,
    check_adaptable,
    save_model,
    tokenised,
)
from activegen.diffusion.control import Control
from activegen.diffusion.stable_diffusion import StableDiffusion
from activegen.loop.proposing_masks import Scene
from activegen.loop.segmenting import Painting
from activegen.recipes import generator
from activegen.recipes.adaptation import (
    CONTROLNET,
    FROZEN,
    LORA,
    AdaptSettings,
    Course,
    Training,
)
from activegen.recipes.data import contents, read_split
from activegen.recipes.environment import environment
from activegen.recipes.generator import CARD, LEARNT_FROM
from activegen.recipes.nested import differences
from activegen.recipes.progress import Event, Observer, silent
from activegen.recipes.schema import Recipe
from activegen.records import UserError, choose, fingerprint
from activegen.store import LOCK, alone
from activegen.store.files import open_folder, parse_json
from activegen.tasks.seeding import derive, seeded

ASIDE = ".tmp-result"
LEAST = 8  # pixels of an image's side
KEPT = 2 * 2**30  # bytes of images that stay in memory


def adapt(recipe: Recipe, out: Path, observer: Observer = silent) -> dict[str, Any]:
    """Trains the recipe's generator on the recipe's training images; the card of the result.

    The same call goes on where it was stopped, and does nothing once it is finished.

    Args:
        recipe: ``adapt`` says how; ``data``, ``prompts``, ``model`` and ``segmentation`` from what.
        out: folder of the result.
        observer: is told of every step.

    Raises:
        UserError: something is missing or does not fit, before any training; or the loss diverged.
    """
    settings, seed = recipe.adapt or AdaptSettings(), recipe.seed
    processes = PartialState()  # knows which device is this process's
    if settings.batch_size % processes.num_processes:
        raise UserError(
            f"adapt.batch_size is {settings.batch_size}, which {processes.num_processes} processes "
            "cannot share; give a multiple"
        )
    place = generator.Place.of(recipe.model.path, recipe.segmentation is not None)
    place.check()
    real = _real(recipe)
    if settings.what == CONTROLNET and not isinstance(real, RealScenes):
        raise UserError(
            f"a ControlNet learns from masks, and '{recipe.data.layout}' has none; give "
            "images with masks, or take adapt.what 'lora'"
        )
    painting = _painting(recipe, real) if settings.what == CONTROLNET else None
    prompts = generator.prompts_of(recipe, real.classes).of_names
    generator.check_prompts(place.tokenizer(), prompts, real.classes)
    spec = recipe.model.model_copy(update={"dtype": "float32"})
    device = generator.device(recipe.model.device)
    if recipe.model.device == "auto" and processes.num_processes > 1:
        assert processes.device is not None
        device = processes.device
    model = place.load(spec, device)
    check_adaptable(model)
    pictures = Pictures.read(
        real,
        model,
        settings,
        prompts,
        seed,
        _background(recipe, real),
        painting,
        lambda *n: observer(Event("read", *n)),
    )
    told = _told(recipe, place, model, pictures)
    with seeded(seed, "adapt", "first weights"):
        module = _begun(model, settings)
    with alone(out) if processes.is_main_process else nullcontext():
        claimed = [_claimed(out, told) if processes.is_main_process else None]
        broadcast_object_list(claimed)
        card = claimed[0]
        if card is None or not card["finished"]:
            losses = _trained(model, module, pictures, out, fingerprint(told), observer)
            more = {
                "finished": True,
                "losses": losses,
                "skipped": real.skipped,
                LEARNT_FROM: sorted(contents(real).values()),
                "long_captions": pictures.long_captions,
                "environment": environment() | {"peft": importlib.metadata.version("peft")},
            }
            card = _plain(told | more)
            if processes.is_main_process:
                _save(out, settings, model, module)
                open_folder(str(out)).write(CARD, json.dumps(card, indent=1).encode())
            processes.wait_for_everyone()
        if processes.is_main_process:
            for state in out.glob("state-*.safetensors"):
                state.unlink()
    if processes.is_main_process:  # what is finished is only read
        (out / LOCK).unlink(missing_ok=True)
    return card


@dataclass(frozen=True)
class Pictures:
    """Real images as the generator is shown them: pieces, captions, and painted masks.

    What is drawn depends on the seed, the step and the place in the batch alone.

    Args:
        real: the images.
        size: height and width of a piece.
        settings: of the training.
        prompts: what captions are made of: they list the classes of the piece.
        seed: of all that is drawn.
        background: class ids that captions leave out.
        painting: of masks; None where none is shown.
        kept: images and masks in memory, as small as pieces allow, as many as there is room for.
        fingerprint: of names, labels or masks, and pixels.
        long_captions: how many images have more classes than the text encoder reads.
    """

    real: Real
    size: tuple[int, int]
    settings: AdaptSettings
    prompts: Prompts
    seed: int
    background: frozenset[int]
    painting: Painting | None
    kept: tuple[tuple[Pixels, Mask | None], ...]
    fingerprint: str
    long_captions: int

    @classmethod
    def read(
        cls,
        real: Real,
        model: StableDiffusion,
        settings: AdaptSettings,
        prompts: Prompts,
        seed: int,
        background: frozenset[int],
        painting: Painting | None,
        progress: Callable[[int, int], None],
    ) -> "Pictures":
        """Looks at all images.

        Raises:
            UserError: there is none, one is smaller than 8 pixels, or no mask has a class.
        """
        if not len(real):
            raise UserError(f"{real.name} has no image to learn from")
        digest, kept, used, long, named = hashlib.sha256(), [], 0, 0, 0
        digest.update(str(real.classes).encode())
        for index, id in enumerate(real.ids):
            image = real.image(index)
            mask = real.mask(index) if isinstance(real, RealScenes) else None
            label = real.target(index) if mask is None else mask
            if min(image.shape[1:]) < LEAST:
                height, width = image.shape[1:]
                raise UserError(
                    f"{id} has {width} x {height} pixels; images of at least {LEAST} x {LEAST} "
                    "are learnt from, remove it or give a larger one"
                )
            digest.update(f"{id}\n{tuple(image.shape)}\n".encode())
            for part in (image, label):
                digest.update(part.contiguous().numpy().tobytes())
            names = _named(real, index, mask, background)
            named += bool(names)
            long += _is_long(model.tokenizer, prompts, names)
            small = shrunk(image, mask, model.size, settings.crop)
            used += sum(part.numel() for part in small if part is not None)
            if used <= KEPT:
                kept.append(small)
            progress(index + 1, len(real))
        if not named:
            raise UserError(
                f"no mask of {real.name} has a class but those of segmentation.background; all "
                "captions would be empty"
            )
        return cls(
            real,
            model.size,
            settings,
            prompts,
            seed,
            background,
            painting,
            tuple(kept),
            digest.hexdigest()[:16],
            long,
        )

    def batches(
        self, model: StableDiffusion, of_pixels: bool = False
    ) -> Callable[[int, int, int], tuple[Tensor, ...]]:
        """A function of a step, a process, and how many there are, for `Training`.

        Args:
            model: that encodes them.
            of_pixels: images alone, for a `Reconstruction`; else for a `Denoising`.
        """
        levels, device = model.scheduler.config.num_train_timesteps, model.device

        def batch(step: int, process: int, processes: int) -> tuple[Tensor, ...]:
            places = range(process, self.settings.batch_size, processes)
            drawn = [self(step, place) for place in places]
            images = torch.stack([image for image, _, _ in drawn]).to(device)
            if of_pixels:
                return (images,)
            clean = model.encode(images)
            rngs = [
                torch.Generator().manual_seed(derive(self.seed, "noise", step, place))
                for place in places
            ]
            level = torch.cat([torch.randint(levels, (1,), generator=rng) for rng in rngs])
            noise = torch.stack([torch.randn(clean.shape[1:], generator=rng) for rng in rngs])
            tokens, heard = tokenised(model.tokenizer, [caption for _, caption, _ in drawn])
            painted = [picture for _, _, picture in drawn if picture is not None]
            pictures = [torch.stack(painted)] if painted else []
            rest = (noise, level, tokens, heard, *pictures)
            return (clean, *(x.to(device) for x in rest))

        return batch

    def __call__(
        self, step: int, place: int
    ) -> tuple[Float[Tensor, "3 h w"], str, Float[Tensor, "3 h w"] | None]:
        """A piece of an image, 0 to 1, its caption, and its mask as a picture.

        All images are seen once, in a drawn order, before one is seen again.
        """
        seen, at = divmod(step * self.settings.batch_size + place, len(self.real))
        index = _order(len(self.real), self.seed, seen)[at]
        rng = np.random.default_rng(derive(self.seed, "picture", step, place))
        image, mask = self._image(index)
        box = random_box((image.shape[1], image.shape[2]), self.size, self.settings.crop, rng)
        piece = cut(image, box, self.size)
        part = None if mask is None else cut_mask(mask, box, self.size)
        if self.settings.mirror and rng.random() < 0.5:
            piece, part = piece.flip(-1), None if part is None else part.flip(-1)
        names = _named(self.real, index, part, self.background)
        caption = self.prompts.listing(names, rng)[0] if names else ""
        if rng.random() < self.settings.empty:
            caption = ""
        if part is None or self.painting is None:
            return piece, caption, None
        of = self.painting
        return piece, caption, paint(part, self.real.classes, of.palette, of.ontology)

    def _image(self, index: int) -> tuple[Pixels, Mask | None]:
        if index < len(self.kept):
            return self.kept[index]
        mask = self.real.mask(index) if isinstance(self.real, RealScenes) else None
        return shrunk(self.real.image(index), mask, self.size, self.settings.crop)


def _named(
    real: Real, index: int, mask: Mask | None, background: frozenset[int]
) -> tuple[str, ...]:
    """Classes that a caption lists, the largest first: of a mask or a piece of it."""
    if mask is None:
        assert isinstance(real, RealImages)
        return (real.classes[real.labels[index]],)
    return tuple(real.classes[label] for label in Scene.of("", mask, background).named)


def _is_long(tokenizer: Any, prompts: Prompts, names: tuple[str, ...]) -> bool:
    if not names:
        return False
    prompt, _ = prompts.listing(names, np.random.default_rng(0))
    return len(tokenizer(prompt)["input_ids"]) > tokenizer.model_max_length


@lru_cache(maxsize=4)
def _order(count: int, seed: int, seen: int) -> list[int]:
    return np.random.default_rng(derive(seed, "order", seen)).permutation(count).tolist()


def _real(recipe: Recipe) -> Real:
    """The training images, as a run has them."""
    split = recipe.data.train
    whole = read_split(recipe.data, split)
    number = split.per_class if isinstance(whole, RealImages) else split.count
    return whole if number is None else few_shot(whole, number, recipe.seed)


def _background(recipe: Recipe, real: Real) -> frozenset[int]:
    known = dict(zip(real.classes, range(len(real.classes)), strict=True))
    names = recipe.segmentation.background if recipe.segmentation else ()
    return frozenset(choose(known, name, "class") for name in names)


def _painting(recipe: Recipe, real: Real) -> Painting:
    """As the recipe's first ControlNet knows masks; by default in our own colours."""
    controls = recipe.segmentation.controls if recipe.segmentation else ()
    if not controls:
        return Painting(Palette.own(real.classes))
    of = controls[0]
    palette = palette_of(of.palette, real.classes)
    palette.of(real.classes, of.ontology)
    if not isinstance(of.palette, str):
        palette.check_apart(real.classes, of.ontology)
    return Painting(palette, of.ontology)


def _begun(model: StableDiffusion, settings: AdaptSettings) -> Denoising:
    if settings.what == LORA:
        return adapt_lora(model, settings.rank, settings.targets, settings.text_encoder)
    if settings.what != CONTROLNET:
        return adapt_full(model, settings.text_encoder)
    if settings.start is None:
        return adapt_control(model)
    place = generator.Place.of_control(settings.start)
    place.check()
    return adapt_control(model, Control.load(place.path))


def _trained(
    model: StableDiffusion,
    module: Denoising,
    pictures: Pictures,
    out: Path,
    of: str,
    observer: Observer,
) -> dict[str, float]:
    """The autoencoder, if that is asked for, then the rest; the last losses of each."""
    settings = pictures.settings

    def learnt(name: str, module: nn.Module, steps: int, rate: float, of_pixels: bool) -> float:
        course = Course(
            steps,
            rate,
            min(settings.warmup_steps, steps),
            settings.schedule,
            settings.weight_decay,
            settings.ema_decay,
            settings.amp,
            settings.save_every,
            pictures.seed,
        )
        training = Training(module, course, out / f"state-{name}.safetensors", of, model.device)
        start, arm = training.step, "" if module is denoiser else name

        def tell(done: int, total: int) -> None:
            observer(Event("train", done - start, total - start, arm))

        return training.carry_out(pictures.batches(model, of_pixels), tell)

    losses, denoiser = {}, module
    if settings.autoencoder != FROZEN:
        steps, rate = settings.autoencoder_steps, settings.autoencoder_rate
        part = Reconstruction(model, settings.autoencoder)
        losses["autoencoder"] = learnt("autoencoder", part, steps, rate, True)
        model.vae.requires_grad_(False)
    losses["denoiser"] = learnt("denoiser", denoiser, settings.steps, settings.rate, False)
    return losses


def _told(
    recipe: Recipe, place: generator.Place, model: StableDiffusion, pictures: Pictures
) -> dict[str, Any]:
    """All that decides about the result."""
    settings, real, of = asdict(pictures.settings), pictures.real, pictures.painting
    start = settings.pop("start")
    del settings["save_every"]
    return _plain(
        {
            "settings": settings,
            "seed": recipe.seed,
            "data": {
                "name": real.name,
                "split": recipe.data.train.split,
                "images": len(real),
                "classes": real.classes,
                "background": sorted(pictures.background),
                "fingerprint": pictures.fingerprint,
            },
            "prompts": pictures.prompts.fingerprint,
            "model": {
                "name": model.name,
                "revision": model.made_by()["revision"],
                "fingerprint": place.fingerprint,
                "size": model.size,
            },
            "controlnet": {
                "start": start and generator.Place.of_control(start).fingerprint,
                "colours": of and of.palette.of(real.classes, of.ontology),
            },
        }
    )


def _claimed(out: Path, told: dict[str, Any]) -> dict[str, Any] | None:
    """The card that is in the folder; where there is nothing, one is begun.

    Raises:
        UserError: there is something else, or another adaptation.
    """
    files = open_folder(str(out))
    text = files.read(CARD)
    if text is None:
        files.tidy()
        if files.names() - {LOCK}:
            raise UserError(f"'{out}' holds something else; give an empty or a new folder in --out")
        files.write(CARD, json.dumps({**told, "finished": False}, indent=1).encode())
        return None
    card = parse_json(text, files.path(CARD))
    if changed := differences({key: card.get(key) for key in told}, told):
        raise UserError(
            f"'{out}' holds another adaptation: {', '.join(changed)}; give another --out"
        )
    return card


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """As a file of JSON gives them back."""
    return json.loads(json.dumps(values))


def _save(out: Path, settings: AdaptSettings, model: StableDiffusion, module: Denoising) -> None:
    """Writes everything aside, then moves it to its place."""
    aside = out / ASIDE
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    if settings.what == LORA:
        lora.save(aside, model.unet, model.text_encoder)
    elif settings.what == CONTROLNET:
        module.net.save_pretrained(aside)
    else:
        save_model(aside, model)
    for made in sorted(aside.iterdir()):
        place = out / made.name
        if place.is_dir():
            shutil.rmtree(place)
        os.replace(made, place)
    aside.rmdir()
