# ruff: noqa: E501 - each message is on one line
"""Images."""

import os

from PIL import Image

from tests import unusual
from tests.robustness.bad_input.case import Case, Make, encoded, nothing, png, text

PREDICT = "predict run {} --out out"


def image(name: str, what: str, file: str, content: bytes | Make, message: str) -> Case:
    """An image that is skipped."""
    make = text(file, content) if isinstance(content, bytes) else content
    return Case(name, what, make, PREDICT.format(file), f"skipped: {file}: {message}", skipped=True)


IMAGES = [
    image("empty-image", "an empty file", "a.jpg", b"", "the file is empty"),
    image("text-image", "a text file named .jpg", "a.jpg", b"hello\n", "not an image in a format that can be read"),
    image(
        "svg-image",
        "a drawing (SVG) named .png",
        "a.png",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "not an image in a format that can be read",
    ),
    image("pdf-image", "a PDF named .jpg", "a.jpg", b"%PDF-1.4\n%%EOF\n", "not an image in a format that can be read"),
    image("cut-jpeg", "a JPEG that was cut", "a.jpg", encoded("JPEG", 0.7), "cannot be read: ..."),
    image("cut-webp", "a WebP that was cut", "a.webp", encoded("WEBP", 0.7), "cannot be read: ..."),
    image(
        "cut-gif",
        "a GIF that ends after its header",
        "a.gif",
        encoded("GIF", 1)[:13],
        "not an image in a format that can be read",
    ),
    image("cut-tiff", "a TIFF that was cut", "a.tif", encoded("TIFF", 0.5), "cannot be read: ..."),
    image(
        "headless-png",
        "a PNG that ends after its header",
        "a.png",
        png(20, 20),
        "not an image in a format that can be read",
    ),
    image("zero-png", "a PNG of 0 x 0 pixels", "a.png", png(0, 0), "not an image in a format that can be read"),
    image(
        "huge-png",
        "900 million pixels in a small file",
        "a.png",
        lambda folder: unusual.huge_png(folder / "a.png", 30_000),
        "too large: Image size (900000000 pixels) exceeds limit of 178956970 pixels, could be decompression bomb DOS attack.",
    ),
    image(
        "vast-png",
        "a header that claims 2 billion x 2 billion pixels",
        "a.png",
        png(2**31 - 1, 2**31 - 1),
        "not an image in a format that can be read",
    ),
    image(
        "nan-tiff",
        "a TIFF of floats that are no numbers",
        "a.tif",
        lambda folder: Image.new("F", (8, 8), float("nan")).save(folder / "a.tif"),
        "pixels of type float32 must be in 0...1 (supported types: uint8, 16-bit integers and floats)",
    ),
    image(
        "pipe",
        "a named pipe, which no one writes to",
        "a.jpg",
        lambda folder: os.mkfifo(folder / "a.jpg"),
        "not a file",
    ),
    Case("no-image", "an image that is not there", nothing, PREDICT.format("dog.jpg"), "dog.jpg does not exist"),
    Case(
        "dead-link",
        "a link to nowhere",
        lambda folder: (folder / "a.jpg").symlink_to("gone.jpg"),
        PREDICT.format("a.jpg"),
        "a.jpg does not exist",
    ),
    Case(
        "no-images",
        "a folder without images",
        text("notes/a.txt", "x"),
        PREDICT.format("notes"),
        "notes holds no images (.avif, .bmp, .gif, .heic, .heif, .jfif, .jp2, .jpe, .jpeg, .jpg, .pgm, .png, .ppm, .qoi, .tif, .tiff, .webp)",
    ),
]
