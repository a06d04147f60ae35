"""The progress bar of a training on a terminal."""

import io
import re
import sys

import pytest

from wildcat.training.progress import RunProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_names_its_stage_at_once_and_the_loss_of_this_epoch_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    lines = []

    def shown() -> str:
        lines.extend(re.split(r"[\r\n]+", sys.stderr.getvalue().rstrip("\r\n")))
        return lines[-1].rstrip()

    with RunProgress(200, done=100) as progress:
        assert shown().startswith("starting:  50 % |") and shown().endswith("| 00:00 passed, ? left")
        progress.stage("epoch 2/2")
        assert shown().startswith("epoch 2/2:  50 % |")
        progress.show_loss(0.5)
        progress.add(60)
        progress.stage("held-out images")
        assert shown().startswith("held-out images:  80 % |") and "loss" not in shown()
        progress.show_loss(0.25)
        progress.add(1000)
    assert shown().startswith("held-out images: 100 % |") and shown().endswith(" left, loss 0.25")


def test_there_is_none_where_nobody_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, is_main in ((io.StringIO(), True), (Terminal(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with RunProgress(10, shown=is_main) as progress:
            progress.stage("epoch 1/1")
            progress.add(10)
        assert stream.getvalue() == ""


def test_the_time_left_is_that_of_the_work_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    for name in ("tqdm.std.time", "wildcat.training.progress.time"):
        monkeypatch.setattr(name, lambda: now[0])
    monkeypatch.setattr(sys, "stderr", Terminal())
    with RunProgress(100) as progress:
        now[0] = 1000
        progress.stage("features")
        now[0] = 1010
        progress.add(10)
        assert sys.stderr.getvalue().rstrip().endswith("16:50 passed, 01:30 left")
