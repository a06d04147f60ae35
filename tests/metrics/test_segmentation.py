"""Confusion matrix and IoU against pixel loops, scikit-learn, torchmetrics and numbers done by hand."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from wildcat.errors import WildcatError
from wildcat.metrics import ConfusionMatrix, class_iou, mean_iou, segmentation_result
from wildcat.metrics.bootstrap import bootstrap_interval


def masks(seed, num_classes=5, shape=(6, 13, 9)):
    """A batch of predictions and truths that agree on half the pixels; a tenth is void."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, size=shape, dtype=np.uint8)
    prediction = np.where(rng.random(shape) < 0.5, truth, rng.integers(0, num_classes, size=shape)).astype(np.uint8)
    truth[rng.random(shape) < 0.1] = 255
    return prediction, truth


def confusion_of(prediction, truth, num_classes=5):
    confusion = ConfusionMatrix(num_classes)
    confusion.update(prediction, truth)
    return confusion


class TestConfusionMatrix:
    def test_by_hand(self):
        confusion = confusion_of([[0, 1, 2], [2, 2, 0]], [[0, 0, 2], [1, 255, 255]], 3)
        assert confusion.counts.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 1]]

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 10**6), st.integers(1, 6), st.tuples(st.integers(0, 5), st.integers(0, 5)))
    def test_slow_loop(self, seed, num_classes, shape):
        prediction, truth = masks(seed, num_classes, shape)
        expected = np.zeros((num_classes, num_classes), dtype=int)
        for i in range(shape[0]):
            for j in range(shape[1]):
                if truth[i, j] != 255:
                    expected[truth[i, j], prediction[i, j]] += 1
        np.testing.assert_array_equal(confusion_of(prediction, truth, num_classes).counts, expected)

    @pytest.mark.slow
    def test_scikit_learn_and_torchmetrics(self):
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        prediction, truth = masks(0)
        counts = confusion_of(prediction, truth).counts
        scored = truth != 255
        np.testing.assert_array_equal(counts, confusion_matrix(truth[scored], prediction[scored], labels=range(5)))
        tensors = torch.from_numpy(prediction).long(), torch.from_numpy(truth).long()
        np.testing.assert_array_equal(counts, multiclass_confusion_matrix(*tensors, num_classes=5, ignore_index=255))

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 10**6), st.lists(st.integers(0, 6), max_size=4))
    def test_parts_add_up_to_the_whole(self, seed, cuts):
        prediction, truth = masks(seed)
        whole = confusion_of(prediction, truth)
        edges = [0, *sorted(cuts), 6]
        updated = ConfusionMatrix(5)
        for start, stop in pairwise(edges):
            updated.update(prediction[start:stop], truth[start:stop])
        np.testing.assert_array_equal(updated.counts, whole.counts)

    def test_any_integers_and_tensors(self):
        prediction, truth = masks(3)
        expected = confusion_of(prediction, truth).counts
        for kind in (np.int16, np.int64, np.uint16):
            np.testing.assert_array_equal(confusion_of(prediction.astype(kind), truth.astype(kind)).counts, expected)
        tensors = torch.from_numpy(prediction), torch.from_numpy(truth)
        np.testing.assert_array_equal(confusion_of(*tensors).counts, expected)
        views = prediction.transpose(2, 0, 1), truth.transpose(2, 0, 1)
        np.testing.assert_array_equal(confusion_of(*views).counts, expected)

    def test_another_void(self):
        confusion = ConfusionMatrix(2, void=-1)
        confusion.update(np.array([0, 1, 1]), np.array([0, -1, 1]))
        assert confusion.counts.tolist() == [[1, 0], [0, 1]]

    def test_prediction_is_free_where_the_truth_is_void(self):
        assert confusion_of([0, 255], [0, 255], 2).counts.sum() == 1

    def test_256_labels_do_not_overflow(self):
        truth = np.arange(256, dtype=np.uint8)
        confusion = ConfusionMatrix(256, void=-1)
        confusion.update(truth, truth)
        np.testing.assert_array_equal(confusion.counts, np.eye(256))

    def test_callers_arrays_untouched(self):
        prediction, truth = masks(4)
        before = prediction.copy(), truth.copy()
        prediction.setflags(write=False)
        truth.setflags(write=False)
        confusion_of(prediction, truth)
        np.testing.assert_array_equal(prediction, before[0])
        np.testing.assert_array_equal(truth, before[1])

    @pytest.mark.parametrize(
        ("prediction", "truth", "message"),
        [
            ([[0, 1]], [[0], [1]], r"predicted mask of 000012 has shape \(1, 2\) and the ground truth \(2, 1\)"),
            ([0, 3], [0, 1], "predicted mask of 000012 holds the value 3; allowed are 0 to 2"),
            ([0, -1], [0, 1], "predicted mask of 000012 holds the value -1"),
            ([0, 1], [0, 220], r"ground-truth mask of 000012 holds the value 220; allowed are 0 to 2 or 255 \(void\)"),
            ([0.0, 1.0], [0, 1], "predicted mask of 000012 must hold integer labels, not float64"),
            ([0, 1], [True, False], "ground-truth mask of 000012 must hold integer labels, not bool"),
        ],
    )
    def test_errors_name_the_image_and_add_nothing(self, prediction, truth, message):
        confusion = ConfusionMatrix(3)
        with pytest.raises(ValueError, match=message):
            confusion.update(prediction, truth, name="000012")
        assert not confusion.counts.any()

    def test_bad_label_is_a_users_error(self):
        with pytest.raises(WildcatError, match="the ground-truth mask holds the value 7"):
            ConfusionMatrix(3).update([0], [7])

    def test_construction(self):
        with pytest.raises(ValueError, match="at least 1, not 0"):
            ConfusionMatrix(0)
        with pytest.raises(ValueError, match="outside the labels 0 to 255, not 255"):
            ConfusionMatrix(256)
        assert repr(confusion_of([0, 1], [0, 255], 2)) == "ConfusionMatrix(num_classes=2, void=255, pixels=1)"


class TestIoU:
    def test_by_hand(self):
        # class 0: 3 of 3 + 1 missed; class 1: 4 of 4 + 1 false; class 2 nowhere
        counts = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
        assert class_iou(counts) == pytest.approx([3 / 4, 4 / 5, math.nan], nan_ok=True)
        assert mean_iou(counts) == pytest.approx((3 / 4 + 4 / 5) / 2)
        result = segmentation_result(counts, ["background", "cat", "dog"])
        assert result.miou == pytest.approx((3 / 4 + 4 / 5) / 2)
        assert result.miou_all == pytest.approx((3 / 4 + 4 / 5) / 3)
        assert result.pixel_accuracy == pytest.approx(7 / 8)
        assert result.classes_absent == ("dog",)

    def test_class_only_predicted_or_only_true_counts_as_0(self):
        assert class_iou([[2, 1], [0, 0]]) == pytest.approx([2 / 3, 0])
        assert class_iou([[2, 0], [1, 0]]) == pytest.approx([2 / 3, 0])

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.slow
    def test_scikit_learn_and_torchmetrics(self, seed):
        from torchmetrics.functional.classification import multiclass_jaccard_index

        prediction, truth = masks(seed)
        result = segmentation_result(confusion_of(prediction, truth), "abcde")
        true, predicted = truth[truth != 255], prediction[truth != 255]
        np.testing.assert_allclose(result.iou, jaccard_score(true, predicted, average=None), rtol=0, atol=1e-9)
        assert result.miou == pytest.approx(jaccard_score(true, predicted, average="macro"), abs=1e-9)
        assert result.pixel_accuracy == pytest.approx(accuracy_score(true, predicted), abs=1e-9)
        tensors = torch.from_numpy(prediction).long(), torch.from_numpy(truth).long()
        theirs = multiclass_jaccard_index(*tensors, num_classes=5, ignore_index=255, average="none")
        np.testing.assert_allclose(result.iou, theirs, rtol=0, atol=1e-6)  # it divides in float32

    def test_one_matrix_over_the_data_set_not_a_mean_over_images(self):
        # image 1: nine pixels right; image 2: one pixel wrong. Per image 1 and 0; together 9 / 10
        confusion = ConfusionMatrix(2)
        confusion.update([[0] * 9], [[0] * 9])
        confusion.update([[1]], [[0]])
        assert class_iou(confusion)[0] == pytest.approx(9 / 10)

    def test_no_pixels(self):
        confusion = ConfusionMatrix(2)
        assert math.isnan(mean_iou(confusion))
        result = segmentation_result(confusion, ["a", "b"])
        assert result.to_dict() == {
            "miou": None,
            "miou_all": 0,
            "pixel_accuracy": None,
            "classes_absent": ["a", "b"],
            "per_class": {"a": None, "b": None},
        }
        assert "nan" not in result.table()

    def test_accumulator_and_counts_agree_and_result_keeps(self):
        confusion = confusion_of(*masks(0))
        result = segmentation_result(confusion, "abcde")
        before = result.miou
        assert (
            before == mean_iou(confusion) == mean_iou(confusion.counts) == mean_iou(torch.from_numpy(confusion.counts))
        )
        confusion.update(*masks(1))
        assert result.miou == before
        assert result.confusion.sum() < confusion.counts.sum()

    @pytest.mark.parametrize("counts", [[1, 2], [[1, 2]], [[0.5]], [[1, -1], [0, 0]], np.zeros((0, 0), dtype=int)])
    def test_not_a_confusion_matrix(self, counts):
        with pytest.raises(ValueError, match="a confusion matrix is a square"):
            mean_iou(counts)

    def test_class_names(self):
        with pytest.raises(ValueError, match="20 class names were given for 21 classes"):
            segmentation_result(ConfusionMatrix(21), [str(c) for c in range(20)])

    def test_json_and_table(self):
        result = segmentation_result([[3, 1, 0], [0, 4, 0], [0, 0, 0]], ["background", "cat", "dog"])
        content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert content["miou"] == pytest.approx(77.5)
        assert content["per_class"] == {"background": 75, "cat": 80, "dog": None}
        assert content["pixel_accuracy"] == 87.5
        table = result.table()
        assert any(line.split() == ["mean", "of", "present", "77.5"] for line in table.splitlines())
        assert any(line.split() == ["mean", "of", "all", "3", "51.7"] for line in table.splitlines())
        assert "pixel accuracy 87.5" in table
        assert "absent, 0 in the mean of all: dog" in table


def test_the_interval_equals_a_bootstrap_of_whole_confusion_matrices():
    rng = np.random.default_rng(5)
    total, each = ConfusionMatrix(4), []
    for i in range(12):
        true = rng.choice([0, 1 + i % 2, 255], size=(6, 7), p=[0.6, 0.3, 0.1])
        predicted = np.where(rng.uniform(size=true.shape) < 0.05 * i, rng.integers(0, 3, true.shape), true % 255)
        total.update(predicted, true)
        one = ConfusionMatrix(4)
        one.update(predicted, true)
        each.append(one.counts)
    expected = bootstrap_interval(lambda rows: mean_iou(np.sum([each[row] for row in rows], axis=0)), len(each))
    assert total.miou_interval() == pytest.approx(expected, abs=1e-12)
    scores = total.result(("background", "a", "b", "c")).scores()
    assert scores.miou_interval == pytest.approx((100 * expected[0], 100 * expected[1]))
    assert expected[0] < scores.miou / 100 < expected[1]
    assert scores.to_dict()["miou_interval"] == list(scores.miou_interval)


def test_without_masks_there_is_no_interval():
    assert np.isnan(ConfusionMatrix(2).miou_interval()).all()
    assert ConfusionMatrix(2).result(("background", "a")).scores().miou_interval is None
