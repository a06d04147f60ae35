"""Heatmaps of 20 classes for one image, at the size of the image: one forward pass, against grad-cam and torchcam.

    python -m benchmarks.maps            seconds, nothing written
    python -m benchmarks.maps --full     ResNet-50, 448 px

grad-cam's GradCAM and torchcam's GradCAM process the image 20 times in one batch, once for each class, which is faster
than 20 calls. torchcam's CAM needs no gradient: it processes the image once and multiplies with the weights of each
class. All have a ResNet with the same backbone and a linear layer for 20 classes, with random weights. Ours is a
`Predictor` on an array, with maps upsampled bilinearly to the size of the image like those of the others; its network
runs in PyTorch and in OpenVINO, both with `--precision auto`. For OpenVINO, the table also shows the parts of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torchvision
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor
from torch.nn.functional import interpolate
from torchcam import methods

from benchmarks.common import OPENVINO, OURS, Report, in_openvino, options, photographs, scratch_folder, take_turns
from wildcat.data.transforms import warp
from wildcat.model import create_model
from wildcat.prediction.items import image_items
from wildcat.prediction.predictor import Predictor
from wildcat.runs.settings import InferenceSettings

CLASSES = 20


Calls: TypeAlias = dict[str, Callable[[], Any]]


def contenders(name: str, source: np.ndarray, size: int, scratch: Path) -> tuple[Calls, Calls]:
    """The contenders, and the parts of ours in OpenVINO."""
    model = create_model(name, num_classes=CLASSES, num_maps=4, pretrained=False).eval()
    net = getattr(torchvision.models, name)(weights=None, num_classes=CLASSES).eval()
    state = {key.removeprefix("backbone.net."): v for key, v in model.state_dict().items() if "backbone" in key}
    net.load_state_dict(state, strict=False)
    settings = InferenceSettings(tuple(map(str, range(CLASSES))), True, (size,), (size,))
    predictor = Predictor.from_model(model, settings, precision="auto")
    exported = in_openvino(predictor, scratch)
    height, width = source.shape[:2]
    image = model.normalize(torch.from_numpy(warp(source, size).copy()).permute(2, 0, 1)[None]).contiguous()
    batch = image.repeat(CLASSES, 1, 1, 1)
    targets = [ClassifierOutputTarget(number) for number in range(CLASSES)]
    grad_cam = GradCAM(net, [net.layer4])

    def enlarged(maps: Tensor) -> Tensor:
        return interpolate(maps[None].float(), (height, width), mode="bilinear", align_corners=False)[0]

    def ours(predictor: Predictor) -> Tensor:
        (prediction,) = predictor.stream(image_items([source]), multi_maps=False)
        return enlarged(torch.from_numpy(prediction.class_maps))

    pixels = torch.from_numpy(warp(source, size).copy()).permute(2, 0, 1)[None]
    network = exported.single.network
    class_maps = network(network.normalize(pixels)).class_maps[0]
    parts: Calls = {
        "the image resized": lambda: warp(source, size),
        "the network": lambda: network(network.normalize(pixels)),
        "the maps enlarged": lambda: enlarged(class_maps),
    }

    def gradcam() -> Tensor:
        return enlarged(torch.from_numpy(grad_cam(batch, targets)))

    def torchcam_gradcam() -> Tensor:
        with methods.GradCAM(net, "layer4") as extractor:
            scores = net(batch)
            return enlarged(extractor(list(range(CLASSES)), scores)[0])

    def torchcam_cam() -> Tensor:
        with methods.CAM(net, "layer4", "fc") as extractor, torch.inference_mode():
            net(image)
            return enlarged(torch.cat([extractor(number)[0] for number in range(CLASSES)]))

    mine = {OURS: lambda: ours(predictor), OPENVINO: lambda: ours(exported)}
    calls = {"grad-cam GradCAM": gradcam, "torchcam GradCAM": torchcam_gradcam, "torchcam CAM": torchcam_cam}
    return {**mine, **calls}, parts


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, arguments)
    report = Report("maps", chosen)
    name, size, turns = ("resnet50", 448, 5) if chosen.full else ("resnet18", 64, 1)
    with scratch_folder() as folder:
        image = np.asarray(Image.open(photographs(1, Path(folder))[0]).convert("RGB"))
        calls, parts = contenders(name, image, size, Path(folder))
        shape = (CLASSES, *image.shape[:2])
        assert all(tuple(call().shape) == shape for call in calls.values())
        work = f"{CLASSES} heatmaps of an image, {name}, {size} px"
        report.compare_runtimes(work, take_turns(calls, turns), goal=">= 10")
        for part, call in parts.items():  # each by itself: threads of one, still waiting, would hold up the next
            times = take_turns({part: call}, 3 * turns)[part]
            report.add(f"of it, runtime openvino: {part}", OURS, [1000 * seconds for seconds in times], "ms")
    report.write()


if __name__ == "__main__":
    main()
