"""CVAT for images 1.1: a file written by the exporter of datumaro, and elements as CVAT's documentation has them."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.tool_scenes import IMAGES, TOOLS, check_boxes, check_labels, check_masks
from wildcat.data.registry import available_splits, open_dataset
from wildcat.errors import WildcatError


def test_an_export() -> None:
    data = open_dataset(f"cvat:{TOOLS}/cvat/default.xml,images={IMAGES}", "all")
    assert data.classes == ("cat", "dog", "bird")  # those of the task
    check_labels(data)
    # Each object is a tag, a box, a polygon, a mask and a point: the boxes are the same thrice, and one has no outline.
    assert not data.has_masks
    assert all(len(sample.boxes) == 3 * (sample.labels == 1).sum() for sample in data.samples)
    assert "1 of 4 images have no annotation" in data.notes[0] and "empty=drop" in data.notes[0]
    dropped = open_dataset(f"cvat:{TOOLS}/cvat,images={IMAGES},empty=drop", "all")
    assert len(dropped) == 3 and "are left out" in dropped.notes[0]


@pytest.mark.parametrize("kind", ["mask", "polygon"])
def test_objects_of_one_kind(tmp_path: Path, kind: str) -> None:
    text = (TOOLS / "cvat" / "default.xml").read_text()
    lines, keep = [], True
    for line in text.splitlines():
        opening = line.strip().partition(" ")[0]
        if opening in ("<box", "<mask", "<polygon"):
            keep = opening == f"<{kind}"
        if keep:
            lines.append(line)
        if line.strip() in ("</box>", "</mask>", "</polygon>"):
            keep = True
    (tmp_path / "annotations.xml").write_text("\n".join(lines))
    data = open_dataset(f"cvat:{tmp_path},images={IMAGES}", "all")
    check_labels(data)
    check_boxes(data)
    check_masks(data)


def image(content: str, name: str = "one.png", more: str = "") -> str:
    return f'<image id="0" name="{name}" width="40" height="30"{more}>{content}</image>'


def within(*contents: str) -> str:
    return f"<annotations>{''.join(map(image, contents))}</annotations>"


def opened(tmp_path: Path, *images: str, meta: str = "") -> object:
    (tmp_path / "annotations.xml").write_text(
        f"<annotations><version>1.1</version><meta>{meta}</meta>{''.join(images)}</annotations>"
    )
    split = "val" if "subset" in "".join(images) else "all"
    return open_dataset(f"cvat:{tmp_path},images={IMAGES}", split)


@pytest.mark.parametrize(
    ("element", "box"),
    [
        ('<box label="cat" xtl="1" ytl="2" xbr="11" ybr="8" occluded="0"/>', [1, 2, 11, 8]),
        ('<box label="cat" xtl="5" ytl="2" xbr="15" ybr="8" rotation="90"/>', [7, 0, 13, 10]),
        ('<polygon label="cat" points="1,2;11,2;11,8"><attribute name="a">b</attribute></polygon>', [1, 2, 11, 8]),
        ('<ellipse label="cat" cx="10" cy="10" rx="4" ry="6"/>', [6, 4, 14, 16]),
        ('<mask label="cat" rle="1, 2, 1" left="3" top="4" width="2" height="2"/>', [3, 4, 5, 6]),
        (
            '<cuboid label="cat" xtl1="1" ytl1="2" xbl1="1" ybl1="9" xtr1="5" ytr1="2" xbr1="5" ybr1="9" xtl2="3" '
            'ytl2="1" xbl2="3" ybl2="8" xtr2="7" ytr2="1" xbr2="7" ybr2="8"/>',
            [1, 1, 7, 9],
        ),
        ('<points label="cat" points="3,4"/>', None),
        ('<polyline label="cat" points="3,4;5,6"/>', None),
        ('<skeleton label="cat"><points label="nose" points="3,4"/></skeleton>', None),
        ('<tag label="cat" source="manual"/>', None),
    ],
)
def test_elements(tmp_path: Path, element: str, box: list[float] | None) -> None:
    data = opened(tmp_path, image(element))
    (sample,) = data.samples
    assert data.classes == ("cat",) and sample.labels.tolist() == [1] and sample.stated_size == (40, 30)
    if box is None:
        assert sample.boxes is None
    else:
        np.testing.assert_allclose(sample.boxes, [box], atol=0.05)


@pytest.mark.parametrize("kind", ["job", "task", "project"])
def test_labels_of_jobs_tasks_and_projects(tmp_path: Path, kind: str) -> None:
    names = "".join(f"<label><name>{name}</name></label>" for name in ("dog", "cat"))
    part = "<label><name>nose</name><parent>dog</parent></label>"
    meta = f"<{kind}><labels>{names}{part}</labels></{kind}>"
    assert opened(tmp_path, image('<tag label="cat"/>'), meta=meta).classes == ("dog", "cat")
    with pytest.raises(WildcatError, match="label 'cow' is not among those of its meta: dog, cat"):
        opened(tmp_path, image('<tag label="cow"/>'), meta=meta)


def test_subsets_of_a_project_are_splits(tmp_path: Path) -> None:
    parts = (
        image('<tag label="cat"/>', "one.png", ' subset="Train"'),
        image('<tag label="dog"/>', "three.png", ' subset="Validation"'),
    )
    data = opened(tmp_path, *parts)
    assert available_splits(f"cvat:{tmp_path}") == ("train", "val")
    assert [sample.name for sample in data.samples] == ["three.png"] and data.classes == ("cat", "dog")


def test_one_name_in_several_subsets(tmp_path: Path) -> None:
    for subset, name in (("Train", "one"), ("Validation", "three")):
        (tmp_path / "images" / subset).mkdir(parents=True)
        (tmp_path / "images" / subset / "a.png").write_bytes((IMAGES / f"{name}.png").read_bytes())
    parts = [image(f'<tag label="{subset}"/>', "a.png", f' subset="{subset}"') for subset in ("Train", "Validation")]
    (tmp_path / "annotations.xml").write_text(f"<annotations>{''.join(parts)}</annotations>")
    data = open_dataset(f"cvat:{tmp_path}", "val")
    assert [sample.path for sample in data.samples] == [tmp_path / "images" / "Validation" / "a.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation><filename>a</filename></annotation>", "is an annotation of PASCAL VOC, not of CVAT; use voc:"),
        ("<html/>", "is no file of CVAT, whose outermost element is annotations; got 'html'"),
        ('<annotations><track label="a"/></annotations>', '"CVAT for video"'),
        ("<annotations/>", "holds no image"),
        ("<annotations><image", "the annotation cannot be read"),
        (
            '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotations>&a;</annotations>',
            "DOCTYPE is not allowed",
        ),
        ("<annotations><image id='3'/></annotations>", "image 3 has no name"),
        ("<annotations><image name='a.png' width='x' height='3'/></annotations>", "must be whole numbers"),
        (within("<hexagon/>"), "'hexagon' is unknown; allowed: tag, box"),
        (within("<tag/>"), "one.png: a tag has no label"),
        (within('<box label="a" xtl="1"/>'), "a box has no 'ytl'"),
        (within('<box label="a" xtl="9" ytl="1" xbr="2" ybr="3"/>'), "a box cannot be read: it ends before it begins"),
        (within('<polygon label="a" points="1,2;inf,3"/>'), "a polygon cannot be read: a coordinate is out of range"),
        (
            within('<mask label="a" rle="1,2" left="0" top="0" width="2" height="2"/>'),
            "its run lengths are not those of 2 x 2 pixels",
        ),
        (within('<tag label="a"/>', '<tag label="a"/>'), "is listed twice"),
    ],
)
def test_broken_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "annotations.xml").write_text(content)
    with pytest.raises(WildcatError) as error:
        open_dataset(f"cvat:{tmp_path},images={IMAGES}", "all")
    assert message in str(error.value) and "annotations.xml" in str(error.value) and "\n" not in str(error.value)


def test_masks_outside_of_the_image(tmp_path: Path) -> None:
    element = '<mask label="cat" rle="0,4" left="39" top="4" width="2" height="2"/>'
    data = opened(tmp_path, image(element))
    with pytest.raises(WildcatError, match="a mask extends outside the image of 30 x 40 pixels"):
        data.mask(0)
