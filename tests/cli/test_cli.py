"""The command line: help, exit codes, one clear line for a mistake, speed of starting."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data import trees
from tests.tiny_runs import TINY, flags, start, start_python
from wildcat._version import __version__
from wildcat.cli import main
from wildcat.cli.parser import add_prediction, command_parser
from wildcat.config import TrainConfig
from wildcat.errors import WildcatError
from wildcat.runs.results import read_results

COMMANDS = ("quickstart", "train", "evaluate", "predict", "batch", "export", "push", "convert", "serve", "completion")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, run_and_image: Path) -> Path:
    """A folder with a finished run, a damaged run, an image, a file that is not an image, and an empty folder."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(run_and_image / "run", folder / "run")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "config.json").write_text("{}")
    (folder / "here" / "run").mkdir(parents=True)
    shutil.copy(folder / "run" / "config.json", folder / "here" / "run")
    (folder / "empty").mkdir()
    (folder / "file").write_text("x")
    (folder / "list.yaml").write_text("- lr\n")
    (folder / "wrong.yaml").write_text("lr: fast\n")
    (folder / "unknown.yaml").write_text("learning_rat: 1\n")
    trees.image(folder / "cat.png")
    (folder / "bad.csv").write_text("image,tags\na.png\n")
    return folder


# Help


def test_overview(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        assert main(arguments) == 0
        message = capsys.readouterr().out
        assert all(re.search(rf"^  {command} ", message, re.MULTILINE) for command in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    message = capsys.readouterr().out
    assert re.search(rf"examples:\n  wildcat {command} ", message)
    assert "--debug" in message
    # Each option has a help text.
    for option in re.findall(r"^  (--[a-z-]+)", message, re.MULTILINE):
        assert re.search(rf"^  {option}\b.*(?:  \S|\n {{10,}}\S)", message, re.MULTILINE), option


@pytest.mark.parametrize("columns", [20, 45, 300])
def test_help_in_any_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as end:
        main(["train", "--help"])
    message = capsys.readouterr().out
    assert end.value.code == 0 and "--num-maps" in message and "\n  wildcat train " in message


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_a_closed_pipe_is_not_an_error(arguments: list[str]) -> None:
    """As in `wildcat train --help | head`."""
    process = start_python(*arguments)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    message = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0 and message == ""


def test_every_setting_has_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    message = capsys.readouterr().out
    for name in TrainConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["evaluate", "--help"], ["predict", "--nonsense"]]
)
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from wildcat.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'torchvision', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


# User errors

TRAIN = ["train", "--out", "new", *flags(epochs=1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "did you mean train?"),
        (["segment"], "known: quickstart, train, tune, evaluate, "),
        (["--data", "x"], "unknown command '--data'"),
        (["train"], "required: --data, --out, for example --data folder:my_images"),
        ([*TRAIN, "--epoch", "3"], "--epoch 3; did you mean --epochs?"),
        ([*TRAIN, "--rec", "voc07"], "--rec voc07; did you mean --recipe?"),
        ([*TRAIN, "more"], "more"),
        ([*TRAIN, "--lr"], "--lr: expected one argument"),
        ([*TRAIN, "--lr", "fast"], "--lr must be a number, e.g. 0.01; got 'fast'"),
        ([*TRAIN, "--epochs", "1.5"], "--epochs must be a whole number; got '1.5'"),
        ([*TRAIN, "--epochs", "0"], "epochs must be above 0; got 0"),
        ([*TRAIN, "--seed", "-1"], "seed must be at least 0 and below 9223372036854775808; got -1"),
        ([*TRAIN, "--schedule", "cosin"], "--schedule must be 'constant', 'step', 'cosine'; got 'cosin'"),
        ([*TRAIN, "--kmax", "1.0"], "kmax=1.0 is ambiguous"),
        ([*TRAIN, "--kmax", "lots"], "--kmax must be a whole number or a number, e.g. 0.01 or 'all'; got 'lots'"),
        ([*TRAIN, "--kmax", "0"], "no region is selected"),
        ([*TRAIN, "--architecture", "b"], "one map per class; got num_maps=2"),
        (
            [*TRAIN, "--freeze-stages", "99"],
            "freeze_stages: timm:test_resnet has 5 stages to freeze (-1 for all); got 99",
        ),
        ([*TRAIN, "--backbone", "resnet1O1"], "did you mean resnet101?"),
        ([*TRAIN, "--backbone", "timm:resnet5O"], "timm has no model 'resnet5O'"),
        ([*TRAIN, "--score-sizes", "big"], "sizes are whole numbers separated by commas, such as 320,448; got 'big'"),
        ([*TRAIN, "--weights", "nowhere.pth"], "nowhere.pth does not exist"),
        ([*TRAIN, "--weights", "file"], "file cannot be read as a state dict"),
        ([*TRAIN, "--recipe", "voc70"], "did you mean voc07?"),
        ([*TRAIN, "--recipe", "list.yaml"], "must be a mapping of settings; got list"),
        ([*TRAIN, "--recipe", "wrong.yaml"], "lr must be a number"),
        ([*TRAIN, "--recipe", "unknown.yaml"], "unknown setting 'learning_rat'"),
        ([*TRAIN, "--resume=yes"], "--resume"),
        ([*TRAIN, "--out", "file"], "file is a file; give a folder"),
        ([*TRAIN, "--out", "file/deeper"], "file/deeper"),
        ([*TRAIN, "--out", "run"], "already holds a run"),
        ([*TRAIN, "--data", "cat.png"], "did you mean 'tags:cat.png'"),
        ([*TRAIN, "--data", "empty"], "did you mean 'folder:empty'"),
        ([*TRAIN, "--data", "folder:empty"], "empty: holds no folder"),
        ([*TRAIN, "--data", "folder:nowhere"], "nowhere: not found"),
        ([*TRAIN, "--data", "tags:bad.csv"], "line 2 has 1 columns"),
        ([*TRAIN, "--data", "voc7:x"], "did you mean voc07?"),
        ([*TRAIN, "--data", "synthetic:size=7"], "size=7 is not allowed"),
        (["train", "--out", "damaged", "--resume"], "damaged/config.json"),
        (["train", "--out", "run", "--resume", "--lr", "3"], "cannot change lr from 0.1 to 3.0 when resuming"),
        (["evaluate", "imagenet"], "imagenet has no dataset of its own"),
        (["evaluate", "nowhere", "--data", "synthetic"], "no run in nowhere"),
        (["evaluate", "empty", "--data", "synthetic"], "empty is not a run's folder"),
        (["evaluate", "damaged", "--data", "synthetic"], "config.json has no entry"),
        (
            ["evaluate", "run", "--data", "synthetic", "--tasks", "painting"],
            "task 'painting' is unknown; allowed: ",
        ),
        (["evaluate", "run", "--data", "synthetic", "--split", "nope"], "no split 'nope'"),
        (["evaluate", "imagenet", "--data", "synthetic"], "other classes than the model"),
        (["evaluate", "run", "--data", "synthetic", "--tasks", "segmentatoin"], "did you mean segmentation?"),
        pytest.param(["serve", "nowhere"], "no run in nowhere", marks=pytest.mark.slow),
        pytest.param(["serve", "run", "--prot", "80"], "did you mean --port?", marks=pytest.mark.slow),
        (["completion", "fish"], "fish"),
        (
            ["evaluate", "run", "--data", "synthetic:count=2,size=32", "--json", "no/r.json"],
            "no/r.json cannot be written",
        ),
        (["predict", "run", "--out", "new"], "required: IMAGE"),
        (
            ["predict", "run", "cat.png", "--crf"],
            "and --overwrite need a directory to write to: --out DIR",
        ),
        (["predict", "run", "cat.png", "--json", "-", "--formats", "csv"], "--formats, --crf and --overwrite need"),
        (["predict", "here/rum", "cat.png"], "no run in here/rum; here holds run"),
        (["report", "here/rum"], "here/rum is not a run's folder"),
        (["export", "run", "--check", "nowhere.jpg"], "nowhere.jpg does not exist"),
        (["predict", "run", "nowhere.jpg", "--out", "new"], "nowhere.jpg does not exist"),
        (["predict", "run", "empty", "--out", "new"], "empty holds no images"),
        (["predict", "run", "cat.png", "--out", "file"], "file"),
        (["predict", "run", "cat.png", "--out", "new", "--formats", "jsn"], "format 'jsn' is unknown; allowed: json"),
        (
            ["predict", "run", "cat.png", "--out", "new", "--threshold", "7"],
            "a probability, 0..1 (0.5 for 50 %), or CLASS=P,CLASS=P; got 7",
        ),
        (
            ["predict", "run", "cat.png", "--out", "new", "--threshold", "cat=0.5,dog"],
            "or CLASS=P,CLASS=P; got cat=0.5",
        ),
        (["predict", "run", "cat.png", "--out", "new", "--threshold", "cat=2"], "0..1 (0.5"),
        (["predict", "run", "cat.png", "--out", "new", "--threshold", "cart=0.5"], "'cart', which is not a class"),
        (["predict", "run", "cat.png", "--out", "new", "--batch-size", "0"], "at least 1; got 0"),
        (["predict", "imagenett", "cat.png", "--out", "new"], "no run in imagenett"),
        (["quickstart", "--recipe", "nowhere"], "no recipe or file 'nowhere'"),
        (["quickstart", "--out", "file/x", "--recipe", "list.yaml"], "must be a mapping"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_a_user_error_is_one_line(
    place: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    *report, line = captured.err.strip().splitlines()
    assert line.startswith("wildcat: error: ") and message in line, line
    assert "Traceback" not in captured.err and not (place / "new" / "config.json").exists()
    # Only the report on the data may precede it.
    assert all("images checked" in other or other.startswith(("  ", "training on ")) for other in report), report


@pytest.mark.slow
def test_a_user_error_in_a_new_process(place: Path) -> None:
    process = start("train", "--out", place / "new", *flags(freeze_stages=99))
    _, message = process.communicate()
    assert process.returncode == 2 and "Traceback" not in message
    assert message.splitlines()[-1].startswith("wildcat: error: freeze_stages")


def test_debug_shows_the_traceback_of_a_training(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--out", str(place / "new"), *flags(freeze_stages=99), "--debug"]) == 2
    message = capfd.readouterr().err
    assert "Traceback" in message and "freeze_stages" in message


def test_debug_shows_the_traceback(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["evaluate", str(place / "empty"), "--data", "synthetic"], [*TRAIN, "--out", str(place / "run")]):
        assert main([*arguments, "--debug"]) == 2
        assert "Traceback" in capsys.readouterr().err


def test_other_errors_are_not_caught(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AttributeError("a defect")

    monkeypatch.setattr("wildcat.evaluation.run.load", broken)
    with pytest.raises(AttributeError, match="a defect"):
        main(["evaluate", str(place / "run"), "--data", "synthetic"])


class OutOfMemoryError(Exception):
    """As a library's own."""


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory\nmore"),
        RuntimeError("could not create a primitive"),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"),
    ],
)
def test_every_command_says_that_memory_ran_out(
    command: str, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: object) -> None:
        raise error

    monkeypatch.setattr(f"wildcat.cli.{command}.main", full)
    assert main([command]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(
        "wildcat: error: (the memory of this machine is not enough|no new thread can be started: memory)", line
    )
    assert command not in ("predict", "evaluate", "batch", "train") or re.search("lower|fewer", line)
    with pytest.raises(type(error)) if not isinstance(error, OSError) else nullcontext():
        main([command, "--debug"])


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wildcat.evaluation.run.load", interrupted)
    assert main(["evaluate", "run", "--data", "synthetic"]) == 130
    assert capsys.readouterr().err == "wildcat: stopped\n"


# What commands do


@pytest.mark.slow
def test_settings_from_recipe_and_options(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "lr: 0.3\nepochs: 1\nkmax: 2\nscore_sizes: [64, 96]\nmirror: true\nnum_maps: 3\n"
    )
    options = flags(epochs=1)
    for name in ("--num-maps", "--kmax"):
        at = options.index(name)
        del options[at : at + 2]
    arguments = ["train", "--out", str(tmp_path / "run"), "--recipe", str(tmp_path / "mine.yaml"), *options]
    assert main([*arguments, "--kmin", "all", "--map-sizes", "64,128"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["lr"], config["kmax"], config["kmin"], config["num_maps"]) == (0.1, 2, "all", 3)  # options win
    assert (config["score_sizes"], config["map_sizes"], config["mirror"]) == ([64, 96], [64, 128], True)
    assert config["data"] == "synthetic:count=24,size=64" and config["pretrained"] is False


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("0.25", 0.25), ("all", "all"), ("12", 12), ("0", 0)], ids=str)
def test_regions_keep_their_kind(tmp_path: Path, text: str, value: object) -> None:
    assert (
        main(["train", "--out", str(tmp_path), *flags(epochs=1, data="synthetic:count=4,size=64"), "--kmin", text]) == 0
    )
    saved = json.loads((tmp_path / "config.json").read_text())["config"]["kmin"]
    assert saved == value and type(saved) is type(value)


@pytest.mark.slow
def test_evaluate_writes_results(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = "synthetic:count=12,size=64"
    run = shutil.copytree(place / "run", tmp_path / "run")
    (run / "results.json").unlink(missing_ok=True)
    assert main(["evaluate", str(run), "--data", data, "--json", str(tmp_path / "r.json")]) == 0
    message = capsys.readouterr().out
    assert "mAP" in message and str(tmp_path / "r.json") in message
    assert not (run / "results.json").exists()
    assert main(["evaluate", str(run), "--data", data, "--tasks", "pointing"]) == 0
    first = json.loads((tmp_path / "r.json").read_text())
    second = json.loads((run / "results.json").read_text())
    assert first["pointing"] == second["pointing"] and "classification" not in second


@pytest.mark.slow
def test_evaluate_in_half_precision(place: Path, tmp_path: Path) -> None:
    results = {}
    for precision in ("fp32", "bf16"):
        file = tmp_path / f"{precision}.json"
        words = ["--data", "synthetic:count=8,size=64", "--precision", precision, "--json", str(file)]
        assert main(["evaluate", str(place / "run"), *words]) == 0
        results[precision] = json.loads(file.read_text())
        assert results[precision]["inference"]["precision"] == precision
    single, half = (results[name]["classification"]["map_area"] for name in results)
    assert half == pytest.approx(single, abs=15)  # of 8 images: the rank of one may change


@pytest.mark.slow
def test_scores_are_shown_of_a_run_that_cannot_be_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read_only(file: Path, _: object) -> None:
        raise WildcatError(f"{file} cannot be written: Read-only file system")

    monkeypatch.setattr("wildcat.evaluation.run.write_results", read_only)
    command = ["evaluate", str(place / "run"), "--data", "synthetic:count=2,size=64"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "mAP" in shown.out and "written" not in shown.out
    assert "results.json cannot be written: Read-only file system; the results are not kept with the run" in shown.err
    assert main([*command, "--json", str(place / "asked.json")]) == 2  # a file that was asked for


@pytest.mark.slow
def test_evaluate_takes_the_data_of_the_run(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(place / "run", tmp_path / "run")
    (run / "results.json").unlink(missing_ok=True)

    def scored(*arguments: str) -> str:
        assert main(["evaluate", str(run), *arguments]) == 0
        captured = capsys.readouterr()
        assert ("as none was given" in captured.err) == ("--data" not in arguments)
        said = captured.out.splitlines()[0].rpartition(" (")[0]
        assert f"scoring {said}\n" in captured.err  # before the images are predicted
        return said

    own, other = TINY["data"], "synthetic:count=6,size=64"
    held_out = f"24 held-out images of {own}, split test"
    assert scored() == scored("--data", own) == held_out
    assert scored("--split", "val") == f"24 images of {own}, split val of the training data"
    assert scored() == held_out
    assert scored("--data", other, "--split", "val") == f"6 images of {other}, split val: it is not the training data"
    assert scored() == held_out
    results = read_results(run / "results.json")
    kept = [(each.data, each.split) for each in (results, *results.others)]
    assert kept == [(own, "test"), (other, "val"), (own, "val")]


def test_predict_files_and_folders(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    for name in ("b.jpg", "a.png", "deep/c.JPG"):
        trees.image(folder / name)
    (folder / "notes.txt").write_text("no image")
    arguments = ["predict", str(place / "run"), str(place / "cat.png"), str(folder), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--formats", "json"]) == 0
    assert "4 of 4 images" in capsys.readouterr().out
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["file"]).name for line in lines] == ["cat.png", "a.png", "b.jpg", "c.JPG"]


@pytest.mark.slow
@pytest.mark.parametrize("out", ["images/found", "images", "images/deep/../found/"])
def test_predict_leaves_out_earlier_results(place: Path, tmp_path: Path, out: str) -> None:
    own = ["a.png", "deep/b.png", "deep/found/c.png", "overlays/d.png"]
    for name in own:
        trees.image(tmp_path / "images" / name)
    (tmp_path / "link").symlink_to(tmp_path / "images", target_is_directory=True)
    for given in ("images", "images", "link"):
        words = [str(tmp_path / given), "--out", str(tmp_path / out), "--formats", "json,overlay,mask,voc"]
        assert main(["predict", str(place / "run"), *words]) == 0
        lines = (tmp_path / out / "predictions.jsonl").read_text().splitlines()
        assert [json.loads(line)["file"] for line in lines] == [str(tmp_path / given / name) for name in own]


def test_predict_reads_named_folders_inside_the_output_folder(place: Path, tmp_path: Path) -> None:
    for name in ("mine/a.png", "overlay/b.png", "c.png"):
        trees.image(tmp_path / name)
    given = [str(tmp_path / name) for name in ("mine", "overlay", "c.png")]
    assert main(["predict", str(place / "run"), *given, "--out", str(tmp_path), "--formats", "json"]) == 0
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["file"]).name for line in lines] == ["a.png", "b.png", "c.png"]


def test_predict_continues_after_a_bad_image(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [str(place / "file"), str(place / "cat.png")]
    assert main(["predict", str(place / "run"), *images, "--out", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    skipped = f"skipped: {place / 'file'}: not an image in a format that can be read"
    assert captured.err.splitlines() == ["computed in torch, fp32, cpu", skipped]
    assert "1 of 2 images" in captured.out
    assert [path.name for path in (tmp_path / "overlay").iterdir()] == ["cat.jpg"]


@pytest.mark.slow
def test_imagenet_from_process_start(tmp_path: Path) -> None:
    from sklearn.datasets import load_sample_image

    Image.fromarray(np.asarray(load_sample_image("china.jpg"))).save(tmp_path / "china.jpg")
    process = start_python("predict", "imagenet", tmp_path / "china.jpg", "--out", tmp_path / "out")
    _, message = process.communicate()
    assert process.returncode == 0, message
    (line,) = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert len(json.loads(line)["predicted"]) == 1
    assert [path.name for path in (tmp_path / "out" / "overlay").iterdir()] == ["china.jpg"]


def test_json_is_all_of_standard_output(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(place / "run"), "--data", "synthetic:count=8,size=64", "--json", "-"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["images"] == 8
    assert "classification: mAP" in err


@pytest.mark.slow
def test_json_lines_are_all_of_standard_output(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    predict, image = ["predict", str(place / "run")], str(place / "cat.png")
    assert main([*predict, str(place / "file"), image, "--json", "-", "--threshold", "0"]) == 1
    out, err = capfd.readouterr()
    assert "skipped: " in err
    (line,) = out.splitlines()
    printed = json.loads(line)
    assert printed["file"] == str(place / "cat.png") and len(printed["predicted"]) == len(printed["scores"])
    # The same lines in a file, and in the output folder.
    for target in ("-", str(tmp_path / "lines.jsonl")):
        folder = tmp_path / f"out{target == '-'}"
        words = ["--json", target, "--out", str(folder), "--formats", "json,overlay", "--threshold", "0"]
        assert main([*predict, image, *words]) == 0
        out, err = capfd.readouterr()
        text = out if target == "-" else Path(target).read_text()
        given, written = json.loads(text), json.loads((folder / "predictions.jsonl").read_text())
        assert given == written and given.pop("overlay") == "overlay/cat.jpg"  # says where the other files are
        assert given == printed
        assert "1 of 1 images" in (err if target == "-" else out)


@pytest.mark.slow
def test_predict_prints_the_predictions(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        shutil.copy(place / "cat.png", tmp_path / f"{name}.png")
    arguments = ["predict", str(place / "run"), str(tmp_path), "--out", str(tmp_path / "out"), "--formats", "csv"]
    assert main([*arguments, "--threshold", "0"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert re.match(r"a\.png: [\w ]+ \d+ % at \(\d+, \d+\), ", first) and last.startswith("3 of 3 images: ")
    assert main([*arguments, "--threshold", "1"]) == 0
    assert re.match(r"a\.png: no class above the threshold; most probable: [\w ]+ \d+ %\n", capsys.readouterr().out)
    for _ in range(9):
        shutil.copy(place / "cat.png", tmp_path / f"{_}.png")
    assert main(arguments) == 0
    *_, more, last = capsys.readouterr().out.splitlines()
    assert more == "... and 2 more" and last.startswith("12 of 12")
    assert main(arguments[:3]) == 0  # without --out: the predictions of every image, and no file
    assert len(capsys.readouterr().out.splitlines()) == 12


@pytest.mark.parametrize("arguments", [["predict"], ["evaluate"]])
def test_no_progress_bar_and_no_colour_in_a_pipe(
    place: Path, tmp_path: Path, arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    rest = {
        "predict": [str(place / "cat.png"), "--out", str(tmp_path)],
        "evaluate": ["--data", "synthetic:count=8,size=64", "--json", str(tmp_path / "r.json")],
    }
    assert main([*arguments, str(place / "run"), *rest[arguments[0]]]) == 0
    out, err = capfd.readouterr()  # files, as pipes are: no terminal
    assert out and not re.search(r"[\r\x1b]|%\|", out + err)


# Completion


def completed(script: str, *words: str) -> list[str]:
    """The completions that bash offers for the last word."""
    code = script + '\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _wildcat; printf "%s\\n" "${COMPREPLY[@]}"'
    ended = subprocess.run(["bash", "-c", code, "bash", *words], capture_output=True, text=True, check=True)
    return ended.stdout.split()


@pytest.mark.slow
def test_completion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert set(COMMANDS) <= set(completed(script, "wildcat", ""))
    assert completed(script, "wildcat", "tr") == ["train"]
    assert completed(script, "wildcat", "train", "--sch") == ["--schedule"]
    assert completed(script, "wildcat", "train", "--schedule", "") == ["constant", "step", "cosine"]
    assert completed(script, "wildcat", "train", "--recipe", "voc07-mini") >= ["voc07-mini"]
    assert completed(script, "wildcat", "evaluate", "--labels", "im") == ["image"]
    assert completed(script, "wildcat", "completion", "") == ["bash", "zsh"]
    assert completed(script, "wildcat", "predict", "some") == []  # file names, completed by the shell
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef wildcat\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.4", 0.4),
        ("cat=0.3,dog=0.6", {"cat": 0.3, "dog": 0.6}),
        ("cats, dogs=0.3,dog=0.6", {"cats, dogs": 0.3, "dog": 0.6}),
        ("a=b=0.3,c=d,e=1", {"a=b": 0.3, "c=d,e": 1.0}),
        ('{"a=0.5,b": 0.3}', {"a=0.5,b": 0.3}),  # a name that only JSON can separate
    ],
)
def test_thresholds_of_names_with_commas_and_equals_signs(text: str, expected: object) -> None:
    parser = command_parser("predict", "", "")
    add_prediction(parser)
    assert parser.parse_args(["--threshold", text]).threshold == expected


@pytest.mark.parametrize(
    "text", ["cat=0.3,dog", "cat=2,dog=0.5", "cat=x", "cat=", "cat", "{cat: 0.3", '["cat"]', '{"cat": "x"}']
)
def test_a_threshold_that_cannot_be_read(text: str) -> None:
    parser = command_parser("predict", "", "")
    add_prediction(parser)
    with pytest.raises(WildcatError, match="a threshold is a probability"):
        parser.parse_args(["--threshold", text])
