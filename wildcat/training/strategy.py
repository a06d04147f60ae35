"""How a model is trained by the processes of a group: in one, with data parallelism, or sharded.

The engine calls the same methods for all three.
"""

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from torch import Tensor

from wildcat.config import TrainConfig
from wildcat.model import Wildcat
from wildcat.training.diagnostics import find_nonfinite_layer, find_nonfinite_weights
from wildcat.training.distributed import ProcessGroup
from wildcat.training.schedule import parameter_groups
from wildcat.training.sharding import (
    full_optimizer_state,
    full_weights,
    load_full_state,
    shard_model,
    without_view_warnings,
)
from wildcat.training.sync_batchnorm import synchronize_batchnorm


class SingleProcess:
    """The whole model in one process.

    Args:
        accelerator: accelerate's view of this process.
        model: on the accelerator's device, with its parameters loaded and frozen.
        config: the settings of the optimizer, and the precision.

    Attributes:
        model: the model itself, for validation and for its weights.
        trained: the model, or with ``frozen`` its head alone (:meth:`Wildcat.on_features`).
        network: what a training step calls: ``trained``, or PyTorch's wrapper around it.
        optimizer: SGD over the parameters that are not frozen.
        device: of the model.
    """

    # The whole step in one pass over memory.
    sgd_options: ClassVar[dict[str, bool]] = {"fused": True, "foreach": False}

    def __init__(self, accelerator: Accelerator, model: Wildcat, config: TrainConfig) -> None:
        self.model, self.device = model, accelerator.device
        # With a frozen backbone, the head is trained on features, in single precision.
        self.trained = model.on_features() if config.frozen else model
        self._accelerator, self._bf16 = accelerator, config.precision == "bf16" and not config.frozen
        optimizer = torch.optim.SGD(
            parameter_groups(model, config),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            **self.sgd_options,
        )
        self.optimizer = accelerator.prepare(optimizer)
        self.network = self.wrap(self.trained)

    def wrap(self, model: Wildcat) -> Any:
        """What a training step calls for the model."""
        return self._accelerator.prepare(model)

    def inputs(self, batch: Tensor) -> Tensor:
        """The input of :meth:`forward` from a batch: of pixels (N, H, W, 3), uint8, or of features (N, D, h, w)."""
        return self.model.normalize(batch.permute(0, 3, 1, 2)) if self.trained is self.model else batch

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, C) of normalized images (N, 3, H, W) or of features, in the precision of the run.

        Raises:
            NonFiniteMapsError: if the class maps hold NaN or infinity.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            scores: Tensor = self.network(images).scores
        return scores

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """A context for the forward and backward pass of a part of a batch.

        Args:
            last: whether it is the last part of the batch in this process.
        """
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those of the parameters."""
        self._accelerator.backward(loss)

    def state(self) -> dict[str, Any]:
        """The state dicts "model" and "optimizer", whole in the main process; all processes call this."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Load "model" and "optimizer" of any strategy's :meth:`state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._restore_sgd_options()

    def _restore_sgd_options(self) -> None:
        for group in self.optimizer.param_groups:  # the state may come from another strategy
            group |= self.sgd_options

    def weights(self) -> dict[str, Tensor]:
        """The model's state dict, whole in the main process; all processes call this."""
        weights: dict[str, Tensor] = self.model.state_dict()
        return weights

    def find_nonfinite(self, images: Tensor) -> tuple[str, list[int]]:
        """Describe where NaN or infinity appears first for a batch, and which of its images show it."""
        return find_nonfinite_layer(self.trained, images)


class DataParallel(SingleProcess):
    """The whole model in each process; gradients are averaged over the processes once per step (DDP)."""

    def __init__(self, accelerator: Accelerator, model: Wildcat, config: TrainConfig) -> None:
        synchronize_batchnorm(model)
        super().__init__(accelerator, model, config)

    def wrap(self, model: Wildcat) -> Any:
        """The model in DistributedDataParallel."""
        with warnings.catch_warnings():
            # PyTorch 2.14 renames a setting that accelerate passes by its old name.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            return super().wrap(model)

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Exchange the gradients with the last part only."""
        if last:
            return nullcontext()
        context: AbstractContextManager[Any] = self._accelerator.no_sync(self.network)
        return context


class Sharded(SingleProcess):
    """A shard of the parameters, gradients and momentum in each process (FSDP2).

    Gradients are exchanged with every part of a batch: no process has room for all of them.

    Raises:
        WildcatError: for a backbone that cannot be sharded, and for PyTorch before 2.6.
    """

    # Sharded tensors do not support the fused step.
    sgd_options: ClassVar[dict[str, bool]] = {"fused": False, "foreach": True}

    def __init__(self, accelerator: Accelerator, model: Wildcat, config: TrainConfig) -> None:
        synchronize_batchnorm(model)
        size = (1, 3, config.image_size, config.image_size)
        shard_model(model, torch.rand(size, generator=torch.Generator().manual_seed(0)).to(accelerator.device))
        super().__init__(accelerator, model, config)

    def wrap(self, model: Wildcat) -> Any:
        """The model itself: ``fully_shard`` has changed it in place."""
        return model

    def forward(self, images: Tensor) -> Tensor:
        """As for one process."""
        with without_view_warnings():
            return super().forward(images)

    def state(self) -> dict[str, Any]:
        """As for one process, gathered in the main process."""
        optimizer = self.optimizer.optimizer  # accelerate's wrapper holds PyTorch's
        return {"model": full_weights(self.model), "optimizer": full_optimizer_state(self.model, optimizer)}

    def load_state(self, state: dict[str, Any]) -> None:
        """As for one process; each process keeps its shard."""
        load_full_state(self.model, self.optimizer.optimizer, state)
        self._restore_sgd_options()

    def weights(self) -> dict[str, Tensor]:
        """As for one process, gathered in the main process."""
        return full_weights(self.model)

    def find_nonfinite(self, images: Tensor) -> tuple[str, list[int]]:
        """Examine this process's weights; computing the batch again would need the other processes."""
        weights = find_nonfinite_weights(self.model.named_parameters())
        return weights or "a layer that only a training without shard names", []


def create_strategy(
    accelerator: Accelerator, group: ProcessGroup, model: Wildcat, config: TrainConfig
) -> SingleProcess:
    """The strategy for a number of processes and the setting ``shard``."""
    if group.count == 1:
        return SingleProcess(accelerator, model, config)
    return (Sharded if config.shard else DataParallel)(accelerator, model, config)
