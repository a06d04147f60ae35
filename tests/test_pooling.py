"""Equations 1 to 3 against a slow loop; gradients by hand and by finite differences; compiled graphs; errors."""

import math
import re
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from wildcat.pooling import (
    POOLINGS,
    LogSumExpPool,
    SpatialPool,
    check_regions,
    class_wise_pool,
    count_regions,
    create_pooling,
    log_sum_exp_pool,
    spatial_pool,
)

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# The reference: Equations 1 to 3 computed one number at a time.


def slow_count(k: Any, total: int) -> int:
    if k == "all":
        return total
    if isinstance(k, float) and k != 0:
        return max(1, round(k * total))
    return min(int(k), total)


def slow_class_wise(multi_maps: Tensor, num_maps: int) -> Tensor:
    images, channels, height, width = multi_maps.shape
    out = torch.zeros(images, channels // num_maps, height, width, dtype=torch.float64)
    for n, c, i, j in np.ndindex(*out.shape):
        out[n, c, i, j] = sum(float(multi_maps[n, c * num_maps + m, i, j]) for m in range(num_maps)) / num_maps
    return out


def slow_spatial(class_maps: Tensor, kmax: Any, kmin: Any, alpha: float) -> Tensor:
    images, classes, height, width = class_maps.shape
    highest, lowest = slow_count(kmax, height * width), slow_count(kmin, height * width)
    out = torch.zeros(images, classes, dtype=torch.float64)
    for n, c in np.ndindex(images, classes):
        values = sorted(float(class_maps[n, c, i, j]) for i in range(height) for j in range(width))
        if highest:
            out[n, c] += sum(values[-highest:]) / highest
        if lowest:
            out[n, c] += alpha * sum(values[:lowest]) / lowest
    return out


LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every second value": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "one image repeated": lambda x: x[:1].expand_as(x),
}
regions = st.one_of(
    st.integers(0, 40), st.floats(0.01, 0.99), st.just("all"), st.just(0.0), st.sampled_from([0.2, 0.4, 0.5])
)
shapes = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))


@st.composite
def maps(draw: st.DrawFn, dtype: torch.dtype = torch.float64, maps_per_class: int = 1) -> Tensor:
    """Maps of any shape and layout; about half of them have many equal values."""
    images, classes, height, width = draw(shapes)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    values = 3 * torch.randn(images, classes * maps_per_class, height, width, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        values = values.round()
    return LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](values.to(dtype))


def is_off(kmax: Any, kmin: Any, alpha: float) -> bool:
    return kmax == 0 and (kmin == 0 or alpha == 0)


# Equation 1


@quick
@given(num_maps=st.integers(1, 4), data=st.data())
def test_class_wise_pooling_is_the_mean_over_the_maps_of_a_class(num_maps: int, data: st.DataObject) -> None:
    multi_maps = data.draw(maps(maps_per_class=num_maps))
    torch.testing.assert_close(class_wise_pool(multi_maps, num_maps), slow_class_wise(multi_maps, num_maps))


def test_class_wise_pooling_by_hand() -> None:
    multi_maps = torch.tensor([1.0, 2.0, 6.0, -1.0, 0.0, 4.0]).reshape(1, 6, 1, 1)
    assert class_wise_pool(multi_maps, 3).flatten().tolist() == [3.0, 1.0]
    assert class_wise_pool(multi_maps, 2).flatten().tolist() == [1.5, 2.5, 2.0]


@pytest.mark.parametrize("num_maps", [1, 2, 4, 8])
def test_class_wise_gradient_is_one_over_m(num_maps: int) -> None:
    """The authors' code divides by M forwards only, which makes the gradient M times too large."""
    multi_maps = torch.randn(2, 3 * num_maps, 4, 5, dtype=torch.float64, requires_grad=True)
    class_wise_pool(multi_maps, num_maps).sum().backward()
    torch.testing.assert_close(multi_maps.grad, torch.full_like(multi_maps, 1 / num_maps))


@pytest.mark.parametrize(("shape", "num_maps"), [((1, 6, 2, 2), 4), ((1, 6, 2, 2), 0), ((6, 2, 2), 2)])
def test_class_wise_pooling_rejects_maps_that_cannot_be_split(shape: tuple[int, ...], num_maps: int) -> None:
    with pytest.raises(ValueError, match=r"multi_maps must be|cannot be split into groups of num_maps="):
        class_wise_pool(torch.zeros(shape), num_maps)


# Equations 2 and 3: values


@quick
@given(class_maps=maps(), kmax=regions, kmin=regions, alpha=st.sampled_from([0.0, 0.3, 0.7, 1.0, -0.5, 2]))
@example(class_maps=torch.tensor([[[[2.5]]]], dtype=torch.float64), kmax=0.2, kmin=0.2, alpha=0.7)
@example(class_maps=torch.zeros(1, 1, 3, 4, dtype=torch.float64), kmax=50, kmin=7, alpha=1.0)  # k > n; all equal
def test_spatial_pooling_equals_the_slow_loop(class_maps: Tensor, kmax: Any, kmin: Any, alpha: float) -> None:
    if is_off(kmax, kmin, alpha):
        with pytest.raises(ValueError, match="no region is selected"):
            spatial_pool(class_maps, kmax, kmin, alpha)
        return
    before = class_maps.clone()
    scores = spatial_pool(class_maps, kmax, kmin, alpha)
    torch.testing.assert_close(scores, slow_spatial(class_maps, kmax, kmin, alpha))
    assert torch.equal(class_maps, before)


@quick
@given(class_maps=maps(dtype=torch.bfloat16), kmax=regions.filter(bool), kmin=regions)
def test_spatial_pooling_of_bf16_keeps_the_dtype_and_its_precision(class_maps: Tensor, kmax: Any, kmin: Any) -> None:
    scores = spatial_pool(class_maps, kmax, kmin, 0.7)
    assert scores.dtype == torch.bfloat16
    # Three roundings (two means and their sum) of numbers below 16, each to 8 significant bits.
    torch.testing.assert_close(scores.double(), slow_spatial(class_maps, kmax, kmin, 0.7), rtol=0, atol=3 * 16 * 2**-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_by_hand(dtype: torch.dtype) -> None:
    class_maps = torch.tensor([[[[4.0, 1.0, 3.0], [-2.0, 0.0, -1.0]]]], dtype=dtype)

    def pooled(*parameters: Any) -> float:
        scores = spatial_pool(class_maps, *parameters)
        assert scores.dtype == dtype and scores.shape == (1, 1)
        return scores.item()

    assert pooled() == 4 - 2  # k+ = k- = 1, alpha = 1: max + min
    assert pooled(2, 0) == (4 + 3) / 2
    assert pooled(0, 2, 0.5) == 0.5 * (-2 - 1) / 2
    assert pooled(2, 3, 0.5) == pytest.approx((4 + 3) / 2 + 0.5 * (-2 - 1 + 0) / 3)
    assert pooled(2, None, 1.0) == pooled(2, 2, 1.0)
    assert pooled(0.5, 0.2, 1.0) == pytest.approx((4 + 3 + 1) / 3 - 2)  # 0.5 * 6 = 3, 0.2 * 6 = 1.2 -> 1
    assert pooled("all", 0) == pytest.approx(5 / 6)
    assert pooled(6, 0) == pooled(100, 0) == pooled("all", 0)


@pytest.mark.parametrize(("kmax", "kmin"), [(1, 1), (0.2, 0.2), ("all", 2)])
def test_the_score_is_the_sum_of_both_terms_and_not_half_of_it(kmax: Any, kmin: Any) -> None:
    """The authors' code halves the score whenever the term of the lowest regions is on; Equation 3 does not."""
    class_maps = torch.full((1, 1, 4, 4), 3.0)
    assert spatial_pool(class_maps, kmax, kmin, 1.0).item() == pytest.approx(6.0)
    assert spatial_pool(class_maps, kmax, kmin, 0.5).item() == pytest.approx(4.5)


@pytest.mark.parametrize("alpha", [0, 0.0, -0.0, 1.0 - 1.0])
def test_alpha_zero_of_any_type_omits_the_lowest_regions(alpha: float) -> None:
    """The authors' code compares with ``alpha is not 0``, which 0.0 passes."""
    class_maps = torch.tensor([[[[1.0, -math.inf]]]])
    assert spatial_pool(class_maps, 1, 1, alpha).item() == 1.0  # 0 times -infinity would be NaN


def test_a_small_proportion_of_a_small_map_is_one_region() -> None:
    """The authors' code rounds to no region and divides by 0."""
    class_maps = torch.tensor([[[[1.0, 5.0], [0.0, 2.0]]]])
    assert spatial_pool(class_maps, 0.1, 0.1, 1.0).item() == 5.0


@quick
@given(class_maps=maps(), k=st.integers(1, 36))
def test_lowest_regions_are_the_highest_of_the_negated_map(class_maps: Tensor, k: int) -> None:
    torch.testing.assert_close(spatial_pool(class_maps, 0, k, 1.0), -spatial_pool(-class_maps, k, 0))


@quick
@given(class_maps=maps(), kmax=regions.filter(bool), kmin=regions, seed=st.integers(0, 1000))
def test_the_score_does_not_depend_on_where_the_regions_are(
    class_maps: Tensor, kmax: Any, kmin: Any, seed: int
) -> None:
    order = torch.randperm(class_maps[0, 0].numel(), generator=torch.Generator().manual_seed(seed))
    moved = class_maps.flatten(2)[:, :, order].unflatten(2, class_maps.shape[2:])
    torch.testing.assert_close(spatial_pool(moved, kmax, kmin, 0.7), spatial_pool(class_maps, kmax, kmin, 0.7))


# Equations 2 and 3: gradients


def distinct_maps(*shape: int, seed: int = 0) -> Tensor:
    """Values at least 1 apart, so that finite differences never change which regions are selected."""
    images, classes, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(height * width, generator=generator) for _ in range(images * classes)]
    return torch.stack(rows).double().reshape(shape) - height * width / 2


@pytest.mark.parametrize("alpha", [-0.5, 0.7, 1.0])
@pytest.mark.parametrize(("kmax", "kmin"), [(1, 1), (3, 0), (0, 2), (0.2, 0.4), ("all", 1), (9, 9), (50, 50)])
def test_gradcheck(kmax: Any, kmin: Any, alpha: float) -> None:
    class_maps = distinct_maps(2, 2, 3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: spatial_pool(x, kmax, kmin, alpha), (class_maps,))
    layout = class_maps.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: spatial_pool(x, kmax, kmin, alpha), (layout,))


def test_gradcheck_of_both_poolings_together() -> None:
    multi_maps = distinct_maps(2, 6, 3, 4)
    multi_maps *= torch.tensor([1, 20, 400]).repeat(2)[:, None, None]  # the means over maps are then distinct, too
    multi_maps.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: spatial_pool(class_wise_pool(x, 3), 2, 3, 0.7), (multi_maps,))
    assert torch.autograd.gradcheck(lambda x: log_sum_exp_pool(class_wise_pool(x, 3) / 1000), (multi_maps,))


def gradient(class_maps: Tensor, *parameters: Any) -> Tensor:
    leaf = class_maps.detach().clone().requires_grad_()
    spatial_pool(leaf, *parameters).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


@quick
@given(shape=shapes, seed=st.integers(0, 1000), kmax=regions, kmin=regions, alpha=st.sampled_from([0.3, 0.7, 1.0]))
def test_gradient_is_in_the_selected_regions_and_exactly_zero_elsewhere(
    shape: tuple[int, int, int, int], seed: int, kmax: Any, kmin: Any, alpha: float
) -> None:
    if is_off(kmax, kmin, alpha):
        return
    class_maps = distinct_maps(*shape, seed=seed)
    total = shape[2] * shape[3]
    highest, lowest = slow_count(kmax, total), slow_count(kmin, total)
    rank = class_maps.flatten(2).argsort(dim=2).argsort(dim=2)  # 0 for the lowest region of each map
    expected = torch.zeros_like(class_maps).flatten(2)
    if highest:
        expected[rank >= total - highest] += 1 / highest
    if lowest:
        expected[rank < lowest] += alpha / lowest  # a region in both sets gets both
    actual = gradient(class_maps, kmax, kmin, alpha).flatten(2)
    torch.testing.assert_close(actual, expected)
    assert torch.equal(actual == 0, expected == 0)


def test_gradient_where_top_and_bottom_overlap_by_hand() -> None:
    class_maps = torch.tensor([[[[10.0, 2.0], [3.0, 1.0]]]])
    # Highest three: 10, 3, 2. Lowest three: 1, 2, 3. In both: 2 and 3.
    both = 1 / 3 + 0.5 / 3
    torch.testing.assert_close(gradient(class_maps, 3, 3, 0.5), torch.tensor([[[[1 / 3, both], [both, 0.5 / 3]]]]))


@quick
@given(class_maps=maps(), k=st.integers(1, 36))
@example(class_maps=torch.zeros(2, 3, 4, 5, dtype=torch.float64), k=1)
@example(class_maps=torch.zeros(2, 3, 4, 5, dtype=torch.float64), k=7)
def test_exactly_k_regions_are_selected_in_a_tie(class_maps: Tensor, k: int) -> None:
    count = min(k, class_maps.shape[2] * class_maps.shape[3])
    for parameters, share in (((k, 0, 0.0), 1 / count), ((0, k, 0.7), 0.7 / count)):
        grad = gradient(class_maps, *parameters).flatten(2)
        assert ((grad != 0).sum(dim=2) == count).all()
        torch.testing.assert_close(grad[grad != 0], torch.full_like(grad[grad != 0], share))


# The number of regions


@pytest.mark.parametrize(
    ("k", "total", "count"),
    [
        (1, 196, 1),
        (196, 196, 196),
        (197, 196, 196),  # capped
        (0, 196, 0),
        (0.0, 196, 0),
        ("all", 196, 196),
        (0.2, 196, 39),  # 39.2
        (0.4, 49, 20),  # 19.6
        (0.001, 196, 1),  # at least one
        (0.999, 3, 3),
        (0.2, 1, 1),
    ],
)
def test_count_regions(k: Any, total: int, count: int) -> None:
    assert count_regions(k, total) == count


@pytest.mark.parametrize("k", [-1, -0.2, 1.5, 2.0, math.nan, math.inf, 1.0])
def test_other_numbers_of_regions_are_rejected(k: float) -> None:
    with pytest.raises(ValueError, match=rf"kmax.*{re.escape(repr(k))}"):
        check_regions(k, "kmax")


@pytest.mark.parametrize("k", [True, None, "some", "0.2", [1], torch.tensor(1)])
def test_other_types_of_regions_are_rejected(k: object) -> None:
    with pytest.raises((TypeError, ValueError), match="kmin must be an int >= 1"):
        check_regions(k, "kmin")


def test_one_point_zero_is_rejected_as_ambiguous() -> None:
    with pytest.raises(ValueError, match=r'kmax=1\.0 is ambiguous: write 1 for one region or "all"'):
        SpatialPool(1.0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ((0, 0, 1.0), "no region is selected"),
        ((0, 3, 0.0), "no region is selected"),
        ((0,), "no region is selected"),
        ((1, 1, math.nan), "alpha must be a finite number; got nan"),
        ((1, 1, math.inf), "alpha must be a finite number; got inf"),
        ((1, -1, 1.0), "kmin must be an int >= 1"),
    ],
)
def test_bad_parameters_are_rejected_by_function_and_module(parameters: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spatial_pool(torch.zeros(1, 1, 2, 2), *parameters)
    with pytest.raises(ValueError, match=message):
        SpatialPool(*parameters)


@pytest.mark.parametrize("shape", [(1, 2, 3), (1, 2, 0, 3), (1, 2, 3, 0), (2, 3)])
def test_maps_of_another_shape_are_rejected(shape: tuple[int, ...]) -> None:
    for pool in (spatial_pool, log_sum_exp_pool):
        with pytest.raises(ValueError, match=re.escape(f"got shape {shape}")):
            pool(torch.zeros(shape))


def test_a_batch_without_images_has_no_scores() -> None:
    assert spatial_pool(torch.zeros(0, 5, 3, 3), 2).shape == (0, 5)


# Table 1, and log-sum-exp


@quick
@given(class_maps=maps(), k=regions.filter(bool), kmin=regions.filter(bool), alpha=st.sampled_from([0.3, 0.7, 1.0]))
def test_presets_of_table_1(class_maps: Tensor, k: Any, kmin: Any, alpha: float) -> None:
    values = class_maps.flatten(2).sort(dim=2, descending=True).values
    count, lowest = slow_count(k, values.shape[2]), slow_count(kmin, values.shape[2])
    top = values[:, :, :count].mean(dim=2)
    expected = {
        "max": values[:, :, 0],
        "average": values.mean(dim=2),
        "top": top,
        "llp": top,
        "weldon": top + values[:, :, -count:].mean(dim=2),
        "wildcat": top + alpha * values[:, :, -lowest:].mean(dim=2),
    }
    for name, scores in expected.items():  # a name ignores the parameters that it fixes
        torch.testing.assert_close(create_pooling(name, kmax=k, kmin=kmin, alpha=alpha)(class_maps), scores)
    assert {*expected, "lse"} == set(POOLINGS)


def test_the_default_is_that_of_the_paper() -> None:
    pooling = create_pooling()
    assert repr(pooling) == "SpatialPool(kmax=0.2, kmin=0.2, alpha=0.7)"
    assert repr(create_pooling("lse")) == "LogSumExpPool(sharpness=5.0)"


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"unknown pooling 'median'; known: wildcat, weldon, top, llp, max, average, lse"
    ):
        create_pooling("median")


@quick
@given(class_maps=maps(), sharpness=st.floats(0.1, 20))
def test_log_sum_exp_equals_the_slow_loop(class_maps: Tensor, sharpness: float) -> None:
    scores = log_sum_exp_pool(class_maps, sharpness)
    for n, c in np.ndindex(*scores.shape):
        values = [float(v) for v in class_maps[n, c].flatten()]
        direct = math.log(sum(math.exp(sharpness * v) for v in values) / len(values)) / sharpness
        assert scores[n, c].item() == pytest.approx(direct, abs=1e-9)
        assert sum(values) / len(values) - 1e-9 <= scores[n, c] <= max(values) + 1e-9


def test_log_sum_exp_lies_between_mean_and_maximum() -> None:
    class_maps = torch.tensor([[[[4.0, 1.0], [-2.0, 0.0]]]], dtype=torch.float64)
    assert log_sum_exp_pool(class_maps, 1e-6).item() == pytest.approx(0.75, abs=1e-4)
    assert log_sum_exp_pool(class_maps, 1e4).item() == pytest.approx(4.0, abs=1e-3)
    assert log_sum_exp_pool(class_maps + 1000, 1.0).item() == pytest.approx(
        1000 + log_sum_exp_pool(class_maps, 1.0).item()
    )
    assert torch.autograd.gradcheck(log_sum_exp_pool, (class_maps.requires_grad_(),))
    assert torch.equal(LogSumExpPool(3.0)(class_maps), log_sum_exp_pool(class_maps, 3.0))


@pytest.mark.parametrize("sharpness", [0.0, -1.0, math.nan, math.inf])
def test_log_sum_exp_rejects_other_sharpness(sharpness: float) -> None:
    with pytest.raises(ValueError, match="sharpness must be a finite number above 0"):
        LogSumExpPool(sharpness)
    with pytest.raises(ValueError, match="sharpness must be a finite number above 0"):
        log_sum_exp_pool(torch.zeros(1, 1, 2, 2), sharpness)


# Graphs


def compiled(function: Any) -> Any:
    """``torch.compile`` without vectorised code and precompiled headers, which only cost time in a test."""
    import torch._inductor

    wanted = {"cpp.simdlen": 1, "cpp_cache_precompile_headers": False, "fx_graph_cache": False}
    known = torch._inductor.list_options()
    return torch.compile(function, fullgraph=True, options={k: v for k, v in wanted.items() if k in known})


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, and there is no g++")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_compiled_function_gives_the_same_scores_and_gradients() -> None:
    def scores_of(multi_maps: Tensor) -> Tensor:
        return spatial_pool(class_wise_pool(multi_maps, 2), 0.2, 0.4, 0.7)

    torch._dynamo.reset()
    leaf = distinct_maps(2, 6, 5, 7).float().requires_grad_()
    again = leaf.detach().clone().requires_grad_()
    actual, expected = compiled(scores_of)(leaf), scores_of(again)
    torch.testing.assert_close(actual, expected)
    actual.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(leaf.grad, again.grad)


@pytest.mark.parametrize("name", POOLINGS)
def test_the_exported_module_gives_the_same_scores(name: str) -> None:
    pooling = create_pooling(name)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        pooling, (torch.randn(2, 3, 5, 7),), dynamic_shapes={"class_maps": {0: batch}}
    ).module()
    for images in (1, 2, 5):
        class_maps = torch.randn(images, 3, 5, 7)
        torch.testing.assert_close(program(class_maps), pooling(class_maps))
