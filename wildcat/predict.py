"""From pictures of any kind to scores, points and maps in pixels of the original picture."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from wildcat import render
from wildcat.checkpoint import load_run, read_background
from wildcat.crf import dense_crf
from wildcat.errors import WildcatError
from wildcat.fusion import read
from wildcat.masks import Background, Mode, label_map, pixel_probabilities, strengths
from wildcat.model import Wildcat, imagenet_model
from wildcat.transforms import Source, cell_centres, load_image, original_size, warp

IMAGENET = "imagenet"
READERS = 2  # threads that decode ahead of the network


@dataclass(frozen=True)
class Settings:
    """How a model reads pictures.

    Attributes:
        classes: names in the order of the scores.
        multi_label: several classes in a picture (sigmoid), or exactly one (softmax).
        score_sizes: sides in pixels at which pictures are read for scores.
        map_sizes: sides at which they are read for points and masks.
        mirror: also read the mirror image.
        background: where masks have their background.
        background_class: whether the model has a further class, the last: the background.
    """

    classes: tuple[str, ...]
    multi_label: bool
    score_sizes: tuple[int, ...]
    map_sizes: tuple[int, ...]
    mirror: bool = False
    background: Background = Background()  # noqa: RUF009 - it is frozen
    background_class: bool = False

    def __post_init__(self) -> None:
        """Reject a background that the model cannot give.

        Raises:
            WildcatError: saying which.
        """
        self.check_background(self.background.mode)

    def check_background(self, mode: Mode) -> None:
        """Reject the mode "class" where the model has no background class.

        Raises:
            WildcatError: saying how to get one.
        """
        if mode == "class" and not self.background_class:
            raise WildcatError("the model has no background class for masks: train it with --background-class")


@dataclass(frozen=True)
class Prediction:
    """What a model says of one picture.

    Attributes:
        name: of the picture, as it was given.
        size: (width, height) of the upright original.
        settings: of the model.
        probabilities: (C,) in [0, 1].
        class_maps: (C, h, w), unbounded.
        multi_maps: (C * M, h, w), class-major; None where a stream was not asked for them.
        background_map: (h, w), unbounded; None unless the model has a background class.
    """

    name: str
    size: tuple[int, int]
    settings: Settings
    probabilities: npt.NDArray[np.float32]
    class_maps: npt.NDArray[np.float32]
    multi_maps: npt.NDArray[np.float32] | None
    _source: Callable[[], Image.Image]
    background_map: npt.NDArray[np.float32] | None = None

    @property
    def scores(self) -> dict[str, float]:
        """Class -> probability, the highest first."""
        return {self.settings.classes[c]: float(self.probabilities[c]) for c in self._ranked()}

    @property
    def point_array(self) -> npt.NDArray[np.float64]:
        """(C, 2): (x, y) of the maximum of each class map, a cell's centre, in pixels of the original."""
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
        """What masks are made of: (C, h, w), or (C + 1, h, w) with the map of a background class last."""
        maps = torch.from_numpy(self.class_maps)
        return maps if self.background_map is None else torch.cat([maps, torch.from_numpy(self.background_map)[None]])

    @property
    def image(self) -> Image.Image:
        """The upright RGB picture, read again."""
        return self._source()

    def present(self, threshold: float = 0.5) -> list[int]:
        """Indices of the classes the picture is said to hold, the most probable first.

        Where a picture has exactly one class this is the most probable one, whatever the threshold.
        """
        ranked = self._ranked()
        return [c for c in ranked if self.probabilities[c] >= threshold] if self.settings.multi_label else ranked[:1]

    def candidates(self, threshold: float = 0.5) -> list[int]:
        """The classes present, or the most probable one where none is."""
        return self.present(threshold) or self._ranked()[:1]

    def mask(
        self, *, crf: bool = False, threshold: float = 0.5, allowed: Sequence[int] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Label map (H, W) of the original picture: 0 background, 1 + class otherwise.

        Args:
            crf: refine with the dense CRF, which reads the picture again.
            threshold: probability from which a class may appear; the most probable class always may.
            allowed: indices of the classes that may appear, instead.
        """
        if len(self.settings.classes) > 254:
            raise WildcatError(f"masks hold up to 254 classes; the model has {len(self.settings.classes)}")
        if allowed is None:
            allowed = self.candidates(threshold)
        width, height = self.size
        strength = strengths(self.mask_maps, allowed, (height, width), self.settings.background)
        if crf:
            strength = dense_crf(pixel_probabilities(strength), np.array(self.image))
        return label_map(strength, allowed)

    def mask_overlay(self, mask: npt.NDArray[np.uint8]) -> Image.Image:
        """The picture with a mask from :meth:`mask` over it, and a legend."""
        return render.mask_overlay(self.image, mask, self.settings.classes)

    def overlay(self, threshold: float = 0.5) -> Image.Image:
        """The picture, then a panel with heatmap, point and score for each class present (else for the best one)."""
        points = self.point_array
        entries = [
            render.Entry(
                self.settings.classes[c],
                float(self.probabilities[c]),
                self.class_maps[c],
                (float(points[c, 0]), float(points[c, 1])),
            )
            for c in self.candidates(threshold)
        ]
        return render.prediction_overlay(self.image, entries, title=Path(self.name).name)

    def show(self) -> None:
        """Open :meth:`overlay` in the system's picture viewer."""
        self.overlay().show()

    def to_dict(self, threshold: float = 0.5) -> dict[str, Any]:
        """Plain values for JSON; scores in per cent, points in pixels of the original."""
        points = self.point_array
        return {
            "file": self.name,
            "width": self.size[0],
            "height": self.size[1],
            "predicted": [
                {
                    "class": self.settings.classes[c],
                    "score": round(100 * float(self.probabilities[c]), 3),
                    "point": [round(float(v), 2) for v in points[c]],
                }
                for c in self.present(threshold)
            ],
            "scores": {name: round(100 * score, 3) for name, score in self.scores.items()},
        }

    def _ranked(self) -> list[int]:
        return [int(c) for c in np.argsort(-self.probabilities, kind="stable")]


@dataclass(frozen=True)
class Failure:
    """A picture of a stream that could not be read, and why."""

    name: str
    message: str


@dataclass(frozen=True)
class Item:
    """A picture to read: a name, and how to get it at full size or, where it is large, at no less than a given side."""

    name: str
    load: Callable[[int | None], Image.Image]


def items_of(sources: Iterable[Source]) -> Iterator[Item]:
    """Items from paths, encoded bytes, PIL images and arrays."""
    for number, source in enumerate(sources):
        name = str(source) if isinstance(source, str | Path) else f"picture {number}"
        yield Item(name, _loader(source))


def _loader(source: Source) -> Callable[[int | None], Image.Image]:
    return lambda draft_size: load_image(source, draft_size=draft_size)


class Predictor:
    """A model that reads pictures.

    >>> predictor = load("imagenet")
    >>> prediction = predictor(np.zeros((32, 48, 3), np.uint8))
    >>> prediction.size, len(prediction.scores)
    ((48, 32), 1000)
    """

    def __init__(self, model: Wildcat, settings: Settings, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.settings = settings

    def __call__(self, picture: Source) -> Prediction:
        """Read one picture: a path, encoded bytes, a PIL image or an array.

        Raises:
            WildcatError: if it cannot be read.
        """
        (found,) = self.stream(items_of([picture]))
        return found

    @overload
    def stream(
        self,
        items: Iterable[Item],
        *,
        batch_size: int = 8,
        on_error: Literal["raise"] = "raise",
        multi_maps: bool = True,
    ) -> Iterator[Prediction]: ...

    @overload
    def stream(
        self, items: Iterable[Item], *, batch_size: int = 8, on_error: Literal["yield"], multi_maps: bool = True
    ) -> Iterator[Prediction | Failure]: ...

    def stream(
        self, items: Iterable[Item], *, batch_size: int = 8, on_error: str = "raise", multi_maps: bool = True
    ) -> Iterator[Any]:
        """Read many pictures, in order, decoding ahead of the network; memory does not grow with their number.

        Args:
            items: lazily consumed.
            batch_size: pictures per pass of the network.
            on_error: "raise", or "yield" to get a :class:`Failure` in place of the prediction.
            multi_maps: keep the M maps of each class; without them the M * C filters are folded into C.
        """
        if batch_size < 1:
            raise WildcatError(f"batch size must be at least 1; got {batch_size}")
        model = self.model if multi_maps else self.model.folded()
        sizes = sorted({*self.settings.score_sizes, *self.settings.map_sizes})

        def prepare(item: Item) -> tuple[Item, tuple[int, int], dict[int, npt.NDArray[np.uint8]]] | Failure:
            try:
                image = item.load(max(sizes))
            except WildcatError as error:
                if on_error == "raise":
                    raise
                return Failure(item.name, str(error))
            return item, original_size(image), {size: warp(image, size) for size in sizes}

        with ThreadPoolExecutor(READERS) as pool:
            for batch in _batched(_ahead(pool, prepare, items, 2 * batch_size), batch_size):
                good = [entry for entry in batch if not isinstance(entry, Failure)]
                predictions = iter(self._predict(model, good, multi_maps) if good else [])
                for entry in batch:
                    yield entry if isinstance(entry, Failure) else next(predictions)

    def _predict(
        self,
        model: Wildcat,
        batch: list[tuple[Item, tuple[int, int], dict[int, npt.NDArray[np.uint8]]]],
        multi_maps: bool,
    ) -> list[Prediction]:
        settings = self.settings
        with torch.inference_mode():
            images = {
                size: model.normalize(
                    torch.from_numpy(np.stack([pixels[size] for _, _, pixels in batch]))
                    .to(self.device)
                    .permute(0, 3, 1, 2)
                )
                for size in batch[0][2]
            }
            reading = read(
                model,
                images,
                settings.score_sizes,
                settings.map_sizes,
                mirror=settings.mirror,
                multi_label=settings.multi_label,
            )
        found = reading.probabilities.float().cpu().numpy()
        maps = reading.class_maps.float().cpu().numpy()
        if not (np.isfinite(found).all() and np.isfinite(maps).all()):
            raise WildcatError(
                "the model gives NaN or infinite values: its training diverged, or its weights are damaged"
            )
        multi = reading.multi_maps.float().cpu().numpy() if multi_maps else None
        classes = len(settings.classes)  # the model may have one more, for the background
        if multi is not None:
            multi = multi[:, : classes * (multi.shape[1] // maps.shape[1])]
        return [
            Prediction(
                item.name,
                size,
                settings,
                found[i, :classes],
                maps[i, :classes],
                None if multi is None else multi[i],
                lambda load=item.load: load(None),  # type: ignore[misc]
                maps[i, classes] if settings.background_class else None,
            )
            for i, (item, size, _) in enumerate(batch)
        ]


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


def load(run: str | Path, device: str | torch.device = "cpu") -> Predictor:
    """A predictor from a run's folder, from a model on the Hugging Face hub ("owner/name"), or "imagenet".

    "imagenet" is the embedded ImageNet classifier as a Wildcat model, with no training: 1,000 classes, one per picture.

    Raises:
        WildcatError: if it is none of these, or training has not finished.
    """
    if str(run) == IMAGENET:
        model, classes = imagenet_model()
        return Predictor(model, Settings(classes, False, IMAGENET_SCORE_SIZES, IMAGENET_MAP_SIZES), device)
    folder = Path(run)
    if not folder.is_dir():
        folder = _from_hub(str(run))
    model, info = load_run(folder)
    config = info.config
    settings = Settings(
        info.classes,
        info.multi_label,
        tuple(config.score_sizes),
        tuple(config.map_sizes),
        config.mirror,
        read_background(folder),
        config.background_class,
    )
    return Predictor(model, settings, device)


# Scores at the classifier's native size; maps at twice that, 14 x 14 cells instead of 7 x 7.
IMAGENET_SCORE_SIZES = (224,)
IMAGENET_MAP_SIZES = (448,)


def _from_hub(name: str) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise WildcatError(f"no run in {name}: give a run's folder, a hub name (owner/name), or {IMAGENET}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the hub client raises many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WildcatError(f"{name} is neither a folder nor a model that the hub gives: {reason}") from error
