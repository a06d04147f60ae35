"""A model sharded over the processes: each keeps a part of the parameters, the gradients and the momentum.

PyTorch's ``fully_shard`` (FSDP2) does the work. Block by block of the backbone is put together from all processes when
it is computed, in either direction, and freed behind it, so a process needs memory for its part and one or two blocks.
A state is gathered to be saved, and sharded again when it is loaded: it is the same file whatever wrote it.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn

from wildcat.errors import WildcatError
from wildcat.model import Wildcat
from wildcat.training.diagnostics import explained

# Blocks are as large as possible, but at most this share of the backbone where its modules allow; what is smaller than
# the other one is not worth a message of its own and stays together.
LARGEST, SMALLEST = 1 / 8, 1 / 100


def shard_model(model: Wildcat, example: Tensor) -> int:
    """Divide a model, in place, over all processes, and see that it computes the same gradient as before.

    In all processes it begins with the first one's parameters, and with the same example.

    Args:
        model: whole, with its parameters loaded and frozen as they shall be.
        example: an input (N, 3, H, W), to find out which blocks a backbone has and to compare the gradients.

    Returns:
        The number of blocks.

    Raises:
        WildcatError: for a backbone that cannot be divided, and for a PyTorch before 2.6.
    """
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise WildcatError(f"shard needs PyTorch 2.6 or later; this is {torch.__version__}") from error
    # The only format that fully_shard divides.
    model.to(memory_format=torch.contiguous_format)
    for tensor in (*model.parameters(), *model.buffers()):
        distributed.broadcast(tensor.detach(), src=0)
    expected = _gradients(model, example)
    mesh = init_device_mesh(example.device.type, (distributed.get_world_size(),))
    # A block that gives a view of what it computed is warned of. What could go wrong then shows in the gradients.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    try:
        blocks = _blocks(model, example)
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        found = _gradients(model, example)
    except (RuntimeError, ValueError, AssertionError) as error:
        if explained(error, example.device, 1) is not None:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise WildcatError(
            f"{model.backbone.name} cannot be divided over processes; train without shard ({reason})"
        ) from error
    wrong = torch.tensor(float(not _agree(found, expected)), device=example.device)
    distributed.all_reduce(wrong)
    if wrong:
        raise WildcatError(f"{model.backbone.name} divided over processes has another gradient; train without shard")
    return len(blocks)


def _blocks(model: Wildcat, example: Tensor) -> list[nn.Module]:
    """The modules of the backbone that are put together one by one."""
    net = model.backbone.net
    callable_once = _called_once(model, example)
    # Modules that need each other's parameters must be in one block: a convolution that computes the BatchNorm behind
    # it (folding.py), and those that share a parameter.
    folded: list[Any] = [module for module in net.modules() if hasattr(module, "folded_norm")]
    pairs: list[tuple[nn.Module, nn.Module]] = [(conv, *conv.folded_norm) for conv in folded]
    owners: dict[nn.Parameter, nn.Module] = {}
    for module in net.modules():
        pairs += [(owners.setdefault(own, module), module) for own in module.parameters(recurse=False)]
    total = _size([net])

    def blocks_of(module: nn.Module) -> list[nn.Module]:
        inside, size = set(module.modules()), _size([module])
        if size < SMALLEST * total:
            return []
        closed = module in callable_once and all((one in inside) == (other in inside) for one, other in pairs)
        if closed and size <= LARGEST * total:
            return [module]
        parts = [part for child in module.children() for part in blocks_of(child)]
        return [module] if closed and _size(parts) < size / 2 else parts

    return [block for child in net.children() for block in blocks_of(child)]


def _called_once(model: Wildcat, example: Tensor) -> set[nn.Module]:
    """The modules of the backbone through whose call a batch goes once, and that work on memory of their own.

    ``fully_shard`` comes in between as a batch goes in and out, which it cannot where a module overwrites its input,
    nor where what it gives is a view that is overwritten.
    """
    calls: Counter[nn.Module] = Counter()
    overwritten: set[nn.Module] = set()
    given: list[tuple[nn.Module, Tensor, int]] = []  # module, tensor, how often it had been written to
    views: list[tuple[nn.Module, Tensor, int]] = []

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[module] += 1
        given.extend((module, x, x._version) for x in inputs if isinstance(x, Tensor))

    def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        while given and given[-1][0] is module:
            _, x, version = given.pop()
            overwritten.update([module] if x._version != version else [])
        outputs = output if isinstance(output, tuple | list) else [output]
        views.extend((module, y, y._version) for y in outputs if isinstance(y, Tensor) and y._base is not None)

    hooks = [module.register_forward_pre_hook(enter) for module in model.backbone.net.modules()]
    hooks += [module.register_forward_hook(leave) for module in model.backbone.net.modules()]
    try:
        _in_evaluation(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    overwritten.update(module for module, view, version in views if view._version != version)
    return {module for module, number in calls.items() if number == 1} - overwritten


def _size(modules: Iterable[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _in_evaluation(model: Wildcat, example: Tensor) -> Tensor:
    """The class maps, of which each element tells something of the whole network."""
    was_training = model.training
    try:
        maps: Tensor = model.eval()(example).class_maps
    finally:
        model.train(was_training)
    return maps


def _gradients(model: Wildcat, example: Tensor) -> dict[str, Tensor]:
    _in_evaluation(model, example).square().mean().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def _agree(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Whether the parts of the gradients are those of the whole ones, but for rounding."""
    if found.keys() != expected.keys():
        return False
    largest = max((float(gradient.abs().max()) for gradient in expected.values()), default=0.0)
    agree = True
    for name, gradient in expected.items():
        allowed = 0.05 * float(gradient.abs().max()) + 1e-6 * largest  # some are 0 but for rounding
        mine: Any = found[name]
        close = torch.allclose(mine.to_local(), _part(gradient, mine).to_local(), rtol=0, atol=allowed)
        agree = agree and close  # all are divided in all processes, also behind one that differs
    return agree


def gather_full_state(state: Any, keep: bool) -> Any:
    """A state with every divided tensor put together, one after the other, as one that is not divided has them.

    Args:
        state: dictionaries and lists; all processes call this with their own.
        keep: whether this process wants the result; otherwise it only helps, and None takes a tensor's place.
    """
    from torch.distributed.tensor import DTensor

    if isinstance(state, Mapping):
        return {key: gather_full_state(value, keep) for key, value in state.items()}
    if isinstance(state, list):
        return [gather_full_state(value, keep) for value in state]
    if not isinstance(state, DTensor):
        return state
    tensor = state.full_tensor()
    if not keep:
        return None
    # Momentum has its parameter's memory format: SGD's fused step relies on it.
    return tensor.cpu().clone(memory_format=torch.channels_last if tensor.ndim == 4 else torch.contiguous_format)


def shard_optimizer_state(state: Mapping[str, Any], model: nn.Module, parameters: list[Tensor]) -> dict[str, Any]:
    """A state whose tensors are divided as a model is, for its ``load_state_dict`` and its optimizer's.

    Args:
        state: "model" and "optimizer", whole.
        model: divided.
        parameters: those of the optimizer, in its order.
    """
    own = model.state_dict()
    optimizer = state["optimizer"]
    momentum = {
        number: {name: _part(value, parameters[number]) for name, value in values.items()}
        for number, values in optimizer["state"].items()
    }
    return {
        "model": {name: _part(value, own.get(name)) for name, value in state["model"].items()},
        "optimizer": {**optimizer, "state": momentum},
    }


def _part(value: Any, like: Any) -> Any:
    """A whole tensor, the first process's, divided as another one is; anything else as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not (isinstance(value, Tensor) and isinstance(like, DTensor)):
        return value
    return distribute_tensor(value, like.device_mesh, like.placements)
