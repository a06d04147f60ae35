"""Devices and precisions of this machine."""

from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from wildcat.errors import WildcatError, first_line

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]

PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16")

AUTO = "auto"  # the first GPU if there is one, otherwise the CPU


def device_of(name: str | torch.device) -> torch.device:
    """The device of a name; "auto" is the first GPU of CUDA if there is one, otherwise the CPU.

    Args:
        name: "auto", "cpu", "cuda", "cuda:1", ... or a device.

    Raises:
        WildcatError: if PyTorch cannot use this device here.

    >>> device_of("cpu")
    device(type='cpu')
    """
    if str(name) == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA raises an AssertionError
        raise WildcatError(
            f"device {str(name)!r} cannot be used: {first_line(error)}; auto uses the GPU if there is one"
        ) from error


@cache
def cpu_has_matrix_units() -> bool:
    """Whether Linux lists matrix units for bf16 (AMX) among the features of the CPU."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and "amx_bf16" in info.read_text().split()
