"""The CRF of large images: bounded size, marginals like those of the full size, upsampled along edges."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from tests.crf.test_mean_field import random_image, sample_photo, softmax_maps
from tests.tiny_runs import ColourModel, spots
from wildcat.crf import bounded, mean_field
from wildcat.crf.bounded import reduced, upsampled, working_size
from wildcat.crf.mean_field import CRFSettings, dense_crf
from wildcat.prediction import result
from wildcat.prediction.predictor import Part, Predictor
from wildcat.prediction.result import Prediction
from wildcat.runs.settings import InferenceSettings


@pytest.mark.parametrize(
    ("size", "labels", "expected"),
    [
        ((1024, 1024), 2, (1024, 1024)),
        ((1024, 1025), 2, (1023, 1024)),
        ((4000, 6000), 21, (836, 1254)),
        ((1024, 1024), 64, (1024, 1024)),
        ((1024, 1024), 256, (512, 512)),
        ((1, 2**21), 2, (1, 2**20)),
        ((2**21, 1), 2, (2**20, 1)),
    ],
)
def test_working_sizes(size: tuple[int, int], labels: int, expected: tuple[int, int]) -> None:
    assert working_size(*size, labels) == expected


@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("compatibility", [False, True])
def test_large_images_have_nearly_the_marginals_of_the_full_size(monkeypatch, caplog, labels, compatibility) -> None:
    image = sample_photo(150, 200, 1)
    probabilities = np.zeros((labels + 1, 150, 200), np.float32)
    probabilities[1:] = softmax_maps(labels, 150, 200)  # the first label is absent
    penalty = 1 - np.eye(labels + 1) if compatibility else None
    full = dense_crf(probabilities, image, compatibility=penalty)
    monkeypatch.setattr(bounded, "MAX_PIXELS", 75 * 100)
    bounded._log_once.cache_clear()
    caplog.set_level(logging.WARNING)
    actual = dense_crf(probabilities, image, compatibility=penalty)
    dense_crf(probabilities, image)
    assert [record.message for record in caplog.records] == [
        "the CRF of larger images works at 0.01 megapixels, and its result is upsampled"
    ]
    assert actual.dtype == probabilities.dtype and actual.shape == probabilities.shape and not actual[0].any()
    np.testing.assert_allclose(actual.sum(0), 1, atol=1e-5)
    before, after = ((one.argmax(0) == full.argmax(0)).mean() for one in (probabilities, actual))
    assert before < 0.7 and after > 0.94
    # Without the reduced standard deviations the kernels would cover twice as much of the image.
    unscaled = CRFSettings(gaussian_sxy=6, bilateral_sxy=160)
    other = dense_crf(probabilities, image, unscaled, compatibility=penalty)
    assert np.abs(actual - full).mean() < np.abs(other - full).mean()


def test_marginals_are_upsampled_along_edges() -> None:
    truth = np.zeros((2, 60, 80), np.float32)
    truth[0, :, :33] = truth[1, :, 33:] = 1
    image = torch.where(torch.from_numpy(truth[0, :, :, None]) > 0, 250, 5).to(torch.uint8).expand(-1, -1, 3)
    small = reduced(image.permute(2, 0, 1), (6, 8))
    marginals = reduced(torch.from_numpy(truth), (6, 8))  # the edge is inside of a pixel: 0.3 there
    parts = list(upsampled(marginals, small, image, 40.0))
    actual = torch.cat([part for _, part in parts], 1)
    assert (actual.argmax(0).numpy() == truth.argmax(0)).mean() > 0.99
    expected = torch.nn.functional.interpolate(marginals[None], (60, 80), mode="bilinear")[0]
    grey = torch.full_like(image, 100)
    flat = torch.cat([part for _, part in upsampled(marginals, reduced(grey.permute(2, 0, 1), (6, 8)), grey, 13.0)], 1)
    torch.testing.assert_close(flat, expected)  # in an image without edges: bilinear


def test_strips_do_not_matter(monkeypatch) -> None:
    image, marginals = torch.from_numpy(random_image(37, 41)), torch.from_numpy(softmax_maps(3, 9, 11))
    small = reduced(image.permute(2, 0, 1), (9, 11))
    ((rows, whole),) = upsampled(marginals, small, image, 13.0)
    monkeypatch.setattr(bounded, "_STRIP", 1000)
    parts = list(upsampled(marginals, small, image, 13.0))
    assert rows == slice(0, 37) and len(parts) > 5
    torch.testing.assert_close(torch.cat([part for _, part in parts], 1), whole)


def masks_of(side: int, monkeypatch: pytest.MonkeyPatch, pixels: int) -> tuple[Prediction, np.ndarray]:
    monkeypatch.setattr(bounded, "MAX_PIXELS", pixels)
    image = Image.fromarray(spots(side, side, {0: (0.3 * side, 0.3 * side), 2: (0.7 * side, 0.7 * side)}, 0.15))
    prediction = Predictor(Part(ColourModel(), InferenceSettings(("red", "green", "blue"), True, (64,), (256,))))(image)
    return prediction, prediction.mask(crf=True, allowed=[0, 2])


def test_masks_of_large_images(monkeypatch) -> None:
    _, full = masks_of(240, monkeypatch, 240 * 240)
    _, small = masks_of(240, monkeypatch, 80 * 80)
    assert small.shape == full.shape and small.dtype == full.dtype and set(np.unique(small)) == {0, 1, 3}
    assert (small == full).mean() > 0.97


def test_no_table_of_all_labels_and_pixels_is_made(monkeypatch) -> None:
    sizes: list[int] = []
    for module, name in ((result, "strengths"), (mean_field, "_infer"), (result, "label_map")):
        function = getattr(module, name)

        def recorded(values, *arguments, function=function, name=name):
            returned = function(values, *arguments)
            sizes.append((returned if name == "strengths" else values).numel())
            return returned

        monkeypatch.setattr(module, name, recorded)
    monkeypatch.setattr(bounded, "_STRIP", 10_000)
    masks_of(300, monkeypatch, 50 * 50)
    assert len(sizes) > 10 and max(sizes) <= 10_000
