"""The 1x1 layer: class-major order of its channels, and M * C filters merged into C."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wildcat.pooling import class_wise_pool
from wildcat.transfer import MultiMapTransfer, class_filters


def layer_of(features: int, classes: int, num_maps: int, seed: int = 0) -> MultiMapTransfer:
    torch.manual_seed(seed)
    return MultiMapTransfer(features, classes, num_maps).double()


@settings(max_examples=40, deadline=None)
@given(
    features=st.integers(1, 6),
    classes=st.integers(1, 4),
    num_maps=st.integers(1, 5),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 1000),
)
def test_it_is_a_linear_map_at_each_position_in_class_major_order(
    features: int, classes: int, num_maps: int, size: tuple[int, int], seed: int
) -> None:
    layer = layer_of(features, classes, num_maps, seed)
    x = torch.randn(2, features, *size, dtype=torch.float64)
    actual = layer(x)
    assert actual.shape == (2, classes * num_maps, *size)
    weight, bias = layer.weight[:, :, 0, 0], layer.bias
    for c in range(classes):
        for m in range(num_maps):
            channel = c * num_maps + m
            expected = torch.einsum("d,ndhw->nhw", weight[channel], x) + bias[channel]
            torch.testing.assert_close(actual[:, channel], expected)
            torch.testing.assert_close(actual.unflatten(1, (classes, num_maps))[:, c, m], expected)

    merged = layer.merged()
    assert (merged.num_classes, merged.num_maps) == (classes, 1)
    torch.testing.assert_close(merged(x), class_wise_pool(actual, num_maps), rtol=1e-12, atol=1e-12)


def test_filters_of_a_class_by_hand() -> None:
    layer = MultiMapTransfer(1, 2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 3.0, 10.0, 20.0]).reshape(4, 1, 1, 1))
        layer.bias.copy_(torch.tensor([0.0, 1.0, 2.0, 4.0]))
    weight, bias = class_filters(layer)
    assert weight.tolist() == [[2.0], [15.0]]
    assert bias.tolist() == [0.5, 3.0]


def test_merging_keeps_dtype_and_mode_and_does_not_change_the_layer() -> None:
    layer = layer_of(3, 2, 4).eval()
    before = copy.deepcopy(layer.state_dict())
    merged = layer.merged()
    assert merged.weight.dtype == torch.float64 and not merged.training
    assert layer.train().merged().training
    with torch.no_grad():
        merged.weight.zero_()
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    torch.testing.assert_close(layer.merged().merged().weight, layer.merged().weight)


@pytest.mark.parametrize(("classes", "num_maps"), [(0, 1), (3, 0), (-1, 2)])
def test_no_class_or_no_map_is_rejected(classes: int, num_maps: int) -> None:
    with pytest.raises(ValueError, match=f"must be at least 1; got {classes} and {num_maps}"):
        MultiMapTransfer(8, classes, num_maps)
