"""Start-up: from the start of the process to its end, for the help and for one image with the embedded classifier.

python -m benchmarks.startup            one run each, nothing written
python -m benchmarks.startup --full     five runs each
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import OURS, Report, options, photographs, scratch_folder


def seconds(*arguments: str | Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "wildcat", *map(str, arguments)], check=True, capture_output=True)
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, arguments)
    report = Report("startup", chosen)
    with scratch_folder() as folder:
        (image,) = photographs(1, Path(folder))
        commands = {
            "wildcat --help": (("--help",), "<= 0.7"),
            "wildcat predict imagenet one.jpg": (("predict", "imagenet", image, "--out", Path(folder) / "o"), "<= 3"),
        }
        for work, (command, goal) in commands.items():
            if chosen.full:
                seconds(*command)  # fills the file cache
            report.add(work, OURS, [seconds(*command) for _ in range(5 if chosen.full else 1)], "s", goal=goal)
    report.write()


if __name__ == "__main__":
    main()
