"""Batches: same results as `wildcat predict`, complete after a kill, every image in one of the two tables."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tests import unusual
from tests.conftest import REPOSITORY
from tests.tiny_runs import start, start_python
from wildcat.apps.batch.attempts import MAX_CRASHES_PER_PART, AttemptLog
from wildcat.apps.batch.driver import predict_all
from wildcat.apps.batch.inputs import InputPart
from wildcat.apps.batch.results import ERRORS, PREDICTIONS
from wildcat.apps.batch.worker import ATTEMPTS, BatchWorker, WorkerSettings
from wildcat.cli import main
from wildcat.errors import WildcatError
from wildcat.system.files import unfinished

pytestmark = [
    pytest.mark.slow,
    # Ray Data warns about three settings that it sets itself when it creates its context.
    pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning:ray.data.context"),
]

COUNT = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, run_and_image: Path) -> Path:
    """A folder with a finished run and images, one of them broken."""
    folder = tmp_path_factory.mktemp("batch")
    shutil.copytree(run_and_image / "run", folder / "run")
    (folder / "images").mkdir()
    for number in range(COUNT):
        Image.fromarray(unusual.photo(40 + number, 50, seed=number)).save(folder / "images" / f"{number:02}.png")
    (folder / "images" / "broken.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A small local Ray."""
    module = pytest.importorskip("ray", reason="needs Ray: pip install 'wildcat-wsl[ray]'")
    pytest.importorskip("ray.data", reason="needs Ray Data: pip install 'wildcat-wsl[ray]'")
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's name; as in wildcat.apps.batch.driver
    module.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False)
    yield module
    module.shutdown()


def rows_of(file: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = pq.ParquetFile(file).read().to_pylist()
    return found


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for file in folder.glob("*.parquet") for row in rows_of(file)]


def predicted(place: Path) -> list[dict[str, Any]]:
    """The predictions of `wildcat predict` for the readable images, sorted by name."""
    plain = place / "plain"
    if not plain.exists():
        assert (
            main(["predict", str(place / "run"), str(place / "images"), "--out", str(plain), "--formats", "json"]) == 1
        )
    found = [json.loads(line) for line in (plain / "predictions.jsonl").read_text().splitlines()]
    assert len(found) == COUNT
    return found


def check_same(actual: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Check that rows are equal, but for the last digit of scores, which depends on the images of a forward pass."""
    for row, other in zip(actual, expected, strict=True):
        assert row["scores"] == pytest.approx(other["scores"], abs=2e-6)
        for entry, same in zip(row["predicted"], other["predicted"], strict=True):
            assert entry == same | {"score": pytest.approx(same["score"], abs=2e-6)}
        assert {**row, "scores": 0, "predicted": 0} == {**other, "scores": 0, "predicted": 0}


def check_complete(place: Path, out: Path) -> None:
    """Check that the tables hold each image once, with the prediction of `wildcat predict`."""
    check_same(sorted(rows(out / PREDICTIONS), key=lambda row: row["file"]), predicted(place))
    (error,) = rows(out / ERRORS)
    assert error["file"] == str(place / "images" / "broken.jpg") and "the file is empty" in error["error"]


def test_a_killed_batch_is_resumed_equals_plain_prediction_and_adds_new_images(
    ray: Any, place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ["batch", str(place / "run"), str(place / "images"), "--out", str(out), "--workers", "1"]
    # The killed process uses the Ray of this test, as that of a cluster.
    process = start(*command, "--part-size", "1", "--address", ray.get_runtime_context().gcs_address)
    for _ in range(4000):
        if process.poll() is not None or any((out / PREDICTIONS).glob("*.parquet")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    _, message = process.communicate()
    assert process.returncode == -signal.SIGKILL and rows(out / PREDICTIONS), message
    # A kill at other moments leaves an incomplete file, or errors of a part without its predictions.
    unfinished(out / PREDICTIONS / "x.parquet").write_bytes(b"PAR1")
    with contextlib.suppress(StopIteration):
        errors = next((out / ERRORS).glob("*.parquet"))
        (out / PREDICTIONS / errors.name).unlink()
    command += ["--part-size", "8"]
    assert main(command) == 1
    check_complete(place, out)
    assert not list(out.rglob("*.tmp"))
    files = {file: file.stat().st_mtime_ns for file in out.rglob("*.parquet")}
    assert main(command) == 1
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.parquet")} == files

    shutil.rmtree(out / ERRORS)  # images that failed are tried again
    shutil.copy(place / "images" / "03.png", tmp_path / "new.png")
    assert main([*command[:3], str(tmp_path / "new.png"), *command[3:]]) == 1
    (new,) = [row for row in rows(out / PREDICTIONS) if row["file"] == str(tmp_path / "new.png")]
    check_same([new | {"file": str(place / "images" / "03.png")}], predicted(place)[3:4])
    for file in (out / PREDICTIONS).glob("*.parquet"):
        if rows_of(file) == [new]:
            file.unlink()
    check_complete(place, out)
    with pytest.raises(WildcatError, match="holds predictions with another model: choose another folder"):
        predict_all("imagenet", [str(place / "images")], out)
    with pytest.raises(WildcatError, match="another threshold"):
        predict_all(str(place / "run"), [str(place / "images")], out, threshold=0.3)


def test_a_part_predicted_twice_is_written_once(ray: Any, place: Path, tmp_path: Path) -> None:
    for name in (PREDICTIONS, ERRORS, ATTEMPTS):
        (tmp_path / name).mkdir()
    worker = BatchWorker(WorkerSettings(str(place / "run"), str(tmp_path), 0.5, 8, "auto", "torch"))
    names = tuple(str(file) for file in sorted((place / "images").iterdir()))
    batch = {"part": [InputPart("images", names).to_json()]}
    assert worker(batch) == {"images": [COUNT + 1], "error": [""]}
    assert worker(batch) == {"images": [0], "error": [""]}
    check_complete(place, tmp_path)
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"no shard")
    assert worker({"part": [InputPart("shard", (str(broken),)).to_json()]}) == {"images": [1], "error": [""]}
    assert str(broken) in {row["file"] for row in rows(tmp_path / ERRORS)}


# A sitecustomize module, which Python runs at its start: reading "deadly.png" kills the process. Ray's workers have the
# module path of the process that started Ray.
KILLED_BY_AN_IMAGE = """
import os, signal
from PIL import Image
opened = Image.open
def open_or_die(source, *arguments, **more):
    if str(getattr(source, "name", source)).endswith("deadly.png"):
        os.kill(os.getpid(), signal.SIGKILL)
    return opened(source, *arguments, **more)
Image.open = open_or_die
"""


def at_work(out: Path) -> set[int]:
    """The processes that are working on parts."""
    processes = set()
    for file in (out / ATTEMPTS).glob("*.jsonl"):
        with contextlib.suppress(FileNotFoundError, IndexError):  # removed meanwhile; not written yet
            entry = json.loads(file.read_text().splitlines()[0])
            assert entry["machine"] == socket.gethostname()
            processes.add(entry["process"])
    return processes


def listening(pid: int) -> set[str]:
    """The addresses at which a process and its descendants accept connections."""
    found: set[str] = set()
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            connections = process.net_connections("inet")
            found |= {each.laddr.ip.removeprefix("::ffff:") for each in connections if each.status == "LISTEN"}
    return found


def test_killed_workers_and_an_image_that_kills(place: Path, tmp_path: Path) -> None:
    """One of two workers is killed, and an image kills every worker that reads it; the batch completes by itself."""
    pytest.importorskip("ray.data", reason="needs Ray Data: pip install 'wildcat-wsl[ray]'")
    names = [f"{number:03}.png" for number in range(160)]
    (tmp_path / "images").mkdir()
    for number, name in enumerate(names):
        (tmp_path / "images" / name).hardlink_to(place / "images" / f"{number % COUNT:02}.png")
    shutil.copy(place / "images" / "00.png", tmp_path / "images" / "deadly.png")
    (tmp_path / "sitecustomize.py").write_text(KILLED_BY_AN_IMAGE)
    out = tmp_path / "out"
    command = ["batch", place / "run", tmp_path / "images", "--out", out, "--part-size", "5", "--workers", "2"]
    process = start_python(*command, PYTHONPATH=os.pathsep.join([str(tmp_path), str(REPOSITORY)]))
    killed = 0
    while not killed and process.poll() is None:
        time.sleep(0.01)
        if len(list((out / PREDICTIONS).glob("*.parquet"))) >= 8 and (workers := at_work(out)):
            assert listening(process.pid) == {"127.0.0.1"}
            killed = min(workers)
            with contextlib.suppress(ProcessLookupError):
                os.kill(killed, signal.SIGKILL)
    message, errors = process.communicate(timeout=300)
    assert killed
    assert process.returncode == 1 and message.startswith("160 images"), message + errors
    found = {row.pop("file"): row for row in rows(out / PREDICTIONS)}
    assert len(rows(out / PREDICTIONS)) == 160
    assert found.keys() == {str(tmp_path / "images" / name) for name in names}
    plain = {row.pop("file"): row for row in predicted(place)}
    for number, name in enumerate(names):
        check_same(
            [found[str(tmp_path / "images" / name)]], [plain[str(place / "images" / f"{number % COUNT:02}.png")]]
        )
    (error,) = rows(out / ERRORS)
    assert (
        error["file"] == str(tmp_path / "images" / "deadly.png")
        and "processes ended while reading it" in error["error"]
    )
    assert not (out / ATTEMPTS).exists()


def test_a_worker_uses_the_log_of_crashed_workers(place: Path, tmp_path: Path) -> None:
    """The logs of workers that ended, and what the next worker does; without starting Ray."""
    pytest.importorskip("ray.data", reason="needs Ray Data: pip install 'wildcat-wsl[ray]'")
    for name in (PREDICTIONS, ERRORS, ATTEMPTS):
        (tmp_path / name).mkdir()
    names = tuple(str(file) for file in sorted((place / "images").iterdir()))
    part = InputPart("images", names)
    worker = BatchWorker(WorkerSettings(str(place / "run"), str(tmp_path), 0.5, 8, "auto", "torch"))
    for victim in (None, names[3], names[5], names[3], names[4], names[5]):
        log = AttemptLog(tmp_path / ATTEMPTS, part.id)
        log.start()
        if victim is not None:
            log.record_image(names[0])
            log.record_image(victim)
    assert AttemptLog(tmp_path / ATTEMPTS, part.id).crashing_images == {names[3], names[5]}
    assert worker({"part": [part.to_json()]}) == {"images": [COUNT + 1], "error": [""]}
    skipped = {row["file"]: row["error"] for row in rows(tmp_path / ERRORS)}
    assert skipped.keys() == {names[3], names[5], str(place / "images" / "broken.jpg")}
    assert skipped[names[3]] == f"{names[3]}: skipped, because 2 processes ended while reading it"
    expected = [row for row in predicted(place) if row["file"] not in skipped]
    check_same(sorted(rows(tmp_path / PREDICTIONS), key=lambda row: row["file"]), expected)
    assert not list((tmp_path / ATTEMPTS).iterdir())

    other = InputPart("images", names[:2])
    for _ in range(MAX_CRASHES_PER_PART):
        assert not AttemptLog(tmp_path / ATTEMPTS, other.id).too_many_crashes
        AttemptLog(tmp_path / ATTEMPTS, other.id).start()
    message = (
        f"{MAX_CRASHES_PER_PART} workers ended while they read 2 images from {names[0]} on; "
        "check that the machine has enough memory"
    )
    assert worker({"part": [other.to_json()]}) == {"images": [0], "error": [message]}


def test_incomplete_lines_of_the_log_are_ignored(tmp_path: Path) -> None:
    """A machine that is switched off may leave half a line, or zeros."""
    log = AttemptLog(tmp_path, "part")
    log.start()
    log.record_image("a.jpg")
    file = tmp_path / "part.jsonl"
    for rest, image in ((b'{"pict', "b.jpg"), (b"\0\0\0", "b.jpg"), ('{"image": "ü'.encode()[:-1], "c.jpg")):
        with file.open("ab") as stream:
            stream.write(rest)
        log = AttemptLog(tmp_path, "part")
        log.start()
        log.record_image(image)
    log = AttemptLog(tmp_path, "part")
    assert log.crashes == ["a.jpg", "b.jpg", "b.jpg", "c.jpg"] and log.crashing_images == {"b.jpg"}
    log.start()
    assert len(AttemptLog(tmp_path, "part").crashes) == 5 and file.read_bytes().count(b"\n\n") == 0


def test_an_error_of_a_worker_is_raised_with_its_message(ray: Any, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    import safetensors.torch
    import torch

    weights = safetensors.torch.load_file(run / "model.safetensors")
    weights["transfer.bias"] = torch.full_like(weights["transfer.bias"], torch.nan)
    safetensors.torch.save_file(weights, run / "model.safetensors", {"format": "pt"})
    with pytest.raises(WildcatError, match=r"the model gives NaN.*finished parts are in"):
        predict_all(str(run), [str(place / "images")], out, workers=1)


def test_another_runtime(ray: Any, place: Path, tmp_path: Path) -> None:
    from wildcat.prediction.loading import load

    out = tmp_path / "out"
    command = ["batch", str(place / "run"), str(place / "images"), "--out", str(out), "--runtime", "onnx"]
    assert main([*command, "--workers", "1"]) == 1
    found = {row["file"]: row for row in rows(out / PREDICTIONS)}
    for expected in predicted(place):
        assert found[expected["file"]]["scores"] == pytest.approx(
            expected["scores"], abs=0.001
        )  # those of torch are computed in bf16
    # The exported file alone is the same model.
    file = place / "run" / "exports" / "model.onnx"
    assert file.is_file() and load(file).settings == load(place / "run").settings
    assert predict_all(str(file), [str(place / "images")], out, workers=1).predicted == COUNT


def test_without_ray(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WildcatError, match=r"needs Ray .*pip install 'wildcat-wsl\[ray\]'"):
        predict_all(str(place / "run"), [str(place / "images")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_errors(ray: Any, place: Path, tmp_path: Path) -> None:
    with pytest.raises(WildcatError, match="workers must be at least 1; got 0"):
        predict_all(str(place / "run"), [str(place / "images")], tmp_path, workers=0)
    with pytest.raises(WildcatError, match="absent does not exist"):
        predict_all(str(place / "run"), [str(tmp_path / "absent")], tmp_path)
    (tmp_path / "mine").mkdir()
    foreign = {
        "[]": "must hold a JSON object; got list",
        '{"batch": 8}': "is not of a batch, .*: choose another folder",
    }
    for content, message in foreign.items():
        (tmp_path / "mine" / "batch.json").write_text(content)
        with pytest.raises(WildcatError, match=rf"batch\.json {message}"):
            predict_all(str(place / "run"), [str(place / "images")], tmp_path / "mine")
        assert (tmp_path / "mine" / "batch.json").read_text() == content
