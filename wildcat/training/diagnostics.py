"""Explains a training that fails: the first NaN or infinity, a loss that rises, what the machine lacks."""

import statistics
from collections import deque
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from wildcat.errors import first_line
from wildcat.model import NonFiniteMapsError, Wildcat
from wildcat.system.memory import lack_of_memory
from wildcat.system.shared_memory import lack_of_shared_memory


def find_nonfinite_weights(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Describe the first tensor with NaN or infinite values; None if all values are finite.

    Of the tensors of a sharded model, only this process's shard is examined.

    Args:
        named: names and tensors, such as ``model.named_parameters()``.
    """
    for name, value in named:
        if hasattr(value, "to_local"):
            value = value.to_local()
        count = int((~value.isfinite()).sum())
        if count:
            return f"the weights {name} ({count} of {value.numel()} values)"
    return None


def find_nonfinite_layer(model: Wildcat, images: Tensor) -> tuple[str, list[int]]:
    """Find where NaN or infinity appears first when a batch passes through a model.

    Args:
        model: in the mode in which it failed.
        images: (N, 3, H, W), normalized, or features for a model of :meth:`Wildcat.on_features`.

    Returns:
        A description of the place, and the indices of the images that show it there: none if it is in the weights.
    """
    if not images.isfinite().all():
        return "the features" if isinstance(model.backbone, nn.Identity) else "the pixels", _nonfinite_rows(images)
    # The buffers are left out: the batch that failed has changed the statistics of BatchNorm.
    weights = find_nonfinite_weights(model.named_parameters())
    if weights is not None:
        return weights, []
    places: list[tuple[str, list[int]]] = []

    def check_output(name: str, output: object) -> None:
        if not places and isinstance(output, Tensor) and not output.isfinite().all():
            places.append((f"the output of {name}", _nonfinite_rows(output)))

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: check_output(name, output))
        for name, module in model.named_modules()
        if name and not any(True for _ in module.children())
    ]
    try:
        with torch.no_grad():
            model(images)
    except NonFiniteMapsError:
        pass  # expected: the class maps are checked behind the layer that is searched for
    finally:
        for hook in hooks:
            hook.remove()
    return places[0] if places else ("the loss", [])


def _nonfinite_rows(values: Tensor) -> list[int]:
    return [int(row) for row in (~values.isfinite()).flatten(1).any(dim=1).nonzero().flatten()]


class LossMonitor:
    """Warns once when the loss has risen well above its start: the learning rate is probably too high.

    It compares the median of the last :data:`WINDOW` steps with the loss before the first step. With a random head that
    is the loss of guessing, and a training that works is not 1.5 times as high for more than a few bad batches. A head
    that was fitted on the same images starts at almost no loss, which rises with every crop that it has not seen: only
    a loss above that of guessing is a sign of a wrong rate then.

    Args:
        guessing: the loss of scores that are all 0: log 2 with several labels per image, log C with one.
        first_loss: the loss before the run's first step, if it is resumed.
    """

    WINDOW, FACTOR = 20, 1.5

    def __init__(self, guessing: float, first_loss: float | None = None) -> None:
        self.guessing = guessing
        self.first_loss = first_loss
        self._recent: deque[float] = deque(maxlen=self.WINDOW)
        self._warned = False

    def add(self, loss: float) -> str | None:
        """Add the loss of a step; return the warning if this step is the first with a reason for it."""
        if self.first_loss is None:
            self.first_loss = loss
        self._recent.append(loss)
        if self._warned or len(self._recent) < self.WINDOW:
            return None
        median = statistics.median(self._recent)
        if median <= max(self.FACTOR * self.first_loss, self.guessing):
            return None
        self._warned = True
        return (
            f"the loss has risen from {self.first_loss:.4g} before the first step to {median:.4g} (median of the last "
            f"{self.WINDOW} steps); the learning rate is probably too high"
        )


def explain_failure(error: BaseException, device: torch.device, accumulate: int) -> str | None:
    """Explain an error of the machine or of the batch in one sentence, with what to change; None for any other error.

    Args:
        error: what the training raised.
        device: of the model.
        accumulate: the setting, which the sentence may advise to change.
    """
    text = str(error)
    if (shared := lack_of_shared_memory(error)) is not None:
        return shared
    lack = lack_of_memory(error, "this machine" if device.type == "cpu" else str(device))
    if lack is not None:
        return (
            f"{lack}; raise accumulate (now {accumulate}: the same batch in more, smaller parts), or lower image_size "
            "or batch_size"
        )
    if text.startswith("Expected more than 1 value per channel when training"):
        return (
            "BatchNorm cannot learn from one value per channel (one image with one cell): raise batch_size or "
            f"image_size, lower accumulate (now {accumulate}), or set freeze_batch_norm"
        )
    if "DataLoader timed out" in text:
        return "no image could be read for stall_minutes: check whether the disk or network share with the data answers"
    if "DataLoader worker" in text:
        return (
            "a worker process that reads images was killed, probably because memory ran out; lower workers "
            f"({first_line(error)})"
        )
    # DistError is raised by NCCL and the store; gloo raises plain errors.
    if isinstance(error, torch.distributed.DistError) or "gloo" in text or "Connection closed by peer" in text:
        return "another process of this run has ended or does not answer; see its own message for the reason"
    return None
