"""Recipes: what a run is, in one YAML file, and the run itself.

To add an experiment, write a ``.yaml`` here (or anywhere); it is found by its name.
"""

from activegen.recipes.loading import load, packaged
from activegen.recipes.run import Run
from activegen.recipes.schema import Recipe, parse

__all__ = ["Recipe", "Run", "load", "packaged", "parse"]
