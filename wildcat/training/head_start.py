"""The head that a training starts from: a linear classifier, fitted on features of the backbone as it is.

The features of an image are averaged over positions, so this takes one pass over the images and no gradient. The
classifier becomes the transfer layer, and the training of the whole network starts from it: few images need far fewer
steps than from a random head.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.model import Wildcat
from wildcat.training.distributed import ProcessGroup
from wildcat.training.feature_store import FeatureStore
from wildcat.training.features import global_features
from wildcat.training.linear_svm import counted_labels, fit_linear_svms
from wildcat.training.progress import RunProgress
from wildcat.transfer import MultiMapTransfer

# Images that a head is fitted on at most: more take minutes, and the training has them all.
MAX_IMAGES = 2000
# scikit-learn's C of the softmax classifier, for features that are 1 away from their mean (root mean square).
SOFTMAX_C = 100.0


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier on averaged features.

    Attributes:
        weights: (C, D).
        bias: (C,).
    """

    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]

    def scores(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Logits (N, C) of features (N, D)."""
        scores: npt.NDArray[np.float64] = features @ self.weights.T + self.bias
        return scores


def start_head(
    group: ProcessGroup,
    model: Wildcat,
    dataset: Dataset,
    config: TrainConfig,
    progress: RunProgress,
    store: FeatureStore | None = None,
) -> None:
    """Set the transfer layer of a new model to a classifier that is fitted on the features of the training images.

    All processes call this and end with the same head.

    Args:
        group: the processes.
        model: whole in each process, on its device.
        dataset: the training set.
        config: the settings.
        progress: advanced by the images.
        store: the features of a frozen backbone; otherwise they are computed.
    """
    progress.stage("features")
    chosen = fitted_images(dataset.labels, config.seed)
    part = dataset.subset(chosen) if len(chosen) < len(dataset) else dataset
    if store is not None:
        store = store.subset(chosen)
    features = global_features(group, model, part, config, lambda images: progress.add(images * group.count), store)
    progress.stage("head")
    head = group.on_main(lambda: _fitted(features, part, config))
    set_head(model, head)


def fitted_head(dataset: Dataset, config: TrainConfig, store: FeatureStore) -> LinearHead:
    """The classifier of :func:`start_head` for features that are computed already.

    Args:
        dataset: the training set.
        config: the settings.
        store: its features.
    """
    chosen = fitted_images(dataset.labels, config.seed)
    return _fitted(store.subset(chosen).average(), dataset.subset(chosen), config)


def _fitted(features: Tensor, part: Dataset, config: TrainConfig) -> LinearHead:
    return fit_linear_head(
        features.numpy(), counted_labels(part, config), multi_label=part.multi_label, seed=config.seed
    )


def scale_initial_weights(transfer: MultiMapTransfer, scale: float) -> None:
    """Multiply the random weights of a new transfer layer; with 0, filters, maps and scores start at zero.

    The M maps of a class whose filters start equal stay equal while Equation 1 averages them.

    >>> layer = MultiMapTransfer(8, num_classes=3, num_maps=2)
    >>> scale_initial_weights(layer, 0.0)
    >>> layer.weight.count_nonzero().item(), layer.bias.count_nonzero().item()
    (0, 0)
    """
    with torch.no_grad():
        transfer.weight.mul_(scale)
        transfer.bias.mul_(scale)


def fitted_images(labels: npt.NDArray[np.int8], seed: int, limit: int = MAX_IMAGES) -> list[int]:
    """Choose the images that a head is fitted on: all, or at random so that rare classes keep their images.

    Args:
        labels: (N, C): 1, 0 or -1.
        seed: of the choice.
        limit: number of images at most.

    Returns:
        Their indices, increasing.
    """
    total, classes = labels.shape
    if total <= limit:
        return list(range(total))
    order = np.random.default_rng(seed).permutation(total)
    share, found = limit // (2 * classes), np.zeros(classes, np.int64)
    first: list[int] = []
    rest: list[int] = []
    for index in order:
        present = labels[index] == 1
        needed = bool((present & (found < share)).any())
        (first if needed else rest).append(int(index))
        found += present & needed
    return sorted([*first, *rest][:limit])


def fit_linear_head(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int8], *, multi_label: bool, seed: int = 0
) -> LinearHead:
    """Fit a linear classifier whose scores are logits.

    One class per image: a softmax classifier with L2 regularization. Several: linear SVMs, as of
    :func:`fit_linear_svms`, whose cross-validated scores are turned into logits by one scale, and a shift per class
    (Platt 1999).

    Args:
        features: (N, D).
        labels: (N, C): 1, 0 (the image is left out for this class) or -1.
        multi_label: whether an image may have several classes.
        seed: of the folds.
    """
    if multi_label:
        fit = fit_linear_svms(features, labels, multi_label=True, seed=seed)
        scale, shift = calibration(fit.held_out_scores, labels)
        return LinearHead(scale * fit.weights, scale * fit.bias + shift)
    return _fit_softmax(features, labels.argmax(axis=1), labels.shape[1])


def _fit_softmax(features: npt.NDArray[np.float32], targets: npt.NDArray[np.int64], classes: int) -> LinearHead:
    """The softmax classifier; a class without images gets the mean of the others' weights, and a lower bias.

    All features are divided by the same number: from few images, the deviation of each is not known well.
    """
    from sklearn.linear_model import LogisticRegression

    dimensions = features.shape[1]
    weights, bias = np.zeros((classes, dimensions)), np.zeros(classes)
    present = np.unique(targets)
    if len(present) < 2:
        return LinearHead(weights, bias)
    centre = features.mean(axis=0, dtype=np.float64)
    inputs = features - centre
    scale = max(float(np.sqrt((inputs**2).sum(axis=1).mean())), 1e-12)
    found = LogisticRegression(C=SOFTMAX_C, max_iter=1000, tol=1e-6).fit(inputs / scale, targets)
    coefficients, intercepts = found.coef_, found.intercept_
    if len(present) == 2:  # scikit-learn has one row for two classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weights[present] = coefficients / scale
    bias[present] = intercepts - weights[present] @ centre
    absent = np.setdiff1d(np.arange(classes), present)
    weights[absent], bias[absent] = weights[present].mean(axis=0), bias[present].mean() - 1
    return LinearHead(weights, bias)


def calibration(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int8]) -> tuple[float, npt.NDArray[np.float64]]:
    """Find one scale, and a shift per class, with which scores are logits: those of the smallest logistic loss.

    Args:
        scores: (N, C), of images that did not fit the classifier.
        labels: (N, C): 1, 0 (not counted) or -1.

    Returns:
        The scale, above 0, and the shifts (C,).
    """
    centre = scores.mean(axis=0)
    x, y = torch.from_numpy(scores - centre), torch.from_numpy(labels > 0).double()
    counted = torch.from_numpy(labels != 0).double()
    spread = max(float(x.std()), 1e-12) if x.numel() > 1 else 1.0
    log_scale = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_scale, shift], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = log_scale.exp() * x / spread + shift
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none") * counted
        # A class that no image has, or all have, would be shifted without end; neither may the scale leave its range.
        loss = losses.sum() / counted.sum().clamp(min=1) + 1e-4 * (shift.square().mean() + log_scale.square().sum())
        loss.backward()
        return loss

    optimizer.step(closure)
    scale = float(log_scale.detach().exp()) / spread
    return scale, shift.detach().numpy() - scale * centre


class HeadParts(Protocol):
    """What a classifier is set into: a model, or a head without its backbone."""

    @property
    def transfer(self) -> MultiMapTransfer:
        """The transfer layer."""

    @property
    def pooling(self) -> nn.Module:
        """The spatial pooling."""

    @property
    def architecture(self) -> str:
        """Whether class maps are pooled, "a", or features, "b"."""


def set_head(model: HeadParts, head: LinearHead) -> None:
    """Set the transfer layer so that an image with the same features everywhere has the scores of a linear classifier.

    With average pooling these are the scores of any image. The M maps of a class keep their random differences; their
    mean is the class map, to which other kinds of class-wise pooling add a little, as far as the maps differ. A
    background class, which the classifier lacks, keeps its random weights.

    Args:
        model: with a transfer layer of at least as many classes as the classifier has.
        head: the classifier.
    """
    transfer, classes = model.transfer, len(head.bias)
    shape = (transfer.num_classes, transfer.num_maps)
    gain = _gain(model)
    with torch.no_grad():
        weight = transfer.weight.flatten(1).unflatten(0, shape)[:classes]  # (C, M, D), a view
        bias = transfer.bias.unflatten(0, shape)[:classes]
        weights = torch.from_numpy(head.weights / gain).to(weight)
        # With architecture "b" the features are pooled before the bias is added.
        shift = torch.from_numpy(head.bias / (gain if model.architecture == "a" else 1)).to(bias)
        weight += weights[:, None] - weight.mean(dim=1, keepdim=True)
        bias += shift[:, None] - bias.mean(dim=1, keepdim=True)


def _gain(model: HeadParts) -> float:
    """The score of a class map of ones: 1 + alpha for WILDCAT's pooling, 1 for an average."""
    channels = model.transfer.num_classes if model.architecture == "a" else model.transfer.in_channels
    weight = model.transfer.weight
    ones = torch.ones(1, channels, 7, 7, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        gain = float(model.pooling(ones).float().mean())
    return gain if gain > 1e-3 else 1.0  # a pooling of the user's own may be anything
