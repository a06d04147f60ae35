"""A model sharded over the processes: each holds a part of the parameters, the gradients and the momentum.

PyTorch's ``fully_shard`` (FSDP2) does the work. It gathers one block of the backbone at a time from all processes when
the block is computed, forward or backward, and frees it afterwards, so a process needs memory for its shard and one or
two blocks. States are gathered for saving and sharded again when loaded: the files are those of an unsharded run.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from wildcat.errors import WildcatError, first_line
from wildcat.model import Wildcat
from wildcat.training.diagnostics import explain_failure

# A block is as large as possible, but at most this share of the backbone's parameters where its modules allow.
MAX_BLOCK_SHARE = 1 / 8
# A module below this share is not worth a message of its own: it stays together with what surrounds it.
MIN_BLOCK_SHARE = 1 / 100


@contextmanager
def without_view_warnings() -> Iterator[None]:
    """Ignore FSDP2's warning of blocks whose output is a view; :func:`shard_model` compares the gradients instead."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
        yield


def shard_model(model: Wildcat, example: Tensor) -> int:
    """Shard a model in place over all processes, and check that its gradient stays the same.

    Every process ends with shards of the main process's parameters.

    Args:
        model: whole, with its parameters loaded and frozen.
        example: an input (N, 3, H, W), the same in all processes, which shows the blocks and with which the
            gradients are compared.

    Returns:
        The number of blocks of the backbone.

    Raises:
        WildcatError: for a backbone that cannot be sharded, and for PyTorch before 2.6.
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise WildcatError(f"shard needs PyTorch 2.6 or later; this is {torch.__version__}") from error
    model.to(memory_format=torch.contiguous_format)  # fully_shard supports no other
    for tensor in (*model.parameters(), *model.buffers()):
        distributed.broadcast(tensor.detach(), src=0)
    expected = _gradients(model, example)
    mesh = init_device_mesh(example.device.type, (distributed.get_world_size(),))
    try:
        blocks = _blocks(model, example)
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        with without_view_warnings():
            actual = _gradients(model, example)
    except (RuntimeError, ValueError, AssertionError) as error:
        if explain_failure(error, example.device, 1) is not None:
            raise
        raise WildcatError(
            f"{model.backbone.name} cannot be sharded over processes; train without shard "
            f"({first_line(error).rstrip('.')})"
        ) from error
    wrong = torch.tensor(float(not _agree(actual, expected)), device=example.device)
    distributed.all_reduce(wrong)
    if wrong:
        raise WildcatError(
            f"{model.backbone.name} has another gradient when sharded over processes; train without shard"
        )
    return len(blocks)


def _blocks(model: Wildcat, example: Tensor) -> list[nn.Module]:
    """The modules of the backbone that are gathered one at a time."""
    net = model.backbone.net
    candidates = _called_once(model, example)
    # Modules that need each other's parameters must be in one block: a convolution that computes the BatchNorm behind
    # it (batchnorm_folding.py), and modules that share a parameter.
    folded: list[Any] = [module for module in net.modules() if hasattr(module, "folded_norm")]
    pairs: list[tuple[nn.Module, nn.Module]] = [(conv, *conv.folded_norm) for conv in folded]
    owners: dict[nn.Parameter, nn.Module] = {}
    for module in net.modules():
        pairs += [(owners.setdefault(own, module), module) for own in module.parameters(recurse=False)]
    total = _size([net])

    def blocks_of(module: nn.Module) -> list[nn.Module]:
        inside, size = set(module.modules()), _size([module])
        if size < MIN_BLOCK_SHARE * total:
            return []
        closed = module in candidates and all((one in inside) == (other in inside) for one, other in pairs)
        if closed and size <= MAX_BLOCK_SHARE * total:
            return [module]
        parts = [part for child in module.children() for part in blocks_of(child)]
        return [module] if closed and _size(parts) < size / 2 else parts

    return [block for child in net.children() for block in blocks_of(child)]


def _called_once(model: Wildcat, example: Tensor) -> set[nn.Module]:
    """The modules of the backbone that are called once per batch and do not write into memory of others.

    ``fully_shard`` hooks into the input and the output of a block. It cannot do so if the module overwrites its input,
    or if its output is a view that is overwritten later.
    """
    calls: Counter[nn.Module] = Counter()
    overwritten: set[nn.Module] = set()
    inputs_seen: list[tuple[nn.Module, Tensor, int]] = []  # module, tensor, its number of in-place writes so far
    views: list[tuple[nn.Module, Tensor, int]] = []

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[module] += 1
        inputs_seen.extend((module, x, x._version) for x in inputs if isinstance(x, Tensor))

    def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        while inputs_seen and inputs_seen[-1][0] is module:
            _, x, version = inputs_seen.pop()
            overwritten.update([module] if x._version != version else [])
        outputs = output if isinstance(output, tuple | list) else [output]
        views.extend((module, y, y._version) for y in outputs if isinstance(y, Tensor) and y._base is not None)

    hooks = [module.register_forward_pre_hook(enter) for module in model.backbone.net.modules()]
    hooks += [module.register_forward_hook(leave) for module in model.backbone.net.modules()]
    try:
        _class_maps(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    overwritten.update(module for module, view, version in views if view._version != version)
    return {module for module, number in calls.items() if number == 1} - overwritten


def _size(modules: Iterable[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _class_maps(model: Wildcat, example: Tensor) -> Tensor:
    """The class maps in evaluation mode: each of their values depends on the whole network."""
    was_training = model.training
    try:
        maps: Tensor = model.eval()(example).class_maps
    finally:
        model.train(was_training)
    return maps


def _gradients(model: Wildcat, example: Tensor) -> dict[str, Tensor]:
    _class_maps(model, example).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return gradients


def _agree(sharded: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Whether the shards of the gradients are those of the whole gradients, but for rounding."""
    from torch.distributed.tensor import distribute_tensor

    if sharded.keys() != expected.keys():
        return False
    largest = max((float(gradient.abs().max()) for gradient in expected.values()), default=0.0)
    agree = True
    for name, gradient in expected.items():
        tolerance = 0.05 * float(gradient.abs().max()) + 1e-6 * largest  # some gradients are 0 but for rounding
        actual: Any = sharded[name]
        # Collective: every process takes part for every gradient, also after one that differs.
        shard = distribute_tensor(gradient, actual.device_mesh, actual.placements).to_local()
        close = torch.allclose(actual.to_local(), shard, rtol=0, atol=tolerance)
        agree = agree and close
    return agree


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a sharded model, gathered on the CPU of the main process; empty in the others.

    All processes call this. Filters are channels-last, as those of an unsharded run.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: _channels_last(value) for name, value in weights.items()}


def full_optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """The state dict of a sharded model's optimizer, gathered on the CPU of the main process; empty in the others.

    All processes call this. It has the layout of an unsharded optimizer's ``state_dict``: PyTorch's function names the
    parameters, the optimizer numbers them. Momentum is channels-last as its filter is, because SGD's fused step, which
    an unsharded run takes, walks both in memory order.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: Any = get_optimizer_state_dict(model, optimizer, options=options)
    if distributed.get_rank() != 0:
        return {}
    numbers = {name: number for number, name in enumerate(_parameter_names(model, optimizer))}
    return {
        "state": {
            numbers[name]: {key: _channels_last(value) for key, value in values.items()}
            for name, values in state["state"].items()
        },
        "param_groups": [
            {**group, "params": [numbers[name] for name in group["params"]]} for group in state["param_groups"]
        ],
    }


def load_full_state(model: nn.Module, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state of an unsharded run into a sharded model and its optimizer; each process keeps its shard.

    Args:
        model: sharded.
        optimizer: of its parameters.
        state: "model" and "optimizer", whole, in every process.
    """
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        set_model_state_dict,
        set_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(model, dict(state["model"]), options=options)
    saved = state["optimizer"]
    if not saved["state"]:  # without momentum; PyTorch's function fails where there is no tensor
        optimizer.load_state_dict(dict(saved))
        return
    names = _parameter_names(model, optimizer)
    named: Any = {
        "state": {names[number]: dict(values) for number, values in saved["state"].items()},
        "param_groups": [
            {**group, "params": [names[number] for number in group["params"]]} for group in saved["param_groups"]
        ],
    }
    set_optimizer_state_dict(model, optimizer, named, options=options)


def _parameter_names(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """The names of an optimizer's parameters in the order in which its state dict numbers them."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]


def _channels_last(value: Any) -> Any:
    """A copy of a tensor of four dimensions in the channels-last memory format; anything else as it is."""
    if isinstance(value, Tensor) and value.ndim == 4:
        return value.clone(memory_format=torch.channels_last)
    return value
