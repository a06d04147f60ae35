"""Processes of tests that start at once: forked from a server that has imported what most commands need.

A new Python needs several seconds for the imports of PyTorch. Here one process per test session needs them, when the
first test asks for it. A test about the start of Python itself, or about what is imported, starts its own.
"""

import atexit
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import current_process, get_context, set_start_method
from multiprocessing.connection import Connection
from typing import Any

SERVER = get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "wildcat.training.launch",
        "wildcat.prediction.predictor",
        "wildcat.cli.train",
        # What these import when they need it; it takes longer than the trainings of tests.
        "sklearn.svm",
        "timm",
        "torch._dynamo",
        "torch.distributed.checkpoint.state_dict",
        "torch.distributed.fsdp",
        "torch.distributed.tensor",
        "torch.utils.tensorboard",
        "torchvision",
    ]
)


class ForkedProcess:
    """A function called in a process of its own, with the attributes and methods of `subprocess.Popen` that tests use.

    Args:
        function: can be pickled; it ends the process with the exit code that it returns or gives to `sys.exit`.
        arguments: of the function.
        environment: all variables of the process; None for those of this one.
    """

    def __init__(
        self,
        function: Callable[..., int | None],
        arguments: Sequence[Any] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        sys.audit("subprocess.Popen", function.__name__, arguments, None, None)  # tests/conftest.py counts processes
        self.args = list(arguments)
        pipes = [SERVER.Pipe(duplex=False) for _ in range(2)]
        variables = dict(os.environ if environment is None else environment)
        writers = [writer for _, writer in pipes]
        # A daemon, so that one that hangs does not keep the tests from ending.
        self._process = SERVER.Process(target=_call, args=(function, arguments, variables, *writers), daemon=True)
        self._process.start()
        for writer in writers:
            writer.close()
        self.stdout, self.stderr = (_text(reader) for reader, _ in pipes)
        self.pid: int = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What is left of both outputs, when the process has ended."""
        texts = ["", ""]

        def read(index: int, stream: io.TextIOWrapper) -> None:
            texts[index] = stream.read()

        streams = (self.stdout, self.stderr)
        threads = [threading.Thread(target=read, args=each, daemon=True) for each in enumerate(streams)]
        for thread in threads:
            thread.start()
        self.wait(timeout)
        for thread in threads:
            thread.join(timeout)
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        for stream in streams:
            stream.close()
        return texts[0], texts[1]


def _text(reader: Connection) -> io.TextIOWrapper:
    """A pipe as a text file."""
    stream = open(os.dup(reader.fileno()), encoding="utf-8", errors="surrogateescape")  # noqa: PTH123, SIM115
    reader.close()
    return stream


def _call(
    function: Callable[..., int | None],
    arguments: Sequence[Any],
    environment: dict[str, str],
    out: Connection,
    err: Connection,
) -> None:
    """Call a function in the new process, with its outputs and environment."""
    for connection, number in ((out, 1), (err, 2)):
        os.dup2(connection.fileno(), number)
        connection.close()
    sys.stdout, sys.stderr = (open(number, "w", 1, encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    current_process()._config["daemon"] = False  # type: ignore[attr-defined] # it may start processes
    # Its own processes start as in a new Python: workers of a DataLoader that come from a server survive its kill.
    set_start_method(None, force=True)
    os.environ.clear()
    os.environ.update(environment)
    code: Any = 1
    try:
        code = function(*arguments)
    except SystemExit as end:
        code = end.code
    finally:
        atexit._run_exitfuncs()  # which forked processes of multiprocessing leave out
        sys.stdout.flush()
        sys.stderr.flush()
    sys.exit(code)


def wildcat_command(*words: str) -> int:
    """What `python -m wildcat WORDS` does."""
    from wildcat.cli import main

    sys.argv = ["wildcat", *words]
    return main(list(words))
