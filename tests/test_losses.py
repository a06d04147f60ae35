"""Losses against PyTorch's own criteria; what "difficult" means, by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wildcat.losses import multi_class_loss, multi_label_loss, probabilities


def softplus(x: float) -> float:
    """Logistic loss of an absent class with logit x, and of a present class with logit -x."""
    return math.log1p(math.exp(x))


@st.composite
def scores_and_labels(draw: st.DrawFn, values: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    images, classes = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    scores = 4 * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    chosen = torch.randint(len(values), (images, classes), generator=generator)
    return scores, torch.tensor(values, dtype=torch.int8)[chosen]


@settings(max_examples=60, deadline=None)
@given(scores_and_labels((1, -1)), st.sampled_from(["positive", "ignore"]))
def test_multi_label_is_pytorchs_soft_margin_where_nothing_is_difficult(pair: tuple[Tensor, Tensor], mode: str) -> None:
    scores, labels = pair
    expected = nn.MultiLabelSoftMarginLoss()(scores, (labels == 1).double())
    torch.testing.assert_close(multi_label_loss(scores, labels, mode), expected)


@settings(max_examples=60, deadline=None)
@given(scores_and_labels((1, 0, -1)))
def test_difficult_counts_as_present_or_leaves_the_mean_of_its_image(pair: tuple[Tensor, Tensor]) -> None:
    scores, labels = pair
    present = nn.MultiLabelSoftMarginLoss()(scores, (labels >= 0).double())
    torch.testing.assert_close(multi_label_loss(scores, labels), present)

    total = 0.0
    for row, given_labels in zip(scores.tolist(), labels.tolist(), strict=True):
        terms = [softplus(-s if y == 1 else s) for s, y in zip(row, given_labels, strict=True) if y != 0]
        total += sum(terms) / len(terms) if terms else 0.0
    assert multi_label_loss(scores, labels, "ignore").item() == pytest.approx(total / len(scores))


def test_difficult_by_hand() -> None:
    scores = torch.tensor([[2.0, -1.0, 3.0], [0.5, 4.0, 1.0]], requires_grad=True)
    labels = torch.tensor([[1, 0, -1], [0, 0, 0]], dtype=torch.int8)
    first = (softplus(-2.0) + softplus(3.0)) / 2
    loss = multi_label_loss(scores, labels, "ignore")
    assert loss.item() == pytest.approx((first + 0.0) / 2)  # nothing to learn from the second image, no 0 / 0
    loss.backward()
    assert scores.grad is not None and scores.grad.isfinite().all()
    assert torch.equal(scores.grad != 0, labels != 0)


def test_unweighted_zero_scores_cost_log_two() -> None:
    labels = torch.tensor([[1, -1, 0, -1]], dtype=torch.int8)
    for mode in ("positive", "ignore"):
        assert multi_label_loss(torch.zeros(1, 4), labels, mode).item() == pytest.approx(math.log(2))


def test_extreme_scores_stay_finite() -> None:
    scores = torch.tensor([[1000.0, -1000.0]])
    assert multi_label_loss(scores, torch.tensor([[1, -1]])).item() == 0.0
    assert multi_label_loss(scores, torch.tensor([[-1, 1]])).item() == pytest.approx(1000.0)


@settings(max_examples=60, deadline=None)
@given(scores_and_labels((-1,)), st.integers(0, 1000))
def test_multi_class_is_the_cross_entropy_of_the_one_label(pair: tuple[Tensor, Tensor], seed: int) -> None:
    scores, labels = pair
    target = torch.randint(scores.shape[1], (len(scores),), generator=torch.Generator().manual_seed(seed))
    labels = labels.scatter(1, target[:, None], 1)
    torch.testing.assert_close(multi_class_loss(scores, labels), nn.CrossEntropyLoss()(scores, target))


def test_gradients() -> None:
    scores = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, -1, 0, -1], [-1, 1, -1, -1], [0, -1, -1, 1]], dtype=torch.int8)
    assert torch.autograd.gradcheck(lambda s: multi_label_loss(s, labels), (scores,))
    assert torch.autograd.gradcheck(lambda s: multi_label_loss(s, labels, "ignore"), (scores,))
    assert torch.autograd.gradcheck(lambda s: multi_class_loss(s, labels), (scores,))


def test_probabilities_are_a_sigmoid_per_class_or_a_softmax_over_them() -> None:
    scores = torch.tensor([[0.0, math.log(3.0)]])
    torch.testing.assert_close(probabilities(scores, multi_label=True), torch.tensor([[0.5, 0.75]]))
    torch.testing.assert_close(probabilities(scores, multi_label=False), torch.tensor([[0.25, 0.75]]))
