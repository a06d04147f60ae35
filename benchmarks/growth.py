"""How cost grows with the number of images, classes, maps per class, and with the size of the input.

    python -m benchmarks.growth            seconds, nothing written
    python -m benchmarks.growth --full

Images: a list of paths to a small image, predicted by `Predictor.stream` in a fresh process. The network only averages
cells, so the remaining costs are visible: time to the first prediction, time per image, and the growth of the process
after its first hundred images. Classes and maps: a training step of lite0 (forward and backward, 320 px, batch 8).
Size: prediction with lite0, batch 4. "growth" is the cost per unit of the largest size divided by that of the smallest.
For images and px, the unit is an image and a pixel, and 1 is linear; classes and maps should cost next to nothing.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.common import OURS, Report, held, options, photographs, scratch_folder, take_turns
from wildcat.losses import multi_label_loss
from wildcat.model import WildcatOutput, create_model
from wildcat.prediction.items import image_items
from wildcat.prediction.predictor import Part, Predictor
from wildcat.runs.settings import InferenceSettings
from wildcat.system.memory import keep_freed_memory


class Averages:
    """The cheapest network: a class map is the mean of each cell's colour."""

    runtime, precision, device = "torch", "fp32", torch.device("cpu")

    def normalize(self, pixels: Tensor) -> Tensor:
        return pixels / 255

    def merged(self) -> Averages:
        return self

    def __call__(self, images: Tensor) -> WildcatOutput:
        maps = nn.functional.avg_pool2d(images, 16)
        return WildcatOutput(maps.amax(dim=(2, 3)), maps, maps)


def read_list(image: Path, count: int, threads: int, pipe: Any) -> None:
    """In a fresh process: seconds to the first prediction and in all, and MB by which memory grew."""
    torch.set_num_threads(threads)
    predictor = Predictor(Part(Averages(), InferenceSettings(("red", "green", "blue"), True, (32,), (32,))))
    start = time.perf_counter()
    early = 0.0
    with keep_freed_memory():  # as the command line does
        for number, _ in enumerate(predictor.stream(image_items(str(image) for _ in range(count)), multi_maps=False)):
            if number == 0:
                first = time.perf_counter() - start
            if number == 100:
                early = held("VmRSS")
    pipe.send((first, time.perf_counter() - start, held("VmRSS") - early))


def grow_images(report: Report, image: Path, counts: Sequence[int]) -> None:
    context = multiprocessing.get_context("spawn")
    each = []
    for count in counts:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=read_list, args=(image, count, report.options.threads, sender))
        child.start()
        sender.close()
        first, total, grown = receiver.recv()
        child.join()
        each.append(total / count)
        report.add(f"{count} images: first", OURS, [1000 * first], "ms")
        report.add(f"{count} images: memory", OURS, [grown], "MB more")
        report.add(f"{count} images", OURS, [1000 * total / count], "ms each", growth(each))


def growth(each: Sequence[float]) -> str:
    return f"growth {each[-1] / each[0]:.2f}" if len(each) > 1 else ""


def training_step(classes: int, maps: int, size: int, batch: int) -> Callable[[], None]:
    model = create_model("lite0", num_classes=classes, num_maps=maps, pretrained=False).train()
    model.to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.where(torch.rand(batch, classes) < 0.1, 1, -1)
    return lambda: multi_label_loss(model(images).scores, labels).backward()


def prediction(size: int, batch: int) -> Callable[[], None]:
    model = create_model("lite0", num_classes=20, pretrained=False).eval().merged()
    model.to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)

    def call() -> None:
        with torch.inference_mode():
            model(images)

    return call


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, arguments)
    report = Report("growth", chosen)
    full = chosen.full
    turns, size, batch = (3, 320, 8) if full else (1, 64, 2)
    with scratch_folder() as folder:
        image = Path(folder) / "small.jpg"  # reading is to cost little, so that the rest shows
        Image.open(photographs(1, Path(folder))[0]).resize((64, 48)).save(image)
        grow_images(report, image, (1_000, 10_000, 100_000) if full else (150, 200))
    kinds: tuple[tuple[str, Sequence[int], Callable[[int], Callable[[], None]], int], ...] = (
        ("classes", (20, 80, 1000), lambda n: training_step(n, 4, size, batch), batch),
        ("maps per class", (1, 4, 8, 16), lambda n: training_step(20, n, size, batch), batch),
        ("px", (224, 320, 448, 640, 896) if full else (64, 96), lambda n: prediction(n, 4), 4),
    )
    for what, values, made, count in kinds:
        times = take_turns({str(value): made(value) for value in values}, turns)
        each: list[float] = []
        for value in values:
            mine = [1000 * seconds / count for seconds in times[str(value)]]
            each.append(sorted(mine)[len(mine) // 2] / (value**2 if what == "px" else 1))
            report.add(f"{value} {what}", OURS, mine, "ms an image", growth(each))
    report.write()


if __name__ == "__main__":
    main()
