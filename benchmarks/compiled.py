"""Whether `torch.compile` pays off within a training: a training step without and with compilation.

    python -m benchmarks.compiled            a small backbone, compiled without a C++ compiler; nothing written
    python -m benchmarks.compiled --full     ResNet-50: about 4 minutes; needs a C++ compiler

A step is forward and backward in bf16 with the recipes' pooling, on images in memory; the whole backbone is trained, as
in recipe voc07. The time of the first compiled step has to be regained: where a compiled step is faster, the note gives
the number of steps that this takes. Lite backbones are left out: compiling one was stopped before it ended.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from torch._inductor import config as inductor_config

from benchmarks.common import OURS, Report, options, take_turns
from wildcat.losses import multi_label_loss
from wildcat.model import Wildcat, create_model

COMPILED = "torch.compile"


def training_step(model: Wildcat, call: Callable[[torch.Tensor], object], size: int, batch: int) -> Callable[[], float]:
    """A function that trains on a fixed batch, without a step of the optimizer; it returns the loss."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator).to(memory_format=torch.channels_last)
    labels = torch.where(torch.rand(batch, model.num_classes, generator=generator) < 0.1, 1, -1)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16):
            scores = call(images).scores  # type: ignore[attr-defined]
        loss = multi_label_loss(scores, labels)
        loss.backward()
        model.zero_grad(set_to_none=True)
        return loss.item()

    return step


def compare(report: Report, backbone: str, size: int, batch: int, turns: int, backend: str) -> None:
    torch.manual_seed(0)
    model = create_model(backbone, num_classes=20, num_maps=4, kmax=0.2, alpha=0.7, pretrained=False).train()
    model.to(memory_format=torch.channels_last)
    plain = training_step(model, model, size, batch)
    compiled = training_step(model, torch.compile(model, backend=backend), size, batch)
    expected = plain()
    start = time.perf_counter()
    loss = compiled()
    first = time.perf_counter() - start
    times = take_turns({OURS: plain, COMPILED: compiled}, turns)
    gained = statistics.median(times[OURS]) - statistics.median(times[COMPILED])
    worth = f"pays back in {first / gained:,.0f} steps" if gained > 0 else "never pays back"
    work = f"training step, {backbone}, {size} px, batch {batch}"
    report.compare(work, times, note=f"{worth}; loss within {100 * abs(loss / expected - 1):.2f} %")
    report.add(f"{work}: the first compiled", OURS, [first], "s")


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, arguments)
    report = Report("compiled", chosen)
    # With its caches an earlier run would have compiled already. PyTorch warns that it keeps no profile then.
    with inductor_config.patch(force_disable_caches=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "dynamo_pgo force disabled")
        if chosen.full:
            compare(report, "resnet50", 448, 16, turns=7, backend="inductor")
        else:
            compare(report, "timm:test_resnet", 64, 2, turns=1, backend="aot_eager")
    report.write()


if __name__ == "__main__":
    main()
