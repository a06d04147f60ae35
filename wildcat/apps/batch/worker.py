"""The Ray actor of a batch: holds a model, predicts parts, writes their tables."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from wildcat.apps.batch.attempts import MAX_CRASHES_PER_IMAGE, AttemptLog
from wildcat.apps.batch.inputs import InputPart
from wildcat.errors import WildcatError
from wildcat.export.network import Runtime
from wildcat.prediction.items import Failure, Item
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor
from wildcat.prediction.result import Prediction, Threshold
from wildcat.system.devices import Precision
from wildcat.system.files import write_atomically
from wildcat.system.memory import keep_freed_memory

PREDICTIONS = "predictions"
ERRORS = "errors"
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
    """

    run: str
    out: str
    threshold: Threshold
    batch_size: int
    precision: Precision
    runtime: Runtime


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
        (part,) = batch["part"]
        try:
            with keep_freed_memory():
                return {"images": [self._process(InputPart.from_json(str(part)))], "error": [""]}
        except (WildcatError, OSError) as error:
            return {"images": [0], "error": [str(error)]}

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
        rows: list[dict[str, Any]] = []
        failures: list[dict[str, str]] = []
        for result in self._stream_one_by_one(part, log) if log.crashes else self._stream(_items(part)):
            if isinstance(result, Failure):
                failures.append({"file": result.name, "error": result.message})
            else:
                rows.append(result.to_dict(self._settings.threshold))
        # Errors first: until the file of predictions exists, the part is unfinished and its errors are removed.
        prediction_schema, error_schema = schemas(self._predictor.settings.classes)
        if failures:
            _write(self._out / ERRORS / file.name, failures, error_schema)
        _write(file, rows, prediction_schema)
        log.remove()
        return len(rows) + len(failures)

    def _stream(self, items: Iterable[Item]) -> Iterator[Prediction | Failure]:
        return self._predictor.stream(items, batch_size=self._settings.batch_size, on_error="yield", multi_maps=False)

    def _stream_one_by_one(self, part: InputPart, log: AttemptLog) -> Iterator[Prediction | Failure]:
        """Predict the images of a part in which a worker has crashed, and record each one before it is read."""
        crashing = log.crashing_images
        for item in _items(part):
            if item.name in crashing:
                message = f"{item.name}: skipped, because {MAX_CRASHES_PER_IMAGE} processes ended while reading it"
                yield Failure(item.name, message)
            else:
                log.record_image(item.name)
                yield from self._stream([item])


def _items(part: InputPart) -> Iterator[Item]:
    """The images of a part. If its file of several images cannot be read further, a last item raises the error."""
    try:
        for name, source in part.images():
            yield Item(name, source)
    except WildcatError as error:
        unreadable = error

        def reject(_: int | None) -> Any:
            raise unreadable

        yield Item(part.names[0], reject)


def schemas(classes: Sequence[str]) -> tuple[Any, Any]:
    """The Arrow schemas of the predictions, whose columns are those of ``predictions.jsonl``, and of the errors."""
    import pyarrow as pa

    number, text = pa.float64(), pa.string()
    predicted = pa.struct([("class", text), ("score", number), ("point", pa.list_(number, 2))])
    scores = pa.struct([(name, number) for name in classes])
    prediction = [("file", text), ("width", pa.int32()), ("height", pa.int32())]
    prediction += [("predicted", pa.list_(predicted)), ("scores", scores), ("precision", text), ("runtime", text)]
    return pa.schema(prediction), pa.schema([("file", text), ("error", text)])


def _write(file: Path, rows: Sequence[Mapping[str, Any]], schema: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), buffer, compression="zstd")
    write_atomically(file, buffer.getvalue())
