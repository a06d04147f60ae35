"""Cached images: equal to decoded ones, shared by processes, within the budget."""

import multiprocessing

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests import unusual
from tests.tiny_runs import tiny
from wildcat.data.registry import open_dataset
from wildcat.training.data import EpochSampler, TrainDataset
from wildcat.training.image_cache import ImageCache, create_cache


def image(value: int, height: int = 4, width: int = 5) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_images_are_stored_until_the_budget_is_used_up() -> None:
    cache = ImageCache(4, budget=150)
    assert cache.get(2) is None
    cache.put(2, image(7))  # 60 bytes
    cache.put(0, image(9, 5, 4))
    cache.put(1, image(1))  # no room
    cache.put(3, image(3, 2, 5))  # 30 bytes: there still is
    cache.put(2, image(8))  # there already
    assert cache.get(1) is None
    for index, expected in ((2, image(7)), (0, image(9, 5, 4)), (3, image(3, 2, 5))):
        np.testing.assert_array_equal(cache.get(index), expected)
    with pytest.raises(ValueError, match="read-only"):
        cache.get(2)[0] = 1


@pytest.mark.slow
def test_forked_processes_share_it() -> None:
    cache = ImageCache(2, budget=100)
    process = multiprocessing.get_context("fork").Process(target=cache.put, args=(1, image(5)))
    process.start()
    process.join()
    np.testing.assert_array_equal(cache.get(1), image(5))


def test_no_cache_of_size_zero() -> None:
    assert create_cache(5, 0.0, 0) is None
    assert create_cache(5, 0.001, 0) is not None


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """JPEGs below, at and above the size from which they may be decoded smaller."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, size in (("a", (70, 60)), ("b", (130, 128)), ("c", (300, 260)), ("d", (127, 500))):
        (folder / name).mkdir()
        Image.fromarray(unusual.photo(*size)).save(folder / name / "1.jpg", quality=90)
        Image.fromarray(unusual.photo(*size)).save(folder / name / "2.png")
    return f"folder:{folder}"


@pytest.mark.parametrize("crop_area", [1.0, 0.3])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_images_are_the_same_with_and_without(photographs: str, crop_area: float, workers: int) -> None:
    dataset = open_dataset(photographs, "all")
    read = {}
    for size in (0.0, 0.001):
        settings = tiny(crop_area=crop_area, cache_gb=size, workers=workers)
        images = TrainDataset(dataset, settings)
        sampler = EpochSampler(len(dataset), len(dataset), 0)
        loader = DataLoader(images, 2, sampler=sampler, num_workers=workers, persistent_workers=workers > 0)
        read[size] = []
        for sampler.epoch in range(3):
            read[size] += [pixels for pixels, _ in loader]
    assert len(read[0.0]) >= 9
    assert all(torch.equal(first, second) for first, second in zip(*read.values(), strict=True))


def test_a_cached_image_is_not_read_again(photographs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(photographs, "all")
    images = TrainDataset(dataset, tiny())
    first = [images[0, index][0] for index in range(len(dataset))]

    def gone(*args: object, **kwargs: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(dataset, "image", gone)
    assert all(torch.equal(images[0, index][0], first[index]) for index in range(len(dataset)))
