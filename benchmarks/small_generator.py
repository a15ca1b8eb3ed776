"""A generator of 64-pixel pictures with a ControlNet, of a recipe's training images.

    python benchmarks/small_generator.py RECIPE --set data.path=DIR --work W --out GENERATOR

For data sets to which no generator that we may use comes near. Architecture and training are those
of the embedded generator of scenes (`activegen.zoo.train_scenes`), with which ``--start embedded``
begins, but for its words. All images of the recipe's training split are learnt from, not only the
few that a run takes. The recipe draws with the result by ``model.path`` and
``segmentation.controls.0.path``. A training that was stopped goes on with the same command.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from activegen.data.prompts import Prompts
from activegen.data.scenes import RealScenes
from activegen.loop.proposing_masks import Scene
from activegen.recipes import generator, load
from activegen.recipes.data import read_split
from activegen.records import UserError
from activegen.tasks.seeding import derive
from activegen.zoo import LAND_COVER_SCENES
from activegen.zoo.domains import SIZE, Scenes
from activegen.zoo.train_scenes import Seen, make

CAPTIONS = 5  # of each picture


def pictures(real: RealScenes, prompts: Prompts, background: frozenset[int]) -> Scenes:
    """All images, masks and captions, as the training takes them.

    Raises:
        UserError: an image is of another size.
    """
    images, masks, captions = [], [], []
    for index, id in enumerate(real.ids):
        image, mask = real.image(index), real.mask(index)
        if tuple(mask.shape) != (SIZE, SIZE):
            height, width = mask.shape
            raise UserError(
                f"{id} has {width} x {height} pixels, and the small generator draws {SIZE} x {SIZE}"
                ": cut the images by benchmarks/pieces.py first"
            )
        rng = np.random.default_rng(derive(0, "captions", id))
        names = [real.classes[label] for label in Scene.of(id, mask, background).named]
        said = [prompts.listing(names, rng)[0] if names else "" for _ in range(CAPTIONS)]
        images.append(image.permute(1, 2, 0).numpy())
        masks.append(mask.numpy())
        captions.append(tuple(said))
    words = {name: prompts.words[name] for name in real.classes}
    return Scenes(real.name, np.stack(images), np.stack(masks), captions, words)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--work", type=Path, required=True, help="folder of states to go on from")
    parser.add_argument("--out", type=Path, required=True, help="folder of the generator")
    parser.add_argument("--autoencoder-images", type=int, default=60_000)
    parser.add_argument("--decoder-images", type=int, default=30_000)
    parser.add_argument("--images", type=int, default=500_000, help="images the denoiser sees")
    parser.add_argument("--start", default="", help="folder of a generator, or embedded")
    parser.add_argument("--compile", action="store_true", help="minutes at the start, then faster")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    recipe = load(options.recipe, options.set)
    real = read_split(recipe.data, recipe.data.train)
    if not isinstance(real, RealScenes) or recipe.segmentation is None:
        raise UserError(f"{options.recipe} has no masks; give a recipe of images with masks")
    known = dict(zip(real.classes, range(len(real.classes)), strict=True))
    background = frozenset(known[name] for name in recipe.segmentation.background)
    of = pictures(real, generator.prompts_of(recipe, real.classes), background)
    seen = Seen(options.autoencoder_images, options.decoder_images, options.images)
    options.work.mkdir(parents=True, exist_ok=True)
    start = {"": None, "embedded": LAND_COVER_SCENES}.get(options.start, Path(options.start))
    compiled, device = options.compile, options.device
    make([of], seen, options.work, options.out, device, compiled, start, new_words=True)


if __name__ == "__main__":
    main()
