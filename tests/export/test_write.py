"""Exported files: run by their own runtimes, at any size, and compared with the model."""

import json
import re
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from tests import unusual
from tests.conftest import REPOSITORY
from tests.tiny_runs import tiny
from wildcat.cli import main
from wildcat.data.transforms import warp
from wildcat.errors import WildcatError
from wildcat.export import write as exporting
from wildcat.export.graph import EvenSameConv, Exportable, _pool, replace_same_convs
from wildcat.export.write import export
from wildcat.model import Wildcat
from wildcat.pooling import POOLINGS, create_pooling
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor
from wildcat.runs.folder import build_model
from wildcat.runs.settings import InferenceSettings
from wildcat.system.signal_stack import keep_signal_stack
from wildcat.training.launch import train

CLASSES = tuple("abcde")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "run"
    return train(tiny(epochs=1, num_maps=3, score_sizes=[64], map_sizes=[64, 96]), folder)


@pytest.fixture(scope="module")
def onnx_file(run: Path) -> Path:
    assert main(["export", str(run)]) == 0
    return run / "exports" / "model.onnx"


def write(predictor: Predictor, *arguments: Any) -> exporting.Exported:
    return export(predictor.model, predictor.settings, *arguments)


def predictor_of(**changes: object) -> Predictor:
    torch.manual_seed(0)
    model = build_model(tiny(**changes), len(CLASSES), pretrained=False)
    return Predictor.from_model(model, InferenceSettings(CLASSES, True, (64,), (64,)))


@pytest.fixture
def graph_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that writes one model several times: its graph, which takes most of the time, is made once."""
    graphs: dict[tuple[str, int], Any] = {}
    make = exporting._program

    def program(net: Exportable, form: exporting.Format, multiple: int) -> Any:
        if (form, multiple) not in graphs:
            graphs[form, multiple] = make(net, form, multiple)
        return graphs[form, multiple]

    monkeypatch.setattr(exporting, "_program", program)


def photographs(model: Wildcat, count: int, height: int, width: int) -> torch.Tensor:
    """Normalised parts of photographs, (count, 3, height, width)."""
    images = [warp(np.ascontiguousarray(load_sample_images().images[i % 2]), 256 + 16 * i) for i in range(count)]
    pixels = np.stack([image[:height, :width] for image in images])
    return model.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2)).contiguous()


def check(model: Wildcat, outputs: list[np.ndarray], images: torch.Tensor, multi_label: bool = True) -> None:
    """Against the model, and against NumPy."""
    scores, probabilities, class_maps, points = outputs
    with torch.inference_mode():
        expected = model(images)
    np.testing.assert_allclose(scores, expected.scores, rtol=0, atol=1e-4)
    np.testing.assert_allclose(class_maps, expected.class_maps, rtol=0, atol=1e-4)
    of_scores = 1 / (1 + np.exp(-scores)) if multi_label else np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, of_scores, rtol=0, atol=1e-5)
    height, width = class_maps.shape[2:]
    row, column = np.unravel_index(class_maps.reshape(*scores.shape, -1).argmax(axis=2), (height, width))
    np.testing.assert_allclose(points, np.stack([(column + 0.5) / width, (row + 0.5) / height], axis=2), atol=1e-6)


# The formats


@pytest.mark.slow
def test_onnx(run: Path, onnx_file: Path) -> None:
    predictor = load(run)
    session = onnxruntime.InferenceSession(onnx_file)
    for count, height, width in ((1, 64, 64), (3, 96, 160), (2, 224, 32)):
        images = photographs(predictor.model, count, height, width)
        check(predictor.model, session.run(None, {"images": images.numpy()}), images)
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["wildcat"])
    assert metadata["classes"] == list(predictor.settings.classes)
    assert (metadata["score_sizes"], metadata["map_sizes"], metadata["mirror"]) == ([64], [64, 96], False)
    assert (metadata["mean"], metadata["std"]) == (
        list(predictor.model.backbone.mean),
        list(predictor.model.backbone.std),
    )
    assert metadata["multi_label"] is True and metadata["background"] == asdict(predictor.settings.background)
    assert 0 <= metadata["difference"] <= 1e-4 and metadata["size_multiple"] in (1, 32)


@pytest.mark.slow
def test_the_graph_is_lean(onnx_file: Path, run: Path) -> None:
    graph = onnx.load(onnx_file)
    onnx.checker.check_model(graph, full_check=True)
    kinds = {node.op_type for node in graph.graph.node}
    assert "BatchNormalization" not in kinds and "Conv" in kinds
    heads = [w.dims for w in graph.graph.initializer if w.dims[:1] == [8] and len(w.dims) == 4]
    assert heads == [[8, load(run).model.backbone.channels, 1, 1]]  # 8 classes, their 3 maps merged
    assert not onnx_file.with_suffix(".onnx.data").exists()
    assert b".py" not in onnx_file.read_bytes()  # no names of files on this machine


@pytest.mark.slow
def test_openvino(tmp_path: Path) -> None:
    predictor = predictor_of(num_maps=3)
    made = write(predictor, tmp_path / "a.xml", "openvino")
    assert made.difference <= 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.xml"]
    model = openvino.Core().read_model(tmp_path / "a.xml")
    with keep_signal_stack():
        compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count, height, width in ((1, 64, 64), (3, 96, 160)):
        images = photographs(predictor.model, count, height, width)
        outputs = compiled({"images": images.numpy()})
        check(predictor.model, [outputs[name] for name in exporting.OUTPUTS], images)
    metadata = json.loads(model.get_rt_info(["wildcat"]).astype(str))
    assert metadata["classes"] == list(CLASSES)


@pytest.mark.slow
def test_torch(tmp_path: Path) -> None:
    predictor = predictor_of(kmax=3, kmin=0)
    write(predictor, tmp_path / "a.pt2", "torch")
    extra = {"wildcat.json": ""}
    module = torch.export.load(tmp_path / "a.pt2", extra_files=extra).module()
    for count, height, width in ((1, 64, 64), (3, 96, 160)):
        images = photographs(predictor.model, count, height, width)
        with torch.inference_mode():
            check(predictor.model, [value.numpy() for value in module(images)], images)
    assert json.loads(extra["wildcat.json"])["classes"] == list(CLASSES)
    with zipfile.ZipFile(tmp_path / "a.pt2") as archive:  # no names of files on this machine
        assert not [name for name in archive.namelist() if str(REPOSITORY).encode() in archive.read(name)]


@pytest.mark.slow
def test_the_default_backbone_takes_any_size(tmp_path: Path) -> None:
    """Its convolutions are padded as TensorFlow pads, which depends on the size."""
    predictor = predictor_of(backbone="lite0")
    write(predictor, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    batches = [photographs(predictor.model, *shape) for shape in ((1, 77, 130), (2, 64, 64))]
    for images in batches:
        check(predictor.model, session.run(None, {"images": images.numpy()}), images)
    for node in onnx.load(tmp_path / "a.onnx").graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Conv":  # OpenCV computes something else for padding that is named, not given
            assert attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
            assert len(attributes["pads"]) == 4 and len(attributes["kernel_shape"]) == 2
    cv2 = pytest.importorskip("cv2", minversion="5", reason="needs OpenCV 5, whose graphs have open sizes")
    net = cv2.dnn.readNetFromONNX(str(tmp_path / "a.onnx"))
    for images in batches:
        net.setInput(images.numpy())
        check(predictor.model, net.forward(exporting.OUTPUTS), images)


def test_the_default_backbone_as_torch_has_the_same_function() -> None:
    """Padding for sides that are multiples of the strides is constant."""
    predictor = predictor_of(backbone="lite0", output_stride=16)
    net = Exportable(predictor.model, True)
    replace_same_convs(net, EvenSameConv)
    images = photographs(predictor.model, 1, 64, 96)
    with torch.inference_mode():
        check(predictor.model, [value.numpy() for value in net(images)], images)


# The function


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no error
@given(
    st.sampled_from(POOLINGS),
    st.sampled_from([1, 2, 7, 50, 0.1, 0.2, 0.5, "all"]),
    st.sampled_from([None, 0, 1, 3, 0.3, "all"]),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 99),
)
def test_pooling_in_the_graph(name: str, kmax: object, kmin: object, size: tuple[int, int], seed: int) -> None:
    pooling = create_pooling(name, kmax, kmin, 0.7)  # type: ignore[arg-type]
    maps = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(_pool(maps, pooling), pooling(maps), rtol=0, atol=1e-5)


@pytest.mark.parametrize("changes", [{"architecture": "b", "num_maps": 1}, {"pooling": "lse"}, {"kmax": 0, "kmin": 2}])
@pytest.mark.parametrize("multi_label", [True, False])
def test_models_of_every_kind(changes: dict, multi_label: bool) -> None:
    model = predictor_of(**changes).model
    images = photographs(model, 2, 64, 96)
    with torch.inference_mode():
        check(model, [v.numpy() for v in Exportable(model, multi_label)(images)], images, multi_label)


@pytest.mark.slow
def test_compared_on_given_images(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        Image.fromarray(unusual.photo(60 + 9 * number, 50, seed=number)).save(tmp_path / f"{number}.png")
    words = ["export", str(run), "--format", "torch", "--out", str(tmp_path / "a.pt2"), "--check"]
    assert main([*words, str(tmp_path), str(tmp_path / "0.png")]) == 0
    message = capsys.readouterr().out.splitlines()
    assert message[0] == f"exported: {tmp_path / 'a.pt2'}"
    head, *differences = re.split(r": |, ", message[1].replace("largest differences from PyTorch, on ", ""))
    assert head == "synthetic images and the 5 given"  # 0.png is given twice
    assert [text.rpartition(" ")[0] for text in differences] == ["scores", "probabilities", "class maps", "points"]
    assert all(0 <= float(text.rpartition(" ")[2]) <= 1e-4 for text in differences)


@pytest.mark.slow
@pytest.mark.usefixtures("graph_made_once")
def test_a_difference_on_a_given_image_alone_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_file = exporting._runner

    def damaged(file: Path, form: exporting.Format) -> exporting.Run:
        run = run_file(file, form)

        def bright(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            scores, *others = run(images)
            return (torch.where(images.amin() > 0.9, torch.nan, scores), *others)

        return bright

    monkeypatch.setattr(exporting, "_runner", damaged)
    predictor = predictor_of()
    with pytest.raises(
        WildcatError, match=r"outputs of the torch file differ from those of the model \(difference inf"
    ):
        write(predictor, tmp_path / "a.pt2", "torch", [np.full((40, 40, 3), 255, np.uint8)])
    write(predictor, tmp_path / "a.pt2", "torch", [np.zeros((40, 40, 3), np.uint8)])


# What goes wrong


@pytest.mark.slow
def test_a_wrong_file_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pt2").write_text("old")
    monkeypatch.setattr("wildcat.export.graph._pool", lambda maps, pooling: maps.flatten(2).amax(dim=2) + 0.001)
    with pytest.raises(
        WildcatError, match=r"outputs of the torch file differ from those of the model \(difference .*e-.*not kept"
    ):
        write(predictor_of(), tmp_path / "a.pt2", "torch")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt2"]
    assert (tmp_path / "a.pt2").read_text() == "old"


def test_suffixes(tmp_path: Path) -> None:
    with pytest.raises(WildcatError, match=r"a file of format openvino ends in \.xml; got .*a\.onnx"):
        write(predictor_of(), tmp_path / "a.onnx", "openvino")


def test_a_model_in_training_mode(tmp_path: Path) -> None:
    predictor = predictor_of()
    predictor.model.train()
    with pytest.raises(WildcatError, match="export a model in evaluation mode"):
        write(predictor, tmp_path / "a.onnx")


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(WildcatError, match=r"onnx needs the package onnxscript: pip install 'wildcat-wsl\[export\]'"):
        write(predictor_of(), tmp_path / "a.onnx")


@pytest.mark.slow
def test_sizes_that_the_graph_does_not_take(tmp_path: Path) -> None:
    predictor = predictor_of()
    predictor = predictor.with_settings(InferenceSettings(CLASSES, True, (64,), (100,)))
    with pytest.raises(WildcatError, match=r"timm:test_resnet as torch takes sides that are multiples of 32; .* 100"):
        write(predictor, tmp_path / "a.pt2", "torch")
