"""Devices: which one "auto" is, and that no tensor stays on the CPU by mistake.

No GPU is needed: PyTorch's fake tensors have a device and raise an error for tensors of another one, as real tensors
do, but hold no values.
"""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import wildcat
from wildcat.cli import main
from wildcat.errors import WildcatError
from wildcat.losses import multi_label_loss
from wildcat.model import create_model
from wildcat.multiscale import ObjectBank
from wildcat.prediction.ensemble import Ensemble
from wildcat.prediction.predictor import Predictor
from wildcat.runs.settings import InferenceSettings
from wildcat.system.devices import Precision, device_of

GPU = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, run_and_image: Path) -> Path:
    return Path(shutil.copytree(run_and_image / "run", tmp_path_factory.mktemp("runs") / "run"))


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == torch.device("cpu") == device_of("cpu") == device_of(torch.device("cpu"))


@pytest.mark.slow
def test_unknown_devices(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("tpu", "cuda:99", "cuda:x"):
        with pytest.raises(WildcatError, match=f"device '{name}' cannot be used: .*; auto uses the GPU"):
            wildcat.load(run, device=name)
    for command in (["predict", str(run), "cat.png"], ["evaluate", str(run)], ["report", str(run)]):
        (tmp_path / "cat.png").write_bytes(b"")
        command = [str(tmp_path / word) if word == "cat.png" else word for word in command]
        assert main([*command, "--device", "tpu"]) == 2
        assert "device 'tpu' cannot be used" in capsys.readouterr().err


def test_other_runtimes_compute_on_the_cpu(run: Path) -> None:
    with pytest.raises(WildcatError, match="the runtime onnx computes on the CPU, not on cuda"):
        wildcat.load(run, runtime="onnx", device="cuda")
    with pytest.raises(WildcatError, match=r"the exported file .*model\.onnx computes on the CPU, not on cuda:1"):
        wildcat.load(run / "model.onnx", device="cuda:1")


def put_on_gpu(model: nn.Module) -> None:
    """Replace parameters and buffers by fake ones; any other tensor of a module stays on the CPU and fails."""
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=GPU)
                    held[name] = nn.Parameter(fake, tensor.requires_grad) if held is module._parameters else fake


def pixels(*sizes: int) -> dict[int, torch.Tensor]:
    return {size: torch.empty(2, size, size, 3, dtype=torch.uint8, device=GPU).permute(0, 3, 1, 2) for size in sizes}


def predictor(backbone: str, *sizes: int, precision: Precision = "fp32", multi_label: bool = True) -> Predictor:
    model = create_model(backbone, num_classes=3, num_maps=2, kmax=0.2, pretrained=False)
    return Predictor.from_model(
        model, InferenceSettings(("a", "b", "c"), multi_label, sizes, sizes[-1:], mirror=True), precision=precision
    )


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["lite0", "resnet18", "timm:test_resnet"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_predicts(backbone: str, precision: Precision) -> None:
    predicts = predictor(backbone, 64, 96, precision=precision)
    optimized = predicts.single.network.optimized
    with FakeTensorMode(), torch.inference_mode():
        put_on_gpu(optimized)
        output = predicts.batch_function()(pixels(64, 96))["model"]
        assert output.probabilities.device == output.class_maps.device == GPU
        assert output.multi_maps.shape == (2, 6, 3, 3)


@pytest.mark.slow
def test_a_gpu_predicts_at_several_scales() -> None:
    parts = {str(size): predictor("resnet18", size, multi_label=False).single for size in (64, 96)}
    bank = ObjectBank(torch.zeros(3, 6, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    optimized = [part.network.optimized for part in parts.values()]
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
        for model in optimized:
            put_on_gpu(model)
        outputs = Predictor(parts, Ensemble(bank)).batch_function()(pixels(64, 96))
        assert {output.probabilities.device for output in outputs.values()} == {GPU}
        assert outputs["object_bank"].class_maps.shape == (2, 3, 3, 3)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["lite0", "resnet18"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_gpu_trains(backbone: str, frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wildcat.model._check_finite", lambda maps: None)  # fake maps have no values
    model = create_model(backbone, num_classes=3, num_maps=2, kmax=0.2, pretrained=False)
    model.backbone.freeze(1, frozen, frozen)
    with FakeTensorMode():
        put_on_gpu(model.train())
        scores = model(model.normalize(pixels(64)[64])).scores
        loss = multi_label_loss(scores, torch.empty(2, 3, dtype=torch.int8, device=GPU))
        assert loss.device == GPU and loss.requires_grad  # the backward pass needs a real device
