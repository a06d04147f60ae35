"""Devices and precisions of this machine."""

from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import torch

from wildcat.errors import WildcatError, first_line

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]


PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16")


AUTO = "auto"  # the device that there is


def device_of(name: str | torch.device) -> torch.device:
    """The device of a name; "auto" is the first GPU that CUDA has, or else the CPU.

    Raises:
        WildcatError: if PyTorch knows no such device here.
    """
    if str(name) == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # an assertion is how a PyTorch without CUDA says so
        raise WildcatError(
            f"device {str(name)!r} cannot be used: {first_line(error)}; auto takes what there is"
        ) from error


@cache
def cpu_has_matrix_units() -> bool:
    """Whether Linux names AMX for bf16 among what the CPU can do."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and "amx_bf16" in info.read_text().split()
