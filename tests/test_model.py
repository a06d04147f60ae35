"""The whole network: both architectures against plain linear algebra, merging, precision, graphs, errors."""

import copy
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from wildcat.backbones import Backbone, embedded_classifier
from wildcat.backbones.factory import create_backbone
from wildcat.errors import WildcatError
from wildcat.model import NonFiniteMapsError, Wildcat, WildcatOutput, create_model, imagenet_classes, imagenet_model
from wildcat.pooling import SpatialPool, create_pooling, spatial_pool
from wildcat.transfer import MultiMapTransfer


def apply(net: Any, images: Tensor) -> Tensor:
    return net(images)


def toy_backbone(channels: int = 6) -> Backbone:
    return Backbone(
        "toy",
        nn.Sequential(nn.Conv2d(3, channels, 3, stride=4, padding=1), nn.BatchNorm2d(channels), nn.ReLU()),
        apply,
        channels=channels,
        stride=4,
        mean=(0.5, 0.25, 0.5),
        std=(0.5, 0.25, 1.0),
        native_size=32,
        stages=[["0", "1"]],
    )


def toy(architecture: Any = "a", num_maps: int = 1, pooling: Any = None, seed: int = 0) -> Wildcat:
    torch.manual_seed(seed)
    return Wildcat(
        toy_backbone(), MultiMapTransfer(6, 5, num_maps), pooling or SpatialPool(0.2, 0.3, 0.7), architecture
    )


def images_of(count: int = 3, height: int = 20, width: int = 32, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(7), dtype=dtype)


# What it computes


@pytest.mark.parametrize("num_maps", [1, 4])
def test_architecture_a_is_transfer_then_both_poolings(num_maps: int) -> None:
    model = toy(num_maps=num_maps).double().eval()
    out = model(images_of(dtype=torch.float64))
    assert isinstance(out, WildcatOutput)
    features = model.backbone(images_of(dtype=torch.float64))
    weight, bias = model.transfer.weight[:, :, 0, 0], model.transfer.bias
    multi_maps = torch.einsum("kd,ndhw->nkhw", weight, features) + bias[:, None, None]
    class_maps = torch.stack([multi_maps[:, c * num_maps : (c + 1) * num_maps].mean(dim=1) for c in range(5)], dim=1)
    torch.testing.assert_close(out.multi_maps, multi_maps)
    torch.testing.assert_close(out.class_maps, class_maps)
    torch.testing.assert_close(out.scores, spatial_pool(class_maps, 0.2, 0.3, 0.7))
    assert out.scores.shape == (3, 5) and out.class_maps.shape == (3, 5, 5, 8)
    assert (model.num_classes, model.num_maps) == (5, num_maps)


def test_architecture_b_pools_the_features_and_its_maps_are_the_classifier_at_each_position() -> None:
    model = toy("b").double().eval()
    out = model(images_of(dtype=torch.float64))
    features = model.backbone(images_of(dtype=torch.float64))
    weight, bias = model.transfer.weight[:, :, 0, 0], model.transfer.bias
    torch.testing.assert_close(out.scores, spatial_pool(features, 0.2, 0.3, 0.7) @ weight.T + bias)
    for i, j in np.ndindex(5, 8):
        torch.testing.assert_close(out.class_maps[:, :, i, j], features[:, :, i, j] @ weight.T + bias)
    assert torch.equal(out.multi_maps, out.class_maps)


def test_both_orders_agree_with_average_pooling_and_differ_with_the_maximum() -> None:
    """The mean commutes with the classifier (the CAM case); other poolings do not."""
    for name, same in (("average", True), ("max", False)):
        scores = [toy(order, pooling=create_pooling(name)).eval()(images_of()).scores for order in ("a", "b")]
        assert torch.allclose(*scores, atol=1e-5) is same


def test_gradcheck_of_the_whole_network() -> None:
    model = toy(num_maps=2).double().eval()
    images = images_of(1, 8, 12, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: model(x).scores, (images,))


def test_it_trains_every_parameter() -> None:
    for model in (toy("a", 3).train(), toy("b").train()):
        model(images_of()).scores.square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.any(), name


def test_pixels_are_normalised_by_the_mean_and_std_of_the_backbone() -> None:
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 3, 1, 1)
    actual = toy().normalize(pixels).flatten()
    torch.testing.assert_close(actual, torch.tensor([-1.0, (1 - 0.25) / 0.25, 0.2 - 0.5]))


def test_weights_hold_nothing_but_the_backbone_and_the_transfer() -> None:
    model = toy()
    assert {key.partition(".")[0] for key in model.state_dict()} == {"backbone", "transfer"}
    other = toy(seed=1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(images_of()).scores, model.eval()(images_of()).scores)


# Merging


@pytest.mark.parametrize("pooling", ["wildcat", "max", "average", "lse"])
def test_merging_changes_neither_scores_nor_class_maps(pooling: str) -> None:
    model = toy(num_maps=4, pooling=create_pooling(pooling)).double().eval()
    state = copy.deepcopy(model.state_dict())
    merged = model.merged()
    full, one = model(images_of(dtype=torch.float64)), merged(images_of(dtype=torch.float64))
    torch.testing.assert_close(one.scores, full.scores, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one.class_maps, full.class_maps, rtol=1e-12, atol=1e-12)
    assert torch.equal(one.multi_maps, one.class_maps) and full.multi_maps.shape[1] == 20
    assert (merged.num_maps, model.num_maps, merged.num_classes) == (1, 4, 5)
    assert merged.backbone is model.backbone
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_merging_an_architecture_b_model_changes_nothing() -> None:
    model = toy("b").eval()
    torch.testing.assert_close(model.merged()(images_of()), model(images_of()))


# NaN and infinity


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("architecture", ["a", "b"])
def test_maps_that_are_not_finite_stop_training_and_name_how_many(architecture: str, value: float) -> None:
    model = toy(architecture)
    model.backbone.net[1].eval()  # or the statistics of the batch would spread the value over all images
    images = images_of(4)
    images[1, 0, 3, 3] = value
    images[3] = value
    with pytest.raises(NonFiniteMapsError, match=re.escape("2 of 4 images in the batch (first: number 1)")):
        model(images)
    assert issubclass(NonFiniteMapsError, WildcatError)
    out = model.eval()(images)  # in evaluation mode nothing is raised, and the good images are unaffected
    torch.testing.assert_close(out.scores[[0, 2]], model(images[[0, 2]]).scores)


# Precision


@pytest.fixture(scope="module", params=["convolutions", "transformer"])
def small(request: pytest.FixtureRequest) -> Backbone:
    """A transformer ends in a LayerNorm, which autocast may leave in single precision before the 1x1 convolution."""
    names = {"convolutions": "timm:test_resnet", "transformer": "timm:test_vit"}
    return create_backbone(names[request.param], pretrained=False)


@pytest.mark.parametrize("architecture", ["a", "b"])
def test_scores_and_maps_leave_bf16_autocast_in_single_precision(small: Backbone, architecture: Any) -> None:
    torch.manual_seed(0)
    num_maps = 3 if architecture == "a" else 1
    model = Wildcat(small, MultiMapTransfer(small.channels, 5, num_maps), create_pooling(), architecture).eval()
    images = images_of(2, 64, 96)
    plain = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(images)
        assert model.transfer(torch.randn(1, small.channels, 2, 2)).dtype == torch.bfloat16  # autocast reaches the head
    for field, exact in zip(out, plain, strict=True):
        assert field.dtype == exact.dtype == torch.float32
        assert (field - exact).abs().max() < 0.05 * exact.abs().max()
    out.scores.sum().backward()
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())


def test_other_precisions_of_the_weights() -> None:
    assert toy().double().eval()(images_of(dtype=torch.float64)).scores.dtype == torch.float64
    out = toy(num_maps=2).bfloat16().eval()(images_of(dtype=torch.bfloat16))
    assert {field.dtype for field in out} == {torch.float32}


def test_channels_last_gives_the_same() -> None:
    model = toy(num_maps=2).eval()
    expected = model(images_of())
    actual = model.to(memory_format=torch.channels_last)(images_of().contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(tuple(actual), tuple(expected))


# Graphs


@pytest.fixture
def lenient() -> Iterator[None]:
    """PyTorch's own tools warn about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._dynamo.reset()
        yield


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["a", "b"])
def test_one_graph_is_captured_even_in_training_and_gives_the_same(lenient: None, architecture: str) -> None:
    """The generated code is compared in test_pooling; here the graph of the whole network is run as it is."""
    model = toy(architecture).train()
    twin = copy.deepcopy(model)
    actual, expected = torch.compile(twin, fullgraph=True, backend="aot_eager")(images_of()), model(images_of())
    torch.testing.assert_close(tuple(actual), tuple(expected))
    actual.scores.sum().backward()
    expected.scores.sum().backward()
    for mine, theirs in zip(twin.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lite0", "timm:test_vit", "toy b"])
def test_the_exported_graph_gives_the_same_for_any_number_of_images(lenient: None, name: str) -> None:
    model = (toy("b") if name == "toy b" else create_model(name, num_classes=5, pretrained=False)).eval()
    batch = torch.export.Dim("batch", min=1, max=16)
    with torch.no_grad():
        program = torch.export.export(model, (images_of(2, 64, 96),), dynamic_shapes={"images": {0: batch}}).module()
        for count in (1, 3):
            images = images_of(count, 64, 96)
            out = program(images)
            assert out._fields == ("scores", "class_maps", "multi_maps")
            torch.testing.assert_close(tuple(out), tuple(model(images)))


# Building


def test_create_model_passes_every_setting_on() -> None:
    model = create_model(
        "lite0", num_classes=7, num_maps=3, kmax=2, kmin="all", alpha=0.25, pretrained=False, output_stride=16
    )
    assert repr(model.pooling) == "SpatialPool(kmax=2, kmin='all', alpha=0.25)"
    assert (model.num_classes, model.num_maps, model.architecture, model.backbone.stride) == (7, 3, "a", 16)
    out = model.eval()(images_of(1, 64, 96))
    assert [tuple(field.shape) for field in out] == [(1, 7), (1, 7, 4, 6), (1, 21, 4, 6)]


def test_create_model_defaults_to_the_setting_of_the_paper() -> None:
    model = create_model(num_classes=2, pretrained=False)
    assert (model.backbone.name, model.num_maps, model.architecture) == ("lite0", 4, "a")
    assert repr(model.pooling) == "SpatialPool(kmax=0.2, kmin=0.2, alpha=0.7)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "c"}, 'architecture must be "a" or "b"; got \'c\''),
        ({"architecture": "b", "num_maps": 4}, 'architecture "b" has one map per class; got num_maps=4'),
        ({"num_classes": 0}, "num_classes and num_maps must be at least 1; got 0 and 4"),
        ({"pooling": "median"}, "unknown pooling 'median'"),
        ({"kmax": -1}, "kmax must be an int >= 1"),
        ({"backbone": "resnet1O1"}, "did you mean resnet101"),
    ],
)
def test_bad_settings_are_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        create_model(**{"num_classes": 3, "pretrained": False, **settings})


# The embedded classifier, with no training


@pytest.fixture(scope="module")
def classifier() -> tuple[Wildcat, tuple[str, ...]]:
    return imagenet_model("lite0")


def photograph(name: str, size: int) -> Tensor:
    """A sample photograph of scikit-learn's, warped to a square: (1, 3, size, size) uint8."""
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image(name)).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


@pytest.mark.slow
def test_the_embedded_classifier_knows_photographs_without_training(
    classifier: tuple[Wildcat, tuple[str, ...]],
) -> None:
    model, classes = classifier
    assert len(set(classes)) == 1000  # scores are looked up by name
    top = {}
    for name in ("china.jpg", "flower.jpg"):
        with torch.no_grad():
            out = model(model.normalize(photograph(name, model.backbone.native_size)))
        top[name] = [classes[i] for i in out.scores[0].topk(5).indices]
    # A temple hall by a lake: no class of ImageNet is exactly that, but the likely ones are all such buildings.
    assert {*top["china.jpg"]} <= {"palace", "monastery", "boathouse", "bell cote", "stupa", "castle", "church"}, top
    assert top["flower.jpg"][0] == "daisy", top  # a dahlia, which ImageNet does not have


@pytest.mark.slow
def test_its_maps_point_at_the_object(classifier: tuple[Wildcat, tuple[str, ...]]) -> None:
    """Boxes (x1, y1, x2, y2) measured by eye, relative to width and height."""
    model, classes = classifier
    for name, label, box in (
        ("flower.jpg", "daisy", (0.25, 0.19, 0.71, 0.84)),
        ("china.jpg", "palace", (0.09, 0.06, 0.56, 1.0)),
    ):
        with torch.no_grad():
            maps = model(model.normalize(photograph(name, 448))).class_maps[0]
        _, height, width = maps.shape
        row, column = divmod(int(maps[classes.index(label)].argmax()), width)
        x, y = (column + 0.5) / width, (row + 0.5) / height
        assert box[0] < x < box[2] and box[1] < y < box[3], (name, x, y)


@pytest.mark.slow
def test_its_scores_are_the_logits_of_the_plain_classifier_and_the_mean_of_its_maps(
    classifier: tuple[Wildcat, tuple[str, ...]],
) -> None:
    model, _ = classifier
    plain = embedded_classifier("lite0").eval()
    for size in ((224, 224), (160, 256)):
        images = model.normalize(photograph("china.jpg", 256)[:, :, : size[0], : size[1]])
        with torch.no_grad():
            out, logits = model(images), plain(images)
        torch.testing.assert_close(out.scores, logits, rtol=0, atol=1e-4)
        torch.testing.assert_close(out.class_maps.mean(dim=(2, 3)), logits, rtol=0, atol=1e-4)
    assert not model.training


def test_the_names_of_imagenets_classes() -> None:
    from torchvision.models import ResNet101_Weights

    assert list(imagenet_classes()) == ResNet101_Weights.IMAGENET1K_V1.meta["categories"]
