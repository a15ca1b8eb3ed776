"""The diffusion model of a recipe: checked before any work, loaded when it is needed."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import CLIPTokenizer

from activegen.data.prompts import Prompts, prompts_for
from activegen.data.scenes import Real
from activegen.diffusion.attention import foci, focus
from activegen.diffusion.control import Control
from activegen.diffusion.decoders import Decoder, LinearDecoder, TinyDecoder
from activegen.diffusion.families import family
from activegen.diffusion.levels import SCHEDULERS
from activegen.diffusion.lora import Lora
from activegen.diffusion.model import DiffusionModel
from activegen.diffusion.sampling import Sampling
from activegen.diffusion.stable_diffusion import StableDiffusion, knows_no_word
from activegen.diffusion.stable_diffusion_xl import ZEROS, index_of
from activegen.precision import fast_dtype
from activegen.recipes.schema import ControlSpec, ModelSpec, Recipe
from activegen.records import UserError, choose, fingerprint
from activegen.store.files import open_folder, parse_json
from activegen.zoo import LAND_COVER, LAND_COVER_SCENES
from activegen.zoo.domains import untaught

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ENDS = 2**20  # bytes at both ends of a weights file that name its content
PAIRS = 32  # latents and pictures that a linear decoder is fitted on
CARD = "card.json"  # of an adapted generator
LEARNT_FROM = "learnt_from"  # in the card: contents of the images
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a diffusion model is.

    Args:
        path: a folder, or a Hub id.
        folder: the folder; None for a Hub id, which nothing is known of before it is loaded.
        parts: its sub-folders with weights; "" where the folder itself is the only one.
    """

    path: str
    folder: Path | None
    parts: tuple[str, ...] = StableDiffusion.PARTS

    @classmethod
    def of(cls, path: str, scenes: bool = False) -> "Place":
        """What a recipe means by ``model.path``; the embedded one draws tiles or scenes.

        Raises:
            UserError: there is no such folder, or its model_index.json is damaged.
        """
        embedded = LAND_COVER_SCENES if scenes else LAND_COVER
        found = cls._of(path, embedded, "model.path", StableDiffusion.PARTS)
        return replace(found, parts=family(found.folder).PARTS) if found.folder else found

    @classmethod
    def of_control(cls, path: str) -> "Place":
        """What a recipe means by the path of a ControlNet.

        Raises:
            UserError: there is no such folder.
        """
        return cls._of(path, LAND_COVER_SCENES / "controlnet", "segmentation.controls", ("",))

    @classmethod
    def _of(cls, path: str, embedded: Path, key: str, parts: tuple[str, ...]) -> "Place":
        folder = embedded if path == "embedded" else Path(path).expanduser()
        if folder.is_dir():
            return cls(str(folder), folder, parts)
        if path == "embedded":
            raise UserError(
                f"the embedded generator is missing from this installation ({folder}); install "
                f"activegen again, or give a folder in {key}"
            )
        if path.count("/") != 1 or path.startswith((".", "/", "~")):
            raise UserError(f"{key}: there is no folder '{path}'; give one in diffusers' layout")
        return cls(path, None, parts)

    @property
    def fingerprint(self) -> str:
        """Of configs, and of size and both ends of each weights file; a Hub id is its own."""
        if self.folder is None:
            return fingerprint(self.path)
        digest = hashlib.sha256()
        others = () if self.parts == ("",) else ("tokenizer", "scheduler")
        if "text_encoder_2" in self.parts:
            others = (*others, "tokenizer_2")
            digest.update(str(index_of(self.folder).get(ZEROS)).encode())
        for part in (*self.parts, *others):
            for file in sorted((self.folder / part).glob("*")):
                if file.suffix in (".json", ".txt", ".safetensors"):
                    digest.update(f"{part}/{file.name}\n{file.stat().st_size}\n".encode())
                    digest.update(_ends(file))
        return digest.hexdigest()[:16]

    def check(self) -> None:
        """Looks at the parts without loading them.

        Raises:
            UserError: a part is missing, damaged, or a pickle.
        """
        if self.folder is None:
            return
        for part in self.parts:
            folder = self.folder / part
            if not (folder / "config.json").is_file():
                has = ", ".join(self.parts) if self.parts[0] else "a ControlNet's config.json"
                raise UserError(
                    f"'{self.folder}' is no model in diffusers' layout: "
                    f"{folder / 'config.json'} is missing; give the folder that has {has}"
                )
            weights = sorted(folder.glob("*.safetensors"))
            if not weights:
                pickles = sorted(
                    of.name for kind in ("*.bin", "*.pt", "*.ckpt") for of in folder.glob(kind)
                )
                found = f"only the pickle '{pickles[0]}'" if pickles else "none"
                raise UserError(
                    f"no safetensors weights in {folder}: {found}. Convert the model with "
                    "diffusers' save_pretrained(..., safe_serialization=True)"
                )
            for file in weights:
                _readable(file)

    def tokenizer(self) -> CLIPTokenizer:
        """Its tokenizer alone.

        Raises:
            UserError: there is none.
        """
        try:
            found = CLIPTokenizer.from_pretrained(self.path, subfolder="tokenizer")
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"'{self.path}' has no tokenizer that can be read: {error}") from error
        if knows_no_word(found):
            where = "there is no network for a Hub id" if self.folder is None else "in tokenizer/"
            raise UserError(
                f"'{self.path}' has no tokenizer: vocab.json and merges.txt are missing ({where}); "
                "give a whole folder in diffusers' layout in model.path"
            )
        return found

    def load(
        self, spec: ModelSpec, device: torch.device, controls: Sequence[ControlSpec] = ()
    ) -> StableDiffusion:
        """The model, with its LoRAs and ControlNets.

        Raises:
            UserError: as `StableDiffusion.load` does.
        """
        dtype = DTYPES.get(spec.dtype) or fast_dtype(device)
        nets = [
            Control.load(
                Place.of_control(of.path).path, of.scale, of.guess, of.start, of.stop, dtype
            )
            for of in controls
        ]
        return family(self.path).load(
            self.path,
            device,
            dtype,
            spec.attention_size,
            controls=nets,
            size=spec.size,
            loras=[Lora.load(of.path, of.scale) for of in spec.lora or ()],
            compiled=spec.compile,
            channels_last=spec.channels_last,
        )


def device(name: str, key: str = "model.device") -> torch.device:
    """ "auto" is a GPU where there is one.

    Args:
        name: as torch has it, or "auto".
        key: of the recipe, that says so.

    Raises:
        UserError: torch cannot use it here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{key} '{name}' is not usable here: {reason}; try 'auto'") from error


def prompts_of(recipe: Recipe, classes: Sequence[str]) -> Prompts:
    """What a recipe says of its classes.

    Raises:
        UserError: as `prompts_for` does.
    """
    spec, masks = recipe.prompts, recipe.segmentation
    return prompts_for(
        classes,
        spec.templates,
        spec.words,
        augment=spec.augment,
        scenes=spec.scenes or (),
        attributes=spec.attributes or (),
        captions=spec.captions,
        silent=masks.background if masks else (),
        seed=recipe.seed,
    )


def check_prompts(
    tokenizer: CLIPTokenizer, prompts: Prompts, classes: Sequence[str], together: int = 1
) -> None:
    """Finds every wording's tokens in every prompt, and those of the longest with so many classes.

    Raises:
        UserError: a class word is not in its prompt, or behind what the model reads.
    """
    for name in classes:
        said, words = zip(*prompts.longest(name), strict=True)
        try:
            focus(tokenizer, said, words)
        except UserError as error:
            raise UserError(f"class '{name}': {error}") from error
    if together > 1:
        said, words = prompts.longest_listing(classes, together)
        try:
            foci(tokenizer, [said], [words])
        except UserError as error:
            raise UserError(
                f"a prompt of {together} classes: {error}; or lower segmentation.text.per_image"
            ) from error


def warn_untaught(place: Place, words: Mapping[str, Sequence[str]]) -> None:
    """Logs what an embedded generator was not taught, once.

    Args:
        place: of the generator.
        words: wordings by class.
    """
    if place.folder not in (LAND_COVER, LAND_COVER_SCENES):
        return
    if unknown := untaught(words):
        _warn_once(
            "the embedded generator knows land cover alone and was not taught: "
            f"{', '.join(unknown)}. Its images of these will show something else; give a generator "
            "that knows them in model.path"
        )


@lru_cache
def _warn_once(text: str) -> None:
    """A comparison looks at the same recipe for every seed."""
    _LOG.warning(text)


def check_sampling(sampling: Sampling) -> None:
    """Looks for a scheduler that we do not know, for no steps, and for an empty interval.

    Raises:
        UserError: there is such a thing.
    """
    if sampling.scheduler:
        choose(SCHEDULERS, sampling.scheduler, "sampling.scheduler")
    if sampling.num_steps < 1:
        raise UserError(f"sampling.num_steps is {sampling.num_steps}; give at least 1")
    start, stop = sampling.cfg_interval
    if not 0 <= start < stop <= 1:
        raise UserError(
            f"sampling.cfg_interval is [{start:g}, {stop:g}]; give two shares of the steps, from 0 "
            "to 1, the smaller first"
        )


def check_decoder(word: str) -> None:
    """Looks for the folder of a tiny decoder.

    Raises:
        UserError: it is not there.
    """
    if word.startswith("tiny:"):
        TinyDecoder(word.removeprefix("tiny:"))


def decoder(word: str, model: DiffusionModel, train: Real, folder: Path, of: str) -> Decoder | None:
    """For pictures that gradients see; None is the model's own.

    Args:
        word: of the recipe.
        model: whose latents it reads.
        train: real images that a linear one is fitted on.
        folder: where a fitted one is kept.
        of: fingerprint of what it is fitted on.
    """
    if word == "full":
        return None
    if word.startswith("tiny:"):
        return TinyDecoder(word.removeprefix("tiny:"), model.device)
    file = folder / f"linear-{of}.safetensors"
    if not file.exists():
        made = _fitted(model, train)
        kept = {
            "weight": made.weight.cpu(),
            "bias": made.bias.cpu(),
            "patch": torch.tensor(made.patch),
        }
        open_folder(str(folder)).write(file.name, save(kept))
    found = load_file(file, device=str(model.device))
    return LinearDecoder(found["weight"], found["bias"], int(found["patch"]))


@torch.inference_mode()
def _fitted(model: DiffusionModel, train: Real) -> LinearDecoder:
    """On real images' latents and what the model makes of them, evenly over the training set."""
    chosen = sorted({len(train) * k // PAIRS for k in range(min(PAIRS, len(train)))})
    latents: list[Tensor] = []
    pictures: list[Tensor] = []
    for index in chosen:
        latents.append(model.encode(train.image(index).to(model.device).unsqueeze(0) / 255))
        pictures.append(model.full(latents[-1]))
    return LinearDecoder.fit(torch.cat(latents), torch.cat(pictures))


def _readable(file: Path) -> None:
    try:
        with safe_open(str(file), framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}); copy it again") from error


def _ends(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as data:
        if file.suffix == ".json":
            return json.dumps(json.load(data), sort_keys=True).encode()
        if size <= 2 * ENDS:
            return data.read()
        start = data.read(ENDS)
        data.seek(-ENDS, 2)
        return start + data.read()


def adapted_to(folder: str) -> frozenset[str]:
    """`data.contents` of the images that a generator was adapted to; none where nothing tells.

    Args:
        folder: of `adapt`, a file in it, or any other generator.

    Raises:
        UserError: the card is damaged.
    """
    place = Path(folder).expanduser()
    place = place.parent if place.is_file() else place
    text = (place / CARD).read_bytes() if (place / CARD).is_file() else None
    known = parse_json(text, str(place / CARD)) if text else {}
    return frozenset(known.get(LEARNT_FROM, ()))
