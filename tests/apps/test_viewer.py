"""The images of the web page: each predicted once, cached up to a limit, drawn according to the settings."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny_runs import ColourModel, spots
from wildcat.apps.serve import viewer as viewing
from wildcat.apps.serve.viewer import VIEW_SIDE, LeastRecentlyUsed, Viewer
from wildcat.errors import WildcatError
from wildcat.model import WildcatOutput
from wildcat.prediction.predictor import Part, Predictor
from wildcat.prediction.result import Prediction
from wildcat.runs.settings import InferenceSettings

CLASSES = ("red", "green", "blue")


def viewer_of(classes: tuple[str, ...] = CLASSES, **options: int) -> tuple[Viewer, ColourModel]:
    model = ColourModel()
    settings = InferenceSettings(classes, True, (256,), (256,))
    return Viewer(Predictor(Part(model, settings)), **options), model  # type: ignore[arg-type]


@pytest.fixture
def image(tmp_path: Path) -> str:
    """1600 x 800: red on the left, blue, weaker, on the right."""
    path = tmp_path / "spots.png"
    Image.fromarray(spots(1600, 800, {0: (400, 400), 2: (1200, 400)})).save(path)
    return str(path)


def test_the_network_runs_once_per_image(image: str) -> None:
    viewer, model = viewer_of()
    with ThreadPoolExecutor(4) as pool:  # at once
        list(pool.map(viewer.view, [image] * 8))
    for opacity in (0.2, 0.9):
        viewer.draw(image, "classify", [0], opacity)
    viewer.draw(image, "segment", [0, 2], 0.5)
    viewer.maps(image, 2)
    assert viewer.num_maps(image) == 2
    viewer.mask(image, [0])
    assert len(model.batches) == 1


def test_shown_images_are_reduced_and_saved_masks_have_the_original_size(image: str) -> None:
    viewer, _ = viewer_of()
    assert viewer.prediction(image).size == (1600, 800)
    assert viewer.view(image).size == (VIEW_SIDE, VIEW_SIDE // 2)
    for task in ("classify", "point"):
        assert viewer.draw(image, task, [0, 2], 0.5).size == (VIEW_SIDE, VIEW_SIDE // 2)
    mask = viewer.mask(image, [0, 2])
    assert mask.shape == (800, 1600)
    np.testing.assert_array_equal(mask, viewer.prediction(image).mask(allowed=[0, 2]))
    assert mask[400, 400] == 1 and mask[400, 1200] == 3 and mask[10, 800] == 0
    assert set(np.unique(viewer.mask(image, [2]))) == {0, 3}


def test_drawing_does_not_change_cached_images(image: str) -> None:
    viewer, _ = viewer_of()
    before = np.array(viewer.view(image).image)
    for _ in range(2):
        viewer.draw(image, "point", [0], 1.0)
        viewer.draw(image, "segment", [0], 1.0)
        assert [shown.size for shown in viewer.maps(image, 0)] == [(480, 240)] * 2
        viewer.draw(image, "classify", [], 1.0).paste("white", (0, 0, 50, 50))
    np.testing.assert_array_equal(before, viewer.view(image).image)


def test_the_heatmap_shows_only_the_chosen_classes(image: str) -> None:
    viewer, _ = viewer_of()
    plain = np.asarray(viewer.draw(image, "classify", [], 0.8), dtype=int)
    changed = {
        chosen: np.abs(np.asarray(viewer.draw(image, "classify", list(chosen), 0.8)) - plain).sum(axis=2)
        for chosen in ((0,), (2,), (0, 2))
    }
    left, right = (256, 256), (256, 768)
    assert changed[0,][left] > 100 > 30 > changed[0,][right]
    assert changed[2,][right] > 100 > 30 > changed[2,][left]
    assert changed[0, 2][left] > 100 and changed[0, 2][right] > 100
    nothing = viewer.draw(image, "classify", [0], 0.0)
    np.testing.assert_array_equal(nothing, plain)


def test_neutral_evidence_is_not_coloured() -> None:
    maps = np.array([[[-8, 0, 2]], [[1, 3, 2]]], np.float32)
    np.testing.assert_array_equal(viewing._evidence(maps[:1]), [[0, 0, 1]])
    np.testing.assert_array_equal(viewing._evidence(maps), [[0, 1, 1]])


def test_json_lists_the_chosen_classes_as_predicted(image: str) -> None:
    viewer, _ = viewer_of()
    values = json.loads(viewer.to_json(image, [2]))
    assert [entry["class"] for entry in values["predicted"]] == ["blue"]
    assert values["file"] == "spots.png" and (values["width"], values["height"]) == (1600, 800)
    assert set(values["scores"]) == set(CLASSES)
    assert values["mask_labels"] == {"0": "background", "3": "blue"}


class ManyColours(ColourModel):
    """Classes 0, 3, 6 ... are red, the next ones green, the next ones blue."""

    def __call__(self, images: torch.Tensor) -> WildcatOutput:
        out = super().__call__(images)
        return WildcatOutput(
            out.scores.repeat(1, 100), out.class_maps.repeat(1, 100, 1, 1), out.multi_maps.repeat(1, 100, 1, 1)
        )


def test_masks_of_a_model_with_many_classes_number_the_chosen_ones(image: str) -> None:
    settings = InferenceSettings(tuple(f"class {c}" for c in range(300)), True, (256,), (256,))
    viewer = Viewer(Predictor(Part(ManyColours(), settings)))  # type: ignore[arg-type]
    mask = viewer.mask(image, [290, 270])  # blue, red
    assert mask[400, 400] == 2 and mask[400, 1200] == 1
    labels = json.loads(viewer.to_json(image, [290, 270]))["mask_labels"]
    assert labels == {"0": "background", "1": "class 290", "2": "class 270"}
    assert viewer.draw(image, "segment", [290, 270], 0.5).width == VIEW_SIDE


def test_error_messages_have_the_file_name_without_the_folder(tmp_path: Path) -> None:
    viewer, _ = viewer_of(max_pixels=10_000)
    broken, large = tmp_path / "broken.jpg", tmp_path / "large.png"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no image")
    Image.new("RGB", (200, 51)).save(large)
    for path, message in ((broken, "broken.jpg: "), (large, "large.png: too large: 200 x 51 pixels")):
        for method in (viewer.thumbnail, viewer.view):
            with pytest.raises(WildcatError) as caught:
                method(str(path))
            assert str(caught.value).startswith(message) and str(tmp_path) not in str(caught.value)
    broken.unlink()
    Image.new("RGB", (20, 20)).save(broken, "png")  # errors are not cached
    assert viewer.view(str(broken)).size == (20, 20)


def test_masks_are_refined_one_at_a_time(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer, _ = viewer_of()
    active, most = 0, 0

    def refined(prediction: Prediction, *, allowed: list[int], crf: bool) -> object:
        nonlocal active, most
        active += crf
        most = max(most, active)
        time.sleep(0.02)
        active -= crf
        return np.zeros((2, 2), np.uint8)

    monkeypatch.setattr(Prediction, "mask", refined)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda label: viewer.mask(image, [label], crf=True), [0, 1, 2, 0]))
    assert most == 1


def test_an_image_that_was_deleted_from_the_server(tmp_path: Path) -> None:
    viewer, _ = viewer_of()
    with pytest.raises(WildcatError, match=r"^a\.jpg is no longer on the server, .* upload it again$"):
        viewer.view(str(tmp_path / "a.jpg"))


def test_only_the_last_predictions_are_cached(tmp_path: Path) -> None:
    viewer, model = viewer_of(cached=2)
    paths = []
    for number in range(3):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", (32, 32)).save(paths[-1])
    for path in [*paths, *paths[1:], paths[0]]:
        viewer.view(path)
    assert len(model.batches) == 4  # the first image is predicted again, once


def test_the_cache_makes_each_value_once_and_is_bounded() -> None:
    cache, made = LeastRecentlyUsed(3), []
    begun = threading.Barrier(4)

    def make(key: int) -> int:
        made.append(key)
        return key * key

    def ask(_: int) -> list[int]:
        begun.wait()
        return [cache.get(key, lambda key=key: make(key)) for key in (1, 2, 3)]  # type: ignore[misc]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [[1, 4, 9]] * 4
    assert sorted(made) == [1, 2, 3]
    for key in range(4, 50):
        cache.get(key, lambda key=key: make(key))  # type: ignore[misc]
    assert len(cache) == 3


def test_the_cache_drops_what_was_not_used_for_longest() -> None:
    cache, made = LeastRecentlyUsed(2), []
    for key in (1, 2, 1, 3, 3, 1, 2):
        cache.get(key, lambda key=key: made.append(key))  # type: ignore[misc]
    assert made == [1, 2, 3, 2]
