"""The epochs of a training: forward, pooled scores, loss, backward, step; it can stop anywhere and resume exactly."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.errors import WildcatError, shorten
from wildcat.model import NonFiniteMapsError
from wildcat.runs.folder import STATE, save_weights
from wildcat.system.lock import FolderLock
from wildcat.training.data import EpochBatches
from wildcat.training.diagnostics import LossMonitor, find_nonfinite_weights
from wildcat.training.distributed import ProcessGroup
from wildcat.training.feature_store import FeatureStore
from wildcat.training.history import MetricsWriter, Row, describe
from wildcat.training.progress import IMAGES, RunProgress, Work
from wildcat.training.schedule import learning_rate_factor, set_learning_rates
from wildcat.training.signals import StopRequest
from wildcat.training.state import TrainState, save_state
from wildcat.training.strategy import SingleProcess
from wildcat.training.validation import validate

logger = logging.getLogger(__name__)


class StepClock:
    """Times the steps of an epoch, and knows when a state is due; saving is not counted as time of a step."""

    def __init__(self, save_minutes: float) -> None:
        self._save_seconds = 60 * save_minutes
        self.restart()

    def restart(self) -> None:
        """Start again, after a state was saved."""
        self._saved = self._lap = time.monotonic()

    def lap(self) -> tuple[float, bool]:
        """Seconds since the last call, and whether a state is due."""
        now = time.monotonic()
        seconds, self._lap = now - self._lap, now
        return seconds, now - self._saved > self._save_seconds


@dataclass(frozen=True)
class TrainContext:
    """What the epochs of a run share.

    Attributes:
        config: the settings.
        lock: on the folder of the run.
        group: the processes that train.
        strategy: model and optimizer, and how the processes train them.
        batches: the training images, or their features.
        criterion: the loss of scores (N, C) and labels (N, C).
        loss_monitor: warns of a loss that rises.
        stop: whether a signal asked to stop.
        progress: the bar of the whole run.
        work: of an image in an epoch.
        finish: what the main process does to the weights after the last epoch, before it writes them.
    """

    config: TrainConfig
    lock: FolderLock
    group: ProcessGroup
    strategy: SingleProcess
    batches: EpochBatches
    criterion: Callable[[Tensor, Tensor], Tensor]
    loss_monitor: LossMonitor
    stop: StopRequest = field(default_factory=StopRequest)
    progress: RunProgress = field(default_factory=lambda: RunProgress(0, shown=False))
    work: Work = IMAGES
    finish: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.lock.folder

    def learning_rate_factor(self, epoch: int, step: int) -> float:
        """The factor of the learning rates at a step of an epoch, both counted from 0."""
        return learning_rate_factor(self.config, epoch * self.batches.steps + step, self.batches.steps)


def train_one_epoch(context: TrainContext, state: TrainState) -> Row:
    """Train on the rest of the epoch that a state is in.

    A step pools the class maps of a batch into scores (Section 3.3), compares them with the image labels (Section 3.4)
    and updates backbone and head by SGD with momentum. Each process computes its share of the batch in ``accumulate``
    parts.

    Args:
        context: what the epochs share.
        state: advanced step by step.

    Returns:
        The epoch's row of ``metrics.csv``.

    Raises:
        WildcatError: if class maps, loss or weights become NaN or infinite, naming the step and the images.
        SystemExit, KeyboardInterrupt: after a signal, once the state is saved.
    """
    config, strategy, batches = context.config, context.strategy, context.batches
    strategy.network.train()
    clock = StepClock(config.save_minutes)
    context.progress.stage(f"epoch {state.epoch + 1}/{config.epochs}")
    parts = batches.read(state.epoch, state.step)
    while state.step < batches.steps:
        set_learning_rates(strategy.optimizer, context.learning_rate_factor(state.epoch, state.step))
        seed_step(config.seed, state.epoch, state.step, context.group.rank)
        step_loss, images_read = 0.0, 0
        for part in range(config.accumulate):
            batch, labels = (tensor.to(strategy.device, non_blocking=True) for tensor in next(parts))
            images = strategy.inputs(batch)  # (n, 3, H, W), or features (n, D, h, w)
            share = len(labels) / batches.batch_size(state.step)
            with (
                strategy.accumulate(last=part == config.accumulate - 1),
                _explained_divergence(context, state, images, images_read),
            ):
                scores = strategy.forward(images)  # (n, C)
                loss = context.criterion(scores, labels)  # mean over the n images
                value = _finite(loss)
                # The mean over the whole batch, of which this is a part; gradients are averaged over processes.
                strategy.backward(loss * (share * context.group.count))
            step_loss += value * share
            images_read += len(labels)
        strategy.optimizer.step()
        strategy.optimizer.zero_grad(set_to_none=True)
        _finish_step(context, state, step_loss, clock)
    check_weights(context, state)
    return _row(context, state)


def train_epochs(
    context: TrainContext, state: TrainState, validation: Dataset | None, features: FeatureStore | None = None
) -> None:
    """Train all epochs that are left, with curves and states, and write the weights of the last one.

    Args:
        context: what the epochs share.
        state: where the run is; advanced.
        validation: the validation set, scored after each epoch.
        features: of the validation set, where the backbone is frozen.

    Raises:
        WildcatError: as :func:`train_one_epoch`, and if a file cannot be written.
        SystemExit, KeyboardInterrupt: after a signal, once the state is saved.
    """
    config, group, strategy = context.config, context.group, context.strategy
    with context.stop, MetricsWriter(context.lock) as metrics:
        try:
            while state.epoch < config.epochs:
                row = train_one_epoch(context, state)
                if validation is not None:
                    row |= validate(
                        group,
                        strategy.model,
                        validation,
                        config,
                        context.criterion,
                        after_batch=lambda: _finish_validation_turn(context, state),
                        features=features,
                    )
                state.finish_epoch(row)
                if group.is_main:  # before the state: a run killed between the two writes the row again
                    metrics.write(state.history)
                    logger.info("%s", describe(row, config.epochs))
                save(context, state)
        finally:
            context.batches.close()
    weights = strategy.weights()
    if group.is_main:
        weights = context.finish(weights)
        context.lock.check()
        save_weights(context.folder, weights)


def save(context: TrainContext, state: TrainState) -> None:
    """Save the state; all processes call this, the main process writes."""
    states = context.strategy.state()
    if context.group.is_main:
        context.lock.check()
        save_state(context.folder, {**states, "progress": state.to_dict()})


def check_weights(context: TrainContext, state: TrainState) -> None:
    """Check the weights after a step: no loss of an earlier step shows that the last one ruined them.

    Raises:
        WildcatError: in all processes, if a weight of any shard is NaN or infinite.
    """
    places = context.group.gather(find_nonfinite_weights(context.strategy.model.state_dict().items()))
    place = next(filter(None, places), None)
    if place is not None:
        raise _divergence(context, state, "the weights became NaN or infinite", state.step - 1, place)


def seed_step(seed: int, epoch: int, step: int, rank: int = 0) -> None:
    """Seed the random numbers of dropout, drop path and map dropout, so that a resumed run repeats them.

    Args:
        seed: of the run.
        epoch: from 0.
        step: of the epoch, from 0.
        rank: of this process.
    """
    number = (seed * 1_000_003 + epoch) * 1_000_003 + step
    torch.manual_seed((number + 1_000_033 * rank) % 2**63)


def _finite(loss: Tensor) -> float:
    """The value of a loss.

    Raises:
        NonFiniteMapsError: if it is NaN or infinite.
    """
    value = loss.item()
    if not math.isfinite(value):
        raise NonFiniteMapsError(f"the loss became {value}")
    return value


def _finish_step(context: TrainContext, state: TrainState, loss: float, clock: StepClock) -> None:
    """Count a step; save the state if that is due in the main process, or if any process was asked to stop."""
    group = context.group
    seconds, due = clock.lap()
    loss, stopping, saving = group.all_reduce_sum(loss, context.stop.signal != 0, group.is_main and due)
    images = context.batches.batch_size(state.step)
    state.finish_step(loss, seconds, images)
    warning = context.loss_monitor.add(loss)
    state.first_loss = context.loss_monitor.first_loss
    if warning is not None and group.is_main:
        logger.warning("%s (epoch %d)", warning, state.epoch + 1)
    context.progress.show_loss(state.loss / state.step)
    context.progress.add(context.work.gradient * images)
    if saving or stopping:
        check_weights(context, state)
        save(context, state)
        clock.restart()
    if stopping:
        _end_process(context, state)


def _finish_validation_turn(context: TrainContext, state: TrainState) -> None:
    """Between two batches of a validation: stop if any process was asked to; resuming repeats the validation."""
    context.progress.add(context.work.forward * context.config.batch_size * context.group.count)
    if context.group.all_reduce_sum(context.stop.signal != 0)[0]:
        save(context, state)
        _end_process(context, state)


def _end_process(context: TrainContext, state: TrainState) -> None:
    """End as the signal asks that this or another process received."""
    if context.group.is_main:
        logger.info(
            "stopped in epoch %d after step %d; --resume continues %s", state.epoch + 1, state.step, context.folder
        )
    context.stop.end_process(context.stop.signal or signal.SIGTERM)


def _row(context: TrainContext, state: TrainState) -> Row:
    """The row of ``metrics.csv`` of an epoch whose steps are done."""
    steps = context.batches.steps
    return {
        "epoch": state.epoch + 1,
        "learning_rate": context.config.lr * context.learning_rate_factor(state.epoch, steps - 1),
        "train_loss": state.loss / steps,
        "images_per_second": state.images / state.seconds,
        "seconds": state.seconds,
    }


@contextmanager
def _explained_divergence(
    context: TrainContext, state: TrainState, images: Tensor, images_before: int
) -> Iterator[None]:
    """Turn NaN or infinity in class maps or loss into an error that names layer and images.

    Args:
        context: what the epochs share.
        state: of the step.
        images: (n, 3, H, W), the part of the batch.
        images_before: how many images of the step this process has read before this part.
    """
    try:
        yield
    except NonFiniteMapsError as error:
        what = str(error) if str(error).startswith("the loss") else "class maps became NaN or infinite"
        place, rows = context.strategy.find_nonfinite(images)
        names = context.batches.names(state.epoch, state.step)
        bad_images = [names[images_before + row] for row in rows]
        raise _divergence(context, state, what, state.step, place, bad_images) from error


def _divergence(
    context: TrainContext, state: TrainState, what: str, step: int, place: str, images: Sequence[str] = ()
) -> WildcatError:
    """The error of a training that diverged.

    Args:
        context: what the epochs share.
        state: of the epoch.
        what: what became NaN or infinite.
        step: of the epoch, from 0.
        place: where NaN or infinity appears first.
        images: names of the images that show it there; all images of the step unless given.
    """
    rate = context.config.lr * context.learning_rate_factor(state.epoch, step)
    saved = (context.folder / STATE).exists()
    return WildcatError(
        f"{what} in epoch {state.epoch + 1}, step {step + 1} (learning rate {rate:.3g}; a lower one may help), first "
        f"in {place}; images: {shorten(images or context.batches.names(state.epoch, step), 5)}; "
        + (f"the last saved state is kept in {context.folder}" if saved else "no state was saved yet")
    )
