"""Groups of processes that train together, forked from one that has imported everything: seconds, not minutes."""

import importlib
import json
import logging
import os
import signal
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from tests.processes import ForkedProcess


def run_groups(jobs: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Run groups, one after the other, in a process of their own, where each warning is an error.

    Args:
        jobs: {"count", "config", "out", "resume", "disturb"} of each. "disturb" is [signal, rank, epochs]: that process
            gets the signal once metrics.csv has that many epochs. With "call", "MODULE:FUNCTION", each process calls
            the function with its job instead of training.

    Returns:
        For each group {"codes", "seconds"}: the exit codes by rank, and the seconds between the signal and the end of
        the last process; and stderr of all.
    """
    process = ForkedProcess(_run_all, [jobs])
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")], err


def _member(rank: int, count: int, port: int, job: dict[str, Any]) -> None:
    from wildcat.config import TrainConfig
    from wildcat.errors import WildcatError
    from wildcat.training.launch import train

    if count > 1:
        group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ |= {key: str(value) for key, value in {**group, "MASTER_PORT": port}.items()}
        os.environ["MASTER_ADDR"] = "127.0.0.1"
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    code = 1
    try:
        if "call" in job:
            module, name = job["call"].split(":")
            getattr(importlib.import_module(module), name)(job)
        else:
            train(TrainConfig(**job["config"]), job["out"], resume=job.get("resume", False))
        code = 0
    except WildcatError as error:
        print(f"rank {rank}: {error}", file=sys.stderr)
        code = 2
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _epochs(folder: str) -> int:
    file = Path(folder) / "metrics.csv"
    return len(file.read_text().splitlines()) - 1 if file.exists() else 0


def _run(job: dict[str, Any]) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    members: dict[int, int] = {}  # process -> rank
    for rank in range(job["count"]):
        process = os.fork()
        if process == 0:
            _member(rank, job["count"], port, job)
        members[process] = rank
    number, victim, epochs = job.get("disturb") or (0, 0, 0)
    codes: dict[int, int] = {}
    disturbed = 0.0
    while len(codes) < job["count"]:
        process, status = os.waitpid(-1, os.WNOHANG)
        if process:
            codes[members[process]] = os.waitstatus_to_exitcode(status)
            continue
        if number and not disturbed and _epochs(job["out"]) >= epochs:
            os.kill(next(process for process, rank in members.items() if rank == victim), number)
            disturbed = time.monotonic()
        if disturbed and time.monotonic() - disturbed > 120:
            for process, rank in members.items():
                if rank not in codes:
                    os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    seconds = time.monotonic() - disturbed if disturbed else 0.0
    return {"codes": [codes[rank] for rank in range(job["count"])], "seconds": seconds}


def _run_all(jobs: list[dict[str, Any]]) -> int:
    warnings.simplefilter("error")
    for job in jobs:
        print(json.dumps(_run(job)), flush=True)
    return 0
