"""Which runtime is the fastest for a model on this machine."""

import importlib.util
import platform
import statistics
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import cast

import torch

from wildcat.export.network import ExportedNetwork
from wildcat.export.open import PACKAGES, Runtime, fingerprint
from wildcat.model import Wildcat, prepared
from wildcat.prediction.predictor import Predictor
from wildcat.system.files import read_json, write_json

CHOICE = "fastest.json"


def _fastest(predictor: Predictor, networks: dict[str, ExportedNetwork], folder: Path) -> Runtime:
    """The name of the fastest runtime for this model on this machine, measured once and then remembered."""
    packages = ("torch", *PACKAGES.values())
    where = {
        "machine": platform.node(),
        "threads": torch.get_num_threads(),
        "precision": predictor.precision,
        "versions": {name: metadata.version(name) for name in packages if importlib.util.find_spec(name)},
        "fingerprint": fingerprint(predictor.model, predictor.settings),
    }
    file = folder / CHOICE
    if file.is_file():
        known = read_json(file)
        if all(known.get(key) == value for key, value in where.items()):
            return cast(Runtime, known["fastest"])
    size = max(*predictor.settings.score_sizes, *predictor.settings.map_sizes)
    model = prepared(predictor.model, predictor.precision).merged()
    seconds = measure({"torch": model, **networks}, size)
    fastest = min(seconds, key=lambda name: seconds[name])
    write_json(file, {"fastest": fastest, "seconds": seconds, **where})
    return cast(Runtime, fastest)


def measure(networks: Mapping[str, Wildcat | ExportedNetwork], size: int) -> dict[str, float]:
    """Median seconds of each network for 4 images, of three runs, taken turn by turn after one to warm up."""
    pixels = torch.zeros(4, size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)  # as images come
    taken: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for _ in range(1 + 3):
            for name, network in networks.items():
                start = time.perf_counter()
                network(network.normalize(pixels))
                taken[name].append(time.perf_counter() - start)
    return {name: round(statistics.median(times[1:]), 6) for name, times in taken.items()}
