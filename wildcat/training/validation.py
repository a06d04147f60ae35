"""The loss of a run, and the scores of its validation images after each epoch."""

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
from wildcat.training.distributed import Processes
from wildcat.training.stopping import outlive_signals


def criterion_for(dataset: Dataset, config: TrainConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that the data asks for: (scores, labels) -> scalar; labels are those of the data's C classes."""
    if not dataset.multi_label:
        return multi_class_loss
    # Where 0 means that nobody looked, it cannot count as present.
    difficult: Difficult = "ignore" if dataset.zeros_unknown else config.difficult

    def criterion(scores: Tensor, labels: Tensor) -> Tensor:
        if config.background_class:
            labels = functional.pad(labels, (0, 1), value=1)  # every image has some background
        return multi_label_loss(scores, labels, difficult)

    return criterion


def validate(
    processes: Processes,
    model: Wildcat,
    dataset: Dataset,
    config: TrainConfig,
    criterion: Callable[[Tensor, Tensor], Tensor],
    between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Loss and mAP (area, per cent) or accuracy of the validation set, read at ``image_size``.

    Batch by batch in turn, the processes score the batches that a single one would; ``between`` is called after each
    turn, in all of them.
    """
    size, count = config.batch_size, processes.count
    batches = [range(start, min(start + size, len(dataset))) for start in range(0, len(dataset), size)]
    images = EvalDataset(dataset, config.image_size)
    workers = min(config.workers or 0, len(batches))
    loader = iter(
        DataLoader(
            images,
            batch_sampler=batches[processes.rank :: count],  # type: ignore[arg-type]
            num_workers=workers,
            timeout=60 * config.stall_minutes if workers else 0,
            worker_init_fn=outlive_signals,
        )
    )
    device = model.transfer.weight.device
    blank = torch.zeros(1, config.image_size, config.image_size, 3, dtype=torch.uint8)
    mine = []
    model.eval()
    try:
        with torch.no_grad():
            for _ in range(math.ceil(len(batches) / count)):
                # The last turn may have no images for this process, and yet others need its part of a divided model.
                pixels, batch_labels = next(loader, (blank, None))
                output = model(model.normalize(pixels.to(device).permute(0, 3, 1, 2)))
                if batch_labels is not None:
                    mine.append((output.scores.float().cpu(), batch_labels))
                between()
    finally:
        end_workers(loader)
    gathered = processes.gather(mine)
    found = [gathered[number % count][number // count] for number in range(len(batches))]
    scores, labels = (torch.cat(part) for part in zip(*found, strict=True))
    if not scores.isfinite().all():
        raise NonFiniteMapsError("validation scores are NaN or infinite; the learning rate is probably too high")
    row = {"val_loss": criterion(scores, labels).item()}
    scores = scores[:, : len(dataset.classes)]  # a background class has no score
    if dataset.multi_label:
        precisions = np.asarray(average_precision(scores.numpy(), labels.numpy()))
        row["val_map"] = 100 * float(np.nanmean(precisions)) if np.isfinite(precisions).any() else math.nan
    else:
        row["val_accuracy"] = 100 * (scores.argmax(1) == labels.argmax(1)).float().mean().item()
    return row
