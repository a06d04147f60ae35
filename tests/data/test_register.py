"""A dataset kind of a user's own, from registration to a trained run."""

from pathlib import Path

import numpy as np
import pytest

import wildcat
from tests.data import trees
from tests.tiny_runs import tiny
from wildcat.data import (
    Dataset,
    Sample,
    available_splits,
    default_splits,
    download_dataset,
    open_dataset,
    register_dataset,
    registry,
)
from wildcat.data.options import whole_number
from wildcat.errors import WildcatError
from wildcat.runs.folder import read_run


@pytest.fixture(autouse=True)
def _registered_kinds_end_with_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))


def open_by_name(spec: str, path: Path, split: str, *, limit: int | None = None) -> Dataset:
    """Images below path/split; the class is the file name up to the first "_"."""
    files = sorted((path / split).glob("*.png"))[:limit]
    names = [file.name.partition("_")[0] for file in files]
    classes = sorted(set(names))
    labels = np.where(np.array(names)[:, None] == classes, 1, -1).astype(np.int8)
    samples = [Sample(file.name, file, row) for file, row in zip(files, labels, strict=True)]
    return Dataset(spec, split, classes, samples, multi_label=False)


def splits_below(path: Path) -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in path.iterdir()))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for name in ("cat_1", "cat_2", "dog_1", "dog_2"):
            trees.image(tmp_path / "images" / split / f"{name}.png")
    return tmp_path / "images"


def test_a_registered_kind_is_trained_and_scored(images: Path, tmp_path: Path) -> None:
    register_dataset("by-name", open_by_name, splits_below, options={"limit": whole_number})
    run = wildcat.train(tiny(data=f"by-name:{images}", epochs=1, batch_size=2), tmp_path / "run")
    assert read_run(run).classes == ("cat", "dog") and read_run(run).config.data == f"by-name:{images}"
    prediction = wildcat.load(run)(images / "test" / "cat_1.png")
    assert set(prediction.scores) == {"cat", "dog"}


def test_options_and_splits_of_a_registered_kind(images: Path) -> None:
    register_dataset("by-name", open_by_name, splits_below, options={"limit": whole_number})
    assert available_splits(f"by-name:{images}") == ("test", "train")
    assert default_splits(f"by-name:{images},limit=3") == ("train", "test")
    assert len(open_dataset(f"by-name:{images},limit=3", "train")) == 3
    with pytest.raises(WildcatError, match="option limit=few is not allowed; it must be a whole number from 0"):
        open_dataset(f"by-name:{images},limit=few", "train")
    with pytest.raises(WildcatError, match="option 'limits' is unknown; allowed: limit; did you mean limit"):
        open_dataset(f"by-name:{images},limits=3", "train")
    with pytest.raises(WildcatError, match="cannot be downloaded; kinds that can: voc07, "):
        download_dataset(f"by-name:{images}")


def test_functions_get_the_options_that_they_have_parameters_for(images: Path) -> None:
    calls = []

    def splits(path: Path, *, year: int = 0) -> tuple[str, ...]:
        calls.append(("splits", year))
        return ("train",)

    def download(path: Path, split: str, *, limit: int = 0) -> None:
        calls.append((split, limit))

    options = {"limit": whole_number, "year": whole_number}
    register_dataset("mine", open_by_name, splits, options=options, download=download, downloaded=("train", "test"))
    download_dataset(f"mine:{images},limit=3,year=2012")
    assert calls == [("splits", 2012), ("splits", 2012), ("test", 3)]  # train is there already


def test_data_without_a_path(images: Path) -> None:
    register_dataset("none", lambda spec, path, split: open_by_name(spec, images, split), splits_below, has_path=False)
    assert len(open_dataset("none", "train")) == 4


def test_a_kind_can_be_registered_again_but_not_in_place_of_a_built_in_one(images: Path) -> None:
    register_dataset("mine", open_by_name, lambda path: ("all",))
    register_dataset("mine", open_by_name, lambda path: ("train", "test"))
    assert available_splits(f"mine:{images}") == ("train", "test")
    with pytest.raises(ValueError, match="'folder' is a dataset kind of the package"):
        register_dataset("folder", open_by_name, splits_below)
    with pytest.raises(ValueError, match="holds letters, digits"):
        register_dataset("my:kind", open_by_name, splits_below)
