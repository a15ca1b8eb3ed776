"""A first recipe for somebody's own images with masks, from a look at them."""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from activegen.data.hugging_face import column_of, names_in
from activegen.data.image_folder import SPLITS, folders_in, image_files
from activegen.data.images import RealImages, UnreadableImage, called, opened
from activegen.data.masks import Coding, decode_mask
from activegen.data.prompts import readable
from activegen.data.readers import read_scenes
from activegen.data.scenes import RealScenes
from activegen.records import IGNORE, UnknownWord, UserError

Real = TypeVar("Real", RealImages, RealScenes)

TEST_SPLITS = ("test", "val", "validation")
FOLDERS = {"voc": ("JPEGImages", "SegmentationClass"), "cityscapes": ("leftImg8bit", "gtFine")}
IMAGE_DIRS = ("{split}", "images/{split}", "images")  # where COCO's images may be
MASK_DIRS = ("masks", "mask", "labels", "annotations", "segmentations", "gt")  # beside "images"
LOOKED_AT = 200  # images whose sizes are looked at
LONGEST = 256  # pixels of the learner's images; larger ones take too long for a first try
MULTIPLE = 16  # of pixels, that the small network takes
DRAWN = 512  # pixels of the shorter side that Stable Diffusion draws well
NUMBERS = Coding({number: number for number in range(IGNORE + 1)}, {}, "write the recipe by hand")


@dataclass(frozen=True)
class Stored:
    """How images with masks are stored.

    Args:
        layout: of `SCENE_READERS`.
        train: the split to learn from.
        tests: splits to measure on, the best first.
        options: of the reader.
        unnamed: nothing says which classes there are.
    """

    layout: str
    train: str = "train"
    tests: tuple[str, ...] = TEST_SPLITS
    options: Mapping[str, Any] = field(default_factory=dict)
    unnamed: bool = False


@dataclass(frozen=True)
class SceneLook:
    """What is in somebody's folder of images with masks.

    Args:
        path: of it.
        stored: how.
        train, test: what can be learnt from and measured on.
        test_split, val_split: what the latter is called, and a split to look at on the way, "null"
            where there is none.
        usual: height and width of the images, in pixels; the median.
    """

    path: Path
    stored: Stored
    train: RealScenes
    test: RealScenes
    test_split: str
    val_split: str
    usual: tuple[int, int]

    @property
    def layout(self) -> str:
        """How the images are stored."""
        return self.stored.layout

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(id, reason) of the images that cannot be used."""
        return self.train.skipped + self.test.skipped

    @property
    def size(self) -> tuple[int, int]:
        """Height and width for the learner, in the images' proportions."""
        return _scaled(self.usual, min(1.0, LONGEST / max(self.usual)), MULTIPLE)

    @property
    def sizes(self) -> str:
        """What the images' sizes are, in words."""
        (high, wide), (height, width) = self.usual, self.size
        return f"images of about {wide} x {high} pixels; the learner's have {width} x {height}"

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """A table: the head, the images of each split, and the pixels of each class."""
        train, test = shares(self.train), shares(self.test)
        return [
            ("class", self.stored.train, self.test_split),
            ("(images)", str(len(self.train)), str(len(self.test))),
            *(
                (name, f"{train[label]:.2%}", f"{test[label]:.2%}")
                for label, name in enumerate(self.train.classes)
            ),
        ]

    @property
    def recipe(self) -> str:
        """A commented recipe."""
        names = self.train.classes
        height, width = self.size
        drawn = _scaled(self.usual, DRAWN / min(self.usual), 64)
        words = "".join(f"\n    {quoted(name)}: [{quoted(readable(name))}]" for name in names)
        return TEXT.format(
            name=quoted(recipe_name(self.path)),
            layout=self.layout,
            path=quoted(str(self.path.absolute())),
            options=_options(self.stored.options, shares(self.train)),
            unnamed=UNNAMED if self.stored.unnamed else "",
            train=quoted(self.stored.train),
            test=quoted(self.test_split),
            val=self.val_split,
            height=height,
            width=width,
            drawn=list(drawn),
            words=" {}" if self.stored.unnamed else words,
            words_hint=WORDS if self.stored.unnamed else "",
            some=quoted(names[-1]),
            background=", ".join(quoted(name) for name in names if name == "background"),
            budget=budget(len(self.train)),
            augmentation="street" if self.layout == "cityscapes" else "photo",
            images=len(self.train),
        )


def stored(path: Path) -> Stored | None:
    """How images with masks are stored there; None where that is not certain.

    Raises:
        UserError: COCO's annotations without those to learn from, or a damaged parquet file.
    """
    if path.is_dir():
        for layout, folders in FOLDERS.items():
            if all((path / folder).is_dir() for folder in folders):
                return Stored(layout, tests=("val", "test") if layout == "voc" else ("val",))
        if any((path / "annotations").glob("*.json")):
            return _coco(path)
        if folders := _mask_folders(path):
            named = folders[0].name
            options = {} if named == MASK_DIRS[0] else {"mask_dir": named}
            return Stored("mask_folder", options=options, unnamed=True)
    return _parquet(path)


def look_at_scenes(path: Path, how: Stored) -> SceneLook:
    """Reads the data once, and before it the masks that nobody explains.

    Raises:
        UserError: the masks hold no classes, or as the reader does.
    """
    if how.unnamed:
        masks = _rows(path) if how.layout == "parquet" else _mask_files(path)
        how = replace(how, options={**how.options, **classes_in(masks, path)})
        if "colours" in how.options and how.layout == "parquet":
            raise UserError(
                f"the masks in {path} are pictures in colours; put 'classes' and 'palette', a "
                "list of [red, green, blue], into the metadata of its schema"
            )

    def read(split: str) -> RealScenes:
        return read_scenes(how.layout, str(path), split, **how.options)

    train = read(how.train)
    if len(train) < 2:
        raise UserError(f"{path} has one image to learn from; add some, at least 2 are needed")
    test, test_split = measured_on(read, how.tests)
    val = held_back(read, how.tests, test_split)
    return SceneLook(path, how, train, test, test_split, val, _usual(train))


def measured_on(read: Callable[[str], Real], splits: Sequence[str]) -> tuple[Real, str]:
    """The first split that is there to measure on, and its name.

    Raises:
        UserError: there is none, or as the reader does.
    """
    first: UserError | None = None
    for split in splits:
        try:
            return read(split), split
        except UnknownWord as error:
            first = first or error
    raise UserError(
        f"there is nothing to measure on: {first or ''} Put some images of each class aside as "
        "'test'"
    )


def held_back(read: Callable[[str], object], splits: Sequence[str], test_split: str) -> str:
    """A split that is not measured on, as a recipe has it; "null" where there is none.

    Where there is one that cannot be read, a comment says why.
    """
    for split in splits:
        of = SPLITS.get(split, split)
        if "val" in of and of != SPLITS.get(test_split, test_split):
            try:
                read(split)
            except UnknownWord:
                continue
            except UserError as error:
                return f"null  # not '{split}': {' '.join(str(error).split())}"
            return f"{{split: {quoted(split)}}}"
    return "null"


def classes_in(masks: Iterable[bytes | Path], path: Path) -> dict[str, Any]:
    """An option that names what the pixels of masks hold: class_0, class_1, ...

    It is ``ids`` or, where a mask is a picture in colours, ``colours``. 255 is ignored, unless
    there is but one other number.

    Raises:
        UserError: there is one class, or there are more than a mask has room for; numbers above
            255, or as `masks.decode_mask` does.
    """
    numbers: set[int] = set()
    colours: set[int] = set()
    coloured = False
    for mask in masks:
        try:
            if not coloured and not (coloured := _is_coloured(mask)):
                numbers.update(decode_mask(mask, NUMBERS).unique().tolist())
            colours.update(_colours(mask))
        except UnreadableImage:  # which the reader names and leaves out
            continue
        if coloured and len(colours) > IGNORE:
            raise UserError(
                f"the masks in {path} have more than {IGNORE} colours, so they are no classes; "
                "give each class one colour, with sharp edges, and save masks as PNG"
            )
    found = colours if coloured else numbers - {IGNORE}
    if not coloured and len(found) == 1:
        found = numbers
    if len(found) < 2:
        raise UserError(
            f"the masks in {path} are all of one class, or there is none; at least two are needed"
        )
    names = {code: f"class_{place}" for place, code in enumerate(sorted(found))}
    if coloured:
        rgb = {name: [code >> 16, code >> 8 & 255, code & 255] for code, name in names.items()}
        return {"colours": rgb}
    return {"ids": names}


def shares(scenes: RealScenes) -> list[float]:
    """Of each class, of the pixels of all scenes that are not ignored."""
    counts = np.sum([scenes.pixels(index) for index in range(len(scenes))], axis=0)
    return (counts / counts.sum()).tolist()


def budget(images: int) -> int:
    """Images to draw in each round: about a quarter of those that there are."""
    return max(16, min(64, 2 ** round(math.log2(max(images / 4, 1)))))


def recipe_name(path: Path) -> str:
    """What to call the recipe for a path."""
    return re.sub(r"\W+", "-", path.stem).strip("-") or "mine"


def quoted(text: str) -> str:
    """As YAML understands it, whatever it holds."""
    return json.dumps(text, ensure_ascii=False)


def _coco(path: Path) -> Stored:
    """Splits are called as the files of annotations are."""
    files = sorted((path / "annotations").glob("*.json"))
    start = "instances_" if any(file.name.startswith("instances_") for file in files) else ""
    names = [file.stem.removeprefix(start) for file in files if file.name.startswith(start)]
    trains, tests, vals = ([of for of in names if word in of] for word in ("train", "test", "val"))
    if not trains:
        raise UserError(
            f"no file in {path / 'annotations'} is named after 'train'; call those to learn from "
            "instances_train.json and those to measure on instances_test.json"
        )
    options = {} if start else {"annotations": "annotations/{split}.json"}
    for folder in IMAGE_DIRS:
        if (path / folder.replace("{split}", trains[0])).is_dir():
            if folder != IMAGE_DIRS[0]:
                options["image_dir"] = folder
            break
    return Stored("coco", trains[0], (*tests, *(of for of in vals if of not in trains)), options)


def _mask_folders(path: Path) -> list[Path]:
    """The folders of masks that have images beside them, all of one name."""
    tops = [of for of in (path, *folders_in(path)) if (of / "images").is_dir()]
    for name in MASK_DIRS:
        if found := [of / name for of in tops if any(image_files(of / name))]:
            return found
    return []


def _mask_files(path: Path) -> Iterator[Path]:
    for folder in _mask_folders(path):
        yield from image_files(folder)


def _parquet(path: Path) -> Stored | None:
    """Rows with an image, a mask and no label."""
    files = _parquet_files(path)
    if not files:
        return None
    try:
        schemas = [pq.read_schema(file) for file in files]
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"a parquet file in {path} is damaged: {error}") from error
    columns = set(schemas[0].names)
    if not {"image", "mask"} <= columns or "label" in columns:
        return None
    if all("split" in schema.names for schema in schemas):
        there = " ".join(sorted({str(of) for of in column_of(files, "split")}))
    else:
        there = " ".join(
            str(file.relative_to(path)) if file != path else file.name for file in files
        )
    tests = tuple(
        split for split in TEST_SPLITS if re.search(rf"(?<![a-z]){split}(?![a-z])", there)
    )
    return Stored("parquet", tests=tests, unnamed=not names_in(schemas[0], files[0]))


def _parquet_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.rglob("*.parquet"))
    return [path] if path.is_file() and path.suffix == ".parquet" else []


def _rows(path: Path) -> Iterator[bytes | Path]:
    """The mask of each row."""
    for file in _parquet_files(path):
        for batch in pq.ParquetFile(file).iter_batches(64, columns=["mask"]):
            for value in batch.column(0).to_pylist():
                held = value.get("bytes") or value.get("path") if isinstance(value, dict) else value
                if held:
                    yield Path(held) if isinstance(held, str) else held


def _is_coloured(mask: bytes | Path) -> bool:
    """Is it a picture in RGB that is not grey? A JPEG is none, so that it is refused."""
    with opened(mask, called(mask)) as picture:
        if picture.mode not in ("RGB", "RGBA", "RGBX") or picture.format == "JPEG":
            return False
        red, green, blue = np.moveaxis(np.array(picture.convert("RGB")), -1, 0)
        return bool((red != green).any() or (red != blue).any())


def _colours(mask: bytes | Path) -> list[int]:
    """The colours, as 65536 red + 256 green + blue."""
    with opened(mask, called(mask)) as picture:
        red, green, blue = np.moveaxis(np.array(picture.convert("RGB")).astype(np.int32), -1, 0)
    return np.unique((red << 16) + (green << 8) + blue).tolist()


def _usual(scenes: RealScenes) -> tuple[int, int]:
    """The medians of height and width."""
    step = max(1, len(scenes) // LOOKED_AT)
    shapes = [scenes.image(index).shape[1:] for index in range(0, len(scenes), step)]
    heights, widths = zip(*shapes, strict=True)
    return round(median(heights)), round(median(widths))


def _scaled(sides: tuple[int, int], scale: float, multiple: int) -> tuple[int, int]:
    height, width = (max(1, int(side * scale / multiple + 0.5)) * multiple for side in sides)
    return height, width


def _options(options: Mapping[str, Any], of_pixels: Sequence[float]) -> str:
    """As YAML, with the share of the pixels of each class that is named there."""
    lines = []
    for option, value in options.items():
        if isinstance(value, str):
            lines.append(f"    {option}: {quoted(value)}")
            continue
        items = [f"{key}: {of}" for key, of in value.items()]
        lines.append(f"    {option}:")
        lines += [
            f"      {item:<30}  # {share:.2%} of the pixels"
            for item, share in zip(items, of_pixels, strict=True)
        ]
    return "".join(f"\n{line}" for line in lines) or " {}"


UNNAMED = """
  # What the masks hold: rename the classes to what they are. Numbers of one name are one class. One
  # that means nothing goes from here to ignore: [7], a colour to ignore: [[0, 0, 0]]; 255 is
  # ignored, unless it is named."""
WORDS = """
# A class without words is called as its name reads. After the renaming, for example:
#   words: {road: ["a road", "a street"], tree: ["trees", "woodland"]}"""
TEXT = """\
# Written by 'activegen init' after a look at the data: {images} images with masks.
# Try it:   activegen run THIS_FILE --dry-run      then without --dry-run; the same command goes on
# after a stop. All keys are explained in docs/recipes.md; any can be changed for one run by
# --set key=value, such as --set training.steps=200.
name: {name}
seed: 0

data:
  layout: {layout}
  path: {path}{unnamed}
  options:{options}
  # Folders and tables without splits are divided: 70 % train, 10 % val, 20 % test.
  train: {{split: {train}, count: null}}       # a number takes so many images, by the seed
  test: {{split: {test}, limit: null}}         # figures are measured here, and nothing is learnt
  # Is looked at on the way, and nothing is learnt; null is none.
  val: {val}
  size: [{height}, {width}]                   # pixels of the learner's images: height, width
  strict: false                           # true: stop at an image that cannot be read

# The classes of a mask are named in the prompt: say what the generator knows.{words_hint}
prompts:
  templates: ["a photo of {{word}}"]        # the embedded one knows "a rendered scene of {{word}}"
  words:{words}

# The embedded generator knows land cover only. For other pictures give a folder of a Stable
# Diffusion 1.x or 2.x model in diffusers' layout (unet/, vae/, text_encoder/, tokenizer/,
# scheduler/, weights as .safetensors), and below a ControlNet for it:
#   model: {{path: /models/my-stable-diffusion, dtype: float16, size: {drawn},
#           decoder: "tiny:/models/taesd"}} # for gradients: an AutoencoderTiny's folder, or full
#   sampling: {{scheduler: dpm++_2m, num_steps: 25, cfg_scale: 7.5}}
model: {{path: embedded, dtype: float32, device: auto, decoder: full}}
sampling: {{scheduler: ddim, num_steps: 15, cfg_scale: 2.0}}

guidance:
  guided:                                 # to where learners disagree and the mask still holds
    - ascend:
        of: latents
        through: decoder
        every: 2
        step: 0.09
        during: [0.2, 0.8]
        objectives:
          - disagreement: {{of: committee}}
          - teacher_anchor: {{weight: 1.0}}

segmentation:
  # A ControlNet draws an image for a mask that it is shown as a picture in colours. Your own:
  #   - path: /models/my-controlnet       # a folder with config.json and .safetensors weights
  #     palette: ade20k                   # whose colours it was trained on: ade20k, coco,
  #                                       # cityscapes, voc, or own (ours, for any classes)
  #     ontology: {{{some}: tree}}          # the palette's name of each class it calls otherwise
  controls:
    - {{path: embedded, scale: 1.0, palette: own}}
  background: [{background}]                          # classes that are never asked for
  proposal: {{budget: {budget}, sampling: hardness}}  # images in each round that generates
  # what becomes of a drawn image: pixels that the judge finds far too hard are not learnt
  judge: {{network: small, members: 2, steps: 400, loss_factor: 1.25, edge_band: 0}}

# Your own network: a function in a Python file beside this one that is called with the number of
# classes and gives a torch.nn.Module for images of 0..1, by its import path:
#   learner: {{network: "my_model:make"}}
# or one of two libraries: "smp:unet/resnet18", "transformers:segformer".
learner: {{network: small}}

training:
  steps: 1000
  batch_size: 16
  optimiser: adamw
  learning_rate: 0.002
  warmup_steps: 20
  ema_decay: 0.99
  augmentation: {augmentation}                     # or none, flips, photo, street, land_cover
  synthetic_share: 0.5                    # of a batch

mining: {{split: cross_fit, folds: 2}}      # each image is judged by a learner that did not see it
loop: {{rounds: 6, generate_until: 0.5, batch: 16}}

arms:                                     # what is compared, at the same number of training steps
  real_only: {{generate: none}}
  unguided: {{generate: plain, judge: false}}
  active: {{generate: guided, judge: true}}
"""
