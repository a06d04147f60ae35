"""Training from image labels alone: one short loop on accelerate, that can stop anywhere and continue exactly."""

import itertools
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from wildcat import checkpoint
from wildcat.checkpoint import Run
from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.diagnosis import LossWatch, explained, first_bad_layer, first_bad_values, shown
from wildcat.errors import WildcatError
from wildcat.features import fit_head
from wildcat.history import Row, describe, write_history
from wildcat.loading import BatchShares, EpochSampler, TestPictures, TrainingPictures, end_workers, open_training_data
from wildcat.losses import Difficult, multi_class_loss, multi_label_loss
from wildcat.memory import kept_memory
from wildcat.metrics import average_precision
from wildcat.model import NonFiniteMapsError, Wildcat
from wildcat.processes import Processes, create_accelerator
from wildcat.shared_norm import share_norms
from wildcat.state import load_state, locked, save_state
from wildcat.stopping import StopRequest, outlive_signals


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


def bf16_is_faster(model: Wildcat, image_size: int, device: torch.device) -> bool:
    """Measure a forward and backward pass of two images in both precisions; bf16 must win by 15 %.

    bf16 doubles the speed of ResNets on processors with matrix units for it, and slows depthwise convolutions.
    """
    if device.type == "mps" or (device.type == "cuda" and not torch.cuda.is_bf16_supported()):
        return False
    images = torch.zeros(2, 3, image_size, image_size, device=device).to(memory_format=torch.channels_last)
    was_training = model.training
    model.eval()  # BatchNorm must not see these images

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
    model.train(was_training)
    return half * 1.15 < single


def resolve(config: TrainConfig, model: Wildcat, device: torch.device) -> TrainConfig:
    """Replace automatic choices by what they mean on this machine, so that a continued run repeats them."""
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if config.solver == "sgd" and bf16_is_faster(model, config.image_size, device) else "fp32"
    workers = config.workers
    if workers is None:
        # On a CPU the trunk needs every core: one process is enough to decode ahead of it.
        workers = 1 if device.type == "cpu" else min(8, os.cpu_count() or 1)
    return replace(config, precision=precision, workers=workers)


def continued(asked: TrainConfig, kept: TrainConfig, folder: Path) -> TrainConfig:
    """The settings of a run that goes on: its own, and nothing else may be asked for but how it is carried out.

    Raises:
        WildcatError: naming the first setting that differs.
    """
    automatic = {"precision": "auto", "workers": None}
    changed = {}
    for name in [field.name for field in fields(kept)]:
        new, old = getattr(asked, name), getattr(kept, name)
        if new == old or (name in automatic and new == automatic[name]):
            continue
        if name not in ("workers", "cache_gb", "accumulate", "save_minutes", "stall_minutes"):
            raise WildcatError(f"a continued run keeps its settings; {name} is {old!r} in {folder}, not {new!r}")
        changed[name] = new
    return replace(kept, **changed)


def train(config: TrainConfig, out: str | Path, *, resume: bool = False, download: bool = False) -> Path:
    """Train a model and write its run's folder.

    The weights of the last epoch are kept, whatever the validation says. The state is saved after each epoch, every
    ``save_minutes`` and on SIGTERM or SIGINT; on a CPU a run that was killed and continued ends with the weights of an
    uninterrupted one. In a process group (torchrun, ``accelerate launch``) each process calls this with the same
    arguments: they share every batch, and the first one alone writes.

    Args:
        config: the settings; when resuming they must be the run's own.
        out: the run's folder; must be new or empty unless resuming.
        resume: continue from the last saved state; a finished run stays as it is.
        download: fetch VOC or COCO first, where the path does not hold it yet.

    Returns:
        The folder.

    Raises:
        WildcatError: for mistakes in settings, data or folder, if the folder is in use, if the loss stops being finite,
            and if memory, disk, readers or another process fail.
        SystemExit: with code 143 after a SIGTERM.
        KeyboardInterrupt: after a SIGINT.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise WildcatError(f"{folder} is a file; give a folder for the run")
    accelerator = create_accelerator()
    processes = Processes(accelerator)
    try:
        with ExitStack() as held:
            processes.from_main(lambda: held.enter_context(locked(folder)))
            _train(accelerator, processes, config, folder, resume, download)
    except (RuntimeError, MemoryError) as error:
        reason = explained(error, accelerator.device, config.accumulate)
        if reason is None:
            raise
        kept = (folder / checkpoint.STATE).exists()
        raise WildcatError(reason + (f"; the last saved state is kept in {folder}" if kept else "")) from error
    except WildcatError as error:
        # An error in a worker process arrives as text that ends with its traceback, whose last line is the message.
        if "Original Traceback" not in str(error):
            raise
        last = str(error).rstrip().splitlines()[-1]
        raise WildcatError(last.removeprefix(f"{WildcatError.__module__}.{WildcatError.__name__}: ")) from error
    return folder


def _train(
    accelerator: Accelerator, processes: Processes, config: TrainConfig, folder: Path, resume: bool, download: bool
) -> None:
    """Train in a folder that no other run can enter."""
    run, state = processes.from_main(lambda: _what_is_there(folder, config, resume))
    if run is not None:
        config = run.config
    trained = config.solver == "svm" or (state is not None and state["progress"]["epoch"] == config.epochs)
    if run is not None and trained and processes.from_main(lambda: (folder / checkpoint.WEIGHTS).exists()):
        if processes.main:
            print(f"{folder} has finished its training", file=sys.stderr)
        return
    if config.solver == "svm" and processes.count > 1:
        raise WildcatError('the solver "svm" is one pass over the pictures, for one process')
    dataset, validation = processes.from_main(lambda: _data(config, run, folder, download))
    torch.manual_seed(config.seed % 2**63)
    with accelerator.local_main_process_first():  # weights are downloaded once
        model = checkpoint.build_model(config, len(dataset.classes), pretrained=state is None)
    try:
        model.backbone.freeze(config.freeze_stages, config.freeze_batch_norm, config.freeze_depthwise)
    except ValueError as error:
        raise WildcatError(f"freeze_stages: {error}") from error
    model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if run is None:
        config = processes.from_main(lambda: _begin(folder, config, model, dataset, accelerator.device))
    if config.solver == "svm":
        classify_features(processes, model, config, dataset, validation, folder)
        return
    loop = Loop(accelerator, processes, model, config, dataset, folder)
    if state is not None:
        loop.load(state)
    with kept_memory():
        loop.run(validation)


def _what_is_there(folder: Path, config: TrainConfig, resume: bool) -> tuple[Run | None, dict[str, Any] | None]:
    """The run of a folder, with the settings to go on with, and its state."""
    started = (folder / checkpoint.CONFIG).exists()
    if started and not resume:
        raise WildcatError(f"{folder} already holds a run: continue it with --resume, or give another folder")
    for leftover in folder.glob(".*.tmp"):  # of a run that was killed while it saved
        leftover.unlink(missing_ok=True)
    run = checkpoint.read_run(folder) if started else None
    if run is not None:
        run = replace(run, config=continued(config, run.config, folder))
    return run, load_state(folder) if resume else None


def _data(config: TrainConfig, run: Run | None, folder: Path, download: bool) -> tuple[Dataset, Dataset | None]:
    """Training and validation pictures, which must be those with which the run was started."""
    dataset, validation = open_training_data(config, download)
    if len(dataset) < 2:
        raise WildcatError(f"{config.data} has {len(dataset)} usable training pictures; at least 2 are needed")
    if config.background_class and not dataset.multi_label:
        raise WildcatError(
            f"background_class is for pictures that may hold several classes; those of {config.data} have one each"
        )
    if run is not None and (run.classes, run.images) != (dataset.classes, len(dataset)):
        raise WildcatError(
            f"{config.data} has changed since {folder} was started: {len(dataset)} usable training pictures of "
            f"{len(dataset.classes)} classes instead of {run.images} of {len(run.classes)}, or other names"
        )
    return dataset, validation


def _begin(folder: Path, config: TrainConfig, model: Wildcat, dataset: Dataset, device: torch.device) -> TrainConfig:
    """Write what a new run is; its settings, automatic choices resolved."""
    config = resolve(config, model, device)
    run = Run(config, dataset.classes, dataset.multi_label, model.backbone.mean, model.backbone.std, len(dataset))
    checkpoint.save_config(folder, run)
    return config


def classify_features(
    processes: Processes,
    model: Wildcat,
    config: TrainConfig,
    dataset: Dataset,
    validation: Dataset | None,
    folder: Path,
) -> None:
    """The solver "svm": one pass over the pictures, then the classifiers; nothing is saved before the end."""
    row = fit_head(model, dataset, config, model.transfer.weight.device)
    if validation is not None:
        row |= validate(processes, model, validation, config, criterion_for(dataset, config))
    write_history(folder, [row])
    print(describe(row, 1), file=sys.stderr)
    checkpoint.save_weights(folder, model)


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
        self.shares = BatchShares(self.sampler, self.batch_size, processes.rank, processes.count, config.accumulate)
        self.criterion = criterion_for(dataset, config)
        self.progress: dict[str, Any] = {"epoch": 0, "step": 0, "loss": 0.0, "seconds": 0.0, "images": 0, "history": []}
        self.watch = LossWatch()
        self.stop = StopRequest()
        if processes.count > 1:
            share_norms(model)
        optimizer = torch.optim.SGD(
            parameter_groups(model, config), momentum=config.momentum, weight_decay=config.weight_decay, fused=True
        )
        self.loader = DataLoader(
            TrainingPictures(dataset, config),
            batch_sampler=self.shares,
            num_workers=config.workers or 0,
            persistent_workers=bool(config.workers),
            pin_memory=self.device.type == "cuda",
            timeout=60 * config.stall_minutes if config.workers else 0,
            worker_init_fn=outlive_signals,
        )
        self.trained, self.optimizer = accelerator.prepare(model, optimizer)

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = state["progress"]
        self.watch = LossWatch(self.progress.get("first_loss"))

    def check_weights(self) -> None:
        """Fail if the last step ruined the weights, which no loss behind it would show."""
        bad = first_bad_values(self.model.state_dict().items())
        if bad is not None:
            raise self.diverged("the weights became NaN or infinite", self.progress["step"] - 1, bad)

    def save(self) -> None:
        """Save the state; the weights have been checked."""
        if self.processes.main:
            states = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            save_state(self.folder, {**states, "progress": self.progress})

    def leave(self) -> None:
        """End as the signal asks that was received here or in another process."""
        if self.processes.main:
            epoch, step = self.progress["epoch"] + 1, self.progress["step"]
            print(f"stopped in epoch {epoch} after step {step}; --resume continues {self.folder}", file=sys.stderr)
        self.stop.leave(self.stop.signal or signal.SIGTERM)

    def diverged(self, what: str, step: int, where: str, pictures: Sequence[str] = ()) -> WildcatError:
        """The error of a training that went wrong in a step, counted from 0, of the epoch under way."""
        epoch = self.progress["epoch"]
        rate = self.config.lr * learning_rate_factor(self.config, epoch * self.steps + step, self.steps)
        kept = (self.folder / checkpoint.STATE).exists()
        return WildcatError(
            f"{what} in epoch {epoch + 1}, step {step + 1} (learning rate {rate:.3g}; a lower one may help), first in "
            f"{where}; pictures: {shown(pictures or self.names(step))}; "
            + (f"the last saved state is kept in {self.folder}" if kept else "no state was saved yet")
        )

    def names(self, step: int) -> list[str]:
        """The pictures of a step of the epoch under way that this process reads."""
        sampler = EpochSampler(self.sampler.total, self.sampler.used, self.config.seed)
        sampler.epoch, sampler.start = self.progress["epoch"], step * self.batch_size
        batch = list(sampler)[: self.batch_size]
        return [self.dataset.samples[index].name for part in self.shares.parts for _, index in batch[part]]

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
        # Dropout and drop path of a trunk draw from this, so a continued run draws the same.
        number = (self.config.seed * 1_000_003 + epoch) * 1_000_003 + step
        torch.manual_seed((number + 1_000_033 * self.processes.rank) % 2**63)
        total, read = 0.0, 0
        for part in range(self.config.accumulate):
            pixels, labels = (tensor.to(self.device, non_blocking=True) for tensor in next(batches))
            images = self.model.normalize(pixels.permute(0, 3, 1, 2))
            last = part == self.config.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.trained):  # gradients meet once a step
                try:
                    loss = self.criterion(self.forward(images), labels)
                    # The mean over the whole batch, of which this is a part; data parallelism averages over processes.
                    share = len(labels) / self.batch_size
                    value = loss.item()
                    if not math.isfinite(value):
                        raise NonFiniteMapsError(f"the loss became {value}")
                except NonFiniteMapsError as error:
                    what = str(error) if str(error).startswith("the loss") else "class maps became NaN or infinite"
                    where, rows = first_bad_layer(self.model, images)
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
                loss, stopping, saving = self.processes.sums(mine, self.stop.signal != 0, due)
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
        with self.stop:
            try:
                while progress["epoch"] < config.epochs:
                    row = self.train_epoch()
                    if validation is not None:
                        row |= validate(self.processes, self.model, validation, config, self.criterion, self.pause)
                    progress["history"].append(row)
                    progress |= {"epoch": progress["epoch"] + 1, "step": 0, "loss": 0.0, "seconds": 0.0, "images": 0}
                    if self.processes.main:  # before the state: a run killed between the two repeats the row
                        write_history(self.folder, progress["history"])
                        print(describe(row, config.epochs), file=sys.stderr)
                    self.save()
            finally:
                end_workers(self.loader._iterator)
        if self.processes.main:
            checkpoint.save_weights(self.folder, self.model)

    def pause(self) -> None:
        """Between two batches of the validation: stop if a process was asked to."""
        if self.processes.sums(self.stop.signal != 0)[0]:
            self.save()  # a continued run begins with this validation
            self.leave()


def parameter_groups(model: Wildcat, config: TrainConfig) -> list[dict[str, Any]]:
    """Trunk and head with their learning rates; what is frozen is left out."""
    trunk = [p for p in model.backbone.parameters() if p.requires_grad]
    groups = [
        {"params": trunk, "base_lr": config.lr * config.backbone_lr_factor},
        {"params": list(model.transfer.parameters()), "base_lr": config.lr},
    ]
    return [{**group, "lr": group["base_lr"]} for group in groups if group["params"]]


def criterion_for(dataset: Dataset, config: TrainConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that the data asks for: (scores, labels) -> scalar; labels are those of the data's C classes."""
    if not dataset.multi_label:
        return multi_class_loss
    # Where 0 means that nobody looked, it cannot count as present.
    difficult: Difficult = "ignore" if dataset.zeros_unknown else config.difficult

    def criterion(scores: Tensor, labels: Tensor) -> Tensor:
        if config.background_class:
            labels = functional.pad(labels, (0, 1), value=1)  # every picture has some background
        return multi_label_loss(scores, labels, difficult)

    return criterion


def validate(
    processes: Processes,
    model: Wildcat,
    dataset: Dataset,
    config: TrainConfig,
    criterion: Callable[[Tensor, Tensor], Tensor],
    between: Callable[[], None] = lambda: None,
) -> Row:
    """Loss and mAP (area, per cent) or accuracy of the validation set, read at ``image_size``.

    Batch by batch in turn, the processes score the batches that a single one would; ``between`` is called after each
    turn, in all of them.
    """
    size, count = config.batch_size, processes.count
    batches = [range(start, min(start + size, len(dataset))) for start in range(0, len(dataset), size)]
    pictures = TestPictures(dataset, config.image_size)
    workers = min(config.workers or 0, len(batches))
    loader = iter(
        DataLoader(
            pictures,
            batch_sampler=batches[processes.rank :: count],  # type: ignore[arg-type]
            num_workers=workers,
            timeout=60 * config.stall_minutes if workers else 0,
            worker_init_fn=outlive_signals,
        )
    )
    device = model.transfer.weight.device
    mine = []
    model.eval()
    try:
        with torch.no_grad():
            for _ in range(math.ceil(len(batches) / count)):
                for pixels, batch_labels in itertools.islice(loader, 1):  # the last turn may have none for this process
                    output = model(model.normalize(pixels.to(device).permute(0, 3, 1, 2)))
                    mine.append((output.scores.float().cpu(), batch_labels))
                between()
    finally:
        end_workers(loader)
    gathered = processes.gather(mine)
    found = [gathered[number % count][number // count] for number in range(len(batches))]
    scores, labels = (torch.cat(part) for part in zip(*found, strict=True))
    if not scores.isfinite().all():
        raise NonFiniteMapsError("validation scores are NaN or infinite; the learning rate is probably too high")
    row = {"val_loss": criterion(scores, labels).item()}
    scores = scores[:, : len(dataset.classes)]  # a background class has no score
    if dataset.multi_label:
        precisions = np.asarray(average_precision(scores.numpy(), labels.numpy()))
        row["val_map"] = 100 * float(np.nanmean(precisions)) if np.isfinite(precisions).any() else math.nan
    else:
        row["val_accuracy"] = 100 * (scores.argmax(1) == labels.argmax(1)).float().mean().item()
    return row
