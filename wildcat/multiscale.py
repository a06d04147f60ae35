"""Several sizes and models combined (Section 4): test-time scales, mean of scales, Object Bank.

Object Bank: the scores of all scales are one representation, on which a linear classifier per class is trained
(Li, Su, Xing, Fei-Fei, "Object Bank", 2010). Scores of images that the models were trained on are over-fitted (mAP 99),
so the classifiers are fitted on held-out images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from wildcat.errors import WildcatError
from wildcat.losses import probabilities

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
    """Probabilities (N, C) of S scales as one vector per image, (N, S * C), unbounded like scores.

    Log-odds where classes are independent, logarithms where they exclude each other. The logits themselves are not
    available for a model at several test-time sizes, which averages probabilities.
    """
    joined = torch.cat(list(probabilities), dim=1).double().clamp(_BOUND, 1 - _BOUND)
    return torch.logit(joined) if multi_label else joined.log()


def fit_object_bank(
    probabilities: Sequence[Tensor], labels: npt.NDArray[np.int8], *, multi_label: bool, seed: int = 0
) -> tuple[ObjectBank, npt.NDArray[np.float64]]:
    """Fit the classifiers on images that no model was trained on.

    Logistic regression, L2-regularised; the strength of the regularisation is the one with the lowest logarithmic loss
    in stratified cross-validation: for each class by itself where classes are independent, for all together where they
    exclude each other. An independent class with fewer than two positives or negatives keeps the mean of its own
    scores over scales.

    Args:
        probabilities: (N, C) of each of S scales.
        labels: (N, C); 1, 0 (ignored: the image is left out for this class) or -1.
        multi_label: whether classes are independent.
        seed: of the folds.

    Returns:
        The bank, and the cross-validated logits (N, C) of the images, which estimate the scores on new images.

    Raises:
        WildcatError: if classes exclude each other and one of them has fewer than two images.
    """
    inputs = representation(probabilities, multi_label).numpy()
    count = labels.shape[1]
    if not multi_label:
        fewest = int((labels == 1).sum(axis=0).min())
        if fewest < 2:
            raise WildcatError(f"an Object Bank needs two held-out images of every class; one class has {fewest}")
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
            row, offset, logits = _fit(inputs[counted], present.astype(np.int64), seed)
            weights[c], bias[c] = row[1] - row[0], offset[1] - offset[0]
            unseen[counted, c] = logits[:, 1] - logits[:, 0]
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
    if len(weights) == 1:  # for two classes scikit-learn keeps only the second one's row
        weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
    return weights, bias, best[2]


class NetworkOutput(Protocol):
    """The output of a network for N images, see :class:`wildcat.model.WildcatOutput`."""

    @property
    def scores(self) -> Tensor:
        """(N, C) logits."""

    @property
    def class_maps(self) -> Tensor:
        """(N, C, h, w)."""

    @property
    def multi_maps(self) -> Tensor:
        """(N, C * M, h, w)."""


@dataclass(frozen=True)
class BatchOutput:
    """The prediction for a batch of N images, over all sizes.

    Attributes:
        probabilities: (N, C) in [0, 1].
        class_maps: (N, C, h, w).
        multi_maps: (N, C * M, h, w). Of several sizes both maps are means over them, so that only the mean over the M
            maps of a class is its class map again.
    """

    probabilities: Tensor
    class_maps: Tensor
    multi_maps: Tensor


def on_finest_grid(maps: Sequence[Tensor]) -> list[Tensor]:
    """Interpolate maps (N, K, h_i, w_i) bilinearly to the finest of their grids.

    Each map covers the whole image, so the same relative position on two grids is the same place in the image.
    """
    height, width = max((m.shape[2:] for m in maps), key=lambda shape: shape[0] * shape[1])
    return [
        m
        if m.shape[2:] == (height, width)
        else functional.interpolate(m, (height, width), mode="bilinear", align_corners=False)
        for m in maps
    ]


def fuse_maps(maps: Sequence[Tensor]) -> Tensor:
    """Mean of maps (N, K, h_i, w_i) on the finest of their grids."""
    if len(maps) == 1:
        return maps[0]
    return torch.stack(on_finest_grid(maps)).mean(dim=0)


def predict_batch(
    network: Callable[[Tensor], NetworkOutput],
    images: Mapping[int, Tensor],
    score_sizes: Sequence[int],
    map_sizes: Sequence[int],
    *,
    mirror: bool = False,
    multi_label: bool = True,
) -> BatchOutput:
    """Average the predictions for N images at several sizes, and mirrored if asked (test-time scales, Section 4).

    Args:
        network: a Wildcat model in evaluation mode, or an exported one.
        images: side in pixels -> normalised input (N, 3, side, side), the same N images at every side.
        score_sizes: sides whose probabilities are averaged.
        map_sizes: sides whose maps are averaged, on the finest of their grids.
        mirror: average with the mirrored images; their maps are mirrored back.
        multi_label: sigmoid per class, or softmax over classes.

    >>> import wildcat
    >>> model = wildcat.create_model("lite0", num_classes=5, num_maps=2, pretrained=False).eval()
    >>> images = {side: torch.zeros(1, 3, side, side) for side in (64, 96)}
    >>> output = predict_batch(model, images, score_sizes=[64], map_sizes=[64, 96], mirror=True)
    >>> output.probabilities.shape, output.class_maps.shape, output.multi_maps.shape
    (torch.Size([1, 5]), torch.Size([1, 5, 3, 3]), torch.Size([1, 10, 3, 3]))
    """
    all_probabilities: list[Tensor] = []
    class_maps: list[Tensor] = []
    multi_maps: list[Tensor] = []
    for size in sorted({*score_sizes, *map_sizes}):
        for mirrored in (False, True) if mirror else (False,):
            output = network(images[size].flip(3) if mirrored else images[size])
            if size in score_sizes:
                all_probabilities.append(probabilities(output.scores, multi_label))
            if size in map_sizes:
                class_maps.append(output.class_maps.flip(3) if mirrored else output.class_maps)
                multi_maps.append(output.multi_maps.flip(3) if mirrored else output.multi_maps)
    return BatchOutput(torch.stack(all_probabilities).mean(dim=0), fuse_maps(class_maps), fuse_maps(multi_maps))


def ensemble(
    outputs: Sequence[BatchOutput], *, multi_label: bool = True, bank: ObjectBank | None = None
) -> BatchOutput:
    """Combine the outputs of several models, trained at different scales, for the same N images.

    Args:
        outputs: of each model, in the order in which the bank was fitted.
        multi_label: sigmoid per class, or softmax over classes.
        bank: gives the probabilities; without it they are the mean over models.

    Returns:
        The combined output. Class maps are the mean over models on the finest grid, with a bank as well: its weights
        across classes would move one class's points to another's objects. The multi-maps of all models stand side by
        side, class-major.
    """
    each = [output.probabilities for output in outputs]
    combined = torch.stack(each).mean(dim=0)
    if bank is not None:
        known = len(bank.bias)  # not the background class, which comes last
        # On the CPU: the bank is there, and in double precision, which not every device has.
        scores = bank.scores([p[:, :known].cpu() for p in each], multi_label)
        combined = probabilities(scores, multi_label).to(combined)
    count = outputs[0].class_maps.shape[1]
    multi = [maps.unflatten(1, (count, -1)) for maps in on_finest_grid([output.multi_maps for output in outputs])]
    return BatchOutput(
        combined,
        fuse_maps([output.class_maps for output in outputs]),
        torch.cat(multi, dim=2).flatten(1, 2),  # (N, C, M_1 + M_2 + ..., h, w) -> (N, C * (M_1 + ...), h, w)
    )
