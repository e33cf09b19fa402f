"""Where PyTorch computes: the one place that chooses a device, and what makes a GPU repeat its results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from btc_assets.domain.errors import UserError


def choose_device(name: str | None) -> torch.device:
    """The device of this name, such as `cpu` or `cuda`; without a name, the GPU if there is one.

    Raises:
        UserError: PyTorch has no such device here.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"PyTorch has no device {name!r} here ({str(error).splitlines()[0]}): leave it out to let PyTorch choose."
        ) from error
    return device


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """On a GPU, compute float32 as float32 (no TF32) and with the same kernels each time; on a CPU, as always.

    The sums of `MiniRocket` are exact in float32 only, and vectors of a GPU must lie close to those of a CPU.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
