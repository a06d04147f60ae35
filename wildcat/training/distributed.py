"""The processes that train one model together, started by torchrun, accelerate or a batch system.

PyTorch's data parallelism exchanges the gradients. This module exchanges the few numbers and objects that all processes
must share beside them, in a group of its own that needs no GPU, so that this never waits for one.
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

# How long a process waits for the gradients of another that is alive but does not answer. A process that has died is
# noticed at once: its connections close, and torchrun ends the others.
GRADIENT_TIMEOUT = datetime.timedelta(minutes=30)
# Waiting for the main process is no sign of trouble: it may be checking millions of images.
MAIN_PROCESS_TIMEOUT = datetime.timedelta(days=2)


def create_accelerator() -> Accelerator:
    """Accelerate's view of this process and its device; processes without a GPU communicate through gloo.

    Raises:
        WildcatError: if accelerate is configured to shard the model itself (FSDP, DeepSpeed, ...); the setting
            ``shard`` does that here.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # BatchNorm that learns is computed over all processes (sync_batchnorm.py), so its buffers never differ.
    parallel = DistributedDataParallelKwargs(broadcast_buffers=False)
    accelerator = Accelerator(
        mixed_precision="no",
        cpu=several and not torch.cuda.is_available(),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=GRADIENT_TIMEOUT), parallel],
    )
    kind = accelerator.distributed_type
    if kind != DistributedType.NO and not kind.value.startswith("MULTI_"):
        raise WildcatError(
            f"accelerate's {kind.value} is not supported: launch plain data parallelism (--multi_gpu), and use "
            "--shard to split a large model over the processes"
        )
    return accelerator


class ProcessGroup:
    """The processes of a run, seen from one of them; one process is a group too.

    Attributes:
        count: number of processes.
        rank: number of this process, from 0.
        is_main: whether this is rank 0, the process that writes files and logs progress.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.count: int = accelerator.num_processes
        self.rank: int = accelerator.process_index
        self.is_main = self.rank == 0
        self._group: Any = (
            distributed.new_group(backend="gloo", timeout=MAIN_PROCESS_TIMEOUT) if self.count > 1 else None
        )

    def on_main(self, make: Callable[[], T]) -> T:
        """Call a function in the main process alone; return its result in all processes.

        Raises:
            WildcatError: in the main process, if the function does; the others end silently with exit code 2.
        """
        if self.count == 1:
            return make()
        message: list[Any] = [None, False]  # result, whether there is one
        error = None
        if self.is_main:
            try:
                message = [make(), True]
            except WildcatError as raised:
                error = raised
        distributed.broadcast_object_list(message, src=0, group=self._group)
        if error is not None:
            raise error
        if not message[1]:
            raise SystemExit(2)
        result: T = message[0]
        return result

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
