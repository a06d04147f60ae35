"""Minimal datasets in the true on-disk formats."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

VOC_CLASSES = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]
ACTIONS = [
    *("jumping", "phoning", "playinginstrument", "reading", "ridingbike", "ridinghorse", "running", "takingphoto"),
    *("usingcomputer", "walking"),
]


def image(path: Path, width: int = 40, height: int = 30, colour: tuple[int, int, int] = (90, 120, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def voc_xml(root: Path, name: str, objects: list[tuple], size: tuple[int, int] = (40, 30)) -> None:
    """Objects are (class, difficult, xmin, ymin, xmax, ymax); each has a part with a box of its own, as persons do."""
    items = "".join(
        f"<object><name>{label}</name><difficult>{difficult}</difficult><part><name>head</name><bndbox><xmin>1</xmin>"
        f"<ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part><bndbox><xmax>{x2}</xmax><xmin>{x1}</xmin>"
        f"<ymax>{y2}</ymax><ymin>{y1}</ymin></bndbox></object>\n"
        for label, difficult, x1, y1, x2, y2 in objects
    )
    write(
        root / "Annotations" / f"{name}.xml",
        f"<annotation><filename>{name}.jpg</filename><size><width>{size[0]}</width><height>{size[1]}</height>"
        f"<depth>3</depth></size>\n{items}</annotation>",
    )


def voc(path: Path, year: int = 2007) -> Path:
    """Three images in trainval, one in test, one mask; returns the folder VOC<year>."""
    root = path / "VOCdevkit" / f"VOC{year}"
    objects = {
        "000001": [("dog", 0, 1, 1, 40, 30), ("person", 1, 5, 6, 10, 12)],
        "000002": [("person", 0, 2.5, 3, 8, 9), ("person", 1, 1, 1, 4, 4)],
        "000003": [],
        "000004": [("cat", 0, 3, 4, 20, 25)],
    }
    splits = {"trainval": ["000001", "000002", "000003"], "test": ["000004"]}
    for name, items in objects.items():
        image(root / "JPEGImages" / f"{name}.jpg")
        voc_xml(root, name, items)
    for split, names in splits.items():
        write(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{name}\n" for name in names))
        for label in VOC_CLASSES:
            lines = []
            for name in names:
                difficult = [item[1] for item in objects[name] if item[0] == label]
                value = -1 if not difficult else 0 if all(difficult) else 1
                lines.append("%s %2d\n" % (name, value))  # noqa: UP031 (the devkit's own format)
            write(root / "ImageSets" / "Main" / f"{label}_{split}.txt", "".join(lines))
    write(root / "ImageSets" / "Segmentation" / "trainval.txt", "000002\n")
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[2:9, 1:8] = 15
    mask[0] = 255
    entry = Image.fromarray(mask)
    entry.putpalette(list(range(256)) * 3)
    (root / "SegmentationClass").mkdir()
    entry.save(root / "SegmentationClass" / "000002.png")
    return root


def unlabelled(root: Path) -> Path:
    """The same folder VOC<year> without what is known of the test images, as VOC 2012 is published."""
    for file in (root / "ImageSets" / "Main").glob("*_test.txt"):
        file.unlink()
    (root / "Annotations" / "000004.xml").unlink()
    return root


def action(path: Path) -> Path:
    """Three persons of two images in train, with no entry for "jumping" in the older one; one person in test."""
    root = path / "VOCdevkit" / "VOC2012"
    for name in ("2010_000001", "2011_000002", "2011_000009"):
        image(root / "JPEGImages" / f"{name}.jpg")
    voc_xml(root, "2010_000001", [("dog", 0, 1, 1, 9, 9), ("person", 0, 11, 11, 20, 20)])
    voc_xml(root, "2011_000002", [("person", 0, 1, 1, 40, 30), ("person", 0, 31, 5, 38, 14)])
    voc_xml(root, "2011_000009", [("person", 0, 3, 3, 9, 9), ("dog", 0, 1, 1, 4, 4)])
    persons = {("2010_000001", 2): {"running", "phoning"}, ("2011_000002", 1): {"jumping"}, ("2011_000002", 2): set()}
    for label in ACTIONS:
        lines = [
            f"{entry}  {number} {1 if label in labels else -1:2d}\n"
            for (entry, number), labels in persons.items()
            if label != "jumping" or entry > "2011"
        ]
        write(root / "ImageSets" / "Action" / f"{label}_train.txt", "".join(lines))
    write(root / "ImageSets" / "Action" / "train.txt", "2010_000001\n2011_000002\n")
    write(root / "ImageSets" / "Action" / "test.txt", "2011_000009\n")
    return root


def coco(path: Path, year: str = "2014") -> Path:
    """Ids with gaps and out of order, a crowd by run lengths, a box without area, an image without annotations."""
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    square = [[10, 5, 20, 5, 20, 15, 10, 15]]
    inner = [[0, 0, 1, 1], [12, 7, 16, 7, 16, 11, 12, 11]]  # the first one has too few corners
    # Run lengths go down the columns: all of column 19 of 40 x 30 pixels, where the dog's square ends.
    crowd = {"size": [30, 40], "counts": [19 * 30, 30, 20 * 30]}
    annotations = [
        {"image_id": 7, "category_id": 1, "bbox": [12, 7, 4, 4], "area": 16, "segmentation": inner, "iscrowd": 0},
        {"image_id": 7, "category_id": 18, "bbox": [10, 5, 10, 10], "area": 100, "segmentation": square, "iscrowd": 0},
        {"image_id": 7, "category_id": 90, "bbox": [19, 0, 1, 30], "area": 30, "segmentation": crowd, "iscrowd": 1},
        {"image_id": 3, "category_id": 18, "bbox": [1.5, 2.5, 0, 8], "area": 0, "segmentation": [], "iscrowd": 0},
    ]
    for split, ids in {"train": [7, 3, 5], "val": [5]}.items():
        images = [{"id": i, "file_name": f"COCO_{split}{year}_{i:012}.jpg", "width": 40, "height": 30} for i in ids]
        for entry in images:
            image(path / f"{split}{year}" / entry["file_name"])
        content = {
            "info": {},
            "images": images,
            "annotations": [{"id": n, **a} for n, a in enumerate(annotations) if a["image_id"] in ids],
            "categories": categories,
        }
        write(path / "annotations" / f"instances_{split}{year}.json", json.dumps(content))
    return path
