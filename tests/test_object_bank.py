"""Linear classifiers on the scores of all scales: compared with scikit-learn, and computed by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from wildcat.errors import WildcatError
from wildcat.metrics import average_precision
from wildcat.multiscale import STRENGTHS, ObjectBank, fit_object_bank, representation
from wildcat.runs.scales import load_bank, save_bank


def scale_probabilities(
    labels: np.ndarray, noise: list[float], seed: int = 0, *, exclusive: bool = False
) -> list[torch.Tensor]:
    """Probabilities of one scale for each level of noise: logits of 1 or -1 plus noise."""
    rng = np.random.default_rng(seed)
    logits = [torch.from_numpy(2.0 * (labels == 1) - 1 + n * rng.normal(size=labels.shape)) for n in noise]
    return [torch.softmax(x, 1) if exclusive else x.sigmoid() for x in logits]


def multi_label(count: int = 300, classes: int = 4, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).choice([1, 0, -1], p=[0.3, 0.05, 0.65], size=(count, classes)).astype(np.int8)


def one_class(count: int = 240, classes: int = 3) -> np.ndarray:
    labels = np.full((count, classes), -1, dtype=np.int8)
    labels[np.arange(count), np.arange(count) % classes] = 1
    return labels


def test_representation_by_hand() -> None:
    scales = [torch.tensor([[0.5, 0.75]]), torch.tensor([[0.2, 1.0]])]
    odds = representation(scales, multi_label=True)
    assert odds.shape == (1, 4) and odds.dtype == torch.float64
    assert odds[0, :3].tolist() == pytest.approx([0, np.log(3), np.log(0.25)], abs=1e-6)
    assert odds[0, 3] == pytest.approx(np.log(1e6), rel=1e-3)  # a certainty stays finite
    assert representation(scales, multi_label=False)[0, 0] == pytest.approx(np.log(0.5))


def test_scores_are_linear_in_the_scores_of_all_scales() -> None:
    bank = ObjectBank(torch.tensor([[1.0, 0.0, 0.0, -2.0]]).double(), torch.tensor([0.5]).double())
    logits = [torch.tensor([[0.3, -1.0]]).double(), torch.tensor([[2.0, 1.5]]).double()]
    scores = bank.scores([x.sigmoid() for x in logits], multi_label=True)
    assert scores.item() == pytest.approx(0.3 - 2 * 1.5 + 0.5)


@pytest.mark.slow
def test_each_class_is_scikit_learns_classifier_of_one_of_the_strengths() -> None:
    labels = multi_label()
    scales = scale_probabilities(labels, [1.5, 2.5])
    bank, _ = fit_object_bank(scales, labels, multi_label=True)
    scores = bank.scores(scales, multi_label=True).numpy()
    inputs = representation(scales, multi_label=True).numpy()
    for c in range(labels.shape[1]):
        counted = labels[:, c] != 0
        scaler = StandardScaler().fit(inputs[counted])
        candidates = []
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=5000)
            model.fit(scaler.transform(inputs[counted]), labels[counted, c] == 1)
            candidates.append(np.abs(model.decision_function(scaler.transform(inputs)) - scores[:, c]).max())
        assert min(candidates) < 1e-9


@pytest.mark.parametrize("noise", [0.3, 6.0])
def test_the_strength_with_the_lowest_loss_on_unseen_images_is_chosen(
    noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = one_class(60, 2)
    scales = scale_probabilities(labels, [noise], exclusive=True)

    def fitted(*strengths: float) -> tuple[np.ndarray, float]:
        """Weights, and the logarithmic loss of the cross-validated logits."""
        monkeypatch.setattr("wildcat.multiscale.STRENGTHS", strengths)
        bank, unseen = fit_object_bank(scales, labels, multi_label=False)
        logits = torch.from_numpy(unseen)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels.argmax(axis=1)))
        return bank.weights.numpy(), float(loss)

    weights, losses = zip(*(fitted(strength) for strength in (1e-4, 10.0)), strict=True)
    assert (losses[0] < losses[1]) == (noise == 6.0)  # weak evidence needs strong regularization
    for order in ((1e-4, 10.0), (10.0, 1e-4)):
        np.testing.assert_array_equal(fitted(*order)[0], weights[int(np.argmin(losses))])


@pytest.mark.slow
def test_the_better_scale_weighs_more_and_new_images_gain() -> None:
    labels, new = multi_label(seed=1), multi_label(seed=2)
    bank, unseen = fit_object_bank(scale_probabilities(labels, [1.0, 4.0]), labels, multi_label=True)
    for c in range(4):
        assert abs(bank.weights[c, c]) > 2 * abs(bank.weights[c, 4 + c])
    scales = scale_probabilities(new, [1.0, 4.0], seed=3)
    combined = np.mean(average_precision(bank.scores(scales, multi_label=True), new))
    mean = np.mean(average_precision((scales[0] + scales[1]) / 2, new))
    assert combined > mean
    # The cross-validated score is about that of new images.
    assert np.mean(average_precision(unseen, labels)) == pytest.approx(combined, abs=0.06)


def test_cross_validated_scores_do_not_flatter() -> None:
    """Labels that have nothing to do with the scores: fitted scores look good, cross-validated ones do not."""
    labels = np.where(np.random.default_rng(0).random((40, 1)) < 0.5, 1, -1).astype(np.int8)
    scales = [torch.rand(40, 1, generator=torch.Generator().manual_seed(s)) for s in range(12)]
    _, unseen = fit_object_bank(scales, labels, multi_label=True)
    assert abs(((unseen[:, 0] > 0) == (labels[:, 0] == 1)).mean() - 0.5) < 0.2


@pytest.mark.slow
def test_ignored_labels_do_not_count() -> None:
    labels = multi_label()
    scales = scale_probabilities(labels, [2.0, 2.0])
    changed = [scale.clone() for scale in scales]
    for scale in changed:  # of class 0, the images that are ignored for it, in the columns of class 0
        scale[torch.from_numpy(labels[:, 0] == 0), 0] = 0.99
    first, _ = fit_object_bank(scales, labels, multi_label=True)
    second, _ = fit_object_bank(changed, labels, multi_label=True)
    assert torch.equal(first.weights[0], second.weights[0]) and not torch.equal(first.weights[1], second.weights[1])


@pytest.mark.slow
def test_a_class_that_cannot_be_fitted_keeps_the_mean_of_its_own_scores() -> None:
    labels = multi_label()
    labels[:, 2] = -1
    labels[0, 2] = 1
    scales = scale_probabilities(labels, [1.0, 2.0])
    bank, _ = fit_object_bank(scales, labels, multi_label=True)
    assert bank.weights[2].tolist() == [0, 0, 0.5, 0, 0, 0, 0.5, 0] and bank.bias[2] == 0


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_that_exclude_each_other(classes: int) -> None:
    labels = one_class(classes=classes)
    bank, unseen = fit_object_bank(scale_probabilities(labels, [1.0, 3.0], exclusive=True), labels, multi_label=False)
    assert bank.weights.shape == (classes, 2 * classes) and unseen.shape == labels.shape
    scales = scale_probabilities(labels, [1.0, 3.0], seed=5, exclusive=True)
    right = [(s.numpy().argmax(1) == labels.argmax(1)).mean() for s in (*scales, bank.scores(scales, False))]
    assert right[2] >= max(right[:2]) - 0.01
    labels[labels[:, 0] == 1] = [-1, 1, -1][:classes]
    labels[0] = [1, -1, -1][:classes]
    with pytest.raises(WildcatError, match="two held-out images of every class; one class has 1"):
        fit_object_bank(scales, labels, multi_label=False)


@pytest.mark.slow
@pytest.mark.parametrize("exclusive", [False, True])
def test_a_bank_is_kept_in_a_file(exclusive: bool, tmp_path: Path) -> None:
    labels = one_class() if exclusive else multi_label()
    bank, _ = fit_object_bank(
        scale_probabilities(labels, [1.0, 2.0], exclusive=exclusive), labels, multi_label=not exclusive
    )
    save_bank(tmp_path, bank)
    loaded = load_bank(tmp_path, labels.shape[1], 2)
    assert torch.equal(loaded.weights, bank.weights) and torch.equal(loaded.bias, bank.bias)


@pytest.mark.slow
def test_same_seed_same_bank() -> None:
    labels = multi_label(100)
    scales = scale_probabilities(labels, [1.0, 2.0])
    (first, one), (second, two) = (fit_object_bank(scales, labels, multi_label=True, seed=3) for _ in range(2))
    assert torch.equal(first.weights, second.weights) and np.array_equal(one, two)
