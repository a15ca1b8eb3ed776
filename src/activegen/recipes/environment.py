"""What a run was carried out with."""

import importlib.metadata
import os
import platform
import sys
from typing import Any

import torch

ENVIRONMENT = "environment.json"
LIBRARIES = ("activegen", "torch", "torchvision", "diffusers", "transformers", "accelerate")


def environment() -> dict[str, Any]:
    """Versions, machine and command."""
    return {
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": sys.argv,
    }
