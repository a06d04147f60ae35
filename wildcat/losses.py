"""Training criteria on pooled scores, and what "difficult" labels mean to them."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Difficult = Literal["positive", "ignore"]


def multi_label_loss(scores: Tensor, labels: Tensor, difficult: Difficult = "positive") -> Tensor:
    """Mean over images of the mean over classes of the logistic loss: the paper's multi-label soft margin.

    Args:
        scores: (N, C) logits.
        labels: (N, C): 1 present, 0 only difficult objects, -1 absent.
        difficult: count 0 as present (what the authors' code does), or leave it out of the image's mean.

    Returns:
        Scalar.

    >>> scores, labels = torch.tensor([[0.0, 0.0]]), torch.tensor([[1, -1]])
    >>> round(multi_label_loss(scores, labels).item(), 4)  # log 2
    0.6931
    """
    targets = (labels >= 0).to(scores.dtype)
    losses = functional.binary_cross_entropy_with_logits(scores, targets, reduction="none")
    if difficult == "positive":
        return losses.mean()
    counted = labels != 0
    # An image whose every class is difficult has no term: clamp keeps its mean 0 instead of 0 / 0.
    per_image = (losses * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
    return per_image.mean()


def multi_class_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the softmax over classes.

    Args:
        scores: (N, C) logits.
        labels: (N, C) with exactly one 1 in each row.

    Returns:
        Scalar, mean over images.

    >>> scores, labels = torch.tensor([[0.0, 0.0]]), torch.tensor([[1, -1]])
    >>> round(multi_class_loss(scores, labels).item(), 4)  # log 2
    0.6931
    """
    return functional.cross_entropy(scores, labels.argmax(dim=1))


def probabilities(scores: Tensor, multi_label: bool) -> Tensor:
    """Probabilities (N, C) in [0, 1] of logits (N, C): a sigmoid per class, or a softmax over classes.

    >>> probabilities(torch.tensor([[0.0, 0.0]]), multi_label=True).tolist()
    [[0.5, 0.5]]
    """
    return scores.sigmoid() if multi_label else torch.softmax(scores, dim=1)
