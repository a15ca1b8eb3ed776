"""Trained networks in files: read, and known by their content."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from activegen.records import UserError
from activegen.tasks.task_network import TaskNetwork

# beginnings of words that end in the path of weights
WITH_WEIGHTS = ("tiny:", "timm:local-dir:", "transformers:segformer/", "transformers:upernet/")


def filled(network: TaskNetwork, file: Path, device: torch.device) -> TaskNetwork:
    """The network with the weights of a file: a finished arm's, or a state of training.

    Raises:
        UserError: it is no such file, or of another network.
    """
    network = network.to(device).eval()
    try:
        with safe_open(str(file), framework="pt") as weights:
            names = set(weights.keys())
            prefix = _prefix(names)
            wanted = {name: f"{prefix}{name}" for name in network.state_dict()}
            if missing := sorted(set(wanted.values()) - names):
                raise KeyError(missing[0])
            own = {name: weights.get_tensor(there) for name, there in wanted.items()}
        network.load_state_dict(own)
    except (OSError, SafetensorError) as error:
        raise UserError(f"'{file}' holds no safetensors weights: {error}") from error
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"'{file}' has the weights of another network than the recipe says, or of other "
            f"classes: {error}"
        ) from error
    return network


def by_content(value: Any) -> Any:
    """The same with the content of weights where a word ends in their path."""
    if isinstance(value, dict):
        return {key: by_content(of) for key, of in value.items()}
    for start in WITH_WEIGHTS if isinstance(value, str) else ():
        path = Path(value.removeprefix(start)).expanduser()
        if value.startswith(start) and path.exists():
            return start + content_of(path)
    return value


def content_of(path: Path) -> str:
    """Sixteen hex digits that name a file, or all files of a folder."""
    if not path.exists():
        raise UserError(f"'{path}' is not there; give the path of the weights")
    files = [of for of in path.rglob("*") if of.is_file()] if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\n" + file.read_bytes())
    return digest.hexdigest()[:16]


def _prefix(names: set[str]) -> str:
    """Where the averaged weights are: in an arm's model everywhere, else in a part of a state."""
    for prefix in ("average.module.", "model."):
        if any(name.startswith(prefix) for name in names):
            return prefix
    return ""
