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
    """An image of a stream that could not be read, and why."""

    name: str
    message: str


@dataclass(frozen=True)
class Item:
    """An image to read: a name, and how to get it at full size or, where it is large, at no less than a given side."""

    name: str
    load: Callable[[int | None], Image.Image]


def image_items(sources: Iterable[Source]) -> Iterator[Item]:
    """Items from paths, encoded bytes, PIL images and arrays."""
    for number, source in enumerate(sources):
        name = str(source) if isinstance(source, str | Path) else f"image {number}"
        yield Item(name, _loader(source))


def _loader(source: Source) -> Callable[[int | None], Image.Image]:
    return lambda draft_size: load_image(source, draft_size=draft_size)


def dataset_items(dataset: Dataset) -> list[Item]:
    """The images of a dataset, for :meth:`Predictor.stream`."""
    return [
        Item(sample.name, lambda draft_size, index=index: dataset.image(index, draft_size))  # type: ignore[misc]
        for index, sample in enumerate(dataset.samples)
    ]
