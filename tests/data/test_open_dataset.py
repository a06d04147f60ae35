"""Specifications, and what all datasets share."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data import trees
from wildcat.data import Dataset, Sample
from wildcat.data.files import image_files_below
from wildcat.data.registry import available_splits, default_splits, download_dataset, open_dataset
from wildcat.data.sample import shuffled
from wildcat.errors import WildcatError


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("voc7:x", "kind 'voc7' is unknown; allowed: voc07, voc12, action12, coco, .*; did you mean voc07"),
        ("", "kind '' is unknown"),
        ("folder:", "the path is missing; write folder:PATH"),
        ("folder:,seed=1", "the path is missing"),
        ("mit67:x,seed=1", "option 'seed' is unknown; allowed: none"),
        ("folder:x,sed=1", "option 'sed' is unknown; allowed: test, seed, splits; did you mean seed"),
        ("folder:x,seed=1,seed=2", "option 'seed' is given twice"),
        ("folder:x,seed=-1", "option seed=-1 is not allowed; it must be a whole number from 0"),
        ("coco:x,year=2015", "option year=2015 is not allowed; it must be one of 2014, 2017"),
        ("synthetic:images", "'images' is not an option; write synthetic:key=value"),
    ],
)
def test_wrong_specifications(spec: str, message: str) -> None:
    for use in (lambda: open_dataset(spec, "train"), lambda: available_splits(spec), lambda: default_splits(spec)):
        with pytest.raises(WildcatError, match=message):
            use()


def test_a_path_without_kind_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "my.csv").touch()
    with pytest.raises(WildcatError, match=f"did you mean 'folder:{tmp_path}'"):
        open_dataset(str(tmp_path), "train")
    with pytest.raises(WildcatError, match="did you mean 'tags:"):
        open_dataset(str(tmp_path / "my.csv"), "train")


def test_paths_with_commas_colons_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "a, b:c"
    trees.image(odd / "x" / "1.png")
    data = open_dataset(f"folder:{odd},seed=3,test=0.5", "all")
    assert len(data) == 1 and data.spec == f"folder:{odd},seed=3,test=0.5"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(open_dataset("folder:~/a, b:c", "all")) == 1


def test_synthetic_takes_its_options() -> None:
    data = open_dataset("synthetic:count=3,seed=2,size=64", "test")
    assert len(data) == 3 and data.image(0).size == (64, 64) and data.has_boxes and data.has_masks
    assert default_splits("synthetic") == ("train", "test")
    assert set(available_splits("synthetic")) >= {"train", "test"}


def test_what_cannot_be_downloaded_says_what_can(tmp_path: Path) -> None:
    with pytest.raises(WildcatError, match="cannot be downloaded; kinds that can: voc07, voc12, action12, coco, mit67"):
        download_dataset(f"folder:{tmp_path}")


def sample(path: Path | None, **more) -> Sample:
    return Sample("a", path, np.array([1, -1], dtype=np.int8), **more)


def test_masks_are_checked(tmp_path: Path) -> None:
    good = np.array([[0, 2], [255, 1]], dtype=np.uint8)
    Image.fromarray(good).save(tmp_path / "grey.png")
    Image.fromarray(good + np.uint8(1)).save(tmp_path / "wrong.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "rgb.png")

    def mask(name: str):
        return Dataset("x", "y", ["p", "q"], [sample(None, mask_path=tmp_path / name)]).mask(0)

    assert np.array_equal(mask("grey.png"), good)
    with pytest.raises(
        WildcatError, match=r"wrong\.png: the mask holds 3; allowed are 0 \(background\), 1\.\.\.2 and 255"
    ):
        mask("wrong.png")
    with pytest.raises(WildcatError, match=r"rgb.png: a mask must be a palette or grey PNG"):
        mask("rgb.png")
    with pytest.raises(WildcatError, match=r"gone.png: the mask cannot be read"):
        mask("gone.png")


def test_images_turn_as_exif_says_unless_annotations_refer_to_stored_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    # The draft for 10 pixels is at half size: 15 still is enough, 7 would not be.
    for upright, size, draft in ((True, (30, 40), (15, 20)), (False, (40, 30), (20, 15))):
        data = Dataset("x", "y", ["p", "q"], [sample(tmp_path / "a.jpg")], upright=upright)
        assert data.image(0).size == size
        assert data.image(0, draft_size=10).size == draft
    with pytest.raises(WildcatError, match=str(tmp_path / "b.jpg")):
        Dataset("x", "y", ["p", "q"], [sample(tmp_path / "b.jpg")]).image(0)


def test_labels_are_a_new_array_each_time() -> None:
    data = Dataset("x", "y", ["p", "q"], [sample(None)] * 2)
    data.labels[:] = 7
    assert data.labels.tolist() == [[1, -1], [1, -1]] and data.labels.dtype == np.int8
    assert repr(data) == "Dataset('x', 'y': 2 images, 2 classes)"
    with pytest.raises(NotImplementedError, match="must override image"):
        data.image(0)


def test_shuffling_depends_on_seed_and_names_only() -> None:
    names = [f"{i}.jpg" for i in range(50)]
    mixed = shuffled(names, 1)
    assert sorted(mixed) == sorted(names) and mixed != sorted(names)
    assert shuffled(reversed(names), 1) == mixed != shuffled(names, 2)
    # A split published today must be the same one tomorrow.
    assert shuffled(names, 0)[:3] == ["8.jpg", "9.jpg", "23.jpg"]  # by b2sum


def test_images_are_listed_sorted_with_slashes(tmp_path: Path) -> None:
    for name in ("b.JPEG", "a/z.webp", "a/b/c.tif", "notes.txt", ".x.png", ".d/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert image_files_below(tmp_path) == ["a/b/c.tif", "a/z.webp", "b.JPEG"]


@pytest.mark.slow
def test_data_is_read_without_torch() -> None:
    code = "import sys, wildcat.data; sys.exit('torch' in sys.modules or 'pycocotools' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
