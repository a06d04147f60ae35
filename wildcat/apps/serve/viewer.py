"""The images of the web page: read once by the network, then drawn as often as someone moves a slider."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
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

MAX_PIXELS = 50_000_000  # of an image: 150 MB of RGB
VIEW_SIDE = 1024  # the longer side of what is shown
MAP_SIDE = 480
THUMBNAIL_SIDE = 192
KEPT_IMAGES = 48  # predictions with their reduced images, 2 MB each
KEPT_MASKS = 96  # 1 MB at most each


class Kept:
    """The values used last, at most ``size`` of them; each is made once, also when several threads ask for it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: OrderedDict[Hashable, object] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made now if it is not there; an error while making it is raised and not kept."""
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
    """What a page shows of images, which are named by their files' paths.

    A path must always hold the same image, as it does where files are stored under the digest of their content.

    Args:
        predictor: from :func:`wildcat.load`.
        max_pixels: images with more are rejected.
        kept: images whose predictions are kept.
    """

    def __init__(self, predictor: Predictor, *, max_pixels: int = MAX_PIXELS, kept: int = KEPT_IMAGES) -> None:
        self.predictor = predictor
        self.max_pixels = max_pixels
        self._network = threading.Lock()  # one image at a time: a pass uses all cores
        self._predictions = Kept(kept)
        self._masks = Kept(KEPT_MASKS)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the scores."""
        return self.predictor.settings.classes

    def prediction(self, path: str) -> Prediction:
        """The prediction, in pixels of the original image.

        Raises:
            WildcatError: naming the file, without its folder, if it cannot be read or is too large.
        """
        return self._looked(path)[0]

    def view(self, path: str) -> Prediction:
        """The prediction of the image as it is shown: at most ``VIEW_SIDE`` pixels."""
        return self._looked(path)[1]

    def _looked(self, path: str) -> tuple[Prediction, Prediction]:
        def look() -> tuple[Prediction, Prediction]:
            item = Item(Path(path).name, lambda draft_size: self._load(path, draft_size))
            with self._network:
                (full,) = self.predictor.stream([item])
            return full, full.reduced(VIEW_SIDE)

        return self._predictions.get(path, look)

    def _load(self, path: str, draft_size: int | None) -> Image.Image:
        try:
            return load_image(path, max_pixels=self.max_pixels, draft_size=draft_size)
        except WildcatError as error:  # the folder is the server's, and says nothing to who reads the message
            raise WildcatError(str(error).replace(path, Path(path).name)) from error

    def thumbnail(self, path: str) -> Image.Image:
        """The image reduced to ``THUMBNAIL_SIDE`` pixels; the file is read to its end, the network is not asked.

        Raises:
            WildcatError: as :meth:`prediction`.
        """
        image = self._load(path, THUMBNAIL_SIDE)
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        return image

    def draw(self, path: str, task: Task, chosen: Sequence[int], opacity: float, crf: bool = False) -> Image.Image:
        """The image with what the model says of the chosen classes.

        Args:
            path: of the image.
            task: "classify": heat where the evidence for the classes is; "point": a mark and a tag for each as well;
                "segment": the regions of their mask, above a legend.
            chosen: indices of the classes.
            opacity: of heat or regions, 0 to 1.
            crf: refine the mask.
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
        """M: how many maps each class has."""
        view = self.view(path)
        return 1 if view.multi_maps is None else len(view.multi_maps) // len(view.class_maps)

    def maps(self, path: str, c: int) -> list[Image.Image]:
        """The M maps of a class over the image, in one scale of colours."""
        view = self.view(path).only([c]).reduced(MAP_SIDE)
        maps = view.class_maps if view.multi_maps is None else view.multi_maps
        low, high = render.undecided(maps), float(maps.max())
        return [render.heatmap_overlay(view.image, one, vmin=low, vmax=high) for one in maps]

    def mask(self, path: str, chosen: Sequence[int], crf: bool = False) -> Labels:
        """The mask of the original image, see :meth:`wildcat.prediction.predictor.Prediction.mask`.

        Labels are 1 + class; of models with more than 254 classes, 1 + place among those chosen.
        """
        prediction, allowed = _maskable(self.prediction(path), chosen)
        return prediction.mask(allowed=allowed, crf=crf)

    def to_json(self, path: str, chosen: Sequence[int]) -> str:
        """The prediction as ``wildcat predict`` writes it, the chosen classes as those predicted; and mask labels."""
        prediction = self.prediction(path)
        shown, allowed = _maskable(prediction, chosen)
        labels = {1 + c: shown.settings.classes[c] for c in allowed}
        values = prediction.to_dict(allowed=chosen) | {"mask_labels": {0: "background", **labels}}
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"

    def _shown_mask(self, path: str, chosen: Sequence[int], crf: bool) -> Labels:
        def make() -> Labels:
            view, allowed = _maskable(self.view(path), chosen)
            return view.mask(allowed=allowed, crf=crf)

        return self._masks.get((path, tuple(chosen), crf), make)


def _maskable(prediction: Prediction, chosen: Sequence[int]) -> tuple[Prediction, Sequence[int]]:
    """A prediction whose classes fit into a mask, and the chosen classes in it."""
    if len(prediction.settings.classes) <= MAX_BYTE_LABELS:
        return prediction, chosen
    return prediction.only(chosen[:MAX_BYTE_LABELS]), range(len(chosen[:MAX_BYTE_LABELS]))


def _evidence(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The strongest of several maps (K, h, w) at each cell, each on its own scale from 0, undecided, to 1."""
    low = np.array([render.undecided(one) for one in maps], np.float32)[:, None, None]
    high = maps.max(axis=(1, 2), keepdims=True)
    scaled: npt.NDArray[np.float32] = ((maps - low) / np.maximum(high - low, np.finfo(np.float32).tiny)).max(axis=0)
    return np.maximum(scaled, 0)
