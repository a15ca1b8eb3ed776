"""Recipes: what a run is, in one YAML file, and the run itself.

To add an experiment, write a ``.yaml`` here (or anywhere); it is found by its name.
"""

from activegen.recipes.run import Run
from activegen.recipes.schema import Recipe, load, packaged, parse

__all__ = ["Recipe", "Run", "load", "packaged", "parse"]
