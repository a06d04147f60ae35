"""Class maps to masks: against loops over pixels, and cases computed by hand."""

import numpy as np
import pytest
import torch

from wildcat.masks import (
    MODES,
    Background,
    label_map,
    normalized_maps,
    pixel_probabilities,
    strengths,
)


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


def loop_mask(class_maps, allowed, height, width, background, cue):
    maps = {}
    channels = list(allowed) + ([len(class_maps) - 1] if background.mode == "class" else [])
    object_like = np.maximum(1 - bilinear(cue, height, width), 0.02) ** background.cue_exponent
    for c in channels:
        fine = bilinear(class_maps[c], height, width)
        maps[c] = np.maximum(fine, 0) / max(fine.max(), 1e-30)
        if c in allowed:  # not the map of the background itself
            maps[c] = maps[c] * object_like
            maps[c] /= max(maps[c].max(), 1e-30)
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
@pytest.mark.parametrize("exponent", [0, 0.75])
def test_masks_equal_the_loop(mode, shape, size, exponent):
    rng = np.random.default_rng(0)
    class_maps, cue = rng.normal(size=(5, *shape)), rng.uniform(size=(4, 6))
    background = Background(mode, 0.45, exponent)
    strength = strengths(torch.from_numpy(class_maps).float(), [3, 1], size, background, torch.from_numpy(cue))
    predicted = label_map(strength, [3, 1])
    expected = loop_mask(class_maps, [3, 1], *size, background, cue)
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


def test_bad_values_are_rejected():
    with pytest.raises(ValueError, match="background mode must be one of threshold, power, class; got 'none'"):
        Background("none", 1)
    for constant in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="above 0"):
            Background("power", constant)
    for exponent in (-0.1, 11, float("nan"), "1"):
        with pytest.raises(ValueError, match=r"the cue's exponent must be 0 to 10; got "):
            Background("power", 1.0, exponent)
    with pytest.raises(ValueError, match=r"threshold 0\.2, cue 0\.5 needs the cue of the image"):
        strengths(torch.zeros(1, 2, 2), [0], (4, 4), Background("threshold", 0.2, 0.5))


def test_a_cue_that_is_the_same_everywhere_changes_nothing():
    """Also a cue of 1: the factor has a floor, and maps are divided by their maximum again."""
    maps = torch.randn(3, 5, 5)
    without = strengths(maps, [0, 2], (9, 9), Background("threshold", 0.3))
    for value in (0.0, 0.6, 1.0):
        background = Background("threshold", 0.3, 1.0)
        torch.testing.assert_close(strengths(maps, [0, 2], (9, 9), background, torch.full((4, 4), value)), without)


def test_inputs_are_not_modified():
    maps = torch.randn(3, 4, 4)
    before = maps.clone()
    label_map(strengths(maps, [0, 1], (9, 9), Background("class", 1.0)), [0, 1])
    assert maps.equal(before)


def test_ties_go_to_the_background_and_then_to_the_first_class():
    scores = torch.tensor([[0.5, 0.2, 0.0], [0.5, 0.7, 0.0], [0.4, 0.7, 0.0]])[:, None]
    assert label_map(scores, [4, 2]).tolist() == [[0, 5, 0]]
