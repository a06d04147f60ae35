"""COCO JSON: a dataset whose annotations are the regions of masks, and result files for ``COCO.loadRes``."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from wildcat.errors import WildcatError
from wildcat.formats.incremental import IncrementalFile, JsonList
from wildcat.formats.polygons import polygons
from wildcat.formats.predicted_image import PredictedImage
from wildcat.system.output_folder import OutputFolder


class CocoWriter:
    """Writes ``coco/dataset.json``, ``results-bbox.json``, ``results-segm.json`` and ``results-keypoints.json``.

    The dataset has polygons, as tools expect them where "iscrowd" is 0, the results run-length encoded masks: the same
    pixels. Ids of images count from 1 in the order of arrival, ids of classes from 1 in the model's order. Boxes (x, y,
    width, height) are those of the regions of the mask; each predicted class has one key point, its point.
    """

    files = (
        "coco/dataset.json",
        *(f"coco/results-{kind}.json" for kind in ("bbox", "segm", "keypoints")),
    )

    def __init__(self, out: OutputFolder, classes: tuple[str, ...]) -> None:
        try:
            from pycocotools import mask as encoder
        except ImportError as error:
            raise WildcatError("the format coco needs pycocotools: pip install 'wildcat-wsl[coco]'") from error
        self._encode = encoder.encode
        categories = [
            {"id": number, "name": name, "keypoints": ["point"], "skeleton": []}
            for number, name in enumerate(classes, start=1)
        ]
        # Images and annotations are written to two files; the annotations are appended to the images at the end.
        self._dataset, self._regions = (
            IncrementalFile.within(out, self.files[0]),
            IncrementalFile(out.path / "coco" / "annotations.json"),
        )
        self._dataset.stream.write(f'{{"categories": {json.dumps(categories)},\n"images": ')
        self._results = [IncrementalFile.within(out, name) for name in self.files[1:]]
        self._images, self._annotations = JsonList(self._dataset.stream), JsonList(self._regions.stream)
        self._boxes, self._masks, self._points = (JsonList(file.stream) for file in self._results)
        self._image_id = self._annotation_id = 0

    def add(self, image: PredictedImage) -> None:
        """Write the entries of an image."""
        self._image_id += 1
        width, height = image.prediction.size
        self._images.add({"id": self._image_id, "file_name": image.name, "width": width, "height": height})
        for region in image.regions:
            self._annotation_id += 1
            x1, y1, x2, y2 = region.box
            mask = np.zeros((height, width), dtype=np.uint8, order="F")
            mask[y1:y2, x1:x2] = region.pixels
            runs = self._encode(mask)
            entry = self._entry(image, region.label)
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1]}
            segmentation = {"segmentation": {"size": [height, width], "counts": runs["counts"].decode("ascii")}}
            self._boxes.add(entry | box)
            self._masks.add(entry | segmentation)
            outline = {"segmentation": polygons(region.pixels, (x1, y1))}
            self._annotations.add(
                {"id": self._annotation_id, **entry, **box, "area": region.area, "iscrowd": 0, **outline}
            )
        for label in image.present:
            x, y = image.point_of(label)
            self._points.add(self._entry(image, label) | {"keypoints": [round(x, 2), round(y, 2), 2]})

    def _entry(self, image: PredictedImage, label: int) -> dict[str, Any]:
        return {"image_id": self._image_id, "category_id": 1 + label, "score": image.score_of(label)}

    def finish(self) -> None:
        """Complete the dataset and the results."""
        for entries in (self._images, self._annotations, self._boxes, self._masks, self._points):
            entries.end()
        self._dataset.stream.write(',\n"annotations": ')
        self._dataset.append(self._regions)
        self._dataset.stream.write("}\n")
        for file in (self._dataset, *self._results):
            file.finish()

    def discard(self) -> None:
        """Remove incomplete files."""
        for file in (self._dataset, self._regions, *self._results):
            file.discard()
