"""The loop over epochs: one short loop on accelerate, that can stop anywhere and continue exactly."""

import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.errors import WildcatError, shorten
from wildcat.model import NonFiniteMapsError, Wildcat
from wildcat.runs import folder as checkpoint
from wildcat.training.data import EpochSampler, ShardedBatchSampler, TrainDataset, end_workers
from wildcat.training.diagnostics import LossWatch, first_bad_layer, first_bad_values
from wildcat.training.distributed import Processes
from wildcat.training.history import History, Row, describe
from wildcat.training.sharding import gather_full_state, shard_model, shard_optimizer_state
from wildcat.training.state import save_state
from wildcat.training.stopping import StopRequest, outlive_signals
from wildcat.training.sync_batchnorm import synchronize_batchnorm
from wildcat.training.validation import criterion_for, validate


def learning_rate_factor(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The schedule: what the base learning rates are multiplied by at a step counted from 0.

    Warm-up rises linearly over ``warmup_epochs``; then constant, divided by 10 every ``step_epochs`` epochs of the run,
    or half a cosine down to 0 at the end of the run.
    """
    total = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "step":
        return float(0.1 ** (step // (config.step_epochs * steps_per_epoch)))
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    return 1.0


class Loop:
    """What one run of the loop over epochs shares: model, optimizer, data and how far it is.

    Attributes:
        progress: what is saved beside model and optimizer: epoch and step to do next, the sums of the epoch under way,
            the loss before the run's first step, and the rows of the epochs behind.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        processes: Processes,
        model: Wildcat,
        config: TrainConfig,
        dataset: Dataset,
        folder: Path,
    ) -> None:
        self.accelerator, self.processes, self.model = accelerator, processes, model
        self.config, self.dataset, self.folder = config, dataset, folder
        self.device = accelerator.device
        self.batch_size = min(config.batch_size, len(dataset))
        self.steps = len(dataset) // self.batch_size  # whole batches: BatchNorm cannot train on a last batch of one
        self.sampler = EpochSampler(len(dataset), self.steps * self.batch_size, config.seed)
        self.shares = ShardedBatchSampler(
            self.sampler, self.batch_size, processes.rank, processes.count, config.accumulate
        )
        self.criterion = criterion_for(dataset, config)
        self.progress: dict[str, Any] = {"epoch": 0, "step": 0, "loss": 0.0, "seconds": 0.0, "images": 0, "history": []}
        self.watch = LossWatch()
        self.stop = StopRequest()
        if processes.count > 1:
            synchronize_batchnorm(model)
        self.sharded = config.shard and processes.count > 1
        if self.sharded:
            size = (1, 3, config.image_size, config.image_size)
            shard_model(model, torch.rand(size, generator=torch.Generator().manual_seed(0)).to(self.device))
        optimizer = torch.optim.SGD(
            parameter_groups(model, config),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            **self.step_kernel(),
        )
        self.loader = DataLoader(
            TrainDataset(dataset, config),
            batch_sampler=self.shares,
            num_workers=config.workers or 0,
            persistent_workers=bool(config.workers),
            pin_memory=self.device.type == "cuda",
            timeout=60 * config.stall_minutes if config.workers else 0,
            worker_init_fn=outlive_signals,
        )
        self.optimizer = accelerator.prepare(optimizer)
        self.trained = model if self.sharded else accelerator.prepare(model)

    def step_kernel(self) -> dict[str, bool]:
        """How SGD computes its step: in one pass over memory, which a divided model does not allow."""
        return {"fused": not self.sharded, "foreach": self.sharded}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.progress = state["progress"]
        self.watch = LossWatch(self.progress.get("first_loss"))
        if self.sharded:
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            state = shard_optimizer_state(state, self.model, parameters)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:  # the state may be of a model that was divided otherwise
            group |= self.step_kernel()

    def check_weights(self) -> None:
        """Fail if the last step ruined the weights, which no loss behind it would show."""
        found = self.processes.gather(first_bad_values(self.model.state_dict().items()))
        bad = next(filter(None, found), None)
        if bad is not None:
            raise self.diverged("the weights became NaN or infinite", self.progress["step"] - 1, bad)

    def save(self) -> None:
        """Save the state; the weights have been checked. All processes call this, the first one writes."""
        states = self.gather_full_state({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()})
        if self.processes.main:
            save_state(self.folder, {**states, "progress": self.progress})

    def gather_full_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """A state as the first process writes it."""
        return gather_full_state(state, keep=self.processes.main) if self.sharded else state

    def leave(self) -> None:
        """End as the signal asks that was received here or in another process."""
        if self.processes.main:
            epoch, step = self.progress["epoch"] + 1, self.progress["step"]
            print(f"stopped in epoch {epoch} after step {step}; --resume continues {self.folder}", file=sys.stderr)
        self.stop.leave(self.stop.signal or signal.SIGTERM)

    def diverged(self, what: str, step: int, where: str, images: Sequence[str] = ()) -> WildcatError:
        """The error of a training that went wrong in a step, counted from 0, of the epoch under way."""
        epoch = self.progress["epoch"]
        rate = self.config.lr * learning_rate_factor(self.config, epoch * self.steps + step, self.steps)
        kept = (self.folder / checkpoint.STATE).exists()
        return WildcatError(
            f"{what} in epoch {epoch + 1}, step {step + 1} (learning rate {rate:.3g}; a lower one may help), first in "
            f"{where}; images: {shorten(images or self.names(step), 5)}; "
            + (f"the last saved state is kept in {self.folder}" if kept else "no state was saved yet")
        )

    def names(self, step: int) -> list[str]:
        """The images of a step of the epoch under way that this process reads."""
        sampler = EpochSampler(self.sampler.total, self.sampler.used, self.config.seed)
        sampler.epoch, sampler.start = self.progress["epoch"], step * self.batch_size
        batch = list(sampler)[: self.batch_size]
        return [self.dataset.samples[index].name for part in self.shares.parts for _, index in batch[part]]

    def first_bad(self, images: Tensor) -> tuple[str, list[int]]:
        """Where NaN or infinity appears first when a batch is computed, and the rows of the images that show it."""
        if not self.sharded:
            return first_bad_layer(self.model, images)
        # The other processes, who would have to help to compute it once more, know nothing of it.
        return first_bad_values(self.model.named_parameters()) or "a layer that only a training without shard names", []

    def forward(self, images: Tensor) -> Tensor:
        """Scores, in the run's precision."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            scores: Tensor = self.trained(images).scores
        return scores

    def train_step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
        """One step of the optimizer; the loss before it, over the batch of all processes."""
        epoch, step = self.progress["epoch"], self.progress["step"]
        factor = learning_rate_factor(self.config, epoch * self.steps + step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        # Dropout and drop path of a backbone draw from this, so a continued run draws the same.
        number = (self.config.seed * 1_000_003 + epoch) * 1_000_003 + step
        torch.manual_seed((number + 1_000_033 * self.processes.rank) % 2**63)
        total, read = 0.0, 0
        for part in range(self.config.accumulate):
            pixels, labels = (tensor.to(self.device, non_blocking=True) for tensor in next(batches))
            images = self.model.normalize(pixels.permute(0, 3, 1, 2))
            last = part == self.config.accumulate - 1
            # Gradients meet once a step; those of a divided model in each part, for no process has room for them all.
            with nullcontext() if last else self.accelerator.no_sync(self.trained):
                try:
                    loss = self.criterion(self.forward(images), labels)
                    # The mean over the whole batch, of which this is a part; data parallelism averages over processes.
                    share = len(labels) / self.batch_size
                    value = loss.item()
                    if not math.isfinite(value):
                        raise NonFiniteMapsError(f"the loss became {value}")
                except NonFiniteMapsError as error:
                    what = str(error) if str(error).startswith("the loss") else "class maps became NaN or infinite"
                    where, rows = self.first_bad(images)
                    names = self.names(step)
                    raise self.diverged(what, step, where, [names[read + row] for row in rows]) from error
                self.accelerator.backward(loss * (share * self.processes.count))
            total += value * share
            read += len(labels)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def train_epoch(self) -> Row:
        """The rest of the epoch under way; its row of ``metrics.csv``."""
        progress, config = self.progress, self.config
        self.sampler.epoch, self.sampler.start = progress["epoch"], progress["step"] * self.batch_size
        self.trained.train()
        saved = mark = time.monotonic()
        with tqdm(
            total=self.steps * self.batch_size,
            initial=progress["step"] * self.batch_size,
            desc=f"epoch {progress['epoch'] + 1}/{config.epochs}",
            unit=" images",
            disable=None if self.processes.main else True,
            dynamic_ncols=True,
        ) as bar:
            batches = iter(self.loader)
            for _ in range(progress["step"], self.steps):
                mine = self.train_step(batches)
                now = time.monotonic()
                due = self.processes.main and now - saved > 60 * config.save_minutes
                loss, stopping, saving = self.processes.all_reduce_sum(mine, self.stop.signal != 0, due)
                progress["loss"] += loss
                progress["step"] += 1
                progress["images"] += self.batch_size
                progress["seconds"] += now - mark
                mark = now
                warning = self.watch.add(loss)
                progress["first_loss"] = self.watch.first
                if warning is not None and self.processes.main:
                    tqdm.write(f"warning: {warning} (epoch {progress['epoch'] + 1})", sys.stderr)
                bar.update(self.batch_size)
                bar.set_postfix(loss=f"{progress['loss'] / progress['step']:.4f}", refresh=False)
                if saving or stopping:
                    self.check_weights()
                    self.save()
                    saved = mark = time.monotonic()
                if stopping:
                    self.leave()
        self.check_weights()
        last = (progress["epoch"] + 1) * self.steps - 1
        return {
            "epoch": progress["epoch"] + 1,
            "learning_rate": config.lr * learning_rate_factor(config, last, self.steps),
            "train_loss": progress["loss"] / self.steps,
            "images_per_second": progress["images"] / progress["seconds"],
            "seconds": progress["seconds"],
        }

    def run(self, validation: Dataset | None) -> None:
        """All epochs that are left, then the weights."""
        progress, config = self.progress, self.config
        with self.stop, History(self.folder) as written:
            try:
                while progress["epoch"] < config.epochs:
                    row = self.train_epoch()
                    if validation is not None:
                        row |= validate(self.processes, self.model, validation, config, self.criterion, self.pause)
                    progress["history"].append(row)
                    progress |= {"epoch": progress["epoch"] + 1, "step": 0, "loss": 0.0, "seconds": 0.0, "images": 0}
                    if self.processes.main:  # before the state: a run killed between the two repeats the row
                        written.write(progress["history"])
                        print(describe(row, config.epochs), file=sys.stderr)
                    self.save()
            finally:
                end_workers(self.loader._iterator)
        weights = self.gather_full_state(self.model.state_dict())
        if self.processes.main:
            checkpoint.save_weights(self.folder, weights)

    def pause(self) -> None:
        """Between two batches of the validation: stop if a process was asked to."""
        if self.processes.all_reduce_sum(self.stop.signal != 0)[0]:
            self.save()  # a continued run begins with this validation
            self.leave()


def parameter_groups(model: Wildcat, config: TrainConfig) -> list[dict[str, Any]]:
    """Backbone and head with their learning rates; what is frozen is left out."""
    backbone = [p for p in model.backbone.parameters() if p.requires_grad]
    groups = [
        {"params": backbone, "base_lr": config.lr * config.backbone_lr_factor},
        {"params": [*model.transfer.parameters(), *model.pooling.parameters()], "base_lr": config.lr},
    ]
    return [{**group, "lr": group["base_lr"]} for group in groups if group["params"]]
