"""Recipes from files, and from the package by their names."""

import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from activegen.recipes.nested import put
from activegen.recipes.schema import Recipe, parse
from activegen.records import UserError, choose

MAX_BYTES = 1_000_000  # of a recipe


def packaged() -> dict[str, str]:
    """The text of each recipe in the package, by name."""
    folder = importlib.resources.files("activegen.recipes")
    files = (of for of in folder.iterdir() if of.name.endswith(".yaml"))
    return {of.name.removesuffix(".yaml"): of.read_text(encoding="utf-8") for of in files}


def load(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a file, or one of the package by its name.

    Args:
        path_or_name: of it.
        overrides: ``a.b.c=value``; the value is read as YAML, a number is a place in a list.

    Raises:
        UnknownWord: no such recipe, or a key that we do not know.
        UserError: a file that is no recipe, or a value of the wrong type or out of its range.
    """
    text, where = _text(str(path_or_name))
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is no YAML: {error}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{where} holds no keys; a recipe has at least 'data'")
    for override in overrides:
        _override(raw, override)
    return parse(raw, where)


def _text(path_or_name: str) -> tuple[str, str]:
    file = Path(path_or_name).expanduser()
    if file.is_file():
        if file.stat().st_size > MAX_BYTES:
            raise UserError(f"{file} is too large for a recipe ({file.stat().st_size} bytes)")
        try:
            return file.read_text(encoding="utf-8"), str(file)
        except (UnicodeDecodeError, OSError) as error:
            raise UserError(f"{file} cannot be read as text: {error}") from error
    if file.suffix in (".yaml", ".yml") or len(file.parts) > 1:
        raise UserError(f"there is no recipe {file}; 'activegen init <your data>' writes one")
    return choose(packaged(), path_or_name, "recipe"), f"recipe '{path_or_name}'"


def _override(raw: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not all(path.strip().split(".")):
        raise UserError(f"--set {override}: write it as key=value, such as training.steps=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: '{text}' is no YAML value: {error}") from error
    put(raw, path.strip(), value, f"--set {override}")
