"""Predictors in every runtime: equal results, and exported files that are written once and again after a change."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from tests import unusual
from tests.conftest import REPOSITORY
from tests.tiny_runs import tiny
from wildcat.cli import main
from wildcat.data.transforms import warp
from wildcat.errors import WildcatError
from wildcat.export import open as sessions
from wildcat.export import write as exporting
from wildcat.export.network import MAX_COMPILED_SHAPES, Runtime
from wildcat.export.openvino_runtime import OpenVinoNetwork
from wildcat.export.write import SUFFIX, Format, export
from wildcat.prediction import exported, fastest, loading
from wildcat.prediction.items import image_items
from wildcat.prediction.loading import load
from wildcat.prediction.network import optimize_for_inference
from wildcat.prediction.result import Prediction
from wildcat.runs.folder import build_model, read_run, save_config, save_weights
from wildcat.runs.settings import InferenceSettings
from wildcat.system.devices import Precision
from wildcat.training.launch import train

pytestmark = pytest.mark.slow

FORMAT_OF: dict[str, Format] = {form: name for name, form in SUFFIX.items()}
IMAGES = [unusual.photo(90 + 10 * i, 60, seed=i) for i in range(3)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = train(
        tiny(epochs=1, num_maps=3, score_sizes=[64], map_sizes=[64, 96], mirror=True),
        tmp_path_factory.mktemp("runtimes") / "run",
    )
    load(folder, runtime="onnx")  # exports
    return folder


def close(one: Prediction, other: Prediction) -> None:
    assert (one.name, one.size, one.settings) == (other.name, other.size, other.settings)
    np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-4)
    np.testing.assert_allclose(one.class_maps, other.class_maps, rtol=0, atol=1e-4)


@pytest.mark.parametrize("runtime", ["torch", "onnx", "openvino"])
def test_every_runtime_predicts_the_same(run: Path, runtime: Runtime) -> None:
    expected = list(load(run).stream(image_items(IMAGES), multi_maps=False))
    predictor = load(run, runtime=runtime)
    for one, other in zip(expected, predictor.stream(image_items(IMAGES), batch_size=2, multi_maps=False), strict=True):
        close(one, other)
        np.testing.assert_allclose(one.point_array, other.point_array)
    single = predictor(IMAGES[0])
    np.testing.assert_allclose(single.probabilities, expected[0].probabilities, atol=1e-4)
    if runtime != "torch":
        assert np.array_equal(single.multi_maps, single.class_maps)  # one map per class


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_images_are_normalised_as_by_the_model(run: Path, runtime: Runtime, mirrored: bool) -> None:
    pixels = torch.from_numpy(IMAGES[0]).permute(2, 0, 1)[None]
    model, network = load(run).model.merged(), load(run, runtime=runtime).single.network
    with torch.inference_mode():
        expected, actual = ([m.normalize(pixels), m.normalize(pixels).flip(3)][mirrored] for m in (model, network))
        torch.testing.assert_close(network(actual).scores, model(expected).scores, rtol=0, atol=1e-5)
        for size in (40, 50, 60, 70, 80):  # further shapes share the open graph
            part = pixels[:, :, :, :size]
            actual, expected = network(network.normalize(part)), model(model.normalize(part))
            torch.testing.assert_close(actual.class_maps, expected.class_maps, rtol=0, atol=1e-5)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_file_alone_is_a_predictor(run: Path, runtime: Runtime) -> None:
    predictor = load(run / "exports" / "model.onnx", runtime=runtime)
    close(predictor(IMAGES[1]), load(run, runtime=runtime)(IMAGES[1]))
    assert predictor.fingerprint == load(run).fingerprint and predictor.runtime == runtime
    # So that scores in one runtime do not replace those in another as if they were of another model.
    assert predictor.model_fingerprint == load(run).model_fingerprint != predictor.fingerprint
    with pytest.raises(WildcatError, match=rf"an exported file \(in {runtime}\) holds no PyTorch model"):
        _ = predictor.model


def test_several_threads_at_once(run: Path) -> None:
    predictor = load(run, runtime="openvino")
    expected = [predictor(image) for image in IMAGES]
    with ThreadPoolExecutor(3) as pool:
        for one, other in zip(expected * 4, pool.map(predictor, IMAGES * 4), strict=True):
            assert np.array_equal(one.probabilities, other.probabilities)


@pytest.mark.parametrize(
    ("runtime", "precision", "tolerance"),
    [("onnx", "fp32", 1e-4), ("openvino", "fp32", 1e-4), ("openvino", "bf16", 0.1)],
)
def test_any_number_of_shapes(run: Path, runtime: str, precision: Precision, tolerance: float) -> None:
    """The first have compiled graphs of their own; the others share the open graph."""
    network = sessions.open_network(run / "exports" / "model.onnx", runtime, precision)
    model = load(run).model
    shapes = [(n, 3, 32 * h, 64) for n in (1, 2) for h in (1, 2, 3)]
    assert len(shapes) > MAX_COMPILED_SHAPES + 1
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for shape in shapes * 2:
            images = torch.rand(shape, generator=generator)
            expected, actual = model.merged()(images), network(images)
            torch.testing.assert_close(actual.scores, expected.scores, rtol=0, atol=tolerance)
            torch.testing.assert_close(actual.class_maps, expected.class_maps, rtol=0, atol=tolerance)


def test_several_threads_and_shapes_at_once(run: Path) -> None:
    network = sessions.open_network(run / "exports" / "model.onnx", "openvino")
    batches = [torch.rand((n, 3, 64, 64), generator=torch.Generator().manual_seed(n)) for n in range(1, 7)]
    with ThreadPoolExecutor(3) as pool:
        actual = list(pool.map(network, batches * 4))
    for batch, output in zip(batches * 4, actual, strict=True):
        torch.testing.assert_close(output.scores, network(batch).scores, rtol=0, atol=1e-6)


# Half precision


@pytest.fixture(scope="module")
def graphs() -> dict[str, Any]:
    """The graphs of models that are written in several formats: each takes longer than the rest of its test."""
    return {}


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("changes", [{}, {"architecture": "b", "num_maps": 1}, {"pooling": "lse"}], ids=str)
def test_half_precision_in_openvino_ends_at_the_head(
    tmp_path: Path, suffix: str, changes: dict[str, Any], graphs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in PyTorch: values rounded to bf16 would be equal, and points and ranks then arbitrary."""
    torch.manual_seed(0)
    model = build_model(tiny(**changes), 5, pretrained=False).eval()
    make = exporting._program

    def program(*arguments: Any) -> Any:  # both formats are written from the graph of ONNX
        if str(changes) not in graphs:
            graphs[str(changes)] = make(*arguments)
        graphs[str(changes)].model.metadata_props.clear()
        return graphs[str(changes)]

    monkeypatch.setattr(exporting, "_program", program)
    file = tmp_path / f"model{suffix}"
    export(model, InferenceSettings(tuple("abcde"), True, (64,), (64,)), file, FORMAT_OF[suffix])
    predictor = load(file, runtime="openvino", precision="bf16")
    assert (predictor.precision, predictor.runtime) == ("bf16", "openvino")
    pixels = torch.from_numpy(np.stack([warp(image, 64) for image in IMAGES])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        images = model.normalize(pixels)
        expected, actual = optimize_for_inference(model, "bf16").merged()(images), predictor.single.network(images)
    for values, near in ((actual.class_maps, expected.class_maps), (actual.scores, expected.scores)):
        torch.testing.assert_close(values, near, rtol=0, atol=0.02)
        assert (values.bfloat16().float() != values).float().mean() > 0.9  # most of them have no exact value in bf16


@pytest.mark.parametrize(
    ("runtime", "has_units", "precision"),
    [("openvino", True, "bf16"), ("openvino", False, "fp32"), ("onnx", True, "fp32")],
)
def test_auto_precision(
    run: Path, monkeypatch: pytest.MonkeyPatch, runtime: Runtime, has_units: bool, precision: str
) -> None:
    monkeypatch.setattr(sessions, "cpu_has_matrix_units", lambda: has_units)
    assert load(run, runtime=runtime, precision="auto").precision == precision
    assert load(run / "exports" / "model.onnx", runtime=runtime, precision="auto").precision == precision
    assert load(run, runtime=runtime).precision == "fp32"


def test_onnx_has_no_half_precision(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "exports_folders", lambda run: [tmp_path / "exports"])
    for file in (run, run / "exports" / "model.onnx"):
        with pytest.raises(WildcatError, match="the runtime onnx computes in single precision; bf16 is PyTorch's and"):
            load(file, runtime="onnx", precision="bf16")
    assert not (tmp_path / "exports").exists()  # the error comes before an export


def test_other_sizes_than_the_files(run: Path) -> None:
    network = load(run, runtime="onnx").single.network
    network.metadata["size_multiple"] = 32  # as of a backbone without a graph for every size
    with pytest.raises(WildcatError, match=r"model\.onnx takes sides that are multiples of 32; got 48 x 64"):
        network(torch.zeros(1, 3, 64, 48))


# When a file is written


def test_a_file_is_made_once_and_again_when_the_run_changes(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wildcat")
    made: list[Path] = []

    def export(model: object, settings: object, file: Path, form: str) -> None:
        made.append(file)
        raise WildcatError("as far as this test goes")

    monkeypatch.setattr("wildcat.export.write.export", export)
    load(run, runtime="onnx")
    load(str(run), runtime="openvino")
    assert not made and not caplog.messages

    model, weights = load(run).model, (run / "model.safetensors").read_bytes()
    with torch.no_grad():
        model.transfer.bias += 1
    save_weights(run, model.state_dict())
    with pytest.raises(WildcatError, match="as far as"):
        load(run, runtime="onnx")
    assert made == [run / "exports" / "model.onnx"] and "exporting" in caplog.text
    (run / "model.safetensors").write_bytes(weights)
    load(run, runtime="onnx")

    saved = read_run(run)
    saved.config.kmax = 0.3
    save_config(run, saved)
    with pytest.raises(WildcatError, match="as far as"):
        load(run, runtime="onnx")
    saved.config.kmax = 0.2
    save_config(run, saved)
    load(run, runtime="onnx")

    whole = (run / "exports" / "model.onnx").read_bytes()
    for damaged in (b"", whole[: len(whole) // 2]):
        (run / "exports" / "model.onnx").write_bytes(damaged)
        with pytest.raises(WildcatError, match="as far as"):
            load(run, runtime="onnx")
    (run / "exports" / "model.onnx").write_bytes(whole)
    assert len(made) == 4


def test_folders_of_exported_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert exported.exports_folder(tmp_path) == tmp_path / "exports"
    assert exported.exports_folder("imagenet") == tmp_path / "cache" / "wildcat" / "imagenet"
    assert exported.exports_folder("owner/name") == tmp_path / "cache" / "wildcat" / "owner--name"


@pytest.fixture
def read_only(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on a disk that cannot be written; an export to anywhere else is a copy of the file of the same run."""
    disk = tmp_path / "disk"
    shutil.copytree(run, disk / "run", ignore=shutil.ignore_patterns("exports"))
    mkdir, access = Path.mkdir, os.access

    def make(folder: Path, *arguments: Any, **options: Any) -> None:
        if disk in folder.parents and not folder.exists():
            raise OSError(errno.EROFS, "Read-only file system", str(folder))
        mkdir(folder, *arguments, **options)

    def export(model: object, settings: object, file: Path, form: str) -> None:
        assert disk not in file.parents
        shutil.copy(run / "exports" / "model.onnx", file)

    monkeypatch.setattr(Path, "mkdir", make)
    monkeypatch.setattr(os, "access", lambda path, mode: disk not in Path(path).parents and access(path, mode))
    monkeypatch.setattr("wildcat.export.write.export", export)
    monkeypatch.setattr(fastest, "measure", lambda networks, size: {"torch": 2.0, "onnx": 1.0})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return disk / "run"


@pytest.mark.parametrize("runtime", ["onnx", "auto"])
def test_a_run_on_a_read_only_disk_is_exported_to_the_cache(read_only: Path, tmp_path: Path, runtime: Runtime) -> None:
    before = sorted(read_only.rglob("*"))
    for _ in range(2):
        assert load(read_only, runtime=runtime).runtime == "onnx"
    (folder,) = (tmp_path / "cache" / "wildcat").iterdir()
    assert folder.name.startswith("run-") and (folder / "model.onnx").is_file()
    assert (folder / "fastest.json").exists() == (runtime == "auto")
    assert sorted(read_only.rglob("*")) == before


def test_exported_files_on_a_read_only_disk_are_opened(run: Path, read_only: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "exports", read_only / "exports")
    (read_only / "exports" / "fastest.json").unlink(missing_ok=True)
    assert load(read_only, runtime="onnx").runtime == "onnx" and not (tmp_path / "cache").exists()
    assert load(read_only, runtime="auto").runtime == "onnx"


def test_neither_run_nor_cache_can_be_written(
    read_only: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(read_only / "cache"))
    assert load(read_only, runtime="auto").runtime == "torch"
    assert "computing in PyTorch, because the model cannot be exported: " in caplog.text
    with pytest.raises(
        WildcatError, match=r"run/exports and .*cache/wildcat/run-\w+ cannot be written \(Read-only file"
    ):
        load(read_only, runtime="onnx")


# Which runtime


def test_auto_measures_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[dict[str, float]] = []
    seconds = {"torch": 3.0, "onnx": 2.0, "openvino": 1.0}

    def measure(networks: dict[str, object], size: int) -> dict[str, float]:
        assert set(networks) == set(seconds) and size == 96
        measured.append(seconds)
        return seconds

    monkeypatch.setattr(fastest, "measure", measure)
    for _ in range(2):
        assert isinstance(load(run, runtime="auto").single.network, OpenVinoNetwork)
    assert len(measured) == 1
    assert json.loads((run / "exports" / "fastest.json").read_text())["seconds"] == seconds
    seconds["torch"] = 0.5
    torch.set_num_threads(torch.get_num_threads() + 1)  # stands for another machine
    try:
        assert load(run, runtime="auto").model.num_maps == 3
    finally:
        torch.set_num_threads(torch.get_num_threads() - 1)
    assert len(measured) == 2


def test_auto_in_half_precision_ignores_onnx_runtime(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(networks: dict[str, object], size: int) -> dict[str, float]:
        assert set(networks) == {"torch", "openvino"}
        return {"torch": 2.0, "openvino": 1.0}

    monkeypatch.setattr(fastest, "measure", measure)
    assert load(run, runtime="auto", precision="bf16").precision == "bf16"


def test_measure() -> None:
    calls: list[str] = []

    class Counting:
        def __init__(self, name: str) -> None:
            self.name = name

        def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels / 255

        def __call__(self, images: torch.Tensor) -> None:
            assert images.shape == (4, 3, 64, 64)
            calls.append(self.name)

    actual = fastest.measure({name: Counting(name) for name in "ab"}, 64)
    assert calls == list("ab") * 4 and set(actual) == {"a", "b"} and min(actual.values()) >= 0


def test_auto_without_any_runtime_is_pytorch(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, "installed_runtimes", list)
    assert load(run, runtime="auto").model.num_maps == 3
    for runtime, package in (("onnx", "onnxruntime"), ("openvino", "openvino")):
        with pytest.raises(
            WildcatError, match=rf"runtime {runtime} needs the package {package}: .*'wildcat-wsl\[export\]'"
        ):
            load(run, runtime=runtime)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "runtime", "message"),
    [
        ("none.onnx", "onnx", r"none\.onnx does not exist"),
        ("bad.onnx", "onnx", r"bad\.onnx cannot be opened by onnx"),
        ("bad.xml", "openvino", r"bad\.xml cannot be opened by openvino"),
        ("bad.xml", "onnx", r"the runtime onnx opens \.onnx files; got .*bad\.xml"),
        ("bad.onnx", "fast", "unknown runtime 'fast'; known: torch, onnx, openvino, auto"),
    ],
)
def test_files_that_cannot_be_opened(tmp_path: Path, file: str, runtime: Runtime, message: str) -> None:
    for name in ("bad.onnx", "bad.xml"):
        (tmp_path / name).write_text("no graph")
    with pytest.raises(WildcatError, match=message):
        load(tmp_path / file, runtime=runtime)


def test_a_file_of_another_program(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", value[:1], value[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "a.onnx")
    for runtime in ("onnx", "openvino"):
        with pytest.raises(WildcatError, match=r"a\.onnx was not written by wildcat export"):
            load(tmp_path / "a.onnx", runtime=runtime)  # type: ignore[arg-type]


# The commands


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_commands(run: Path, runtime: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    out = tmp_path / "out"
    assert main(["predict", str(run), str(tmp_path / "a.png"), "--out", str(out), "--runtime", runtime]) == 0
    row = json.loads((out / "predictions.jsonl").read_text())
    assert (row["width"], row["height"]) == (90, 60)
    data = "synthetic:count=8,size=64"
    scores = tmp_path / "results.json"
    assert main(["evaluate", str(run), "--data", data, "--runtime", runtime, "--json", str(scores)]) == 0
    assert main(["evaluate", str(run), "--data", data, "--json", str(tmp_path / "torch.json")]) == 0
    ours, theirs = (json.loads(file.read_text()) for file in (scores, tmp_path / "torch.json"))
    assert ours["classification"]["map_area"] == pytest.approx(theirs["classification"]["map_area"], abs=1e-6)
    assert (ours["inference"]["runtime"], theirs["inference"]["runtime"]) == (runtime, "torch")


# The example


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["model.onnx"], 2)])
def test_usage_of_the_example(arguments: list[str], code: int) -> None:
    example = REPOSITORY / "examples" / "onnx_numpy.py"
    done = subprocess.run([sys.executable, str(example), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert (done.stderr if code else done.stdout).startswith("usage: onnx_numpy.py [-h] FILE IMAGE\n")


def test_the_example_with_numpy_alone(run: Path, tmp_path: Path) -> None:
    flower = load_sample_image("flower.jpg")
    Image.fromarray(flower).save(tmp_path / "flower.png")
    blocked = "import sys\nfor name in ('torch', 'wildcat'): sys.modules[name] = None\n"
    example = (REPOSITORY / "examples" / "onnx_numpy.py").read_text()
    assert len([line for line in example.splitlines() if line]) <= 35
    file = run / "exports" / "model.onnx"
    command = [sys.executable, "-c", blocked + example, str(file), str(tmp_path / "flower.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 5

    predictor = load(run)
    settings = predictor.settings
    plain = type(settings)(settings.classes, True, (64,), (64,))  # the example uses one size, without mirroring
    actual = predictor.with_settings(plain)(flower)
    best, probability = next(iter(actual.scores.items()))
    x, y = actual.points[best]
    assert lines[0] == f"{best}: {probability:.3f} at ({x:.0f}, {y:.0f})"
