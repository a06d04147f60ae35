"""The backbone's features of whole images, averaged over positions: what linear classifiers are fitted on."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.model import Wildcat
from wildcat.training.data import EvalDataset, end_workers
from wildcat.training.distributed import ProcessGroup
from wildcat.training.feature_store import FeatureStore
from wildcat.training.signals import delay_termination


def global_features(
    group: ProcessGroup,
    model: Wildcat,
    dataset: Dataset,
    config: TrainConfig,
    after_batch: Callable[[int], None] = lambda images: None,
    store: FeatureStore | None = None,
) -> Tensor:
    """Compute the features of the whole images, without crops, at ``image_size``.

    The processes take turns with the batches that a single process would compute, so that the result is the same.

    Args:
        group: the processes; all of them call this.
        model: whole in each process; left in evaluation mode.
        dataset: N images.
        config: ``image_size``, ``batch_size``, ``workers`` and ``stall_minutes`` are used.
        after_batch: called after each batch with its number of images.
        store: the features of a frozen backbone; otherwise they are computed.

    Returns:
        (N, D), in single precision, on the CPU, the same in all processes.
    """
    if store is not None:
        return store.average()
    size = config.batch_size
    batches = [range(start, min(start + size, len(dataset))) for start in range(0, len(dataset), size)]
    workers = min(config.workers or 0, len(batches))
    loader = iter(
        DataLoader(
            EvalDataset(dataset, config.image_size),
            batch_sampler=batches[group.rank :: group.count],  # type: ignore[arg-type]
            num_workers=workers,
            timeout=60 * config.stall_minutes if workers else 0,
            worker_init_fn=delay_termination,
        )
    )
    device = model.transfer.weight.device
    own = []  # features of this process's batches
    model.eval()
    try:
        with torch.inference_mode():
            for pixels, _ in loader:
                images = model.normalize(pixels.to(device).permute(0, 3, 1, 2))  # (n, 3, H, W)
                own.append(model.backbone(images).float().mean(dim=(2, 3)).cpu())
                after_batch(len(pixels))
    finally:
        end_workers(loader)
    gathered = group.gather(own)
    in_order = [gathered[number % group.count][number // group.count] for number in range(len(batches))]
    return torch.cat(in_order)
