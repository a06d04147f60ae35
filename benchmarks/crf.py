"""Dense CRF: time, memory and result of wildcat.crf against pydensecrf2, in one process, in turns.

    python -m benchmarks.crf --photos VOCdevkit/VOC2007/JPEGImages --threads 2
    python -m benchmarks.crf --smoke

Each run is end to end, from probabilities and image to marginals: lattices, logarithm and ten iterations. The lattice
of the Gaussian kernel depends only on the size of the image and is cached; "first" is the time without the cache.
pydensecrf2 always uses one thread. Without --photos, parts of scikit-learn's sample photographs are used. Probabilities
are softmaxes of smooth random logits: all labels are present everywhere, which is the slowest case.

Writes crf.csv (a row for each preset and number of labels; memory is the increase of the peak of a fresh process by
three runs) and crf_samples.csv (every run) to --out.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.nn import functional as F

from benchmarks.common import environment, held
from wildcat.crf import mean_field as crf
from wildcat.crf.mean_field import PRESETS, CRFSettings, dense_crf

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
SIZE = (500, 375)  # width, height: the most frequent of PASCAL VOC


def photographs(folder: Path | None, count: int, size: tuple[int, int]) -> list[Bytes]:
    """The first images of that size in a folder, by name; without a folder, parts of two sample photographs."""
    width, height = size
    if folder is None:
        corners = [(top, left) for top in (0, 52) for left in (0, 140)]
        return [
            np.ascontiguousarray(photo[top : top + height, left : left + width])
            for top, left in corners
            for photo in load_sample_images().images
        ][:count]
    images = []
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"}):
        with Image.open(path) as image:
            if image.size == size:
                images.append(np.array(image.convert("RGB")))
        if len(images) == count:
            return images
    sys.exit(f"{folder} holds {len(images)} images of {width} x {height}, {count} are needed")


def smooth_probabilities(labels: int, size: tuple[int, int], seed: int) -> Floats:
    """(labels, H, W): 12 x 16 random logits, upsampled."""
    logits = 2 * torch.randn(1, labels, 12, 16, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(logits, size[::-1], mode="bilinear", align_corners=False)[0].softmax(0).numpy()


def run_pydensecrf(probabilities: Floats, image: Bytes, settings: CRFSettings) -> Floats:
    from pydensecrf import densecrf

    labels, height, width = probabilities.shape
    model = densecrf.DenseCRF2D(width, height, labels)
    model.setUnaryEnergy(-np.log(np.clip(probabilities, 1e-5, 1)).reshape(labels, -1))
    model.addPairwiseGaussian(settings.gaussian_sxy, settings.gaussian_compat)
    model.addPairwiseBilateral(settings.bilateral_sxy, settings.bilateral_srgb, image, settings.bilateral_compat)
    return np.array(model.inference(settings.iterations)).reshape(probabilities.shape)


def run_first(probabilities: Floats, image: Bytes, settings: CRFSettings) -> Floats:
    """As if no image of this size had been seen."""
    crf._cached_lattice.cache_clear()
    return dense_crf(probabilities, image, settings)


CONTENDERS: dict[str, Callable[[Floats, Bytes, CRFSettings], Floats]] = {
    "wildcat": dense_crf,
    "first": run_first,
    "pydensecrf2": run_pydensecrf,
}


def peak_memory(contender: str, labels: int, image: Bytes, settings: CRFSettings, threads: int, pipe: Any) -> None:
    """In a fresh process: peak of three runs above what it held before, in MB."""
    torch.set_num_threads(threads)
    probabilities = smooth_probabilities(labels, (image.shape[1], image.shape[0]), 0)
    small = np.zeros((8, 8, 3), np.uint8)
    CONTENDERS[contender](smooth_probabilities(2, (8, 8), 0), small, settings)  # what libraries load on first use
    before = held("VmRSS")
    for _ in range(3):
        CONTENDERS[contender](probabilities, image, settings)
    pipe.send(held("VmHWM") - before)


def measure_memory(contender: str, labels: int, image: Bytes, settings: CRFSettings, threads: int) -> float:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=peak_memory, args=(contender, labels, image, settings, threads, sender))
    child.start()
    sender.close()
    grown: float = receiver.recv()
    child.join()
    return grown


def compare(
    preset: str, labels: int, photos: list[Bytes], repeat: int, threads: int
) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """A row of results, and all samples."""
    settings, size = PRESETS[preset], (photos[0].shape[1], photos[0].shape[0])
    times: dict[str, list[list[float]]] = {name: [[] for _ in photos] for name in CONTENDERS}
    samples: list[tuple[Any, ...]] = []
    equal, difference = 1.0, 0.0
    for turn in range(-1, repeat):  # turn -1 warms up, and compares the answers
        for number, photo in enumerate(photos):
            probabilities = smooth_probabilities(labels, size, number)
            answers = {}
            for name, contender in CONTENDERS.items():
                start = time.perf_counter()
                answers[name] = contender(probabilities, photo, settings)
                seconds = time.perf_counter() - start
                if turn >= 0:
                    times[name][number].append(seconds)
                    samples.append((preset, labels, number, turn, name, f"{seconds:.6f}"))
            if turn < 0:
                ours, theirs = answers["wildcat"], answers["pydensecrf2"]
                equal = min(equal, float((ours.argmax(0) == theirs.argmax(0)).mean()))
                difference = max(difference, float(np.abs(ours - theirs).max()))
    # A photograph's time is the median of its runs; quartiles and ratios are over photographs.
    each = {name: np.median(runs, axis=1) for name, runs in times.items()}
    row: dict[str, Any] = {"preset": preset, "labels": labels, "photographs": len(photos), "runs": repeat}
    for name, values in each.items():
        for part, value in zip(("q1", "median", "q3"), np.quantile(values, (0.25, 0.5, 0.75)), strict=True):
            row[f"{name}_ms_{part}"] = round(1000 * float(value), 1)
    for name in ("wildcat", "first"):
        row[f"{name}_ratio"] = round(float(np.median(each["pydensecrf2"] / each[name])), 3)
    row |= {"equal_labels_min": round(equal, 6), "difference_max": float(f"{difference:.2e}")}
    for name in ("wildcat", "pydensecrf2"):
        row[f"{name}_memory_mb"] = round(measure_memory(name, labels, photos[0], settings, threads), 1)
    return row, samples


def table(row: dict[str, Any]) -> str:
    def spread(name: str) -> str:
        return f"{row[f'{name}_ms_median']:.0f} ({row[f'{name}_ms_q1']:.0f}-{row[f'{name}_ms_q3']:.0f})"

    return (
        f"{row['preset']:>10} {row['labels']:>6} {spread('wildcat'):>16} {spread('pydensecrf2'):>16}"
        f" {row['wildcat_ratio']:>6.2f} {row['first_ratio']:>6.2f} {100 * row['equal_labels_min']:>10.3f} %"
        f" {row['difference_max']:>9.1e} {row['wildcat_memory_mb']:>5.0f} / {row['pydensecrf2_memory_mb']:.0f}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a table, write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder with photographs of 500 x 375")
    parser.add_argument("--count", type=int, default=8, help="photographs")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each on each photograph")
    parser.add_argument("--labels", type=int, nargs="+", default=[2, 4, 21])
    parser.add_argument("--presets", nargs="+", default=["krahenbuhl"], choices=list(PRESETS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of the CSV files")
    parser.add_argument("--smoke", action="store_true", help="seconds: small images, three labels, nothing written")
    options = parser.parse_args(arguments)
    size = SIZE
    if options.smoke:
        size = (64, 48)
        options.photos, options.count, options.repeat, options.labels = None, 2, 1, [3]
    torch.set_num_threads(options.threads)
    photos = photographs(options.photos, options.count, size)
    where = environment() | {"threads": options.threads}
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    print(f"{len(photos)} photographs of {size[0]} x {size[1]}, {options.repeat} runs each; ms, median (quartiles)")
    print(
        f"{'preset':>10} {'labels':>6} {'wildcat':>16} {'pydensecrf2':>16} {'ratio':>6} {'first':>6}"
        f" {'equal labels':>12} {'max |dQ|':>9} {'memory, MB':>10}"
    )
    rows, samples = [], []
    for preset in options.presets:
        for labels in options.labels:
            row, timed = compare(preset, labels, photos, options.repeat, options.threads)
            print(table(row), flush=True)
            rows.append(row | where)
            samples += timed
    if options.smoke:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "crf.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with (options.out / "crf_samples.csv").open("w", newline="") as file:
        plain = csv.writer(file)
        plain.writerow(("preset", "labels", "photograph", "run", "program", "seconds"))
        plain.writerows(samples)


if __name__ == "__main__":
    main()
