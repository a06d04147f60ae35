"""Files for the evaluation server, from a model and a split without labels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data import trees
from tests.tiny_runs import flags
from wildcat.cli import main
from wildcat.data.registry import open_dataset
from wildcat.errors import WildcatError
from wildcat.evaluation.submission import write_actions, write_classification, write_masks, write_submission
from wildcat.prediction.items import dataset_items
from wildcat.prediction.loading import load
from wildcat.system.output_folder import OutputFolder


@pytest.fixture
def voc12(tmp_path: Path) -> str:
    """VOC 2012 with a test split that has images and nothing else."""
    root = trees.voc(tmp_path, 2012)
    for path in [*root.glob("ImageSets/Main/*_test.txt"), root / "Annotations" / "000004.xml"]:
        path.unlink()
    trees.write(root / "ImageSets" / "Main" / "test.txt", "000004\n")
    trees.write(root / "ImageSets" / "Segmentation" / "test.txt", "000004\n")
    return f"voc12:{tmp_path}"


def trained(data: str, split: str, folder: Path) -> Path:
    settings = flags(data=data, epochs=1, batch_size=2)
    assert main(["train", "--out", str(folder), *settings, "--train-split", split]) == 0
    return folder


@pytest.mark.slow
def test_files_of_voc12(voc12: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(voc12, "trainval", tmp_path / "run")
    arguments = ["evaluate", str(run), "--data", voc12, "--submission", str(tmp_path / "out")]
    assert main([*arguments, "--split", "test", "--tasks", "classification"]) == 0
    where = tmp_path / "out" / "results" / "VOC2012" / "Main"
    assert str(where) in capsys.readouterr().out
    items = dataset_items(open_dataset(voc12, "test"))
    (expected,) = load(run).stream(items, multi_maps=False)  # with multi-maps, rounding may change a mask
    assert len(list(where.iterdir())) == 20
    for name, probability in expected.scores.items():
        image, score = (where / f"comp2_cls_test_{name}.txt").read_text().split()
        assert image == "000004" and float(score) == pytest.approx(probability, abs=1e-6)
    assert main([*arguments, "--split", "seg-test", "--tasks", "segmentation"]) == 0
    file = tmp_path / "out" / "results" / "VOC2012" / "Segmentation" / "comp6_test_cls" / "000004.png"
    with Image.open(file) as loaded:
        assert loaded.mode == "P" and np.array_equal(np.array(loaded), expected.mask())
    assert not (run / "results.json").exists()


@pytest.mark.slow
def test_files_of_actions(tmp_path: Path) -> None:
    trees.action(tmp_path)
    data = f"action12:{tmp_path}"
    run = trained(data, "train", tmp_path / "run")
    (where,) = write_submission(load(run), data, tmp_path / "out")
    lines = (where / "comp10_action_test_reading.txt").read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [["2011_000009", "1"]]
    with pytest.raises(WildcatError, match="the server has no segmentation for action12; it has classification"):
        write_submission(load(run), data, tmp_path / "out", tasks=["segmentation"])
    with pytest.raises(WildcatError, match="takes results on voc12, action12; got data 'voc07:x'"):
        write_submission(load(run), "voc07:x", tmp_path / "out")


def test_files_of_a_user_stay(tmp_path: Path) -> None:
    """Also of another model: what is written once is replaced only by the same function."""
    scores, mask = np.zeros((1, 1), np.float32), np.zeros((4, 5), np.uint8)
    places = {
        "results/VOC2012/Main/comp2_cls_test_cat.txt": lambda out: write_classification(out, ["a"], scores, ["cat"]),
        "results/VOC2012/Action/comp10_action_test_cat.txt": lambda out: write_actions(out, ["a_1"], scores, ["cat"]),
        "results/VOC2012/Segmentation/comp6_test_cls/a.png": lambda out: write_masks(out, [("a", mask)]),
    }
    for name, write in places.items():
        trees.write(tmp_path / name, "mine")
        with pytest.raises(WildcatError, match=r"was not written|has not written"):
            write(tmp_path)
        assert (tmp_path / name).read_text() == "mine"
        write(OutputFolder(tmp_path, overwrite=True))
        write(tmp_path)
        assert (tmp_path / name).read_bytes() != b"mine"


def test_scores_that_differ_stay_different(tmp_path: Path) -> None:
    close = np.float32([0.7, np.nextafter(np.float32(0.7), np.float32(1))])
    folder = write_classification(tmp_path, ["a", "b"], close[:, None], ["cat"])
    lines = (folder / "comp2_cls_test_cat.txt").read_text().split()
    assert np.float32(lines[1]) == close[0] < close[1] == np.float32(lines[3])


def test_objects_of_images_with_underscores_keep_their_numbers(tmp_path: Path) -> None:
    folder = write_actions(tmp_path, ["2011_003285_1"], np.float32([[0.5]]), ["running"])
    assert (folder / "comp10_action_test_running.txt").read_text() == "2011_003285 1 0.5\n"
