"""COCO's instances as masks of classes: polygons and run lengths from a JSON file.

Lin et al. (2014), https://arxiv.org/abs/1405.0312.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import torch
from pydantic import BaseModel, FiniteFloat, PositiveInt, ValidationError

from activegen.data.image_folder import Files, inside
from activegen.data.images import MAX_PIXELS, Encoded, listed
from activegen.data.masks import Mask
from activegen.data.scenes import RealScenes, check_scenes
from activegen.records import IGNORE, UserError, choose

rle: Any = pycocotools.mask  # its annotations know neither floats nor runs that are lists
BACKGROUND = "background"
SPLIT = "{split}"


def read_coco(
    path: str,
    split: str,
    *,
    annotations: str = "annotations/instances_{split}.json",
    image_dir: str = "{split}",
    classes: Sequence[str] | None = None,
    strict: bool = False,
) -> RealScenes:
    """The images of one file of annotations, in its order; ids are their file names.

    Class 0 is "background": all that has no annotation, and a category of that name. Where objects
    overlap, the smaller one is on top. Crowds, regions in which nobody told the objects apart, are
    ignored where no object covers them.

    Args:
        path: of the folder; ``annotations`` and ``image_dir`` are below it.
        split: what "{split}" stands for in both: "train2017", "val2017", ...
        annotations: the JSON file.
        image_dir: folder of the images.
        classes: names of the categories to take, in this order; the others are background. Without,
            all, in the order of their numbers.
        strict: what cannot be used is an error, not skipped.

    Raises:
        UserError: a file is missing, the JSON is no COCO file, an annotation has no outline or one
            that does not fit its image, or as `scenes.check_scenes` does.
        UnknownWord: a class that is no category.
    """
    root = Path(path)
    file = root / annotations.replace(SPLIT, split)
    folder = root / image_dir.replace(SPLIT, split)
    found = _read(file)
    categories = {of.id: of.name for of in sorted(found.categories, key=lambda of: of.id)}
    wanted = [name for name in classes or categories.values() if name != BACKGROUND]
    for name in wanted:
        choose(dict.fromkeys(categories.values()), name, f"category of {file.name}")
    names = (BACKGROUND, *wanted)
    files = tuple(inside(folder, image.file_name) for image in found.images)
    if missing := [str(image) for image in files if not image.is_file()]:
        raise UserError(
            f"{file} names {len(missing)} images that are not there: {listed(missing)}; say where "
            "they are with image_dir"
        )
    ids = tuple(image.file_name for image in found.images)
    labels = {id: names.index(name) for id, name in categories.items() if name in names}
    read = Encoded(Files(files), ids)
    read_mask = _Painted(
        tuple((image.height, image.width) for image in found.images),
        _regions(found, set(categories), labels, file),
    )
    scenes = RealScenes(f"{root.name} ({split})", names, ids, read, read_mask)
    return check_scenes(scenes, [f"{file}, image {image.id}," for image in found.images], strict)


class _Category(BaseModel):
    id: int
    name: str


class _Image(BaseModel):
    id: int | str
    file_name: str
    height: PositiveInt
    width: PositiveInt


class _Runs(BaseModel):
    """Lengths of runs without and with the object, in turn, column after column."""

    size: tuple[int, int]
    counts: list[int] | str


class _Annotation(BaseModel):
    id: int | str = "without id"
    image_id: int | str
    category_id: int
    segmentation: list[list[FiniteFloat]] | _Runs
    iscrowd: bool = False


class _Instances(BaseModel):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


@dataclass(frozen=True)
class _Region:
    """What an annotation covers, compressed."""

    label: int
    area: int
    counts: bytes


@dataclass(frozen=True)
class _Painted:
    """Paints the regions of each image upon one another, in their order."""

    sizes: tuple[tuple[int, int], ...]
    regions: tuple[tuple[_Region, ...], ...]

    def __call__(self, index: int) -> Mask:
        size = self.sizes[index]
        mask = np.zeros(size, dtype=np.uint8)
        for region in self.regions[index]:
            covered = rle.decode({"size": list(size), "counts": region.counts})
            mask[covered.astype(bool)] = region.label
        return torch.from_numpy(mask)


def _read(file: Path) -> _Instances:
    if not file.is_file():
        raise UserError(
            f"there is no file {file}; say where it is with the option annotations, in which "
            f"{SPLIT} stands for the split"
        )
    try:
        found = _Instances.model_validate_json(file.read_bytes())
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{file} is no file of COCO instances: {where}: {first['msg']}"
        ) from problem
    for image in found.images:
        if image.height * image.width > MAX_PIXELS:
            raise UserError(
                f"{file}: {image.file_name} is {image.width} x {image.height}; at most "
                f"{MAX_PIXELS:,} pixels are read, make it smaller"
            )
    return found


def _regions(
    found: _Instances, categories: set[int], labels: dict[int, int], file: Path
) -> tuple[tuple[_Region, ...], ...]:
    """What to paint on each image: crowds, then objects, the largest first."""
    sizes = {image.id: (image.height, image.width) for image in found.images}
    regions: dict[Any, list[_Region]] = defaultdict(list)
    for annotation in found.annotations:
        where = f"{file}: annotation {annotation.id}"
        if annotation.image_id not in sizes:
            raise UserError(f"{where} is of image {annotation.image_id}, which is not listed there")
        if annotation.category_id not in categories:
            raise UserError(f"{where} has category {annotation.category_id}, which has no name")
        if annotation.category_id in labels:
            size = sizes[annotation.image_id]
            covered = _covered(annotation.segmentation, *size, where)
            label = IGNORE if annotation.iscrowd else labels[annotation.category_id]
            area = int(rle.area(covered))
            regions[annotation.image_id].append(_Region(label, area, covered["counts"]))

    def order(region: _Region) -> tuple[bool, int]:
        return region.label != IGNORE, -region.area

    return tuple(tuple(sorted(regions[image.id], key=order)) for image in found.images)


def _covered(
    outline: list[list[float]] | _Runs, height: int, width: int, where: str
) -> dict[str, Any]:
    """The pixels that an annotation covers, as pycocotools compresses them.

    pycocotools trusts what it is given, so polygons that would take all memory, and runs that do
    not fill the image, are found here.
    """
    if isinstance(outline, _Runs):
        runs = _uncompressed(outline.counts, where)
        if (
            outline.size != (height, width)
            or min(runs, default=0) < 0
            or sum(runs) != height * width
        ):
            raise UserError(f"{where} has runs that do not fill its image of {width} x {height}")
        return rle.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    if not outline:
        raise UserError(f"{where} has no outline, so there is no mask; give it a segmentation")
    reach = 2 * max(height, width)
    for polygon in outline:
        if len(polygon) % 2:
            raise UserError(f"{where} has a polygon of {len(polygon)} numbers; a point is two")
        if min(polygon, default=0) < -reach or max(polygon, default=0) > reach:
            raise UserError(f"{where} lies far outside of its image of {width} x {height}")
    # fewer than three points have no area, and pycocotools takes two for a box
    areas = [polygon for polygon in outline if len(polygon) >= 6]
    return rle.merge(rle.frPyObjects(areas, height, width)) if areas else _nothing(height, width)


def _nothing(height: int, width: int) -> dict[str, Any]:
    return rle.frPyObjects({"size": [height, width], "counts": [height * width]}, height, width)


def _uncompressed(counts: list[int] | str, where: str) -> list[int]:
    """Lengths of runs from COCO's text.

    A character holds five bits of a number, the lowest first, and whether more follow; the topmost
    bit is the sign. From the fourth run on, a number is the difference to the run before the last.
    """
    if isinstance(counts, list):
        return counts
    runs: list[int] = []
    number = bits = 0
    for character in counts:
        held = ord(character) - ord("0")
        if not 0 <= held < 64 or bits > 60:
            raise UserError(f"{where} has runs that cannot be read")
        number |= (held & 31) << bits
        bits += 5
        if held < 32:
            number -= (held & 16) and 1 << bits
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = bits = 0
    return runs
