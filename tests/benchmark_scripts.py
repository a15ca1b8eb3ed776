"""The scripts of the benchmarks, for their tests."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def script(name: str) -> Any:
    """A fixture that is the script of this name, which finds the scripts beside it."""

    @pytest.fixture(scope="module")
    def imported() -> Iterator[ModuleType]:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(FOLDER)
            yield importlib.import_module(name)

    return imported
