"""The solver "svm": a linear SVM per class on the averaged features of the backbone, which is not trained.

It is the baseline "ResNet-101 features" of the paper's Tables 2 to 4.
"""

import logging
import math
import time
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.metrics import average_precision
from wildcat.model import Wildcat
from wildcat.runs.folder import save_weights
from wildcat.system.lock import FolderLock
from wildcat.training.distributed import ProcessGroup
from wildcat.training.feature_store import FeatureStore
from wildcat.training.features import global_features
from wildcat.training.frozen import FrozenFeatures
from wildcat.training.history import MetricsWriter, Row, describe
from wildcat.training.progress import RunProgress
from wildcat.training.validation import criterion_for, validate

logger = logging.getLogger(__name__)

Floats: TypeAlias = npt.NDArray[np.float64]

FOLDS = 3
C_VALUES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # scikit-learn's C, for standardized features: small regularizes strongly


class LinearSVMs(NamedTuple):
    """Linear classifiers of C classes on D features.

    Attributes:
        weights: (C, D).
        bias: (C,).
        strength: scikit-learn's C, chosen by cross-validation.
        score: its cross-validated score in [0, 1]; NaN where no image has a class, and the strength is the lowest then.
        held_out_scores: (N, C), of each image by the classifiers that were fitted without it, at this strength.
    """

    weights: Floats
    bias: Floats
    strength: float
    score: float
    held_out_scores: Floats


def fit_linear_svms(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int8], *, multi_label: bool, seed: int = 0
) -> LinearSVMs:
    """Fit one-against-all SVMs (squared hinge loss); cross-validation chooses one C for all classes.

    C rises until the score falls, because weak regularization takes by far the longest.

    The features are standardized, and this is folded into the weights: the scores are ``features @ weights.T + bias``.

    Args:
        features: (N, D).
        labels: (N, number of classes): 1, 0 (the image is left out for this class) or -1.
        multi_label: choose C by mAP; otherwise by accuracy.
        seed: of the folds.
    """
    best = C_VALUES[0]
    best_score, held_out = _cross_validated(features, labels, multi_label, best, seed)
    for value in C_VALUES[1:]:
        score, scores = _cross_validated(features, labels, multi_label, value, seed)
        if not score >= best_score:  # also where it is NaN
            break
        if score > best_score:
            best, best_score, held_out = value, score, scores
    weights, bias = _fit(features, labels, best)
    return LinearSVMs(weights, bias, best, best_score, held_out)


def _fit(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int8], strength: float) -> tuple[Floats, Floats]:
    """Weights and bias for unscaled features; they are 0 for a class that has no images or no other images."""
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
) -> tuple[float, Floats]:
    """The score in [0, 1], and the scores (N, C) of each image by the classifiers that were fitted without it."""
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
        return float(known.mean()) if known.size else math.nan, scores
    return float((scores.argmax(axis=1) == labels.argmax(axis=1)).mean()), scores


def counted_labels(dataset: Dataset, config: TrainConfig) -> npt.NDArray[np.int8]:
    """Labels (N, C) as a linear classifier counts them: 1, 0 (left out for the class) or -1.

    The setting ``difficult`` decides how labels of difficult objects count. In datasets whose label 0 means unknown,
    such images are left out for the class.
    """
    labels = dataset.labels
    if config.difficult == "positive" and not dataset.zeros_unknown:
        labels = np.where(labels == 0, np.int8(1), labels)
    return labels


def fit_head(
    group: ProcessGroup,
    model: Wildcat,
    dataset: Dataset,
    config: TrainConfig,
    progress: RunProgress,
    store: FeatureStore | None = None,
) -> Row:
    """Set the transfer layer to linear SVMs on the features of the training images; return the row of ``metrics.csv``.

    Args:
        group: of one process.
        model: its transfer layer is set.
        dataset: the training set.
        config: the settings.
        progress: advanced by the images.
        store: the features of a frozen backbone; otherwise they are computed.
    """
    start = time.perf_counter()
    progress.stage("features")
    features = global_features(group, model, dataset, config, progress.add, store)
    progress.stage("linear SVMs")
    labels = counted_labels(dataset, config)
    fit = fit_linear_svms(features.numpy(), labels, multi_label=dataset.multi_label, seed=config.seed)
    with torch.no_grad():
        model.transfer.weight.copy_(torch.from_numpy(fit.weights)[:, :, None, None])
        model.transfer.bias.copy_(torch.from_numpy(fit.bias))
    seconds = time.perf_counter() - start
    validated = {} if math.isnan(fit.score) else {"cv_map" if dataset.multi_label else "cv_accuracy": 100 * fit.score}
    return {
        "epoch": 1,
        "svm_c": fit.strength,
        **validated,
        "images_per_second": len(dataset) / seconds,
        "seconds": seconds,
    }


def train_linear_svms(
    group: ProcessGroup,
    model: Wildcat,
    config: TrainConfig,
    dataset: Dataset,
    validation: Dataset | None,
    lock: FolderLock,
    progress: RunProgress,
    frozen: FrozenFeatures | None = None,
) -> None:
    """Train the head of a run by linear SVMs, and write its curves and weights; nothing is saved before the end.

    Args:
        group: of one process.
        model: its transfer layer is set.
        config: the settings.
        dataset: the training set.
        validation: the validation set, scored at the end.
        lock: on the folder of the run.
        progress: advanced by the images.
        frozen: the features, where the setting ``frozen`` keeps them.
    """
    row = fit_head(group, model, dataset, config, progress, None if frozen is None else frozen.training)
    if validation is not None:
        criterion, features = criterion_for(dataset, config), None if frozen is None else frozen.validation
        row |= validate(group, model, validation, config, criterion, features=features)
    with MetricsWriter(lock) as metrics:
        metrics.write([row])
    logger.info("%s", describe(row, 1))
    save_weights(lock.folder, model.state_dict())
