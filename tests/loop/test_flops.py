import time
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tiny
from activegen.loop.flops import PATIENCE, counted, peak


def test_a_multiplication_and_an_addition_are_two():
    matrix = torch.ones(3, 5)
    assert counted(lambda: matrix @ torch.ones(5, 7)).forward == 2 * 3 * 5 * 7


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_what_is_counted_is_what_torch_counts_whatever_the_mode(mode: Any):
    model = tiny.model()
    batch = tiny.batch(model, ["river"])
    level = batch.solver().levels[0]

    def call() -> torch.Tensor:
        return model.denoise(batch.noise, batch.conditioning, level, 2.0).clean

    with torch.no_grad(), FlopCounterMode(display=False) as theirs:
        call()
    with mode():
        assert counted(call).forward == theirs.get_total_flops() > 0


def test_the_backward_of_frozen_weights_is_one_product_and_of_others_too():
    """The gradient of the input alone: a layer's weights learn nothing, frozen or not."""
    layer = nn.Linear(5, 7, bias=False)
    seen = torch.ones(1, 5, requires_grad=True)
    found = counted(lambda: layer(seen), [seen])
    assert found.backward == found.forward == 2 * 5 * 7
    assert layer.weight.grad is None and seen.grad is None
    with torch.no_grad():
        assert counted(lambda: layer(seen), [seen]).backward == 0


def test_what_was_compiled_is_called_as_it_was_written():
    calls: list[str] = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append("compiled")
        return graph

    compiled: Any = torch.compile(lambda x: x @ x, backend=backend)
    assert counted(lambda: compiled(torch.ones(4, 4))).forward == 2 * 4**3
    assert calls == []


def test_the_peak_is_found_in_a_moment_and_once():
    peak.cache_clear()
    begun = time.thread_time()
    found = peak(torch.device("cpu"), torch.float32)
    spent = time.thread_time() - begun
    matrix = torch.ones(64, 64)
    alone = min(_seconds(matrix) for _ in range(3))
    assert found > 2 * 64**3 / alone / 10 and found > 1e8
    assert spent < PATIENCE + 0.5
    assert peak(torch.device("cpu"), torch.float32) == found


def _seconds(matrix: torch.Tensor) -> float:
    begun = time.perf_counter()
    _ = matrix @ matrix
    return time.perf_counter() - begun
