"""Whether the M maps of a class specialize, by their class-wise pooling: heads on features of the frozen backbone.

    python -m experiments.modalities --data voc07:DIR --out DIR

Each row of the table is a way of training the maps (`ROWS`). Its learning rate is the one with the highest mAP on a
quarter of the training images, held out and scored over two seeds; then it is trained on all training images and scored
on the test images, once for each seed. Nothing is chosen on test images. The measures are those of
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from experiments.ledger import RESULTS, cpu_name, label_of, short_commit
from experiments.rows import Row as Line
from experiments.rows import read_rows, write_rows
from wildcat import metrics
from wildcat.class_pooling import ClassPooling, choose_kept_maps, class_wise_pool
from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.data.registry import default_splits, open_dataset
from wildcat.data.transforms import warp
from wildcat.errors import WildcatError
from wildcat.evaluation.scoring import ScoreAccumulator
from wildcat.losses import multi_label_loss, probabilities
from wildcat.model import create_model
from wildcat.pooling import spatial_pool
from wildcat.prediction.network import optimize_for_inference
from wildcat.prediction.result import Prediction
from wildcat.runs.settings import InferenceSettings
from wildcat.system.files import write_atomically
from wildcat.training.schedule import learning_rate_factor
from wildcat.transfer import MultiMapTransfer

MAPS = 4
RATES = (0.4, 0.8, 1.6)
CHOICE_SEEDS = (0, 1)
HELD_OUT, TEST = "held out", "test"  # parts of the data that are scored
MEASURES = ("mAP", "points", "mIoU", "correlation", "maps_used", "apart", "on_parts")


@dataclass(frozen=True)
class Way:
    """A way of training the maps of a class.

    Attributes:
        class_pooling: Equation 1.
        map_dropout: share of the maps of a class that a step leaves out.
        initial: multiple of the usual initial weights.
        spatial_first: pool each map over space with k = 3, then the scores of the maps, by their mean.
        overlap: weight of a term of the loss, the cosine of the places of two maps of a class that is present.
    """

    class_pooling: ClassPooling = "mean"
    map_dropout: float = 0.0
    initial: float = 1.0
    spatial_first: bool = False
    overlap: float = 0.0


ROWS = {
    "mean": Way(),
    "mean, initial weights x 4": Way(initial=4),
    "mean, initial weights x 8": Way(initial=8),
    "max": Way("max"),
    "max, half dropped": Way("max", 0.5),
    "lse": Way("lse"),
    "lse, half dropped": Way("lse", 0.5),
    "softmax, half dropped": Way("softmax", 0.5),
    "spatial first, k 3": Way(spatial_first=True),
    "lse, half dropped, initial weights x 4": Way("lse", 0.5, 4),
    "lse, half dropped, overlap 0.1": Way("lse", 0.5, overlap=0.1),
    "lse, half dropped, overlap 0.3": Way("lse", 0.5, overlap=0.3),
}


@dataclass(frozen=True, eq=False)
class Head:
    """A head that is trained: its filters, and how."""

    name: str
    rate: float
    transfer: MultiMapTransfer

    @property
    def way(self) -> Way:
        """How its maps are trained."""
        return ROWS[self.name]


def features_of(spec: str, split: str, size: int, out: Path) -> npt.NDArray[np.float16]:
    """Features (N, D, h, w) of the embedded backbone for the images of a split; kept in a file for the next call."""
    file = out / f"features-{label_of(spec)}-{split}-{size}.npy"
    if file.exists():
        return np.load(file, mmap_mode="r")
    dataset = open_dataset(spec, split)
    model = create_model("lite0", num_classes=1).eval()
    backbone = optimize_for_inference(model).backbone
    parts = []
    with torch.inference_mode():
        for start in tqdm(range(0, len(dataset), 8), f"features {split}", disable=None):
            rows = range(start, min(start + 8, len(dataset)))
            pixels = np.stack([warp(dataset.image(index, draft_size=size), size) for index in rows])
            images = model.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
            parts.append(backbone(images).half().numpy())
    out.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp.npy")
    np.save(temporary, np.concatenate(parts))
    temporary.rename(file)
    return np.load(file, mmap_mode="r")


def create_heads(chosen: Sequence[tuple[str, float]], channels: int, classes: int, seed: int) -> list[Head]:
    """Heads by row and learning rate, with the initial weights of a seed."""
    heads = []
    for name, rate in chosen:
        torch.manual_seed(seed)
        transfer = MultiMapTransfer(channels, classes, MAPS)
        with torch.no_grad():
            transfer.weight *= ROWS[name].initial
            transfer.bias *= ROWS[name].initial
        heads.append(Head(name, rate, transfer))
    return heads


def multi_maps_of(heads: Sequence[Head], features: Tensor) -> list[Tensor]:
    """The multi-maps (N, C * M, h, w) of each head, by one product of all filters with the features (N, D, h, w)."""
    weight = torch.cat([head.transfer.weight.flatten(1) for head in heads])
    bias = torch.cat([head.transfer.bias for head in heads])
    columns = features.transpose(0, 1).reshape(features.shape[1], -1)  # (D, N * h * w)
    maps = torch.addmm(bias[:, None], weight, columns).unflatten(1, (len(features), *features.shape[2:]))
    return [part.transpose(0, 1) for part in maps.split(len(heads[0].transfer.weight))]


def pooled(way: Way, multi_maps: Tensor, config: TrainConfig, training: bool) -> tuple[Tensor, Tensor]:
    """Scores (N, C) and class maps (N, C, h, w) of multi-maps."""
    if way.spatial_first:
        each = spatial_pool(multi_maps, 3, 3, config.alpha).unflatten(1, (-1, MAPS))
        return each.mean(dim=2), class_wise_pool(multi_maps, MAPS)
    kept = None
    if training and way.map_dropout:
        kept = choose_kept_maps((len(multi_maps), multi_maps.shape[1] // MAPS, MAPS), way.map_dropout)
    class_maps = class_wise_pool(multi_maps, MAPS, way.class_pooling, kept=kept)
    return spatial_pool(class_maps, config.kmax, config.kmin, config.alpha), class_maps


def overlap_of(multi_maps: Tensor, labels: Tensor) -> Tensor:
    """Mean cosine of the places (softmax over cells) of two maps of a class, over the classes that are present."""
    places = multi_maps.unflatten(1, (-1, MAPS))[labels == 1].flatten(2).softmax(dim=2)  # (P, M, cells)
    places = functional.normalize(places, dim=2)
    cosines = places @ places.transpose(1, 2)  # (P, M, M)
    return (cosines.sum() - cosines.diagonal(dim1=1, dim2=2).sum()) / max(1, len(places) * MAPS * (MAPS - 1))


def train_heads(
    heads: Sequence[Head], features: npt.NDArray[np.float16], labels: Tensor, images: Sequence[int], config: TrainConfig
) -> None:
    """Train heads as `wildcat train` trains them, in one pass over the features of some images."""
    steps = -(-len(images) // config.batch_size)
    groups = [{"params": list(head.transfer.parameters()), "lr": head.rate} for head in heads]
    optimizer = torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
    for epoch in tqdm(range(config.epochs), "epochs", disable=None):
        order = np.random.default_rng((config.seed, epoch)).permutation(images)
        for step, batch in enumerate(np.array_split(order, steps)):
            factor = learning_rate_factor(config, epoch * steps + step, steps)
            for group, head in zip(optimizer.param_groups, heads, strict=True):
                group["lr"] = head.rate * factor
            torch.manual_seed((config.seed * 1_000_003 + epoch) * 1_000_003 + step)
            rows = np.sort(batch)  # as they lie in the file
            inputs, own = torch.from_numpy(features[rows].astype(np.float32)), labels[rows]
            loss = torch.zeros(())
            for head, multi_maps in zip(heads, multi_maps_of(heads, inputs), strict=True):
                scores, _ = pooled(head.way, multi_maps, config, training=True)
                loss = loss + multi_label_loss(scores, own)
                if head.way.overlap:
                    loss = loss + head.way.overlap * overlap_of(multi_maps, own)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def score_heads(
    heads: Sequence[Head],
    features: npt.NDArray[np.float16],
    dataset: Dataset,
    images: Sequence[int],
    config: TrainConfig,
    with_masks: bool,
) -> Iterator[dict[str, str]]:
    """The measures of each head, as text."""
    part = dataset.subset(images)
    tasks = ["classification", "pointing", *(["segmentation"] if with_masks else [])]
    scores = [ScoreAccumulator(part, tasks, "predicted", crf=False) for _ in heads]
    specialization = [metrics.SpecializationAccumulator(part.classes) for _ in heads]
    settings = InferenceSettings(part.classes, True, (config.image_size,), (config.image_size,))
    for start in tqdm(range(0, len(part), 16), "scoring", disable=None):
        rows = range(start, min(start + 16, len(part)))
        inputs = torch.from_numpy(features[[images[i] for i in rows]].astype(np.float32))
        with torch.inference_mode():
            of_heads = multi_maps_of(heads, inputs)
            outputs = [
                pooled(head.way, maps, config, training=False) for head, maps in zip(heads, of_heads, strict=True)
            ]
        for place, index in enumerate(rows):
            sample = part.samples[index]
            size = sample.stated_size or part.image(index).size
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
                annotated = sample.parts
                specialization[number].update(
                    multi_maps.reshape(len(part.classes), MAPS, *multi_maps.shape[1:]),
                    size,
                    sample.boxes,
                    sample.box_classes,
                    sample.box_difficult,
                    *(() if annotated is None else (annotated.boxes, annotated.kinds, annotated.objects)),
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
    """The tables: the test images, and the held-out images that the rates were chosen on."""
    first = lines[0]
    text = []
    for scored in (TEST, HELD_OUT):
        groups: dict[tuple[str, str], list[Line]] = {}
        for line in lines:
            if line["scored"] == scored:
                groups.setdefault((line["row"], line["rate"]), []).append(line)
        if not groups:
            continue
        header = ["class-wise pooling", "rate", "seeds", "mAP", "points", "mIoU", "correlation", "maps used"]
        header += ["two peaks apart in a box", "two maps on two parts"]
        text += ["", f"{scored.capitalize()} images:", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        for (name, rate), group in groups.items():
            cells = [name, rate, str(len(group)), *(_spread(group, measure) for measure in MEASURES)]
            text.append("| " + " | ".join(cells) + " |")
    commits = ", ".join(dict.fromkeys(line["commit"] for line in lines))
    rates = ", ".join(map(str, RATES))
    about = f"""M = {MAPS} maps per class on features of the frozen `lite0`, {first["data"]}, {first["size"]} px, k 0.2,
alpha 0.7, {first["epochs"]} epochs; mean and standard deviation over seeds. mAP, points (pointing mAP) and mIoU in per
cent; correlation of two maps of a class that is present; effective number of maps that have the highest peak; shares of
images in which two maps point at places two or more cells apart in one box, and at annotated parts of two kinds. The
rate of each row is the best of {rates} on held-out training images. Commit {commits}; {first["cores"]} cores,
{first["cpu"]}. `experiments/modalities.py` describes the rows, `experiments/results/modalities.csv` has all seeds."""
    return f"## What the M maps of a class show\n\n{about}\n\n    {command}\n" + "\n".join(text) + "\n"


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
    datasets = {HELD_OUT: open_dataset(options.data, train_split), TEST: open_dataset(options.data, test_split)}
    order = np.random.default_rng(0).permutation(len(datasets[HELD_OUT])).tolist()
    held_out, rest = sorted(order[: len(order) // 4]), sorted(order[len(order) // 4 :])
    seen = features_of(options.data, train_split, options.image_size, options.out)
    labels = torch.from_numpy(datasets[HELD_OUT].labels)

    def run(scored: str, seed: int, wanted: Sequence[tuple[str, float]]) -> None:
        known = {(line["row"], float(line["rate"])) for line in read_rows(file) if _key(line) == (scored, str(seed))}
        missing = [each for each in wanted if each not in known]
        config = TrainConfig(
            options.data, image_size=options.image_size, epochs=options.epochs, seed=seed, kmax=0.2, alpha=0.7
        )
        for start in range(0, len(missing), options.together):
            heads = create_heads(missing[start : start + options.together], seen.shape[1], labels.shape[1], seed)
            train_heads(heads, seen, labels, rest if scored == HELD_OUT else sorted(order), config)
            test = scored == TEST
            features = features_of(options.data, test_split, options.image_size, options.out) if test else seen
            images = range(len(datasets[TEST])) if test else held_out
            found = score_heads(
                heads, features, datasets[scored], list(images), config, datasets[scored].has_masks and test
            )
            lines = [_line(head, values, scored, config) for head, values in zip(heads, found, strict=True)]
            write_rows(file, [*read_rows(file), *lines])
            for line in lines:
                print(*line.values(), flush=True)

    for seed in CHOICE_SEEDS:
        run(HELD_OUT, seed, [(name, rate) for name in options.rows for rate in RATES])
    rates = best_rates(read_rows(file))
    for seed in options.seeds:
        run(TEST, seed, [(name, rates[name]) for name in options.rows])


def _key(line: Line) -> tuple[str, str]:
    return line["scored"], line["seed"]


def _line(head: Head, values: dict[str, str], scored: str, config: TrainConfig) -> Line:
    return {
        "scored": scored,
        "row": head.name,
        "rate": head.rate,
        "seed": config.seed,
        **values,
        "data": label_of(config.data),
        "size": config.image_size,
        "epochs": config.epochs,
        "commit": short_commit("HEAD"),
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    main()
