"""Nested settings: setting what is at a path, and telling what is not the same in two of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from activegen.records import UserError


def put(raw: dict[str, Any], path: str, value: Any, where: str) -> None:
    """Sets what is at a path of names and places with dots between.

    Raises:
        UserError: what is above it has no such place; ``where`` says who asks.
    """
    at, names = raw, path.split(".")
    for depth, name in enumerate(names[:-1]):
        at = _inside(at, name, ".".join(names[: depth + 1]), where)
    at[_place(at, names[-1], path, where)] = value


def differences(before: Any, now: Any) -> list[str]:
    """Such as "training.steps was 800, is 400"; of what only one of them has the other is None."""
    then, today = dict(_leaves(before)), dict(_leaves(now))
    return [
        f"{key} was {then.get(key)}, is {today.get(key)}"
        for key in dict.fromkeys([*then, *today])
        if then.get(key) != today.get(key)
    ]


def _inside(at: Any, name: str, path: str, where: str) -> Any:
    place = _place(at, name, path, where)
    if isinstance(at, dict) and at.get(place) is None:
        at[place] = {}
    return at[place]


def _place(at: Any, name: str, path: str, where: str) -> Any:
    if isinstance(at, dict):
        return name
    if isinstance(at, list) and name.isdigit() and int(name) < len(at):
        return int(name)
    what = f"has {len(at)} items, counted from 0" if isinstance(at, list) else f"is {at!r}"
    raise UserError(f"{where}: there is no {path}; what is above it {what}")


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
