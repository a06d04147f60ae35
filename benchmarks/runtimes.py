"""The price of what stands around the trunk: our runtimes from pixels to predictions, against bare runs of the trunk.

    python -m benchmarks.runtimes --threads 2
    python -m benchmarks.runtimes --smoke

Ours goes from 8-bit pixels of decoded and resized pictures to probabilities, class maps and points: normalisation,
trunk, head, pooling, and what a predictor does with them. The bare run is the same trunk alone, cut out of the same
exported file, with its input fixed to the one size, its input normalised beforehand and its features looked at by
nobody, in the same runtime with the same threads and precision. PyTorch's own predictor and trunk are beside them.

Writes runtimes.csv (a row for each trunk, size and runtime) and runtimes_samples.csv (every run) to --out. The goal is
a ratio, bare over ours, of 0.9 or more.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
import torch
from onnx import utils

from benchmarks.crf import environment
from wildcat.export import export
from wildcat.folding import baked
from wildcat.fusion import read
from wildcat.model import create_model
from wildcat.predict import Predictor, Settings
from wildcat.sessions import open_network

CLASSES = tuple(f"class {c}" for c in range(20))
Floats = npt.NDArray[np.float32]


def cut_trunk(whole: Path, trunk: Path, batch: int, size: int) -> None:
    """The graph of an exported file up to the features, for one size of input."""
    nodes = onnx.load(whole).graph.node
    (head,) = [node for node in nodes if "class_maps" in node.output]
    utils.extract_model(whole, trunk, ["images"], [head.input[0]], check_model=False)
    model = onnx.load(trunk)
    for dimension, side in zip(model.graph.input[0].type.tensor_type.shape.dim, (batch, 3, size, size), strict=True):
        dimension.dim_value = side
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, trunk)


def bare_onnx(trunk: Path, images: Floats, threads: int) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(trunk), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": images})


def bare_openvino(trunk: Path, images: Floats, threads: int) -> Callable[[], Any]:
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = openvino.Core().compile_model(str(trunk), "CPU", settings).create_infer_request()
    return lambda: request.infer({"images": images}, share_inputs=True, share_outputs=True)


def bare_torch(backbone: torch.nn.Module, images: Floats) -> Callable[[], Any]:
    trunk = baked(backbone).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tensor = torch.from_numpy(images).to(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode():
            trunk(tensor)

    return run


def ours(network: Any, pixels: npt.NDArray[np.uint8]) -> Callable[[], Any]:
    """From pixels (N, size, size, 3) to probabilities, class maps and points."""
    size = pixels.shape[1]

    def run() -> None:
        with torch.inference_mode():
            images = {size: network.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))}
            reading = read(network, images, (size,), (size,))
            reading.probabilities.numpy()
            reading.class_maps.flatten(2).argmax(dim=2).numpy()

    return run


def contenders(backbone: str, size: int, batch: int, threads: int, folder: Path) -> dict[str, Callable[[], Any]]:
    """ "onnx", "onnx bare" and so on: functions that read one batch."""
    torch.manual_seed(0)
    model = create_model(backbone, num_classes=len(CLASSES), num_maps=8, pretrained=False)
    predictor = Predictor(model, Settings(CLASSES, True, (size,), (size,)))
    whole, trunk = folder / "whole.onnx", folder / "trunk.onnx"
    export(predictor, whole)
    cut_trunk(whole, trunk, batch, size)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
    images = model.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2)).contiguous().numpy()
    folded = predictor.model.folded()
    return {
        "onnx": ours(open_network(whole, "onnx"), pixels),
        "onnx bare": bare_onnx(trunk, images, threads),
        "openvino": ours(open_network(whole, "openvino"), pixels),
        "openvino bare": bare_openvino(trunk, images, threads),
        "torch": ours(folded, pixels),
        "torch bare": bare_torch(model.backbone, images),
    }


def compare(runs: dict[str, Callable[[], Any]], repeat: int) -> dict[str, list[float]]:
    """Seconds of each, turn by turn, after two turns to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-2, repeat):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a table, write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["lite0", "resnet50"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[320, 448])
    parser.add_argument("--batch", type=int, default=8, help="pictures in a batch")
    parser.add_argument("--repeat", type=int, default=15, help="runs of each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each runtime")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of the CSV files")
    parser.add_argument("--smoke", action="store_true", help="seconds: a tiny trunk, small pictures, nothing written")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.backbones, options.sizes, options.batch, options.repeat = ["timm:test_resnet"], [64], 2, 1
    torch.set_num_threads(options.threads)
    packages = {"onnxruntime": onnxruntime.__version__, "openvino": openvino.__version__.split("-")[0]}
    where = environment() | packages | {"threads": options.threads}
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    print(f"batches of {options.batch}, {options.repeat} runs each; pictures per second, median (quartiles)")
    print(f"{'trunk':>16} {'size':>5} {'runtime':>9} {'ours':>22} {'trunk alone':>22} {'ratio':>6}")
    rows: list[dict[str, Any]] = []
    samples: list[tuple[Any, ...]] = []
    for backbone in options.backbones:
        for size in options.sizes:
            with tempfile.TemporaryDirectory() as folder:
                runs = contenders(backbone, size, options.batch, options.threads, Path(folder))
                seconds = compare(runs, options.repeat)
            samples += [
                (backbone, size, options.batch, turn, name, f"{value:.6f}")
                for name, values in seconds.items()
                for turn, value in enumerate(values)
            ]
            for name in ("onnx", "openvino", "torch"):
                row: dict[str, Any] = {"backbone": backbone, "size": size, "batch": options.batch, "runtime": name}
                for key, of in (("ours", name), ("bare", f"{name} bare")):
                    speeds = np.quantile([options.batch / value for value in seconds[of]], (0.25, 0.5, 0.75))
                    row |= {
                        f"{key}_{q}": round(float(v), 2) for q, v in zip(("q1", "median", "q3"), speeds, strict=True)
                    }
                pairs = zip(seconds[f"{name} bare"], seconds[name], strict=True)
                row["ratio"] = round(statistics.median(bare / mine for bare, mine in pairs), 3)
                told = [
                    f"{row[f'{k}_median']:.1f} ({row[f'{k}_q1']:.1f}-{row[f'{k}_q3']:.1f})" for k in ("ours", "bare")
                ]
                print(
                    f"{backbone:>16} {size:>5} {name:>9} {told[0]:>22} {told[1]:>22} {row['ratio']:>6.2f}", flush=True
                )
                rows.append(row | where)
    if options.smoke:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "runtimes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with (options.out / "runtimes_samples.csv").open("w", newline="") as file:
        plain = csv.writer(file)
        plain.writerow(("backbone", "size", "batch", "run", "program", "seconds"))
        plain.writerows(samples)


if __name__ == "__main__":
    main()
