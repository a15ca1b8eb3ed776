"""Trained networks, read from files."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from activegen.records import UserError
from activegen.tasks.task_network import TaskNetwork


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


def _prefix(names: set[str]) -> str:
    """Where the averaged weights are: in an arm's model everywhere, else in a part of a state."""
    for prefix in ("average.module.", "model."):
        if any(name.startswith(prefix) for name in names):
            return prefix
    return ""
