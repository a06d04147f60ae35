"""Losses of pooled scores (Section 3.4), and how they count labels of difficult objects."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Difficult = Literal["positive", "ignore"]


def multi_label_loss(scores: Tensor, labels: Tensor, difficult: Difficult = "positive") -> Tensor:
    """Multi-label soft margin loss: the mean over images of the mean over classes of the logistic loss.

    Source: Section 3.4, for images with several classes.

    Args:
        scores: (N, C) logits.
        labels: (N, C): 1 present, 0 only difficult objects, -1 absent.
        difficult: "positive" counts 0 as present, as the authors' code does; "ignore" leaves it out of the mean.

    Returns:
        A scalar, 0 or more.

    >>> scores, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([[1, -1]])
    >>> round(multi_label_loss(scores, labels).item(), 4)  # (log(1 + exp(-2)) + log(1 + exp(-1))) / 2
    0.2201
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
    """Cross-entropy of the softmax over classes, averaged over images.

    Source: Section 3.4, for images with one class each.

    Args:
        scores: (N, C) logits.
        labels: (N, C) with exactly one 1 in each row.

    Returns:
        A scalar, 0 or more.

    >>> scores, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([[1, -1]])
    >>> round(multi_class_loss(scores, labels).item(), 4)  # log(1 + exp(-3))
    0.0486
    """
    return functional.cross_entropy(scores, labels.argmax(dim=1))


def probabilities(scores: Tensor, multi_label: bool) -> Tensor:
    """Probabilities (N, C) in [0, 1] of logits (N, C): a sigmoid per class, or a softmax over classes.

    >>> probabilities(torch.tensor([[0.0, 0.0]]), multi_label=False).tolist()
    [[0.5, 0.5]]
    """
    return scores.sigmoid() if multi_label else torch.softmax(scores, dim=1)
