"""Several processes that train one model, started by torchrun, accelerate or a batch system: how they agree.

Gradients go through PyTorch's own data parallelism. What is here is the little beside it: few numbers and objects that
all processes must share, on a group of its own that needs no GPU, so that asking for them never waits for one.
"""

import datetime
import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs
from torch import distributed

from wildcat.errors import WildcatError

T = TypeVar("T")

# How long a process waits for the gradients of another that is alive but does not answer. One that has died is noticed
# at once: its connections close, and torchrun ends the others.
PATIENCE = datetime.timedelta(minutes=30)
# Waiting for the main process is no sign of trouble: it may be checking millions of images.
LONG_PATIENCE = datetime.timedelta(days=2)


def create_accelerator() -> Accelerator:
    """Accelerate's view of this process and its device; processes without a GPU talk through gloo.

    Raises:
        WildcatError: if accelerate was told to divide the model itself (FSDP, DeepSpeed, ...); ``shard`` does it here.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # BatchNorm that learns is computed over all processes (shared_norm.py), so its buffers never differ.
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(
        mixed_precision="no",
        cpu=several and not torch.cuda.is_available(),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE), parallel],
    )
    kind = accelerator.distributed_type
    if kind != DistributedType.NO and not kind.value.startswith("MULTI_"):
        raise WildcatError(
            f"accelerate's {kind.value} is not supported: launch plain data parallelism (--multi_gpu), and let "
            "--shard divide a large model over the processes"
        )
    return accelerator


class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
        count: how many there are.
        rank: which one this is, from 0.
        main: whether it is the one that writes and prints.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.count: int = accelerator.num_processes
        self.rank: int = accelerator.process_index
        self.main = self.rank == 0
        self._group: Any = distributed.new_group(backend="gloo", timeout=LONG_PATIENCE) if self.count > 1 else None

    def on_main(self, make: Callable[[], T]) -> T:
        """What a function returns in the main process, where alone it is called.

        Raises:
            WildcatError: in the main process, if the function does; the others end silently with exit code 2.
        """
        if self.count == 1:
            return make()
        box: list[Any] = [None, False]
        error = None
        if self.main:
            try:
                box = [make(), True]
            except WildcatError as raised:
                error = raised
        distributed.broadcast_object_list(box, src=0, group=self._group)
        if error is not None:
            raise error
        if not box[1]:
            raise SystemExit(2)
        made: T = box[0]
        return made

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Each value, summed over the processes."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total, group=self._group)
        return [float(value) for value in total]

    def gather(self, item: T) -> list[T]:
        """The items of all processes, by rank."""
        if self.count == 1:
            return [item]
        items: list[Any] = [None] * self.count
        distributed.all_gather_object(items, item, group=self._group)
        return items
