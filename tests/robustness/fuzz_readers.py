"""Fuzzing of annotation readers, guided by the lines that an input reaches (atheris, based on libFuzzer), or at random.

    python -m tests.robustness.fuzz_readers                              each reader for a minute
    python -m tests.robustness.fuzz_readers --minutes 10 --reader voc    one of them for longer
    python -m tests.robustness.fuzz_readers --reader voc --input FILE    again on an input file of an earlier run

On any input, a reader must succeed or raise a short WildcatError; anything else ends the run with exit code
1, a traceback and a file of the input. The first inputs are good ones. Guidance needs ``pip install
'wildcat-wsl[fuzz]'``; without it, inputs are changed at random (mutations.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.data import trees
from tests.robustness.good_input import COCO, COLUMNS, CSV, RUN, SCALES, XML, clear
from tests.robustness.mutations import fuzz_at_random

Read = Callable[[bytes], None]
Reader = Callable[[Path], tuple[Read, list[bytes]]]  # a folder for its files -> what reads an input; good inputs

# Words that random changes rarely produce.
WORDS = ["nan", "inf", "1e999", "-1", "9" * 400, "\\x00", "\\xff\\xfe", "<!DOCTYPE", "encoding=", "..", "true", "null"]


def tags(folder: Path) -> tuple[Read, list[bytes]]:
    """A CSV of tags."""
    from wildcat.data.registry import available_splits, open_dataset

    file = folder / "my.csv"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        for split in available_splits(f"tags:{file}"):
            assert open_dataset(f"tags:{file}", split).labels.ndim == 2

    return read, [CSV, COLUMNS]


def voc(folder: Path) -> tuple[Read, list[bytes]]:
    """An annotation of PASCAL VOC."""
    from wildcat.data.registry import open_dataset

    root = trees.voc(folder, 2012)
    file = root / "Annotations" / "000004.xml"
    good = file.read_bytes()

    def read(content: bytes) -> None:
        file.write_bytes(content)
        data = open_dataset(f"voc12:{root}", "test")
        assert np.isfinite(data.samples[0].boxes).all()

    for other in (root / "ImageSets" / "Main").glob("*_test.txt"):  # labels come from the annotation then
        other.unlink()
    return read, [good, XML]


def voc_lists(folder: Path) -> tuple[Read, list[bytes]]:
    """A list of images and a class's label file."""
    from wildcat.data.registry import open_dataset

    root = trees.voc(folder, 2012)
    sets = root / "ImageSets" / "Main"
    files = [sets / "test.txt", sets / "dog_trainval.txt"]
    good = [file.read_bytes() for file in files]
    for other in sets.glob("*_test.txt"):
        other.unlink()

    def read(content: bytes) -> None:
        for file, before, split in zip(files, good, ("test", "trainval"), strict=True):
            file.write_bytes(content)
            try:
                clear(lambda split=split: open_dataset(f"voc12:{root}", split).labels)  # type: ignore[misc]
            finally:
                file.write_bytes(before)

    return read, good


def action(folder: Path) -> tuple[Read, list[bytes]]:
    """A list of persons, a label file, and an annotation of VOC 2012 Action."""
    from wildcat.data.registry import open_dataset

    root = trees.action(folder)
    sets = root / "ImageSets" / "Action"
    files = {
        sets / "test.txt": "test",
        sets / "running_train.txt": "train",
        root / "Annotations" / "2011_000009.xml": "test",
    }
    good = {file: file.read_bytes() for file in files}

    def read(content: bytes) -> None:
        for file, split in files.items():
            file.write_bytes(content)
            try:
                clear(lambda split=split: open_dataset(f"action12:{root}", split).labels)  # type: ignore[misc]
            finally:
                file.write_bytes(good[file])

    return read, list(good.values())


def coco(folder: Path) -> tuple[Read, list[bytes]]:
    """The annotations of COCO; masks are rasterized from them too."""
    from wildcat.data.registry import open_dataset

    root = trees.coco(folder)
    file = root / "annotations" / "instances_train2014.json"
    good = file.read_bytes()

    def read(content: bytes) -> None:
        file.write_bytes(content)
        data = open_dataset(f"coco:{root}", "train")
        assert data.labels.shape == (len(data), len(data.classes))
        for number, sample in enumerate(data.samples):
            assert np.isfinite(sample.boxes).all()
            if np.prod(sample.stated_size or (40, 30)) < 10_000:
                data.mask(number)

    return read, [good, json.dumps(COCO).encode()]


def scenes(folder: Path) -> tuple[Read, list[bytes]]:
    """The lists of MIT67 and 15-Scene."""
    from wildcat.data.registry import open_dataset

    (folder / "Images").mkdir()
    files = [folder / name for name in ("TrainImages.txt", "TestImages.txt", "train.txt", "test.txt")]
    good = b"kitchen/a.jpg\nbar/b.jpg\n"

    def read(content: bytes) -> None:
        for number, kind in ((0, "mit67"), (2, "scene15")):
            files[number].write_bytes(content)
            files[number + 1].write_bytes(good)
            clear(lambda kind=kind: open_dataset(f"{kind}:{folder}", "train").labels)  # type: ignore[misc]

    return read, [good]


def recipes(folder: Path) -> tuple[Read, list[bytes]]:
    """A recipe."""
    from wildcat.config import read_recipe

    file = folder / "my.yaml"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        read_recipe(str(file))

    recipe = Path(__file__).parents[2] / "wildcat" / "recipes" / "voc07-mini.yaml"
    return read, [recipe.read_bytes(), b"lr: 0.1\nkmax: all\nscore_sizes: [64, 96]\nmirror: true\n"]


def runs(folder: Path) -> tuple[Read, list[bytes]]:
    """The settings of a run, and of runs at several scales."""
    from wildcat.runs.folder import read_background, read_run
    from wildcat.runs.scales import read_scales

    def read(content: bytes) -> None:
        for name, reader in (("config", read_run), ("scales", read_scales), ("background", read_background)):
            (folder / f"{name}.json").write_bytes(content)
            clear(lambda reader=reader: reader(folder))  # type: ignore[misc]

    return read, [json.dumps(RUN).encode(), json.dumps(SCALES).encode(), b'{"mode": "power", "constant": 2.0}']


def lists(folder: Path) -> tuple[Read, list[bytes]]:
    """The list, Parquet file and shard that a batch reads."""
    from wildcat.apps.batch.inputs import split_inputs

    def read(content: bytes) -> None:
        for suffix in ("txt", "parquet", "tar"):
            file = folder / f"list.{suffix}"
            file.write_bytes(content)

            def take(file: Path = file) -> None:
                for part in split_inputs([str(file)], 10):
                    if part.kind != "images":
                        list(part.images())

            clear(take)

    import io
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    table, shard = io.BytesIO(), io.BytesIO()
    pq.write_table(pa.table({"bytes": [b"x", b"y"]}), table)
    with tarfile.open(fileobj=shard, mode="w") as archive:
        member = tarfile.TarInfo("a/b.jpg")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    return read, [b"a.jpg\nhttps://nowhere/b.jpg\n", table.getvalue(), shard.getvalue()]


READERS: dict[str, Reader] = {
    "tags": tags,
    "voc": voc,
    "voc-lists": voc_lists,
    "action": action,
    "coco": coco,
    "scenes": scenes,
    "recipes": recipes,
    "runs": runs,
    "lists": lists,
}


def fuzz(name: str, minutes: float, folder: Path) -> None:
    """Feed a reader; does not return, the fuzzer ends the process."""
    try:
        import atheris
    except ImportError:
        words = [word.encode().decode("unicode_escape").encode("latin-1") for word in WORDS]
        sys.exit(fuzz_at_random(name, *prepared(name, folder), words, 60 * minutes))
    looked_into = ["wildcat.data", "wildcat.config", "wildcat.runs.folder", "wildcat.apps.batch", "yaml"]
    with atheris.instrument_imports(include=looked_into):
        pass
    read, good = prepared(name, folder)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(good):
        (corpus / f"{number}").write_bytes(content)
    (folder / "words").write_text("".join(f'"{word}"\n' for word in WORDS))
    options = [f"-max_total_time={60 * minutes:.0f}", "-timeout=30", "-max_len=20000", "-print_final_stats=1"]
    options += [f"-dict={folder / 'words'}", f"-artifact_prefix={name}-"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda content: clear(lambda: read(content)))
    atheris.Fuzz()


def prepared(name: str, folder: Path) -> tuple[Read, list[bytes]]:
    """A reader with its files, and its good inputs."""
    warnings.simplefilter("error")
    return READERS[name](folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1, help="of each reader")
    parser.add_argument("--reader", choices=READERS, nargs="+", default=list(READERS))
    parser.add_argument("--input", type=Path, help="read this once, without the fuzzer")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of one reader's own process
    options = parser.parse_args()
    if options.folder:
        fuzz(options.reader[0], options.minutes, options.folder)
    codes = {}
    for name in options.reader:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            if options.input:
                read, _ = prepared(name, Path(folder))
                clear(lambda read=read: read(options.input.read_bytes()))  # type: ignore[misc]
                continue
            command = [sys.executable, "-m", "tests.robustness.fuzz_readers", "--minutes", str(options.minutes)]
            codes[name] = subprocess.run([*command, "--reader", name, "--folder", folder]).returncode
    failed = [name for name, code in codes.items() if code]
    print(f"{len(codes) - len(failed)} of {len(codes)} readers passed", *failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
