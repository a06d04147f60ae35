"""The loss that fits a dataset, and the loss and score of the validation set after each epoch."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.losses import Difficult, multi_class_loss, multi_label_loss
from wildcat.metrics import average_precision
from wildcat.model import NonFiniteMapsError, Wildcat, WildcatOutput
from wildcat.training.data import EvalDataset, end_workers
from wildcat.training.distributed import ProcessGroup
from wildcat.training.feature_store import FeatureStore
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
    features: FeatureStore | None = None,
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
        features: of the validation set, where the backbone is frozen; otherwise they are computed.

    Returns:
        "val_loss", and "val_map" (area; NaN where no image has a class) or "val_accuracy".

    Raises:
        NonFiniteMapsError: if scores are NaN or infinite.
    """
    size, count = config.batch_size, group.count
    batches = [range(start, min(start + size, len(dataset))) for start in range(0, len(dataset), size)]
    device = model.transfer.weight.device
    own_batches = batches[group.rank :: count]
    if features is None:
        loader, score = _image_batches(dataset, config, own_batches), _score_images(model)
        blank = torch.zeros(1, config.image_size, config.image_size, 3, dtype=torch.uint8)
    else:
        all_labels = torch.from_numpy(dataset.labels)
        loader = ((features.read(batch), all_labels[batch.start : batch.stop]) for batch in own_batches)
        score, blank = model.on_features(), features.read([0])
    own = []  # scores and labels of this process's batches
    model.eval()
    try:
        with torch.no_grad():
            for _ in range(math.ceil(len(batches) / count)):
                # In the last turn this process may have no images, but the others need its shard of a sharded model.
                inputs, batch_labels = next(loader, (blank, None))
                output = score(inputs.to(device))
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


def _image_batches(
    dataset: Dataset, config: TrainConfig, batches: Sequence[range]
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Pixels (n, size, size, 3), uint8, and labels (n, C) of batches of images, which workers read."""
    workers = min(config.workers or 0, len(batches))
    loader: Iterator[tuple[Tensor, Tensor | None]] = iter(
        DataLoader(
            EvalDataset(dataset, config.image_size),
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=workers,
            timeout=60 * config.stall_minutes if workers else 0,
            worker_init_fn=delay_termination,
        )
    )
    return loader


def _score_images(model: Wildcat) -> Callable[[Tensor], WildcatOutput]:
    """The model on pixels (n, H, W, 3), uint8."""
    return lambda pixels: model(model.normalize(pixels.permute(0, 3, 1, 2)))
