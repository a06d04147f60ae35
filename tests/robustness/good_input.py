"""Small valid files, from which fuzzers start; imports nothing that the fuzzers instrument."""

from collections.abc import Callable

from wildcat.errors import WildcatError


def clear(read: Callable[[], object]) -> None:
    """Check that a reader succeeds or raises a short WildcatError."""
    try:
        read()
    except WildcatError as error:
        assert 0 < len(str(error)) < 5000


CSV = b'image,tags,split\na.png,cat;dog,train\n"b, c.png",dog,test\n'
COLUMNS = b"image\tcat\tdog\na.png\t1\t0\nb.png\t0\t1\n"
XML = (
    b"<annotation><size><width>40</width><height>30</height></size><object><name>dog</name><difficult>0</difficult>"
    b"<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object></annotation>"
)
COCO = {
    "images": [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}],
    "annotations": [
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 9, "segmentation": [[0, 0, 9, 0, 9, 9]]},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1], "area": 1,
         "segmentation": {"size": [30, 40], "counts": [0, 1200]}, "iscrowd": 1},
    ],
    "categories": [{"id": 1, "name": "dog"}],
}  # fmt: skip
RUN = {
    "config": {"data": "synthetic", "kmax": 0.2, "score_sizes": [64], "val_split": None},
    "classes": ["cat", "dog"],
    "multi_label": True,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "images": 4,
}
SCALES = {
    "config": {"data": "synthetic"},
    "scales": [64, 96],
    "combination": {"chosen": "mean", "held_out": 2, "scores": {"mean": 1.0}, "fitted_on": ["synthetic", "train"]},
}
