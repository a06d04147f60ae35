"""Prepares a run: precision, workers, and the model on its device."""

import math
import os
import time
from dataclasses import replace

import torch

from wildcat.config import TrainConfig
from wildcat.errors import WildcatError
from wildcat.model import Wildcat
from wildcat.runs import folder as checkpoint


def bf16_is_faster(model: Wildcat, image_size: int, device: torch.device) -> bool:
    """Measure a forward and backward pass of two images in both precisions; bf16 must win by 15 %.

    On CPUs with matrix units for bf16 it doubles the speed of ResNets and lite backbones; elsewhere it is slower.
    """
    if device.type == "mps" or (device.type == "cuda" and not torch.cuda.is_bf16_supported()):
        return False
    images = torch.zeros(2, 3, image_size, image_size, device=device).to(memory_format=torch.channels_last)
    was_training = model.training
    statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.train()  # where BatchNorm learns it is no part of a convolution, which costs

    def seconds(enabled: bool) -> float:
        best = math.inf
        for _ in range(3):  # the first is a warm-up
            start = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
                loss = model(images).scores.sum()
            loss.backward()
            loss.item()
            best = min(best, time.perf_counter() - start)
        return best

    single, half = seconds(False), seconds(True)
    model.zero_grad(set_to_none=True)
    for buffer, before in statistics:
        buffer.copy_(before)
    model.train(was_training)
    return half * 1.15 < single


def freeze_and_move(model: Wildcat, config: TrainConfig, device: torch.device) -> Wildcat:
    """Freeze what does not learn, and bring the model to its device."""
    try:
        model.backbone.freeze(config.freeze_stages, config.freeze_batch_norm, config.freeze_depthwise)
    except ValueError as error:
        raise WildcatError(f"freeze_stages: {error}") from error
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def with_precision(config: TrainConfig, device: torch.device, model: Wildcat | None = None) -> TrainConfig:
    """The settings with their precision decided: once for all runs that are to be compared, for it is measured.

    Args:
        config: the settings.
        device: where the runs will be trained.
        model: on the device; one like it is made unless given.
    """
    if config.precision != "auto":
        return config
    if config.solver == "svm":
        return replace(config, precision="fp32")
    if model is None:
        # One class: they cost next to nothing beside the backbone.
        model = freeze_and_move(checkpoint.build_model(config, 1, pretrained=False), config, device)
    return replace(config, precision="bf16" if bf16_is_faster(model, config.image_size, device) else "fp32")


def resolve(config: TrainConfig, model: Wildcat, device: torch.device) -> TrainConfig:
    """Replace automatic choices by what they mean on this machine, so that a continued run repeats them."""
    workers = config.workers
    if workers is None:
        # On a CPU the backbone needs every core: one process is enough to decode ahead of it.
        workers = 1 if device.type == "cpu" else min(8, os.cpu_count() or 1)
    return replace(with_precision(config, device, model), workers=workers)
