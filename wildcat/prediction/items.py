"""Items: named images to predict, from paths, arrays or datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from wildcat.data import Dataset
from wildcat.data.images import Source, load_image


@dataclass(frozen=True)
class Failure:
    """An image of a stream that could not be read, and the error message."""

    name: str
    message: str


@dataclass(frozen=True)
class Item:
    """A named image that is decoded when it is needed.

    Attributes:
        name: of the image, for the prediction.
        load: decodes it, at full size for None, or for a side in pixels at that size or more (JPEG files decode faster
            at a reduced size).
    """

    name: str
    load: Callable[[int | None], Image.Image]


def image_items(sources: Iterable[Source], *, partial: bool = False) -> Iterator[Item]:
    """Items of paths, encoded bytes, PIL images and arrays (H, W, 3) of uint8, for :meth:`Predictor.stream`.

    Items of paths are named by the path, others "image 0", "image 1" and so on. With `partial`, JPEGs that were cut are
    read as far as they go.

    >>> import numpy as np
    >>> [item.name for item in image_items(["cat.jpg", np.zeros((8, 8, 3), np.uint8)])]
    ['cat.jpg', 'image 1']
    """
    for number, source in enumerate(sources):
        name = str(source) if isinstance(source, str | Path) else f"image {number}"
        yield Item(name, _loader(source, partial))


def _loader(source: Source, partial: bool) -> Callable[[int | None], Image.Image]:
    return lambda draft_size: load_image(source, draft_size=draft_size, partial=partial)


def dataset_items(dataset: Dataset) -> list[Item]:
    """Items of the images of a dataset, for :meth:`Predictor.stream`.

    >>> import wildcat
    >>> [item.name for item in dataset_items(wildcat.open_dataset("synthetic:count=2", "test"))]
    ['000000', '000001']
    """
    return [
        Item(sample.name, lambda draft_size, index=index: dataset.image(index, draft_size))  # type: ignore[misc]
        for index, sample in enumerate(dataset.samples)
    ]
