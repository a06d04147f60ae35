"""Guesses the kind of a dataset from its path, for messages."""

from __future__ import annotations

from pathlib import Path

_BY_SUFFIX = {".xml": "cvat", ".yaml": "yolo", ".yml": "yolo", ".parquet": "hf", ".jsonl": "tags"}
_IN_FOLDERS = {
    "yolo": ("data.yaml", "obj.data", "labels"),
    "cvat": ("annotations.xml",),
    "voc": ("ImageSets", "VOCdevkit", "Annotations"),
    "hf": ("metadata.csv", "metadata.jsonl", "metadata.parquet"),
    "masks": ("mask-labels.txt",),
    "coco": ("_annotations.coco.json", "result.json", "labels.json"),
}
_SNIFFED = 2**16  # bytes


def likely_kind(path: Path) -> str:
    """The kind of dataset that a file or folder most probably is.

    >>> likely_kind(Path("my/export.xml")), likely_kind(Path("my/table.csv"))
    ('cvat', 'tags')
    """
    if path.is_dir():
        return next((kind for kind, names in _IN_FOLDERS.items() if any((path / n).exists() for n in names)), "folder")
    if path.suffix.lower() == ".json":
        try:
            with path.open("rb") as file:
                text = file.read(_SNIFFED)
        except OSError:
            text = b""
        is_coco = text.lstrip().startswith(b"{") and any(
            key in text for key in (b'"images"', b'"categories"', b'"info"')
        )
        return "coco" if is_coco else "labelstudio"
    return _BY_SUFFIX.get(path.suffix.lower(), "tags")
