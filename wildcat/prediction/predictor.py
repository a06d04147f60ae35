"""From images of any kind to scores, points and maps in pixels of the original image."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wildcat.data.images import Source, original_size
from wildcat.data.transforms import warp
from wildcat.errors import WildcatError
from wildcat.export.network import Runtime
from wildcat.model import Wildcat
from wildcat.multiscale import BatchOutput, predict_batch
from wildcat.prediction.ensemble import Ensemble
from wildcat.prediction.items import Failure, Item, image_items
from wildcat.prediction.network import Network, TorchNetwork
from wildcat.prediction.result import Prediction
from wildcat.runs.settings import InferenceSettings
from wildcat.system.devices import Precision

DECODING_THREADS = 2  # decode images ahead of the network
SINGLE = "model"  # name of the only part of a predictor

_Decoded: TypeAlias = tuple[Item, tuple[int, int], dict[int, npt.NDArray[np.uint8]]]  # (width, height), side -> warped
BatchFunction: TypeAlias = Callable[[Mapping[int, Tensor]], dict[str, BatchOutput]]
"""From pixels (N, 3, side, side), uint8, by their side, to the output of each part and combination by its name."""


@dataclass(frozen=True, eq=False)
class Part:
    """A network and how it is applied to images.

    Attributes:
        network: in any runtime.
        settings: sizes, mirroring, classes and background.
    """

    network: Network
    settings: InferenceSettings


class Predictor:
    """Predicts scores, points and masks of images with one network, or with several as one.

    :func:`wildcat.load` makes predictors of runs, hub models and exported files; :meth:`from_model` makes one of a
    model. A model predicts with the weights that it has at the first prediction.

    Args:
        parts: one part, or several by their names; these have the same classes and are on the same device.
        combine: how several parts are combined.
        run: where the model comes from.

    Attributes:
        run: the run directory, which knows the training data; "imagenet" for the embedded classifier; None where it is
            not known.
        parts: each part by its name.
        combine: how several parts are combined; None for a single part.
        settings: of the part; of several: their common classes, all their sizes, and the combination's background.
        chosen: the part or combination that :meth:`stream` gives.

    Raises:
        ValueError: for no part, or several parts without a combination.

    >>> import wildcat
    >>> predictor = wildcat.load("imagenet")
    >>> prediction = predictor(np.zeros((32, 48, 3), np.uint8))
    >>> prediction.size, len(prediction.scores)
    ((48, 32), 1000)
    """

    def __init__(
        self, parts: Part | Mapping[str, Part], combine: Ensemble | None = None, run: Path | None = None
    ) -> None:
        self.run = run
        self.parts = {SINGLE: parts} if isinstance(parts, Part) else dict(parts)
        self.combine = combine
        if not self.parts or (combine is None and len(self.parts) > 1):
            raise ValueError(f"a predictor has one part, or several and a combination; got {len(self.parts)} parts")
        first = next(iter(self.parts.values()))
        self.settings = first.settings if combine is None else _joined_settings(self.parts, combine)
        self.chosen = next(iter(self.parts)) if combine is None else combine.chosen

    @classmethod
    def from_model(
        cls,
        model: Wildcat,
        settings: InferenceSettings,
        device: str | torch.device = "cpu",
        precision: Precision = "fp32",
    ) -> Predictor:
        """A predictor of a PyTorch model.

        Args:
            model: is set to evaluation mode and moved to the device; otherwise it stays as it is.
            settings: how it is applied to images.
            device: where it computes, such as "cuda:0".
            precision: of the backbone; "auto" takes bf16 where it is faster.

        >>> import wildcat
        >>> model = wildcat.create_model("lite0", num_classes=2, pretrained=False)
        >>> settings = InferenceSettings(("cat", "dog"), multi_label=True, score_sizes=(64,), map_sizes=(96,))
        >>> prediction = Predictor.from_model(model, settings)(np.zeros((32, 48, 3), np.uint8))
        >>> prediction.class_maps.shape
        (2, 3, 3)
        """
        return cls(Part(TorchNetwork(model, device, precision), settings))

    @property
    def single(self) -> Part:
        """The only part; ask for it where something works for one network alone, such as an export or other sizes.

        Raises:
            WildcatError: if there are several.
        """
        if len(self.parts) > 1:
            raise WildcatError(
                f"this run holds models of several scales; give the folder of one of them: {', '.join(self.parts)}"
            )
        return next(iter(self.parts.values()))

    @property
    def model(self) -> Wildcat:
        """The PyTorch model of the only part, in evaluation mode.

        Raises:
            WildcatError: if there are several parts, or the network is an exported file.
        """
        network = self.single.network
        if not isinstance(network, TorchNetwork):
            raise WildcatError(f"an exported file (in {network.runtime}) holds no PyTorch model: load the run instead")
        return network.model

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        return next(iter(self.parts.values())).network.device

    @property
    def precision(self) -> Precision:
        """In which the backbones compute: "fp32" or "bf16", also where "auto" was given."""
        return next(iter(self.parts.values())).network.precision

    @property
    def runtime(self) -> Runtime:
        """What the networks run in: "torch", "onnx" or "openvino"."""
        return next(iter(self.parts.values())).network.runtime

    @property
    def model_fingerprint(self) -> str:
        """As :attr:`fingerprint`, of weights and structure alone: the same at all sizes, with any background, in every
        runtime and version of the package.

        A file that an earlier version exported does not have it; there it is :attr:`fingerprint`.
        """
        parts = [part.network.model_fingerprint for part in self.parts.values()]
        return " ".join(parts if self.combine is None else [*parts, self.chosen])

    @property
    def computation(self) -> str:
        """Runtime, precision and device in words, as commands print them: "torch, fp32, cpu"."""
        return f"{self.runtime}, {self.precision}, {self.device}"

    @property
    def outputs(self) -> dict[str, InferenceSettings]:
        """What :meth:`stream_each` gives of an image: the name of each part and combination, with its settings."""
        combinations = () if self.combine is None else self.combine.names
        return {name: part.settings for name, part in self.parts.items()} | dict.fromkeys(combinations, self.settings)

    @property
    def fingerprint(self) -> str:
        """Identifies what predicts: weights, structure, settings, version of the package, chosen combination."""
        parts = [part.network.fingerprint(part.settings) for part in self.parts.values()]
        return " ".join(parts if self.combine is None else [*parts, self.chosen])

    def with_settings(self, settings: InferenceSettings) -> Predictor:
        """The same network, applied to images in another way.

        Raises:
            WildcatError: if there are several parts.
        """
        return Predictor({self.chosen: replace(self.single, settings=settings)}, run=self.run)

    def at_sizes(
        self,
        score_sizes: Sequence[int] | None = None,
        map_sizes: Sequence[int] | None = None,
        mirror: bool | None = None,
    ) -> Predictor:
        """The same network at other test-time scales; what is None stays as it is.

        Args:
            score_sizes: sides in pixels of the inputs for scores.
            map_sizes: sides in pixels of the inputs for maps, points and masks.
            mirror: whether to average with the mirrored image.

        Raises:
            WildcatError: for sizes that are not above 0, and if there are several parts, which have sizes of their own.

        >>> import wildcat
        >>> wildcat.load("imagenet").at_sizes(map_sizes=[224, 448]).settings.map_sizes
        (224, 448)
        """
        if score_sizes is None and map_sizes is None and mirror is None:
            return self
        sizes = [*(score_sizes or ()), *(map_sizes or ())]
        if any(size < 1 for size in sizes) or score_sizes == [] or map_sizes == []:
            raise WildcatError(f"score_sizes and map_sizes must be above 0; got {score_sizes}, {map_sizes}")
        settings = self.single.settings
        return self.with_settings(
            replace(
                settings,
                score_sizes=settings.score_sizes if score_sizes is None else tuple(score_sizes),
                map_sizes=settings.map_sizes if map_sizes is None else tuple(map_sizes),
                mirror=settings.mirror if mirror is None else mirror,
            )
        )

    def __call__(self, image: Source) -> Prediction:
        """The prediction for one image: a path, encoded bytes, a PIL image, or an array (H, W, 3) of uint8.

        Raises:
            WildcatError: if it cannot be read.
        """
        (prediction,) = self.stream(image_items([image]))
        return prediction

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
        """Predict many images in order, decoding ahead of the network; memory does not grow with their number.

        Args:
            items: consumed lazily; see :func:`wildcat.prediction.items.image_items` and
                :func:`wildcat.prediction.items.dataset_items`.
            batch_size: images per pass of the network.
            on_error: for an image that cannot be read, "raise", or "yield" a :class:`Failure` in its place.
            multi_maps: keep the M maps of each class; without them the M * C filters are merged into C, which is
                faster, if the class-wise pooling is the mean.
            maps: predict at the map sizes too. Without it probabilities are the same, and maps are those of the score
                sizes.

        Raises:
            WildcatError: for an image that cannot be read, a batch size below 1, or NaN or infinity in the outputs.

        >>> import wildcat
        >>> images = [np.zeros((32, 48, 3), np.uint8), np.zeros((20, 20, 3), np.uint8)]
        >>> [prediction.size for prediction in wildcat.load("imagenet").stream(image_items(images), multi_maps=False)]
        [(48, 32), (20, 20)]
        """
        for predictions in self._stream(items, batch_size, on_error, multi_maps, maps, [self.chosen]):
            yield predictions if isinstance(predictions, Failure) else predictions[self.chosen]

    def stream_each(
        self, items: Iterable[Item], *, outputs: Sequence[str] | None = None, batch_size: int = 8, maps: bool = True
    ) -> Iterator[dict[str, Prediction]]:
        """As :meth:`stream`, without multi-maps, the predictions of several parts and combinations by their names.

        Each network processes an image once.

        Args:
            outputs: names out of :attr:`outputs`; all unless given.
            items, batch_size, maps: as for :meth:`stream`.
        """
        names = list(self.outputs if outputs is None else outputs)
        return self._stream(items, batch_size, "raise", False, maps, names)

    def _stream(
        self, items: Iterable[Item], batch_size: int, on_error: str, multi_maps: bool, maps: bool, names: list[str]
    ) -> Iterator[Any]:
        if batch_size < 1:
            raise WildcatError(f"batch size must be at least 1; got {batch_size}")
        function = self.batch_function(multi_maps, maps)
        settings = self.settings
        sizes = sorted({*settings.score_sizes, *(settings.map_sizes if maps else ())})
        largest = max(*settings.score_sizes, *settings.map_sizes)  # without maps too: scores depend on the decoding

        def decode(item: Item) -> _Decoded | Failure:
            try:
                image = item.load(largest)
            except WildcatError as error:
                if on_error == "raise":
                    raise
                return Failure(item.name, str(error))
            return item, original_size(image), {size: warp(image, size) for size in sizes}

        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            for batch in _batched(_ahead(pool, decode, items, 2 * batch_size), batch_size):
                decoded = [entry for entry in batch if not isinstance(entry, Failure)]
                predictions = iter(self._predict(function, decoded, multi_maps, names) if decoded else [])
                for entry in batch:
                    yield entry if isinstance(entry, Failure) else next(predictions)

    def batch_function(self, multi_maps: bool = True, maps: bool = True) -> BatchFunction:
        """The function that predicts batches, with the options of :meth:`stream`."""
        functions = {name: _part_function(part, multi_maps, maps) for name, part in self.parts.items()}
        combine, multi_label = self.combine, self.settings.multi_label

        def predict(pixels: Mapping[int, Tensor]) -> dict[str, BatchOutput]:
            outputs = {name: function(pixels) for name, function in functions.items()}
            return outputs if combine is None else outputs | combine([*outputs.values()], multi_label=multi_label)

        return predict

    def _predict(
        self, function: BatchFunction, batch: list[_Decoded], multi_maps: bool, names: list[str]
    ) -> list[dict[str, Prediction]]:
        with torch.inference_mode():
            pixels = {
                size: torch.from_numpy(np.stack([warped[size] for _, _, warped in batch]))
                .to(self.device)
                .permute(0, 3, 1, 2)
                for size in batch[0][2]
            }
            outputs = function(pixels)
        predictions: list[dict[str, Prediction]] = [{} for _ in batch]
        classes = len(self.settings.classes)  # the model may have one more, for the background
        for name in names:
            output, settings = outputs[name], self.outputs[name]
            probabilities = output.probabilities.float().cpu().numpy()
            maps = output.class_maps.float().cpu().numpy()
            if not (np.isfinite(probabilities).all() and np.isfinite(maps).all()):
                raise WildcatError(
                    "the model gives NaN or infinite values: its training diverged, or its weights are damaged"
                )
            multi = output.multi_maps.float().cpu().numpy() if multi_maps else None
            if multi is not None:
                multi = multi[:, : classes * (multi.shape[1] // maps.shape[1])]
            for i, (item, size, _) in enumerate(batch):
                predictions[i][name] = Prediction(
                    item.name,
                    size,
                    settings,
                    probabilities[i, :classes],
                    maps[i, :classes],
                    None if multi is None else multi[i],
                    lambda load=item.load: load(None),  # type: ignore[misc]
                    maps[i, classes] if settings.background_class else None,
                    self.precision,
                    self.runtime,
                )
        return predictions


def _part_function(part: Part, multi_maps: bool, maps: bool) -> Callable[[Mapping[int, Tensor]], BatchOutput]:
    """The function that predicts batches with one part."""
    network, settings = part.network if multi_maps else part.network.merged(), part.settings
    map_sizes = settings.map_sizes if maps else settings.score_sizes
    sizes = {*settings.score_sizes, *map_sizes}

    def predict(pixels: Mapping[int, Tensor]) -> BatchOutput:
        return predict_batch(
            network,
            {size: network.normalize(pixels[size]) for size in sizes},
            settings.score_sizes,
            map_sizes,
            mirror=settings.mirror,
            multi_label=settings.multi_label,
        )

    return predict


def _joined_settings(parts: Mapping[str, Part], combine: Ensemble) -> InferenceSettings:
    """The settings of a combination: the sizes of all its parts."""
    each = [part.settings for part in parts.values()]
    return replace(
        each[0],
        score_sizes=tuple(sorted({size for settings in each for size in settings.score_sizes})),
        map_sizes=tuple(sorted({size for settings in each for size in settings.map_sizes})),
        mirror=any(settings.mirror for settings in each),
        background=combine.background,
    )


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Any], items: Iterable[Item], depth: int
) -> Iterator[Any]:
    """Results in order, computing at most ``depth`` of them ahead."""
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
