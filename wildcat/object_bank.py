"""Object Bank: the scores of all scales are one representation, on which a linear classifier per class is trained.

Source: Li, Su, Xing, Fei-Fei, "Object Bank", 2010, as the paper uses it to combine scales. Scores of pictures that the
models were trained on say nothing about new ones (mAP 99), so the classifiers are fitted on held-out pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wildcat.errors import WildcatError

FOLDS = 5
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # scikit-learn's C: small is strong regularisation
_BOUND = 1e-6  # probabilities are kept this far from 0 and 1, so that their logarithms are finite


@dataclass(frozen=True, eq=False)
class ObjectBank:
    """A linear classifier per class on the scores of all scales.

    Attributes:
        weights: (C, S * C); column s * C + c belongs to class c at scale s, in the order of the scales.
        bias: (C,).
    """

    weights: Tensor
    bias: Tensor

    def scores(self, probabilities: Sequence[Tensor], multi_label: bool) -> Tensor:
        """Logits (N, C) from the probabilities (N, C) of each scale."""
        return representation(probabilities, multi_label) @ self.weights.T + self.bias


def representation(probabilities: Sequence[Tensor], multi_label: bool) -> Tensor:
    """Probabilities (N, C) of S scales as one vector a picture, (N, S * C), unbounded like the scores behind them.

    Log-odds where classes are independent, logarithms where they exclude each other. (The logits themselves would not
    do: a model that reads several sizes averages probabilities.)
    """
    joined = torch.cat(list(probabilities), dim=1).double().clamp(_BOUND, 1 - _BOUND)
    return torch.logit(joined) if multi_label else joined.log()


def fit_object_bank(
    probabilities: Sequence[Tensor], labels: npt.NDArray[np.int8], *, multi_label: bool, seed: int = 0
) -> tuple[ObjectBank, npt.NDArray[np.float64]]:
    """Fit the classifiers on pictures that no model was trained on.

    Logistic regression, L2-regularised; the strength of the regularisation is the one with the lowest logarithmic loss
    in stratified cross-validation: for each class by itself where classes are independent, for all together where they
    exclude each other. An independent class with fewer than two positives or negatives keeps the mean of its own
    scores over scales.

    Args:
        probabilities: (N, C) of each of S scales.
        labels: (N, C); 1, 0 (the picture is left out for this class) or -1.
        multi_label: whether classes are independent.
        seed: of the folds.

    Returns:
        The bank, and the logits (N, C) that cross-validation gave each picture without having seen it: what the bank
        is worth on new pictures.

    Raises:
        WildcatError: if classes exclude each other and one of them has fewer than two pictures.
    """
    inputs = representation(probabilities, multi_label).numpy()
    count = labels.shape[1]
    if not multi_label:
        fewest = int((labels == 1).sum(axis=0).min())
        if fewest < 2:
            raise WildcatError(f"an Object Bank needs two held-out pictures of every class; one class has {fewest}")
        weights, bias, unseen = _fit(inputs, labels.argmax(axis=1), seed)
        return ObjectBank(torch.from_numpy(weights), torch.from_numpy(bias)), unseen
    scales = len(probabilities)
    weights = np.tile(np.eye(count) / scales, scales)  # (C, S * C): the mean of each class's own scores
    bias = np.zeros(count)
    unseen = inputs @ weights.T
    for c in range(count):
        counted = labels[:, c] != 0
        present = labels[counted, c] == 1
        if min(present.sum(), (~present).sum()) >= 2:
            row, offset, found = _fit(inputs[counted], present.astype(np.int64), seed)
            weights[c], bias[c], unseen[counted, c] = row[1] - row[0], offset[1] - offset[0], found[:, 1] - found[:, 0]
    return ObjectBank(torch.from_numpy(weights), torch.from_numpy(bias)), unseen


def _fit(
    inputs: npt.NDArray[np.float64], classes: npt.NDArray[np.int64], seed: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weights (K, F), bias (K,) and cross-validated logits (N, K) of classes 0 ... K - 1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedKFold(min(FOLDS, int(np.bincount(classes).min())), shuffle=True, random_state=seed)
    best: tuple[float, Any, npt.NDArray[np.float64]] | None = None
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
        unseen = cross_val_predict(model, inputs, classes, cv=folds, method="predict_log_proba")
        loss = -float(unseen[np.arange(len(classes)), classes].mean())
        if best is None or loss < best[0]:
            best = (loss, model, unseen)
    assert best is not None
    scaler, regression = best[1].fit(inputs, classes)
    weights = regression.coef_ / scaler.scale_
    bias = regression.intercept_ - weights @ scaler.mean_
    if len(weights) == 1:  # of two classes scikit-learn keeps the second one's row alone
        weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
    return weights, bias, best[2]
