"""Linear SVMs: against scikit-learn, C by cross-validation, classes that cannot be fitted."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from wildcat.training.linear_svm import C_VALUES, FOLDS, fit_linear_svms


def blobs(count: int = 120, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of classes that overlap, columns of very different sizes, and labels 1 / -1."""
    rng = np.random.default_rng(seed)
    true_class = np.arange(count) % classes
    features = rng.normal(size=(count, 8)) * 1.2
    features[np.arange(count), true_class] += 2
    labels = np.full((count, classes), -1, dtype=np.int8)
    labels[np.arange(count), true_class] = 1
    return (features * 10.0 ** np.arange(-3, 5) + 5).astype(np.float32), labels


@pytest.mark.slow
def test_one_class_per_image_as_scikit_learn() -> None:
    features, labels = blobs()
    weights, bias, strength, score, _ = fit_linear_svms(features, labels, multi_label=False)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    models = {c: make_pipeline(StandardScaler(), OneVsRestClassifier(LinearSVC(C=c, dual=False))) for c in C_VALUES}
    known = features.astype(np.float64), labels.argmax(axis=1)
    scores = {c: cross_val_score(model, *known, cv=folds).mean() for c, model in models.items()}
    rising = [scores[c] for c in C_VALUES]
    fall = next((i for i in range(1, len(rising)) if rising[i] < rising[i - 1]), len(rising))
    assert strength == C_VALUES[int(np.argmax(rising[:fall]))] and score == pytest.approx(scores[strength], abs=1e-9)
    expected = models[strength].fit(*known).decision_function(known[0])
    np.testing.assert_allclose(known[0] @ weights.T + bias, expected, atol=1e-8)


def test_labels_of_zero_are_left_out() -> None:
    features, labels = blobs()
    labels[:30, 0] = 0
    weights, bias, strength, _, _ = fit_linear_svms(features, labels, multi_label=True)
    scaler = StandardScaler().fit(features.astype(np.float64))
    svm = LinearSVC(C=strength, dual=False).fit(scaler.transform(features[30:].astype(np.float64)), labels[30:, 0])
    expected = svm.decision_function(scaler.transform(features.astype(np.float64)))
    np.testing.assert_allclose(features.astype(np.float64) @ weights[0] + bias[0], expected, atol=1e-8)


def test_a_class_without_images_scores_nothing() -> None:
    features, labels = blobs()
    labels[:, 1] = -1
    weights, bias, _, score, _ = fit_linear_svms(features, labels, multi_label=True)
    assert not weights[1].any() and bias[1] == 0 and 0.5 < score <= 1


@pytest.mark.parametrize("multi_label", [True, False])
def test_one_image_per_class(multi_label: bool) -> None:
    features, labels = blobs(count=2, classes=2)
    weights, bias, _, score, _ = fit_linear_svms(features, labels, multi_label=multi_label)
    assert ((features @ weights.T + bias > 0) == (labels == 1)).all() and 0 <= score <= 1


def test_without_positives_there_is_no_score() -> None:
    features, labels = blobs()
    labels[:] = -1
    weights, bias, strength, score, _ = fit_linear_svms(features, labels, multi_label=True)
    assert not weights.any() and not bias.any() and strength == C_VALUES[0] and np.isnan(score)
