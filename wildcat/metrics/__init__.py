"""Metrics: arrays in, result objects out; no model and no dataset.

Functions and result objects hold proportions in [0, 1]. `scores`, `to_dict` and `table` of a result give per cent, as
do :class:`Scores` and its sections, which results.json holds. :data:`METRICS` names every score.

Each metric is a pure function, and an accumulator with `update` and `result` for data that come in batches.
"""

from wildcat.metrics.classification import (
    ClassificationAccumulator,
    ClassificationResult,
    MultiClassResult,
    PrecisionRecallCurve,
    average_precision,
    classification_result,
    multi_class_result,
    precision_recall_curve,
)
from wildcat.metrics.metric_table import CLASS_METRICS, METRICS, ClassMetric, Detail, Metric
from wildcat.metrics.pointing import (
    PointingAccumulator,
    PointingResult,
    PointVerdicts,
    point_verdicts,
    pointing_average_precision,
    pointing_result,
    points_in_boxes,
)
from wildcat.metrics.scores import ClassificationScores, PointingScores, Scores, SegmentationScores
from wildcat.metrics.segmentation import ConfusionMatrix, SegmentationResult, class_iou, mean_iou, segmentation_result
from wildcat.metrics.specialization import SpecializationAccumulator, SpecializationResult

__all__ = [
    "CLASS_METRICS",
    "METRICS",
    "ClassMetric",
    "ClassificationAccumulator",
    "ClassificationResult",
    "ClassificationScores",
    "ConfusionMatrix",
    "Detail",
    "Metric",
    "MultiClassResult",
    "PointVerdicts",
    "PointingAccumulator",
    "PointingResult",
    "PointingScores",
    "PrecisionRecallCurve",
    "Scores",
    "SegmentationResult",
    "SegmentationScores",
    "SpecializationAccumulator",
    "SpecializationResult",
    "average_precision",
    "class_iou",
    "classification_result",
    "mean_iou",
    "multi_class_result",
    "point_verdicts",
    "pointing_average_precision",
    "pointing_result",
    "points_in_boxes",
    "precision_recall_curve",
    "segmentation_result",
]
