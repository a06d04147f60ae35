# ruff: noqa: E501 - each message is on one line
"""Files of annotation tools: Label Studio, CVAT, YOLO, Hugging Face, label maps."""

import json
from typing import Any

from tests.robustness.bad_input.annotations import LAUGHS
from tests.robustness.bad_input.case import Case, Make, in_order, text


def tool_case(name: str, what: str, kind: str, file: str, content: str | bytes, message: str, *more: Make) -> Case:
    """A file in a folder of its own, which is the current one, beside cat.png."""
    return Case(name, what, in_order(text(file, content), *more), f"train --data {kind}:{file} --out new", message)


def tasks(*results: Any, image: str = "cat.png", **annotation: Any) -> str:
    """An export of Label Studio with one task."""
    return json.dumps(
        [{"id": 1, "data": {"image": image}, "annotations": [{"id": 1, "result": list(results), **annotation}]}]
    )


CAT = {"type": "choices", "from_name": "animal", "to_name": "image", "value": {"choices": ["cat"]}}

TOOLS = [
    tool_case(
        "coco-as-ls",
        "a JSON of COCO as one of Label Studio",
        "labelstudio",
        "a.json",
        '{"images": [], "categories": [], "annotations": []}',
        "a.json: is a file of COCO instances; use coco:a.json",
    ),
    tool_case(
        "xml-as-ls",
        "an XML as a JSON of Label Studio",
        "labelstudio",
        "a.xml",
        "<annotations/>",
        "a.xml: cannot be read as JSON: ...; it is XML: use cvat:FILE for CVAT",
    ),
    tool_case(
        "cut-ls",
        "an export of Label Studio that was cut",
        "labelstudio",
        "a.json",
        tasks(CAT)[:-9],
        "a.json: cannot be read as JSON: ...",
    ),
    tool_case(
        "no-tasks",
        "an export without tasks",
        "labelstudio",
        "a.json",
        "[]",
        "a.json: holds no task; give an export of Label Studio as JSON or JSON_MIN with annotated images",
    ),
    tool_case(
        "skipped-tasks",
        "an export of skipped tasks",
        "labelstudio",
        "a.json",
        tasks(was_cancelled=True),
        "a.json: none of its 1 tasks is annotated (1 skipped); predictions=yes takes predictions for labels",
    ),
    tool_case(
        "no-labels-ls",
        "annotations without any label",
        "labelstudio",
        "a.json",
        tasks(),
        "a.json: none of its 1 images has a label; class_list=FILE names classes",
    ),
    tool_case(
        "far-images",
        "images that are not here",
        "labelstudio",
        "a.json",
        tasks(CAT, image="/data/upload/1/0a1b2c3d-dog.png"),
        "a.json: none of its 1 images is in .: /data/upload/1/0a1b2c3d-dog.png; name the folder that holds them: labelstudio:a.json,images=FOLDER",
    ),
    tool_case(
        "way-out",
        "an image outside of the folder",
        "labelstudio",
        "a.json",
        tasks(CAT, image="../../../../etc/passwd"),
        "a.json: none of its 1 images is in .: ../../../../etc/passwd; name the folder that holds them: labelstudio:a.json,images=FOLDER",
    ),
    tool_case(
        "sound-ls",
        "labels of sounds",
        "labelstudio",
        "a.json",
        tasks({**CAT, "type": "timeserieslabels"}),
        "a.json: cat.png: it has results of the type timeserieslabels, which are not those of an image",
    ),
    tool_case(
        "odd-choice",
        "a choice that is no name",
        "labelstudio",
        "a.json",
        tasks({**CAT, "value": {"choices": [7]}}),
        "a.json: cat.png: choices must hold names; got [7]",
    ),
    tool_case(
        "voc-as-cvat",
        "an XML of VOC as one of CVAT",
        "cvat",
        "a.xml",
        "<annotation><filename>cat.png</filename></annotation>",
        "a.xml: is an annotation of PASCAL VOC, not of CVAT; use voc:FOLDER",
    ),
    tool_case(
        "video-cvat",
        "a video of CVAT",
        "cvat",
        "a.xml",
        '<annotations><track label="cat"/></annotations>',
        'a.xml: is "CVAT for video"; export the task as "CVAT for images 1.1"',
    ),
    tool_case(
        "empty-cvat",
        "a file of CVAT without images",
        "cvat",
        "a.xml",
        "<annotations/>",
        "a.xml: holds no image; export a task with annotated images",
    ),
    tool_case(
        "laughs-cvat",
        "a file of CVAT of a billion laughs",
        "cvat",
        "a.xml",
        LAUGHS,
        "a.xml: the annotation cannot be read: a DOCTYPE is not allowed",
    ),
    tool_case(
        "odd-shape",
        "a shape that CVAT does not have",
        "cvat",
        "a.xml",
        '<annotations><image name="cat.png" width="4" height="3"><star label="cat"/></image></annotations>',
        "a.xml: cat.png: 'star' is unknown; allowed: tag, box, polygon, mask, points, polyline, ellipse, cuboid, skeleton",
    ),
    tool_case(
        "no-names",
        "a data.yaml without names",
        "yolo",
        "data.yaml",
        "train: .\n",
        "data.yaml: has no list of names, which are its classes; class_list=FILE names them",
    ),
    tool_case(
        "pixels-yolo",
        "coordinates of YOLO in pixels",
        "yolo",
        "data.yaml",
        "train: .\nnames: [cat]\n",
        "cat.txt: line 1: coordinates must be fractions of the image, from 0 to 1; got '0 20 15 10 10'",
        text("cat.txt", "0 20 15 10 10"),
    ),
    tool_case(
        "class-yolo",
        "a class of YOLO without a name",
        "yolo",
        "data.yaml",
        "train: .\nnames: [cat]\n",
        "cat.txt: line 1: class 1 must be a number from 0 to 0, as names lists them",
        text("cat.txt", "1 0.5 0.5 0.1 0.1"),
    ),
    tool_case(
        "no-txt",
        "images of YOLO without labels",
        "yolo",
        "data.yaml",
        "train: .\nnames: [cat]\n",
        "data.yaml: none of the 1 images has a file of labels, such as cat.txt",
    ),
    tool_case(
        "code-yaml",
        "a data.yaml that runs a command",
        "yolo",
        "data.yaml",
        "names: !!python/object/apply:os.system ['touch executed']\n",
        "data.yaml: cannot be read as YAML: ...",
    ),
    tool_case(
        "cut-jsonl",
        "JSON lines that were cut",
        "hf",
        "a.jsonl",
        '{"file_name": "cat.png", "label": "cat"}\n{"file_na',
        "a.jsonl: line 2 cannot be read as JSON: ...",
    ),
    tool_case(
        "short-bbox",
        "a box of three numbers",
        "hf",
        "a.jsonl",
        '{"file_name": "cat.png", "objects": {"bbox": [[1, 2, 3]], "categories": ["cat"]}}\n',
        "a.jsonl: row 1: a bbox must be four numbers; got [1, 2, 3]",
    ),
    tool_case(
        "no-parquet",
        "a Parquet table that is none",
        "hf",
        "a.parquet",
        "PAR1",
        "a.parquet: cannot be read as Parquet: ...",
    ),
    tool_case(
        "json-as-tags",
        "a JSON as a table of tags",
        "tags",
        "a.json",
        tasks(CAT),
        "a.json: is no CSV; did you mean labelstudio:a.json?",
    ),
    tool_case(
        "zipped",
        "an export that is still packed",
        "yolo",
        "a.zip",
        b"PK\x03\x04",
        "data 'yolo:a.zip': a.zip is a ZIP archive; unpack it, and give the folder or a file of it",
    ),
    Case(
        "no-masks",
        "no masks in the folder",
        text("x.txt", ""),
        "train --data masks:. --out new",
        ".: holds no folder mask, masks, SegmentationClass; give a folder with a folder mask or masks, and mask-labels.txt with the names of their values",
    ),
    Case(
        "no-voc-xml",
        "no XML in the folder",
        text("x.txt", ""),
        "train --data voc:. --out new",
        ".: holds no XML file of VOC; give a folder in the layout of VOC, or one with images and XML files of VOC",
    ),
]
