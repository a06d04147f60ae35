"""Pointwise localisation against numbers done by hand and a slow loop over images, classes and boxes."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wildcat.errors import WildcatError
from wildcat.metrics import average_precision, pointing_average_precision, pointing_result, points_in_boxes

INSIDE, OUTSIDE, IN_DIFFICULT = (50, 50), (250, 50), (150, 50)
NORMAL, DIFFICULT = [0, 0, 100, 100], [101, 0, 200, 100]


def scene(*images):
    """One class; an image is (score, point, normal box?, difficult box?)."""
    points = np.array([[point] for _, point, _, _ in images], dtype=float)
    scores = np.array([[score] for score, _, _, _ in images], dtype=float)
    boxes, difficult = [], []
    for _, _, normal, hard in images:
        boxes.append(np.array([NORMAL] * normal + [DIFFICULT] * hard, dtype=np.float32).reshape(-1, 4))
        difficult.append(np.array([False] * normal + [True] * hard))
    return points, scores, boxes, [np.zeros(len(b), dtype=np.int64) for b in boxes], difficult


def result_of(*images, tolerance=0.0):
    return pointing_result(*scene(*images), classes=["cat"], tolerance=tolerance)


def slow_pointing(points, scores, boxes, box_classes, box_difficult, tolerance):
    """AP, correct, positives and ignored of each class, one image and box at a time."""

    def hit(point, box):
        (x, y), (x1, y1, x2, y2) = point, box
        return x1 - tolerance <= x <= x2 + tolerance and y1 - tolerance <= y <= y2 + tolerance

    table = []
    for c in range(scores.shape[1]):
        ranked, positives, correct, ignored = [], 0, 0, 0
        for i in range(len(scores)):
            mine = [(b, d) for b, k, d in zip(boxes[i], box_classes[i], box_difficult[i], strict=True) if k == c]
            normal = [b for b, d in mine if not d]
            hard = [b for b, d in mine if d]
            good = any(hit(points[i, c], b) for b in normal)
            if (mine and not normal) or (not good and any(hit(points[i, c], b) for b in hard)):
                ignored += 1
                continue
            positives += bool(normal)
            correct += good
            ranked.append((scores[i, c], good))
        ranked.sort(key=lambda pair: -pair[0])  # stable
        value, hits = 0.0, 0
        precisions = []
        for n, (_, good) in enumerate(ranked, start=1):
            hits += good
            precisions.append(hits / n)
        for n, (_, good) in enumerate(ranked):
            if good:
                value += max(precisions[n:]) / positives
        table.append((value if positives else math.nan, correct, positives, ignored))
    return [np.array(column) for column in zip(*table, strict=True)]


@st.composite
def data_sets(draw):
    images, count = draw(st.integers(1, 8)), draw(st.integers(1, 3))
    whole = st.integers(0, 60)  # a coarse grid, so that points on edges occur
    points = [[[draw(whole), draw(whole)] for _ in range(count)] for _ in range(images)]
    scores = [[draw(st.sampled_from([0.0, 0.5, 1.0])) for _ in range(count)] for _ in range(images)]
    boxes, labels, difficult = [], [], []
    for _ in range(images):
        size = draw(st.integers(0, 4))
        corners = [sorted((draw(whole), draw(whole))) + sorted((draw(whole), draw(whole))) for _ in range(size)]
        boxes.append(np.array([[x1, y1, x2, y2] for x1, x2, y1, y2 in corners], dtype=np.float32).reshape(-1, 4))
        labels.append(np.array([draw(st.integers(0, count - 1)) for _ in range(size)], dtype=np.int64))
        difficult.append(np.array([draw(st.booleans()) for _ in range(size)], dtype=bool))
    return np.array(points, dtype=float), np.array(scores), boxes, labels, difficult


class TestPointsInBoxes:
    def test_edges_belong_to_the_box(self):
        box = [10, 20, 30, 40]
        points = [[10, 20], [30, 40], [9.99, 30], [30.01, 30], [20, 19.99], [20, 40.01], [20, 30]]
        assert points_in_boxes(points, box).tolist() == [True, True, False, False, False, False, True]

    def test_tolerance_moves_every_side(self):
        box = [10, 20, 30, 40]
        points = [[-8, 2], [48, 58], [-8.01, 30], [48.01, 30], [20, 1.99], [20, 58.01]]
        assert points_in_boxes(points, box, 18).tolist() == [True, True, False, False, False, False]

    def test_every_point_with_every_box(self):
        points, boxes = np.array([[1.0, 1.0], [5.0, 5.0], [9.0, 9.0]]), np.array([[0, 0, 5, 5], [5, 5, 8, 8]])
        inside = points_in_boxes(points[:, None], boxes)
        assert inside.tolist() == [[True, False], [True, True], [False, False]]

    def test_no_boxes(self):
        assert points_in_boxes([1, 1], np.zeros((0, 4))).shape == (0,)

    def test_tensors(self):
        assert points_in_boxes(torch.tensor([1, 1]), torch.tensor([0.0, 0.0, 2.0, 2.0])).item() is True

    def test_errors(self):
        with pytest.raises(ValueError, match=r"\(3,\) and \(4,\)"):
            points_in_boxes([1, 1, 1], [0, 0, 1, 1])
        for tolerance in (-1, math.nan):
            with pytest.raises(ValueError, match="tolerance must be"):
                points_in_boxes([1, 1], [0, 0, 1, 1], tolerance)


class TestDecisions:
    def test_all_correct(self):
        result = result_of((0.9, INSIDE, 1, 0), (0.8, INSIDE, 1, 0), (0.1, OUTSIDE, 0, 0))
        assert result.map == 1
        assert result.accuracy == 1

    def test_wrong_point_is_false_positive_and_missed(self):
        # ranked wrong, correct: precision 0, 1/2; recall stops at 1/2, so half of 1/2
        result = result_of((0.9, OUTSIDE, 1, 0), (0.8, INSIDE, 1, 0))
        assert result.map == pytest.approx(1 / 4)
        assert result.positives.tolist() == [2]
        # ranked correct, wrong: the missed image alone costs the other half
        assert result_of((0.9, INSIDE, 1, 0), (0.8, OUTSIDE, 1, 0)).map == pytest.approx(1 / 2)

    def test_image_without_the_class_is_a_false_positive_by_its_score(self):
        assert result_of((0.9, INSIDE, 0, 0), (0.8, INSIDE, 1, 0)).map == pytest.approx(1 / 2)
        assert result_of((0.7, INSIDE, 0, 0), (0.8, INSIDE, 1, 0)).map == 1

    @pytest.mark.parametrize("point", [INSIDE, IN_DIFFICULT, OUTSIDE])
    def test_image_with_only_difficult_boxes_is_ignored(self, point):
        result = result_of((0.9, point, 0, 1), (0.8, INSIDE, 1, 0))
        assert result.map == 1
        assert (result.positives.tolist(), result.ignored.tolist(), result.correct.tolist()) == ([1], [1], [1])
        assert result.accuracy_pairs == 1

    def test_point_in_a_difficult_box_beside_a_normal_one_is_ignored(self):
        result = result_of((0.9, IN_DIFFICULT, 1, 1), (0.8, INSIDE, 1, 0))
        assert result.map == 1
        assert result.accuracy == 1
        assert (result.positives.tolist(), result.ignored.tolist()) == ([1], [1])

    def test_point_in_normal_box_counts_beside_a_difficult_one(self):
        result = result_of((0.9, INSIDE, 1, 1))
        assert (result.map, result.ignored.tolist()) == (1, [0])

    def test_point_in_both_kinds_of_box_is_correct(self):
        # x = 100.5 is in neither; with a tolerance of 1 in both
        result = result_of((0.9, (100.5, 50), 1, 1), tolerance=1)
        assert (result.map, result.ignored.tolist(), result.map_tolerance_0) == (1, [0], 0)

    def test_point_missing_both_kinds_is_wrong(self):
        result = result_of((0.9, OUTSIDE, 1, 1))
        assert (result.map, result.positives.tolist(), result.ignored.tolist()) == (0, [1], [0])

    def test_box_of_another_class_does_not_help(self):
        points, scores, boxes, _, difficult = scene((0.9, INSIDE, 1, 0))
        points, scores = np.repeat(points, 2, axis=1), np.repeat(scores, 2, axis=1)
        result = pointing_result(points, scores, boxes, [np.array([1])], difficult, ["cat", "dog"])
        assert result.ap == pytest.approx([math.nan, 1], nan_ok=True)
        assert result.classes_without_positives == ("cat",)
        assert result.map == 1

    def test_ties_in_the_order_given(self):
        right, wrong = (0.5, INSIDE, 1, 0), (0.5, INSIDE, 0, 0)
        assert result_of(right, wrong).map == 1
        assert result_of(wrong, right).map == 0.5

    def test_tolerance_is_18_by_default(self):
        near = [(0.9, (118, 50), 1, 0), (0.8, (118.5, 50), 1, 0)]
        result = pointing_result(*scene(*near), ["cat"])
        assert result.tolerance == 18
        assert result.correct.tolist() == [1]
        assert result.map == pytest.approx(1 / 2)
        assert result.map_tolerance_0 == 0
        assert pointing_average_precision(*scene(*near)) == pytest.approx([1 / 2])
        assert pointing_average_precision(*scene(*near), tolerance=19) == pytest.approx([1])

    def test_accuracy_of_classes_and_of_pairs(self):
        # class 0: 1 of 1 correct; class 1: 1 of 3
        points = np.array([[INSIDE, INSIDE], [INSIDE, OUTSIDE], [INSIDE, OUTSIDE]], dtype=float)
        boxes = [np.array([NORMAL, NORMAL]), np.array([NORMAL]), np.array([NORMAL])]
        labels = [np.array([0, 1]), np.array([1]), np.array([1])]
        hard = [np.zeros(len(b), dtype=bool) for b in boxes]
        result = pointing_result(points, np.zeros((3, 2)), boxes, labels, hard, ["cat", "dog"], tolerance=0)
        assert result.class_accuracy == pytest.approx([1, 1 / 3])
        assert result.accuracy == pytest.approx(2 / 3)
        assert result.accuracy_pairs == pytest.approx(2 / 4)

    def test_perfect_points_give_the_ap_of_the_scores(self):
        # every point right: pointing is classification
        rng = np.random.default_rng(2)
        labels, scores = rng.choice([1, -1], size=(60, 1)), rng.normal(size=(60, 1)).round(1)
        images = [(score, INSIDE, int(label == 1), 0) for score, label in zip(scores[:, 0], labels[:, 0], strict=True)]
        assert pointing_average_precision(*scene(*images)) == pytest.approx(average_precision(scores, labels), abs=1e-9)


class TestOracle:
    @pytest.mark.slow
    @settings(max_examples=150, deadline=None)
    @given(data_sets(), st.sampled_from([0.0, 1.0, 2.5, 18.0]))
    def test_slow_loop(self, data, tolerance):
        classes = [f"class {c}" for c in range(data[1].shape[1])]
        result = pointing_result(*data, classes, tolerance)
        ap, correct, positives, ignored = slow_pointing(*data, tolerance)
        np.testing.assert_allclose(result.ap, ap, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(result.correct, correct)
        np.testing.assert_array_equal(result.positives, positives)
        np.testing.assert_array_equal(result.ignored, ignored)
        np.testing.assert_allclose(result.ap_tolerance_0, slow_pointing(*data, 0.0)[0], rtol=0, atol=1e-9)
        np.testing.assert_array_equal(pointing_average_precision(*data, tolerance), result.ap)


class TestInput:
    def test_tensors_and_lists(self):
        data = scene((0.9, OUTSIDE, 1, 0), (0.8, INSIDE, 1, 1), (0.7, INSIDE, 0, 0))
        expected = pointing_average_precision(*data)
        tensors = [torch.from_numpy(part) for part in data[:2]] + [
            [torch.from_numpy(x) for x in part] for part in data[2:]
        ]
        np.testing.assert_array_equal(pointing_average_precision(*tensors), expected)
        lists = [part.tolist() for part in data[:2]] + [[x.tolist() for x in part] for part in data[2:]]
        np.testing.assert_array_equal(pointing_average_precision(*lists), expected)

    def test_callers_arrays_untouched(self):
        data = scene((0.9, OUTSIDE, 1, 0), (0.8, INSIDE, 1, 1))
        arrays = [data[0], data[1], *data[2], *data[3], *data[4]]
        before = [array.copy() for array in arrays]
        for array in arrays:
            array.setflags(write=False)
        pointing_result(*data, ["cat"])
        for array, copy in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, copy)

    def test_no_images(self):
        result = pointing_result(np.zeros((0, 2, 2)), np.zeros((0, 2)), [], [], [], ["a", "b"])
        assert math.isnan(result.map)
        assert math.isnan(result.accuracy_pairs)
        assert result.to_dict()["map"] is None

    def test_not_finite(self):
        points, scores, *rest = scene((0.9, INSIDE, 1, 0), (0.8, INSIDE, 1, 0))
        bad = scores.copy()
        bad[1, 0] = np.nan
        with pytest.raises(WildcatError, match="score of class 'cat' in row 1 is nan"):
            pointing_result(points, bad, *rest, ["cat"])
        bad = points.copy()
        bad[1, 0, 1] = np.inf
        with pytest.raises(WildcatError, match="point of class number 0 in row 1 is inf"):
            pointing_average_precision(bad, scores, *rest)

    def test_shapes_and_lengths(self):
        points, scores, boxes, labels, hard = scene((0.9, INSIDE, 1, 0), (0.8, INSIDE, 1, 0))
        with pytest.raises(ValueError, match=r"not \(2, 1\) and \(2, 1\)"):
            pointing_average_precision(points[..., 0], scores, boxes, labels, hard)
        with pytest.raises(ValueError, match="boxes has 1 entries for 2 images"):
            pointing_average_precision(points, scores, boxes[:1], labels, hard)
        with pytest.raises(ValueError, match="box_difficult has 3 entries for 2 images"):
            pointing_average_precision(points, scores, boxes, labels, [*hard, hard[0]])
        with pytest.raises(ValueError, match=r"image 1 must have .* not \(1, 4\), \(2,\) and \(1,\)"):
            pointing_average_precision(points, scores, boxes, [labels[0], np.array([0, 0])], hard)
        with pytest.raises(ValueError, match="2 class names were given for 1 classes"):
            pointing_result(points, scores, boxes, labels, hard, ["cat", "dog"])

    @pytest.mark.parametrize("box", [[10, 0, 5, 5], [0, 10, 5, 5], [0, 0, np.nan, 5], [0, 0, np.inf, 5]])
    def test_boxes_in_another_form(self, box):
        points, scores, _, labels, hard = scene((0.9, INSIDE, 1, 0))
        with pytest.raises(ValueError, match="image 0 has a box that is not x1 <= x2"):
            pointing_average_precision(points, scores, [np.array([box])], labels, hard)

    @pytest.mark.parametrize("label", [-1, 1, 0.5])
    def test_class_of_a_box_out_of_range(self, label):
        points, scores, boxes, _, hard = scene((0.9, INSIDE, 1, 0))
        with pytest.raises(ValueError, match="image 0 has a box of a class outside 0 to 0"):
            pointing_average_precision(points, scores, boxes, [np.array([label])], hard)


class TestReport:
    def result(self):
        points = np.array([[INSIDE, INSIDE], [OUTSIDE, INSIDE]], dtype=float)
        boxes = [np.array([NORMAL]), np.array([NORMAL])]
        labels, hard = [np.array([0]), np.array([0])], [np.array([False]), np.array([False])]
        return pointing_result(points, [[0.9, 0], [0.8, 0]], boxes, labels, hard, ["cat", "dog"], tolerance=5)

    def test_json_in_per_cent(self):
        content = json.loads(json.dumps(self.result().to_dict(), allow_nan=False))
        assert {key: content[key] for key in ("map", "map_tolerance_0", "accuracy", "tolerance")} == {
            "map": 50,
            "map_tolerance_0": 50,
            "accuracy": 50,
            "tolerance": 5,
        }
        assert content["per_class"]["cat"] == {
            "ap": 50,
            "ap_tolerance_0": 50,
            "accuracy": 50,
            "correct": 1,
            "positives": 2,
            "ignored": 0,
        }
        assert content["per_class"]["dog"]["ap"] is None
        assert content["classes_without_positives"] == ["dog"]
        assert any("difficult" in line for line in content["decisions"])

    def test_table_prints_the_decisions(self):
        result = self.result()
        table = result.table()
        assert all(decision in table for decision in result.decisions)
        assert "enlarged by 5 pixels" in table
        assert any(line.split() == ["cat", "50.0", "50.0", "50.0", "2", "0"] for line in table.splitlines())
        assert "no positives, left out of the mean: dog" in table
