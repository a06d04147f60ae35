"""Metrics: arrays in, result objects out; no model and no dataset.

Functions and result fields hold proportions in [0, 1]; `to_dict` and `table` of a result give per cent.
"""

from wildcat.metrics.classification import (
    ClassificationResult,
    MultiClassResult,
    PrecisionRecallCurve,
    average_precision,
    classification_result,
    multi_class_result,
    precision_recall_curve,
)
from wildcat.metrics.pointing import PointingResult, pointing_average_precision, pointing_result, points_in_boxes
from wildcat.metrics.segmentation import ConfusionMatrix, SegmentationResult, class_iou, mean_iou, segmentation_result

__all__ = [
    "ClassificationResult",
    "ConfusionMatrix",
    "MultiClassResult",
    "PointingResult",
    "PrecisionRecallCurve",
    "SegmentationResult",
    "average_precision",
    "class_iou",
    "classification_result",
    "mean_iou",
    "multi_class_result",
    "pointing_average_precision",
    "pointing_result",
    "points_in_boxes",
    "precision_recall_curve",
    "segmentation_result",
]
