"""Pixels of more than 8 bits, large images, and the memory that decoding takes."""

import logging
import sys
import threading
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import unusual
from wildcat.data import images, pixels
from wildcat.data.images import load_image, original_size
from wildcat.data.transforms import warp
from wildcat.errors import WildcatError

RGB = unusual.photo()
GREY = RGB[:, :, 0]


@pytest.fixture(autouse=True)
def _every_warning_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_warned", set())


def png16(path: Path, values: np.ndarray) -> Path:
    """A PNG of 16-bit grey, grey with opacity, RGB or RGBA, which Pillow cannot write."""
    height, width = values.shape[:2]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = np.array([width, height], ">u4").tobytes() + bytes([16, kind, 0, 0, 0])
    parts = [unusual.chunk(b"IHDR", header), unusual.chunk(b"IDAT", zlib.compress(rows)), unusual.chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def tiff(path: Path, values: np.ndarray, **options: object) -> Path:
    Image.fromarray(values).save(path, **options)
    return path


def pgm(path: Path, values: np.ndarray, top: int) -> Path:
    path.write_bytes(b"P5 %d %d %d\n" % (*values.shape[::-1], top) + values.astype(">u2").tobytes())
    return path


def scaled(bits: int) -> np.ndarray:
    return np.rint(GREY / 255 * (2**bits - 1)).astype(np.int64)


def opaque(values: np.ndarray, top: int = 65535) -> np.ndarray:
    return np.dstack([values, np.full(values.shape[:2], top, values.dtype)])


COLOUR = RGB.astype(np.uint16)


@pytest.mark.parametrize(
    ("write", "guessed"),
    [
        (lambda p: tiff(p / "a.png", scaled(16).astype(np.uint16)), None),
        (lambda p: tiff(p / "a.png", scaled(14).astype(np.uint16)), 14),
        (lambda p: tiff(p / "a.png", (GREY.astype(np.uint16) << 4)), 12),
        (lambda p: tiff(p / "a.tif", scaled(10).astype(np.uint16)), 10),
        (lambda p: tiff(p / "a.tif", scaled(12).astype(np.uint16), tiffinfo={281: 4095}), None),
        (lambda p: tiff(p / "a.tif", GREY.astype(np.int32)), 8),
        (lambda p: tiff(p / "a.tif", scaled(12).astype(np.int32), compression="tiff_lzw"), 12),
        (lambda p: tiff(p / "a.tif", scaled(30).astype(np.int32)), 30),
        (lambda p: raw_tiff(p / "a.tif", scaled(15)[:, :, None], signed=True), None),
        (lambda p: scaled(15).astype(np.int16), None),
        (lambda p: tiff(p / "a.tif", (GREY / 255).astype(np.float32)), None),
        (lambda p: pgm(p / "a.pgm", scaled(12), 4095), None),
        (lambda p: scaled(12).astype(np.uint16), 12),
        (lambda p: scaled(14).astype(np.int64)[:, :, None], 14),
        (lambda p: Image.fromarray(scaled(9).astype(np.int32)), 10),
    ],
)
def test_grey_images_of_one_content_give_one_answer(tmp_path: Path, caplog, write, guessed: int | None) -> None:
    """Whatever the number of bits and the file; a range that is guessed is said, with the name and the value."""
    source = write(tmp_path)
    expected = GREY.astype(float)
    if guessed == 10 and isinstance(source, Image.Image):  # 9 bits are read as 10
        expected = expected / 2
    with caplog.at_level(logging.WARNING):
        found = np.asarray(load_image(source))
        load_image(source)
    assert np.abs(found - expected[:, :, None]).max() <= 1
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (guessed is not None)
    if guessed is not None:
        assert f"are read as {guessed} bits (0...{2**guessed - 1})" in messages[0] and "only the first" in messages[0]
        assert not isinstance(source, Path) or messages[0].startswith(f"{source}: ")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_few_bits_are_not_read_as_black(
    tmp_path: Path, caplog, suffix: str, bits: int, channels: int
) -> None:
    values = np.rint(COLOUR / 255 * (2**bits - 1)).astype(np.uint16)
    values = opaque(values, 65535 if bits % 4 else 2**bits - 1) if channels == 4 else values
    path = png16(tmp_path / "a.png", values)
    if suffix == "tif":
        path = raw_tiff(tmp_path / "a.tif", values)
    with caplog.at_level(logging.WARNING):
        found = np.asarray(load_image(path))
    assert np.abs(found.astype(int) - RGB).max() <= 1
    assert [f"are read as {bits} bits" in record.getMessage() for record in caplog.records] == [True] * (bits < 16)
    if bits == 16 and channels == 3:  # as ever: the higher byte
        assert np.array_equal(found, values >> 8)


def raw_tiff(path: Path, values: np.ndarray, signed: bool = False) -> Path:
    """An uncompressed TIFF of 16-bit grey, RGB or RGBA, which Pillow cannot write."""
    height, width, channels = values.shape
    data = values.astype("<u2").tobytes()
    sizes = np.full(channels, 16, "<u2").tobytes()
    start = 8 + len(data)
    bits = (258, 3, 1, 16) if channels == 1 else (258, 3, channels, start)
    entries = [
        *((256, 4, 1, width), (257, 4, 1, height), bits, (259, 3, 1, 1)),
        (262, 3, 1, 1 if channels == 1 else 2),
        *((273, 4, 1, 8), (277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(data))),
        *([(338, 3, 1, 2)] if channels == 4 else []),
        *([(339, 3, 1, 2)] if signed else []),
    ]
    table = b"".join(np.array([e[0], e[1]], "<u2").tobytes() + np.array(e[2:], "<u4").tobytes() for e in entries)
    directory = np.array([len(entries)], "<u2").tobytes() + table + bytes(4)
    path.write_bytes(b"II*\0" + np.array([start + len(sizes)], "<u4").tobytes() + data + sizes + directory)
    return path


def test_what_cannot_be_scaled_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_image(png16(tmp_path / "grey-alpha.png", opaque((GREY.astype(np.uint16) << 4)[:, :, None])))
        load_image((GREY / 255 / 50).astype(np.float32))
        load_image(pgm(tmp_path / "dark.pgm", GREY.astype(np.uint16), 65534))
        load_image(np.zeros((4, 4), np.uint16))
    said = [record.getMessage() for record in caplog.records]
    assert [" % of the range" in line for line in said] == [True, True, True]
    for wrong in (np.full((2, 2), -1), np.array([[0, -5]], np.int16), np.array([[0.5, np.nan]]), np.array([[1.01]])):
        with pytest.raises(WildcatError, match="pixels of type"):
            load_image(wrong)


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"]


def of_mode(mode: str, size: tuple[int, int]) -> Image.Image:
    photo = Image.fromarray(unusual.photo(*size))
    if mode == "RGBA":
        photo.putalpha(photo.convert("L"))
        return photo
    if mode in ("I;16", "I", "F"):
        grey = np.asarray(photo.convert("L"))
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        return Image.fromarray((grey / 255 if mode == "F" else grey * 257.0).astype(kind))
    if mode == "P":
        palette = photo.convert("P")
        palette.info["transparency"] = 3
        return palette
    return photo.convert(mode)


@pytest.mark.parametrize("mode", MODES)
def test_bands_of_rows_give_the_pixels_of_the_whole(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = of_mode(mode, (61, 47))
    whole = np.asarray(load_image(image))
    monkeypatch.setattr(pixels, "_BAND_PIXELS", 61 * 5)
    assert np.array_equal(np.asarray(load_image(image)), whole)
    reduced = pixels.to_rgb(image, "a", factor=3)
    assert np.array_equal(np.asarray(reduced), np.asarray(load_image(image).reduce(3)))


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "F"])
def test_large_images_are_reduced_to_what_is_needed(tmp_path: Path, mode: str, monkeypatch) -> None:
    file = tmp_path / ("large.tif" if mode == "F" else "large.png")
    of_mode(mode, (640, 480)).save(file)
    exact = load_image(file, draft_size=32)
    assert exact.size == (640, 480)
    monkeypatch.setattr(images, "REDUCED_ABOVE", 640 * 480 - 1)
    image = load_image(file, draft_size=32)
    assert image.size == (92, 69) and original_size(image) == (640, 480)  # 480 // 64 = 7 times smaller, rounded up
    assert np.abs(warp(image, 32).astype(int) - warp(exact, 32)).mean() < 2
    assert load_image(file).size == (640, 480) == load_image(file, draft_size=400).size


def test_threads_wait_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.png"
    Image.new("RGBA", (100, 100)).save(file)  # 80,000 bytes, own and RGB
    budget = images.ByteBudget(170_000)
    monkeypatch.setattr(images, "_budget", budget)
    peak, inside, lock = [0], [0], threading.Lock()
    convert = images.to_rgb

    def slow(*args: object, **options: object) -> Image.Image:
        with lock:
            inside[0] += 1
            peak[0] = max(peak[0], inside[0])
        threading.Event().wait(0.02)
        with lock:
            inside[0] -= 1
        return convert(*args, **options)

    monkeypatch.setattr(images, "to_rgb", slow)
    threads = [threading.Thread(target=load_image, args=(file,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert peak == [2] and budget.used == 0
    monkeypatch.setattr(images, "_budget", images.ByteBudget(10))  # an image that is larger than all is read alone
    assert load_image(file).size == (100, 100)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [1, 2, 3, 50, 0.3, 0.6])
def test_a_cut_jpeg_is_read_on_request_as_far_as_it_goes(tmp_path: Path, missing: float, progressive: bool) -> None:
    photo = unusual.photo(160, 120)
    file = tmp_path / "a.jpg"
    Image.fromarray(photo).save(file, quality=95, progressive=progressive)
    content = file.read_bytes()
    whole = np.asarray(load_image(file)).astype(int)
    assert np.array_equal(np.asarray(load_image(file, partial=True)), whole)
    file.write_bytes(content[: -int(missing if missing >= 1 else missing * len(content))])
    with pytest.raises(WildcatError, match="truncated"):
        load_image(file)
    rows = np.abs(np.asarray(load_image(file, partial=True)) - whole).mean(axis=(1, 2)) < 12
    assert rows[: 120 if 1 <= missing < 4 else 16 if not progressive else 0].all()
    assert load_image(file, partial=True, draft_size=20).size == (40, 30)
    with pytest.raises(WildcatError, match=r"a\.png: cannot be read"):  # other formats stay errors
        Image.fromarray(photo).save(tmp_path / "a.png")
        (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-200])
        load_image(tmp_path / "a.png", partial=True)


HEADS = {
    "heic": "HEIC needs pillow-heif: pip install 'wildcat-wsl\\[heif\\]'",
    "mif1": "HEIC needs pillow-heif",
    "hevc": "HEIC needs pillow-heif",
    "avif": "AVIF needs Pillow 11.3",
    "mp42": "not an image in a format that can be read",
}


@pytest.mark.parametrize("brand", HEADS)
def test_what_reads_a_phones_images_is_named(brand: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.init()
    monkeypatch.setattr(Image, "OPEN", {k: v for k, v in Image.OPEN.items() if k not in ("HEIF", "AVIF")})
    with pytest.raises(WildcatError, match=HEADS[brand]):
        load_image(b"\0\0\0\x18ftyp" + brand.encode() + b"\0\0\0\0mif1" + bytes(50))


def test_heic_is_read_where_its_reader_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Pillow, with the opener that pillow-heif registers."""
    calls = []
    fake = types.ModuleType("pillow_heif")
    fake.register_heif_opener = lambda: calls.append(1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", fake)
    Image.init()
    monkeypatch.setattr(Image, "OPEN", {k: v for k, v in Image.OPEN.items() if k != "HEIF"})
    with pytest.raises(WildcatError):
        load_image(b"\0\0\0\x18ftypheic" + bytes(50))
    assert calls


def test_real_heic(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(RGB, 1)))
    heif.from_pillow(Image.fromarray(RGB)).save(tmp_path / "phone.heic", quality=95)
    heif.from_pillow(turned).save(tmp_path / "turned.heic", exif=exif.tobytes(), quality=95)
    for name in ("phone.heic", "turned.heic"):
        assert images.image_size(tmp_path / name) == (60, 40)
        assert np.abs(np.asarray(load_image(tmp_path / name)).astype(int) - RGB).mean() < 6
