"""What is not the same in two sets of nested settings, in words."""

from collections.abc import Iterator, Mapping
from typing import Any


def differences(before: Any, now: Any) -> list[str]:
    """Such as "training.steps was 800, is 400"; of what only one of them has the other is None."""
    then, today = dict(_leaves(before)), dict(_leaves(now))
    return [
        f"{key} was {then.get(key)}, is {today.get(key)}"
        for key in dict.fromkeys([*then, *today])
        if then.get(key) != today.get(key)
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        inside = list(value.items())
    elif isinstance(value, (list, tuple)):
        inside = list(enumerate(value))
    else:
        yield path, value
        return
    for key, of in inside:
        yield from _leaves(of, f"{path}.{key}" if path else str(key))
