"""COCO's annotations as masks; those that pycocotools would stumble over are named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest

from activegen.data.coco import read_coco
from activegen.data.scenes import RealScenes
from activegen.records import IGNORE, UnknownWord, UserError
from masked import picture, write

SIZE = (8, 10)
CATEGORIES = [{"id": 44, "name": "dog"}, {"id": 7, "name": "cat"}, {"id": 9, "name": "cow"}]


def box(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(mask: np.ndarray) -> dict[str, Any]:
    """Run lengths, column after column, from a run of zeros on."""
    flat = mask.flatten(order="F").astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": counts if not flat[0] else [0, *counts]}


def compressed(mask: np.ndarray) -> dict[str, Any]:
    held = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": held["size"], "counts": held["counts"].decode()}


def of(category: int, segmentation: Any, image: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": 5,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        **more,
    }


def read(root: Path, annotations: list[dict[str, Any]], **options: Any) -> RealScenes:
    images = [
        {"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]}
        for number in (1, 2)
    ]
    for image in images:
        write(root / "val" / image["file_name"], picture(image["id"], SIZE))
    found = {"images": images, "categories": CATEGORIES, "annotations": annotations, "info": {}}
    write(root / "annotations" / "instances_val.json", json.dumps(found).encode())
    return read_coco(str(root), "val", **options)


def patch(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_categories_are_classes_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    scenes = read(tmp_path, [of(44, box(2, 1, 6, 5)), of(9, box(0, 0, 10, 2), image=2)])
    assert scenes.classes == ("background", "cat", "cow", "dog")
    assert scenes.ids == ("1.png", "2.png")
    assert np.array_equal(scenes.mask(0), patch(1, 5, 2, 6) * 3)
    assert np.array_equal(scenes.mask(1), patch(0, 2, 0, 10) * 2)
    assert scenes.image(0).shape == (3, *SIZE)


def test_an_image_without_an_annotation_is_background(tmp_path: Path) -> None:
    assert read(tmp_path, []).pixels(0) == (80, 0, 0, 0)


@pytest.mark.parametrize("order", [1, -1])
def test_small_objects_are_on_top_of_large_ones(tmp_path: Path, order: int) -> None:
    objects = [of(7, box(4, 2, 6, 4)), of(9, box(2, 1, 8, 6)), of(44, box(0, 0, 10, 8))]
    mask = read(tmp_path, objects[::order]).mask(0)
    expected = np.full(SIZE, 3)
    expected[patch(1, 6, 2, 8)] = 2
    expected[patch(2, 4, 4, 6)] = 1
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize("held", [runs, compressed])
def test_runs(tmp_path: Path, held: Any) -> None:
    masks = [
        np.random.default_rng(seed).random(SIZE) < share
        for seed, share in enumerate((0.5, 0.1, 0.9))
    ]
    for mask in [*masks, patch(0, 8, 0, 10), patch(0, 8, 0, 9)]:
        scenes = read(tmp_path, [of(7, held(mask))])
        assert np.array_equal(scenes.mask(0), mask)


def test_long_compressed_runs(tmp_path: Path) -> None:
    size = (600, 500)
    mask = np.zeros(size, dtype=bool)
    mask[100:500, 200:210] = mask[:, 300:450] = mask[3, 480] = True
    write(tmp_path / "val" / "a.png", picture(0, size))
    found = {
        "images": [{"id": 1, "file_name": "a.png", "height": size[0], "width": size[1]}],
        "categories": CATEGORIES,
        "annotations": [of(7, compressed(mask))],
    }
    write(tmp_path / "annotations" / "instances_val.json", json.dumps(found).encode())
    assert np.array_equal(read_coco(str(tmp_path), "val").mask(0), mask)


def test_several_polygons_and_one_without_area(tmp_path: Path) -> None:
    outline = [*box(0, 0, 2, 2), *box(5, 5, 8, 8), [1, 1, 9, 7], []]
    scenes = read(tmp_path, [of(7, outline), of(9, [[1, 1, 9, 7]], image=2)])
    assert np.array_equal(scenes.mask(0), patch(0, 2, 0, 2) | patch(5, 8, 5, 8))
    assert scenes.pixels(1) == (80, 0, 0, 0)


def test_crowds_are_ignored_below_the_objects(tmp_path: Path) -> None:
    crowd = of(7, runs(patch(2, 4, 2, 4)), iscrowd=1)
    mask = read(tmp_path, [of(9, box(3, 0, 10, 8)), crowd]).mask(0)
    expected = patch(0, 8, 3, 10) * 2
    expected[2:4, 2] = IGNORE
    assert np.array_equal(mask, expected)


def test_chosen_classes_and_their_order(tmp_path: Path) -> None:
    objects = [of(44, box(0, 0, 4, 8)), of(7, box(4, 0, 6, 8)), of(9, box(6, 0, 10, 8), iscrowd=1)]
    scenes = read(tmp_path, objects, classes=["dog", "cat"])
    assert scenes.classes == ("background", "dog", "cat")
    assert scenes.pixels(0) == (32, 32, 16)  # a crowd of another class is background
    with pytest.raises(UnknownWord, match=r"category of instances_val\.json 'dogs'.*mean 'dog'"):
        read(tmp_path, [], classes=["dogs"])


def test_a_category_that_is_called_background(tmp_path: Path) -> None:
    read(tmp_path, [of(7, box(0, 0, 4, 8)), of(44, box(4, 0, 6, 8))])
    file = tmp_path / "annotations" / "instances_val.json"
    file.write_text(file.read_text().replace('"cat"', '"background"'))
    scenes = read_coco(str(tmp_path), "val")
    assert scenes.classes == ("background", "cow", "dog")
    assert scenes.pixels(0) == (64, 0, 16)
    assert read_coco(str(tmp_path), "val", classes=["background", "dog"]).pixels(0) == (64, 16)


def test_other_places(tmp_path: Path) -> None:
    read(tmp_path, [of(7, box(0, 0, 4, 8))])
    (tmp_path / "val").rename(tmp_path / "pictures")
    (tmp_path / "annotations" / "instances_val.json").rename(tmp_path / "all_val.json")
    options = {"annotations": "all_{split}.json", "image_dir": "pictures"}
    assert len(read_coco(str(tmp_path), "val", **options)) == 2
    with pytest.raises(UserError, match=r"names 2 images .*val/1\.png, .*; .* image_dir"):
        read_coco(str(tmp_path), "val", annotations="all_{split}.json")
    with pytest.raises(UserError, match=r"no file .*instances_test\.json; .* option annotations"):
        read_coco(str(tmp_path), "test")


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (of(7, []), "annotation 5 has no outline"),
        (of(7, [[1, 1, 2, 2, 3, 3, 4]]), "annotation 5 has a polygon of 7 numbers; a point is two"),
        (of(7, [[0, 0, 1e9, 0, 1e9, 1e9]]), "annotation 5 lies far outside of its image of 10 x 8"),
        (of(7, [[0, 0, -1e9, 0, 1, 1]]), "lies far outside"),
        (
            of(7, [[0, 0, float("nan"), 0, 1, 1]]),
            r"instances_val\.json is no file of COCO .*finite",
        ),
        (of(7, {"size": [8, 10], "counts": [1, 1]}), "runs that do not fill its image of 10 x 8"),
        (of(7, {"size": [8, 10], "counts": [40, 41]}), "runs that do not fill"),
        (of(7, {"size": [8, 10], "counts": [-10, 90]}), "runs that do not fill"),
        (of(7, {"size": [10, 8], "counts": [40, 40]}), "runs that do not fill"),
        (of(7, {"size": [8, 10], "counts": ""}), "runs that do not fill"),
        (of(7, {"size": [8, 10], "counts": "11"}), "runs that do not fill"),
        (of(7, {"size": [8, 10], "counts": "o" * 99}), "runs that cannot be read"),
        (of(7, {"size": [8, 10], "counts": "é"}), "runs that cannot be read"),
        (of(8, box(0, 0, 2, 2)), "annotation 5 has category 8, which has no name"),
        (of(7, box(0, 0, 2, 2), image=3), "annotation 5 is of image 3, which is not listed"),
        ({"image_id": 1, "category_id": 7}, r"no file of COCO .*annotations\.0\.segmentation"),
    ],
)
def test_annotations_that_cannot_be_right(
    tmp_path: Path, annotation: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, [annotation])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"file_name": "../val/1.png"}, "'../val/1.png' leads out of"),
        ({"height": 9}, r"1\.png has 10 x 8 pixels, but .*_val\.json, image 1, has 10 x 9"),
        ({"height": 10**5, "width": 10**5}, "100000 x 100000; at most 64,000,000 pixels"),
        ({"width": 0}, r"images\.0\.width"),
    ],
)
def test_images_that_cannot_be_right(tmp_path: Path, image: dict[str, Any], message: str) -> None:
    read(tmp_path, [])
    file = tmp_path / "annotations" / "instances_val.json"
    found = json.loads(file.read_bytes())
    found["images"][0] |= image
    file.write_text(json.dumps(found))
    with pytest.raises(UserError, match=message):
        read_coco(str(tmp_path), "val")


def test_what_is_no_json(tmp_path: Path) -> None:
    write(tmp_path / "annotations" / "instances_val.json", b"[")
    with pytest.raises(UserError, match="is no file of COCO instances"):
        read_coco(str(tmp_path), "val")
