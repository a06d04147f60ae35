"""Predictions as files."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.runs import ColourModel, spots
from wildcat.formats import unique_name, write_predictions
from wildcat.predict import Failure, Predictor, items_of
from wildcat.prediction import Settings

PICTURE = spots(200, 100, {0: (60, 50), 2: (150, 50)}, spread=0.3)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    files = [tmp_path / "in" / place / "cat.png" for place in ("a", "b")] + [tmp_path / "in" / "cat-2.png"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PICTURE).save(file)
    (tmp_path / "in" / "broken.png").write_bytes(b"x")
    return [*files, tmp_path / "in" / "broken.png"]


def stream(files: list[Path]):
    predictor = Predictor(ColourModel(), Settings(("red", "green", "blue"), True, (160,), (160,)))
    return predictor.stream(items_of(files), on_error="yield", multi_maps=False)


def test_all_formats(pictures: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    failures = write_predictions(stream(pictures), out, ["json", "overlay"])
    assert [(type(failure), Path(failure.name).name) for failure in failures] == [(Failure, "broken.png")]
    entries = [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [entry["file"] for entry in entries] == [str(path) for path in pictures[:3]]
    for entry in entries:
        assert (entry["width"], entry["height"]) == (200, 100)
        assert {found["class"] for found in entry["predicted"]} == {"red", "blue"}
        assert all(0 <= x <= 200 and 0 <= y <= 100 for x, y in (found["point"] for found in entry["predicted"]))
        assert list(entry["scores"].values()) == sorted(entry["scores"].values(), reverse=True)
        assert all(0 <= score <= 100 for score in entry["scores"].values())
    # three pictures of two names, one of which is the other with a number
    overlays = sorted(path.name for path in (out / "overlay").iterdir())
    assert overlays == ["cat-2-2.jpg", "cat-2.jpg", "cat.jpg"]
    for name in overlays:
        with Image.open(out / "overlay" / name) as image:
            assert np.asarray(image.convert("RGB")).std() > 10
    assert not list(out.glob(".*"))


def test_one_format_at_a_time(pictures: list[Path], tmp_path: Path) -> None:
    write_predictions(stream(pictures), tmp_path / "a", ["json"])
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["predictions.jsonl"]
    write_predictions(stream(pictures), tmp_path / "b", ["overlay"])
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["overlay"]


def test_the_threshold_decides_what_is_predicted(pictures: list[Path], tmp_path: Path) -> None:
    for threshold, expected in ((0.0, 3), (0.5, 2), (1.0, 0)):
        write_predictions(stream(pictures[:1]), tmp_path / "out", ["json"], threshold)
        (line,) = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
        assert len(json.loads(line)["predicted"]) == expected


def test_pictures_are_written_as_they_come(pictures: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"

    def watched():
        for number, prediction in enumerate(stream(pictures[:3])):
            assert len(list((out / "overlay").glob("*"))) == number
            yield prediction

    write_predictions(watched(), out, ["overlay", "json"])


def test_nothing_whole_is_left_by_an_interrupted_run(pictures: list[Path], tmp_path: Path) -> None:
    def interrupted():
        yield from stream(pictures[:1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(interrupted(), tmp_path / "out", ["json"])
    assert not (tmp_path / "out" / "predictions.jsonl").exists()


@given(st.lists(st.sampled_from(["a", "b", "a-2", "a-2-2", "a-3"]), max_size=12))
def test_names_are_unique_and_the_first_one_stays(names: list[str]) -> None:
    used: set[str] = set()
    given_names = [unique_name(name, used) for name in names]
    assert len(set(given_names)) == len(names) and used == set(given_names)
    assert all(new.startswith(old) for new, old in zip(given_names, names, strict=True))
    assert not names or given_names[0] == names[0]
