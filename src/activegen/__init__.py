"""Makes the training images a vision model is missing.

    from activegen import Run, load

    result = Run(load("demo"), Path("runs/demo")).carry_out()

Names are imported when they are first used, so that ``import activegen`` is quick.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from activegen.loop.rounds import active_generation
    from activegen.recipes import Recipe, Run, load
    from activegen.records import Prediction, Request, Sample, TaskModel, UserError, Verdict
    from activegen.scores import SCORES
    from activegen.store import Store

__version__ = importlib.metadata.version("activegen")

__all__ = [
    "SCORES",
    "Prediction",
    "Recipe",
    "Request",
    "Run",
    "Sample",
    "Store",
    "TaskModel",
    "UserError",
    "Verdict",
    "__version__",
    "active_generation",
    "load",
]

_HOMES = {
    "SCORES": "activegen.scores",
    "Recipe": "activegen.recipes",
    "Run": "activegen.recipes",
    "Store": "activegen.store",
    "active_generation": "activegen.loop.rounds",
    "load": "activegen.recipes",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'activegen' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES.get(name, "activegen.records")), name)
