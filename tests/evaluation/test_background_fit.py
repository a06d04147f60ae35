"""Fitting the background's constants: against a loop over the whole grid and over the bootstraps."""

import math

import numpy as np
import pytest
import torch

from wildcat.evaluation.background_fit import CUE_EXPONENTS, GRIDS, MaskedImage, fit_background
from wildcat.masks import MODES, Background, label_map, strengths
from wildcat.metrics import ConfusionMatrix, mean_iou

CLASSES = 3


def masked_images(count=4, cue=True):
    rng = np.random.default_rng(1)
    images = []
    for i in range(count):
        truth = np.zeros((24, 30), np.uint8)
        truth[5:18, 6 : 15 + i] = 2
        truth[0, :] = 255
        maps = torch.from_numpy(rng.normal(size=(4, 6, 6)) * 0.3).float()
        maps[1, 1:5, 1:5] += 2
        outside = torch.ones(12, 15) * 0.9
        outside[2:9, 3 : 7 + i // 2] = 0.1 * i
        images.append(MaskedImage(maps, [1, 2], truth, outside if cue else None))
    return images


def counts(mode, images, constant, exponent):
    """The confusion of each image, by the functions that make masks."""
    result = []
    for image in images:
        confusion = ConfusionMatrix(CLASSES + 1)
        strength = strengths(
            image.class_maps, image.allowed, image.truth.shape, Background(mode, constant, exponent), image.cue
        )
        confusion.update(label_map(strength, image.allowed), image.truth)
        result.append(confusion.counts)
    return np.array(result)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cue", [True, False])
def test_without_bootstraps_it_is_the_best_of_the_grid(mode, cue):
    images = masked_images(cue=cue)
    expected = {
        (constant, exponent): mean_iou(counts(mode, images, constant, exponent).sum(axis=0))
        for exponent in (CUE_EXPONENTS if cue else (0.0,))
        for constant in GRIDS[mode]
    }
    background, score = fit_background(mode, images, CLASSES, bootstraps=0)
    best = max(expected, key=lambda pair: expected[pair])
    assert score == pytest.approx(max(expected.values()), abs=1e-12)
    assert expected[background.constant, background.cue_exponent] == pytest.approx(expected[best], abs=1e-12)
    assert max(expected.values()) > min(expected.values())
    assert background.uses_cue == cue, "the cue of these images is their truth"


def test_the_fit_is_the_average_over_bootstraps():
    images, mode, bootstraps = masked_images(), "threshold", 8
    pairs = [(constant, exponent) for exponent in CUE_EXPONENTS for constant in GRIDS[mode]]
    each = np.stack([counts(mode, images, *pair) for pair in pairs])  # (candidates, images, K, K)
    rng = np.random.default_rng(0)
    weights = np.stack([rng.poisson(1, bootstraps) for _ in images], axis=1)
    best = []
    for row in weights:
        scores = [mean_iou((row[:, None, None] * confusions).sum(axis=0)) for confusions in each]
        best.append(pairs[int(np.argmax(scores))])
    constant = math.exp(sum(math.log(c) for c, _ in best) / bootstraps)
    exponent = sum(e for _, e in best) / bootstraps
    background, score = fit_background(mode, images, CLASSES, bootstraps)
    assert background.constant == min(GRIDS[mode], key=lambda c: abs(math.log(c / constant)))
    assert background.cue_exponent == min(CUE_EXPONENTS, key=lambda e: abs(e - exponent))
    confusion = counts(mode, images, background.constant, background.cue_exponent).sum(axis=0)
    assert score == pytest.approx(mean_iou(confusion), abs=1e-12)
    assert len(set(best)) > 1, "the bootstraps differ"


def test_one_image_and_none():
    (image,) = masked_images(1)
    assert fit_background("power", [image], CLASSES) == fit_background("power", [image], CLASSES, bootstraps=0)
    with pytest.raises(ValueError, match="no images with masks"):
        fit_background("threshold", [], CLASSES)


def test_an_image_without_allowed_classes_is_background():
    image = MaskedImage(torch.randn(3, 4, 4), [], np.zeros((8, 8), np.uint8))
    assert fit_background("threshold", [image], CLASSES)[1] == 1
