"""The tables in the output folder of a batch: written and read back, with a record of the part that each one is of.

The table of predictions and the table of errors of a part have the same name. While there is no table of predictions,
or its record says that the part is not complete, the part is not finished.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wildcat.apps.batch.inputs import InputPart
from wildcat.apps.batch.stores import is_url, local_version, normal_name, printable
from wildcat.errors import WildcatError, first_line, shorten
from wildcat.system.files import UNFINISHED, is_unfinished, write_atomically

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions"
ERRORS = "errors"

_RECORD = b"wildcat"  # key of the record in the metadata of a Parquet file
_OURS = re.compile(r"[0-9a-f]{20}\.parquet")


@dataclass(frozen=True)
class PartRecord:
    """What a table says about its part.

    Attributes:
        source: the Parquet or tar file that the images are from; None for images that are files of their own.
        version: of the source when it was read; None if it is not known.
        complete: whether the source was read to its end.
        hidden: hidden images of a shard, which were skipped.
        images: version of the image of each row; for local images that are files of their own.
    """

    source: str | None = None
    version: str | None = None
    complete: bool = True
    hidden: int = 0
    images: tuple[str, ...] = ()

    def to_metadata(self) -> dict[bytes, bytes]:
        """The record as metadata of a Parquet file."""
        return {_RECORD: json.dumps(asdict(self)).encode()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes] | None, names: Sequence[str]) -> PartRecord:
        """The record of a table with images of these names.

        Raises:
            ValueError: the metadata holds another record than :meth:`to_metadata` writes, or none.
        """
        if metadata is None or _RECORD not in metadata:
            raise ValueError("it has no record")
        values = json.loads(metadata[_RECORD])
        kinds = {"source": str | None, "version": str | None, "complete": bool, "hidden": int, "images": list}
        if not isinstance(values, dict) or any(not isinstance(values.get(key), kind) for key, kind in kinds.items()):
            raise ValueError("its record is damaged")
        images = tuple(str(version) for version in values["images"])
        if images and len(images) != len(names):
            raise ValueError(f"its record is of {len(images)} images, not of {len(names)}")
        return cls(**{key: values[key] for key in kinds} | {"images": images})


@dataclass
class Results:
    """The tables of an output folder, as :func:`read_results` found them.

    Attributes:
        out: the output folder.
        records: the record of each part with a table of predictions, by the part's id.
        images: version of each image in the tables, by its printable name; "" if it is not known.
    """

    out: Path
    records: dict[str, PartRecord] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)

    def finished_images(self) -> set[str]:
        """The printable names of the images whose files did not change since they were predicted."""
        return {name for name, version in self.images.items() if not _changed(name, version)}

    def unfinished_parts(self, parts: Sequence[InputPart], sources: Iterable[str]) -> list[InputPart]:
        """The parts that are not finished, after removing what the folder holds of them, or of an earlier version.

        Args:
            parts: of :func:`wildcat.apps.batch.inputs.split_inputs`, for the inputs without the finished images.
            sources: the Parquet and tar files among the inputs.
        """
        unfinished, changed = [], 0
        for part in parts:
            record = self.records.get(part.id)
            if record is not None:
                other = None not in (record.version, part.version) and record.version != part.version
                if record.complete and not other and part.source is not None:
                    continue
                changed += other
                self._remove(part.id)
            unfinished.append(part)
        given, ids = set(sources), {part.id for part in parts}
        # The row groups that a Parquet file had before it was written again.
        for part_id in [key for key, record in self.records.items() if record.source in given and key not in ids]:
            changed += 1
            self._remove(part_id)
        changed += self._remove_rows({printable(name) for part in unfinished if not part.source for name in part.names})
        if changed:
            logger.warning("files have changed since they were predicted: %d results are replaced", changed)
        return unfinished

    def _remove(self, part_id: str) -> None:
        for folder in (PREDICTIONS, ERRORS):  # in this order: see `read_results`
            (self.out / folder / f"{part_id}.parquet").unlink(missing_ok=True)
        self.records.pop(part_id, None)

    def _remove_rows(self, names: set[str]) -> int:
        """Remove the rows of images that are predicted again from the tables; returns their number."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = {name for name in names if name in self.images}
        if not names:
            return 0
        for folder in (ERRORS, PREDICTIONS):
            for file in sorted((self.out / folder).glob("*.parquet")):
                found, record = _read_names(file)
                kept = [row for row, name in enumerate(found) if normal_name(name) not in names]
                if len(kept) < len(found):
                    images = tuple(record.images[row] for row in kept) if record.images else ()
                    table = pq.ParquetFile(file).read().take(pa.array(kept, pa.int64()))
                    write_table(file, table.replace_schema_metadata(replace(record, images=images).to_metadata()))
        return len(names)


def _changed(name: str, version: str) -> bool:
    return version != "" and not is_url(name) and (now := local_version(name)) is not None and now != version


def read_results(out: Path) -> Results:
    """Read the tables of an output folder, and remove the files of parts that are not finished or are damaged.

    Raises:
        WildcatError: a table cannot be read, or is not one of a batch.
    """
    for folder in (out / PREDICTIONS, out / ERRORS):
        for file in folder.glob(UNFINISHED):
            if is_unfinished(file):
                file.unlink(missing_ok=True)
    results = Results(out)
    damaged = []
    tables: dict[Path, tuple[list[str], PartRecord]] = {}
    for folder in (out / PREDICTIONS, out / ERRORS):
        for file in sorted(folder.glob("*.parquet")):
            try:
                tables[file] = _read_names(file)
            except ValueError as error:
                if not _OURS.fullmatch(file.name):
                    raise WildcatError(f"{file} is not a table of a batch ({first_line(error)}): remove it") from error
                damaged.append(f"{folder.name}/{file.name}")
                for other in (PREDICTIONS, ERRORS):
                    (out / other / file.name).unlink(missing_ok=True)
    if damaged:
        logger.warning("damaged tables are computed again: %s", shorten(damaged))
    for file, (names, record) in tables.items():
        if not file.exists():
            continue
        errors = out / ERRORS / file.name
        if file.parent.name == ERRORS:
            if not (out / PREDICTIONS / file.name).exists():  # its part is not finished
                file.unlink()
                continue
        elif not names and record.complete and not errors.exists():  # the user deleted the errors, to try again
            file.unlink()
            continue
        else:
            results.records[file.stem] = record
        versions = record.images or ("",) * len(names)
        results.images.update(zip(map(normal_name, names), versions, strict=True))
    return results


def _read_names(file: Path) -> tuple[list[str], PartRecord]:
    """The names in a table, and its record.

    Raises:
        ValueError: it is damaged, or is not a table of a batch.
        WildcatError: it cannot be read now.
    """
    import pyarrow.parquet as pq

    try:
        with file.open("rb") as stream:
            table = pq.ParquetFile(stream).read(["file"])
    except Exception as error:  # Arrow raises almost any type for a damaged file
        if isinstance(error, OSError) and error.errno is not None:  # the system cannot read it
            raise WildcatError(f"{file} cannot be read: {error.strerror}") from error
        raise ValueError(first_line(error)) from error
    if table.column_names != ["file"] or str(table.schema.field("file").type) != "string":
        raise ValueError("it has no column `file` of text")
    try:
        names = [str(name) for name in table["file"].to_pylist()]
    except UnicodeDecodeError as error:
        raise ValueError(f"a name is damaged: {error}") from error
    return names, PartRecord.from_metadata(table.schema.metadata, names)


def count_rows(out: Path) -> tuple[int, int, int]:
    """The number of predicted images, of images in the tables of errors, and of hidden images of shards."""
    import pyarrow.parquet as pq

    rows, hidden = {PREDICTIONS: 0, ERRORS: 0}, 0
    for folder in rows:
        for file in (out / folder).glob("*.parquet"):
            metadata = pq.read_metadata(file)
            rows[folder] += metadata.num_rows
            if folder == PREDICTIONS and _RECORD in (metadata.metadata or {}):
                hidden += int(json.loads(metadata.metadata[_RECORD])["hidden"])
    return rows[PREDICTIONS], rows[ERRORS], hidden


def schemas(classes: Sequence[str]) -> tuple[Any, Any]:
    """The Arrow schemas of the predictions, whose columns are those of ``predictions.jsonl``, and of the errors."""
    import pyarrow as pa

    number, text = pa.float64(), pa.string()
    predicted = pa.struct([("class", text), ("score", number), ("point", pa.list_(number, 2))])
    scores = pa.struct([(name, number) for name in classes])
    prediction = [("file", text), ("width", pa.int32()), ("height", pa.int32())]
    prediction += [("predicted", pa.list_(predicted)), ("scores", scores), ("precision", text), ("runtime", text)]
    return pa.schema(prediction), pa.schema([("file", text), ("error", text)])


def write_table(file: Path, table: Any) -> None:
    """Write an Arrow table atomically.

    Raises:
        WildcatError: it cannot be written, as on a full disk.
    """
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(file, buffer.getvalue())
