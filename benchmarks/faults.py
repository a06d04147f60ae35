"""Faults in training (kills, damaged files, a full disk): the resumed run must equal an undisturbed one.

    python -m benchmarks.faults                # 50 kills and everything else
    python -m benchmarks.faults --smoke        # 3 kills, nothing written

Trains a small network on synthetic images, with a state saved after each step, and disturbs it:

- kill: SIGKILL at a random moment: anywhere (also while it starts), between two steps, while a state is written, while
  the weights are written. It is started again with --resume until the next kill, or its end.
- damage: the newest state cut short, emptied, overwritten, or with a flipped bit; both states; weights; config.json.
- disk: the file system fills up (a small tmpfs, which needs root).
- stall: an image that never comes (a pipe nobody writes to).
- lock: a second run in the same folder. stop: SIGTERM.

After each fault, `wildcat train --resume` alone must end with exactly the weights and the curve of the undisturbed
run. Trainings are forked from this process, so that none spends its time on imports; each
is a process of its own that ends by its own exit code. Writes faults.csv, a row for each fault, to --out; exit code 1
if a fault had another outcome than it should.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.forked import Forked, Row, fault_row, shown, write
from wildcat.data.registry import open_dataset
from wildcat.errors import WildcatError
from wildcat.prediction.loading import load
from wildcat.runs import folder as checkpoint
from wildcat.runs.training_set import split_off
from wildcat.training.launch import train as _imported_before_the_forks  # noqa: F401
from wildcat.training.state import load_state

EPOCHS, STEPS = 12, 5
SETTINGS = {
    "train-split": "all",
    "backbone": "timm:test_resnet",
    "num-maps": "2",
    "image-size": "64",
    "epochs": str(EPOCHS),
    "batch-size": "4",
    "val-fraction": "0.25",
    "lr": "0.05",
    "warmup-epochs": "0.5",
    "workers": "0",
    "precision": "fp32",
    "save-minutes": "1e-9",
}


def written(folder: Path) -> set[int]:
    """When the newest state was written; nothing if there is none, or it is being renamed."""
    with contextlib.suppress(FileNotFoundError):
        return {(folder / checkpoint.STATE).stat().st_mtime_ns}
    return set()


class Training(Forked):
    """A forked `wildcat train --resume`."""

    def __init__(self, data: Path, folder: Path, **changed: str) -> None:
        words = ["train", "--no-pretrained", "--resume", "--data", f"folder:{data}", "--out", str(folder)]
        for name, value in {**SETTINGS, **{name.replace("_", "-"): value for name, value in changed.items()}}.items():
            words += [f"--{name}", value]
        super().__init__(words, folder)


class Faults:
    """What all faults share: images, the undisturbed run, and a place for the disturbed ones."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.random = place, random.Random(seed)
        self.data = place / "images"
        dataset = open_dataset("synthetic:count=27,size=64", "train")
        for index in range(len(dataset)):  # as files, so that one can be taken away
            file = self.data / "ab"[index % 2] / f"{index:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            dataset.image(index).save(file)
        self.whole = place / "whole"
        training = Training(self.data, self.whole)
        if training.wait() != 0:
            sys.exit(f"the undisturbed run failed: {training.message()}")
        self.number = 0

    def fresh(self) -> Path:
        self.number += 1
        return self.place / f"run{self.number}"

    def part_way(self, states: int = 7) -> Path:
        """A run that was killed after some states."""
        folder = self.fresh()
        training = Training(self.data, folder)
        seen: set[int] = set()

        def saved() -> bool:
            seen.update(written(folder))
            return len(seen) >= states

        if not training.until(saved):
            sys.exit(f"the run ended before it was disturbed: {training.message()}")
        training.signal(signal.SIGKILL)
        training.wait()
        return folder

    def difference(self, folder: Path) -> str:
        """In what a finished run differs from the undisturbed one; "" if in nothing."""
        if (folder / checkpoint.WEIGHTS).read_bytes() != (self.whole / checkpoint.WEIGHTS).read_bytes():
            return "other weights"
        if curve(folder) != curve(self.whole):
            return "another curve"
        left = [file.name for file in folder.iterdir() if file.name.startswith(".")]
        return f"left {', '.join(left)}" if left else ""

    def mended(self, folder: Path) -> str:
        """The outcome of `--resume`."""
        training = Training(self.data, folder)
        if training.wait() != 0:
            return f"--resume failed: {training.message()}"
        return self.difference(folder) or "identical"


def curve(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without what depends on the clock."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in csv.DictReader(file)
        ]


def where(folder: Path) -> str:
    """How far the newest whole state of a run is, and what was being written."""
    state = load_state(folder)
    progress = "no state" if state is None else f"epoch {state['progress']['epoch']} step {state['progress']['step']}"
    writing = [re.sub(r"^\.(.*?)\.[^.]+\.tmp$", r"\1", file.name) for file in folder.glob(".*.tmp")]
    return progress + (f", while writing {', '.join(sorted(writing))}" if writing else "")


KINDS = {"anywhere": 4, "between states": 3, "saving": 4, "writing weights": 1}  # and how often


def strike(training: Training, folder: Path, kind: str, random: random.Random) -> None:
    """Kill a training at a moment of a kind, unless it ends before."""
    start = time.monotonic()
    turns, wait = random.randrange(1, 15), random.random()
    seen: set[int] = set()

    def saved() -> bool:
        seen.update(written(folder))
        return len(seen) > turns

    moments: dict[str, Callable[[], bool]] = {
        "anywhere": lambda: time.monotonic() - start > 2 * wait,
        "between states": saved,
        "saving": lambda: saved() and any(folder.glob(f".{checkpoint.STATE}.*.tmp")),
        "writing weights": lambda: any(folder.glob(f".{checkpoint.WEIGHTS}.*.tmp")),
    }
    if training.until(moments[kind]):
        if kind == "between states":
            time.sleep(0.05 * wait)
        training.signal(signal.SIGKILL)


def kills(faults: Faults, count: int) -> Iterator[Row]:
    """SIGKILL, again and again."""
    done = 0
    while done < count:
        folder, pending = faults.fresh(), []
        while True:
            training = Training(faults.data, folder)
            kind = faults.random.choices(list(KINDS), list(KINDS.values()))[0]
            if done + len(pending) < count:
                strike(training, folder, kind, faults.random)
            code = training.wait()
            if code != -signal.SIGKILL:
                break
            pending.append((kind, where(folder)))
        # It came to its end, so what all the kills before did is known.
        outcome = faults.difference(folder) or "identical" if code == 0 else f"exit {code}: {training.message()}"
        yield from (fault_row("kill", kind, found, outcome) for kind, found in pending)
        done += len(pending)


def flip(content: bytes, random: random.Random) -> bytes:
    """One bit of the numbers that make up most of the file."""
    place = random.randrange(len(content) // 4, 3 * len(content) // 4)
    return content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]


def damage(faults: Faults) -> Iterator[Row]:
    """Damaged files: states are skipped, weights and settings rejected in one line."""
    ways: dict[str, Callable[[bytes], bytes]] = {
        "cut short": lambda content: content[: faults.random.randrange(1, len(content))],
        "emptied": lambda _: b"",
        "overwritten": lambda content: bytes(len(content)),
        "a flipped bit": lambda content: flip(content, faults.random),
    }
    for name, way in ways.items():
        folder = faults.part_way()
        file = folder / checkpoint.STATE
        file.write_bytes(way(file.read_bytes()))
        outcome = faults.mended(folder)
        yield fault_row("damage", f"state {name}", "", outcome)
    folder = faults.part_way()
    for file in (folder / checkpoint.STATE, folder / checkpoint.PREVIOUS_STATE):
        file.write_bytes(flip(file.read_bytes(), faults.random))
    training = Training(faults.data, folder)
    rejected = training.wait() == 2 and "is damaged" in training.message()
    for file in (folder / checkpoint.STATE, folder / checkpoint.PREVIOUS_STATE):
        file.unlink()  # as the message advises
    outcome = faults.mended(folder) if rejected else f"not rejected: {training.message()}"
    yield fault_row("damage", "both states", training.message(), outcome)
    for target in (checkpoint.WEIGHTS, checkpoint.CONFIG):
        for name, way in ways.items():
            if target == checkpoint.CONFIG and name == "a flipped bit":
                continue  # a text of settings: another value is a value too
            folder = faults.fresh()
            shutil.copytree(faults.whole, folder)
            (folder / target).write_bytes(way((folder / target).read_bytes()))
            try:
                load(folder)
                message = "loaded"
            except WildcatError as error:
                message = str(error)
            good = message != "loaded" and "\n" not in message
            yield fault_row("damage", f"{target} {name}", "", message.replace(f"{folder}/", ""), good)


def disk(faults: Faults) -> Iterator[Row]:
    """A tmpfs that fills up while it trains; then room is made."""
    for name, states in {"at the first state": 0.5, "at the second state": 1.5, "after three": 3.3}.items():
        mount = faults.place / f"tmpfs{states}"
        mount.mkdir()
        size = int((faults.whole / checkpoint.STATE).stat().st_size * states) + (1 << 17)  # beside config and curves
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            yield fault_row("disk", name, "skipped: needs root", "", True)
            continue
        try:
            folder = mount / "run"
            folder.mkdir()
            if states > 3:  # room for the states, then something else takes what is left
                filler = mount / "filler"
                training = Training(faults.data, folder)
                training.until(lambda folder=folder: (folder / checkpoint.PREVIOUS_STATE).exists())  # type: ignore[misc]
                while not training.ended():
                    try:
                        with filler.open("ab") as stream:
                            stream.write(bytes(1 << 12))
                    except OSError:
                        time.sleep(0.001)
            else:
                training = Training(faults.data, folder)
            code = training.wait()
            message = training.message()
            rejected = code == 2 and "No space left on device" in message
            position = where(folder)
            kept = faults.place / f"saved{states}"  # a bigger disk
            shutil.copytree(folder, kept)
        finally:
            subprocess.run(["umount", "--lazy", str(mount)], check=True)
        outcome = faults.mended(kept) if rejected else f"exit {code}: {message}"
        yield fault_row("disk", name, position, outcome)


def stall(faults: Faults) -> Iterator[Row]:
    """An image that never comes, in training and in validation; then it is there again."""
    images = open_dataset(f"folder:{faults.data}", "all")
    parts = zip(("training", "validation"), split_off(images, float(SETTINGS["val-fraction"]), seed=0), strict=True)
    for name, part in parts:
        folder, victim = faults.part_way(), part.samples[1].path
        assert victim is not None
        content = victim.read_bytes()
        training = Training(faults.data, folder, workers="1", stall_minutes="0.05", cache_gb="0")
        before = written(folder)
        training.until(lambda folder=folder, before=before: not written(folder) <= before)  # type: ignore[misc]
        victim.unlink()
        os.mkfifo(victim)
        start = time.monotonic()
        code = training.wait()
        observed = f"exit {code} after {time.monotonic() - start:.0f} s"
        victim.unlink()
        victim.write_bytes(content)
        rejected = code == 2 and "no image could be read for stall_minutes" in training.message()
        outcome = faults.mended(folder) if rejected else training.message()
        yield fault_row("stall", f"a {name} image never comes", observed, outcome)


def lock(faults: Faults) -> Iterator[Row]:
    """Two runs in one folder: the second is rejected, the first is not disturbed."""
    folder = faults.fresh()
    first = Training(faults.data, folder)
    first.until(lambda: (folder / checkpoint.STATE).exists())
    second = Training(faults.data, folder)
    rejected = second.wait() == 2 and "is in use" in second.message()
    outcome = faults.difference(folder) or "identical" if first.wait() == 0 and rejected else second.message()
    yield fault_row("lock", "a second run", "rejected" if rejected else "", outcome)


def stop(faults: Faults) -> Iterator[Row]:
    """SIGTERM and SIGINT: the training saves its state, and the exit code names the signal."""
    for number, expected in {signal.SIGTERM: 143, signal.SIGINT: 130}.items():
        folder = faults.fresh()
        training = Training(faults.data, folder, save_minutes="60")
        training.until(lambda folder=folder: (folder / checkpoint.STATE).exists())  # type: ignore[misc]
        time.sleep(0.3 * faults.random.random())
        training.signal(number)
        code = training.wait()
        observed = f"exit {code}, {where(folder)}"
        outcome = faults.mended(folder) if code == expected else training.message()
        yield fault_row("stop", signal.Signals(number).name, observed, outcome)


def main(arguments: list[str] | None = None) -> int:
    """Disturb, print a line for each fault, write the file; 1 if one did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--parts", default="kill,damage,disk,stall,lock,stop", help="separated by commas")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of the CSV file")
    parser.add_argument("--smoke", action="store_true", help="3 kills and the quick parts, nothing written")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.kills, options.parts = 3, "kill,lock,stop"
    torch.set_num_threads(1)
    parts: dict[str, Callable[[Faults], Iterator[Row]]] = {
        "kill": lambda faults: kills(faults, options.kills),
        **{"damage": damage, "disk": disk, "stall": stall, "lock": lock, "stop": stop},
    }
    place = Path(tempfile.mkdtemp(prefix="faults"))
    rows: list[Row] = []
    faults = Faults(place, options.seed)
    for part in options.parts.split(","):
        for row in parts[part](faults):
            rows.append(row)
            if not options.smoke:
                write(
                    options.out / "faults.csv", rows
                )  # after each, so that a harness that is stopped keeps what it saw
            print(shown(row), flush=True)
    wrong = [row for row in rows if not row["good"]]
    print(f"{len(rows) - len(wrong)} of {len(rows)} faults ended as they should" + (f"; see {place}" if wrong else ""))
    if not wrong:
        shutil.rmtree(place)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
