"""The keys that settings have, read off their types."""

import types
from dataclasses import fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from activegen.recipes.steering import OneOf
from activegen.records import UnknownWord


def keys(kind: Any, above: str = "") -> list[str]:
    """Every key of a type, with dots: "training.steps"; lists and names are ``*``."""
    found: list[str] = []
    for name, inner in _fields(kind).items():
        path = f"{above}{name}"
        found.append(path)
        for stars, part in _parts(inner):
            found += keys(part, f"{path}.{stars}")
    return found


def refuse_unknown(value: Any, kind: Any, where: str, path: str = "") -> None:
    """Every key that no part of a recipe has is an error, wherever it is.

    Args:
        value: plain values, of which those of a wrong type are left to others.
        kind: the type that they are read as.
        where: they come from.
        path: of the value in the whole.

    Raises:
        UnknownWord: there is one.
    """
    known = _fields(kind)
    if known and isinstance(value, str) and issubclass(kind, OneOf):
        value = {value: None}
    if not known or not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key not in known:
            at = f" in '{path}'" if path else ""
            raise UnknownWord(f"key{at} of {where}:", str(key), known)
        below = f"{path}.{key}" if path else key
        for stars, part in _parts(known[key]):
            for place, item in _items(inner, stars, below):
                refuse_unknown(item, part, where, place)


def _items(value: Any, stars: str, path: str) -> list[tuple[str, Any]]:
    """What is inside so many levels of lists and names."""
    found = [(path, value)]
    for _ in range(stars.count("*")):
        below: list[tuple[str, Any]] = []
        for place, item in found:
            if isinstance(item, dict):
                below += [(f"{place}.{key}", of) for key, of in item.items()]
            elif isinstance(item, (list, tuple)):
                below += [(f"{place}.{index}", of) for index, of in enumerate(item)]
        found = below
    return found


def _fields(kind: Any) -> dict[str, Any]:
    """Names and types of the keys of a part of a recipe; none for a plain value."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return {field.name: hints[field.name] for field in fields(kind)}
    return {}


def _parts(kind: Any, stars: str = "") -> list[tuple[str, Any]]:
    """The parts of a recipe in a type, and a ``*.`` for each list or name on the way."""
    if _fields(kind):
        return [(stars, kind)]
    if get_origin(kind) in (Union, types.UnionType):
        return [found for of in get_args(kind) for found in _parts(of, stars)]
    inner = [of for of in get_args(kind) if of is not Ellipsis]
    return _parts(inner[-1], f"{stars}*.") if get_origin(kind) in (tuple, list, dict) else []
