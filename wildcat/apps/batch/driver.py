"""Predictions of millions of images, on Ray Data: one machine or a cluster.

The inputs are cut into parts; a pool of actors, one per CPU, reads part after part and writes each whole, under a
name that its images determine. So a part that is read twice, after a crash, is one file, and what a folder holds is
what is finished.

An actor whose process is killed is started anew by Ray, and given its parts again. It reads the one under way image
by image, and leaves out an image that has ended two processes.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from wildcat.apps.batch.attempts import Attempts
from wildcat.apps.batch.inputs import Part, parts_of
from wildcat.errors import WildcatError, first_line
from wildcat.export.network import Runtime
from wildcat.prediction.items import Failure, Item
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor
from wildcat.prediction.result import Prediction, Threshold
from wildcat.system.devices import Precision
from wildcat.system.files import UNFINISHED, is_unfinished, write_atomically, write_json
from wildcat.system.lock import locked
from wildcat.system.memory import keep_freed_memory

PREDICTIONS = "predictions"
ERRORS = "errors"
ATTEMPTS = ".attempts"
ABOUT = "batch.json"
OBJECT_STORE = 100 * 2**20  # bytes; Ray moves notes of where images are, not images
MAX_TASKS = 10_000  # tasks at most: Ray keeps a record of each


@dataclass(frozen=True)
class Done:
    """What a folder holds.

    Attributes:
        predicted: images with a prediction.
        failed: images in the table of errors.
    """

    predicted: int
    failed: int


@dataclass(frozen=True)
class Work:
    """What each actor is told.

    Attributes:
        run: folder, name or exported file.
        out: folder that all machines see.
        threshold: probability from which a class is predicted.
        batch_size: images per pass of the network.
        precision: of the backbone.
        runtime: what the network runs in.
    """

    run: str
    out: str
    threshold: Threshold
    batch_size: int
    precision: Precision
    runtime: Runtime


class Reader:
    """An actor: a model, and the parts that it reads.

    It fetches and decodes two batches ahead of the network, whatever the size of a part.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._out = Path(work.out)

    @cached_property
    def _predictor(self) -> Predictor:
        """Loaded in the first part, whose notes then tell of a process that this ends; Ray would start it forever."""
        import ray

        on_gpu = ray.is_initialized() and ray.get_gpu_ids()
        torch.set_num_threads(1)  # there is an actor per CPU
        return load(
            self._work.run,
            device="cuda" if on_gpu else "cpu",
            precision=self._work.precision,
            runtime=self._work.runtime,
        )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Read and write the part of a batch of one.

        Returns:
            How many images that were, and why it could not be done, or "": an exception would reach the driver only
            as a part of Ray's own.
        """
        (note,) = batch["part"]
        try:
            with keep_freed_memory():
                return {"images": [self._read(Part.from_json(str(note)))], "error": [""]}
        except (WildcatError, OSError) as error:
            return {"images": [0], "error": [str(error)]}

    def _read(self, part: Part) -> int:
        file = self._out / PREDICTIONS / f"{part.id}.parquet"
        if file.is_file():  # the process that wrote it ended before Ray knew
            return 0
        attempts = Attempts(self._out / ATTEMPTS, part.id)
        if attempts.hopeless:
            raise WildcatError(
                f"{len(attempts.ended)} workers have ended while they read {part}: is there memory enough?"
            )
        attempts.begin()
        rows: list[dict[str, Any]] = []
        failures: list[dict[str, str]] = []
        for found in self._one_by_one(part, attempts) if attempts.ended else self._stream(_items(part)):
            if isinstance(found, Failure):
                failures.append({"file": found.name, "error": found.message})
            else:
                rows.append(found.to_dict(self._work.threshold))
        # Errors first: without the predictions' file the part is not finished and the errors are dropped.
        prediction, failure = schemas(self._predictor.settings.classes)
        if failures:
            _write(self._out / ERRORS / file.name, failures, failure)
        _write(file, rows, prediction)
        attempts.forget()
        return len(rows) + len(failures)

    def _stream(self, items: Iterable[Item]) -> Iterator[Prediction | Failure]:
        return self._predictor.stream(items, batch_size=self._work.batch_size, on_error="yield", multi_maps=False)

    def _one_by_one(self, part: Part, attempts: Attempts) -> Iterator[Prediction | Failure]:
        """The images of a part in which a process has ended, each named before it is read."""
        deadly = attempts.deadly
        for item in _items(part):
            if item.name in deadly:
                message = f"{item.name} ended the process that read it, and the next one too: it is left out"
                yield Failure(item.name, message)
            else:
                attempts.reading(item.name)
                yield from self._stream([item])


def _items(part: Part) -> Iterator[Item]:
    """The images of a part; a file of many that breaks off ends with an error under its own name."""
    try:
        for name, source in part.images():
            yield Item(name, source)
    except WildcatError as error:
        broken = error

        def reject(_: int | None) -> Any:
            raise broken

        yield Item(part.names[0], reject)


def schemas(classes: Sequence[str]) -> tuple[Any, Any]:
    """Columns of the predictions, which are those of ``predictions.jsonl``, and of the errors."""
    import pyarrow as pa

    number, text = pa.float64(), pa.string()
    predicted = pa.struct([("class", text), ("score", number), ("point", pa.list_(number, 2))])
    scores = pa.struct([(name, number) for name in classes])
    prediction = [("file", text), ("width", pa.int32()), ("height", pa.int32())]
    prediction += [("predicted", pa.list_(predicted)), ("scores", scores)]
    return pa.schema(prediction), pa.schema([("file", text), ("error", text)])


def _write(file: Path, rows: Sequence[Mapping[str, Any]], schema: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), buffer, compression="zstd")
    write_atomically(file, buffer.getvalue())


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
    precision: Precision = "auto",
    runtime: Runtime = "torch",
) -> Done:
    """Read all images of the inputs that are not read yet; the same again resumes where it stopped.

    ``out/predictions`` holds a row per image, in Parquet files, ``out/errors`` one per image that cannot be read.
    Files get their names when they are whole.

    Args:
        run: what :func:`wildcat.load` takes.
        inputs: what :func:`wildcat.apps.batch.inputs.parts_of` takes.
        out: folder, made if needed; seen by all machines.
        address: of a Ray cluster, "auto" for the one of this machine; None starts one here, for this call.
        workers: models at work; one per GPU, or per CPU where there is none, unless given.
        part_size: images per file of the output, where they are files of their own.
        batch_size: images per pass of the network.
        threshold: probability from which a class is predicted.
        precision: of the backbone.
        runtime: what the network runs in, as for :func:`wildcat.load`; all but "torch" computes on CPUs.
            The exported file is made before the workers start, where they must see it.

    Raises:
        WildcatError: for a mistake in what is given, a folder with predictions of another model, or a full disk.

    >>> predict_all("runs/mine", ["images/"], Path("predictions"))  # doctest: +SKIP
    """
    if workers is not None and workers < 1:
        raise WildcatError(f"there must be at least 1 worker; got {workers}")
    ray = _ray()
    if Path(run).exists():
        run = os.path.abspath(run)  # noqa: PTH100 - links stay as they are named
    out = Path(os.path.abspath(out))  # noqa: PTH100
    predictor = load(run, device="cpu", precision=precision, runtime=runtime)
    about = {"model": predictor.fingerprint, "threshold": threshold, "precision": precision}
    runtime = predictor.runtime  # that which "auto" has chosen
    with locked(out):
        _check_same(out / ABOUT, about)
        for folder in (out / PREDICTIONS, out / ERRORS):
            folder.mkdir(exist_ok=True)
        parts = [part for part in parts_of(inputs, part_size, _finished(out)) if not _is_written(out, part)]
        if parts:
            shutil.rmtree(out / ATTEMPTS, ignore_errors=True)  # they tell of the workers of one command
            (out / ATTEMPTS).mkdir()
            # What Ray says of processes that end comes by standard output, until it has ended: with other messages.
            with contextlib.redirect_stdout(sys.stderr), _connected(ray, address, workers):
                _run(ray, parts, Work(run, str(out), threshold, batch_size, precision, runtime), workers)
            shutil.rmtree(out / ATTEMPTS)
        return Done(_rows(out / PREDICTIONS), _rows(out / ERRORS))


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 stops a batch wherever anything else computes
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it warns of each actor that can be started anew
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise WildcatError(f"batch prediction needs Ray ({error}): pip install 'wildcat-wsl[ray]'") from error
    return ray


def _check_same(file: Path, about: dict[str, Any]) -> None:
    """Predictions of two models, or of two thresholds, are not mixed in a folder."""
    if not file.is_file():
        write_json(file, about)
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    if different := [name for name in about if before.get(name) != about[name]]:
        raise WildcatError(
            f"{file.parent} holds predictions with another {' and '.join(different)}: choose another folder"
        )


def _is_written(out: Path, part: Part) -> bool:
    return (out / PREDICTIONS / f"{part.id}.parquet").is_file()


def _finished(out: Path) -> set[str]:
    """Names of the images that are in the tables; what a kill has left beside them is removed."""
    import pyarrow.parquet as pq

    for folder in (out / PREDICTIONS, out / ERRORS):
        for file in folder.glob(UNFINISHED):
            if is_unfinished(file):
                file.unlink(missing_ok=True)
    for file in (out / ERRORS).glob("*.parquet"):
        if not (out / PREDICTIONS / file.name).is_file():
            file.unlink()
    names: set[str] = set()
    for folder in (out / PREDICTIONS, out / ERRORS):
        for file in sorted(folder.glob("*.parquet")):
            inside = pq.ParquetFile(file).read(["file"])["file"].to_pylist()
            if not inside and not (out / ERRORS / file.name).is_file():  # the errors were deleted: all is tried again
                file.unlink()
            names.update(inside)
    return names


def _rows(folder: Path) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in folder.glob("*.parquet"))


@contextlib.contextmanager
def _connected(ray: Any, address: str | None, workers: int | None) -> Iterator[None]:
    if ray.is_initialized():  # the caller's
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            cores = workers or os.cpu_count()
            ray.init(num_cpus=cores, include_dashboard=False, object_store_memory=OBJECT_STORE, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"no Ray cluster at {address}" if address else "Ray cannot be started"
        raise WildcatError(f"{where}: {first_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _run(ray: Any, parts: Sequence[Part], work: Work, workers: int | None) -> None:
    """Have a pool of actors read and write all parts."""
    from tqdm import tqdm

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # there is one here
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    has = ray.cluster_resources()
    gpus = int(has.get("GPU", 0)) if work.runtime == "torch" else 0
    cores = int(has.get("CPU", 1))
    workers = min(workers or gpus or cores, len(parts))
    notes = ray.data.from_items(
        [{"part": part.to_json()} for part in parts], override_num_blocks=min(len(parts), MAX_TASKS)
    )
    # Ray Data gives an actor a few parts at a time, and where its process ends starts it anew with the same parts, as
    # often as it takes. The limit is a part's (attempts.py), not an actor's: a batch may take weeks.
    done = notes.map_batches(
        Reader,
        fn_constructor_args=[work],
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
    )
    goes_on = f"what is finished is in {work.out}; the same command resumes"
    try:
        with tqdm(desc="predicting", unit=" images", disable=None) as shown:
            for row in done.iter_rows():
                if row["error"]:
                    raise WildcatError(f"{row['error']} ({goes_on})")
                shown.update(row["images"])
    except ray.exceptions.RayError as error:
        raise WildcatError(f"Ray gave up: {first_line(error)} ({goes_on})") from error
