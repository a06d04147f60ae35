"""Readers of what users and datasets bring, fed with anything: they succeed, or say what is wrong; nothing else.

And nothing in what is read is executed.
"""

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tests.data import trees
from tests.robustness.bad_input.case import encoded
from tests.robustness.good_input import COCO, COLUMNS, CSV, RUN, SCALES, XML, clear
from wildcat.config import TrainConfig, read_recipe
from wildcat.data.images import image_size, load_image
from wildcat.data.registry import available_splits, open_dataset
from wildcat.runs.folder import read_background, read_run
from wildcat.runs.scales import read_scales

fuzzed = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """Content of which some bytes are others, some are gone, and some were never there."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(changed)))
        end = at + draw(st.sampled_from([0, 1, 2, 8, 10_000]))
        changed[at:end] = draw(
            st.binary(max_size=8) | st.sampled_from([b"nan", b"-1", b"1e999", b"<", b'"', b"[", b"\0"])
        )
    return bytes(changed)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def paths_of(content: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a JSON."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [here, *(path for key, value in inside for path in paths_of(value, (*here, key)))]


@st.composite
def altered(draw: st.DrawFn, content: Any) -> bytes:
    """A JSON of which some values are others or gone."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths_of(content)))
        if not path:
            continue
        at = content
        for key in path[:-1]:
            at = at[key]
        if draw(st.booleans()):
            at[path[-1]] = draw(values)
        else:
            del at[path[-1]]
    return json.dumps(content).encode()


@pytest.mark.slow
@fuzzed
@given(mutated(CSV) | mutated(COLUMNS) | st.binary(max_size=60))
def test_tags(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "my.csv"
    file.write_bytes(content)

    def read() -> None:
        for split in available_splits(f"tags:{file}"):
            assert open_dataset(f"tags:{file}", split).labels.ndim == 2

    clear(read)


LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"image": "a.png"},
        "annotations": [
            {
                "result": [
                    {
                        "type": kind,
                        "from_name": "x",
                        "id": kind,
                        "original_width": 40,
                        "original_height": 30,
                        "value": v,
                    }
                    for kind, v in {
                        "choices": {"choices": ["cat"]},
                        "rectanglelabels": {"x": 1, "y": 2, "width": 3, "height": 4, "rectanglelabels": ["cat"]},
                        "polygonlabels": {"points": [[1, 2], [3, 4], [5, 9]], "polygonlabels": ["dog"]},
                        "brushlabels": {"rle": [0, 0, 18, 192, 0, 0], "brushlabels": ["dog"]},
                    }.items()
                ][:size],
                "updated_at": "2026",
            }
        ],
    }
    for size in (3, 4)
]
CVAT = b"""<annotations><meta><task><labels><label><name>cat</name></label></labels></task></meta>
<image id="0" name="a.png" width="40" height="30"><tag label="cat"/><box label="cat" xtl="1" ytl="2" xbr="3" ybr="4"/>
<mask label="cat" rle="1, 2, 1" left="3" top="4" width="2" height="2"/><polygon label="cat" points="1,2;3,4;5,1"/>
</image></annotations>"""
JSON_LINES = b"""{"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "categories": ["cat"]}}
{"file_name": "b.png", "objects": {"bbox": [], "categories": []}}
"""
YOLO = b"0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.2 0.2 0.3 0.1\n"


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and a data.yaml."""
    folder = tmp_path_factory.mktemp("tools")
    for name in ("a.png", "b.png"):
        trees.image(folder / name)
    trees.write(folder / "data.yaml", "names: [cat, dog]\n")
    return folder


@pytest.mark.slow
@fuzzed
@given(st.data())
@pytest.mark.parametrize(
    ("kind", "name", "good"),
    [
        ("labelstudio", "a.json", altered(LABEL_STUDIO[:1])),
        ("labelstudio", "a.json", altered(LABEL_STUDIO)),
        ("cvat", "a.xml", mutated(CVAT)),
        ("hf", "a.jsonl", mutated(JSON_LINES)),
        ("yolo", "a.txt", mutated(YOLO)),
    ],
)
def test_tools(beside: Path, kind: str, name: str, good: st.SearchStrategy[bytes], data: st.DataObject) -> None:
    file = beside / name
    file.write_bytes(data.draw(good))
    spec = f"{kind}:{beside if kind == 'yolo' else file}"

    def read() -> None:
        found = open_dataset(spec, "all")
        assert found.labels.ndim == 2
        assert all(sample.boxes is None or np.isfinite(sample.boxes).all() for sample in found.samples)
        for index in range(len(found)):
            if found.has_mask(index):
                found.mask(index)

    clear(read)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees.voc(tmp_path_factory.mktemp("voc"))


@pytest.mark.slow
@fuzzed
@given(mutated(XML))
def test_voc_xml(voc: Path, content: bytes) -> None:
    (voc / "Annotations" / "000004.xml").write_bytes(content)

    def read() -> None:
        data = open_dataset(f"voc07:{voc}", "test")
        assert np.isfinite(data.samples[0].boxes).all()

    clear(read)


@pytest.mark.slow
@fuzzed
@given(mutated(b"000001 -1\n000002  1\n000003  0\n"))
def test_voc_label_files(voc: Path, content: bytes) -> None:
    for name in ("dog_trainval.txt", "trainval.txt"):
        file = voc / "ImageSets" / "Main" / name
        good = file.read_bytes()
        file.write_bytes(content)
        clear(lambda: open_dataset(f"voc07:{voc}", "trainval").labels)
        file.write_bytes(good)


@pytest.mark.slow
@fuzzed
@given(altered(COCO) | mutated(json.dumps(COCO).encode()))
def test_coco(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train2014").mkdir(exist_ok=True)
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations" / "instances_train2014.json").write_bytes(content)

    def read() -> None:
        data = open_dataset(f"coco:{tmp_path}", "train")
        assert len(data.classes) == data.labels.shape[1]

    clear(read)


@fuzzed
@given(mutated(b"lr: 0.1\nepochs: 3\nkmax: all\nscore_sizes: [64, 96]\nmirror: true\n") | st.binary(max_size=40))
def test_recipes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "my.yaml").write_bytes(content)
    clear(lambda: read_recipe(str(tmp_path / "my.yaml")))


@pytest.mark.slow
@fuzzed
@given(st.sampled_from(sorted(TrainConfig.__dataclass_fields__)), values)
def test_settings(name: str, value: object) -> None:
    clear(lambda: TrainConfig(**{"data": "synthetic", name: value}))


@pytest.mark.slow
@fuzzed
@given(altered(RUN) | mutated(json.dumps(RUN).encode()))
def test_runs(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    clear(lambda: read_run(tmp_path))


@fuzzed
@given(altered(SCALES))
def test_scales(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scales.json").write_bytes(content)
    clear(lambda: read_scales(tmp_path))


@fuzzed
@given(altered({"mode": "power", "constant": 2.0}))
def test_backgrounds(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "background.json").write_bytes(content)
    clear(lambda: read_background(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_images(kind: str) -> None:
    good = encoded(kind)

    @fuzzed
    @given(mutated(good[:400]))
    def read(head: bytes) -> None:
        clear(lambda: image_size(head + good[400:]))
        clear(lambda: load_image(head + good[400:], draft_size=8))

    read()


# Nothing is executed


@pytest.mark.slow
def test_no_reader_executes_what_it_reads() -> None:
    """torch.load reads tensors only, YAML is read by safe_load, and pickle, eval and exec are not used."""
    calls = []
    for file in sorted((REPOSITORY / "wildcat").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            arguments = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if (
                (called == "torch.load" and arguments.get("weights_only") != "True")
                or called in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system")
                or called.startswith(("pickle.load", "marshal.", "shelve.", "joblib."))
                or (called in ("np.load", "numpy.load") and arguments.get("allow_pickle", "False") != "False")
                or arguments.get("shell") == "True"
            ):
                calls.append(f"{file.relative_to(REPOSITORY)}:{node.lineno}: {ast.unparse(node)}")
    assert calls == []
