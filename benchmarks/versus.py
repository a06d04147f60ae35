"""Speed of this checkout against another one, such as an older commit: start-up, prediction and training.

    git worktree add ../before COMMIT
    python -m benchmarks.versus ../before            a smoke size: about a minute
    python -m benchmarks.versus ../before --full     the sizes and turns that a conclusion needs

Both checkouts run the same worker in fresh processes, in turns, with one thread on one core, through the command line
and the public names alone, so module names may differ. A ratio is the median over turns of the other checkout's time
divided by this one's: above 1 this checkout is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
WORKER = """
import csv, json, sys, time
from pathlib import Path

work, folder, scratch, epochs = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
files = sorted(folder.iterdir())

def command(*arguments):
    from wildcat.cli import main
    assert main([str(argument) for argument in arguments]) == 0

start = time.perf_counter()
if work == "import":
    import wildcat
elif work == "help":
    command("--help")
elif work == "predict one":
    command("predict", "imagenet", files[0])
elif work == "predict folder":
    command("predict", "imagenet", folder, "--out", scratch, "--formats", "json")
seconds = time.perf_counter() - start
if work == "call":
    import wildcat
    predictor = wildcat.load("imagenet")
    predictor(str(files[0]))
    start = time.perf_counter()
    for file in files:
        predictor(str(file))
    seconds = (time.perf_counter() - start) / len(files)
elif work == "train":
    command("train", "--data", "synthetic:count=32,size=128", "--out", scratch / "run", "--image-size", "128",
            "--batch-size", "8", "--workers", "0", "--precision", "fp32", "--epochs", epochs)
    with (scratch / "run" / "metrics.csv").open() as stream:
        later = sorted(float(row["seconds"]) for row in csv.DictReader(stream))[: int(epochs) - 1]
    seconds = later[len(later) // 2] / 4  # an epoch has four steps; the slowest, the first, warms up
Path(sys.argv[5]).write_text(json.dumps(seconds))
"""
WORKS = {  # work -> what is timed
    "import": "import wildcat",
    "help": "wildcat --help, without the start of Python",
    "predict one": "predict imagenet one.jpg, without the start of Python",
    "predict folder": "predict imagenet FOLDER, start-up included",
    "call": "predictor(file), an image",
    "train": "training step, lite0, 128 px, batch 8",
}


def images(folder: Path, count: int) -> None:
    """Synthetic images as JPEG files."""
    from wildcat import open_dataset

    dataset = open_dataset(f"synthetic:count={count},size=448", "test")
    folder.mkdir()
    for index in range(count):
        dataset.image(index).save(folder / f"{index:03}.jpg")


def seconds(checkout: Path, work: str, folder: Path, epochs: int, core: int) -> float:
    """One run of a work in a fresh process of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pinned = ["taskset", "-c", str(core)] if shutil.which("taskset") else []
    with tempfile.TemporaryDirectory(prefix="wildcat-versus-") as scratch:
        answer = Path(scratch) / "seconds.json"
        command = [*pinned, sys.executable, "-c", WORKER, work, str(folder), scratch, str(epochs), str(answer)]
        ended = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True)
        if ended.returncode:
            sys.exit(f"{checkout}: {work} failed:\n{ended.stderr}")
        return float(json.loads(answer.read_text()))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the root of another checkout")
    parser.add_argument("--full", action="store_true", help="more images, epochs and turns")
    parser.add_argument("--only", nargs="+", choices=WORKS, default=list(WORKS), metavar="WORK", help=", ".join(WORKS))
    parser.add_argument("--core", type=int, default=min(getattr(os, "sched_getaffinity", lambda _: {0})(0)))
    chosen = parser.parse_args(arguments)
    count, epochs, turns = (64, 6, 7) if chosen.full else (4, 2, 1)
    checkouts = {"this": HERE, "other": chosen.other.resolve()}
    with tempfile.TemporaryDirectory(prefix="wildcat-versus-") as scratch:
        folder = Path(scratch) / "images"
        images(folder, count)
        for work in chosen.only:
            times: dict[str, list[float]] = {name: [] for name in checkouts}
            for turn in range(-1 if chosen.full else 0, turns):  # the first turn of --full warms up the file cache
                for name in list(checkouts)[:: 1 if turn % 2 else -1]:
                    times[name].append(seconds(checkouts[name], work, folder, epochs, chosen.core))
            times = {name: values[-turns:] for name, values in times.items()}
            this, other = (statistics.median(times[name]) for name in checkouts)
            ratio = statistics.median(b / a for a, b in zip(times["this"], times["other"], strict=True))
            print(f"{WORKS[work]:<58} this {this:8.4f} s  other {other:8.4f} s  ratio {ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
