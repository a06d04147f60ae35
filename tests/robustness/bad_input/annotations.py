# ruff: noqa: E501 - each message is on one line
"""VOC and COCO."""

from tests.data import trees
from tests.robustness.bad_input.case import Case, Make, cut, encoded, entries, in_order, nothing, text


def voc_case(name: str, what: str, make: Make, message: str) -> Case:
    """A mistake in a small tree of VOC 2007."""
    return Case(name, what, in_order(trees.voc, make), "train --data voc07:. --out new", message)


XML, SETS = "VOCdevkit/VOC2007/Annotations/000001.xml", "VOCdevkit/VOC2007/ImageSets/Main"


def annotation(objects: str, size: str = "<width>40</width><height>30</height>") -> Make:
    """An annotation with these objects."""
    return text(XML, f"<annotation><size>{size}</size>{objects}</annotation>")


def dog(*box: object) -> str:
    """An object with this box."""
    sides = "".join(f"<{s}>{v}</{s}>" for s, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>dog</name><bndbox>{sides}</bndbox></object>"


LAUGHS = (
    '<!DOCTYPE a [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {after} "{f"&{before};" * 10}">' for before, after in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><annotation>&i;</annotation>"
)

VOC = [
    Case(
        "no-voc",
        "no VOCdevkit in the folder",
        nothing,
        "train --data voc07:. --out new",
        ".: holds no VOC2007 with an ImageSets folder; give the folder that holds VOCdevkit, or VOCdevkit, or VOC2007 itself",
    ),
    Case(
        "unlabelled-split",
        "a split that is published without labels",
        lambda folder: trees.unlabelled(trees.voc(folder, 2012)),
        "train --data voc12:. --out new --train-split test",
        "voc12:. test has no labels: none of its 1 images has a class; give a split with labels",
    ),
    voc_case(
        "cut-xml",
        "an annotation that was cut",
        cut(XML, 0.5),
        "VOCdevkit/VOC2007/Annotations/000001.xml: the annotation cannot be read: ...",
    ),
    voc_case(
        "no-xml",
        "an annotation that is missing",
        lambda folder: (folder / XML).unlink(),
        "VOCdevkit/VOC2007/Annotations/000001.xml: the annotation is missing",
    ),
    voc_case(
        "laughs",
        "an annotation of a billion laughs",
        text(XML, LAUGHS),
        "VOCdevkit/VOC2007/Annotations/000001.xml: the annotation cannot be read: ...",
    ),
    voc_case(
        "foreign-xml",
        "an annotation that asks for another file",
        text(XML, '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>'),
        "VOCdevkit/VOC2007/Annotations/000001.xml: the annotation cannot be read: ...",
    ),
    voc_case(
        "worded-box",
        "a box that is no number",
        annotation(dog(1, 1, "right", 9)),
        "VOCdevkit/VOC2007/Annotations/000001.xml: a size or a bndbox is missing or not a number",
    ),
    voc_case(
        "nan-box",
        "a box that is not finite",
        annotation(dog(1, 1, "inf", 9)),
        "VOCdevkit/VOC2007/Annotations/000001.xml: a bndbox ends before it begins, or is out of range: xmin 1, ymin 1, xmax inf, ymax 9",
    ),
    voc_case(
        "turned-box",
        "a box that ends before it begins",
        annotation(dog(20, 1, 10, 9)),
        "VOCdevkit/VOC2007/Annotations/000001.xml: a bndbox ends before it begins, or is out of range: xmin 20, ymin 1, xmax 10, ymax 9",
    ),
    voc_case(
        "infinite-size",
        "an image of infinite size",
        annotation(dog(1, 1, 9, 9), "<width>inf</width><height>3</height>"),
        "VOCdevkit/VOC2007/Annotations/000001.xml: a size or a bndbox is missing or not a number",
    ),
    voc_case(
        "unknown-class",
        "an object of another class",
        annotation(dog(1, 1, 9, 9).replace("dog", "dragon")),
        "VOCdevkit/VOC2007/Annotations/000001.xml: class 'dragon' is unknown; allowed: aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor",
    ),
    voc_case(
        "label-2",
        "a label of 2",
        text(f"{SETS}/dog_trainval.txt", "000001 1\n000002 2\n000003 -1\n"),
        "VOCdevkit/VOC2007/ImageSets/Main/dog_trainval.txt: entry 2 cannot be read; it must be image label, the label 1, 0 or -1",
    ),
    voc_case(
        "other-names",
        "label files with different images",
        text(f"{SETS}/dog_trainval.txt", "000001 1\n"),
        "VOCdevkit/VOC2007/ImageSets/Main/dog_trainval.txt: lists other images than aeroplane_trainval.txt, the first one is 000002",
    ),
    voc_case(
        "no-label-file",
        "a class without its label file",
        lambda folder: (folder / SETS / "dog_trainval.txt").unlink(),
        "VOCdevkit/VOC2007/ImageSets/Main/dog_trainval.txt: not found; each of the 20 classes needs its label file; did you mean VOCdevkit/VOC2007/ImageSets/Main/cow_trainval.txt?",
    ),
    voc_case(
        "binary-labels",
        "an image for a label file",
        text(f"{SETS}/dog_trainval.txt", encoded("PNG")),
        "VOCdevkit/VOC2007/ImageSets/Main/dog_trainval.txt: cannot be read as text in UTF-8: ...",
    ),
]

JSON = "annotations/instances_train2014.json"


def coco_case(name: str, what: str, make: Make, message: str) -> Case:
    """A mistake in a small tree of COCO 2014."""
    return Case(name, what, in_order(trees.coco, make), "train --data coco:. --out new", message)


COCO = [
    Case(
        "no-coco",
        "no annotations in the folder",
        nothing,
        "train --data coco:. --out new",
        ".: holds no annotations/instances_<train or val><2014 or 2017>.json and no other JSON of COCO instances; give the folder that holds one, or coco:FILE.json,images=FOLDER",
    ),
    coco_case(
        "cut-json",
        "annotations that were cut",
        cut(JSON, 0.5),
        "annotations/instances_train2014.json: cannot be read as JSON: ...",
    ),
    coco_case(
        "list-json",
        "a list for annotations",
        text(JSON, "[]"),
        "annotations/instances_train2014.json: has no annotations and no categories and no images; it is not a file of COCO instances",
    ),
    coco_case(
        "deep-json",
        "a list in a list in a list, 100,000 deep",
        text(JSON, "[" * 100_000),
        "annotations/instances_train2014.json: cannot be read as JSON: ...",
    ),
    coco_case(
        "no-categories",
        "no categories",
        entries(JSON, categories=None),
        "annotations/instances_train2014.json: has no categories; it is not a file of COCO instances",
    ),
    coco_case(
        "unknown-category",
        "an object of a category that is not listed",
        entries(JSON, annotations__1__category_id=77),
        "annotations/instances_train2014.json: annotations: category_id of entry 2 must be the id of a category; got 77",
    ),
    coco_case(
        "category-twice",
        "two categories with one id",
        entries(JSON, categories__1__id=90),
        "annotations/instances_train2014.json: categories: id of entry 2 must be unique; got 90",
    ),
    coco_case(
        "image-twice",
        "an image that is listed twice",
        entries(JSON, images__2__id=7),
        "annotations/instances_train2014.json: images: id of entry 3 must be unique; got 7",
    ),
    coco_case(
        "short-box",
        "a box of three numbers",
        entries(JSON, annotations__1__bbox=[1, 2, 3]),
        "annotations/instances_train2014.json: annotations: bbox of entry 2 must be x, y, width and height, four numbers below 1e9; got [1, 2, 3]",
    ),
    coco_case(
        "unlisted-image",
        "an object of an image that is not listed",
        entries(JSON, annotations__1__image_id=77),
        "annotations/instances_train2014.json: annotations: image_id of 1 of 4 entries is no id of images, the first is entry 2 with 77; if ids were counted from another number, all labels are wrong; if images were left out, unlisted=drop leaves these entries out",
    ),
    coco_case(
        "odd-crowd",
        "an object that is perhaps a crowd",
        entries(JSON, annotations__1__iscrowd="maybe"),
        "annotations/instances_train2014.json: annotations: iscrowd of entry 2 must be 0 or 1; got 'maybe'",
    ),
    coco_case(
        "all-crowds",
        "masks that are all crowds, as CVAT writes them",
        entries(JSON, **{f"annotations__{number}__iscrowd": 1 for number in range(4)}),
        "annotations/instances_train2014.json: all 4 objects are crowds (iscrowd 1, as CVAT writes masks), which do not count as objects of their class; crowds=objects takes them as objects, crowds=difficult leaves them crowds",
    ),
    coco_case(
        "numbered-file",
        "an image whose file name is a number",
        entries(JSON, images__0__file_name=7),
        "annotations/instances_train2014.json: images: file_name of entry 1 must be text; got 7",
    ),
    coco_case(
        "odd-images",
        "images that are no list",
        entries(JSON, images=7),
        "annotations/instances_train2014.json: images must be a list; got int",
    ),
]
