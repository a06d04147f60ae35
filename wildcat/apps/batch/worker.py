"""The Ray actor of a batch: holds a model, predicts parts, writes their tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from wildcat.apps.batch.attempts import MAX_CRASHES_PER_IMAGE, AttemptLog
from wildcat.apps.batch.inputs import InputPart
from wildcat.apps.batch.results import ERRORS, PREDICTIONS, PartRecord, schemas, write_table
from wildcat.apps.batch.stores import is_url, local_version, printable
from wildcat.errors import WildcatError, first_line
from wildcat.export.network import Runtime
from wildcat.prediction.items import Failure, Item
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor
from wildcat.prediction.result import Prediction, Threshold
from wildcat.system.devices import Precision
from wildcat.system.memory import keep_freed_memory

logger = logging.getLogger(__name__)

ATTEMPTS = ".attempts"


@dataclass(frozen=True)
class WorkerSettings:
    """The settings of all workers of a batch.

    Attributes:
        run: run directory, hub name, "imagenet" or exported file.
        out: output folder, which all machines can access.
        threshold: probability from which a class counts as predicted.
        batch_size: images per forward pass.
        precision: precision of the backbone.
        runtime: runtime of the network.
        partial: read JPEGs that were cut as far as they go.
    """

    run: str
    out: str
    threshold: Threshold
    batch_size: int
    precision: Precision
    runtime: Runtime
    partial: bool = False


class BatchWorker:
    """An actor that predicts one part after another.

    It reads and decodes two forward passes ahead of the network, so its memory does not depend on the size of a part.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._out = Path(settings.out)

    @cached_property
    def _predictor(self) -> Predictor:
        """The model, loaded with the first part: a crash while loading is then in its log, and not repeated forever."""
        import ray

        on_gpu = ray.is_initialized() and ray.get_gpu_ids()
        torch.set_num_threads(1)  # there is one actor per CPU
        return load(
            self._settings.run,
            device="cuda" if on_gpu else "cpu",
            precision=self._settings.precision,
            runtime=self._settings.runtime,
        )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Predict the part of a batch of one and write its tables.

        Returns:
            The number of images, and the error message or "". Errors are returned, as Ray would wrap a raised one into
            an error of its own.
        """
        (text,) = batch["part"]
        part = InputPart.from_json(str(text))
        try:
            with keep_freed_memory():
                return {"images": [self._process(part)], "error": [""]}
        except (WildcatError, OSError) as error:
            return {"images": [0], "error": [printable(str(error))]}
        except Exception as error:
            return {"images": [0], "error": [printable(f"{part}: {type(error).__name__}: {first_line(error)}")]}

    def _process(self, part: InputPart) -> int:
        file = self._out / PREDICTIONS / f"{part.id}.parquet"
        if file.is_file():  # its writer ended before Ray received the result
            return 0
        log = AttemptLog(self._out / ATTEMPTS, part.id)
        if log.too_many_crashes:
            raise WildcatError(
                f"{len(log.crashes)} workers ended while they read {part}; check that the machine has enough memory"
            )
        log.start()
        reader = PartReader(part, self._settings.partial)
        rows, failures = self._predict(reader, log)
        if reader.error is not None:
            failures.append(_error_row(*reader.error))
        # Errors first: until the file of predictions exists, the part is unfinished and its errors are removed.
        prediction_schema, error_schema = schemas(self._predictor.settings.classes)
        predictions = _storable(rows, prediction_schema, failures)
        errors = _table(failures, error_schema)
        for folder, table in ((ERRORS, errors), (PREDICTIONS, predictions)):
            if table.num_rows or folder == PREDICTIONS:
                record = reader.record(table["file"].to_pylist())
                write_table(self._out / folder / file.name, table.replace_schema_metadata(record.to_metadata()))
        log.remove()
        return int(predictions.num_rows + errors.num_rows)

    def _predict(self, reader: PartReader, log: AttemptLog) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        """The rows of both tables. If a worker has crashed, or the network fails, images are predicted one by one."""
        predictor = self._predictor  # an error of the model is no error of an image
        if not log.crashes:
            try:
                return _split(self._rows(predictor.stream(reader, batch_size=self._settings.batch_size, **_STREAM)))
            except Exception as error:
                self._check_model()
                logger.debug("%s: one by one, after %s", reader.part, error)
        return _split(self._rows_one_by_one(reader, log))

    def _rows(self, results: Iterable[Prediction | Failure]) -> Iterator[dict[str, Any]]:
        for result in results:
            if isinstance(result, Failure):
                yield _error_row(result.name, result.message)
            else:
                yield result.to_dict(self._settings.threshold) | {"file": printable(result.name)}

    def _rows_one_by_one(self, reader: PartReader, log: AttemptLog) -> Iterator[dict[str, Any]]:
        """The rows of a part whose images may fail. If a worker has crashed, each is recorded before it is read."""
        crashing = log.crashing_images
        for item in reader:
            if item.name in crashing:
                message = f"{item.name}: skipped, because {MAX_CRASHES_PER_IMAGE} processes ended while reading it"
                yield _error_row(item.name, message)
                continue
            if log.crashes:
                log.record_image(item.name)
            try:
                (row,) = self._rows(self._predictor.stream([item], **_STREAM))
            except Exception as error:
                self._check_model()
                row = _error_row(item.name, f"{item.name}: cannot be predicted: {first_line(error)}")
            yield row

    def _check_model(self) -> None:
        """Raise what the model raises for any image, if it does: then the error is not that of an image."""
        grey = Image.new("RGB", (64, 64), "grey")
        next(self._predictor.stream([Item("grey", lambda _: grey)], multi_maps=False))


_STREAM: dict[str, Any] = {"on_error": "yield", "multi_maps": False}


def _split(rows: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The rows of predictions, and those of errors."""
    predictions: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    for row in rows:
        (failures if "error" in row else predictions).append(row)
    return predictions, failures


class PartReader:
    """Reads the images of a part, from the start each time that it is iterated over.

    Attributes:
        part: the part; with `partial`, its JPEGs that were cut are read as far as they go.
        error: name and message, if its file of several images could not be read to the end.
    """

    def __init__(self, part: InputPart, partial: bool = False) -> None:
        self.part = part
        self._partial = partial
        self.error: tuple[str, str] | None = None
        self._hidden = 0
        self._versions: dict[str, str] = {}

    def __iter__(self) -> Iterator[Item]:
        """The images; an error of their file ends them, and is kept."""
        self.error, self._hidden = None, 0
        try:
            for name, load in self.part.images(self._count_hidden, partial=self._partial):
                yield Item(name, self._guarded(name, load))
        except WildcatError as error:
            self.error = (self.part.names[0], str(error))

    def record(self, names: Iterable[str]) -> PartRecord:
        """The record of the part, for a table with images of these printable names."""
        images = [self._versions.get(name, "") for name in names] if self.part.source is None else []
        return PartRecord(self.part.source, self.part.version, self.error is None, self._hidden, tuple(images))

    def _count_hidden(self, count: int) -> None:
        self._hidden = count

    def _guarded(self, name: str, load: Callable[[int | None], Image.Image]) -> Callable[[int | None], Image.Image]:
        """A function that reads an image, and raises nothing but WildcatErrors; it notes the version of its file."""

        def guarded(size: int | None) -> Image.Image:
            if self.part.source is None and not is_url(name):
                self._versions[printable(name)] = local_version(name) or ""
            try:
                return load(size)
            except WildcatError:
                raise
            except Exception as error:
                raise WildcatError(f"{name}: cannot be read: {type(error).__name__}: {first_line(error)}") from error

        return guarded


def _error_row(name: str, message: str) -> dict[str, str]:
    return {"file": printable(name), "error": printable(message)}


def _table(rows: list[dict[str, Any]], schema: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema)


def _storable(rows: list[dict[str, Any]], schema: Any, failures: list[dict[str, str]]) -> Any:
    """A table of the rows that the schema can hold; of the others, an error is added to ``failures``."""
    try:
        return _table(rows, schema)
    except Exception:  # one row is enough
        kept = []
        for row in rows:
            try:
                _table([row], schema)
                kept.append(row)
            except Exception as error:
                failures.append(_error_row(row["file"], f"{row['file']}: cannot be stored: {first_line(error)}"))
        return _table(kept, schema)
