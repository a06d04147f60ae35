"""Unusual and damaged images as they occur in real folders, made on the fly."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

GOOD = [
    *("alpha.png", "bits.png", "cmyk.jpg", "deep.png", "grey.jpg", "grey_alpha.png", "moving.gif", "palette.png"),
    *("plain.jpg", "turned.jpg"),
]
BAD = ["empty.jpg", "huge.png", "text.png", "truncated.jpg"]

# Names of files, as bytes, that are rare but valid. Two of them are one in another case or normal form of Unicode.
NAMES = [
    b"latin\xe9.png",
    b"latin%E9.png",
    b"line\nend.png",
    b"tab\t.png",
    b"\x1b[2J\x1b]0;title\x07\x9b31m.png",
    b"=cmd|' .png",
    b"'=1.png",
    b"-rf.png",
    b"+1.png",
    b"@x.png",
    "\u00e9.png".encode(),
    "e\u0301.png".encode(),
    b"a.png",
    b"A.png",
    b"a.jpg",
    b"a.png.png",
    b"x" * 250 + b".png",
    b"q\"uo'te,;.png",
    "\u202egnp.exe.png".encode(),
    "\U0001f600.png".encode(),
    b"a#b?c%41&<b>.png",
    b"a\\b.png",
    b" .png",
    b"CON.png",
    b"{}.png",
    b"{0.name}.png",
]
CLASSES = (
    *("\x1b]0;title\x07\x1b[2J", "=1+1", "'=1+1", "file", "mask", "class:mask", "a,b=c", "latin\udce9"),
    *("<b>&\"'|`x`", "line\nend", "\u202etac", "{}", "[x](http://x) _y_", " "),
)


def write_names(folder: Path) -> list[Path]:
    """Small images with the names of :data:`NAMES`, each of another colour; a name may lie in a folder of its own."""
    files = []
    for number, name in enumerate(NAMES):
        file = folder / os.fsdecode(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 20), (9 * number, 255 - 9 * number, 99)).save(file)
        files.append(file)
    return sorted(files)


def photo(width: int = 60, height: int = 40, seed: int = 0) -> np.ndarray:
    """Smooth colours without symmetry, uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin(5 * x + 3 * y * (i + 1) + phase[i]) for i in range(3)]
    return np.stack([127 + 120 * wave for wave in waves], axis=-1).astype(np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png(path: Path, side: int) -> Path:
    """A valid white PNG, one bit a pixel, that is small on disk and was never held in memory."""
    packer = zlib.compressobj(1)
    row = b"\0" + b"\xff" * ((side + 7) // 8)
    rows = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def oriented(path: Path, orientation: int, upright: np.ndarray) -> Path:
    """Store an image turned so that its EXIF orientation makes it `upright` again; quality as the suffix allows."""
    stored = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),  # shown after a quarter turn clockwise
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = (
        {"lossless": True}
        if path.suffix == ".webp"
        else {"quality": 95, "subsampling": 0}
        if path.suffix == ".jpg"
        else {}
    )
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    return path


def write_all(folder: Path) -> None:
    """Write the mixed set of images GOOD and BAD."""
    folder.mkdir(parents=True, exist_ok=True)
    rgb = photo()
    image = Image.fromarray(rgb)
    image.save(folder / "plain.jpg")
    image.convert("L").save(folder / "grey.jpg")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("P").save(folder / "palette.png")
    image.convert("1").save(folder / "bits.png")
    Image.fromarray(rgb[:, :, 0].astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(np.dstack([rgb, rgb[:, :, 1]])).save(folder / "alpha.png")
    image.convert("LA").save(folder / "grey_alpha.png")
    image.save(folder / "moving.gif", save_all=True, append_images=[Image.new("RGB", image.size)])
    oriented(folder / "turned.jpg", 6, rgb)

    whole = (folder / "plain.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("this is no image\n")
    huge_png(folder / "huge.png", 30_000)
