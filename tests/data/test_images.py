"""Reading of unusual and damaged images."""

import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests import unusual
from wildcat.data.images import image_size, load_image, original_size
from wildcat.data.transforms import warp
from wildcat.errors import WildcatError

RGB = unusual.photo()


def pixels(source, **options) -> np.ndarray:
    image = load_image(source, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    unusual.write_all(folder)
    return folder


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_exif_orientations_come_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = unusual.oriented(tmp_path / f"turned{suffix}", orientation, RGB)
    assert image_size(path) == (60, 40)
    image = load_image(path)
    assert np.abs(np.asarray(image).astype(int) - RGB).max() <= (12 if suffix == ".jpg" else 0)
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), np.asarray(image))  # not turned a second time
    with Image.open(path) as opened:
        assert np.array_equal(pixels(opened), np.asarray(image))


@pytest.mark.parametrize("orientation", [3, 6])
def test_pixels_as_stored_on_request(tmp_path: Path, orientation: int) -> None:
    path = unusual.oriented(tmp_path / "turned.png", orientation, RGB)
    stored = {3: np.rot90(RGB, 2), 6: np.rot90(RGB, 1)}[orientation]
    assert np.array_equal(pixels(path, upright=False), stored)


def test_damaged_exif_does_not_spoil_the_image(tmp_path: Path) -> None:
    path = tmp_path / "exif.jpg"
    Image.fromarray(RGB).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x03")
    assert image_size(path) == (60, 40)
    assert pixels(path).shape == (40, 60, 3)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    deep[-1, -1] = 65535
    expected = np.rint(deep / 65535 * 255)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        assert np.array_equal(pixels(tmp_path / name), np.repeat(expected[:, :, None], 3, axis=2)), name
    assert np.array_equal(pixels(deep)[:, :, 0], expected)
    assert np.array_equal(pixels(Image.fromarray(deep.astype(np.int32)))[:, :, 0], expected)


def test_float_images_are_from_0_to_1() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(pixels(ramp)[:, :, 2].ravel(), np.arange(256))
    assert np.array_equal(pixels(Image.fromarray(ramp)), pixels(ramp))
    for wrong in (ramp * 255, ramp - 1, np.full((2, 2), np.nan)):
        with pytest.raises(WildcatError, match=r"must be in 0\.\.\.1"):
            load_image(wrong)


def test_cmyk_follows_the_ink(tmp_path: Path) -> None:
    inks = {(0, 0, 0, 0): (255, 255, 255), (255, 0, 0, 0): (0, 255, 255), (0, 0, 0, 255): (0, 0, 0)}
    for ink, colour in inks.items():
        Image.new("CMYK", (16, 16), ink).save(tmp_path / "ink.jpg", quality=100)
        assert np.abs(pixels(tmp_path / "ink.jpg").astype(int) - colour).max() <= 3


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    clear.putpixel((0, 0), (10, 20, 30, 255))
    clear.putpixel((1, 0), (0, 0, 0, 51))  # a fifth of black on white
    clear.save(tmp_path / "rgba.png")
    grey = Image.new("LA", (4, 4), (99, 0))
    grey.save(tmp_path / "la.png")
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.putpixel((0, 0), 0)
    palette.save(tmp_path / "key.png", transparency=1)
    palette.save(tmp_path / "bytes.png", transparency=b"\xff\x00")
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "rgb_key.png", transparency=(1, 2, 3))

    rgba = pixels(tmp_path / "rgba.png")
    assert rgba[0, 0].tolist() == [10, 20, 30] and rgba[0, 1].tolist() == [204] * 3 and (rgba[1:] == 255).all()
    assert (pixels(tmp_path / "la.png") == 255).all()
    for name in ("key.png", "bytes.png"):
        assert pixels(tmp_path / name)[0, 0].tolist() == [0, 0, 0]
        assert pixels(tmp_path / name)[1, 1].tolist() == [255, 255, 255]
    assert (pixels(tmp_path / "rgb_key.png") == 255).all()


def test_grey_bits_palette_and_first_frame(mixed: Path) -> None:
    for name in unusual.GOOD:
        assert pixels(mixed / name).shape == (40, 60, 3), name
        assert image_size(mixed / name) == (60, 40), name
    grey = pixels(mixed / "grey.jpg")
    assert (grey[:, :, 0] == grey[:, :, 2]).all()
    assert set(np.unique(pixels(mixed / "bits.png"))) == {0, 255}
    assert np.abs(pixels(mixed / "moving.gif").astype(int) - RGB).mean() < 12  # the next frame is black


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.jpg", "cannot be read: .*truncated"),
        ("empty.jpg", "the file is empty"),
        ("text.png", "not an image"),
        ("huge.png", "too large: .*900000000 pixels"),
        ("absent.jpg", "no such file"),
    ],
)
def test_bad_files_are_named_with_the_reason(mixed: Path, name: str, reason: str) -> None:
    with pytest.raises(WildcatError, match=reason) as caught:
        load_image(mixed / name)
    assert str(caught.value).startswith(f"{mixed / name}: ")
    assert "\n" not in str(caught.value)


def test_the_pixel_limit_holds_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = unusual.huge_png(tmp_path / "large.png", 10_000)  # between Pillow's warning and its error
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    assert image_size(path) == (10_000, 10_000)
    for read in (load_image, image_size):
        with pytest.raises(WildcatError, match="10000 x 10000 pixels, more than the limit of 5000"):
            read(path, max_pixels=5000)
    with pytest.raises(WildcatError, match="more than the limit of 100"):
        load_image(RGB, max_pixels=100)


def test_outside_programs_are_never_started(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "drawing.eps")
    with pytest.raises(WildcatError, match="not an image in a format"):
        load_image(tmp_path / "drawing.eps")


def test_bytes_arrays_and_opened_images(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    for source in ((tmp_path / "a.png").read_bytes(), str(tmp_path / "a.png"), RGB, Image.fromarray(RGB)):
        assert np.array_equal(pixels(source), RGB)
    assert np.array_equal(pixels(RGB[:, ::-1]), RGB[:, ::-1])  # not contiguous
    assert (pixels(RGB[:, :, :1]) == RGB[:, :, :1]).all()
    assert (pixels(np.dstack([RGB, np.zeros((40, 60), np.uint8)])) == 255).all()
    with pytest.raises(WildcatError, match="image of 3 bytes"):
        load_image(b"abc")
    for wrong in (np.zeros((2, 2, 2), np.uint8), np.zeros((0, 2, 3), np.uint8), np.zeros(4, np.uint8)):
        with pytest.raises(WildcatError, match="shape"):
            load_image(wrong)
    with pytest.raises(WildcatError, match="pixels of type bool"):
        load_image(np.ones((2, 2), bool))
    with pytest.raises(TypeError, match="not int"):
        load_image(7)


def test_the_callers_image_is_left_alone() -> None:
    image = Image.fromarray(RGB)
    image.info["note"] = "mine"
    loaded = load_image(image, draft_size=8)
    loaded.paste((0, 0, 0), (0, 0, 60, 40))
    assert np.array_equal(np.asarray(image), RGB) and image.info == {"note": "mine"}


@pytest.mark.parametrize("wanted", [1, 50, 100, 101, 200, 399, 401, 5000])
def test_a_draft_is_never_below_the_size_asked_for(tmp_path: Path, wanted: int) -> None:
    large = unusual.photo(801, 400)
    path = unusual.oriented(tmp_path / "large.jpg", 6, large)
    image = load_image(path, draft_size=wanted)
    assert min(image.size) >= min(wanted, 400)
    assert original_size(image) == (801, 400) == image_size(path)
    assert (image.size == (801, 400)) == (wanted > 200)
    whole = load_image(path)
    assert original_size(whole) == whole.size
    if wanted >= 50:
        exact = warp(whole, 40)
        error, flipped = (np.abs(warp(image, 40)[:, ::step].astype(int) - exact).mean() for step in (1, -1))
        assert error < 2 < 30 < flipped


def test_pillows_warnings_stay_inside_also_with_threads(tmp_path: Path) -> None:
    path = unusual.huge_png(tmp_path / "large.png", 10_000)
    before = list(warnings.filters)
    failures = []

    def read() -> None:
        try:
            for _ in range(20):
                image_size(path)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert list(warnings.filters) == before
    with pytest.warns(Image.DecompressionBombWarning), Image.open(path):
        pass
