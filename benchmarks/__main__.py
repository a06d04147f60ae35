"""All benchmarks, each in a process of its own.

    python -m benchmarks                     at a smoke size: a few minutes, nothing written
    python -m benchmarks --full              at full size: about 25 minutes on two cores; writes results and the page
    python -m benchmarks --full --only maps  some of them

With --full a script whose results are newer than all of the code is not run again, so a run that was stopped resumes;
--only runs what it names in any case. WILDCAT_DATA names the folder of the images; without it photographs of
scikit-learn are taken. The CRF's benchmark has options of its own (`python -m benchmarks.crf --help`) and runs here at
its smoke size alone. `benchmarks.batch`, which needs Ray, the faults, and `benchmarks.versus`, which compares two
checkouts, are started by themselves.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import tables
from benchmarks.common import RESULTS

SCRIPTS = ("startup", "pooling", "maps", "predict", "growth", "runtimes", "train", "compiled")
ROOT = Path(__file__).resolve().parent.parent


def up_to_date(name: str) -> bool:
    sources = [*(ROOT / "wildcat").rglob("*.py"), ROOT / "benchmarks" / f"{name}.py"]
    sources += [ROOT / "benchmarks" / f"{helper}.py" for helper in ("common", "peers")]
    result = RESULTS / f"{name}.csv"
    return result.exists() and result.stat().st_mtime > max(source.stat().st_mtime for source in sources)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the size of the table")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, help="these alone")
    parser.add_argument("--threads", help="of PyTorch")
    chosen = parser.parse_args()
    options = (["--full"] if chosen.full else []) + (["--threads", chosen.threads] if chosen.threads else [])
    commands = {name: [name, *options] for name in chosen.only or SCRIPTS}
    if not chosen.full and not chosen.only:
        commands["crf"] = ["crf", "--smoke"]
    failed = []
    for name, (module, *rest) in commands.items():
        if chosen.full and not chosen.only and up_to_date(name):
            print(f"{name}: results are newer than the code")
            continue
        start = time.monotonic()
        if subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *rest], cwd=ROOT).returncode:
            failed.append(name)
        print(f"{name}: {time.monotonic() - start:.0f} s\n", flush=True)
    if chosen.full:
        tables.main([])
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
