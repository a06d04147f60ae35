"""A linear SVM per class: the classifier that is trained on the features of whole images."""

import math
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.metrics import average_precision
from wildcat.model import Wildcat
from wildcat.training.data import EvalDataset
from wildcat.training.history import Row

FOLDS = 3
STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # scikit-learn's C, for standardised features: small is strong


def fit_linear_svms(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int8], *, multi_label: bool, seed: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float, float]:
    """Fit one-against-all SVMs (squared hinge loss); one C for all classes, chosen by cross-validation.

    C rises until the score falls: weak regularisation takes by far the longest.

    Features are standardised, which is folded into the weights: the scores are ``features @ weights.T + bias``.

    Args:
        features: (N, D).
        labels: (N, C); 1, 0 (the image is left out for this class) or -1.
        multi_label: C is chosen by mAP, or else by accuracy.
        seed: of the folds.

    Returns:
        Weights (C, D), bias (C,), the chosen C, and its cross-validated score in [0, 1]: NaN where no image has a
        class, and the strongest regularisation is chosen.
    """
    best = STRENGTHS[0]
    score = _cross_validated(features, labels, multi_label, best, seed)
    for strength in STRENGTHS[1:]:
        found = _cross_validated(features, labels, multi_label, strength, seed)
        if not found >= score:
            break
        if found > score:
            best, score = strength, found
    weights, bias = _fit(features, labels, best)
    return weights, bias, best, score


def _fit(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int8], strength: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weights and bias on the features as they are; a class without both kinds of images scores 0 throughout."""
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    weights, bias = np.zeros((labels.shape[1], features.shape[1])), np.zeros(labels.shape[1])
    scaler = StandardScaler().fit(features.astype(np.float64))
    inputs = scaler.transform(features.astype(np.float64))
    for c in range(labels.shape[1]):
        counted = labels[:, c] != 0
        present = labels[counted, c] == 1
        if present.any() and not present.all():
            svm = LinearSVC(C=strength, dual=False).fit(inputs[counted], present)
            weights[c] = svm.coef_[0] / scaler.scale_
            bias[c] = svm.intercept_[0] - weights[c] @ scaler.mean_
    return weights, bias


def _cross_validated(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int8], multi_label: bool, strength: float, seed: int
) -> float:
    from sklearn.model_selection import KFold, StratifiedKFold

    folds: Any = KFold(min(FOLDS, len(features)), shuffle=True, random_state=seed)
    if not multi_label and (labels == 1).sum(axis=0).min() >= FOLDS:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    parts: Iterable[Any] = folds.split(features, labels.argmax(axis=1))
    scores = np.zeros(labels.shape)
    for rest, held_out in parts:
        weights, bias = _fit(features[rest], labels[rest], strength)
        scores[held_out] = features[held_out] @ weights.T + bias
    if multi_label:
        precisions = np.asarray(average_precision(scores, labels))
        known = precisions[np.isfinite(precisions)]
        return float(known.mean()) if known.size else math.nan
    return float((scores.argmax(axis=1) == labels.argmax(axis=1)).mean())


def global_features(model: Wildcat, dataset: Dataset, config: TrainConfig, device: torch.device) -> Tensor:
    """(N, D): the mean over positions of the backbone's features, of each image warped to ``image_size``."""
    loader = DataLoader(
        EvalDataset(dataset, config.image_size), config.batch_size, num_workers=config.workers or 0, pin_memory=False
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
    """Set the transfer layer to linear SVMs on the training images' features; the row of ``metrics.csv``.

    Labels of difficult objects count as the setting ``difficult`` says; where 0 means that nobody looked, images are
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
