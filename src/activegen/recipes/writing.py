"""A first recipe for somebody's own data, from a look at it."""

from dataclasses import dataclass
from pathlib import Path

from activegen.data.images import RealImages
from activegen.data.prompts import readable
from activegen.data.readers import read_images
from activegen.recipes.writing_masks import (
    LOOKED_AT,
    TEST_SPLITS,
    SceneLook,
    budget,
    held_back,
    look_at_scenes,
    measured_on,
    quoted,
    recipe_name,
    stored,
)
from activegen.records import UserError

SIZES = (32, 64, 96, 128, 160, 192, 224)


@dataclass(frozen=True)
class Look:
    """What is in somebody's folder of images of one class each.

    Args:
        path: of it.
        layout: how the images are stored.
        train, test: what can be learnt from and measured on.
        test_split, val_split: what the latter is called, and a split to look at on the way, "null"
            where there is none.
        sizes: (height, width) of images of train, smallest and largest side.
    """

    path: Path
    layout: str
    train: RealImages
    test: RealImages
    test_split: str
    val_split: str
    sides: tuple[int, int]

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(id, reason) of the images that cannot be read."""
        return self.train.skipped + self.test.skipped

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Images to learn from and to measure on, by class."""
        pairs = zip(self.train.by_class().values(), self.test.by_class().values(), strict=True)
        return {
            name: (len(train), len(test))
            for name, (train, test) in zip(self.train.classes, pairs, strict=True)
        }

    @property
    def size(self) -> int:
        """A size for the learner: the smallest of `SIZES` that loses little of most images."""
        return next((size for size in SIZES if size >= self.sides[0]), SIZES[-1])

    @property
    def sizes(self) -> str:
        """What the images' sizes are, in words."""
        return f"smaller sides from about {self.sides[0]} pixels, largest {self.sides[1]}"

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """A table: the head, and the images of each class."""
        counted = [(name, str(train), str(test)) for name, (train, test) in self.counts.items()]
        return [("class", "train", self.test_split), *counted]

    @property
    def recipe(self) -> str:
        """A commented recipe."""
        fewest = min(train for train, _ in self.counts.values())
        words = "\n".join(
            f"    {quoted(name)}: [{quoted(readable(name))}]" for name in self.train.classes
        )
        return TEXT.format(
            name=quoted(recipe_name(self.path)),
            layout=self.layout,
            path=quoted(str(self.path.absolute())),
            test=quoted(self.test_split),
            val=self.val_split,
            size=self.size,
            words=words,
            folds=max(2, min(5, fewest)),
            train=len(self.train),
            classes=len(self.train.classes),
            fewest=fewest,
            budget=budget(len(self.train)),
        )


def look(path: Path) -> Look | SceneLook:
    """Reads the data once.

    Raises:
        UserError: no layout that we know, or as its reader does.
    """
    path = path.expanduser()
    if how := stored(path):
        return look_at_scenes(path, how)
    layout = _layout(path)
    train = read_images(layout, str(path), "train")

    def read(split: str) -> RealImages:
        return read_images(layout, str(path), split)

    test, test_split = measured_on(read, TEST_SPLITS)
    val = held_back(read, TEST_SPLITS, test_split)
    return Look(path, layout, train, test, test_split, val, _sides(train))


def _layout(path: Path) -> str:
    if path.is_file() and path.suffix.lower() == ".csv":
        return "csv"
    if not path.is_dir():
        raise UserError(
            f"there is no folder '{path}'; give a folder with a folder of images for each class, "
            "one with the folders images and masks, a folder of parquet files, or a CSV file with "
            "columns path and label"
        )
    if any(path.rglob("*.parquet")) or (path / "dataset_dict.json").exists():
        return "hugging_face"
    return "image_folder"


def _sides(images: RealImages) -> tuple[int, int]:
    """The lower quartile of the smaller sides, and the largest side."""
    step = max(1, len(images) // LOOKED_AT)
    shapes = [images.image(index).shape[1:] for index in range(0, len(images), step)]
    smaller = sorted(min(shape) for shape in shapes)
    return smaller[len(smaller) // 4], max(max(shape) for shape in shapes)


TEXT = """\
# Written by 'activegen init' after a look at the data: {train} images, {classes} classes to learn.
# Try it:   activegen run THIS_FILE --dry-run      then without --dry-run; the same command goes on
# after a stop. All keys are explained in docs/recipes.md; any can be changed for one run by
# --set key=value, such as --set training.steps=200.
name: {name}
seed: 0

data:
  layout: {layout}
  path: {path}
  # Folders and tables without splits are divided: 70 % train, 10 % val, 20 % test of each class.
  train: {{split: train, per_class: null}}   # a number takes so many of each class, by the seed
  test: {{split: {test}, limit: null}}       # figures are measured here, and nothing is learnt
  # Is looked at on the way, and nothing is learnt; null is none.
  val: {val}
  size: {size}                            # pixels of the learner's images
  strict: false                           # true: stop at an image that cannot be read

# The word of a class must be in its prompt: say what the generator knows, several wordings if you
# like ("a forest", "woodland"). The embedded one was taught "a satellite photo of {{word}}" with
# annual crops, a forest, scrub, a highway, industrial buildings, a pasture, an orchard, a
# residential area, a river and a lake; in other words it draws worse, or something else.
prompts:
  templates: ["a photo of {{word}}"]
  words:
{words}

# The embedded generator knows land cover only. For other pictures give a folder of a Stable
# Diffusion 1.x or 2.x model in diffusers' layout (unet/, vae/, text_encoder/, tokenizer/,
# scheduler/, weights as .safetensors):
#   model: {{path: /models/my-stable-diffusion, dtype: float16, device: cuda, decoder: linear}}
#   sampling: {{scheduler: dpm++_2m, num_steps: 25, cfg_scale: 7.5}}
model: {{path: embedded, dtype: float32, device: auto, decoder: linear}}
sampling: {{scheduler: dpm++_2m, num_steps: 15, cfg_scale: 2.0}}

guidance:
  guided:                                 # towards a real image that the learner gets wrong
    - reference_pull: {{mask: attention, until: 0.3125}}
    - ascend: {{of: conditioning, step: 0.05, objectives: [{{repulsion: {{during: [0, 0.25]}}}}]}}
  adversarial:                            # towards what the learner finds hard
    - ascend:
        of: conditioning
        step: 0.05
        objectives:
          - repulsion: {{during: [0, 0.25]}}
          - adversarial: {{weight: 0.1, during: [0, 0.25]}}

# Your own network: a function in a Python file beside this one that is called with the number of
# classes and gives a torch.nn.Module for images of 0..1, by its import path:
#   learner: {{network: "my_model:make"}}
# or any of timm's: "timm:resnet18" (pretrained: true where its weights are here already).
learner: {{network: small, pretrained: false}}

training:
  steps: 1000
  batch_size: 64
  optimiser: adamw
  learning_rate: 0.002
  warmup_steps: 20
  ema_decay: 0.99
  augmentation: photo                     # or none, flips, land_cover (looks the same upside down)

mining: {{split: cross_fit, folds: {folds}}}       # the smallest class has {fewest} images
proposal: {{budget: {budget}}}                     # images in each round that generates
# It learns from the labelled images and refuses what looks unlike them; run names what it refuses:
judge: {{network: small, members: 4, steps: 400, min_probability: 0, significance: 0.1}}
loop: {{rounds: 10, generate_until: 0.5, batch: 16}}

arms:                                     # what is compared, at the same number of training steps
  real_only: {{generate: none}}
  unguided: {{generate: plain, judge: false}}
  active: {{generate: guided, judge: true}}
  # Of two unguided ones for each image the one that the learner is less sure of; the README says
  # how it compares with guided ones:
  # selected: {{generate: selected, judge: false, pool: 2}}
"""
