"""Pseudo-masks: labels only where both constants agree, resumable, and corrected masks stay."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny_runs import ColourModel, spots
from wildcat.errors import WildcatError
from wildcat.masks import Background
from wildcat.prediction.predictor import Part, Predictor
from wildcat.runs.settings import InferenceSettings
from wildcat.training import pseudo_masks
from wildcat.training.pseudo_masks import PseudoMaskSettings, pseudo_mask, write_pseudo_masks


def predictor(**changes: object) -> Predictor:
    settings = InferenceSettings(("red", "green", "blue"), True, (64,), (128,))
    return Predictor(Part(ColourModel(), replace(settings, **changes)))  # type: ignore[arg-type]


@pytest.fixture
def tags(tmp_path: Path) -> str:
    """Three images: red, red and blue, and one without tags."""
    places: dict[str, dict[int, tuple[float, float]]] = {
        "a": {0: (30, 20)},
        "b": {0: (15, 20), 2: (60, 40)},
        "none": {},
    }
    for name, spot in places.items():
        Image.fromarray(spots(80, 60, spot)).save(tmp_path / f"{name}.png")
    (tmp_path / "t.csv").write_text("image,tags,split\na.png,red,train\nb.png,red;blue,train\nnone.png,,train\n")
    return f"tags:{tmp_path / 't.csv'}"


def test_pixels_have_a_label_where_both_constants_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without CRF, the masks are those of the product with either constant
    monkeypatch.setattr(pseudo_masks, "dense_crf", lambda probabilities, image, settings: probabilities)
    prediction = predictor()(spots(80, 60, {0: (20, 30), 2: (60, 30)}))
    settings = PseudoMaskSettings(0.1, 0.6, 0.75)
    mask = pseudo_mask(prediction, [0, 2], settings)
    low, high = (
        replace(prediction, settings=replace(prediction.settings, background=Background("threshold", c, 0.75))).mask(
            allowed=[0, 2]
        )
        for c in (0.1, 0.6)
    )
    assert mask.shape == (60, 80) and mask.dtype == np.uint8
    assert np.array_equal(mask, np.where(low == high, low, 255))
    assert set(np.unique(mask)) == {0, 1, 3, 255}
    assert not pseudo_mask(prediction, [], settings).any()


def test_large_images_are_masked_at_their_size() -> None:
    mask = pseudo_mask(predictor()(spots(700, 400, {1: (200, 200)})), [1])
    assert mask.shape == (400, 700) and mask[200, 200] == 2 and mask[0, -1] == 0


def test_masks_are_resumed_and_corrected_ones_stay(tags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pseudo"
    calls: list[list[int]] = []

    def stopped(prediction: object, allowed: list[int], settings: object) -> np.ndarray:
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(allowed)
        return np.full((60, 80), 1 + max(allowed, default=-1), np.uint8)

    monkeypatch.setattr(pseudo_masks, "pseudo_mask", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_pseudo_masks(predictor(), tags, "train", folder)
    (first,) = folder.glob("*.png")
    Image.fromarray(np.full((60, 80), 7, np.uint8)).save(first)  # somebody corrects it
    monkeypatch.undo()
    result = write_pseudo_masks(predictor(), tags, "train", folder)
    assert (result.written, result.kept) == (len(list(folder.glob("*.png"))) - 1, 1) and result.written >= 1
    assert np.asarray(Image.open(first)).max() == 7
    assert result.background + result.objects + result.void == pytest.approx(1)
    assert (folder / "labels.txt").read_text().split() == ["background", "red", "green", "blue"]
    again = write_pseudo_masks(predictor(), tags, "train", folder)
    assert again.written == 0 and np.isnan(again.void)
    with pytest.raises(WildcatError, match="holds results of another model, other data or other settings"):
        write_pseudo_masks(predictor(), tags, "train", folder, settings=PseudoMaskSettings(0.05, 0.2))
    with pytest.raises(WildcatError, match="files that wildcat has not written"):  # the corrected one
        write_pseudo_masks(predictor(mirror=True), tags, "train", _copy(folder))


def _copy(folder: Path) -> Path:
    """A folder with the masks but without their list."""
    other = folder.with_name("other")
    other.mkdir()
    for file in folder.glob("*.png"):
        (other / file.name).write_bytes(file.read_bytes())
    return other


def test_only_classes_of_the_labels_appear(tags: str, tmp_path: Path) -> None:
    write_pseudo_masks(predictor(), tags, "train", tmp_path / "pseudo")
    for file in (tmp_path / "pseudo").glob("*.png"):
        known = {"a": {0, 1, 255}, "b": {0, 1, 3, 255}, "none": {0}}[file.stem]
        with Image.open(file) as mask:
            assert mask.mode == "P" and mask.size == (80, 60)
            assert set(np.unique(np.asarray(mask))) <= known


@pytest.mark.parametrize(("low", "high", "cue"), [(0, 0.1, 0), (0.2, 0.1, 0), (0.1, 2, 0), (0.1, 0.2, -1)])
def test_other_settings_are_rejected(low: float, high: float, cue: float) -> None:
    with pytest.raises(WildcatError, match=r"low <= high|cue_exponent must be"):
        PseudoMaskSettings(low, high, cue)
