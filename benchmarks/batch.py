"""A batch of images on a local Ray cluster of two workers, one of which is killed midway.

    python -m benchmarks.batch            240 images, nothing written
    python -m benchmarks.batch --full     20,000 images: about 15 minutes on two cores

At full size, the images are 1,000 real ones under 20 names each, predicted at 256 px by a lite0 that is trained for one
epoch. The batch must end without intervention, with every name once and the prediction of `wildcat predict`. Images per
second are measured between the first and the last part, including the time of the killed worker. Memory is that of the
process and of everything that Ray starts; shared pages are counted once. The cost of one image is measured separately,
part by part, for the plan in docs/scaling.md (`python -m benchmarks.planning`).
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import planning
from benchmarks.common import OURS, Report, options, photographs, scratch_folder, take_turns, voc_folder
from benchmarks.planning import NEEDED, PER_SECOND, WORKERS
from wildcat.apps.batch.inputs import InputPart
from wildcat.apps.batch.results import ERRORS, PREDICTIONS
from wildcat.apps.batch.worker import ATTEMPTS
from wildcat.cli import main as wildcat
from wildcat.config import TrainConfig, read_recipe
from wildcat.data.transforms import warp
from wildcat.prediction.loading import load
from wildcat.training.launch import train


def below(ancestor: int) -> set[int]:
    """A process and those that it has started, at any depth."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    family = {ancestor}
    while more := {number for number, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def memory(processes: set[int]) -> float:
    """What they hold together in MB, pages that are shared divided among those that share them."""
    held = 0.0
    for number in processes:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
            held += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
    return held


def at_work(out: Path) -> set[int]:
    """The processes that are reading parts."""
    processes = set()
    for file in (out / ATTEMPTS).glob("*.jsonl"):
        with contextlib.suppress(OSError, IndexError):  # finished meanwhile; not written yet
            begun = [note for note in map(json.loads, file.read_text().splitlines()) if "process" in note]
            processes.add(begun[-1]["process"])
    return processes


class Course:
    """What is seen of a batch from outside while it runs.

    Attributes:
        peak: memory of all processes, MB.
        back: seconds from the kill until a process that was not there before reads parts.
        code: of the batch.
    """

    def __init__(self, command: Sequence[str | Path], out: Path, half: int) -> None:
        self.peak = self.back = 0.0
        killed, known, struck, looked = 0, set[int](), 0.0, 0.0
        process = subprocess.Popen(list(map(str, command)))
        while process.poll() is None:
            time.sleep(0.005)
            workers = at_work(out)
            if not killed:
                known |= workers
                if len(known) == WORKERS and workers and len(parts_of(out)) >= half:
                    killed = min(workers)
                    os.kill(killed, signal.SIGKILL)
                    struck = time.monotonic()
            elif not self.back and workers - known:
                self.back = time.monotonic() - struck
            if time.monotonic() - looked > 1:
                self.peak = max(self.peak, memory(below(process.pid)))
                looked = time.monotonic()
        self.code = process.returncode
        if self.code or not self.back:
            sys.exit(f"the batch ended with {self.code}; a worker was {'' if killed else 'not '}killed")


def parts_of(out: Path) -> list[Path]:
    return list((out / PREDICTIONS).glob("*.parquet"))


def check(run: Path, links: Sequence[Path], real: Sequence[Path], out: Path, plain: Path) -> float:
    """Check that every name appears once with its plain prediction; the largest difference of a score, 0 to 1.

    There is one where batches of another size are rounded otherwise: a batch ends with each part.
    """
    import pyarrow.parquet as pq

    rows = [row for file in parts_of(out) for row in pq.ParquetFile(file).read().to_pylist()]
    if any((out / ERRORS).iterdir()) or sorted(row["file"] for row in rows) != sorted(map(str, links)):
        sys.exit(f"{len(rows)} rows for {len(links)} images: not each once")
    if wildcat(["predict", str(run), *map(str, real), "--out", str(plain), "--formats", "json"]):
        sys.exit("plain prediction failed")
    lines = (plain / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    expected = {row.pop("file"): row for row in map(json.loads, lines)}
    largest = 0.0
    for row in rows:
        reference = expected[os.path.realpath(row["file"])]
        largest = max(largest, *(abs(score - reference["scores"][name]) for name, score in row["scores"].items()))
        if largest > 0.01 or any(row[side] != reference[side] for side in ("width", "height")):
            sys.exit(f"{row['file']} differs from plain prediction: {row['scores']}, {reference['scores']}")
    return largest


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server of this machine for the files of a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def pieces(run: Path, real: Sequence[Path], folder: Path) -> dict[str, Callable[[], Any]]:
    """What a worker does with images, one thing at a time and in one thread."""
    torch.set_num_threads(1)
    predictor = load(run, precision="auto")
    side = max(*predictor.settings.score_sizes, *predictor.settings.map_sizes)
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for file in real:
            shard.add(file, file.name)

    def read(part: InputPart) -> list[np.ndarray]:
        return [warp(load(side), side) for _, load in part.images()]

    files, shard_part = InputPart("images", tuple(map(str, real))), InputPart("shard", (str(folder / "shard.tar"),))
    pixels = torch.from_numpy(np.stack(read(files)[:8])).permute(0, 3, 1, 2)
    network = predictor.batch_function(multi_maps=False)
    sizes = {*predictor.settings.score_sizes, *predictor.settings.map_sizes}

    def compute() -> None:
        with torch.inference_mode():
            for _ in range(0, len(real), 8):
                network(dict.fromkeys(sizes, pixels))

    return {
        "files: read and decode": lambda: read(files),
        "shard: read and decode": lambda: read(shard_part),
        "network": compute,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, arguments)
    report = Report("batch", chosen)
    count, distinct, part_size, timed = (20_000, 1000, 100, 64) if chosen.full else (240, 12, 4, 8)
    with scratch_folder() as name:
        folder = Path(name)
        (folder / "links").mkdir()
        real = [file.resolve() for file in photographs(distinct, folder)]
        links = [folder / "links" / f"{number:06}.jpg" for number in range(count)]
        for number, link in enumerate(links):
            link.symlink_to(real[number % distinct])
        settings: dict[str, Any] = {"data": "synthetic:count=24,size=64", "image_size": 64, "workers": 0}
        if chosen.full:
            reading = {"score_sizes": [256], "map_sizes": [256], "mirror": False}
            settings = {**read_recipe("voc07-mini"), **reading, "data": f"voc07:{voc_folder(distinct, folder)}"}
        run, out = train(TrainConfig(**{**settings, "epochs": 1}), folder / "run"), folder / "out"

        work = f"{count} images, {WORKERS} workers, one killed midway"
        command = [sys.executable, "-m", "wildcat", "batch", run, folder / "links", "--out", out]
        command += ["--workers", str(WORKERS), "--part-size", str(part_size)]
        start = time.monotonic()
        course = Course(command, out, count // part_size // 2)
        seconds = time.monotonic() - start
        largest = check(run, links, real, out, folder / "plain")
        times = sorted(file.stat().st_mtime for file in parts_of(out))
        rate = (count - part_size) / (times[-1] - times[0])
        report.add(
            work,
            OURS,
            [rate],
            PER_SECOND,
            note=f"every image once, scores within {largest:.5f} of plain prediction",
        )
        report.add(f"{work}: all of it", OURS, [seconds], "s", note="with the start of Ray and of the workers")
        report.add("until another process reads for the killed one", OURS, [course.back], "s")
        report.add("peak memory", OURS, [course.peak], "MB", note="of all processes together")
        size = sum(file.stat().st_size for file in parts_of(out)) / count
        report.add("a row of the results", OURS, [size], "bytes", note=f"{part_size} rows a file")
        report.add("an image's file", OURS, [sum(map(os.path.getsize, real)) / distinct], "bytes")

        calls = pieces(run, real[:timed], folder)
        with served(real[0].parent) as address:
            part = InputPart("images", tuple(f"{address}/{file.name}" for file in real[:timed]))
            calls["web server of this machine: read"] = lambda: [fetch(name) for name in part.names]
            for piece, times_of in take_turns(calls, 5 if chosen.full else 1).items():
                values = [1000 * value / timed for value in times_of]
                report.add(NEEDED + piece, OURS, values, "ms", note="an image, one thread")
    report.write()
    if chosen.full:
        planning.main([])


def fetch(name: str) -> int:
    """The size of what fsspec reads at an address."""
    import fsspec

    with fsspec.open(name) as stream:
        return len(stream.read())


if __name__ == "__main__":
    main()
