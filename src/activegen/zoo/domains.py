"""What the embedded generator learns from: rendered tiles, and EuroSAT's train rows.

A domain is images with captions that tell it from the other. Captions use several wordings of a
class, so that the attention of the class word means something. Scenes have masks beside.

Helber et al. (2019), EuroSAT, https://arxiv.org/abs/1709.00029.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from activegen.records import UserError
from activegen.zoo import world
from activegen.zoo.layouts import draw_layout, draw_mask, present
from activegen.zoo.mosaics import Textures, mosaic
from activegen.zoo.scenes import (
    MOSAIC_TEMPLATE,
    SCENE_WORDS,
    draw_scene,
    listing,
    render_scene,
    scene_caption,
    wordings,
)

SIZE = 64

EUROSAT_WORDS: dict[str, tuple[str, ...]] = {
    "AnnualCrop": ("annual crops", "cropland"),
    "Forest": ("a forest", "woodland"),
    "HerbaceousVegetation": ("herbaceous vegetation", "scrub"),
    "Highway": ("a highway", "a motorway"),
    "Industrial": ("industrial buildings", "an industrial area"),
    "Pasture": ("a pasture", "grazing land"),
    "PermanentCrop": ("permanent crops", "an orchard"),
    "Residential": ("a residential area", "a suburb"),
    "River": ("a river", "a stream"),
    "SeaLake": ("a lake", "the sea"),
}
EUROSAT_TEMPLATE = "a satellite photo of {word}"
SMALL_WORDS = {"a", "an", "the", "of", "with", "and"}


def untaught(words: Mapping[str, Sequence[str]]) -> list[str]:
    """Classes of which the embedded generators were taught no word: what they draw is not known.

    Args:
        words: wordings by class.
    """
    taught = {
        part
        for some in (world.WORDS, EUROSAT_WORDS, SCENE_WORDS)
        for wordings in some.values()
        for wording in wordings
        for part in wording.split()
    } - SMALL_WORDS
    return [
        name
        for name, wordings in words.items()
        if not any(taught & {*wording.lower().split()} for wording in wordings)
    ]


@dataclass(frozen=True)
class Domain:
    """Images of one domain and the captions each may have.

    Args:
        name: of the domain.
        images: (n, 64, 64, 3) uint8.
        captions: for each image the captions to draw from, most plain first.
        labels: for each image its class name.
        any_orientation: may be flipped and turned by 90 degrees without becoming untrue.
    """

    name: str
    images: np.ndarray
    captions: list[tuple[str, ...]]
    labels: list[str]
    any_orientation: bool

    @property
    def classes(self) -> list[str]:
        """In alphabetical order."""
        return sorted(set(self.labels))

    @property
    def targets(self) -> np.ndarray:
        """(n,) places in `classes`."""
        places = {name: place for place, name in enumerate(self.classes)}
        return np.array([places[label] for label in self.labels])


@dataclass(frozen=True)
class Scenes:
    """Images of several classes, their masks, and the captions each may have.

    Args:
        name: of the domain.
        images: (n, 64, 64, 3) uint8.
        masks: (n, 64, 64) uint8, ids are places in `classes`, 255 is ignored.
        captions: for each image the captions to draw from, most plain first.
        words: of each class, in the order of the ids.
        any_orientation: never: the light of scenes comes from one side.
    """

    name: str
    images: np.ndarray
    masks: np.ndarray
    captions: list[tuple[str, ...]]
    words: Mapping[str, Sequence[str]] = field(default_factory=lambda: SCENE_WORDS)
    any_orientation: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the ids."""
        return tuple(self.words)

    @property
    def targets(self) -> np.ndarray:
        """The masks."""
        return self.masks


def eurosat(path: Path, split: str = "train") -> Domain:
    """EuroSAT from a folder of parquet files ``eurosat_rgb_<split>.parquet``.

    Raises:
        UserError: the file is missing.
    """
    file = path / f"eurosat_rgb_{split}.parquet"
    if not file.exists():
        raise UserError(f"{file} is missing; give the folder of EuroSAT's parquet files")
    table = pq.read_table(file, columns=["image", "label"])
    names = list(EUROSAT_WORDS)
    labels = [
        label if isinstance(label, str) else names[label] for label in table["label"].to_pylist()
    ]
    images = np.stack([_rgb(data) for data in table["image"].to_pylist()])
    prompts = {
        name: tuple(EUROSAT_TEMPLATE.format(word=word) for word in words)
        for name, words in EUROSAT_WORDS.items()
    }
    return Domain("eurosat", images, [prompts[label] for label in labels], labels, True)


def rendered(count: int, seed: int, tail: bool = True) -> Domain:
    """``count`` rendered tiles, classes in turn; the rare modes among them if ``tail``."""
    images, captions, labels = [], [], []
    for index, rng in enumerate(_rngs(seed, count)):
        tile = world.draw_tile(rng, world.CLASSES[index % len(world.CLASSES)], tail=tail)
        images.append(world.render(tile, int(rng.integers(2**31)), SIZE))
        plain = tuple(world.TEMPLATE.format(word=word) for word in world.WORDS[tile.landcover])
        detailed = tuple(world.caption(tile, rng, detail) for detail in (1, 2, 3))
        captions.append(plain + detailed)
        labels.append(tile.landcover)
    return Domain("world", np.stack(images), captions, labels, False)


def rendered_scenes(count: int, seed: int, tail: bool = True) -> Scenes:
    """``count`` rendered scenes; rare layouts among them if ``tail``."""
    images, masks, captions = [], [], []
    for rng in _rngs(seed, count):
        scene = draw_scene(rng, tail)
        image, mask = render_scene(scene, int(rng.integers(2**31)), SIZE)
        names = present(mask)
        shuffled = [scene_caption(scene, names, rng, detail) for detail in (0, 0, 0, 1, 2)]
        images.append(image)
        masks.append(mask)
        captions.append((scene_caption(scene, names), *shuffled))
    return Scenes("scenes", np.stack(images), np.stack(masks), captions)


def mosaics(count: int, seed: int, eurosat: Domain, tail: bool = True) -> Scenes:
    """``count`` masks filled with EuroSAT's tiles; rare layouts among them if ``tail``."""
    textures = Textures.of(eurosat.images, eurosat.labels)
    images, masks, captions = [], [], []
    for rng in _rngs(seed, count):
        mask = draw_mask(draw_layout(rng, tail), int(rng.integers(2**31)), SIZE)
        names = present(mask)
        said = [wordings(names), *(wordings(names, rng) for _ in range(4))]
        images.append(mosaic(mask, textures, rng))
        masks.append(mask)
        captions.append(tuple(MOSAIC_TEMPLATE.format(word=listing(words)) for words in said))
    return Scenes("mosaics", np.stack(images), np.stack(masks), captions)


def _rngs(seed: int, count: int) -> Iterator[np.random.Generator]:
    return (np.random.default_rng((seed, index)) for index in range(count))


def _rgb(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
