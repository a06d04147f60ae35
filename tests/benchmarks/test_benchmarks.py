"""Benchmarks run at their smoke size, peers compute what this project computes, and the page says what was measured."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from benchmarks import common, peers, planning, predict, tables, versus
from tests.conftest import REPOSITORY
from wildcat.losses import multi_label_loss
from wildcat.model import create_model


@pytest.mark.parametrize("page", [tables, planning], ids=lambda page: page.__name__)
def test_the_page_is_up_to_date(page: ModuleType) -> None:
    assert page.main(["check"]) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("no_new_python")
@pytest.mark.parametrize("script", ["train", "compiled", "predict", "maps", "pooling", "growth", "runtimes", "startup"])
def test_it_runs_without_data(script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WILDCAT_DATA", "absent")
    threads = torch.get_num_threads()
    import_module(f"benchmarks.{script}").main(["--threads", "1"])
    torch.set_num_threads(threads)
    assert "wildcat" in capsys.readouterr().out


# A batch of two workers that write files of the names that a batch has; one that is killed is started again.
BATCH = """
import json, os, sys, time
from pathlib import Path
out = Path(sys.argv[1])
def start(name):
    process = os.fork()
    if process == 0:
        log = out / ".attempts" / f"{name}.jsonl"
        log.write_text(json.dumps({"process": os.getpid()}))
        for part in range(int(sys.argv[3])):
            (out / "predictions" / f"{name}{part}.parquet").touch()
            time.sleep(0.02)
        log.unlink()
        os._exit(0)
    return process
workers = {start(name): name for name in sys.argv[2]}
while workers:
    process, status = os.wait()
    name = workers.pop(process)
    if status:
        workers[start(name)] = name
"""


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "parts"), [("ab", 50), ("a", 5)])
def test_a_worker_of_the_batch_is_killed(workers: str, parts: int, tmp_path: Path) -> None:
    from benchmarks.batch import Course

    for name in ("predictions", ".attempts"):
        (tmp_path / name).mkdir()
    command = [sys.executable, "-c", BATCH, tmp_path, workers, str(parts)]
    if workers == "a":
        with pytest.raises(SystemExit, match="the batch ended with 0; a worker was not killed"):
            Course(command, tmp_path, 10)
        return
    course = Course(command, tmp_path, 10)
    assert course.code == 0 and course.peak > 1 and 0 < course.back < 10
    assert len(list((tmp_path / "predictions").iterdir())) == 100


@pytest.mark.slow
def test_the_benchmark_of_a_batch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'wildcat-wsl[ray]'")
    from benchmarks import batch
    from wildcat.apps.batch.inputs import split_inputs
    from wildcat.apps.batch.worker import BatchWorker, WorkerSettings

    class Whole:
        """Predicts without Ray what a batch of killed workers predicts (tests/apps/test_batch.py)."""

        peak = back = 1.0

        def __init__(self, command: list, out: Path, half: int) -> None:
            assert command[1:4] == ["-m", "wildcat", "batch"] and half == 30
            for name in (batch.PREDICTIONS, batch.ERRORS, batch.ATTEMPTS):
                (out / name).mkdir(parents=True)
            worker = BatchWorker(WorkerSettings(str(command[4]), str(out), 0.5, 8, "fp32", "torch"))
            for part in split_inputs([str(command[5])], int(command[-1])):
                assert worker({"part": [part.to_json()]}) == {"images": [4], "error": [""]}

    monkeypatch.setattr(batch, "Course", Whole)
    monkeypatch.setenv("WILDCAT_DATA", "absent")
    threads = torch.get_num_threads()
    batch.main(["--threads", "1"])
    torch.set_num_threads(threads)
    assert "every image once, scores within 0.0" in capsys.readouterr().out


@pytest.mark.slow
def test_two_checkouts_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    versus.main([str(REPOSITORY), "--only", "help", "call"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [versus.WORKS["help"], versus.WORKS["call"]]
    assert all(0 < float(line.split()[-1]) < 100 for line in lines)


def test_the_plan_follows_from_what_was_measured() -> None:
    measured = {
        "20000 images": ("images/s", 80.0),
        "a row of the results": ("bytes", 300.0),
        "an image's file": ("bytes", 100_000.0),
        f"{planning.NEEDED}network": ("ms", 20.0),
        f"{planning.NEEDED}files: read and decode": ("ms", 4.0),
        f"{planning.NEEDED}web server of this machine: read": ("ms", 1.0),
    }
    shared = {"program": "wildcat", "turns": "1", "note": "", "cpu": "x", "cores": "2", "threads": "1"}
    shared |= {"python": "3", "torch": "2"}
    rows = [
        {"work": work, "unit": unit, **dict.fromkeys(("q1", "median", "q3"), str(value)), **shared}
        for work, (unit, value) in measured.items()
    ]
    message = "\n".join(planning.plan(rows))
    for line in (
        "| worker-hours | 10⁹ / 3600 r | 6,944 |",  # r = 40
        "| workers for one week | 10⁹ / 604,800 r | 41.3 |",
        "| cost at 0.05 per core-hour, an example | worker-hours × 0.05 | 347 |",
        "| read from the store by all workers of the week | 10⁹ p / 604,800 s | 165 MB/s |",
        "| size of the inputs | 10⁹ p | 100.0 TB |",
        "| size of the results | 10⁹ q | 0.30 TB |",
    ):
        assert line in message
    assert "**The bottleneck is the network's arithmetic**: 20.0 of 25.0 ms an image (80%)" in message
    assert "A link of 1.3 Gbit/s" in message and "later than 50 ms" in message


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "lite0"])
def test_the_restated_network_computes_the_same_scores_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    ours = create_model(name, num_classes=6, num_maps=3, kmax=0.3, alpha=0.6, pretrained=False).train()
    theirs = peers.network(name, 6, 3, 0.3, 0.6).train()
    peers.load_ours(theirs, ours.state_dict())
    images = torch.randn(4, 3, 96, 96)
    labels = torch.where(torch.rand(4, 6) < 0.5, 1, -1)
    out = ours(images)
    scores, class_maps = theirs(images)
    torch.testing.assert_close(scores, out.scores, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(class_maps, out.class_maps, rtol=1e-3, atol=1e-3)
    multi_label_loss(out.scores, labels).backward()
    multi_label_loss(scores, labels).backward()
    torch.testing.assert_close(theirs.classifier.weight.grad, ours.transfer.weight.grad, rtol=1e-2, atol=1e-5)


def test_turns_are_taken_in_order_and_the_first_is_not_counted() -> None:
    calls = []
    times = common.take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 2, "b": 2}


def test_ratios_are_medians_over_turns_and_files_hold_every_turn(tmp_path: Path) -> None:
    report = common.Report("some", common.options("", ["--full", "--out", str(tmp_path), "--threads", "1"]))
    report.compare("work", {"wildcat": [1.0, 2.0, 1.0], "peer": [3.0, 4.0, 5.0]}, unit="images/s", per=10, goal=">= 2")
    report.write()
    ours, peer = report.rows
    assert (ours["median"], ours["q1"], ours["q3"]) == (10.0, 7.5, 10.0)
    assert (peer["ratio"], peer["goal"], peer["unit"], peer["turns"]) == (3.0, ">= 2", "images/s", 3)
    assert len((tmp_path / "some_samples.csv").read_text().splitlines()) == 7
    rows = [{key: str(value) for key, value in row.items()} for row in report.rows]
    line = tables.compared(rows)[-1]
    assert line == "| work | 10 images/s (7.5 to 10) | peer | 2.5 images/s (2.25 to 2.917) | 3 | >= 2: met |  |"


@pytest.mark.parametrize(
    ("goal", "value", "message"),
    [
        (">= 2", "2", ">= 2: met"),
        (">= 2", "1.9", ">= 2: missed"),
        ("< 3", "0.5", "< 3: met"),
        ("<= 3", "3.1", "<= 3: missed"),
    ],
)
def test_goals_are_judged(goal: str, value: str, message: str) -> None:
    assert tables.judged(goal, value) == message
    assert tables.judged("", value) == ""


@pytest.mark.slow
def test_predictions_of_the_peer_are_ours(tmp_path: Path) -> None:
    files = common.photographs(3, tmp_path)
    torch.manual_seed(0)
    model = create_model("resnet18", num_classes=20, num_maps=8, pretrained=False).eval()
    calls = predict.contenders(model, "resnet18", 256, tmp_path)  # too large for decoding at half the size
    expected = calls["official"](files)
    for ours in (common.OURS, common.OPENVINO):
        np.testing.assert_allclose(calls[ours](files), expected, atol=0.03)  # ours may be in bf16
