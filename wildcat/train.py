"""Training from image labels alone: one short loop on accelerate, that can stop anywhere and continue exactly."""

import math
import os
import sys
import time
from collections.abc import Callable
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
from wildcat.errors import WildcatError
from wildcat.features import fit_head
from wildcat.history import Row, describe, write_history
from wildcat.loading import EpochSampler, TestPictures, TrainingPictures, open_training_data
from wildcat.losses import Difficult, multi_class_loss, multi_label_loss
from wildcat.memory import kept_memory
from wildcat.metrics import average_precision
from wildcat.model import NonFiniteMapsError, Wildcat


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
    """The settings of a run that goes on: its own, and nothing else may be asked for.

    Raises:
        WildcatError: naming the first setting that differs.
    """
    automatic = {"precision": "auto", "workers": None}
    for name in [field.name for field in fields(kept) if field.name != "cache_gb"]:
        new, old = getattr(asked, name), getattr(kept, name)
        if new != old and not (name in automatic and new == automatic[name]):
            raise WildcatError(f"a continued run keeps its settings; {name} is {old!r} in {folder}, not {new!r}")
    return kept


def train(config: TrainConfig, out: str | Path, *, resume: bool = False, download: bool = False) -> Path:
    """Train a model and write its run's folder.

    The weights of the last epoch are kept, whatever the validation says. The state is saved after each epoch and every
    ``save_minutes``; on a CPU a run that was killed and continued ends with the weights of an uninterrupted one.

    Args:
        config: the settings; when resuming they must be the run's own.
        out: the run's folder; must be new or empty unless resuming.
        resume: continue from the last saved state; a finished run stays as it is.
        download: fetch VOC or COCO first, where the path does not hold it yet.

    Returns:
        The folder.

    Raises:
        WildcatError: for mistakes in settings, data or folder, and if the loss stops being finite.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise WildcatError(f"{folder} is a file; give a folder for the run")
    started = (folder / checkpoint.CONFIG).exists()
    if started and not resume:
        raise WildcatError(f"{folder} already holds a run: continue it with --resume, or give another folder")
    run = checkpoint.read_run(folder) if started else None
    if run is not None:
        config = continued(config, run.config, folder)
    for leftover in folder.glob(".*.tmp"):  # of a run that was killed while it saved
        leftover.unlink(missing_ok=True)
    state = checkpoint.load_state(folder) if resume else None
    trained = config.solver == "svm" or (state is not None and state["progress"]["epoch"] == config.epochs)
    if started and trained and (folder / checkpoint.WEIGHTS).exists():
        print(f"{folder} has finished its training", file=sys.stderr)
        return folder
    accelerator = Accelerator(mixed_precision="no")
    torch.manual_seed(config.seed % 2**63)
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
    model = checkpoint.build_model(config, len(dataset.classes), pretrained=state is None)
    try:
        model.backbone.freeze(config.freeze_stages, config.freeze_batch_norm, config.freeze_depthwise)
    except ValueError as error:
        raise WildcatError(f"freeze_stages: {error}") from error
    model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    if run is None:
        config = resolve(config, model, accelerator.device)
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            checkpoint.save_config(
                folder,
                Run(
                    config,
                    dataset.classes,
                    dataset.multi_label,
                    model.backbone.mean,
                    model.backbone.std,
                    len(dataset),
                ),
            )
    try:
        if config.solver == "svm":
            classify_features(accelerator, model, config, dataset, validation, folder)
            return folder
        loop = Loop(accelerator, model, config, dataset, folder)
        if state is not None:
            loop.load(state)
        with kept_memory():
            loop.run(validation)
    except WildcatError as error:
        # An error in a worker process arrives as text that ends with its traceback, whose last line is the message.
        if "Original Traceback" not in str(error):
            raise
        last = str(error).rstrip().splitlines()[-1]
        raise WildcatError(last.removeprefix(f"{WildcatError.__module__}.{WildcatError.__name__}: ")) from error
    return folder


def classify_features(
    accelerator: Accelerator,
    model: Wildcat,
    config: TrainConfig,
    dataset: Dataset,
    validation: Dataset | None,
    folder: Path,
) -> None:
    """The solver "svm": one pass over the pictures, then the classifiers; nothing is saved before the end."""
    row = fit_head(model, dataset, config, accelerator.device)
    if validation is not None:
        row |= validate(accelerator, model, model, validation, config, criterion_for(dataset, config))
    if accelerator.is_main_process:
        write_history(folder, [row])
        print(describe(row, 1), file=sys.stderr)
        checkpoint.save_weights(folder, model)


class Loop:
    """What one run of the loop over epochs shares: model, optimizer, data and how far it is.

    Attributes:
        progress: what is saved beside model and optimizer: epoch and step to do next, the sums of the epoch under way,
            and the rows of the epochs behind.
    """

    def __init__(
        self, accelerator: Accelerator, model: Wildcat, config: TrainConfig, dataset: Dataset, folder: Path
    ) -> None:
        self.accelerator, self.model, self.config, self.folder = accelerator, model, config, folder
        self.batch_size = min(config.batch_size, len(dataset))
        self.steps = len(dataset) // self.batch_size  # whole batches: BatchNorm cannot train on a last batch of one
        self.sampler = EpochSampler(len(dataset), self.steps * self.batch_size, config.seed)
        self.criterion = criterion_for(dataset, config)
        self.progress: dict[str, Any] = {"epoch": 0, "step": 0, "loss": 0.0, "seconds": 0.0, "images": 0, "history": []}
        optimizer = torch.optim.SGD(
            parameter_groups(model, config), momentum=config.momentum, weight_decay=config.weight_decay, fused=True
        )
        loader = DataLoader(
            TrainingPictures(dataset, config),
            self.batch_size,
            sampler=self.sampler,
            num_workers=config.workers or 0,
            persistent_workers=bool(config.workers),
            pin_memory=accelerator.device.type == "cuda",
        )
        self.trained, self.optimizer, self.loader = accelerator.prepare(model, optimizer, loader)

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = state["progress"]

    def save(self) -> None:
        """Save the state."""
        if self.accelerator.is_main_process:
            states = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            checkpoint.save_state(self.folder, {**states, "progress": self.progress})

    def check_weights(self) -> None:
        """Fail if the last step ruined the weights, which no loss behind it would show."""
        if not all(value.isfinite().all() for value in self.model.state_dict().values()):
            raise self.diverged("the weights became NaN or infinite", self.progress["step"] - 1)

    def diverged(self, what: str, step: int) -> WildcatError:
        """The error of a training that went wrong in a step, counted from 0, of the epoch under way."""
        epoch = self.progress["epoch"]
        rate = self.config.lr * learning_rate_factor(self.config, epoch * self.steps + step, self.steps)
        kept = (self.folder / checkpoint.STATE).exists()
        return WildcatError(
            f"{what} in epoch {epoch + 1}, step {step + 1} (learning rate {rate:.3g}; a lower one may help); "
            + (f"the last saved state is kept in {self.folder}" if kept else "no state was saved yet")
        )

    def train_step(self, pixels: Tensor, labels: Tensor) -> float:
        """One step of the optimizer; the loss before it."""
        epoch, step = self.progress["epoch"], self.progress["step"]
        factor = learning_rate_factor(self.config, epoch * self.steps + step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        # Dropout and drop path of a trunk draw from this, so a continued run draws the same.
        torch.manual_seed(((self.config.seed * 1_000_003 + epoch) * 1_000_003 + step) % 2**63)
        device = self.accelerator.device.type
        try:
            with torch.autocast(device, torch.bfloat16, enabled=self.config.precision == "bf16"):
                output = self.trained(self.model.normalize(pixels.permute(0, 3, 1, 2)))
        except NonFiniteMapsError as error:
            raise self.diverged("class maps became NaN or infinite", step) from error
        loss = self.criterion(output.scores, labels)
        value: float = loss.item()
        if not math.isfinite(value):
            raise self.diverged(f"the loss became {value}", step)
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return value

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
            disable=None if self.accelerator.is_main_process else True,
            dynamic_ncols=True,
        ) as bar:
            for pixels, labels in self.loader:
                progress["loss"] += self.train_step(pixels, labels)
                progress["step"] += 1
                progress["images"] += len(labels)
                now = time.monotonic()
                progress["seconds"] += now - mark
                mark = now
                bar.update(len(labels))
                bar.set_postfix(loss=f"{progress['loss'] / progress['step']:.4f}", refresh=False)
                if now - saved > 60 * config.save_minutes:
                    self.check_weights()
                    self.save()
                    saved = mark = time.monotonic()
        self.check_weights()
        last = (progress["epoch"] + 1) * self.steps - 1
        row = {
            "epoch": progress["epoch"] + 1,
            "learning_rate": config.lr * learning_rate_factor(config, last, self.steps),
            "train_loss": progress["loss"] / self.steps,
            "images_per_second": progress["images"] / progress["seconds"],
            "seconds": progress["seconds"],
        }
        progress |= {"epoch": progress["epoch"] + 1, "step": 0, "loss": 0.0, "seconds": 0.0, "images": 0}
        return row

    def run(self, validation: Dataset | None) -> None:
        """All epochs that are left, then the weights."""
        progress, config = self.progress, self.config
        while progress["epoch"] < config.epochs:
            row = self.train_epoch()
            if validation is not None:
                row |= validate(self.accelerator, self.trained, self.model, validation, config, self.criterion)
            progress["history"].append(row)
            if self.accelerator.is_main_process:  # before the state: a run killed between the two repeats the row
                write_history(self.folder, progress["history"])
                print(describe(row, config.epochs), file=sys.stderr)
            self.save()
        if self.accelerator.is_main_process:
            checkpoint.save_weights(self.folder, self.model)


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
    accelerator: Accelerator,
    trained: torch.nn.Module,
    model: Wildcat,
    dataset: Dataset,
    config: TrainConfig,
    criterion: Callable[[Tensor, Tensor], Tensor],
) -> Row:
    """Loss and mAP (area, per cent) or accuracy of the validation set, read at ``image_size``."""
    loader = accelerator.prepare(DataLoader(TestPictures(dataset, config.image_size), config.batch_size))
    scores, labels = [], []
    trained.eval()
    with torch.no_grad():
        for pixels, batch_labels in loader:
            output = trained(model.normalize(pixels.permute(0, 3, 1, 2)))
            gathered = accelerator.gather_for_metrics((output.scores, batch_labels))
            scores.append(gathered[0].float().cpu())
            labels.append(gathered[1].cpu())
    all_scores, all_labels = torch.cat(scores), torch.cat(labels)
    if not all_scores.isfinite().all():
        raise NonFiniteMapsError("validation scores are NaN or infinite; the learning rate is probably too high")
    row = {"val_loss": criterion(all_scores, all_labels).item()}
    all_scores = all_scores[:, : len(dataset.classes)]  # a background class has no score
    if dataset.multi_label:
        precisions = np.asarray(average_precision(all_scores.numpy(), all_labels.numpy()))
        row["val_map"] = 100 * float(np.nanmean(precisions)) if np.isfinite(precisions).any() else math.nan
    else:
        row["val_accuracy"] = 100 * (all_scores.argmax(1) == all_labels.argmax(1)).float().mean().item()
    return row
