"""Masks of several methods on the same backbone and budget, in one table.

    python -m experiments.segmentation --data voc07:DIR voc12:DIR --wildcat RUN --background-class RUN \\
        --average RUN --max RUN

Methods: WILDCAT; WILDCAT trained with a background class; average pooling, whose maps are those of CAM; max pooling;
and Grad-CAM (package grad-cam) on the networks of WILDCAT and of average pooling. The runs differ only in their
pooling; a run that is not given has no row. All methods use the run's map sizes and the mirror image, and masks may
hold the classes that are predicted from the run's own scores. The same code (`wildcat.masks`) turns maps into masks.
The constant of the background is fitted for each row on the masks of the run's training split, and used with and
without CRF and on every dataset. The run directories are not changed.

Grad-CAM is computed for the pooled score with respect to the backbone's features. The package takes the positive part
and scales it to [0, 1] for each size and mirror image before these are averaged; the maps of the other methods are
averaged first. After the features the network is linear except for the pooling, and the mean of the gradient over
positions is the filter of the class times a constant: Grad-CAM's map is the class map without its bias for any pooling.

Each finished row is written to segmentation.csv at once and not computed again; segmentation.md is made from it, and
`python -m experiments.ledger` includes it in README.md of this folder.
"""

import argparse
import copy
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from tqdm import tqdm

from experiments.ledger import RESULTS, cpu_name, label_of, short_commit
from experiments.rows import Row, read_rows, write_rows
from wildcat.data import Dataset
from wildcat.data.registry import default_splits, open_dataset
from wildcat.data.transforms import warp
from wildcat.errors import WildcatError
from wildcat.evaluation.background import masked_images, with_masks
from wildcat.evaluation.background_fit import fit_background
from wildcat.evaluation.classes import with_classes
from wildcat.evaluation.scoring import MaskAccumulator
from wildcat.masks import MODES, Background
from wildcat.metrics import SegmentationScores
from wildcat.multiscale import fuse_maps
from wildcat.prediction.items import Item, dataset_items
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Prediction, Predictor
from wildcat.runs.folder import WEIGHTS, read_run
from wildcat.system.files import write_atomically


class PooledScores(nn.Module):
    """The network in the form that Grad-CAM needs, from images to scores, without gradients of the backbone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        model.backbone.requires_grad_(False)
        # Gradients start at the features, so there is no backward pass through the backbone.
        model.backbone.register_forward_hook(lambda module, inputs, features: features.requires_grad_())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images).scores


class GradCAMPredictor(Predictor):
    """A predictor with the same scores and the maps of Grad-CAM; the maps of classes that are not predicted are 0."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor.single)
        self.scores = PooledScores(copy.deepcopy(self.model))  # so that the predictor's own network gets no hooks

    def stream(self, items: Sequence[Item], **options: Any) -> Iterator[Prediction]:
        with GradCAM(self.scores, [self.scores.model.backbone]) as cam:
            for prediction in super().stream(items, **options):
                yield replace(prediction, class_maps=self.maps(cam, prediction))

    def maps(self, cam: GradCAM, prediction: Prediction) -> np.ndarray:
        """(C, size, size), size the largest map size; the mean over sizes and mirror as in `wildcat.multiscale`."""
        classes = prediction.candidates()
        targets = [ClassifierOutputTarget(c) for c in classes]
        image, views = prediction.image, []
        for size in self.settings.map_sizes:
            pixels = torch.from_numpy(warp(image, size).copy()).to(self.device).permute(2, 0, 1)[None]
            images = self.scores.model.normalize(pixels).expand(len(classes), -1, -1, -1)
            for mirrored in (False, True) if self.settings.mirror else (False,):
                view = torch.from_numpy(cam(images.flip(3) if mirrored else images, targets))[
                    None
                ]  # (1, K, size, size)
                views.append(view.flip(3) if mirrored else view)
        fused = fuse_maps(views)[0].numpy()
        maps = np.zeros((len(self.settings.classes), *fused.shape[1:]), np.float32)
        maps[classes] = fused
        return maps


@dataclass(frozen=True)
class Method:
    """A kind of maps, and the run that gives them."""

    name: str
    run: Path
    grad_cam: bool = False

    def open(self) -> Predictor:
        predictor = load(self.run)
        return GradCAMPredictor(predictor) if self.grad_cam else predictor


def methods(options: argparse.Namespace) -> list[Method]:
    """The methods whose run is given."""
    known = (
        ("WILDCAT", options.wildcat, False),
        ("WILDCAT, background class", options.background_class, False),
        ("average pooling (CAM)", options.average, False),
        ("max pooling", options.max, False),
        ("Grad-CAM, average pooling", options.average, True),
        ("Grad-CAM, WILDCAT", options.wildcat, True),
    )
    return [Method(name, run, grad_cam) for name, run, grad_cam in known if run is not None]


def fitted(predictor: Predictor, run: Path, count: int | None) -> Iterator[tuple[Background, float, str]]:
    """The fitted background of each mode, its mIoU in per cent, and the training masks it was fitted on."""
    config = read_run(run).config
    split = config.train_split or default_splits(config.data)[0]
    dataset = first(with_masks(with_classes(open_dataset(config.data, split), predictor.settings.classes)), count)
    # Without the background cue: the table compares the class maps of methods and the modes of the background.
    images = list(masked_images(predictor, dataset, cue=False))
    for mode in MODES:
        if mode != "class" or predictor.settings.background_class:
            background, miou = fit_background(mode, images, len(dataset.classes))
            yield background, 100 * miou, f"{label_of(config.data)} {split}, {len(dataset)} masks"


def first(dataset: Dataset, count: int | None) -> Dataset:
    """The first ``count`` images, or all if it is None."""
    return dataset if count is None else dataset.subset(list(range(min(count, len(dataset)))))


def score(predictor: Predictor, backgrounds: Sequence[Background], dataset: Dataset) -> list[SegmentationScores]:
    """The scores of the masks for each background; every image is predicted once."""
    scores = [MaskAccumulator(dataset, "predicted", crf=True) for _ in backgrounds]
    stream = predictor.stream(dataset_items(dataset), multi_maps=False)
    for index, prediction in enumerate(tqdm(stream, dataset.split, len(dataset), unit=" images", disable=None)):
        for background, accumulator in zip(backgrounds, scores, strict=True):
            settings = replace(prediction.settings, background=background)
            accumulator.update(index, replace(prediction, settings=settings))
    return [accumulator.result(background) for accumulator, background in zip(scores, backgrounds, strict=True)]


def measure(method: Method, specs: Sequence[str], count: int | None, done: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows of a method that are missing, dataset by dataset."""
    weights = hashlib.sha256((method.run / WEIGHTS).read_bytes()).hexdigest()[:10]
    predictor = method.open()
    backgrounds: list[tuple[Background, float, str]] = []
    for spec in specs:
        dataset = with_classes(open_dataset(spec, default_splits(spec)[1]), predictor.settings.classes)
        dataset = first(with_masks(dataset), count)
        modes = [mode for mode in MODES if mode != "class" or predictor.settings.background_class]
        key: Row = {
            "method": method.name,
            "weights": weights,
            "data": label_of(spec),
            "split": dataset.split,
            "images": len(dataset),
        }
        have = {row["background"] for row in done if all(row[name] == str(value) for name, value in key.items())}
        if have == set(modes):
            continue
        backgrounds = backgrounds or list(fitted(predictor, method.run, count))
        start = time.perf_counter()
        results = score(predictor, [background for background, _, _ in backgrounds], dataset)
        seconds = (time.perf_counter() - start) / len(results)
        yield [
            key
            | {
                "run": method.run.name,
                "seed": read_run(method.run).config.seed,
                "map_sizes": " ".join(map(str, predictor.settings.map_sizes)),
                "mirror": predictor.settings.mirror,
                "background": background.mode,
                "constant": background.constant,
                "fitted_on": on,
                "fitted_miou": f"{miou:.2f}",
                "labels": result.labels,
                "miou": f"{result.miou:.2f}",
                "miou_crf": f"{result.miou_crf:.2f}",
                "pixel_accuracy": f"{result.pixel_accuracy:.2f}",
                "seconds": f"{seconds:.0f}",
                "commit": short_commit("HEAD"),
                "torch": torch.__version__,
                "cpu": cpu_name(),
            }
            for (background, miou, on), result in zip(backgrounds, results, strict=True)
        ]


def markdown(rows: Sequence[Row], command: str) -> str:
    """The table in Markdown: a row for each method and background, two columns for each dataset."""
    sets = list(dict.fromkeys((row["data"], row["split"], row["images"]) for row in rows))
    lines: dict[tuple[str, ...], dict[tuple[str, ...], Row]] = {}
    for row in rows:
        lines.setdefault((row["method"], row["background"], row["run"], row["seed"]), {})[
            row["data"], row["split"], row["images"]
        ] = row
    header = ["maps", "background"]
    for data, split, images in sets:
        header += [f"{data} {split} ({images})", "CRF"]
    text = ["| " + " | ".join([*header, "run", "commit"]) + " |", "|" + "---|" * (len(header) + 2)]
    for (method, background, run, _), scored in lines.items():
        some = next(iter(scored.values()))
        cells = [method, f"{background} {some['constant']}"]
        for each in sets:
            row = scored.get(each)
            cells += [f"{float(row[name]):.1f}" if row else "" for name in ("miou", "miou_crf")]
        text.append("| " + " | ".join([*cells, run, some["commit"]]) + " |")
    fits = ", ".join(dict.fromkeys(row["fitted_on"] for row in rows))
    seeds = ", ".join(dict.fromkeys(row["seed"] for row in rows))
    about = f"""mIoU in per cent, over the classes present, of masks from image-level labels alone; the number of true
masks is in brackets. Masks hold the predicted classes. The constant of the background was fitted on {fits}.
Seeds of the runs: {seeds}. `experiments/segmentation.py` describes the methods;
`experiments/results/segmentation.csv` has all columns."""
    return f"## Segmentation\n\n{about}\n\n    {command}\n\n" + "\n".join(text) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the missing rows, add each to the CSV file, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="SPEC", help="datasets with masks, kind:path")
    runs = ("wildcat", "background-class", "average", "max")
    for name in runs:
        parser.add_argument(f"--{name}", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--count", type=int, help="use only the first images of each dataset")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of segmentation.csv and segmentation.md")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "segmentation.csv"
    given = methods(options)
    if not given:
        parser.error("give at least one run")
    shown = [f"{spec.partition(':')[0]}:DIR/{label_of(spec)}" for spec in options.data]
    for name in runs:
        if run := getattr(options, name.replace("-", "_")):
            shown.append(f"--{name} {run.name}")
    command = f"python -m experiments.segmentation --data {' '.join(shown)}"
    try:
        for method in given:
            for rows in measure(method, options.data, options.count, read_rows(file)):
                write_rows(file, [*read_rows(file), *rows])
                for row in rows:
                    print(*(row[k] for k in ("method", "background", "constant", "data", "miou", "miou_crf")), sep="  ")
    except WildcatError as error:
        sys.exit(f"error: {error}")
    order = {method.name: i for i, method in enumerate(given)}
    shown_rows = [row for row in read_rows(file) if row["method"] in order]
    shown_rows.sort(key=lambda row: order[row["method"]])
    write_atomically(file.with_suffix(".md"), markdown(shown_rows, command).encode())
    print(f"written: {file}, {file.with_suffix('.md')}")


if __name__ == "__main__":
    main()
