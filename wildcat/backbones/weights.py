"""Weights of backbones from files, and the error for a hub that cannot be reached."""

from pathlib import Path

import torch
from torch import Tensor, nn

from wildcat.errors import WildcatError, first_line


def load_weights(net: nn.Module, file: Path) -> None:
    """Load a state dict file into a backbone; the entries of a classifier are ignored, all others must fit.

    Raises:
        WildcatError: if the file is missing, not a state dict, or holds other tensors than the backbone.
    """
    if not file.is_file():
        raise WildcatError(f"weights file {file} does not exist")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WildcatError(f"weights file {file} cannot be read as a state dict (.pth, .safetensors)") from error
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise WildcatError(f"weights file {file} does not hold a state dict: a mapping of names to tensors alone")
    own = net.state_dict()
    heads = ("fc.", "classifier.", "head.", "head_dist.")
    extra = [key for key in state if key not in own and not key.startswith(heads)]
    # Files of PyTorch 0.4 and earlier, such as the first ResNets, do not count the batches that a BatchNorm has seen.
    needed = [key for key in own if not key.startswith(heads) and not key.endswith("num_batches_tracked")]
    missing = [key for key in needed if key not in state]
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    if extra or missing or wrong:
        parts = [("missing", missing), ("unknown", extra), ("of another shape", wrong)]
        message = "; ".join(f"{len(keys)} {what}, first {keys[0]}" for what, keys in parts if keys)
        raise WildcatError(f"weights file {file} does not fit the backbone: {message}")
    net.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)


def no_hub(name: str, error: Exception) -> WildcatError:
    """The error for weights that could not be downloaded, with alternatives."""
    reason = first_line(error)
    return WildcatError(
        f"the ImageNet weights of {name} could not be downloaded ({reason}); "
        "give a local file with --weights, or use --backbone lite0, whose weights are installed"
    )
