"""Names of classes without any image, for what is made from text alone."""

from collections.abc import Sequence

from activegen.data.images import Pixels
from activegen.data.masks import Mask
from activegen.data.scenes import RealScenes


def read_classes(path: str, split: str, *, names: Sequence[str]) -> RealScenes:
    """No image of these classes.

    Args:
        path, split: not used; there is nothing to read.
        names: of the classes, in the order of their ids.

    Raises:
        UserError: as `RealScenes` does.
    """
    return RealScenes("a list of classes", tuple(names), (), _none, _no_mask)


def _none(index: int) -> Pixels:
    raise IndexError(index)


def _no_mask(index: int) -> Mask:
    raise IndexError(index)
