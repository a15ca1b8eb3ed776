"""The fast number format of a device."""

import pytest
import torch

from activegen.precision import fast_dtype, mixed_precision


@pytest.mark.parametrize(
    "known, wanted",
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({}, torch.float32),
    ],
)
def test_bfloat16_only_where_the_processor_computes_in_it(monkeypatch, known, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert fast_dtype("cpu") == wanted
    assert fast_dtype(torch.device("cpu")) == wanted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, None])
def test_mixed_precision_computes_in_the_format(dtype):
    with mixed_precision("cpu", dtype):
        made = torch.ones(2, 2) @ torch.ones(2, 2)
    assert made.dtype == (dtype or fast_dtype("cpu"))
