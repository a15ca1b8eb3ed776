"""A folder of images and a folder of masks of the same names, split or not.

    <path>/images/<split>/**/a.jpg        <path>/masks/<split>/**/a.png
    <path>/<split>/images/**/a.jpg        <path>/<split>/masks/**/a.png
    <path>/images/**/a.jpg                <path>/masks/**/a.png               <path>/<split>.txt

With neither split folders nor split files, `splits.by_hash` divides: 70 % train, 10 % val, 20 %
test.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from activegen.data.image_folder import (
    SPLITS,
    Files,
    by_split,
    folders_in,
    id_below,
    image_files,
)
from activegen.data.images import listed
from activegen.data.masks import EncodedMasks, coding_of
from activegen.data.scenes import RealScenes, encoded_scenes
from activegen.data.splits import by_hash
from activegen.records import IGNORE, UserError, choose

Pair = tuple[Path, Path]  # an image and its mask, or the folders of both


def read_mask_folder(
    path: str,
    split: str,
    *,
    image_dir: str = "images",
    mask_dir: str = "masks",
    mask_ending: str = "",
    classes: Sequence[str] | None = None,
    ids: Mapping[int | str, str] | None = None,
    colours: Mapping[str, Sequence[int]] | None = None,
    ignore: Sequence[int | Sequence[int]] = (),
    strict: bool = False,
) -> RealScenes:
    """The images of one split with their masks; ids are paths below ``path``.

    A split file lists images as paths below ``image_dir``, one a line, with or without suffix. What
    the masks hold is said by ``classes``, ``ids`` or ``colours``.

    Args:
        path: of the folder that holds both.
        split: "train", "val", "test", or as the split's folder or file is called.
        image_dir: folder of the images, below the path or below each split's folder.
        mask_dir: folder of the masks, likewise; it may be the same.
        mask_ending: what a mask has behind its image's name, "_mask" for a.jpg and a_mask.png.
        classes: names in the order of the numbers in the masks, which go from 0.
        ids: the class of each number in the masks, as {0: background, 255: nucleus}.
        colours: the [red, green, blue] of each class.
        ignore: numbers, or colours, that are ignored; 255 is, unless ``ids`` names it.
        strict: what cannot be used is an error, not skipped.

    Raises:
        UserError: there is no such folder or split; two folders are of one split; an image
            without a mask, or a mask without an image; all pixels are of one class or 255; as
            `masks.coding_of`, `masks.decode_mask` and `scenes.check_scenes` do.
    """
    names, coding = coding_of(classes, ids, colours, ignore)
    root = Path(path)
    images, masks = zip(*_found(root, split, image_dir, mask_dir, mask_ending), strict=True)
    scenes = encoded_scenes(
        f"{root.name} ({split})",
        names,
        [id_below(image, root) for image in images],
        Files(images),
        EncodedMasks(Files(masks), tuple(str(mask) for mask in masks), coding),
        strict,
    )
    if not ids and not colours and IGNORE not in ignore:
        _require_two_classes(scenes)
    return scenes


def _found(root: Path, split: str, image_dir: str, mask_dir: str, mask_ending: str) -> list[Pair]:
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give the folder that holds {image_dir}")
    folders = _split_folders(root, split, image_dir, mask_dir)
    top = (root / image_dir, root / mask_dir)
    files = {file.stem: file for file in root.glob("*.txt")}
    if folders:
        top = choose(folders, SPLITS.get(split.lower(), split), f"split of {root}")
        pairs = _pairs(top, mask_ending)
    elif split in files or any(name in files for name in SPLITS):
        pairs = _pairs(top, mask_ending, choose(files, split, f"split file of {root}"))
    else:
        part = choose(SPLITS, split, "split")
        pairs = _pairs(top, mask_ending)
        order = by_hash(list(pairs), [0] * len(pairs))
        pairs = {name: pairs[name] for name, of in zip(pairs, order, strict=True) if of == part}
    if not pairs:
        raise UserError(f"{top[0]} has no images of split '{split}'; put some there")
    return list(pairs.values())


def _split_folders(root: Path, split: str, image_dir: str, mask_dir: str) -> dict[str, Pair]:
    """The folders of images and masks of each split that has its own."""

    def named(folders: list[Path]) -> dict[str, Path]:
        return by_split(of for of in folders if of.name.lower() in SPLITS or of.name == split)

    inner = folders_in(root / image_dir) if (root / image_dir).is_dir() else []
    outer = [of for of in folders_in(root) if (of / image_dir).is_dir()]
    found = {of: (top / image_dir, top / mask_dir) for of, top in named(outer).items()}
    for of, top in named(inner).items():
        pair = (top, root / mask_dir / top.name)
        if found.setdefault(of, pair) != pair:
            raise UserError(
                f"{found[of][0]} and {top} are both of split '{of}'; join or rename them"
            )
    return found


def _pairs(top: Pair, mask_ending: str, lines: Path | None = None) -> dict[str, Pair]:
    """Images and masks by the name they share; all of them, or those of a split file."""
    for folder, option in zip(top, ("image_dir", "mask_dir"), strict=True):
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; name it with the option {option}")
    masks = _by_name(top[1], mask_ending)
    images = _by_name(top[0])
    if top[0] == top[1]:
        images = {name: file for name, file in images.items() if file not in masks.values()}
    if lines is None:
        without_image = [str(file) for name, file in masks.items() if name not in images]
        names = list(images)
    else:
        names = _listed_in(lines, images)
        without_image = []
    without_mask = [str(images[name]) for name in names if name not in masks]
    for files, lacking, where in (
        (without_mask, "mask", top[1]),
        (without_image, "image", top[0]),
    ):
        if files:
            raise UserError(
                f"{len(files)} files have no {lacking} in {where}: {listed(files)}. An image and "
                f"its mask have one name (mask_ending is '{mask_ending}'); add what is missing or "
                "remove these"
            )
    return {name: (images[name], masks[name]) for name in names}


def _by_name(folder: Path, ending: str = "") -> dict[str, Path]:
    """Files by their path in the folder, without suffix and ending."""
    found: dict[str, Path] = {}
    for file in image_files(folder):
        if file.stem.endswith(ending):
            name = id_below(file.with_suffix(""), folder).removesuffix(ending)
            if name in found:
                raise UserError(f"{found[name]} and {file} have one name; keep one of them")
            found[name] = file
    return found


def _listed_in(file: Path, images: Mapping[str, Path]) -> list[str]:
    """The names in a split file."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as problem:
        raise UserError(f"{file} is no text in UTF-8: {problem}") from problem
    said = [line.strip().replace("\\", "/") for line in lines if line.strip()]
    known = {**{name: name for name in images}}
    for name, image in images.items():
        known[name + image.suffix] = name
    if unknown := [line for line in said if line not in known]:
        raise UserError(
            f"{file} lists {len(unknown)} images that are not there: {listed(unknown)}; mend the "
            "list or add them"
        )
    return list(dict.fromkeys(known[line] for line in said))


def _require_two_classes(scenes: RealScenes) -> None:
    """Where 255 is a class and not void, everything else is one class."""
    shown = [scenes.classes[label] for label, at in scenes.by_class().items() if at]
    if len(scenes.classes) == 1 or len(shown) != 1:
        return
    if any(bool((scenes.mask(index) == IGNORE).any()) for index in range(len(scenes))):
        raise UserError(
            f"{scenes.name}: all pixels are '{shown[0]}' or {IGNORE}, which is ignored. If "
            f"{IGNORE} is a class, name it with ids: {{0: {scenes.classes[0]}, {IGNORE}: "
            f"{scenes.classes[1]}}}; else add ignore: [{IGNORE}]"
        )
