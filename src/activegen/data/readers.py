"""The layouts of real data we read, by name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from activegen.data.csv_file import read_csv
from activegen.data.hugging_face import read_hugging_face
from activegen.data.image_folder import read_image_folder
from activegen.data.images import RealImages
from activegen.data.world import read_world
from activegen.records import choose

READERS: Mapping[str, Callable[..., RealImages]] = {
    "image_folder": read_image_folder,
    "hugging_face": read_hugging_face,
    "csv": read_csv,
    "world": read_world,
}


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
    reader = choose(READERS, layout, "data layout")
    parameters = inspect.signature(reader).parameters.values()
    known = {of.name: of for of in parameters if of.kind is inspect.Parameter.KEYWORD_ONLY}
    for option in options:
        choose(known, option, f"option of {layout}")
    return reader(path, split, **options)
