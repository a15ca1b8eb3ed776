"""The layouts of real data we read, by name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from activegen.data.cityscapes import read_cityscapes
from activegen.data.class_list import read_classes
from activegen.data.coco import read_coco
from activegen.data.csv_file import read_csv
from activegen.data.hugging_face import read_hugging_face
from activegen.data.image_folder import read_image_folder
from activegen.data.images import RealImages
from activegen.data.mask_folder import read_mask_folder
from activegen.data.mask_parquet import read_mask_parquet
from activegen.data.mosaics import read_mosaics
from activegen.data.scenes import RealScenes
from activegen.data.voc import read_voc
from activegen.data.world import read_world
from activegen.data.world_scenes import read_world_scenes
from activegen.records import choose

READERS: Mapping[str, Callable[..., RealImages]] = {
    "image_folder": read_image_folder,
    "hugging_face": read_hugging_face,
    "csv": read_csv,
    "world": read_world,
}
SCENE_READERS: Mapping[str, Callable[..., RealScenes]] = {
    "mask_folder": read_mask_folder,
    "voc": read_voc,
    "cityscapes": read_cityscapes,
    "coco": read_coco,
    "parquet": read_mask_parquet,
    "classes": read_classes,
    "world_scenes": read_world_scenes,
    "mosaics": read_mosaics,
}

Real = TypeVar("Real", RealImages, RealScenes)


def read_images(layout: str, path: str, split: str, **options: Any) -> RealImages:
    """The images of one split in any layout of `READERS`.

    Args:
        layout: a name in `READERS`.
        path: of the data, as the layout has it.
        split: "train", "val" or "test", or as the data names it.
        options: of that reader.

    Raises:
        UserError: unknown layout or option, or as the reader does.
    """
    return _read(READERS, layout, path, split, options)


def read_scenes(layout: str, path: str, split: str, **options: Any) -> RealScenes:
    """The images with masks of one split in any layout of `SCENE_READERS`, as `read_images`.

    Raises:
        UserError: unknown layout or option, or as the reader does.
    """
    return _read(SCENE_READERS, layout, path, split, options)


def takes(layout: str, option: str) -> bool:
    """Whether the reader of a layout has an option."""
    reader = READERS.get(layout) or SCENE_READERS.get(layout)
    return reader is not None and option in inspect.signature(reader).parameters


def _read(
    readers: Mapping[str, Callable[..., Real]],
    layout: str,
    path: str,
    split: str,
    options: dict[str, Any],
) -> Real:
    reader = choose(readers, layout, "data layout")
    parameters = inspect.signature(reader).parameters.values()
    known = {of.name: of for of in parameters if of.kind is inspect.Parameter.KEYWORD_ONLY}
    for option in options:
        choose(known, option, f"option of {layout}")
    return reader(path, split, **options)
