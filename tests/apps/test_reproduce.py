"""The paper's experiments: planned runs, tables and figures, and resuming after a kill."""

import copy
import csv
import json
import signal
import statistics
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments import reproduced
from tests.tiny_runs import flags, start, tiny
from wildcat.apps.reproduce import complete as running
from wildcat.apps.reproduce import figures, tables
from wildcat.apps.reproduce import plan as planning
from wildcat.apps.reproduce.plan import Effect
from wildcat.apps.reproduce.run import reproduce
from wildcat.cli import main
from wildcat.errors import WildcatError
from wildcat.pooling import class_wise_pool, spatial_pool
from wildcat.training import setup
from wildcat.training.state import load_state
from wildcat.transfer import MultiMapTransfer


def made(**scores: list[float]) -> list[dict]:
    """Rows with a score for seeds 0, 1, ..."""
    return [
        {
            "key": key,
            "label": key,
            "x": None,
            "settings": {},
            "paper": {},
            "runs": [
                {"run": f"{key}-seed{seed}", "setting": key, "seed": seed, "scores": {"mAP": value}}
                for seed, value in enumerate(values)
            ],
        }
        for key, values in scores.items()
    ]


def judged(higher: str, lower: str, rows: list[dict]) -> dict:
    chance = tables.spread([run for row in rows for run in row["runs"]], "mAP")
    return tables.judged(Effect(f"{higher} beats {lower}", higher, lower), rows, "mAP", chance)


def test_experiments_share_runs_and_all_of_seed_0_come_first() -> None:
    known = planning.experiments(maps=(1, 2, 4, 8))
    chosen = [known[name] for name in ("table5", "table6", "table7", "figure4")]
    runs = planning.plan(chosen, tiny(), seeds=(0, 1))
    assert len(runs) == 24 == len({run.name for run in runs})  # 2 + 4 + 4 + 6 rows, of which 4 are shared
    assert [run.config.seed for run in runs] == [0] * 12 + [1] * 12
    first = runs[0]
    assert first.serves == ("table5", "table6", "table7", "figure4")
    assert (first.config.num_maps, first.config.kmax, first.config.kmin, first.config.alpha) == (1, 1, 1, 1.0)


def test_rows_differ_only_in_the_varied_setting() -> None:
    recipe = tiny(num_maps=4, alpha=0.7, kmax=0.2)
    for name, varied in {"table5": {"architecture"}, "table6": {"num_maps"}, "figure4": {"alpha"}}.items():
        configs = [run.config.to_dict() for run in planning.plan([planning.experiments()[name]], recipe, [0])]
        differing = {key for key in configs[0] if len({repr(config[key]) for config in configs}) > 1}
        assert differing == varied


def test_the_control_of_table_6_changes_only_the_rate_of_the_head() -> None:
    runs = planning.plan([planning.experiments()["table6-rate"]], tiny(lr=0.01, backbone_lr_factor=0.1), [0])
    assert [run.config.lr for run in runs] == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.12, 0.16])
    assert [run.config.lr * run.config.backbone_lr_factor for run in runs] == pytest.approx([0.001] * 6)


def test_the_mean_of_m_filters_learns_like_one_filter_at_an_mth_of_the_rate() -> None:
    """Why Table 6 has a control. Three steps of momentum; both start from the same mean."""
    features, labels = torch.randn(8, 5, 3, 3), torch.rand(8, 2).round()
    many = MultiMapTransfer(5, 2, num_maps=4).double()
    merged = {}
    for num_maps, rate in ((4, 0.4), (1, 0.1)):
        transfer = copy.deepcopy(many) if num_maps == 4 else copy.deepcopy(many.merged())
        optimizer = torch.optim.SGD(transfer.parameters(), lr=rate, momentum=0.9)
        for _ in range(3):
            scores = spatial_pool(class_wise_pool(transfer(features.double()), num_maps), 1, 1, 0.7)
            loss = torch.nn.functional.multilabel_soft_margin_loss(scores, labels.double())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        merged[num_maps] = class_wise_pool(transfer(features.double()), num_maps).detach()
    assert torch.allclose(merged[4], merged[1], rtol=1e-9)
    assert not torch.allclose(merged[1], class_wise_pool(many(features.double()), 4), rtol=1e-3)


def test_random_splits_differ_by_seed() -> None:
    recipe = tiny(data="scene15:DIR,seed={seed}")
    runs = planning.plan([planning.experiments()["table5"]], recipe, [0, 3])
    assert [run.config.data for run in runs] == ["scene15:DIR,seed=0"] * 2 + ["scene15:DIR,seed=3"] * 2
    assert recipe.data == "scene15:DIR,seed={seed}"
    assert [run.setting for run in runs[:2]] == [run.setting for run in runs[2:]]
    assert len({run.setting for run in runs}) == 2


def test_the_name_of_a_run_depends_on_everything_that_changes_its_scores() -> None:
    name = planning.run_name(tiny())
    assert planning.run_name(tiny()) == name
    assert planning.run_name(tiny(workers=2, save_minutes=1.0)) == name
    assert planning.run_name(tiny(precision="auto")) == name  # all runs of a folder have the same
    for changes in ({"lr": 0.2}, {"data": "synthetic:count=25,size=64"}, {"seed": 1}, {"image_size": 96}):
        assert planning.run_name(tiny(**changes)) != name


def test_every_published_row_is_in_its_table() -> None:
    known = planning.experiments()
    for name, rows in tables.published().items():
        assert set(rows) <= {row.key for row in known[name].rows}
        assert {kind for row in rows.values() for kind in row} <= set(tables.DATA_NAMES)


def test_an_effect_is_judged_by_the_deviation_that_settings_and_seeds_do_not_explain() -> None:
    rows = made(a=[10.0, 12.0], b=[13.0, 15.2], c=[11.0, 12.8])
    # By hand: means of rows 11, 14.1, 11.9; seed 1 is 2 above seed 0; residuals 0, 0.1 and -0.1, twice each.
    chance = tables.spread([run for row in rows for run in row["runs"]], "mAP")
    assert chance == {"deviation": pytest.approx((0.04 / 2) ** 0.5), "freedom": 2}
    effect = judged("b", "a", rows)
    assert effect["difference"] == pytest.approx(3.1)
    assert effect["threshold"] == pytest.approx(4.3027 * 0.02**0.5, abs=1e-4)  # t of 2 degrees at 95 %
    assert effect["verdict"] == "appears"
    assert judged("a", "b", rows)["verdict"] == "reversed"
    assert judged("b", "a", made(a=[10.0, 12.0], b=[12.0, 10.5]))["verdict"] == "unclear"


def test_an_incomplete_seed_does_not_hide_the_complete_ones() -> None:
    rows = made(a=[10.0, 12.0, 14.0], b=[13.0, 15.2], c=[11.0, 12.8])
    assert tables.spread([run for row in rows for run in row["runs"]], "mAP")["freedom"] == 2
    assert judged("b", "a", rows)["difference"] == pytest.approx(3.1)


def test_with_one_seed_no_verdict_is_given() -> None:
    rows = made(a=[10.0], b=[13.0], c=[])
    assert judged("b", "a", rows)["verdict"] == "one seed"
    assert judged("c", "a", rows)["verdict"] == "not measured"
    assert "so chance cannot be excluded" in tables.describe_effect(judged("b", "a", rows))


def test_without_shared_seeds_chance_is_unknown() -> None:
    rows = made(a=[10.0, 12.0], b=[13.0, 15.2])
    effect = tables.judged(Effect("b beats a", "b", "a"), rows, "mAP", None)
    assert (effect["verdict"], effect["difference"]) == ("chance unknown", pytest.approx(3.1))
    assert tables.describe_effect(effect).endswith("too few runs share seeds to estimate the effect of chance.")


def test_pages_before_the_first_run() -> None:
    experiment = planning.experiments()["figure4"]
    about = {"command": "wildcat ...", "data": "voc07:X", "train_split": "trainval", "split": "test", "images": 3}
    page = tables.markdown(tables.record(experiment, {}, [], tiny(), about))
    assert page.count("not measured yet |") == 6 and "beats 0: not measured yet." in page


def test_mean_and_deviation() -> None:
    assert tables.mean_and_deviation([80.0, 82.0]) == f"81.0 ± {statistics.stdev([80, 82]):.1f}"
    assert tables.mean_and_deviation([80.0]) == "80.0"
    assert tables.mean_and_deviation([]) == ""


def test_a_dataset_is_named_by_its_folder() -> None:
    assert tables.data_name("coco:/somewhere/coco-mini,year=2014") == "coco-mini"


# Pages of finished runs with known scores, without training


def finish(folder: Path, score: float, **parts: dict) -> None:
    """Write the files of a finished run that tables need."""
    folder.mkdir(parents=True)
    about = {"data": "synthetic", "split": "test", "images": 24, "seconds": 30.0, "versions": {}}
    results = {**about, "classification": {"map_area": score}, **parts}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "metrics.csv").write_text("epoch,seconds\n1,60\n2,90\n")


def finished_runs(out: Path, names: list[str], score, seeds=(0, 1)) -> list:
    """Experiments whose finished runs have the score that a function of their settings gives."""
    chosen = [planning.experiments()[name] for name in names]
    for run in planning.plan(chosen, tiny(), seeds):
        finish(out / "runs" / run.name, score(run.config))
    return chosen


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that were to be trained; nothing is trained."""
    asked: list[str] = []
    monkeypatch.setattr(running, "complete", lambda run, *_: asked.append(run.name))
    return asked


def test_tables_of_finished_runs(tmp_path: Path, untrained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    wobble = {1: (0.1, -0.1), 2: (-0.1, 0.1)}
    chosen = finished_runs(
        tmp_path,
        ["table6"],
        lambda config: 80 + config.num_maps + 2 * config.seed + wobble.get(config.num_maps, (0, 0))[config.seed],
    )
    (page,) = reproduce(chosen, tiny(), tmp_path, [0, 1], "wildcat reproduce table6 --out /some/where")
    assert untrained == []
    lines = page.read_text().splitlines()
    assert "| M = 1 | 89.0 | 78.9 | 69.6 | 82.0 ± 1.3 | 0, 1 |" in lines  # 81.1 and 82.9
    assert "| M = 16 | 92.0 | 82.7 | 72.9 | 97.0 ± 1.4 | 0, 1 |" in lines
    assert any(
        line.startswith("- 8 maps per class beat one (paper: VOC 2007 +3.5") and "+7.0" in line for line in lines
    )
    assert "**appears**" in page.read_text() and "12 runs, 36.0 minutes." in lines
    with page.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and rows[0]["row"] == "M=1" and float(rows[0]["mAP"]) == pytest.approx(81.1)
    assert {row["num_maps"] for row in rows} == {"1", "2", "4", "8", "12", "16"}
    values = json.loads(page.with_suffix(".json").read_text())
    assert values["score"] == "mAP" and values["chance"]["freedom"] == 5

    # The ledger has no paths of this machine.
    (record,) = reproduced.keep(tmp_path, tmp_path / "kept", "abc", {"cores": 2, "cpu": "p"})
    assert json.loads(record.read_text())["command"] == "wildcat reproduce table6"
    monkeypatch.setattr(reproduced, "HERE", tmp_path)
    section = reproduced.section(tmp_path / "kept")
    assert (
        "| M = 16 | 92.0 | 82.7 | 72.9 | 97.0 ± 1.4 | 0, 1 |" in section and "commit abc; 12 runs of 3.0 min" in section
    )
    assert reproduced.section(tmp_path / "nothing") == ""


def test_the_command_in_the_ledger_has_no_paths_of_this_machine() -> None:
    command = (
        "wildcat reproduce table5 figure4 --data 'voc07:/home/me/my data' --recipe r --workers 0 --seeds 0,1 --out /x"
    )
    values = {"name": "figure4", "command": command, "data": "voc07:/home/me/my data"}
    assert reproduced.command_of(values) == "wildcat reproduce figure4 --data 'voc07:my data' --recipe r --seeds 0,1"


@pytest.mark.slow
def test_curves_are_written_as_png_and_svg(tmp_path: Path, untrained: list[str]) -> None:
    chosen = finished_runs(tmp_path, ["figure4"], lambda config: 80 + 4 * config.alpha * (1.4 - config.alpha))
    (page,) = reproduce(chosen, tiny(), tmp_path, [0, 1], "wildcat reproduce figure4")
    assert "![Figure 4" in page.read_text() and untrained == []
    pixels = np.asarray(Image.open(tmp_path / "figure4.png").convert("RGB")).astype(int)
    assert pixels.shape[0] > 400 and (pixels[..., 2] - pixels[..., 0] > 60).sum() > 500  # a blue curve
    text = " ".join(ElementTree.parse(tmp_path / "figure4.svg").getroot().itertext())
    assert "alpha" in text and "mAP (%)" in text and text.count("each seed") == 1
    before = (tmp_path / "figure4.svg").read_bytes()
    reproduce(chosen, tiny(), tmp_path, [0, 1], "wildcat reproduce figure4")
    assert (tmp_path / "figure4.svg").read_bytes() == before


def test_random_splits_are_seeds_of_one_setting(tmp_path: Path, untrained: list[str]) -> None:
    recipe = tiny(data="synthetic:count=24,size=64,seed={seed}")
    chosen = [planning.experiments()["table5"]]
    for run in planning.plan(chosen, recipe, [0, 1]):
        finish(tmp_path / "runs" / run.name, 80 + 3 * run.config.seed - 5 * (run.config.architecture == "b"))
    (page,) = reproduce(chosen, recipe, tmp_path, [0, 1], "")
    assert json.loads(page.with_suffix(".json").read_text())["chance"] == {"deviation": pytest.approx(0), "freedom": 1}
    assert "+5.0 mAP: **appears**" in page.read_text() and untrained == []


@pytest.mark.slow
def test_runs_scored_only_for_another_experiment_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runs of figure4, scored on classification, are also those of figure5, which shows pointing."""

    def complete(run, folder: Path) -> None:
        page = tmp_path / "figure5.md"
        seen.append(page.read_text().count("not measured yet |"))
        results = json.loads((folder / "results.json").read_text())
        (folder / "results.json").write_text(json.dumps({**results, "pointing": {"map": 60 + run.config.alpha}}))

    finished_runs(tmp_path, ["figure4"], lambda config: 80 + config.alpha, seeds=[0])
    known = planning.experiments()
    words = ["reproduce", "figure5", "--seeds", "0", "--out", str(tmp_path), *flags(), "--dry-run"]
    assert main(words) == 0
    assert "6 runs of 2 epochs, 0 of them finished" in capsys.readouterr().out
    seen: list[int] = []
    monkeypatch.setattr(running, "complete", complete)
    reproduce([known["figure5"]], tiny(), tmp_path, [0], "")
    assert seen == [6, 5, 4, 3, 2, 1]
    page = (tmp_path / "figure5.md").read_text()
    assert "| alpha = 0.4 | 60.4 | 0 |" in page and "here, mAP" not in page
    assert main(words) == 0
    assert "6 runs of 2 epochs, 6 of them finished" in capsys.readouterr().out


def test_missing_runs_are_done_and_a_failed_one_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complete(run, folder: Path) -> None:
        if run.config.num_maps == 4:
            raise WildcatError("the loss became inf")
        finish(folder, 80.0)

    monkeypatch.setattr(running, "complete", complete)
    chosen = [planning.experiments()["table7"]]
    with pytest.raises(WildcatError, match=r"2 of 4 runs failed; the first: M4-k1-1-alpha1-.*: the loss became inf"):
        reproduce(chosen, tiny(), tmp_path, [0], "wildcat reproduce table7")
    page = (tmp_path / "table7.md").read_text()
    assert page.count("| 80.0 | 0 |") == 2 and page.count("not measured yet |") == 2


def test_a_folder_has_one_dataset_and_recipe(tmp_path: Path, untrained: list[str]) -> None:
    chosen = finished_runs(tmp_path, ["table5"], lambda config: 80.0)
    reproduce(chosen, tiny(), tmp_path, [0, 1], "")
    reproduce(chosen, tiny(workers=1), tmp_path, [0, 1], "")
    with pytest.raises(WildcatError, match=r"experiments with lr 0\.1, not 0\.2; give another folder"):
        reproduce(chosen, tiny(lr=0.2), tmp_path, [0, 1], "")
    with pytest.raises(WildcatError, match="experiments with data"):
        reproduce(chosen, tiny(data="synthetic:count=9,size=64"), tmp_path, [0, 1], "")


def test_all_runs_of_a_folder_have_one_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, used = iter([True, False, False]), []
    monkeypatch.setattr(setup, "bf16_is_faster", lambda *_: next(answers))

    def complete(run, folder: Path) -> None:
        used.append(run.config.precision)
        finish(folder, 80.0)

    monkeypatch.setattr(running, "complete", complete)
    known = planning.experiments()
    for name in ("table5", "table7"):  # two calls
        (page,) = reproduce([known[name]], tiny(precision="auto"), tmp_path, [0], "")
        assert "64 px, 2 epochs, bf16. Per cent" in page.read_text()
    assert used == ["bf16"] * 5
    assert json.loads((tmp_path / "reproduce.json").read_text())["precision"] == "bf16"
    reproduce([known["table5"]], tiny(precision="bf16"), tmp_path, [0], "")
    with pytest.raises(WildcatError, match="holds experiments with precision 'bf16', not 'fp32'; give another folder"):
        reproduce([known["table5"]], tiny(precision="fp32"), tmp_path, [0], "")
    assert len(used) == 5


def test_missing_annotations_are_an_error_before_training(tmp_path: Path, untrained: list[str]) -> None:
    for name in ("a", "b"):
        for split in ("train", "test"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(tmp_path / "data" / split / name / "1.png")
    recipe = tiny(data=f"folder:{tmp_path / 'data'}")
    for name, needed in {"figure5": "boxes", "table8": "boxes", "table9": "masks", "figure6": "masks"}.items():
        with pytest.raises(WildcatError, match=f"{name} needs {needed}"):
            reproduce([planning.experiments()[name]], recipe, tmp_path / "out", [0], "")
    with pytest.raises(WildcatError, match="figure6 shows two of the maps of a class; num_maps is 1"):
        reproduce([planning.experiments()["figure6"]], tiny(num_maps=1), tmp_path / "out", [0], "")
    assert untrained == [] and not (tmp_path / "out").exists()


# The command


def test_dry_run_lists_the_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["reproduce", "table2", "table5", "--data", "synthetic", "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*words, "--seeds", "3,4", "--scales", "64,96"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        len(lines) == 19 and lines[-1] == "18 runs of 10 epochs, 0 of them finished"
    )  # 7 methods and 2 orders, two seeds
    assert lines[0].endswith("-seed3  table2") and lines[9].endswith("-seed4  table2")
    assert sum("-scales-64-96-" in line for line in lines) == 2
    assert not (tmp_path / "out").exists()
    finish(tmp_path / "out" / "runs" / lines[0].split()[0], 80.0)
    assert main([*words, "--seeds", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("  (finished)") and lines[-1] == "8 runs of 10 epochs, 1 of them finished"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table1"], "no experiment 'table1'; did you mean table9? (known: table2, "),
        (["table5", "--seeds", "a"], "--seeds must be numbers separated by commas, such as 0,1; got 'a'"),
        (["table5", "--seed", "1"], "did you mean --seeds?"),
        (["table5", "--recipe", "voc7"], "no recipe or file 'voc7'"),
    ],
)
def test_mistakes(words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["reproduce", *words, "--data", "synthetic", "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def modification_times(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_a_killed_process_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["reproduce", "table5", "--out", out, "--seeds", "0", *flags(epochs=3, save_minutes=1e-9)]
    words = [str(word) for word in words]
    process = start(*words)
    try:
        deadline = time.monotonic() + 300
        while not (second := list(out.glob("runs/*-b-*-seed0/state.pt"))):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    unfinished = second[0].parent
    (finished,) = [folder for folder in (out / "runs").iterdir() if folder != unfinished]
    state = load_state(unfinished)
    assert state is not None and not (unfinished / "model.safetensors").exists()
    reached, settings = state["progress"]["epoch"], (unfinished / "config.json").stat().st_mtime_ns
    before = modification_times(finished)
    assert (finished / "results.json").exists()
    assert "| (b) pool, then classify | 87.3 | 77.5 | 68.1 |  | not measured yet |" in (out / "table5.md").read_text()

    assert main(words) == 0
    log = capsys.readouterr().err
    assert "2 runs, 1 of them finished" in log and f"epoch {reached + 1}/3" in log
    assert reached == 0 or "epoch 1/3" not in log
    assert modification_times(finished) == before
    assert (unfinished / "config.json").stat().st_mtime_ns == settings
    assert "not measured yet |" not in (out / "table5.md").read_text()

    before = modification_times(out / "runs")
    assert main(words) == 0
    assert modification_times(out / "runs") == before
    assert "2 runs, 2 of them finished" in capsys.readouterr().err


@pytest.mark.slow
def test_figure_6_shows_images_maps_and_masks(tmp_path: Path) -> None:
    """And the scores for one experiment are kept when its run is scored for another."""
    recipe = tiny(data="synthetic:count=8,size=64", epochs=1)
    known = planning.experiments()
    figure6 = known["figure6"]

    def shown(name: str) -> planning.Experiment:  # the same run
        return replace(known[name], rows=figure6.rows, effects=())

    reproduce([shown("table2")], recipe, tmp_path, [0], "")
    (run,) = (tmp_path / "runs").iterdir()
    assert not (run / "background.json").exists()

    pages = reproduce([figure6, shown("table9")], recipe, tmp_path, [0], "wildcat reproduce figure6")
    assert "here, mIoU | here, mIoU with CRF" in pages[0].read_text()
    assert json.loads((run / "background.json").read_text())["mode"] == "threshold"
    text = " ".join(ElementTree.parse(tmp_path / "figure6.svg").getroot().itertext())
    assert text.count("true: ") == text.count("predicted: ") == 4
    assert text.count(", map 1") == text.count(", map 2") == 4
    with Image.open(tmp_path / "figure6.png") as image:
        assert image.width > image.height > 900

    masks = json.loads((run / "results.json").read_text())["segmentation"]
    (page,) = reproduce([shown("table8")], recipe, tmp_path, [0], "")
    assert "here, pointing mAP | here, mAP" in page.read_text()
    results = json.loads((run / "results.json").read_text())
    assert results["segmentation"] == masks and masks["miou_crf"] is not None
    assert {"classification", "pointing"} <= results.keys()


def test_figure_6_is_made_after_its_masks_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = finished_runs(tmp_path, ["figure6"], lambda config: 80.0, seeds=[0])
    calls = []
    monkeypatch.setattr(figures, "maps", lambda run, file: calls.append(run.name))
    monkeypatch.setattr(running, "complete", lambda run, folder: calls.append("scored"))
    reproduce(chosen, tiny(), tmp_path, [0], "")
    assert calls == ["scored"]
    (run,) = (tmp_path / "runs").iterdir()
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "segmentation": {"miou": 40.0}}))
    reproduce(chosen, tiny(), tmp_path, [0], "")
    assert calls == ["scored", run.name]
