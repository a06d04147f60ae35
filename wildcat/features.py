"""The paper's baseline "ResNet-101 features": features of the whole picture, and a linear SVM per class on them.

A linear classifier of the averaged features is a transfer layer with one map per class and average pooling, so what is
trained is a Wildcat model like any other: it points and segments by the SVMs' class activation maps.
"""

import math
import time

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.model import Wildcat
from wildcat.training.data import TestPictures
from wildcat.training.history import Row
from wildcat.training.linear_svm import fit_linear_svms


def global_features(model: Wildcat, dataset: Dataset, config: TrainConfig, device: torch.device) -> Tensor:
    """(N, D): the mean over positions of the trunk's features, of each picture warped to ``image_size``."""
    loader = DataLoader(
        TestPictures(dataset, config.image_size), config.batch_size, num_workers=config.workers or 0, pin_memory=False
    )
    found = []
    model.eval()
    with (
        torch.inference_mode(),
        tqdm(total=len(dataset), desc="features", unit=" images", disable=None, dynamic_ncols=True) as bar,
    ):
        for pixels, _ in loader:
            found.append(model.backbone(model.normalize(pixels.to(device).permute(0, 3, 1, 2))).mean(dim=(2, 3)).cpu())
            bar.update(len(pixels))
    return torch.cat(found)


def fit_head(model: Wildcat, dataset: Dataset, config: TrainConfig, device: torch.device) -> Row:
    """Set the transfer layer to linear SVMs on the training pictures' features; the row of ``metrics.csv``.

    Labels of difficult objects count as the setting ``difficult`` says; where 0 means that nobody looked, pictures are
    left out for the class.
    """
    start = time.perf_counter()
    features = global_features(model, dataset, config, device)
    labels = dataset.labels
    if config.difficult == "positive" and not dataset.zeros_unknown:
        labels = np.where(labels == 0, np.int8(1), labels)
    weights, bias, strength, score = fit_linear_svms(
        features.numpy(), labels, multi_label=dataset.multi_label, seed=config.seed
    )
    with torch.no_grad():
        model.transfer.weight.copy_(torch.from_numpy(weights)[:, :, None, None])
        model.transfer.bias.copy_(torch.from_numpy(bias))
    seconds = time.perf_counter() - start
    validated = {} if math.isnan(score) else {"cv_map" if dataset.multi_label else "cv_accuracy": 100 * score}
    return {
        "epoch": 1,
        "svm_c": strength,
        **validated,
        "images_per_second": len(dataset) / seconds,
        "seconds": seconds,
    }
