"""The default training on few images, against linear classifiers on features of the same backbone.

    python -m experiments.small_data --data scene15:DIR voc07:DIR --out DIR

For each dataset, 10, 30 and 100 images per class are chosen at random five times from its training split (in data with
several labels per image: images at random, until each class has that many or there are no more), and scored are

- `default`: `wildcat train` without any option but the image size, then `wildcat evaluate`;
- `features`: `--method features`, linear SVMs on the averaged features, with C by cross-validation;
- `probe`: logistic regression of scikit-learn on the same features, standardized, with C by cross-validation on the
  draw, as is usual with networks of timm. The features of `lite0` are those of timm's `tf_efficientnet_lite0`
  (`tests/backbones/test_backbones.py`).

All three get the same images at the same size, and are scored on the same test images. Features are computed once for
each dataset and kept in the folder given by `--out`, as are the runs. Each draw is written to small_data.csv at once
and not computed again; small_data.md is made from it, and `python -m experiments.ledger` includes it in README.md of
this folder.
"""

import argparse
import os
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from experiments.ledger import RESULTS, cpu_name, label_of, short_commit
from experiments.rows import Row, read_rows, write_rows
from wildcat.config import TrainConfig
from wildcat.data import Dataset, register_dataset
from wildcat.data.registry import default_splits, open_dataset
from wildcat.errors import WildcatError
from wildcat.evaluation.scoring import collect, headline
from wildcat.prediction.loading import load
from wildcat.runs.folder import build_model, read_run
from wildcat.system.files import write_atomically
from wildcat.training.defaults import resolve_defaults
from wildcat.training.distributed import ProcessGroup, create_accelerator
from wildcat.training.features import global_features
from wildcat.training.launch import train
from wildcat.training.linear_svm import FOLDS, counted_labels, fit_linear_svms

METHODS = ("default", "features", "probe")
PROBE_C = (1e-4, 1e-3, 1e-2, 1e-1)
KIND = "draw"


def chosen_images(labels: npt.NDArray[np.int8], multi_label: bool, per_class: int, draw: int) -> list[int]:
    """The indices of the images of a draw, increasing.

    Args:
        labels: (N, C).
        multi_label: whether an image may have several classes.
        per_class: images of each class.
        draw: its number, the seed.
    """
    generator = np.random.default_rng((draw, per_class))
    if not multi_label:
        own = [np.flatnonzero(column == 1) for column in labels.T]
        return sorted(int(i) for rows in own for i in generator.permutation(rows)[:per_class])
    found, chosen = np.zeros(labels.shape[1], np.int64), []
    for index in generator.permutation(len(labels)):
        present = labels[index] == 1
        if (present & (found < per_class)).any():
            chosen.append(int(index))
            found += present
    return sorted(chosen)


def scored_images(total: int, count: int | None) -> list[int]:
    """The indices of the test images that are scored: all, or a random choice that is always the same."""
    return list(range(total)) if count is None else sorted(np.random.default_rng(0).permutation(total)[:count].tolist())


def _open_draw(
    spec: str, path: Path, split: str, *, of: str = "", per_class: int = 1, draw: int = 0, test: int = 0
) -> Dataset:
    """The dataset kind of this experiment: a draw of the training split, and the test images."""
    source = f"{of}:{path}"
    train_split, test_split = default_splits(source)
    dataset = open_dataset(source, train_split if split == "train" else test_split)
    if split == "train":
        rows = chosen_images(dataset.labels, dataset.multi_label, per_class, draw)
    else:
        rows = scored_images(len(dataset), test or None)
    part = dataset.subset(rows)
    part.spec, part.split = spec, split
    return part


def register() -> None:
    """Make the draws known to the training and the evaluation."""
    options = {"of": str, "per_class": int, "draw": int, "test": int}
    register_dataset(KIND, _open_draw, lambda path: ("train", "test"), options=options)


def fit_probe(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int8], multi_label: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weights (C, D) and bias (C,) of logistic regression: softmax, or one against all; C by cross-validation."""
    best = max(PROBE_C, key=lambda value: _probe_score(features, labels, multi_label, value))
    return _fit_probe(features, labels, multi_label, best)


def _fit_probe(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int8], multi_label: bool, strength: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features.astype(np.float64))
    inputs = scaler.transform(features.astype(np.float64))
    weights, bias = np.zeros((labels.shape[1], features.shape[1])), np.zeros(labels.shape[1])
    if multi_label:
        for c in range(labels.shape[1]):
            counted = labels[:, c] != 0
            present = labels[counted, c] == 1
            if present.any() and not present.all():
                found = LogisticRegression(C=strength, max_iter=300).fit(inputs[counted], present)
                weights[c], bias[c] = found.coef_[0], found.intercept_[0]
    else:
        found = LogisticRegression(C=strength, max_iter=300).fit(inputs, labels.argmax(axis=1))
        rows = found.classes_
        two = len(rows) == 2
        weights[rows] = np.concatenate([-found.coef_, found.coef_]) if two else found.coef_
        bias[rows] = np.concatenate([-found.intercept_, found.intercept_]) if two else found.intercept_
    weights = weights / scaler.scale_
    return weights, bias - weights @ scaler.mean_


def _probe_score(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int8], multi_label: bool, strength: float
) -> float:
    from sklearn.model_selection import KFold, StratifiedKFold

    kind: Any = KFold if multi_label else StratifiedKFold
    scores = np.zeros(labels.shape)
    for rest, held_out in kind(FOLDS, shuffle=True, random_state=0).split(features, labels.argmax(axis=1)):
        weights, bias = _fit_probe(features[rest], labels[rest], multi_label, strength)
        scores[held_out] = features[held_out] @ weights.T + bias
    return _score(scores, labels, multi_label)


def _score(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int8], multi_label: bool) -> float:
    from wildcat.metrics import average_precision

    if multi_label:
        return float(np.nanmean(average_precision(scores, labels)))
    return float((scores.argmax(axis=1) == labels.argmax(axis=1)).mean())


def features_of(source: str, split: str, size: int, rows: Sequence[int], out: Path) -> npt.NDArray[np.float32]:
    """Averaged features (N, D) of the embedded backbone for images of a split; kept in a file for the next call."""
    name, count = label_of(source), len(rows)
    file = out / f"features-{name}-{split}-{size}-{count}.npy"
    if file.exists():
        return np.asarray(np.load(file), np.float32)
    dataset = open_dataset(source, split).subset(rows)
    config = resolve_defaults(TrainConfig(source, image_size=size, workers=0), 1000, dataset.multi_label)
    model = build_model(config, 2, pretrained=True)
    model.backbone.freeze(batch_norm=True)
    accelerator = create_accelerator()
    model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = global_features(ProcessGroup(accelerator), model, dataset, config).numpy()
    out.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp.npy")
    np.save(temporary, features)
    temporary.rename(file)
    return features


def measure(source: str, per_class: int, draw: int, options: argparse.Namespace) -> Row:
    """The row of a draw: trains, and scores the three methods."""
    train_split, test_split = default_splits(source)
    whole, test = open_dataset(source, train_split), open_dataset(source, test_split)
    tested = scored_images(len(test), options.test)
    test = test.subset(tested)
    rows = chosen_images(whole.labels, whole.multi_label, per_class, draw)
    part = whole.subset(rows)
    size, multi_label = options.image_size, whole.multi_label

    seen = features_of(source, train_split, size, range(len(whole)), options.out)[rows]
    unseen = features_of(source, test_split, size, tested, options.out)
    labels = counted_labels(part, TrainConfig(source))
    svms = fit_linear_svms(seen, labels, multi_label=multi_label, seed=draw)
    weights, bias = fit_probe(seen, labels, multi_label)
    scores = {
        "features": headline(unseen @ svms.weights.T + svms.bias, test),
        "probe": headline(unseen @ weights.T + bias, test),
    }

    kind, _, path = source.partition(":")
    spec = f"{KIND}:{path},of={kind},per_class={per_class},draw={draw},test={options.test or 0}"
    folder = options.out / f"{label_of(source)}-{size}-{per_class}-{draw}"
    config = TrainConfig(spec, image_size=size, seed=draw, workers=options.workers, held_out_images=0)
    start = time.process_time()
    run = train(config, folder, resume=True)
    seconds = time.process_time() - start
    predictor = load(run)
    predicted = collect(predictor, open_dataset(spec, "test"), ["classification"])[predictor.chosen]
    scores["default"] = headline(predicted.probabilities, test)
    resolved = read_run(run).config
    shutil.rmtree(folder)
    return {
        "data": label_of(source),
        "size": size,
        "per_class": per_class,
        "draw": draw,
        "images": len(rows),
        "tested": len(test),
        "metric": "mAP" if multi_label else "accuracy",
        **{name: f"{scores[name]:.2f}" for name in METHODS},
        "epochs": resolved.epochs,
        "cpu_seconds": f"{seconds:.0f}",
        "commit": short_commit("HEAD"),
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
    }


def markdown(rows: Sequence[Row], command: str) -> str:
    """The table: a row for each dataset and number of images per class."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["size"], int(row["per_class"])), []).append(row)
    header = ["data", "per class", "draws", "images", "metric", *METHODS, "default - better of both", "CPU time"]
    text = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for (data, size, per_class), group in sorted(groups.items()):
        images = statistics.fmean(float(row["images"]) for row in group)
        minutes = statistics.fmean(float(row["cpu_seconds"]) for row in group) / 60
        values = {name: [float(row[name]) for row in group] for name in METHODS}
        rival = max(METHODS[1:], key=lambda name: statistics.fmean(values[name]))
        differences = [own - other for own, other in zip(values["default"], values[rival], strict=True)]
        cells = [f"{data}, {size} px", str(per_class), str(len(group)), f"{images:.0f}", group[0]["metric"]]
        cells += [_spread(values[name]) for name in METHODS] + [f"{_spread(differences, sign=True)} ({rival})"]
        text.append("| " + " | ".join([*cells, f"{minutes:.1f} min"]) + " |")
    sizes = ", ".join(dict.fromkeys(f"{row['size']} px" for row in rows))
    tested = ", ".join(dict.fromkeys(f"{row['tested']} of {row['data']}" for row in rows))
    machine = ", ".join(dict.fromkeys(f"{row['cores']} cores, {row['cpu']}" for row in rows))
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    about = f"""The default training (`lite0`) against linear classifiers on its features, in per cent: mean and
standard deviation over draws of the training images, and over the differences of each draw from the better classifier
(by its mean). Image size {sizes}; test images scored: {tested}. CPU time is that of one training on one core;
commit {commits}; {machine}.
`experiments/small_data.py` describes the methods, `experiments/results/small_data.csv` has all draws."""
    return f"## Few images ({sizes})\n\n{about}\n\n    {command}\n\n" + "\n".join(text) + "\n"


def _spread(values: Sequence[float], sign: bool = False) -> str:
    mean = f"{statistics.fmean(values):+.1f}" if sign else f"{statistics.fmean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute the missing draws, add each to the CSV file, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, metavar="SPEC", help="datasets, kind:path")
    parser.add_argument("--per-class", nargs="+", type=int, default=[10, 30, 100])
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="their numbers")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--test", type=int, help="score that many test images, a random choice that is always the same")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for features and unfinished runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of small_data.csv and small_data.md")
    options = parser.parse_args(arguments)
    register()
    file = options.results / "small_data.csv"
    options.results.mkdir(parents=True, exist_ok=True)
    plan = [(s, n, d) for n in options.per_class for d in options.draws for s in options.data]
    try:
        for source, per_class, draw in plan:
            key = (label_of(source), str(options.image_size), str(per_class), str(draw))
            if any(
                tuple(row[name] for name in ("data", "size", "per_class", "draw")) == key for row in read_rows(file)
            ):
                continue
            row = measure(source, per_class, draw, options)
            write_rows(file, [*read_rows(file), row])
            print(*row.values(), flush=True)
    except WildcatError as error:
        sys.exit(f"error: {error}")
    if rows := read_rows(file):
        shown = " ".join(f"{s.partition(':')[0]}:DIR/{label_of(s)}" for s in options.data)
        command = f"python -m experiments.small_data --data {shown} --out DIR"
        command += f" --test {options.test}" if options.test else ""
        write_atomically(file.with_suffix(".md"), markdown(rows, command).encode())
        print(f"written: {file}, {file.with_suffix('.md')}")


if __name__ == "__main__":
    main()
