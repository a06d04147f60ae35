"""Starts Ray for a batch, or connects to a cluster, and ends it whatever ends the batch."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from wildcat.errors import WildcatError, first_line
from wildcat.system.signals import signals_handled

OBJECT_STORE_BYTES = 100 * 2**20  # Ray moves descriptions of parts, not images


def import_ray(address: str | None) -> Any:
    """Import Ray, with settings that it reads when it is imported.

    Args:
        address: of the cluster that will be used; None for a Ray of this machine alone, which then listens on the
            loopback interface only.

    Raises:
        WildcatError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics
    os.environ.setdefault("RAY_worker_niceness", "0")  # the default, 15, stalls on a busy machine
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # no warning for each actor that is restarted
    if address is None and "ray" not in sys.modules:
        # Where Ray knows no clusters, which it is by default on macOS and Windows, the address of a node is 127.0.0.1.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # other users of this machine cannot connect
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise WildcatError(f"batch prediction needs Ray ({error}): pip install 'wildcat-wsl[ray]'") from error
    return ray


@contextlib.contextmanager
def ray_session(ray: Any, address: str | None, workers: int | None) -> Iterator[None]:
    """Connect to a Ray cluster or start a local one, unless the caller has already done so."""
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            cores = workers or os.cpu_count()
            ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        else:
            ray.init(address=address, **quiet)
    except Exception as error:  # Ray raises plain Exceptions as well, as on a machine that is too busy
        failure = f"cannot connect to the Ray cluster {address}" if address else "Ray cannot be started"
        raise WildcatError(f"{failure}: {first_line(error)}") from error
    with end_on_signals():  # Ray has set a handler of its own, which ends the process at once
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def end_on_signals() -> Iterator[None]:
    """Raise SystemExit for the first SIGTERM or SIGHUP, with 128 + the signal, so that contexts end."""
    ended = False

    def end(number: int, _: Any) -> None:
        nonlocal ended
        if not ended:  # a second one would interrupt the cleaning up
            ended = True
            raise SystemExit(128 + number)

    with signals_handled(end):
        yield
