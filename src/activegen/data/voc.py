"""PASCAL VOC's segmentation sets: JPEGImages, SegmentationClass and lists of names.

Everingham et al. (2010), https://doi.org/10.1007/s11263-009-0275-4; the larger training set of
Hariharan et al. (2011), https://doi.org/10.1109/ICCV.2011.6126343, is read with another mask_dir.
"""

from pathlib import Path

from activegen.data.image_folder import Files, inside
from activegen.data.images import listed
from activegen.data.masks import EncodedMasks, coding_of
from activegen.data.palettes import PALETTES
from activegen.data.scenes import RealScenes, encoded_scenes
from activegen.records import UserError, choose

CLASSES = tuple(PALETTES["voc"].colours)
LISTS = Path("ImageSets", "Segmentation")


def read_voc(
    path: str, split: str, *, mask_dir: str = "SegmentationClass", strict: bool = False
) -> RealScenes:
    """The images of one list, in its order; ids are their names. 255, the outlines, is ignored.

    Args:
        path: the folder that holds JPEGImages, such as VOCdevkit/VOC2012.
        split: of a list in ImageSets/Segmentation: "train", "val", "trainval", ...
        mask_dir: folder of the masks.
        strict: what cannot be used is an error, not skipped.

    Raises:
        UserError: there is no such folder or list, a listed image or its mask is missing, or as
            `masks.decode_mask` and `scenes.check_scenes` do.
    """
    root = Path(path)
    for folder in ("JPEGImages", mask_dir, LISTS):
        if not (root / folder).is_dir():
            raise UserError(
                f"there is no folder {root / folder}; give the folder that holds it, such as "
                "VOCdevkit/VOC2012"
            )
    lists = {file.stem: file for file in (root / LISTS).glob("*.txt")}
    file = choose(lists, split, f"split of {root}")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    images = tuple(inside(root / "JPEGImages", f"{name}.jpg") for name in names)
    masks = tuple(inside(root / mask_dir, f"{name}.png") for name in names)
    if missing := [str(each) for each in (*images, *masks) if not each.is_file()]:
        raise UserError(
            f"{file} lists what is not there: {len(missing)} files are missing: {listed(missing)}"
        )
    classes, coding = coding_of(CLASSES)
    read = EncodedMasks(Files(masks), tuple(str(mask) for mask in masks), coding)
    return encoded_scenes(f"{root.name} ({split})", classes, names, Files(images), read, strict)
