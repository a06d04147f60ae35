"""The prediction for one image: scores, points, maps, masks, overlays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from wildcat import render
from wildcat.background_cue import background_cue
from wildcat.crf.bounded import working_size
from wildcat.crf.mean_field import dense_crf, refined_rows
from wildcat.data.transforms import cell_centres
from wildcat.errors import WildcatError, guess
from wildcat.export.network import Runtime
from wildcat.masks import label_map, pixel_probabilities, strength_maps, strengths
from wildcat.render import sheets
from wildcat.runs.settings import InferenceSettings
from wildcat.system.devices import Precision

Threshold: TypeAlias = float | Mapping[str, float]
"""Probability, 0 to 1, from which a class counts as present: for all classes, or by class (0.5 where none is given)."""

Labels: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]
"""A mask (H, W), uint8, or uint16 above :data:`MAX_BYTE_LABELS` classes."""

SCORE_DIGITS = 6
"""Decimal places of a probability in files."""

MAX_BYTE_LABELS = 254
"""The most classes of a uint8 mask, in which 0 is the background and 255 void."""


def check_threshold(threshold: Threshold, classes: Sequence[str]) -> None:
    """Check a threshold.

    Raises:
        WildcatError: if one is not a probability, 0 to 1, or belongs to a class that the model does not have.

    >>> check_threshold({"cat": 0.3}, ["cat", "dog"])
    """
    by_class = threshold if isinstance(threshold, Mapping) else {"": threshold}
    for name, value in by_class.items():
        if not 0 <= value <= 1:  # NaN as well
            given = f"{name}={value}" if name else value
            raise WildcatError(f"a threshold is a probability, 0..1 (0.5 for 50 %); got {given}")
    if isinstance(threshold, Mapping) and (unknown := set(threshold) - set(classes)):
        message = f"a threshold is given for {min(unknown)!r}, which is not a class of the model"
        raise WildcatError(message + guess(min(unknown), classes))


def class_labels(positions: Labels, chosen: Sequence[int], num_classes: int) -> Labels:
    """The mask (H, W) with label 1 + class, from one with label 1 + position among the chosen classes."""
    values = [0, *(1 + c for c in chosen)]
    table: Labels = np.array(values, np.uint8) if num_classes <= MAX_BYTE_LABELS else np.array(values, np.uint16)
    return table[positions]


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Points and masks are in pixels of the original image, turned upright as its metadata says.

    Attributes:
        name: of the image: its path, or its number in the stream.
        size: (width, height) of the original image.
        settings: of the model.
        probabilities: (C,) in [0, 1].
        class_maps: (C, h, w), unbounded; the higher, the more evidence for the class at that position.
        multi_maps: (C * M, h, w), class-major; None for a stream without them.
        background_map: (h, w), unbounded; None unless the model has a background class.
        precision: in which the backbone computed, "fp32" or "bf16".
        runtime: in which the network computed, "torch", "onnx" or "openvino".

    >>> import wildcat
    >>> prediction = wildcat.load("imagenet")(np.zeros((32, 48, 3), np.uint8))
    >>> list(prediction.scores) == list(prediction.points), prediction.mask().shape
    (True, (32, 48))
    """

    name: str
    size: tuple[int, int]
    settings: InferenceSettings
    probabilities: npt.NDArray[np.float32]
    class_maps: npt.NDArray[np.float32]
    multi_maps: npt.NDArray[np.float32] | None
    _source: Callable[[], Image.Image]
    background_map: npt.NDArray[np.float32] | None = None
    precision: Precision = "fp32"
    runtime: Runtime = "torch"

    @property
    def scores(self) -> dict[str, float]:
        """Class -> probability in [0, 1], the highest first."""
        return {self.settings.classes[c]: float(self.probabilities[c]) for c in self._ranked()}

    @property
    def point_array(self) -> npt.NDArray[np.float64]:
        """(C, 2): (x, y) of each class in pixels of the original: the centre of the cell where its map is highest."""
        _, height, width = self.class_maps.shape
        cells = np.stack(np.unravel_index(self.class_maps.reshape(-1, height * width).argmax(axis=1), (height, width)))
        return cell_centres(cells.T, (height, width), self.size)

    @property
    def points(self) -> dict[str, tuple[float, float]]:
        """Class -> (x, y) in pixels of the original, in the order of :attr:`scores`."""
        points = self.point_array
        return {self.settings.classes[c]: (float(points[c, 0]), float(points[c, 1])) for c in self._ranked()}

    @property
    def mask_maps(self) -> torch.Tensor:
        """The maps behind masks: (C, h, w), or (C + 1, h, w) with the map of a background class last."""
        maps = torch.from_numpy(self.class_maps)
        return maps if self.background_map is None else torch.cat([maps, torch.from_numpy(self.background_map)[None]])

    @cached_property
    def background_cue(self) -> npt.NDArray[np.float32]:
        """(h, w) in [0, 1]: where the image is probably background; decodes it again, see
        :func:`wildcat.background_cue.background_cue`.
        """
        return background_cue(np.asarray(self.image))

    @property
    def image(self) -> Image.Image:
        """The upright RGB image, decoded again from its source."""
        return self._source()

    def present(self, threshold: Threshold = 0.5) -> list[int]:
        """Indices of the classes predicted, the most probable first.

        Where an image has exactly one class this is the most probable one, whatever the threshold.

        Raises:
            WildcatError: for a threshold that is not a probability, or of a class that the model does not have.
        """
        classes, ranked = self.settings.classes, self._ranked()
        by_class = threshold if isinstance(threshold, Mapping) else dict.fromkeys(classes, threshold)
        check_threshold(by_class, classes)
        if not self.settings.multi_label:
            return ranked[:1]
        return [c for c in ranked if self.probabilities[c] >= by_class.get(classes[c], 0.5)]

    def candidates(self, threshold: Threshold = 0.5) -> list[int]:
        """As :meth:`present`, but the most probable class if none reaches the threshold."""
        return self.present(threshold) or self._ranked()[:1]

    def mask(self, *, crf: bool = False, threshold: Threshold = 0.5, allowed: Sequence[int] | None = None) -> Labels:
        """Label map (H, W) of the original image: 0 background, 1 + class otherwise; uint16 above 254 classes.

        Args:
            crf: refine with the dense CRF, which decodes the image again, and works at 1 megapixel at most.
            threshold: probability from which a class may appear; the most probable one may if none reaches it.
            allowed: indices of the classes that may appear, instead of a threshold.
        """
        if allowed is None:
            allowed = self.candidates(threshold)
        labels = allowed if len(self.settings.classes) <= MAX_BYTE_LABELS else range(len(allowed))
        width, height = self.size
        size = working_size(height, width, 1 + len(allowed)) if crf else (height, width)
        background = self.settings.background
        cue = torch.from_numpy(self.background_cue) if background.uses_cue and len(allowed) else None
        if not crf:
            mask = label_map(strength_maps(self.mask_maps, allowed, size, background, cue), labels)
        else:
            strength = strengths(self.mask_maps, allowed, size, background, cue)
            probabilities, pixels = pixel_probabilities(strength), np.array(self.image)
            if size == (height, width):
                mask = label_map(dense_crf(probabilities, pixels), labels)
            else:
                mask = np.concatenate([label_map(part, labels) for _, part in refined_rows(probabilities, pixels)])
        return mask if labels is allowed else class_labels(mask, allowed, len(self.settings.classes))

    def reduced(self, side: int) -> Prediction:
        """The same prediction for the image scaled down to ``side`` pixels at most, which is kept in memory.

        Points, masks and overlays then refer to the smaller image, and take less time.
        """
        image = render.scaled(self.image, side)
        return replace(self, size=image.size, _source=image.copy)

    def only(self, chosen: Sequence[int]) -> Prediction:
        """The same prediction for these classes alone, in this order."""
        rows = list(chosen)
        multi = self.multi_maps
        if multi is not None:
            multi = multi.reshape(len(self.settings.classes), -1, *multi.shape[1:])[rows].reshape(-1, *multi.shape[1:])
        return replace(
            self,
            settings=replace(self.settings, classes=tuple(self.settings.classes[c] for c in rows)),
            probabilities=self.probabilities[rows],
            class_maps=self.class_maps[rows],
            multi_maps=multi,
        )

    def mask_overlay(self, mask: Labels) -> Image.Image:
        """The image with a mask from :meth:`mask` over it, and a legend."""
        classes = self.settings.classes
        if len(classes) > MAX_BYTE_LABELS:  # colours for the classes in the mask alone
            present = np.unique(mask[mask > 0])
            mask = np.where(mask > 0, 1 + np.searchsorted(present, mask), 0).astype(np.uint16)
            classes = tuple(classes[label - 1] for label in present)
        return render.mask_overlay(self.image, mask, classes)

    def overlay(self, threshold: Threshold = 0.5) -> Image.Image:
        """The image beside a panel with heatmap, point and score for each of :meth:`candidates`."""
        points = self.point_array
        entries = [
            sheets.Entry(
                self.settings.classes[c],
                float(self.probabilities[c]),
                self.class_maps[c],
                (float(points[c, 0]), float(points[c, 1])),
            )
            for c in self.candidates(threshold)
        ]
        return sheets.prediction_overlay(self.image, entries, title=Path(self.name).name)

    def show(self) -> None:
        """Open :meth:`overlay` in the system's image viewer."""
        self.overlay().show()

    def to_dict(self, threshold: Threshold = 0.5, *, allowed: Sequence[int] | None = None) -> dict[str, Any]:
        """Plain values for JSON: scores are probabilities, 0 to 1; points are in pixels of the original.

        Args:
            threshold: probability from which a class counts as predicted.
            allowed: indices of the classes that count as predicted, instead of a threshold.
        """
        points = self.point_array
        if allowed is None:
            allowed = self.present(threshold)
        return {
            "file": self.name,
            "width": self.size[0],
            "height": self.size[1],
            "predicted": [
                {
                    "class": self.settings.classes[c],
                    "score": round(float(self.probabilities[c]), SCORE_DIGITS),
                    "point": [round(float(v), 2) for v in points[c]],
                }
                for c in allowed
            ],
            "scores": {name: round(score, SCORE_DIGITS) for name, score in self.scores.items()},
            "precision": self.precision,
            "runtime": self.runtime,
        }

    def _ranked(self) -> list[int]:
        return [int(c) for c in np.argsort(-self.probabilities, kind="stable")]
