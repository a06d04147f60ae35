"""Prepares a run: freezing, device, precision, workers, and the file with its settings."""

import math
import os
import time
from dataclasses import replace
from pathlib import Path

import torch

from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.errors import WildcatError
from wildcat.model import Wildcat
from wildcat.runs.folder import Run, build_model, save_config
from wildcat.runs.image_record import ImageRecord, save_record
from wildcat.training.defaults import resolve_defaults

BF16_MIN_GAIN = 1.15  # how many times as fast as single precision bf16 must be to be chosen


def bf16_is_faster(model: Wildcat, image_size: int, device: torch.device) -> bool:
    """Measure a forward and backward pass of two images in both precisions; bf16 must win by 15 %.

    On CPUs with matrix units for bf16 it doubles the speed of ResNets and lite backbones; elsewhere it is slower. The
    model stays as it was.

    Args:
        model: on the device.
        image_size: side of the images in pixels.
        device: of the model.
    """
    if device.type == "mps" or (device.type == "cuda" and not torch.cuda.is_bf16_supported()):
        return False
    images = torch.zeros(2, 3, image_size, image_size, device=device).to(memory_format=torch.channels_last)
    was_training = model.training
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]  # the statistics of BatchNorm
    model.train()  # BatchNorm that learns cannot be folded into a convolution, which takes time

    def best_seconds(enabled: bool) -> float:
        best = math.inf
        for _ in range(3):  # the first is a warm-up
            start = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
                loss = model(images).scores.sum()
            loss.backward()
            loss.item()
            best = min(best, time.perf_counter() - start)
        return best

    fp32, bf16 = best_seconds(False), best_seconds(True)
    model.zero_grad(set_to_none=True)
    for buffer, before in buffers:
        buffer.copy_(before)
    model.train(was_training)
    return bf16 * BF16_MIN_GAIN < fp32


def freeze_and_move(model: Wildcat, config: TrainConfig, device: torch.device) -> Wildcat:
    """Freeze what the settings name, and move the model to a device; returns the same model.

    Raises:
        WildcatError: if ``freeze_stages`` is more than the backbone has.
    """
    try:
        model.backbone.freeze(config.freeze_stages, config.freeze_batch_norm, config.freeze_depthwise)
    except ValueError as error:
        raise WildcatError(f"freeze_stages: {error}") from error
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def with_precision(config: TrainConfig, device: torch.device, model: Wildcat | None = None) -> TrainConfig:
    """Replace the precision "auto" by the faster one; runs that are compared share one, because it is measured.

    Args:
        config: the settings.
        device: on which the run will be trained.
        model: on the device; a model of these settings is built unless given.
    """
    if config.precision != "auto":
        return config
    if config.frozen:
        return replace(config, precision="bf16")  # of the features in their files: the head is trained in fp32
    if config.solver == "svm":
        return replace(config, precision="fp32")
    if model is None:
        # With one class: classes cost next to nothing beside the backbone. The data, which are not open yet, change
        # little of what is measured.
        some = resolve_defaults(config, images=1000, multi_label=True)
        model = build_model(some, 1, pretrained=False)
        freeze_and_move(model, resolve_defaults(some, 1000, True, model.backbone.stages), device)
    return replace(config, precision="bf16" if bf16_is_faster(model, config.image_size, device) else "fp32")


def resolve(config: TrainConfig, model: Wildcat, device: torch.device) -> TrainConfig:
    """Replace the automatic precision and number of workers by those of this machine; a resumed run keeps them."""
    workers = config.workers
    if workers is None:
        # On a CPU the backbone needs every core; one worker is enough to decode ahead of it.
        workers = 1 if device.type == "cpu" else min(8, os.cpu_count() or 1)
    return replace(with_precision(config, device, model), workers=workers)


def start_run(
    folder: Path,
    config: TrainConfig,
    model: Wildcat,
    dataset: Dataset,
    validation: Dataset | None,
    device: torch.device,
) -> TrainConfig:
    """Write the record of the images and ``config.json`` of a new run; return its settings.

    Args:
        folder: of the run.
        config: the settings.
        model: on the device.
        dataset: the training images.
        validation: the validation images.
        device: of the training.

    Returns:
        The settings, with automatic choices resolved.
    """
    config = resolve(config, model, device)
    save_record(folder, ImageRecord.of(dataset), ImageRecord.of(validation))
    backbone = model.backbone
    threads = torch.get_num_threads()
    run = Run(config, dataset.classes, dataset.multi_label, backbone.mean, backbone.std, len(dataset), threads=threads)
    save_config(folder, run)
    return config
