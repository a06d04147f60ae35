"""Measures which runtime is the fastest for a model on this machine."""

import contextlib
import importlib.util
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import cast

import torch

from wildcat.errors import WildcatError
from wildcat.export.network import Runtime
from wildcat.export.open import PACKAGES
from wildcat.prediction.network import Network
from wildcat.prediction.predictor import Predictor
from wildcat.system.files import read_json, writable_folder, write_json

CHOICE = "fastest.json"


def fastest_runtime(predictor: Predictor, networks: Mapping[str, Network], folders: Sequence[Path]) -> Runtime:
    """The fastest runtime for a model on this machine, measured once and then read from ``fastest.json``.

    It is measured again on another machine, and with other threads, precision, versions, weights or settings.

    Args:
        predictor: of one model in PyTorch.
        networks: the exported file in other runtimes, by their names.
        folders: where the choice is kept: in the first of them that can be written.
    """
    packages = ("torch", *PACKAGES.values())
    conditions = {
        "machine": platform.node(),
        "threads": torch.get_num_threads(),
        "precision": predictor.precision,
        "versions": {name: metadata.version(name) for name in packages if importlib.util.find_spec(name)},
        "fingerprint": predictor.fingerprint,
    }
    for file in (folder / CHOICE for folder in folders):
        with contextlib.suppress(WildcatError):  # missing, or damaged: it is written again
            known = read_json(file)
            fastest = known.get("fastest")
            same = all(known.get(key) == value for key, value in conditions.items())
            if same and fastest in ("torch", *networks):
                return cast(Runtime, fastest)
    size = max(*predictor.settings.score_sizes, *predictor.settings.map_sizes)
    seconds = measure({"torch": predictor.single.network.merged(), **networks}, size)
    fastest = min(seconds, key=lambda name: seconds[name])
    with contextlib.suppress(WildcatError, OSError):  # measured again the next time
        write_json(writable_folder(folders) / CHOICE, {"fastest": fastest, "seconds": seconds, **conditions})
    return cast(Runtime, fastest)


def measure(networks: Mapping[str, Network], size: int) -> dict[str, float]:
    """Seconds that each network takes for 4 images of a size: the median of three passes after one to warm up."""
    pixels = torch.zeros(4, size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)  # laid out like decoded images
    taken: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for _ in range(1 + 3):
            for name, network in networks.items():
                start = time.perf_counter()
                network(network.normalize(pixels))
                taken[name].append(time.perf_counter() - start)
    return {name: round(statistics.median(times[1:]), 6) for name, times in taken.items()}
