"""A folder with a folder of images for each class, split or not.

    <path>/<split>/<class>/**/*.png        or        <path>/<class>/**/*.png

Without split folders, `splits.by_hash` divides each class: 70 % train, 10 % val, 20 % test.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from activegen.data.images import RealImages, encoded
from activegen.data.splits import by_hash
from activegen.records import UserError, choose

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def read_image_folder(path: str, split: str, *, strict: bool = False) -> RealImages:
    """The images of one split; ids are paths below ``path``, classes are the same for all splits.

    Hidden files and files that are no images by their suffix are no images. A folder is a split's
    if it is named like one and has folders of its own, so "train" may also be a class.

    Args:
        path: of the folder.
        split: "train", "val" or "test".
        strict: an image that cannot be read is an error, not skipped.

    Raises:
        UserError: there is no such folder or split, two folders are of one split, a class is
            empty, or as `images.check` does.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give the folder that holds the classes")
    split_folders = by_split(
        folder
        for folder in folders_in(root)
        if folder.name.lower() in SPLITS and folders_in(folder)
    )
    split = choose(SPLITS, split, "split")
    tops = list(split_folders.values()) or [root]
    top = choose(split_folders, split, f"split of {root}") if split_folders else root
    classes = sorted({id_below(of, each) for each in tops for of in folders_in(each)})
    files = [(file, id_below(of, top)) for of in folders_in(top) for file in image_files(of)]
    if not classes:
        raise UserError(f"{root} has no folders; put the images of each class into one of its own")
    ids = [id_below(file, root) for file, _ in files]
    labels = [classes.index(name) for _, name in files]
    chosen = range(len(files))
    if not split_folders:
        chosen = [index for index, of in enumerate(by_hash(ids, labels)) if of == split]
    return encoded(
        f"{root.name} ({split})",
        classes,
        [ids[index] for index in chosen],
        [labels[index] for index in chosen],
        Files(tuple(files[index][0] for index in chosen)),
        strict,
    )


@dataclass(frozen=True)
class Files:
    """The file at each position."""

    paths: tuple[Path, ...]

    def __call__(self, index: int) -> Path:
        """Its path."""
        return self.paths[index]


def folders_in(path: Path) -> list[Path]:
    """The folders in a folder, without hidden ones, in the order of the alphabet."""
    return sorted(of for of in path.iterdir() if of.is_dir() and not of.name.startswith("."))


def by_split(folders: Iterable[Path]) -> dict[str, Path]:
    """Folders by the split that each is named after.

    Raises:
        UserError: two are of one split.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        split = SPLITS.get(folder.name.lower(), folder.name)
        if split in found:
            raise UserError(
                f"{found[split]} and {folder} are both of split '{split}'; join or rename them"
            )
        found[split] = folder
    return found


def image_files(top: Path) -> Iterator[Path]:
    """Image files below, in an order that is the same everywhere; links are followed once."""
    seen = {os.path.realpath(top)}
    for folder, folders, files in os.walk(top, followlinks=True):
        folders[:] = sorted(of for of in folders if not of.startswith("."))
        for name in list(folders):
            real = os.path.realpath(os.path.join(folder, name))
            if real in seen:
                folders.remove(name)
            seen.add(real)
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(folder, name)


def id_below(file: Path, root: Path) -> str:
    """The path below the root; bytes that are no UTF-8 are spelled out."""
    return os.fsencode(file.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def inside(folder: Path, name: str) -> Path:
    """A file in a folder, by a name that a file of data says.

    Raises:
        UserError: the name leads out of the folder.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"'{name}' leads out of {folder}; name files inside it")
    return folder / name
