"""Class maps to masks: against loops over pixels, and cases computed by hand."""

import numpy as np
import pytest
import torch

from wildcat.masks import (
    GRIDS,
    MODES,
    Background,
    fit_background,
    label_map,
    normalized_maps,
    pixel_probabilities,
    strengths,
)
from wildcat.metrics import ConfusionMatrix, mean_iou


def bilinear(grid, height, width):
    """Bilinear upsampling with repeated edges, one pixel at a time."""
    rows, columns = grid.shape
    out = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
            top = grid[y0, x0] * (1 - (x - x0)) + grid[y0, x1] * (x - x0)
            bottom = grid[y1, x0] * (1 - (x - x0)) + grid[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


def loop_mask(class_maps, allowed, height, width, background):
    maps = {}
    channels = list(allowed) + ([len(class_maps) - 1] if background.mode == "class" else [])
    for c in channels:
        fine = bilinear(class_maps[c], height, width)
        maps[c] = np.maximum(fine, 0) / max(fine.max(), 1e-30)
    mask = np.zeros((height, width), np.uint8)
    for i in range(height):
        for j in range(width):
            scores = [maps[c][i, j] for c in allowed]
            if background.mode == "threshold":
                base = background.constant
            elif background.mode == "power":
                base = (1 - max(scores)) ** background.constant
            else:
                base = background.constant * maps[len(class_maps) - 1][i, j]
            if max(scores) > base:
                mask[i, j] = 1 + allowed[int(np.argmax(scores))]
    return mask


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "size"), [((3, 5), (17, 23)), ((1, 4), (6, 9)), ((7, 7), (7, 7)), ((9, 8), (4, 5))])
def test_masks_equal_the_loop(mode, shape, size):
    rng = np.random.default_rng(0)
    class_maps = rng.normal(size=(5, *shape))
    background = Background(mode, 0.45)
    strength = strengths(torch.from_numpy(class_maps).float(), [3, 1], size, background)
    predicted = label_map(strength, [3, 1])
    expected = loop_mask(class_maps, [3, 1], *size, background)
    best, second = strength.topk(2, dim=0).values.numpy()
    clear = best - second > 1e-5
    assert predicted.dtype == np.uint8
    assert np.array_equal(predicted[clear], expected[clear])
    assert clear.mean() > 0.7


def test_normalized_maps_are_upsampled_rectified_and_divided_by_their_maximum():
    # 2 columns upsampled to 8: sampled at -0.375, -0.125, 0.125, 0.375, ..., clamped to [0, 1]
    maps = normalized_maps(torch.tensor([[[-2.0, 4.0]], [[3.0, 3.0]], [[-3.0, 0.0]]]), (2, 8))
    expected = torch.tensor([-2, -2, -1.25, 0.25, 1.75, 3.25, 4, 4]).relu() / 4
    torch.testing.assert_close(maps[0], expected.expand(2, 8))
    assert maps[1].eq(1).all()
    assert maps[2].eq(0).all(), "no positive evidence for the class"


def test_only_allowed_classes_appear():
    maps = torch.randn(6, 4, 4)
    mask = label_map(strengths(maps, [2, 4], (20, 30), Background("threshold", 0.2)), [2, 4])
    assert set(np.unique(mask)) <= {0, 3, 5}
    assert label_map(strengths(maps, [], (5, 6), Background()), []).tolist() == [[0] * 6] * 5


@pytest.mark.parametrize("count", [254, 255, 256, 300])
def test_more_labels_than_a_byte_holds(count):
    scores = torch.rand(1 + count, 23, 29)
    predicted = label_map(scores, range(count))
    assert predicted.dtype == (np.uint8 if count <= 255 else np.uint16)
    np.testing.assert_array_equal(predicted, scores.argmax(dim=0))
    assert label_map(scores[:2], [count]).max() == 1 + count


def test_probabilities_sum_to_one_and_keep_the_order():
    strength = strengths(torch.randn(4, 5, 5), [0, 2, 3], (12, 12), Background("power", 2.0))
    probabilities = pixel_probabilities(strength)
    torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(12, 12))
    assert probabilities.argmax(dim=0).equal(strength.argmax(dim=0))
    assert (probabilities > 0).all(), "the CRF can still assign every label"
    torch.testing.assert_close(
        pixel_probabilities(torch.tensor([0.1, 0.3]).view(2, 1, 1)).flatten().tolist(), [1 / 17, 16 / 17]
    )


@pytest.mark.parametrize("mode", MODES)
def test_the_fitted_constant_is_the_best_of_the_grid(mode):
    rng = np.random.default_rng(1)
    images = []
    for _ in range(6):
        truth = np.zeros((24, 30), np.uint8)
        truth[5:18, 6:20] = 2
        truth[0, :] = 255
        maps = torch.from_numpy(rng.normal(size=(4, 6, 6)) * 0.3).float()
        maps[1, 1:5, 1:4] += 2
        images.append((maps, [1], truth))
    best, score = fit_background(mode, images, 3, mean_iou)
    expected = []
    for constant in GRIDS[mode]:
        confusion = ConfusionMatrix(4)
        for maps, allowed, truth in images:
            confusion.update(
                label_map(strengths(maps, allowed, truth.shape, Background(mode, constant)), allowed), truth
            )
        expected.append(mean_iou(confusion))
    assert score == pytest.approx(max(expected), abs=1e-12)
    assert best == Background(mode, GRIDS[mode][int(np.argmax(expected))])
    assert max(expected) > min(expected)


def test_bad_values_are_rejected():
    with pytest.raises(ValueError, match="background mode must be one of threshold, power, class; got 'none'"):
        Background("none", 1)
    for constant in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="above 0"):
            Background("power", constant)
    with pytest.raises(ValueError, match="no images with masks"):
        fit_background("threshold", [], 3, mean_iou)


def test_inputs_are_not_modified():
    maps = torch.randn(3, 4, 4)
    before = maps.clone()
    label_map(strengths(maps, [0, 1], (9, 9), Background("class", 1.0)), [0, 1])
    assert maps.equal(before)


def test_ties_go_to_the_background_and_then_to_the_first_class():
    scores = torch.tensor([[0.5, 0.2, 0.0], [0.5, 0.7, 0.0], [0.4, 0.7, 0.0]])[:, None]
    assert label_map(scores, [4, 2]).tolist() == [[0, 5, 0]]
