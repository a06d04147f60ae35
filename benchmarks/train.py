"""A whole training step with its data, against the authors' code restated and against a plain loop.

    python -m benchmarks.train            seconds, nothing written
    python -m benchmarks.train --full     ResNet-50 at 448 px, batch 16, M 8; lite0 at 320 px

Ours is `wildcat.train` itself; the peer trains in a process of its own, in turns of a few steps each. Both sides start
their loader processes again in each turn. `benchmarks/peers.py` describes which parts of the authors' code are
restated. The plain loop has the same network of timm, loss, images and optimizer, without the additions of this
project: default memory format, single precision, default SGD, images decoded at each step, default allocator. Initial
weights, order, flips and learning rates are the same, so both loss curves are equal within rounding: "loss" is the
difference of a step's loss. The ResNet starts from random weights with the last BatchNorm of each block at 0 (Goyal et
al. 2017): without this, a change of the weights by 1e-6 changes the losses of the first 20 steps by several per cent,
in any precision.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch.utils.data import DataLoader

from benchmarks import peers
from benchmarks.common import OURS, Report, options, scratch_folder, voc_folder
from wildcat.config import FORMER_DEFAULTS, TrainConfig
from wildcat.data.registry import open_dataset
from wildcat.data.transforms import random_view
from wildcat.losses import multi_label_loss
from wildcat.model import create_model
from wildcat.system.memory import keep_freed_memory
from wildcat.training import engine, launch
from wildcat.training.data import EpochSampler, TrainDataset
from wildcat.training.diagnostics import LossMonitor
from wildcat.training.engine import TrainContext
from wildcat.training.state import TrainState


def order(count: int, used: int, seed: int, epoch: int) -> list[int]:
    sampler = EpochSampler(count, used, seed)
    sampler.epoch = epoch
    return [index for _, index in sampler]


def peer_process(pipe: Any, kind: str, settings: dict[str, Any], count: int, weights: Path, threads: int) -> None:
    """Epochs on demand: receives a number, trains that epoch, answers with seconds and losses."""
    torch.set_num_threads(threads)
    config = TrainConfig(**settings)
    dataset = _first(config, count)
    example = create_model(config.backbone, num_classes=20, num_maps=config.num_maps, pretrained=False)
    net = peers.network(config.backbone, 20, config.num_maps)
    peers.load_ours(net, torch.load(weights, weights_only=True))
    rates = [
        {"params": net.backbone.parameters(), "lr": config.lr * config.backbone_lr_factor},
        {"params": net.classifier.parameters(), "lr": config.lr},
    ]
    optimizer = torch.optim.SGD(rates, momentum=config.momentum, weight_decay=config.weight_decay)
    net.train()
    pipe.send("ready")
    while (epoch := pipe.recv()) is not None:
        indices = order(len(dataset), len(dataset), config.seed, epoch)
        start = time.perf_counter()
        losses = []
        if kind == "official":
            flips = [random_view(np.random.default_rng((config.seed, epoch, index))).flip for index in indices]
            files = [dataset.samples[index].path for index in indices]
            labels = np.stack([dataset.samples[index].labels for index in indices])
            dataset_images = peers.Images(
                files, labels, flips, config.image_size, example.backbone.mean, example.backbone.std
            )
            batches: Any = peers.batches(dataset_images, config.batch_size)
        else:
            keys = [(epoch, index) for index in indices]
            dataset_images = TrainDataset(dataset, config)
            batches = DataLoader(
                dataset_images, config.batch_size, sampler=keys, num_workers=1, multiprocessing_context="fork"
            )
        for images, targets in batches:
            if kind != "official":
                images = example.normalize(images.permute(0, 3, 1, 2)).contiguous()
            loss = multi_label_loss(net(images)[0], targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        pipe.send((time.perf_counter() - start, losses))


def _first(config: TrainConfig, count: int) -> Any:
    return open_dataset(config.data, "trainval").subset(range(count))


def race(kind: str, config: TrainConfig, steps: int, threads: int, scratch: Path) -> dict[str, Any]:
    """Train by turns; seconds of each epoch and losses of each step on both sides, the first epoch's time left out."""
    count = steps * config.batch_size
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    weights = scratch / f"{kind}.pt"
    seconds: dict[str, list[float]] = {OURS: [], kind: []}
    losses: dict[str, list[float]] = {OURS: [], kind: []}
    peer: Any = None
    before = launch.open_training_data, engine.train_one_epoch, LossMonitor.add
    _, train_one_epoch, add = before

    def open_first(*args: Any, **kwargs: Any) -> Any:
        return _first(config, count), None

    def one_epoch(context: TrainContext, state: TrainState) -> dict[str, float]:
        nonlocal peer
        if peer is None:
            torch.save(context.strategy.model.state_dict(), weights)
            plain = {**config.to_dict(), "cache_gb": 0.0}
            peer = spawn.Process(target=peer_process, args=(there, kind, plain, count, weights, threads))
            peer.start()
            there.close()  # so that a peer that fails ends the wait for it
            here.recv()
        here.send(state.epoch)
        taken, peer_losses = here.recv()
        start = time.perf_counter()
        row = train_one_epoch(context, state)
        seconds[OURS].append(time.perf_counter() - start)
        seconds[kind].append(taken)
        losses[kind] += peer_losses
        return row

    def add_loss(monitor: LossMonitor, loss: float) -> str | None:
        losses[OURS].append(loss)
        return add(monitor, loss)

    launch.open_training_data, engine.train_one_epoch, LossMonitor.add = open_first, one_epoch, add_loss
    try:
        with keep_freed_memory():  # as the command line does
            launch.train(config, scratch / f"run-{kind}")
    finally:
        launch.open_training_data, engine.train_one_epoch, LossMonitor.add = before
        if peer is not None and peer.is_alive():
            here.send(None)
            peer.join()
    return {"seconds": {name: values[1:] for name, values in seconds.items()}, "losses": losses}


def random_start(name: str, scratch: Path) -> Path:
    """A file of random weights for a ResNet whose blocks begin as the identity."""
    torch.manual_seed(0)
    file = scratch / f"{name}.pth"
    torch.save(getattr(torchvision.models, name)(weights=None, zero_init_residual=True).state_dict(), file)
    return file


def loss_difference(losses: dict[str, list[float]]) -> str:
    ours, theirs = (np.asarray(values) for values in losses.values())
    difference = 100 * np.abs(ours / theirs - 1)
    return f"loss within {difference.max():.2f} %, mean {difference.mean():.2f} %, over {len(ours)} steps"


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, arguments)
    report = Report("train", chosen)
    steps, epochs = (5, 4) if chosen.full else (2, 2)
    with scratch_folder() as folder:
        scratch = Path(folder)
        data = f"voc07:{voc_folder(steps * 16, scratch)}"
        base: dict[str, Any] = {"data": data, "pretrained": False, "schedule": "constant", "epochs": epochs}
        base = {**FORMER_DEFAULTS, **base, "held_out_images": 0}  # all weights learn, as in the peers
        sizes = {"resnet50": 448, "lite0": 320} if chosen.full else {"resnet18": 64, "lite0": 64}
        if not chosen.full:
            base["batch_size"] = 4
        for (backbone, size), kind in zip(sizes.items(), ("official", "plain loop"), strict=True):
            rates = {"lr": 0.02, "backbone_lr_factor": 0.4} if kind == "official" else {}
            start = None if backbone == "lite0" else str(random_start(backbone, scratch))
            sized = {"backbone": backbone, "weights": start, "image_size": size, "num_maps": 8}
            config = TrainConfig(**{**base, **rates, **sized})
            result = race(kind, config, steps, chosen.threads, scratch)
            report.compare(
                f"train {backbone}, {size} px, batch {config.batch_size}",
                result["seconds"],
                unit="images/s",
                per=steps * config.batch_size,
                goal=">= 2.2" if kind == "official" else ">= 1.3",
                note=loss_difference(result["losses"]),
            )
    report.write()


if __name__ == "__main__":
    main()
