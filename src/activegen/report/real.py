"""The real images that samples refer to, read from the data that a recipe names."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from activegen.data.images import RealImages
from activegen.data.readers import READERS, read_images, read_scenes
from activegen.data.scenes import RealScenes
from activegen.records import UserError

Reference = Callable[[str], UInt8[Tensor, "3 h w"] | None]


class Recorded:
    """The training images of a run by their ids; nothing is read before the first is asked for.

    Args:
        recipe: as the run resolved it; one without data has no images.
    """

    def __init__(self, recipe: Mapping[str, Any]):
        self.recipe, self.problem = recipe, ""

    def __call__(self, id: str) -> UInt8[Tensor, "3 h w"] | None:
        """The image, 0 to 255; None where it cannot be read, see ``problem``."""
        if self._images is None:
            return None
        try:
            return self._images.image(self._images.index_of(id))
        except (UserError, OSError) as error:
            self.problem = str(error)
            return None

    @cached_property
    def _images(self) -> RealImages | RealScenes | None:
        # the recipe's own reading would import all of the loop
        data = self.recipe.get("data")
        if not isinstance(data, Mapping):
            return None
        train = data.get("train") or {}
        shared = {} if train.get("layout") else data.get("options") or {}  # as `DataSpec.of` has it
        options = {**shared, **(train.get("options") or {})}
        layout = str(train.get("layout") or data.get("layout"))
        path = str(train.get("path") or data.get("path", ""))
        read = read_images if layout in READERS else read_scenes
        path = str(Path(path).expanduser()) if path.startswith("~") else path
        try:
            return read(layout, path, train.get("split", "train"), **options)
        except (UserError, OSError) as error:
            self.problem = str(error)
            return None
