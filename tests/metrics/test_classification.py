"""Average precision and accuracies against loops written here, scikit-learn, torchmetrics and numbers done by hand."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, confusion_matrix

from wildcat.errors import WildcatError
from wildcat.metrics import average_precision, classification_result, multi_class_result, precision_recall_curve

METHODS = ("area", "11point", "step")


def slow_average_precision(scores, labels, method):
    """Straight from the definitions, in exact fractions and with no sorting but the obvious one."""
    pairs = [(score, label) for score, label in zip(scores, labels, strict=True) if label != 0]
    total = sum(label == 1 for _, label in pairs)
    if total == 0:
        return math.nan
    if method == "step":
        value, recall_before = Fraction(0), Fraction(0)
        for threshold in sorted({score for score, _ in pairs}, reverse=True):
            above = [label for score, label in pairs if score >= threshold]
            hits = sum(label == 1 for label in above)
            value += (Fraction(hits, total) - recall_before) * Fraction(hits, len(above))
            recall_before = Fraction(hits, total)
        return float(value)
    ranked = []
    for place, (score, label) in enumerate(pairs):
        higher = sum(other > score for other, _ in pairs)
        equal_and_earlier = sum(other == score for other, _ in pairs[:place])
        ranked.append((higher + equal_and_earlier, label))
    ranked = [label for _, label in sorted(ranked)]
    points = []  # recall, precision after each image
    for n in range(1, len(ranked) + 1):
        hits = sum(label == 1 for label in ranked[:n])
        points.append((Fraction(hits, total), Fraction(hits, n)))

    def best(recall):
        return max((p for r, p in points if r >= recall), default=Fraction(0))

    if method == "11point":
        return float(sum(best(Fraction(k, 10)) for k in range(11)) / 11)
    return float(sum(best(Fraction(k, total)) for k in range(1, total + 1)) / total)


def same(ours, theirs):
    return np.allclose(ours, theirs, rtol=0, atol=1e-9, equal_nan=True)


# few different scores, so that ties are the rule
lists = st.lists(
    st.tuples(st.sampled_from([-1.5, -0.25, 0.0, -0.0, 0.1, 0.7, 3.0]), st.sampled_from([1, 0, -1])), max_size=40
)


class TestByHand:
    def test_one_miss_in_the_middle(self):
        # ranked + - + : precision 1, 1/2, 2/3; recall 1/2, 1/2, 1
        scores, labels = [0.9, 0.8, 0.7], [1, -1, 1]
        assert average_precision(scores, labels) == pytest.approx((1 + 2 / 3) / 2)
        assert average_precision(scores, labels, "step") == pytest.approx((1 + 2 / 3) / 2)
        # recall 0 to 0.5: six levels at 1; 0.6 to 1: five at 2/3
        assert average_precision(scores, labels, "11point") == pytest.approx((6 + 5 * 2 / 3) / 11)

    def test_envelope_lifts_area_above_step(self):
        # ranked - + + : precision 0, 1/2, 2/3; the envelope is 2/3 throughout
        scores, labels = [3, 2, 1], [-1, 1, 1]
        assert average_precision(scores, labels, "area") == pytest.approx(2 / 3)
        assert average_precision(scores, labels, "11point") == pytest.approx(2 / 3)
        assert average_precision(scores, labels, "step") == pytest.approx((1 / 2 + 2 / 3) / 2)

    def test_eleven_points_are_reached_exactly(self):
        # ten positives, of which three come first, then all negatives: recall 0.3 must count for level 0.3 although
        # 0.1 * 3 > 0.3 in floating point
        assert 3 / 10 < 0.1 * 3
        labels = np.array([1] * 3 + [-1] * 10 + [1] * 7)
        scores = -np.arange(20.0)
        assert average_precision(scores, labels, "11point") == pytest.approx((4 * 1 + 7 * 10 / 20) / 11)

    @pytest.mark.parametrize("method", METHODS)
    def test_perfect_and_worst(self, method):
        labels = [1, 1, -1, -1, -1]
        assert average_precision([5, 4, 3, 2, 1], labels, method) == 1.0
        worst = {"area": 2 / 5, "11point": 2 / 5, "step": (1 / 4 + 2 / 5) / 2}
        assert average_precision([1, 2, 3, 4, 5], labels, method) == pytest.approx(worst[method])

    @pytest.mark.parametrize("method", METHODS)
    def test_ignored_image_leaves_no_trace(self, method):
        with_ignored = average_precision([0.95, 0.9, 0.85, 0.8, 0.7], [0, 1, 0, -1, 1], method)
        assert with_ignored == average_precision([0.9, 0.8, 0.7], [1, -1, 1], method)

    def test_ties_in_the_order_given(self):
        assert average_precision([0.5, 0.5], [1, -1], "area") == 1.0
        assert average_precision([0.5, 0.5], [-1, 1], "area") == 0.5
        assert average_precision([0.5, 0.5], [1, -1], "11point") == 1.0
        assert average_precision([0.5, 0.5], [-1, 1], "11point") == 0.5
        # one threshold: precision 1/2 at recall 1, in either order
        assert average_precision([0.5, 0.5], [1, -1], "step") == 0.5
        assert average_precision([0.5, 0.5], [-1, 1], "step") == 0.5

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("labels", [[-1, -1], [0, 0], [0, -1]])
    def test_no_positives_is_nan(self, method, labels):
        assert math.isnan(average_precision([0.3, 0.2], labels, method))

    @pytest.mark.parametrize("method", METHODS)
    def test_no_images(self, method):
        assert math.isnan(average_precision(np.zeros(0), np.zeros(0, dtype=int), method))
        assert np.isnan(average_precision(np.zeros((0, 3)), np.zeros((0, 3), dtype=int), method)).tolist() == [True] * 3

    def test_published_forms_differ(self):
        # the three names are three different numbers on ordinary scores
        rng = np.random.default_rng(3)
        labels = rng.choice([1, -1], size=200)
        values = {average_precision(labels + rng.normal(size=200), labels, method) for method in METHODS}
        assert len(values) == 3


class TestOracles:
    @pytest.mark.slow
    @settings(max_examples=150, deadline=None)
    @given(lists)
    def test_slow_loop(self, pairs):
        scores = np.array([score for score, _ in pairs], dtype=float)
        labels = np.array([label for _, label in pairs], dtype=np.int8)
        for method in METHODS:
            value = average_precision(scores, labels, method)
            assert same(value, slow_average_precision(scores, labels, method)), method
            assert math.isnan(value) or 0 <= value <= 1

    @pytest.mark.slow
    @settings(max_examples=100, deadline=None)
    @given(lists)
    def test_step_is_scikit_learns(self, pairs):
        counted = [(score, label) for score, label in pairs if label != 0]
        if not any(label == 1 for _, label in counted):
            return
        scores, labels = (np.array(column) for column in zip(*pairs, strict=True))
        theirs = average_precision_score([label == 1 for _, label in counted], [score for score, _ in counted])
        assert same(average_precision(scores, labels, "step"), theirs)

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.slow
    def test_step_is_torchmetrics(self, seed):
        from torchmetrics.functional.classification import binary_average_precision

        rng = np.random.default_rng(seed)
        scores = rng.random(500).round(2)  # in [0, 1] torchmetrics takes them as they are; rounded: with ties
        labels = rng.choice([1, 0, -1], size=500, p=[0.2, 0.1, 0.7])
        target = torch.from_numpy(np.where(labels == 0, -1, labels == 1))
        theirs = binary_average_precision(torch.from_numpy(scores), target, ignore_index=-1)
        assert average_precision(scores, labels, "step") == pytest.approx(
            theirs.item(), abs=1e-6
        )  # it adds up in float32

    def test_columns_are_classes(self):
        rng = np.random.default_rng(0)
        scores, labels = rng.normal(size=(60, 4)), rng.choice([1, 0, -1], size=(60, 4))
        labels[:, 2] = -1
        for method in METHODS:
            columns = [average_precision(scores[:, c], labels[:, c], method) for c in range(4)]
            assert isinstance(columns[0], float)
            table = average_precision(scores, labels, method)
            assert table.shape == (4,)
            np.testing.assert_array_equal(table, columns)

    @settings(max_examples=50, deadline=None)
    @given(lists, st.randoms(use_true_random=False))
    def test_step_does_not_depend_on_order_and_others_do_not_without_ties(self, pairs, random):
        shuffled = random.sample(pairs, len(pairs))
        step = [
            average_precision([s for s, _ in p], np.array([y for _, y in p], int), "step") for p in (pairs, shuffled)
        ]
        assert same(*step)
        # distinct scores: every form is free of the order
        numbered = [(place, label) for place, (_, label) in enumerate(pairs)]
        mixed = random.sample(numbered, len(numbered))
        for method in METHODS:
            both = [
                average_precision([s for s, _ in p], np.array([y for _, y in p], int), method)
                for p in (numbered, mixed)
            ]
            assert same(*both)

    def test_only_the_ranking_matters(self):
        rng = np.random.default_rng(5)
        scores, labels = rng.normal(size=(80, 3)), rng.choice([1, -1], size=(80, 3))
        for method in METHODS:
            probabilities = 1 / (1 + np.exp(-scores))
            np.testing.assert_array_equal(
                average_precision(scores, labels, method), average_precision(probabilities, labels, method)
            )


class TestCurve:
    def test_by_hand(self):
        curve = precision_recall_curve([0.2, 0.9, 0.5, 0.7], [1, -1, 0, 1])
        assert curve.thresholds.tolist() == [0.9, 0.7, 0.2]
        assert curve.true_positives.tolist() == [0, 1, 2]
        assert curve.positives == 2
        assert curve.recall.tolist() == [0, 0.5, 1]
        assert curve.precision == pytest.approx([0, 1 / 2, 2 / 3])
        assert curve.envelope == pytest.approx([2 / 3, 2 / 3, 2 / 3])
        assert curve.average_precision() == pytest.approx(2 / 3)

    def test_without_positives_recall_is_nan(self):
        curve = precision_recall_curve([0.2, 0.9], [-1, -1])
        assert np.isnan(curve.recall).all()
        assert curve.precision.tolist() == [0, 0]

    def test_one_class_only(self):
        with pytest.raises(ValueError, match=r"one class.*\(2, 1\)"):
            precision_recall_curve([[0.2], [0.9]], [[-1], [-1]])


class TestInput:
    @pytest.mark.parametrize("method", METHODS)
    def test_extreme_but_finite_scores(self, method):
        largest = np.finfo(np.float64).max
        assert average_precision([largest, -largest, 5e-324, 0.0], [1, -1, 1, -1], method) == 1

    def test_tensors_lists_and_arrays_agree(self):
        scores = torch.tensor([[0.5, 1.0], [0.25, 2.0], [0.75, 0.5]], requires_grad=True)
        labels = torch.tensor([[1, -1], [-1, 1], [1, 0]], dtype=torch.int8)
        expected = average_precision(scores.tolist(), labels.tolist())
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            np.testing.assert_array_equal(average_precision(scores.to(dtype), labels), expected)

    def test_callers_arrays_untouched(self):
        scores, labels = np.random.default_rng(0).normal(size=(20, 3)), np.ones((20, 3), dtype=np.int8)
        scores.setflags(write=False)
        labels.setflags(write=False)
        before = scores.copy(), labels.copy()
        classification_result(scores, labels, "abc")
        np.testing.assert_array_equal(scores, before[0])
        np.testing.assert_array_equal(labels, before[1])

    def test_strided_arrays(self):
        scores = np.asfortranarray(np.random.default_rng(0).normal(size=(40, 6)))[::2, ::3]
        labels = np.where(scores > 0.1, 1, -1)[:, ::-1]
        np.testing.assert_array_equal(
            average_precision(scores, labels), average_precision(scores.copy(), labels.copy())
        )

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_score_not_finite_names_class_and_row(self, bad):
        scores, labels = np.zeros((4, 2)), -np.ones((4, 2), dtype=int)
        scores[2, 1] = bad
        with pytest.raises(WildcatError, match=rf"score of class 'dog' in row 2 is {bad}"):
            classification_result(scores, labels, ("cat", "dog"))
        with pytest.raises(WildcatError, match="class number 1 in row 2"):
            average_precision(scores, labels)
        with pytest.raises(WildcatError, match="the score in row 2"):
            average_precision(scores[:, 1], labels[:, 1])

    def test_not_finite_is_an_error_even_where_ignored(self):
        with pytest.raises(WildcatError, match="row 1"):
            average_precision([0.1, np.nan], [1, 0])

    def test_labels_of_other_conventions(self):
        with pytest.raises(ValueError, match="booleans"):
            average_precision([0.1, 0.2], [True, False])
        with pytest.raises(ValueError, match=r"at \[1, 0\] stands 2"):
            average_precision([[0.1], [0.2]], [[1], [2]])
        with pytest.raises(ValueError, match="stands 255"):
            average_precision([0.1, 0.2], np.array([1, 255], dtype=np.uint8))

    def test_shapes(self):
        with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
            average_precision([0.1, 0.2], [1, 1, 1])
        with pytest.raises(ValueError, match=r"\(1, 1, 1\)"):
            average_precision([[[0.1]]], [[[1]]])
        with pytest.raises(ValueError, match=r"\(N, C\), not \(2,\)"):
            classification_result([0.1, 0.2], [1, 1], ["a"])

    def test_unknown_method(self):
        with pytest.raises(ValueError, match="area, 11point, step, not 'voc'"):
            average_precision([0.1], [1], "voc")

    def test_class_names(self):
        with pytest.raises(ValueError, match="1 class names were given for 2 classes"):
            classification_result(np.zeros((1, 2)), np.ones((1, 2)), ["a"])
        with pytest.raises(ValueError, match="occur twice: a"):
            classification_result(np.zeros((1, 2)), np.ones((1, 2)), ["a", "a"])


class TestClassificationResult:
    def result(self):
        scores = [[0.9, 3, 0], [0.8, 2, 0], [0.7, 1, 0]]
        labels = [[1, -1, -1], [-1, 1, 0], [1, 1, -1]]
        return classification_result(scores, labels, ("cat", "dog", "emu"))

    def test_values(self):
        result = self.result()
        assert result.ap_area == pytest.approx([5 / 6, 2 / 3, math.nan], nan_ok=True)
        assert result.ap_step == pytest.approx([5 / 6, 7 / 12, math.nan], nan_ok=True)
        assert result.map_area == pytest.approx((5 / 6 + 2 / 3) / 2)
        assert result.map_step == pytest.approx((5 / 6 + 7 / 12) / 2)
        assert result.map_11point == pytest.approx(((6 + 10 / 3) / 11 + 2 / 3) / 2)
        assert result.positives.tolist() == [2, 2, 0]
        assert result.ignored.tolist() == [0, 0, 1]
        assert result.images == 3
        assert result.classes_without_positives == ("emu",)

    def test_equals_average_precision(self):
        rng = np.random.default_rng(1)
        scores, labels = rng.normal(size=(50, 5)), rng.choice([1, 0, -1], size=(50, 5))
        result = classification_result(scores, labels, "abcde")
        for method, values in zip(METHODS, (result.ap_area, result.ap_11point, result.ap_step), strict=True):
            np.testing.assert_array_equal(values, average_precision(scores, labels, method))

    def test_json_in_per_cent(self):
        content = json.loads(json.dumps(self.result().to_dict(), allow_nan=False))
        assert content["map_area"] == pytest.approx(75)
        assert set(content) == {"map_area", "map_11point", "map_step", "classes_without_positives", "per_class"}
        assert content["classes_without_positives"] == ["emu"]
        assert content["per_class"]["dog"]["area"] == pytest.approx(200 / 3)
        assert content["per_class"]["dog"]["positives"] == 2
        assert content["per_class"]["emu"] == {
            "area": None,
            "11point": None,
            "step": None,
            "positives": 0,
            "ignored": 1,
        }

    def test_table(self):
        table = self.result().table()
        assert "AP 11point" in table
        assert any(line.split() == ["dog", "66.7", "66.7", "58.3", "2", "0"] for line in table.splitlines())
        assert any(line.split()[:2] == ["mean", "75.0"] for line in table.splitlines())
        assert any(line.split()[:2] == ["emu", "-"] for line in table.splitlines())
        assert "no positives, left out of the mean: emu" in table

    def test_nothing_to_score(self):
        result = classification_result(np.zeros((0, 2)), np.zeros((0, 2)), ["a", "b"])
        assert math.isnan(result.map_area)
        assert result.to_dict()["map_area"] is None
        assert "nan" not in result.table()

    def test_frozen(self):
        with pytest.raises(AttributeError):
            self.result().images = 4


def one_hot(truth, count):
    return np.where(np.arange(count) == np.asarray(truth)[:, None], 1, -1)


class TestMultiClass:
    def test_by_hand(self):
        scores = [[2, 1, 0], [0, 2, 1], [0, 1, 2], [3, 2, 1]]
        result = multi_class_result(scores, one_hot([0, 0, 1, 0], 3), ("a", "b", "c"))
        assert result.confusion.tolist() == [[2, 1, 0], [0, 0, 1], [0, 0, 0]]
        assert result.accuracy == 0.5
        assert result.class_accuracy == pytest.approx([2 / 3, 0, math.nan], nan_ok=True)
        assert result.mean_class_accuracy == pytest.approx(1 / 3)
        assert result.classes_without_positives == ("c",)
        assert result.images == 4

    def test_equal_scores_take_the_first_class(self):
        assert multi_class_result([[1.0, 1.0]], [[1, -1]], "ab").accuracy == 1
        assert multi_class_result([[1.0, 1.0]], [[-1, 1]], "ab").accuracy == 0

    @settings(max_examples=50, deadline=None)
    @given(st.integers(1, 60), st.integers(2, 7), st.integers(0, 2**32 - 1))
    def test_scikit_learn(self, images, count, seed):
        rng = np.random.default_rng(seed)
        scores, truth = rng.integers(0, 4, size=(images, count)).astype(float), rng.integers(0, count, size=images)
        result = multi_class_result(scores, one_hot(truth, count), [str(c) for c in range(count)])
        predicted = scores.argmax(axis=1)
        np.testing.assert_array_equal(result.confusion, confusion_matrix(truth, predicted, labels=range(count)))
        assert same(result.accuracy, accuracy_score(truth, predicted))
        known = np.isin(predicted, truth)  # scikit-learn warns of predicted classes that have no images
        if known.all() and len(set(truth)) > 1:
            assert same(result.mean_class_accuracy, balanced_accuracy_score(truth, predicted))

    def test_json_and_table(self):
        result = multi_class_result([[2, 1, 0], [0, 2, 1]], one_hot([0, 0], 3), ("a", "b", "c"))
        content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert content["accuracy"] == 50
        assert content["mean_class_accuracy"] == 50
        assert content["per_class"]["a"] == {"accuracy": 50, "positives": 2}
        assert content["per_class"]["b"] == {"accuracy": None, "positives": 0}
        assert "no images, left out of the mean: b, c" in result.table()
        assert any(line.split() == ["all", "images", "50.0", "2"] for line in result.table().splitlines())

    def test_no_images(self):
        result = multi_class_result(np.zeros((0, 2)), np.zeros((0, 2)), "ab")
        assert math.isnan(result.accuracy)
        assert result.to_dict()["accuracy"] is None

    @pytest.mark.parametrize("row", [[1, 1], [-1, -1], [1, 0]])
    def test_exactly_one_class(self, row):
        with pytest.raises(ValueError, match="row 1 of the labels"):
            multi_class_result([[0.0, 1.0]] * 2, [[1, -1], row], "ab")

    def test_not_finite(self):
        with pytest.raises(WildcatError, match="class 'b' in row 0"):
            multi_class_result([[0.0, np.nan]], [[1, -1]], "ab")
