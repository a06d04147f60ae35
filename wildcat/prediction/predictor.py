"""From images of any kind to scores, points and maps in pixels of the original image."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wildcat.data.images import Source, original_size
from wildcat.data.transforms import warp
from wildcat.errors import WildcatError
from wildcat.model import Wildcat, prepared
from wildcat.multiscale import BatchOutput, predict_batch
from wildcat.prediction.items import Failure, Item, image_items
from wildcat.prediction.result import Prediction
from wildcat.runs.settings import InferenceSettings
from wildcat.system.devices import Precision

READERS = 2  # threads that decode ahead of the network


_Prepared: TypeAlias = tuple[Item, tuple[int, int], dict[int, npt.NDArray[np.uint8]]]  # (width, height), side -> warped
Reader: TypeAlias = Callable[[Mapping[int, Tensor]], dict[str, BatchOutput]]


class Predictor:
    """A model that reads images, with the weights that it has when it reads the first.

    Attributes:
        settings: how it reads.
        precision: of the backbone.
        runtime: what the network runs in: "torch", "onnx" or "openvino".
        chosen: the part that :meth:`stream` gives.

    >>> import wildcat
    >>> predictor = wildcat.load("imagenet")
    >>> prediction = predictor(np.zeros((32, 48, 3), np.uint8))
    >>> prediction.size, len(prediction.scores)
    ((48, 32), 1000)
    """

    chosen: str = "model"
    runtime: str = "torch"

    def __init__(
        self,
        model: Wildcat,
        settings: InferenceSettings,
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
    ) -> None:
        self.device = torch.device(device)
        self.precision: Precision = precision
        self.runtime = getattr(model, "runtime", self.runtime)  # an exported file's
        self._model: Wildcat = model.eval().to(
            self.device,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        self.settings = settings

    @property
    def parts(self) -> dict[str, InferenceSettings]:
        """What :meth:`stream_each` says of an image: name -> how that part reads. A single model has one part."""
        return {self.chosen: self.settings}

    @property
    def model(self) -> Wildcat:
        """The network, in evaluation mode."""
        return self._model

    def reading_at(
        self,
        score_sizes: Sequence[int] | None = None,
        map_sizes: Sequence[int] | None = None,
        mirror: bool | None = None,
    ) -> Predictor:
        """The same model, read at other sizes: its test-time scales. What is None stays as it is.

        Raises:
            WildcatError: for sizes that are not above 0, and for models of several scales, which have their own.
        """
        if score_sizes is None and map_sizes is None and mirror is None:
            return self
        sizes = [*(score_sizes or ()), *(map_sizes or ())]
        if any(size < 1 for size in sizes) or score_sizes == [] or map_sizes == []:
            raise WildcatError(f"sizes at which images are read must be above 0; got {score_sizes}, {map_sizes}")
        settings = self.settings
        settings = replace(
            settings,
            score_sizes=settings.score_sizes if score_sizes is None else tuple(score_sizes),
            map_sizes=settings.map_sizes if map_sizes is None else tuple(map_sizes),
            mirror=settings.mirror if mirror is None else mirror,
        )
        return self._with(settings)

    def _with(self, settings: InferenceSettings) -> Predictor:
        other = copy.copy(self)
        other.settings = settings
        return other

    @cached_property
    def _ready(self) -> Wildcat:
        # What runs elsewhere, an exported file, is ready as it is.
        return prepared(self._model, self.precision) if isinstance(self._model, Wildcat) else self._model

    def __call__(self, image: Source) -> Prediction:
        """Read one image: a path, encoded bytes, a PIL image or an array.

        Raises:
            WildcatError: if it cannot be read.
        """
        (found,) = self.stream(image_items([image]))
        return found

    @overload
    def stream(
        self,
        items: Iterable[Item],
        *,
        batch_size: int = 8,
        on_error: Literal["raise"] = "raise",
        multi_maps: bool = True,
        maps: bool = True,
    ) -> Iterator[Prediction]: ...

    @overload
    def stream(
        self,
        items: Iterable[Item],
        *,
        batch_size: int = 8,
        on_error: Literal["yield"],
        multi_maps: bool = True,
        maps: bool = True,
    ) -> Iterator[Prediction | Failure]: ...

    def stream(
        self,
        items: Iterable[Item],
        *,
        batch_size: int = 8,
        on_error: str = "raise",
        multi_maps: bool = True,
        maps: bool = True,
    ) -> Iterator[Any]:
        """Read many images, in order, decoding ahead of the network; memory does not grow with their number.

        Args:
            items: lazily consumed.
            batch_size: images per pass of the network.
            on_error: "raise", or "yield" to get a :class:`Failure` in place of the prediction.
            multi_maps: keep the M maps of each class; without them the M * C filters are folded into C.
            maps: read images at the sizes of maps too. Off, for who needs the probabilities alone: they are the same,
                and the maps are those of the sizes at which scores are read.
        """
        for found in self._stream(items, batch_size, on_error, multi_maps, maps, [self.chosen]):
            yield found if isinstance(found, Failure) else found[self.chosen]

    def stream_each(
        self, items: Iterable[Item], *, parts: Sequence[str] | None = None, batch_size: int = 8, maps: bool = True
    ) -> Iterator[dict[str, Prediction]]:
        """As :meth:`stream`, what each of :attr:`parts` says of an image; each model reads it once.

        The multi-maps are not kept.
        """
        return self._stream(items, batch_size, "raise", False, maps, list(self.parts if parts is None else parts))

    def _stream(
        self, items: Iterable[Item], batch_size: int, on_error: str, multi_maps: bool, maps: bool, parts: list[str]
    ) -> Iterator[Any]:
        if batch_size < 1:
            raise WildcatError(f"batch size must be at least 1; got {batch_size}")
        reader = self.reader(multi_maps, maps)
        settings = self.settings
        sizes = sorted({*settings.score_sizes, *(settings.map_sizes if maps else ())})
        largest = max(*settings.score_sizes, *settings.map_sizes)  # without maps too: scores depend on the decoding

        def prepare(item: Item) -> _Prepared | Failure:
            try:
                image = item.load(largest)
            except WildcatError as error:
                if on_error == "raise":
                    raise
                return Failure(item.name, str(error))
            return item, original_size(image), {size: warp(image, size) for size in sizes}

        with ThreadPoolExecutor(READERS) as pool:
            for batch in _batched(_ahead(pool, prepare, items, 2 * batch_size), batch_size):
                good = [entry for entry in batch if not isinstance(entry, Failure)]
                predictions = iter(self._predict(reader, good, multi_maps, parts) if good else [])
                for entry in batch:
                    yield entry if isinstance(entry, Failure) else next(predictions)

    def reader(self, multi_maps: bool = True, maps: bool = True) -> Reader:
        """The function from pixels (N, 3, side, side), uint8, by side, to what each part reads them as."""
        model, settings = self._ready if multi_maps else self._ready.merged(), self.settings
        map_sizes = settings.map_sizes if maps else settings.score_sizes

        def read_pixels(pixels: Mapping[int, Tensor]) -> dict[str, BatchOutput]:
            sizes = {*settings.score_sizes, *map_sizes}
            output = predict_batch(
                model,
                {size: model.normalize(pixels[size]) for size in sizes},
                settings.score_sizes,
                map_sizes,
                mirror=settings.mirror,
                multi_label=settings.multi_label,
            )
            return {Predictor.chosen: output}

        return read_pixels

    def _predict(
        self, reader: Reader, batch: list[_Prepared], multi_maps: bool, parts: list[str]
    ) -> list[dict[str, Prediction]]:
        with torch.inference_mode():
            pixels = {
                size: torch.from_numpy(np.stack([warped[size] for _, _, warped in batch]))
                .to(self.device)
                .permute(0, 3, 1, 2)
                for size in batch[0][2]
            }
            readings = reader(pixels)
        predictions: list[dict[str, Prediction]] = [{} for _ in batch]
        classes = len(self.settings.classes)  # the model may have one more, for the background
        for part in parts:
            found = readings[part].probabilities.float().cpu().numpy()
            maps = readings[part].class_maps.float().cpu().numpy()
            if not (np.isfinite(found).all() and np.isfinite(maps).all()):
                raise WildcatError(
                    "the model gives NaN or infinite values: its training diverged, or its weights are damaged"
                )
            multi = readings[part].multi_maps.float().cpu().numpy() if multi_maps else None
            if multi is not None:
                multi = multi[:, : classes * (multi.shape[1] // maps.shape[1])]
            for i, (item, size, _) in enumerate(batch):
                predictions[i][part] = Prediction(
                    item.name,
                    size,
                    self.parts[part],
                    found[i, :classes],
                    maps[i, :classes],
                    None if multi is None else multi[i],
                    lambda load=item.load: load(None),  # type: ignore[misc]
                    maps[i, classes] if self.settings.background_class else None,
                )
        return predictions


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Any], items: Iterable[Item], depth: int
) -> Iterator[Any]:
    """Results in order, with at most ``depth`` of them under way."""
    waiting: deque[Future[Any]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _batched(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(values)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
