"""Which number format is fast on a device, where "auto" is asked for."""

import torch

_NATIVE = ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16")  # else bfloat16 is emulated, and slow


def fast_dtype(device: str | torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it, else float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        known = torch.cpu.get_capabilities() if kind == "cpu" else {}
        native = any(known.get(name) for name in _NATIVE)
    return torch.bfloat16 if native else torch.float32


def mixed_precision(device: str | torch.device, dtype: torch.dtype | None = None) -> torch.autocast:
    """Autocast to a format, by default the fast one; float32 is no autocast."""
    dtype = dtype or fast_dtype(device)
    return torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32)
