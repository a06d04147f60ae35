"""Whether the M maps of a class specialize, by their class-wise pooling: heads on features of the frozen backbone.

    python -m experiments.modalities --data voc07:DIR --out DIR

Each row of the table is a way of training the maps (`ROWS` in modality_heads.py). Its learning rate is the one with the
highest mAP on a quarter of the training images, held out and scored over two seeds; then it is trained on all training
images and scored on the test images, once for each seed. Nothing is chosen on test images. The measures are those of
`wildcat.metrics.SpecializationResult`; parts are VOC's layout boxes (head, hand and foot of persons) or the two parts
of each synthetic class.

Features are computed once and kept in the folder given by `--out`. Each score is written to modalities.csv at once and
not computed again; modalities.md is made from it.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from experiments.ledger import RESULTS, cpu_name, label_of, short_commit
from experiments.modality_heads import MAPS, ROWS, Head, create_heads, multi_maps_of, pooled, train_heads
from experiments.rows import Row as Line
from experiments.rows import read_rows, write_rows
from wildcat import metrics
from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.data.registry import default_splits, open_dataset
from wildcat.errors import WildcatError
from wildcat.evaluation.scoring import ScoreAccumulator
from wildcat.losses import probabilities
from wildcat.model import create_model
from wildcat.prediction.result import Prediction
from wildcat.runs.settings import InferenceSettings
from wildcat.system.files import write_atomically
from wildcat.training.feature_store import FeatureStore, open_feature_store

RATES = (0.1, 0.2, 0.4, 0.8, 1.6)
CHOICE_SEEDS = (0, 1)
HELD_OUT, TEST = "held out", "test"  # parts of the data that are scored
MEASURES = ("mAP", "points", "mIoU", "correlation", "maps_used", "apart", "on_parts")


@dataclass(frozen=True, eq=False)
class Scored:
    """Images that heads are scored on.

    Attributes:
        features: of all images of the dataset.
        dataset: N images.
        images: numbers of those that are scored.
    """

    features: FeatureStore
    dataset: Dataset
    images: Sequence[int]
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict)

    def size_of(self, index: int) -> tuple[int, int]:
        """Width and height of an image, which is opened if its annotations do not say them."""
        if index not in self._sizes:
            self._sizes[index] = self.dataset.samples[index].stated_size or self.dataset.image(index).size
        return self._sizes[index]


def data_name(spec: str) -> str:
    """The dataset's folder name, or "synthetic"."""
    return "synthetic" if spec.startswith("synthetic") else label_of(spec)


def features_of(spec: str, split: str, size: int, out: Path) -> FeatureStore:
    """Features of the embedded backbone for the images of a split, kept in a folder for the next call."""
    config = TrainConfig(spec, image_size=size, cache_dir=str(out), workers=0)
    with tqdm(desc=f"features {split}", unit=" images", disable=None) as bar:
        return open_feature_store(
            open_dataset(spec, split), create_model("lite0", num_classes=1), config, views=1, progress=bar.update
        )


def score_heads(
    heads: Sequence[Head], scored: Scored, config: TrainConfig, with_masks: bool
) -> Iterator[dict[str, str]]:
    """The measures of each head, as text."""
    part, images = scored.dataset.subset(scored.images), scored.images
    tasks = ["classification", "pointing", *(["segmentation"] if with_masks and part.has_masks else [])]
    scores = [ScoreAccumulator(part, tasks, "predicted", crf=False) for _ in heads]
    specialization = [metrics.SpecializationAccumulator(part.classes) for _ in heads]
    settings = InferenceSettings(part.classes, True, (config.image_size,), (config.image_size,))
    for start in tqdm(range(0, len(part), 16), "scoring", disable=None):
        rows = range(start, min(start + 16, len(part)))
        inputs = scored.features.read([images[i] for i in rows])
        with torch.inference_mode():
            of_heads = multi_maps_of(heads, inputs)
            outputs = [
                pooled(head.way, maps, config, training=False) for head, maps in zip(heads, of_heads, strict=True)
            ]
        for place, index in enumerate(rows):
            sample, size, annotated = part.samples[index], scored.size_of(images[index]), part.samples[index].parts
            parts = () if annotated is None else (annotated.boxes, annotated.kinds, annotated.objects)
            for number, (logits, class_maps) in enumerate(outputs):
                multi_maps = of_heads[number][place].numpy()
                prediction = Prediction(
                    sample.name,
                    size,
                    settings,
                    probabilities(logits[place], True).numpy(),
                    class_maps[place].numpy(),
                    multi_maps,
                    lambda index=index: part.image(index),  # type: ignore[misc]
                )
                scores[number].update(index, prediction)
                specialization[number].update(
                    multi_maps.reshape(len(part.classes), MAPS, *multi_maps.shape[1:]),
                    size,
                    sample.boxes,
                    sample.box_classes,
                    sample.box_difficult,
                    *parts,
                )
    for score, special in zip(scores, specialization, strict=True):
        result, measured = score.result(settings.background), special.result()
        assert result.classification is not None and result.pointing is not None
        values = {
            "mAP": result.classification.map_area,
            "points": result.pointing.map,
            "mIoU": result.segmentation.miou if result.segmentation is not None else float("nan"),
            "correlation": measured.mean_correlation,
            "maps_used": measured.mean_maps_used,
            "apart": measured.share_apart,
            "on_parts": measured.share_on_parts,
        }
        yield {name: f"{value:.4f}" for name, value in values.items()} | {
            "images_with_parts": str(measured.with_parts.sum())
        }


def best_rates(lines: Sequence[Line]) -> dict[str, float]:
    """The learning rate of each row with the highest mean mAP on held-out images."""
    scores: dict[str, dict[float, list[float]]] = {}
    for line in lines:
        if line["scored"] == HELD_OUT:
            scores.setdefault(line["row"], {}).setdefault(float(line["rate"]), []).append(float(line["mAP"]))
    return {name: max(rates, key=lambda rate: statistics.fmean(rates[rate])) for name, rates in scores.items()}


def markdown(lines: Sequence[Line], command: str) -> str:
    """The tables of each dataset: the test images, and the held-out images that the rates were chosen on."""
    rates = ", ".join(map(str, RATES))
    text = [
        "## What the M maps of a class show",
        "",
        f"""M = {MAPS} maps per class on features of the frozen `lite0`, k 0.2, alpha 0.7; mean and standard deviation
over seeds. mAP, points (pointing mAP) and mIoU in per cent; correlation of two maps of a class that is present;
effective number of maps that have the highest peak; shares of images in which two maps point at places two or more
cells apart in one box, and at annotated parts of two kinds. The rate of each row is the best of {rates} on held-out
training images. `experiments/modality_heads.py` describes the rows, `experiments/results/modalities.csv` has all
seeds.""",
        "",
        f"    {command}",
    ]
    for data in dict.fromkeys(map(_data, lines)):
        of_data = [line for line in lines if _data(line) == data]
        commits = ", ".join(dict.fromkeys(line["commit"] for line in of_data))
        first = of_data[0]
        machine = f"{first['cores']} cores, {first['cpu']}"
        for scored in (TEST, HELD_OUT):
            groups: dict[tuple[str, str], list[Line]] = {}
            for line in of_data:
                if line["scored"] == scored:
                    groups.setdefault((line["row"], line["rate"]), []).append(line)
            if groups:
                first = next(iter(groups.values()))[0]
                title = f"{data[0]}, {data[1]} px, {first['epochs']} epochs, {scored} images"
                text += ["", f"{title} ({first['images_with_parts']} with parts); commit {commits}; {machine}:", ""]
                text += _table(groups)
    return "\n".join(text) + "\n"


def _table(groups: dict[tuple[str, str], list[Line]]) -> list[str]:
    header = ["class-wise pooling", "rate", "seeds", "mAP", "points", "mIoU", "correlation", "maps used"]
    header += ["two peaks apart in a box", "two maps on two parts"]
    text = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for (name, rate), group in groups.items():
        cells = [name, rate, str(len(group)), *(_spread(group, measure) for measure in MEASURES)]
        text.append("| " + " | ".join(cells) + " |")
    return text


def _spread(group: Sequence[Line], measure: str) -> str:
    values = [float(line[measure]) for line in group if line[measure] != "nan"]
    if not values:
        return "–"
    digits = 1 if measure in ("mAP", "points", "mIoU") else 2
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the missing scores, add each to the CSV file, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="SPEC", help="a multi-label dataset with boxes, kind:path")
    parser.add_argument("--image-size", type=int, default=448)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--together", type=int, default=12, help="heads that are trained in one pass")
    parser.add_argument("--out", type=Path, required=True, help="folder for features")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of modalities.csv and modalities.md")
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    file = options.results / "modalities.csv"
    try:
        compute(options, file)
    except WildcatError as error:
        sys.exit(f"error: {error}")
    spec = f"{options.data.partition(':')[0]}:DIR" if ":" in options.data else options.data
    command = f"python -m experiments.modalities --data {spec} --image-size {options.image_size} --out DIR"
    write_atomically(file.with_suffix(".md"), markdown(read_rows(file), command).encode())
    print(f"written: {file}, {file.with_suffix('.md')}")


def compute(options: argparse.Namespace, file: Path) -> None:
    """Train and score what the file lacks: first on held-out images at every rate, then on test images at the best."""
    train_split, test_split = default_splits(options.data)
    training, tested = open_dataset(options.data, train_split), open_dataset(options.data, test_split)
    order = np.random.default_rng(0).permutation(len(training)).tolist()
    held_out, rest = sorted(order[: len(order) // 4]), sorted(order[len(order) // 4 :])
    seen = features_of(options.data, train_split, options.image_size, options.out)
    labels = torch.from_numpy(training.labels)
    scored_on = {HELD_OUT: Scored(seen, training, held_out)}

    def run(scored: str, seed: int, wanted: Sequence[tuple[str, float]]) -> None:
        lines = [line for line in read_rows(file) if _data(line) == (data_name(options.data), str(options.image_size))]
        known = {_key(line) for line in lines}
        missing = [(name, rate) for name, rate in wanted if (scored, name, rate, str(seed)) not in known]
        config = TrainConfig(
            options.data, image_size=options.image_size, epochs=options.epochs, seed=seed, kmax=0.2, alpha=0.7
        )
        for start in range(0, len(missing), options.together):
            heads = create_heads(missing[start : start + options.together], seen.shape[2], labels.shape[1], seed)
            train_heads(heads, seen, labels, rest if scored == HELD_OUT else sorted(order), config)
            found = score_heads(heads, scored_on[scored], config, with_masks=scored == TEST)
            lines = [_line(head, values, scored, config) for head, values in zip(heads, found, strict=True)]
            write_rows(file, [*read_rows(file), *lines])
            for line in lines:
                print(*line.values(), flush=True)

    for seed in CHOICE_SEEDS:
        run(HELD_OUT, seed, [(name, rate) for name in options.rows for rate in RATES])
    lines = read_rows(file)
    rates = best_rates([line for line in lines if _data(line) == (data_name(options.data), str(options.image_size))])
    unseen = features_of(options.data, test_split, options.image_size, options.out)
    scored_on[TEST] = Scored(unseen, tested, list(range(len(tested))))
    for seed in options.seeds:
        run(TEST, seed, [(name, rates[name]) for name in options.rows])


def _data(line: Line) -> tuple[str, str]:
    return line["data"], line["size"]


def _key(line: Line) -> tuple[str, str, float, str]:
    return line["scored"], line["row"], float(line["rate"]), line["seed"]


def _line(head: Head, values: dict[str, str], scored: str, config: TrainConfig) -> Line:
    return {
        "data": data_name(config.data),
        "size": config.image_size,
        "scored": scored,
        "row": head.name,
        "rate": head.rate,
        "seed": config.seed,
        **values,
        "epochs": config.epochs,
        "commit": short_commit("HEAD"),
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    main()
