"""Where commands write: pipes and devices, streams that fail, and names that are unusual."""

import io
import json
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import ModelCard

from tests import unusual
from wildcat.apps.serve.viewer import Viewer
from wildcat.cli import main
from wildcat.cli.terminal import printable
from wildcat.data import Dataset, Sample, register_dataset, registry
from wildcat.prediction.loading import load

DATA = ["--data", "synthetic:count=4,size=64"]
COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "predict": lambda place, out: ["predict", f"{place}/run", f"{place}/cat.png", "--json", str(out)],
    "evaluate": lambda place, out: ["evaluate", f"{place}/run", *DATA, "--json", str(out)],
    "report": lambda place, out: ["report", f"{place}/run", *DATA, "--out", str(out)],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, run_and_image: Path) -> Path:
    """A folder with a run and an image."""
    folder = tmp_path_factory.mktemp("outputs")
    shutil.copytree(run_and_image / "run", folder / "run")
    unusual.Image.fromarray(unusual.photo(48, 40)).save(folder / "cat.png")
    return folder


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest, place: Path) -> Callable[[Path], int]:
    return lambda out: main(COMMANDS[request.param](place, out))


def test_a_pipe_receives_the_output(command: Callable[[Path], int], tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    assert command(link) == 0
    reader.join(timeout=10)
    assert len(received[0]) > 100 and received[0].rstrip().endswith(("}", ">"))
    assert pipe.is_fifo() and link.is_symlink() and len(list(tmp_path.iterdir())) == 2


def test_a_reader_of_a_pipe_that_ends_is_no_error(
    command: Callable[[Path], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: os.close(os.open(pipe, os.O_RDONLY)))
    reader.start()
    assert command(pipe) == 0
    reader.join(timeout=10)
    assert "error" not in capsys.readouterr().err and pipe.is_fifo()


@pytest.mark.parametrize(("minor", "code"), [(3, 0), (7, 2)], ids=["null", "full"])
def test_a_device_stays(
    command: Callable[[Path], int], tmp_path: Path, minor: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device of the test's own: a fault would replace it."""
    device = tmp_path / "device"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        device.open("wb").close()
    except OSError:
        pytest.skip("devices cannot be made here")
    assert command(device) == code
    assert device.is_char_device() and list(tmp_path.iterdir()) == [device]
    assert ("No space left on device" in capsys.readouterr().err) == (code == 2)


@pytest.mark.parametrize("name", ["/dev/stdout", "/proc/self/fd/1", "link"])
def test_standard_output_by_name_holds_nothing_else(
    command: Callable[[Path], int], tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where it is a regular file, as here and in `> file`."""
    file = Path(name)
    if name == "link":
        file = tmp_path / "link"
        file.symlink_to("/dev/stdout")
    elif not file.parent.is_dir():
        pytest.skip("not on this system")
    assert command(file) == 0
    text = capfd.readouterr().out.strip()
    if text.startswith("{"):
        json.loads(text)
    else:
        assert text.startswith("<!doctype html>") and text.endswith("</html>")


@pytest.mark.parametrize("name", ["nowhere/out.json", ""])
def test_a_place_that_cannot_be_written_is_an_error(
    command: Callable[[Path], int], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name:
        (tmp_path / "nowhere").touch()
    assert command(tmp_path / name) == 2
    assert "wildcat: error: " in capsys.readouterr().err


# ---- Standard streams -----------------------------------------------------------------------------------------------


class Failing(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["completion", "bash"]])
def test_standard_output_that_fails(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(OSError(28, "No space left on device")))
    assert main(arguments) == 2
    assert "standard output cannot be written: No space left on device" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdout", Failing(BrokenPipeError(32, "Broken pipe")))
    assert main(arguments) == 0 and capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stdout", None)
    assert main(arguments) == 2
    assert "standard output is closed" in capsys.readouterr().err


def test_standard_output_without_unicode(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = place / "é \udce9.png"
    file.write_bytes((place / "cat.png").read_bytes())
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="ascii", write_through=True))
    assert main(["predict", f"{place}/run", str(file)]) == 0
    assert b"\\xe9 \\xe9.png: " in output.getvalue()


# ---- Unusual names --------------------------------------------------------------------------------------------------


@pytest.fixture
def odd(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose classes have unusual names, and whose data, images with unusual names, are of the kind "odd"."""
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    run = tmp_path / "run \x1b[2J <b>"  # safetensors opens no path that is not UTF-8
    run.mkdir()
    values = json.loads((place / "run/config.json").read_text())
    values["classes"] = list(unusual.CLASSES[-len(values["classes"]) :])
    values["config"]["data"] = f"odd:{tmp_path / 'images'}"
    (run / "config.json").write_text(json.dumps(values))
    for name in ("model.safetensors", "metrics.csv"):
        (run / name).write_bytes((place / "run" / name).read_bytes())
    files = unusual.write_names(tmp_path / "images")

    def opened(spec: str, path: Path, split: str) -> Dataset:
        count = len(values["classes"])
        labels = np.where(np.arange(count) == np.arange(len(files))[:, None] % count, 1, -1).astype(np.int8)
        samples = [Sample(file.name, file, row) for file, row in zip(files, labels, strict=True)]
        return Dataset(spec, split, values["classes"], samples, multi_label=values["multi_label"])

    register_dataset("odd", opened, lambda path: ("train", "test"))
    return run


def test_unusual_names_in_results_report_and_card(
    odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(odd)]) == 0
    assert main(["evaluate", str(odd), "--json", "-"]) == 0
    texts = list(capsys.readouterr())
    assert json.loads(texts[0][texts[0].index("\n{") :])["images"] == len(unusual.NAMES)
    assert main(["report", str(odd)]) == 0
    texts += capsys.readouterr()
    for text in texts:
        assert text == printable(text) and text.encode()
    page = (odd / "report.html").read_text(encoding="utf-8")
    assert "<b>&" not in page and "latin\\udce9" in page
    assert main(["push", str(odd), "owner/name", "--to", str(tmp_path / "shared")]) == 0
    for file in (tmp_path / "shared").iterdir():
        if file.suffix != ".safetensors":
            file.read_text(encoding="utf-8")
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    listed = card.text[card.text.index("classes,") :].splitlines()[0]
    assert "line end" in card.text and "<b>" not in card.text and "\x1b" not in card.text and "latin" in listed


def test_unusual_names_on_the_web_page(odd: Path, tmp_path: Path) -> None:
    viewer = Viewer(load(odd))
    for file in sorted((tmp_path / "images").iterdir())[::5]:
        text = viewer.to_json(str(file), [0])
        text.encode()
        assert set(json.loads(text)["scores"]) == set(viewer.classes)
    json.dumps(viewer.classes, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("words", "name"),
    [(["quickstart"], "report.html"), (["reproduce", "table6", "--data", "voc07:data"], "table6.md")],
)
def test_pages_of_a_user_stay(
    words: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wildcat.apps.reproduce.complete.ScoringData", lambda *_: SimpleNamespace(check=print))
    (tmp_path / name).write_text("mine")
    assert main([*words, "--out", str(tmp_path)]) == 2
    assert f"{name} was not written by wildcat {words[0]}" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_model_card_of_a_user_stays(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["push", f"{place}/run", "owner/name", "--to", str(tmp_path)]
    card = tmp_path / "README.md"
    card.write_text("mine")
    assert main(command) == 2
    assert "README.md" in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert main([*command, "--overwrite"]) == 0
    assert main(command) == 0  # our own
    card.write_text(card.read_text() + "\nTrained for a study.\n")
    assert main(command) == 2 and card.read_text().endswith("study.\n")
