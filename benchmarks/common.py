"""Shared parts of the benchmarks: options, images, turns, and the rows that are written.

Contenders take turns in one run on one machine, so that other load on the machine affects all of them. Every number is
a median over turns with its quartiles; a ratio is the median over turns of the peer's time divided by ours.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from wildcat.export.write import export
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor

RESULTS = Path(__file__).parent / "results"
OURS = "wildcat"
OPENVINO = "wildcat, OpenVINO"  # the network in that runtime, in the precision that is faster
COLUMNS = ("work", "program", "unit", "turns", "q1", "median", "q3", "ratio", "goal", "note")


def environment() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": models[0] if models else platform.processor(),
        "cores": multiprocessing.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def held(what: str) -> float:
    """Resident memory of this process in MB: VmRSS now, VmHWM at its peak; NaN where the system does not report it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(what)), float("nan"))


def options(doc: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Options of every script: size of the work, threads, output folder."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the size of the table; else seconds, nothing written")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSV files")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    return chosen


def voc_folder(count: int, scratch: Path) -> Path:
    """A folder that holds VOCdevkit: WILDCAT_DATA's, or one with parts of scikit-learn's sample photographs."""
    real = Path(os.environ.get("WILDCAT_DATA", "../shared/data")) / "voc07-mini"
    if real.is_dir():
        return real
    from sklearn.datasets import load_sample_images

    voc = scratch / "VOCdevkit" / "VOC2007"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (voc / name).mkdir(parents=True, exist_ok=True)
    photographs = [Image.fromarray(photo) for photo in load_sample_images().images]
    names = [f"{number:06d}" for number in range(count)]
    for number, name in enumerate(names):
        left, top = 7 * number % 140, 3 * number % 52
        part = photographs[number % 2].crop((left, top, left + 500, top + 375))
        part.save(voc / "JPEGImages" / f"{name}.jpg", quality=85)
    from wildcat.data.voc import CLASSES

    for number, name in enumerate(names):
        (voc / "Annotations" / f"{name}.xml").write_text(
            "<annotation><size><width>500</width><height>375</height></size><object><name>"
            f"{CLASSES[number % len(CLASSES)]}</name><difficult>0</difficult><bndbox><xmin>10</xmin><ymin>10</ymin>"
            "<xmax>90</xmax><ymax>90</ymax></bndbox></object></annotation>"
        )
    for split in ("trainval", "test"):
        (voc / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for number, kind in enumerate(CLASSES):
            rows = [f"{name} {1 if i % len(CLASSES) == number else -1}\n" for i, name in enumerate(names)]
            (voc / "ImageSets/Main" / f"{kind}_{split}.txt").write_text("".join(rows))
    return scratch


def photographs(count: int, scratch: Path) -> list[Path]:
    """The first images of :func:`voc_folder`, by name."""
    folder = voc_folder(count, scratch) / "VOCdevkit" / "VOC2007" / "JPEGImages"
    files = sorted(folder.glob("*.jpg"))[:count]
    if len(files) < count:
        sys.exit(f"{folder} holds {len(files)} images, {count} are needed")
    return files


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="wildcat-bench-")


def in_openvino(predictor: Predictor, scratch: Path) -> Predictor:
    """The same predictor with its network exported and run by OpenVINO."""
    file = scratch / "model.onnx"
    export(predictor.model, predictor.settings, file)
    return load(file, runtime="openvino", precision="auto")


def take_turns(
    contenders: Mapping[str, Callable[[], Any]], turns: int, seconds_each: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each call; contenders take turns, and a first turn warms up and is not counted.

    With ``seconds_each`` a turn repeats a short call for about so long and counts the mean.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    repeats = dict.fromkeys(contenders, 1)
    for turn in range(-1, turns):
        for name, call in contenders.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            seconds = (time.perf_counter() - start) / repeats[name]
            if turn >= 0:
                times[name].append(seconds)
            elif seconds_each:
                repeats[name] = max(1, round(seconds_each / seconds))
    return times


@dataclass
class Report:
    """The rows and samples of one script."""

    name: str
    options: argparse.Namespace
    rows: list[dict[str, Any]] = field(default_factory=list)
    samples: list[tuple[Any, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.where = environment() | {"threads": self.options.threads}
        print(f"{self.name}: " + ", ".join(f"{key} {value}" for key, value in self.where.items()))

    def compare(
        self,
        work: str,
        times: Mapping[str, Sequence[float]],
        *,
        unit: str = "ms",
        per: float = 1.0,
        goal: str = "",
        note: str = "",
    ) -> None:
        """Rows of one comparison: seconds of each turn as ``unit``: "ms", "s", or "/s" for ``per`` things a turn."""
        ours = np.asarray(times[OURS])
        for program, seconds in times.items():
            values = np.asarray(seconds)
            shown = {"ms": 1000 * values / per, "s": values / per}.get(unit, per / values)
            ratio = "" if program == OURS else round(float(np.median(values / ours)), 3)
            self.add(work, program, shown, unit, ratio, goal if program != OURS else "", note)
            self.samples += [(work, program, turn, f"{value:.6f}") for turn, value in enumerate(seconds)]

    def compare_runtimes(self, work: str, times: Mapping[str, Sequence[float]], **details: Any) -> None:
        """A comparison with the peers for each of our runtimes."""
        peers = {program: seconds for program, seconds in times.items() if program not in (OURS, OPENVINO)}
        self.compare(work, {OURS: times[OURS], **peers}, **details)
        self.compare(f"{work}, runtime openvino", {OURS: times[OPENVINO], **peers}, **details)

    def add(
        self,
        work: str,
        program: str,
        values: Iterable[float],
        unit: str,
        ratio: float | str = "",
        goal: str = "",
        note: str = "",
    ) -> None:
        """One row: median and quartiles of values."""
        values = np.asarray(list(values))
        q1, median, q3 = (float(f"{value:.4g}") for value in np.quantile(values, (0.25, 0.5, 0.75)))
        row = (work, program, unit, len(values), q1, median, q3, ratio, goal, note)
        self.rows.append(dict(zip(COLUMNS, row, strict=True)) | self.where)
        faster = f"  wildcat x{ratio}" if isinstance(ratio, float) else f"  {ratio}"
        print(f"  {work:<44} {program:<28} {median:>10g} {unit} ({q1:g}-{q3:g}){faster} {note}", flush=True)

    def write(self) -> None:
        """The CSV files, at full size only."""
        if not self.options.full:
            return
        self.options.out.mkdir(parents=True, exist_ok=True)
        with (self.options.out / f"{self.name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)
        with (self.options.out / f"{self.name}_samples.csv").open("w", newline="") as file:
            plain = csv.writer(file)
            plain.writerow(("work", "program", "turn", "seconds"))
            plain.writerows(self.samples)
