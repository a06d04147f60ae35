"""Predictions and drawings for the web page: each image is predicted once and redrawn for every change of a setting."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from wildcat import render
from wildcat.data.images import load_image
from wildcat.errors import WildcatError
from wildcat.prediction.items import Item
from wildcat.prediction.predictor import Predictor
from wildcat.prediction.result import MAX_BYTE_LABELS, Labels, Prediction

Task = Literal["classify", "point", "segment"]
Value = TypeVar("Value")

MAX_PIXELS = 50_000_000  # of an image; 150 MB as RGB
VIEW_SIDE = 1024  # longer side of the image that is shown, in pixels
MAP_SIDE = 480  # of each of the M maps
THUMBNAIL_SIDE = 192
CACHED_PREDICTIONS = 48  # with their reduced images, about 2 MB each
CACHED_MASKS = 96  # at most 1 MB each


class LeastRecentlyUsed:
    """A cache of at most ``size`` values. Threads that ask for the same key at once share one computation."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: OrderedDict[Hashable, object] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made by ``make`` if it is not cached. An error of ``make`` is raised and not cached."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        try:
            with making:
                with self._lock:
                    if key in self._values:
                        self._values.move_to_end(key)
                        return self._values[key]  # type: ignore[return-value]
                value = make()
                with self._lock:
                    self._values[key] = value
                    while len(self._values) > self.size:
                        self._values.popitem(last=False)
                return value
        finally:
            with self._lock:
                self._making.pop(key, None)


class Viewer:
    """Predicts images and draws their predictions. Images are identified by their paths.

    The file at a path must not change: predictions are cached by path. (gradio stores uploads under the hash of their
    content.)

    Args:
        predictor: from :func:`wildcat.load`.
        max_pixels: images with more pixels are rejected.
        cached: number of images whose predictions are cached.
    """

    def __init__(self, predictor: Predictor, *, max_pixels: int = MAX_PIXELS, cached: int = CACHED_PREDICTIONS) -> None:
        self.predictor = _with_unicode_names(predictor)
        self.max_pixels = max_pixels
        self._network = threading.Lock()  # one image at a time: a forward pass uses all cores
        self._refining = threading.Lock()  # one mask at a time: a CRF needs up to about 2 GB
        self._predictions = LeastRecentlyUsed(cached)
        self._masks = LeastRecentlyUsed(CACHED_MASKS)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the scores."""
        return self.predictor.settings.classes

    def prediction(self, path: str) -> Prediction:
        """The prediction, in pixels of the original image.

        Raises:
            WildcatError: if the file cannot be read or is too large; the message has its name without the folder.
        """
        return self._predict(path)[0]

    def view(self, path: str) -> Prediction:
        """The prediction for the image as shown, whose longer side is at most ``VIEW_SIDE`` pixels."""
        return self._predict(path)[1]

    def _predict(self, path: str) -> tuple[Prediction, Prediction]:
        def make() -> tuple[Prediction, Prediction]:
            item = Item(Path(path).name, lambda draft_size: self._load(path, draft_size))
            with self._network:
                (full,) = self.predictor.stream([item])
            return full, full.reduced(VIEW_SIDE)

        return self._predictions.get(path, make)

    def _load(self, path: str, draft_size: int | None) -> Image.Image:
        name = Path(path).name
        if not Path(path).exists():
            raise WildcatError(f"{name} is no longer on the server, which keeps the latest uploads: upload it again")
        try:
            return load_image(path, max_pixels=self.max_pixels, draft_size=draft_size)
        except WildcatError as error:  # the server's folder means nothing to the user
            raise WildcatError(str(error).replace(path, name)) from error

    def thumbnail(self, path: str) -> Image.Image:
        """The image with a longer side of at most ``THUMBNAIL_SIDE`` pixels. Decodes the whole file; predicts nothing.

        Raises:
            WildcatError: as for :meth:`prediction`.
        """
        return render.scaled(self._load(path, THUMBNAIL_SIDE), THUMBNAIL_SIDE)

    def draw(self, path: str, task: Task, chosen: Sequence[int], opacity: float, crf: bool = False) -> Image.Image:
        """The image with the prediction for the chosen classes drawn over it.

        Args:
            path: path of the image.
            task: "classify": heatmap of the evidence for the classes; "point": heatmap, points and probabilities;
                "segment": mask, with a legend below.
            chosen: indices of the classes.
            opacity: of the heatmap or mask, 0 to 1.
            crf: refine the mask with the dense CRF.
        """
        view = self.view(path)
        if not chosen:
            return view.image.copy()
        if task == "segment":
            names = _maskable(view, chosen)[0].settings.classes
            return render.mask_overlay(view.image, self._shown_mask(path, chosen, crf), names, opacity=opacity)
        evidence = _evidence(view.class_maps[list(chosen)])
        image = render.heatmap_overlay(view.image, evidence, opacity=opacity, vmin=0, vmax=1)
        if task == "classify":
            return image
        tags = [f"{self.classes[c]} {100 * view.probabilities[c]:.0f} %" for c in chosen]
        return render.draw_points(image, view.point_array[list(chosen)], tags)

    def num_maps(self, path: str) -> int:
        """M, the number of maps of each class."""
        view = self.view(path)
        return 1 if view.multi_maps is None else len(view.multi_maps) // len(view.class_maps)

    def maps(self, path: str, label: int) -> list[Image.Image]:
        """The M maps of a class as heatmaps over the image, on a common scale of colours."""
        view = self.view(path).only([label]).reduced(MAP_SIDE)
        maps = view.class_maps if view.multi_maps is None else view.multi_maps
        low, high = render.undecided(maps), float(maps.max())
        return [render.heatmap_overlay(view.image, one, vmin=low, vmax=high) for one in maps]

    def mask(self, path: str, chosen: Sequence[int], crf: bool = False) -> Labels:
        """The mask (H, W) of the original image, see :meth:`wildcat.prediction.result.Prediction.mask`.

        Labels are 1 + class index; for models with more than 254 classes, 1 + index among the chosen classes.
        """
        prediction, allowed = _maskable(self.prediction(path), chosen)
        return self._mask(prediction, allowed, crf)

    def to_json(self, path: str, chosen: Sequence[int]) -> str:
        """The prediction as JSON.

        The format is that of ``wildcat predict``, with the chosen classes as the predicted ones and, in addition, the
        mask's labels.
        """
        prediction = self.prediction(path)
        shown, allowed = _maskable(prediction, chosen)
        labels = {1 + c: shown.settings.classes[c] for c in allowed}
        values = prediction.to_dict(allowed=chosen) | {"mask_labels": {0: "background", **labels}}
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        return text.encode("utf-8", "backslashreplace").decode()  # a file name that is not UTF-8 gets JSON escapes

    def _shown_mask(self, path: str, chosen: Sequence[int], crf: bool) -> Labels:
        def make() -> Labels:
            view, allowed = _maskable(self.view(path), chosen)
            return self._mask(view, allowed, crf)

        return self._masks.get((path, tuple(chosen), crf), make)

    def _mask(self, prediction: Prediction, allowed: Sequence[int], crf: bool) -> Labels:
        with self._refining if crf else contextlib.nullcontext():
            return prediction.mask(allowed=allowed, crf=crf)


def _with_unicode_names(predictor: Predictor) -> Predictor:
    """The predictor with class names that a page can show: bytes that are not UTF-8 become escapes."""
    settings = predictor.settings
    classes = tuple(name.encode("utf-8", "backslashreplace").decode() for name in settings.classes)
    if classes == settings.classes:
        return predictor
    return predictor.with_settings(replace(settings, classes=classes))


def _maskable(prediction: Prediction, chosen: Sequence[int]) -> tuple[Prediction, Sequence[int]]:
    """A prediction with at most 254 classes, so that an 8-bit mask can hold them, and the chosen classes in it."""
    if len(prediction.settings.classes) <= MAX_BYTE_LABELS:
        return prediction, chosen
    return prediction.only(chosen[:MAX_BYTE_LABELS]), range(len(chosen[:MAX_BYTE_LABELS]))


def _evidence(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The cell-wise maximum (h, w) of maps (K, h, w), each scaled to [0, 1] between undecided and its maximum."""
    low = np.array([render.undecided(one) for one in maps], np.float32)[:, None, None]
    high = maps.max(axis=(1, 2), keepdims=True)
    scaled: npt.NDArray[np.float32] = ((maps - low) / np.maximum(high - low, np.finfo(np.float32).tiny)).max(axis=0)
    return np.maximum(scaled, 0)
