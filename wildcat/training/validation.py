"""The loss that fits a dataset, and the loss and score of the validation set after each epoch."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.losses import Difficult, multi_class_loss, multi_label_loss
from wildcat.metrics import average_precision
from wildcat.model import NonFiniteMapsError, Wildcat
from wildcat.training.data import EvalDataset, end_workers
from wildcat.training.distributed import ProcessGroup
from wildcat.training.signals import delay_termination


def criterion_for(dataset: Dataset, config: TrainConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss for a dataset: cross-entropy for one class per image, logistic losses for several (Section 3.4).

    Returns:
        A function of scores (N, C), or (N, C + 1) with a background class, and labels (N, C): a scalar, the mean over
        images.
    """
    if not dataset.multi_label:
        return multi_class_loss
    # In datasets whose label 0 means unknown, it cannot count as present.
    difficult: Difficult = "ignore" if dataset.zeros_unknown else config.difficult

    def criterion(scores: Tensor, labels: Tensor) -> Tensor:
        if config.background_class:
            labels = functional.pad(labels, (0, 1), value=1)  # every image has some background
        return multi_label_loss(scores, labels, difficult)

    return criterion


def validate(
    group: ProcessGroup,
    model: Wildcat,
    dataset: Dataset,
    config: TrainConfig,
    criterion: Callable[[Tensor, Tensor], Tensor],
    after_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Compute the loss and the mAP or accuracy (per cent) of the validation set at ``image_size``.

    The processes take turns with the batches that a single process would score.

    Args:
        group: the processes; all of them call this.
        model: left in evaluation mode.
        dataset: the validation set.
        config: the settings.
        criterion: of :func:`criterion_for`.
        after_batch: called in all processes after each of these turns.

    Returns:
        "val_loss", and "val_map" (area; NaN where no image has a class) or "val_accuracy".

    Raises:
        NonFiniteMapsError: if scores are NaN or infinite.
    """
    size, count = config.batch_size, group.count
    batches = [range(start, min(start + size, len(dataset))) for start in range(0, len(dataset), size)]
    images = EvalDataset(dataset, config.image_size)
    workers = min(config.workers or 0, len(batches))
    loader = iter(
        DataLoader(
            images,
            batch_sampler=batches[group.rank :: count],  # type: ignore[arg-type]
            num_workers=workers,
            timeout=60 * config.stall_minutes if workers else 0,
            worker_init_fn=delay_termination,
        )
    )
    device = model.transfer.weight.device
    blank = torch.zeros(1, config.image_size, config.image_size, 3, dtype=torch.uint8)
    own = []  # scores and labels of this process's batches
    model.eval()
    try:
        with torch.no_grad():
            for _ in range(math.ceil(len(batches) / count)):
                # In the last turn this process may have no images, but the others need its shard of a sharded model.
                pixels, batch_labels = next(loader, (blank, None))
                output = model(model.normalize(pixels.to(device).permute(0, 3, 1, 2)))
                if batch_labels is not None:
                    own.append((output.scores.float().cpu(), batch_labels))
                after_batch()
    finally:
        end_workers(loader)
    gathered = group.gather(own)
    in_order = [gathered[number % count][number // count] for number in range(len(batches))]
    scores, labels = (torch.cat(part) for part in zip(*in_order, strict=True))
    if not scores.isfinite().all():
        raise NonFiniteMapsError("validation scores are NaN or infinite; the learning rate is probably too high")
    row = {"val_loss": criterion(scores, labels).item()}
    scores = scores[:, : len(dataset.classes)]  # without the background class
    if dataset.multi_label:
        precisions = np.asarray(average_precision(scores.numpy(), labels.numpy()))
        row["val_map"] = 100 * float(np.nanmean(precisions)) if np.isfinite(precisions).any() else math.nan
    else:
        row["val_accuracy"] = 100 * (scores.argmax(1) == labels.argmax(1)).float().mean().item()
    return row
