"""The kinds of class-wise pooling against a slow loop, their gradients, map dropout, and models that use them."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from wildcat.class_pooling import CLASS_POOLINGS, ClassPooling, choose_kept_maps, class_wise_pool
from wildcat.errors import WildcatError
from wildcat.export.graph import Exportable
from wildcat.export.open import model_fingerprint
from wildcat.model import Wildcat, create_model
from wildcat.pooling import spatial_pool
from wildcat.prediction.predictor import Predictor
from wildcat.runs.settings import InferenceSettings

SOFT: tuple[ClassPooling, ...] = ("lse", "softmax")


def slow_value(values: list[float], kind: str, sharpness: float) -> float:
    if kind == "mean":
        return math.fsum(values) / len(values)
    if kind == "max":
        return max(values)
    powers = [math.exp(sharpness * value) for value in values]
    if kind == "lse":
        return math.log(math.fsum(powers) / len(values)) / sharpness
    return math.fsum(power * value for power, value in zip(powers, values, strict=True)) / math.fsum(powers)


def slow_pool(multi_maps: Tensor, num_maps: int, kind: str, sharpness: float, kept: Tensor | None) -> Tensor:
    images, channels, height, width = multi_maps.shape
    out = torch.zeros(images, channels // num_maps, height, width, dtype=torch.float64)
    for n, c, i, j in itertools.product(*map(range, out.shape)):
        chosen = [m for m in range(num_maps) if kept is None or kept[n, c, m]]
        out[n, c, i, j] = slow_value([float(multi_maps[n, c * num_maps + m, i, j]) for m in chosen], kind, sharpness)
    return out


def random_maps(num_maps: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(2, 3 * num_maps, 1, 2, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("sharpness", [0.5, 5.0])
@pytest.mark.parametrize("num_maps", [1, 2, 5])
@pytest.mark.parametrize("kind", CLASS_POOLINGS)
def test_values_and_gradients(kind: ClassPooling, num_maps: int, sharpness: float, dropped: bool) -> None:
    multi_maps = random_maps(num_maps).requires_grad_()
    torch.manual_seed(1)
    kept = choose_kept_maps((2, 3, num_maps), 0.6) if dropped else None

    def pool(maps: Tensor) -> Tensor:
        return class_wise_pool(maps, num_maps, kind, sharpness=sharpness, kept=kept)

    torch.testing.assert_close(pool(multi_maps), slow_pool(multi_maps.detach(), num_maps, kind, sharpness, kept))
    assert torch.autograd.gradcheck(pool, (multi_maps,))
    if kept is not None and num_maps > 1:
        pool(multi_maps).sum().backward()
        assert multi_maps.grad is not None
        used = multi_maps.grad.unflatten(1, (3, num_maps)).abs().sum(dim=(3, 4)) > 0
        assert not used[~kept].any()
        assert used[kept].all() or kind == "max"


@pytest.mark.parametrize("kind", SOFT)
def test_it_lies_between_mean_and_maximum_and_tends_to_them(kind: ClassPooling) -> None:
    maps = random_maps(4)
    mean, highest = class_wise_pool(maps, 4), class_wise_pool(maps, 4, "max")
    near_mean, between, near_maximum = (class_wise_pool(maps, 4, kind, sharpness=r) for r in (1e-6, 1.0, 1e6))
    torch.testing.assert_close(near_mean, mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(near_maximum, highest, rtol=0, atol=1e-4)
    assert (mean < between).all() and (between < highest).all()


@pytest.mark.parametrize("kind", CLASS_POOLINGS)
def test_equal_maps_give_that_map(kind: ClassPooling) -> None:
    one = random_maps(1)
    torch.testing.assert_close(class_wise_pool(one.repeat_interleave(3, dim=1), 3, kind), one)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 2e4])
@pytest.mark.parametrize("kind", CLASS_POOLINGS)
def test_no_range_of_values_overflows(kind: ClassPooling, scale: float, dtype: torch.dtype) -> None:
    maps = (scale * random_maps(4).clamp(-3, 3)).to(dtype).requires_grad_()
    kept = torch.tensor([True, False, True, True]).expand(2, 3, 4)
    pooled = class_wise_pool(maps, 4, kind, kept=kept)
    assert pooled.dtype == dtype
    expected = class_wise_pool(maps.detach().double(), 4, kind, kept=kept)
    rounding = 1e-7 + 1e-6 * scale  # the first: of the smallest numbers of half precision
    torch.testing.assert_close(pooled.double(), expected, rtol=float(2 * torch.finfo(dtype).eps), atol=rounding)
    pooled.float().sum().backward()
    assert maps.grad is not None and maps.grad.isfinite().all()


def test_in_a_tie_one_map_gets_the_gradient_of_the_maximum() -> None:
    maps = torch.ones(1, 4, 1, 1, requires_grad=True)
    class_wise_pool(maps, 4, "max").sum().backward()
    assert maps.grad is not None and sorted(maps.grad.flatten().tolist()) == [0, 0, 0, 1]


@pytest.mark.parametrize("sharpness", [0.0, -1.0, math.nan, math.inf])
def test_another_sharpness_is_rejected(sharpness: float) -> None:
    with pytest.raises(ValueError, match="sharpness must be a finite number above 0"):
        class_wise_pool(torch.zeros(1, 2, 1, 1), 2, "lse", sharpness=sharpness)


def test_other_values_are_rejected() -> None:
    with pytest.raises(WildcatError, match=r"class_pooling.*'men'.*did you mean mean\?"):
        create_model("lite0", num_classes=2, pretrained=False, class_pooling="men")  # type: ignore[arg-type]
    with pytest.raises(WildcatError, match=r"map_dropout must be at least 0 and below 1; got 1\.0"):
        create_model("lite0", num_classes=2, pretrained=False, map_dropout=1.0)


# Map dropout


@pytest.mark.parametrize(
    ("maps", "dropout", "counts"), [(4, 0.5, {2}), (4, 0.1, {3, 4}), (4, 0.9, {1}), (3, 0.5, {1, 2}), (1, 0.9, {1})]
)
def test_each_class_keeps_its_share_of_maps(maps: int, dropout: float, counts: set[int]) -> None:
    torch.manual_seed(0)
    kept = choose_kept_maps((200, 5, maps), dropout)
    assert set(kept.sum(dim=2).flatten().tolist()) == counts
    share = kept.double().mean(dim=(0, 1))
    expected = max(1 / maps, 1 - dropout)
    assert (share - expected).abs().max() < 0.06  # every map equally often
    assert maps == 1 or len({tuple(row) for row in kept[:, 0].tolist()}) > 1  # others in each image


# Models


class Cells(nn.Module):
    """Features are the pixels' means in cells, so that every place has its own."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, 8)


def model_of(class_pooling: ClassPooling, map_dropout: float = 0.0, num_maps: int = 3) -> Wildcat:
    torch.manual_seed(0)
    return create_model(
        Cells(), num_classes=4, num_maps=num_maps, class_pooling=class_pooling, map_dropout=map_dropout
    ).eval()


def images_of(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", CLASS_POOLINGS)
def test_a_model_pools_its_maps_and_merging_changes_no_score(kind: ClassPooling) -> None:
    model = model_of(kind, map_dropout=0.5)
    output, merged = model(images_of()), model.merged()(images_of())
    torch.testing.assert_close(output.class_maps, class_wise_pool(output.multi_maps, 3, kind))
    torch.testing.assert_close(output.scores, spatial_pool(output.class_maps, 0.2, 0.2, 0.7))
    torch.testing.assert_close(merged[:2], output[:2])
    assert model.merged().num_maps == (1 if kind == "mean" else 3)


@pytest.mark.parametrize("kind", CLASS_POOLINGS)
def test_maps_are_dropped_in_training_mode_alone(kind: ClassPooling) -> None:
    plain, dropping = model_of(kind), model_of(kind, map_dropout=0.5)
    torch.testing.assert_close(dropping(images_of()), plain(images_of()))
    torch.manual_seed(0)
    first, second = (dropping.train()(images_of()).class_maps for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(first, dropping(images_of()).class_maps) and not torch.equal(first, second)
    one = model_of(kind, map_dropout=0.5, num_maps=1)
    assert torch.equal(one.train()(images_of()).class_maps, one.eval()(images_of()).class_maps)


@pytest.mark.parametrize("kind", CLASS_POOLINGS)
def test_predictions_with_and_without_multi_maps_are_the_same(kind: ClassPooling) -> None:
    predictor = Predictor.from_model(model_of(kind), InferenceSettings(tuple("abcd"), True, (32,), (32, 64)))
    pixels = torch.randint(0, 255, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    batch = {32: pixels[..., ::2, ::2], 64: pixels}
    whole, merged = (predictor.batch_function(multi_maps)(batch)[predictor.chosen] for multi_maps in (True, False))
    torch.testing.assert_close(merged.probabilities, whole.probabilities)
    torch.testing.assert_close(merged.class_maps, whole.class_maps)
    assert whole.multi_maps.shape[1] == 12


@pytest.mark.parametrize("kind", CLASS_POOLINGS)
def test_the_exported_graph_pools_the_maps(kind: ClassPooling) -> None:
    model = model_of(kind)
    expected = model(images_of())
    scores, _, class_maps, _ = Exportable(model, multi_label=True)(images_of())
    torch.testing.assert_close(scores, expected.scores)
    torch.testing.assert_close(class_maps, expected.class_maps)


def test_the_kind_identifies_a_model_and_the_mean_is_as_it_was() -> None:
    """Files that were exported before there were other kinds still belong to their runs."""
    assert "class_pooling" not in repr(model_of("mean"))
    assert len({model_fingerprint(model_of(kind)) for kind in CLASS_POOLINGS}) == len(CLASS_POOLINGS)
    assert model_fingerprint(model_of("lse", 0.5)) == model_fingerprint(model_of("lse"))
