"""Training that goes wrong, told in words: where numbers stop being finite, losses that rise, what runs out."""

import statistics
from collections import deque
from collections.abc import Iterable

import torch
from torch import Tensor

from wildcat.errors import first_line
from wildcat.model import NonFiniteMapsError, Wildcat


def first_bad_values(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """The first weights that are not finite, in words; None if all are. Of a divided model, in this process's part."""
    for name, value in named:
        if hasattr(value, "to_local"):
            value = value.to_local()
        bad = int((~value.isfinite()).sum())
        if bad:
            return f"the weights {name} ({bad} of {value.numel()} values)"
    return None


def first_bad_layer(model: Wildcat, images: Tensor) -> tuple[str, list[int]]:
    """Where NaN or infinity appears first when a batch goes through a model.

    Args:
        model: in the mode in which it failed.
        images: (N, 3, H, W), normalised.

    Returns:
        The place in words, and the images that show it there; none of them where it lies in the weights.
    """
    if not images.isfinite().all():
        return "the pixels", _bad_rows(images)
    # Not the statistics of BatchNorm: the batch that failed has gone into them.
    weights = first_bad_values(model.named_parameters())
    if weights is not None:
        return weights, []
    found: list[tuple[str, list[int]]] = []

    def look(name: str, output: object) -> None:
        if not found and isinstance(output, Tensor) and not output.isfinite().all():
            found.append((f"the output of {name}", _bad_rows(output)))

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: look(name, output))
        for name, module in model.named_modules()
        if name and not any(True for _ in module.children())
    ]
    try:
        with torch.no_grad():
            model(images)
    except NonFiniteMapsError:
        pass  # that is why we are here
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else ("the loss", [])


def _bad_rows(values: Tensor) -> list[int]:
    return [int(row) for row in (~values.isfinite()).flatten(1).any(dim=1).nonzero().flatten()]


class LossWatch:
    """Tells once when the loss has risen well above where it started: the learning rate is too high.

    It compares the median of the last 20 steps with the loss before the first step. That is chance (log 2 a class, or
    log C), and nothing that learns is half as high again for more than a few bad batches.

    Attributes:
        first: the loss before the first step of the run, once there was one.
    """

    LAST, FACTOR = 20, 1.5

    def __init__(self, first: float | None = None) -> None:
        self.first = first
        self.last: deque[float] = deque(maxlen=self.LAST)
        self._message = False

    def add(self, loss: float) -> str | None:
        """Look at the loss of one more step; the warning, the first time that there is reason for it."""
        if self.first is None:
            self.first = loss
        self.last.append(loss)
        if self._message or len(self.last) < self.LAST:
            return None
        now = statistics.median(self.last)
        if now <= self.FACTOR * self.first:
            return None
        self._message = True
        return (
            f"the loss has risen from {self.first:.4g} before the first step to {now:.4g} (median of the last "
            f"{self.LAST} steps); the learning rate is probably too high"
        )


def explained(error: BaseException, device: torch.device, accumulate: int) -> str | None:
    """One sentence for errors of machine and batch, with what to change; None for any other.

    Args:
        error: what the training raised.
        device: where the model is.
        accumulate: the setting, which may be raised.
    """
    text = str(error)
    if isinstance(error, torch.cuda.OutOfMemoryError) or "allocate memory" in text or isinstance(error, MemoryError):
        return (
            f"the memory of {'this machine' if device.type == 'cpu' else device} is not enough; raise accumulate "
            f"(now {accumulate}: the same batch in more, smaller parts), or lower image_size or batch_size"
        )
    if text.startswith("Expected more than 1 value per channel when training"):
        return (
            "BatchNorm cannot learn from one value a channel, an image of a single cell: raise batch_size or "
            f"image_size, lower accumulate (now {accumulate}), or set freeze_batch_norm"
        )
    if "DataLoader timed out" in text:
        return "no image could be read for stall_minutes: see whether the disk or share that holds them answers"
    if "DataLoader worker" in text:
        return (
            "a process that reads images was killed, most likely because memory ran out; lower workers "
            f"({first_line(error)})"
        )
    # DistError is NCCL's and the store's; gloo raises plain errors.
    if isinstance(error, torch.distributed.DistError) or "gloo" in text or "Connection closed by peer" in text:
        return "another process of this run has ended or does not answer; its own message says why"
    return None
