"""Faults of prediction: `wildcat predict` and `wildcat batch` are killed at random moments; the same command resumes.

    python -m benchmarks.prediction_faults             # 50 kills of a batch and 20 of predict: about 8 minutes
    python -m benchmarks.prediction_faults --smoke     # 3 kills of predict, nothing written

- predict: SIGKILL while a folder is predicted into every format; the command starts again.
- batch: SIGKILL of the process that started Ray; the command resumes with the parts that are not written.
- worker: SIGKILL of a process that computes a part, without any further action.

After each kill, every file with a final name must be complete: those of predict equal an undisturbed run byte for
byte, those of a batch contain rows of the undisturbed run, none twice. At the end all files must exist. Predictions
are forked from this process, so they need no time for imports. Writes prediction_faults.csv, a row for each fault, to
--out; the exit code is 1 if a fault had a wrong outcome.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.batch import at_work
from benchmarks.forked import Forked, Row, fault_row, shown, write
from wildcat.apps.batch.results import ERRORS, PREDICTIONS
from wildcat.apps.batch.worker import ATTEMPTS
from wildcat.config import TrainConfig
from wildcat.data.registry import open_dataset
from wildcat.system.output_folder import LIST
from wildcat.training.launch import train

FORMATS = "json,csv,overlay,mask,yolo,voc,label-studio,cvat"
IMAGES, PART = 240, 4
WORKERS_KILLED = 3  # in one batch


class Place:
    """A run, images, and their undisturbed predictions."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.random = place, random.Random(seed)
        settings = {"data": "synthetic:count=24,size=64", "backbone": "timm:test_resnet", "pretrained": False}
        config = TrainConfig(
            **settings, num_maps=2, image_size=64, score_sizes=[192], epochs=1, batch_size=4, workers=0
        )
        self.run = train(config, place / "run")
        self.images = place / "images"
        self.images.mkdir()
        dataset = open_dataset(f"synthetic:count={IMAGES // 10},size=64", "train")
        for index in range(len(dataset)):
            dataset.image(index).save(self.images / f"{index:03}.png")
        (self.images / "broken.png").write_bytes(b"")  # one that cannot be read
        self.many = place / "many"
        self.many.mkdir()
        for number in range(IMAGES):
            (self.many / f"{number:03}.png").hardlink_to(self.images / f"{number % len(dataset):03}.png")
        (self.many / "broken.png").write_bytes(b"")
        self.number = 0
        self.whole = self.fresh()
        start = time.monotonic()
        if (undisturbed := self.predict(self.whole)).wait() != 1:
            sys.exit(f"the undisturbed prediction failed: {undisturbed.message()}")
        self.seconds = time.monotonic() - start
        plain = self.fresh()
        if (
            Forked(["predict", str(self.run), str(self.many), "--out", str(plain), "--formats", "json"], plain).wait()
            != 1
        ):
            sys.exit("the undisturbed prediction failed")
        lines = (plain / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        self.rows = {row["file"]: row for row in map(json.loads, lines)}

    def fresh(self) -> Path:
        self.number += 1
        return self.place / f"out{self.number}"

    def predict(self, out: Path) -> Forked:
        return Forked(
            [
                "predict",
                str(self.run),
                str(self.images),
                "--out",
                str(out),
                "--formats",
                FORMATS,
                "--batch-size",
                "2",
            ],
            out,
        )

    def batch(self, out: Path) -> Forked:
        words = ["batch", str(self.run), str(self.many), "--out", str(out)]
        return Forked([*words, "--part-size", str(PART), "--workers", "2", "--batch-size", "2"], out)


def named(out: Path) -> dict[str, bytes]:
    """The files that have their names."""
    return {
        str(file.relative_to(out)): file.read_bytes()
        for file in out.rglob("*")
        if file.is_file() and not file.name.startswith(".") and file.name != LIST  # which names them
    }


def predictions(place: Place, count: int) -> Iterator[Row]:
    """`wildcat predict` into the same folder, until it comes to its end."""
    whole = named(place.whole)
    done = 0
    while done < count:
        out, pending = place.fresh(), list[tuple[str, str]]()
        while True:
            process, start = place.predict(out), time.monotonic()
            wait = 1.1 * place.seconds * place.random.random()
            if done + len(pending) < count and process.until(lambda: time.monotonic() - start > wait):  # noqa: B023
                process.signal(signal.SIGKILL)
            code = process.wait()
            files = named(out)
            half = [name for name, content in files.items() if content != whole.get(name)]
            if code != -signal.SIGKILL:
                break
            pending.append((f"{len(files)} of {len(whole)} files", f"half files: {half}" if half else "identical"))
        end = "identical" if files == whole and code == 1 else f"exit {code}: {process.message()}"
        for seen, outcome in pending:
            yield fault_row("predict", "anywhere", seen, outcome if outcome != "identical" else end)
        done += len(pending)


def wrong_rows(place: Place, out: Path, complete: bool) -> str:
    """What is wrong with the rows in a batch's folder; "" if nothing is."""
    import pyarrow.parquet as pq

    rows = [row for file in (out / PREDICTIONS).glob("*.parquet") for row in pq.ParquetFile(file).read().to_pylist()]
    twice = [name for name, number in Counter(row["file"] for row in rows).items() if number > 1]
    if twice:
        return f"{len(twice)} images twice"
    if other := [row["file"] for row in rows if row != place.rows.get(row["file"])]:
        return f"{len(other)} rows differ"
    if complete:
        errors = [row for file in (out / ERRORS).glob("*.parquet") for row in pq.ParquetFile(file).read().to_pylist()]
        if [row["file"] for row in errors] != [str(place.many / "broken.png")]:
            return f"errors: {errors}"
        if len(rows) != len(place.rows):
            return f"{len(rows)} of {len(place.rows)} rows"
        if left := [str(file) for file in out.rglob("*") if file.suffix == ".tmp" or file.name == ATTEMPTS]:
            return f"left {left}"
    return ""


def written(out: Path) -> int:
    return len(list((out / PREDICTIONS).glob("*.parquet"))) if out.is_dir() else 0


def batches(place: Place, count: int) -> Iterator[Row]:
    """The process that started Ray is killed, again and again, until a batch comes to its end."""
    parts = -(-(IMAGES + 1) // PART)
    done = 0
    while done < count:
        out, pending = place.fresh(), list[tuple[str, str]]()
        while True:
            process = place.batch(out)
            anywhere = place.random.random() < 0.5
            wait = 8 * place.random.random() if anywhere else 0.5 * place.random.random()
            before, start = written(out), [0.0]

            def moment() -> bool:
                if not start[0] and (anywhere or written(out) > before):  # noqa: B023
                    start[0] = time.monotonic()  # noqa: B023
                return bool(start[0]) and time.monotonic() - start[0] > wait  # noqa: B023

            if done + len(pending) < count and process.until(moment, pause=0.005):
                process.signal(signal.SIGKILL)  # its workers run for some seconds beside those of the next command
            code = process.wait()
            if code != -signal.SIGKILL:
                break
            fault = "anywhere" if anywhere else "while parts are written"
            wrong = wrong_rows(place, out, complete=False) if out.is_dir() else ""
            pending.append((fault, f"{written(out)} of {parts} parts" + (f": {wrong}" if wrong else "")))
        end = wrong_rows(place, out, complete=True) or "identical" if code == 1 else f"exit {code}: {process.message()}"
        yield from (fault_row("batch", fault, found, "half" if ": " in found else end) for fault, found in pending)
        done += len(pending)


def workers(place: Place, count: int) -> Iterator[Row]:
    """Workers are killed while they read; the batch is left alone and must come to its end by itself."""
    done = 0
    while done < count:
        out, found = place.fresh(), list[str]()
        process = place.batch(out)
        parts = IMAGES // PART
        for after in sorted(place.random.choices(range(parts), k=min(WORKERS_KILLED, count - done))):
            if process.until(lambda: written(out) >= after and bool(at_work(out)), pause=0.005):  # noqa: B023
                with contextlib.suppress(ProcessLookupError, IndexError):  # it ended meanwhile; nobody is at work now
                    os.kill(place.random.choice(sorted(at_work(out))), signal.SIGKILL)
                    found.append(f"{written(out)} parts written")
        code = process.wait()
        end = wrong_rows(place, out, complete=True) or "identical" if code == 1 else f"exit {code}: {process.message()}"
        yield from (fault_row("worker", "while it reads", seen, end) for seen in found)
        done += len(found)


def main(arguments: list[str] | None = None) -> int:
    """Disturb, print a line for each fault, write the file; 1 if one did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", default="predict=20,batch=20,worker=30", help="of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of the CSV file")
    parser.add_argument("--smoke", action="store_true", help="3 kills of predict, nothing written")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    kinds: dict[str, Any] = {"predict": predictions, "batch": batches, "worker": workers}
    wanted = dict(part.split("=") for part in ("predict=3" if options.smoke else options.kills).split(","))
    if set(wanted) - {"predict"}:
        import ray.data  # noqa: F401 - before the forks
    scratch = Path(tempfile.mkdtemp(prefix="faults"))
    place, rows = Place(scratch, options.seed), list[Row]()
    for kind, number in wanted.items():
        for row in kinds[kind](place, int(number)):
            rows.append(row)
            if not options.smoke:
                write(options.out / "prediction_faults.csv", rows)
            print(shown(row), flush=True)
    wrong = [row for row in rows if not row["good"]]
    print(
        f"{len(rows) - len(wrong)} of {len(rows)} faults ended as they should" + (f"; see {scratch}" if wrong else "")
    )
    if not wrong:
        shutil.rmtree(scratch)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
