"""Prediction of millions of images on Ray Data, on one machine or a cluster.

The inputs are split into parts. A pool of actors, one per CPU or GPU, predicts part after part and writes each one to
files whose name is determined by its images. So a part that is predicted twice, after a crash, is written once, and the
files in the output folder are what is finished.

Ray restarts an actor whose process was killed, and gives it its parts again. It then predicts the unfinished part image
by image, and skips an image at which two processes ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wildcat.apps.batch.inputs import InputPart, is_source, split_inputs
from wildcat.apps.batch.results import ERRORS, PREDICTIONS, count_rows, read_results
from wildcat.apps.batch.session import end_on_signals, import_ray, ray_session
from wildcat.apps.batch.stores import normal_name
from wildcat.apps.batch.worker import ATTEMPTS, BatchWorker, WorkerSettings
from wildcat.errors import WildcatError, check_choice, first_line
from wildcat.export.network import Runtime
from wildcat.prediction.loading import load
from wildcat.prediction.result import Threshold, check_threshold
from wildcat.system.devices import Precision
from wildcat.system.files import read_json, write_json
from wildcat.system.lock import FolderLock

logger = logging.getLogger(__name__)

SETTINGS_FILE = "batch.json"
SCORES = "0..1"  # unit of the scores; folders of earlier versions, in per cent, do not have the entry
MAX_TASKS = 10_000  # as Ray keeps a record of each task


@dataclass(frozen=True)
class BatchCounts:
    """The number of images in an output folder.

    Attributes:
        predicted: images with a prediction.
        failed: images in the table of errors.
        hidden: hidden images of shards, which are skipped, such as the ``._`` files of macOS.
    """

    predicted: int
    failed: int
    hidden: int = 0


def predict_all(
    run: str,
    inputs: Sequence[str],
    out: Path,
    *,
    address: str | None = None,
    workers: int | None = None,
    part_size: int = 1000,
    batch_size: int = 8,
    threshold: Threshold = 0.5,
    precision: Precision = "fp32",
    runtime: Runtime = "torch",
    on_bad_image: Literal["skip", "partial"] = "skip",
) -> BatchCounts:
    """Predict all images of the inputs that are not in the output folder yet. The same call again resumes a batch.

    ``out/predictions`` has Parquet files with a row per image, ``out/errors`` with a row per image that cannot be read.
    Files are written atomically. Progress is shown on standard error, if that is a terminal. SIGTERM and SIGHUP end the
    process with the usual exit codes, 143 and 129, after Ray was shut down.

    Args:
        run: run directory, hub name, "imagenet" or exported file, as for :func:`wildcat.load`.
        inputs: paths or URLs of images, folders, lists, Parquet files and shards, as for
            :func:`wildcat.apps.batch.inputs.split_inputs`.
        out: output folder, created if missing; all machines must have access to it.
        address: address of a Ray cluster, or "auto" for the one of this machine; None starts Ray for this call.
        workers: number of actors; None is one per GPU, or one per CPU if there is no GPU.
        part_size: images per output file, for images that are files of their own.
        batch_size: images per forward pass.
        threshold: probability, 0 to 1, from which a class counts as predicted, for all classes or by class.
        precision: precision of the backbone; "auto" is decided here, for all workers.
        runtime: runtime of the network, as for :func:`wildcat.load`; all but "torch" run on CPUs. The exported file is
            written before the workers start, to a place to which they must have access.
        on_bad_image: "partial" reads JPEGs that were cut as far as they go; "skip" counts them as errors, as others.

    Returns:
        The number of images in the output folder.

    Raises:
        WildcatError: wrong arguments, Ray not installed or not reachable, an output folder with predictions of another
            model, a part in which too many workers ended, or a full disk.

    >>> counts = predict_all("runs/mine", ["images/", "shard-000.tar"], Path("found"), workers=4)  # doctest: +SKIP
    >>> counts  # doctest: +SKIP
    BatchCounts(predicted=120000, failed=2, hidden=0)
    """
    if workers is not None and workers < 1:
        raise WildcatError(f"workers must be at least 1; got {workers}")
    check_choice(on_bad_image, ("skip", "partial"), "on_bad_image")
    ray = import_ray(address)
    if Path(run).exists():
        run = os.path.abspath(run)  # noqa: PTH100 - symbolic links are kept
    out = Path(os.path.abspath(out))  # noqa: PTH100
    predictor = load(run, device="cpu", precision=precision, runtime=runtime)
    check_threshold(threshold, predictor.settings.classes)
    precision, runtime = predictor.precision, predictor.runtime  # what "auto" selected
    settings = {"model": predictor.fingerprint, "threshold": threshold, "precision": precision, "scores": SCORES}
    if on_bad_image != "skip":  # left out otherwise, so that folders of earlier versions can be resumed
        settings["on_bad_image"] = on_bad_image
    logger.info("computing in %s", predictor.computation)
    with end_on_signals(), FolderLock(out):
        _check_settings(out / SETTINGS_FILE, settings)
        for folder in (out / PREDICTIONS, out / ERRORS):
            folder.mkdir(exist_ok=True)
        results = read_results(out)
        parts = split_inputs(inputs, part_size, results.finished_images())
        parts = results.unfinished_parts(parts, [name for name in map(normal_name, inputs) if is_source(name)])
        logger.debug("%d parts to predict", len(parts))
        if parts:
            shutil.rmtree(out / ATTEMPTS, ignore_errors=True)  # logs of an earlier call
            (out / ATTEMPTS).mkdir()
            worker_settings = WorkerSettings(
                run, str(out), threshold, batch_size, precision, runtime, partial=on_bad_image == "partial"
            )
            # Ray prints messages about ended processes to standard output.
            with contextlib.redirect_stdout(sys.stderr), ray_session(ray, address, workers):
                _predict_parts(ray, parts, worker_settings, workers)
            shutil.rmtree(out / ATTEMPTS)
        return BatchCounts(*count_rows(out))


def _check_settings(file: Path, settings: dict[str, Any]) -> None:
    """Write the settings file of an output folder, or check that the existing one has the same settings."""
    if not file.exists():
        if any((file.parent / PREDICTIONS).glob("*.parquet")):
            raise WildcatError(
                f"{file.parent} holds predictions, but not {file.name}, which names their model: choose another folder"
            )
        write_json(file, settings)
        return
    before = read_json(file)
    if "model" not in before:
        raise WildcatError(f"{file} is not of a batch, which writes a file of that name: choose another folder")
    if "scores" not in before:
        raise WildcatError(
            f"{file.parent} holds predictions of an earlier version, with scores in per cent; they are probabilities, "
            f"{SCORES}, now: choose another folder"
        )
    if different := [name for name in settings if before.get(name) != settings[name]]:
        raise WildcatError(
            f"{file.parent} holds predictions with another {' and '.join(different)}: choose another folder"
        )


def _predict_parts(ray: Any, parts: Sequence[InputPart], settings: WorkerSettings, workers: int | None) -> None:
    """Predict all parts with a pool of actors."""
    from tqdm import tqdm

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # tqdm shows the progress
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if settings.runtime == "torch" else 0
    cores = int(resources.get("CPU", 1))
    workers = min(workers or gpus or cores, len(parts))
    dataset = ray.data.from_items(
        [{"part": part.to_json()} for part in parts], override_num_blocks=min(len(parts), MAX_TASKS)
    )
    # Ray Data gives an actor a few parts at a time, and restarts an actor that ended, with the same parts and without
    # limit. The limit is per part (attempts.py) and not per actor, as a batch may run for weeks.
    results = dataset.map_batches(
        BatchWorker,
        fn_constructor_args=[settings],
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )
    resume = f"finished parts are in {settings.out}; run the same command again to resume"
    try:
        with tqdm(desc="predicting", unit=" images", disable=None) as progress:
            for row in results.iter_rows():
                if row["error"]:
                    raise WildcatError(f"{row['error']} ({resume})")
                progress.update(row["images"])
    except ray.exceptions.RayError as error:
        raise WildcatError(f"Ray failed: {first_line(error)} ({resume})") from error
