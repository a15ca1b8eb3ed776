"""Cityscapes: leftImg8bit and gtFine, with its 19 evaluated classes.

Cordts et al. (2016), https://arxiv.org/abs/1604.01685.
"""

from pathlib import Path

from activegen.data.image_folder import Files, folders_in, id_below, image_files
from activegen.data.images import listed
from activegen.data.masks import Coding, EncodedMasks
from activegen.data.palettes import PALETTES
from activegen.data.scenes import RealScenes, encoded_scenes
from activegen.records import IGNORE, UserError, choose

CLASSES = tuple(PALETTES["cityscapes"].colours)
IMAGES = "leftImg8bit"
# the classes' numbers in labelIds; the other numbers below 34 are not evaluated
NUMBERS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LABEL_IDS = Coding(
    {
        **dict.fromkeys([*range(34), IGNORE], IGNORE),
        **{number: label for label, number in enumerate(NUMBERS)},
    },
    {},
)
TRAIN_IDS = Coding({**{label: label for label in range(len(CLASSES))}, IGNORE: IGNORE}, {})


def read_cityscapes(
    path: str, split: str, *, mask_dir: str = "gtFine", strict: bool = False
) -> RealScenes:
    """The images of one split; ids are their paths below ``path``.

    Masks are the files ``*_labelIds.png`` or, if there is none, ``*_labelTrainIds.png``. The masks
    of the test split are not public.

    Args:
        path: the folder that holds leftImg8bit and gtFine.
        split: "train" or "val"; of gtCoarse also "train_extra".
        mask_dir: "gtFine" or "gtCoarse".
        strict: what cannot be used is an error, not skipped.

    Raises:
        UserError: there is no such folder or split, an image has no mask, or as
            `masks.decode_mask` and `scenes.check_scenes` do.
    """
    root = Path(path)
    for folder in (IMAGES, mask_dir):
        if not (root / folder).is_dir():
            raise UserError(f"there is no folder {root / folder}; give the folder that holds it")
    splits = {folder.name: folder for folder in folders_in(root / IMAGES)}
    top = choose(splits, split, f"split of {root}")
    images = tuple(file for file in image_files(top) if file.stem.endswith(f"_{IMAGES}"))
    if not images:
        raise UserError(f"{top} has no files *_{IMAGES}.png; put the images there")
    masks = _masks(images, root, mask_dir, "labelIds")
    coding = LABEL_IDS
    if not any(mask.is_file() for mask in masks):
        masks, coding = _masks(images, root, mask_dir, "labelTrainIds"), TRAIN_IDS
    if missing := [str(mask) for mask in masks if not mask.is_file()]:
        raise UserError(f"{len(missing)} masks are missing: {listed(missing)}; add them")
    return encoded_scenes(
        f"{root.name} ({split})",
        CLASSES,
        [id_below(image, root) for image in images],
        Files(images),
        EncodedMasks(Files(masks), tuple(str(mask) for mask in masks), coding),
        strict,
    )


def _masks(images: tuple[Path, ...], root: Path, mask_dir: str, kind: str) -> tuple[Path, ...]:
    """Where the masks of one kind are."""

    def mask(image: Path) -> Path:
        name = image.stem.removesuffix(IMAGES)
        folder = root / mask_dir / image.parent.relative_to(root / IMAGES)
        return folder / f"{name}{mask_dir}_{kind}.png"

    return tuple(mask(image) for image in images)
