"""Datasets by a short specification, such as ``open_dataset("voc07:data", "trainval")``; images and their checks."""

from wildcat.data.checks import (
    CheckReport,
    check_dataset,
    class_counts,
    label_warnings,
    shared_image_warnings,
)
from wildcat.data.images import load_image
from wildcat.data.registry import (
    available_splits,
    default_splits,
    download_dataset,
    open_dataset,
    register_dataset,
    without_path,
)
from wildcat.data.sample import Dataset, Parts, Sample

__all__ = [
    "CheckReport",
    "Dataset",
    "Parts",
    "Sample",
    "available_splits",
    "check_dataset",
    "class_counts",
    "default_splits",
    "download_dataset",
    "label_warnings",
    "load_image",
    "open_dataset",
    "register_dataset",
    "shared_image_warnings",
    "without_path",
]
