"""Exported files compared with the model in PyTorch: differences of outputs, and scores in each runtime.

    python -m experiments.exports RUN --data voc07:DIR --scored voc12:DIR

Each format is written, as `wildcat export RUN --format FORMAT --check IMAGES` does, of RUN and of a ResNet-50 with
random weights and as many classes, compared on the first images of a dataset's scoring split; then RUN is scored in
each runtime as `wildcat evaluate --runtime` does, and in the half precision that `wildcat predict` takes on CPUs
with matrix units. The folder of the run is only read.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from experiments.ledger import RESULTS, label_of
from wildcat.data.registry import default_splits, open_dataset
from wildcat.evaluation.scoring import evaluate
from wildcat.export.graph import OUTPUTS
from wildcat.export.write import SUFFIX, export
from wildcat.metrics.metric_table import Detail, measured
from wildcat.metrics.scores import TASKS
from wildcat.model import create_model
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor

FORMATS = {"onnx": "ONNX", "openvino": "OpenVINO", "torch": "torch.export"}


def random_resnet(like: Predictor, backbone: str, size: int) -> Predictor:
    """A model with random weights, with the classes of another."""
    torch.manual_seed(0)
    model = create_model(backbone, num_classes=len(like.settings.classes), num_maps=8, pretrained=False)
    settings = replace(like.settings, score_sizes=(size,), map_sizes=(size,), background_class=False, mirror=False)
    return Predictor.from_model(model, settings)


def differences(name: str, predictor: Predictor, images: Sequence[Path], folder: Path) -> list[str]:
    """A table row per format; the exported files stay in the folder."""
    rows = []
    for form, shown in FORMATS.items():
        made = export(predictor.model, predictor.settings, folder / f"{name}{SUFFIX[form]}", form, images)
        rows.append(f"| {name} | {shown} | " + " | ".join(f"{made.differences[key]:.1e}" for key in OUTPUTS) + " |")
        print(rows[-1])
    return rows


def scores(predictor: Predictor, data: str) -> dict[str, str]:
    """The main scores that the annotations of the dataset allow, by metric name."""
    results = evaluate(predictor, data, tasks=TASKS)
    return {metric.name: f"{value:.3f}" for metric, value in measured(results, Detail.TABLE)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True, metavar="SPEC", help="dataset whose images are compared on")
    parser.add_argument("--scored", required=True, metavar="SPEC", help="dataset that is scored in each runtime")
    parser.add_argument("--images", type=int, default=16, help="how many of its first images (default: 16)")
    parser.add_argument("--backbone", default="resnet50", help="of the model with random weights")
    parser.add_argument("--size", type=int, default=448, help="side in pixels at which it processes images")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of exports.md")
    chosen = parser.parse_args(arguments)
    dataset = open_dataset(chosen.data, default_splits(chosen.data)[1])
    images = [sample.path for sample in dataset.samples[: chosen.images] if sample.path is not None]
    with tempfile.TemporaryDirectory() as scratch:
        folder, predictor = Path(scratch), load(chosen.run, device="cpu")
        rows = differences(chosen.run.name, predictor, images, folder)
        rows += differences(chosen.backbone, random_resnet(predictor, chosen.backbone, chosen.size), images, folder)
        file = folder / f"{chosen.run.name}.onnx"  # which --runtime opens in either
        predictors = {
            "PyTorch": predictor,
            "PyTorch, backbone in bf16": load(chosen.run, device="cpu", precision="bf16"),
            "ONNX Runtime": load(file, runtime="onnx"),
            "OpenVINO": load(file, runtime="openvino"),
            "OpenVINO, backbone in bf16": load(file, runtime="openvino", precision="bf16"),
        }
        scored = {runtime: scores(each, chosen.scored) for runtime, each in predictors.items()}
    kind = chosen.data.partition(":")[0], chosen.scored.partition(":")[0]
    given = f"--data {kind[0]}:DIR/{label_of(chosen.data)} --scored {kind[1]}:DIR/{label_of(chosen.scored)}"
    given += "".join(
        f" --{name} {value}"
        for name in ("images", "backbone", "size")
        if (value := getattr(chosen, name)) != parser.get_default(name)
    )
    text = [
        "## Exported files",
        "",
        f"Largest differences from PyTorch (single precision, in units of the largest value, or of 1) on "
        f"{len(images)} images of {label_of(chosen.data)} {dataset.split}, at each image size of the model. "
        f"`{chosen.backbone}` has random weights. Written by",
        "",
        f"    python -m experiments.exports {chosen.run.name} {given}",
        "",
        "| model | format | " + " | ".join(name.replace("_", " ") for name in OUTPUTS) + " |",
        "|---|---|" + "---|" * len(OUTPUTS),
        *rows,
        "",
        f"Scores of {chosen.run.name} on {label_of(chosen.scored)}, by runtime and precision:",
        "",
        "| runtime | " + " | ".join(scored["PyTorch"]) + " |",
        "|---|" + "---|" * len(scored["PyTorch"]),
        *(f"| {runtime} | {' | '.join(values.values())} |" for runtime, values in scored.items()),
    ]
    (chosen.out / "exports.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
