"""The function that trains: locks the folder, prepares data and model, runs the epochs, and explains failures."""

import logging
import math
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from wildcat.backbones.factory import check_backbone_name
from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.errors import WildcatError, first_line
from wildcat.model import Wildcat
from wildcat.pooling import check_pooling_name
from wildcat.runs.folder import CONFIG, PREVIOUS_STATE, STATE, Run, build_model, read_run, save_config
from wildcat.runs.image_record import RECORD
from wildcat.system.lock import FolderLock
from wildcat.training.data import EpochBatches, TrainBatches, open_training_data
from wildcat.training.defaults import describe_defaults, resolve_defaults, steps_per_epoch
from wildcat.training.diagnostics import LossMonitor, explain_failure
from wildcat.training.distributed import ProcessGroup, create_accelerator
from wildcat.training.engine import TrainContext, train_epochs
from wildcat.training.frozen import FeatureBatches, FrozenFeatures
from wildcat.training.head_start import MAX_IMAGES, scale_initial_weights, start_head
from wildcat.training.held_out import HeldOutImages, open_held_out, save_score, score_held_out
from wildcat.training.linear_svm import train_linear_svms
from wildcat.training.map_modes import with_fitted_maps
from wildcat.training.progress import FEATURES, IMAGES, RunProgress, Work, planned_work
from wildcat.training.resume import check_same_data, find_run, missing_data_hint, warn_of_other_threads
from wildcat.training.setup import freeze_and_move, start_run
from wildcat.training.state import TrainState, load_state
from wildcat.training.strategy import SingleProcess, create_strategy
from wildcat.training.validation import criterion_for

logger = logging.getLogger(__name__)


def train(config: TrainConfig, out: str | Path, *, resume: bool = False, download: bool = False) -> Path:
    """Train a model from image labels (Sections 3.3 and 3.4), and write the folder of its run.

    The weights of the last epoch are kept, whatever the validation shows. The state is saved after each epoch, every
    ``save_minutes``, and on SIGTERM or SIGINT. On a CPU, a run that was killed and resumed ends with exactly the
    weights of an uninterrupted run.

    In a process group (torchrun, ``accelerate launch``) each process calls this with the same arguments. They share
    every batch, and the main process alone writes. Progress is logged (INFO) by loggers below "wildcat".

    Args:
        config: the settings. When resuming, they must be the run's own, but for ``workers``, ``cache_gb``,
            ``accumulate``, ``shard``, ``save_minutes`` and ``stall_minutes``; ``data`` may name another place of the
            same images and labels.
        out: the folder of the run: new or empty, unless it holds a run to resume.
        resume: continue from the last saved state. A finished run stays as it is; without a run, one is started.
        download: download VOC, COCO, MIT67 or 15-Scene first, if the path does not hold it yet.

    Returns:
        The folder, for :func:`wildcat.load` and :func:`wildcat.evaluate`.

    Raises:
        WildcatError: for mistakes in the settings, the data or the folder; if another process uses the folder; if the
            loss, the class maps or the weights become NaN or infinite; if memory, disk, a worker or another process of
            the group fails.
        SystemExit: with code 143 after a SIGTERM, once the state is saved.
        KeyboardInterrupt: after a SIGINT, once the state is saved.

    >>> import wildcat
    >>> config = wildcat.TrainConfig(data="folder:my_images", epochs=15, val_fraction=0.1)
    >>> run = wildcat.train(config, "runs/mine", resume=True)  # doctest: +SKIP
    >>> wildcat.load(run)("dog.jpg").scores  # doctest: +SKIP
    {'dog': 0.98, 'cat': 0.04}
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise WildcatError(f"{folder} is a file; give a folder for the run")
    accelerator = create_accelerator()
    group = ProcessGroup(accelerator)
    try:
        with ExitStack() as stack:
            lock = FolderLock(folder)

            def take() -> None:
                stack.enter_context(lock)

            group.on_main(take)
            _train_in(lock, accelerator, group, config, resume, download)
    except WildcatError as error:
        # The error of a worker arrives as text that ends with its traceback; the last line of that is the message.
        if "Original Traceback" not in str(error):
            raise
        last = str(error).rstrip().splitlines()[-1]
        raise WildcatError(last.removeprefix(f"{WildcatError.__module__}.{WildcatError.__name__}: ")) from error
    except (RuntimeError, ValueError, MemoryError) as error:
        reason = explain_failure(error, accelerator.device, config.accumulate)
        if reason is None:
            raise
        saved = (folder / STATE).exists()
        raise WildcatError(reason + (f"; the last saved state is kept in {folder}" if saved else "")) from error
    return folder


def _train_in(
    lock: FolderLock, accelerator: Accelerator, group: ProcessGroup, config: TrainConfig, resume: bool, download: bool
) -> None:
    """Start or resume a training in a folder that the main process has locked."""
    folder = lock.folder
    run, finished = group.on_main(lambda: find_run(folder, config, resume))
    if run is not None and finished:
        if group.is_main:
            longer = "" if run.config.solver == "svm" else "; to train for more epochs, start a new run with --epochs"
            logger.info("%s has finished its training%s", folder, longer)
        return
    saved = group.on_main(lambda: load_state(folder) if run is not None else None)
    state = TrainState() if saved is None else TrainState.from_dict(saved.get("progress"))
    if run is not None:
        config = run.config
    check_backbone_name(config.backbone)  # before all images are checked
    check_pooling_name(config.pooling)
    if config.solver == "svm" and group.count > 1:
        raise WildcatError('the solver "svm" is for one process: it reads the images once')
    dataset, validation = group.on_main(lambda: _open_data(config, run, folder, download))
    requested, images, multi_label = config, len(dataset), dataset.multi_label
    config = resolve_defaults(requested, images, multi_label)
    torch.manual_seed(config.seed % 2**63)
    with accelerator.local_main_process_first():  # weights are downloaded once
        model = build_model(config, len(dataset.classes), pretrained=saved is None)
    if saved is None:
        scale_initial_weights(model.transfer, config.initial_scale)
    if run is not None:
        model.set_normalization(run.mean, run.std)
    stages = model.backbone.stages
    config = resolve_defaults(config, images, multi_label, stages)
    freeze_and_move(model, config, accelerator.device)
    if run is None and group.is_main and requested != config:
        logger.info("%s", describe_defaults(requested, config, images, multi_label, stages))
    held_out = group.on_main(lambda: open_held_out(config, dataset.classes))
    frozen = FrozenFeatures(model, config, dataset, validation, held_out) if config.frozen else None
    missing = 0.0 if frozen is None else group.on_main(frozen.work)
    work = _work(config, dataset, validation, held_out, state, saved, missing)
    with RunProgress(*work, shown=group.is_main) as progress:
        try:
            if run is None:
                config = group.on_main(
                    lambda: start_run(folder, config, model, dataset, validation, accelerator.device)
                )
            if frozen is not None:
                group.on_main(lambda: frozen.compute(progress))
                frozen.open()
            if config.solver == "svm":
                train_linear_svms(group, model, config, dataset, validation, lock, progress, frozen)
            else:
                _train_by_sgd(
                    lock, accelerator, group, model, config, dataset, validation, saved, state, progress, frozen
                )
        except BaseException:
            if run is None and group.is_main and state == TrainState():  # not one step was finished
                _undo_start(lock)
            raise
        if held_out is not None:
            group.on_main(lambda: _score_held_out(folder, held_out, accelerator.device, progress, frozen))


def _work(
    config: TrainConfig,
    dataset: Dataset,
    validation: Dataset | None,
    held_out: HeldOutImages | None,
    state: TrainState,
    saved: dict[str, Any] | None,
    missing: float,
) -> tuple[float, float]:
    """The work of a run and what of it is done, for its progress bar; ``missing``: of features that are kept."""
    validated = 0 if validation is None else len(validation)
    done = state.epoch + state.step / steps_per_epoch(config, len(dataset))
    if config.frozen:
        work = FEATURES if config.solver == "sgd" else Work(0, 0)
        return planned_work(len(dataset), config.epochs, once=missing, validation=validated, done=done, work=work)
    scoring = 0 if held_out is None else held_out.work * len(held_out.images)
    if config.solver == "svm":
        return planned_work(0, 1, once=len(dataset) + scoring, validation=validated, done=0)
    features = min(len(dataset), MAX_IMAGES) if config.fit_head and saved is None else 0
    return planned_work(len(dataset), config.epochs, once=features + scoring, validation=validated, done=done)


def _train_by_sgd(
    lock: FolderLock,
    accelerator: Accelerator,
    group: ProcessGroup,
    model: Wildcat,
    config: TrainConfig,
    dataset: Dataset,
    validation: Dataset | None,
    saved: dict[str, Any] | None,
    state: TrainState,
    progress: RunProgress,
    frozen: FrozenFeatures | None,
) -> None:
    """Train the epochs that are left, from a saved state on if there is one; ``state`` is advanced."""
    if config.shard and group.count == 1:
        logger.info("shard: there is one process, so it keeps the whole model (start several with torchrun)")
    batches: EpochBatches
    if frozen is not None:
        batches = FeatureBatches(dataset, config, group.rank, group.count, frozen.training)
    else:
        batches = TrainBatches(dataset, config, group.rank, group.count, pin_memory=accelerator.device.type == "cuda")
    if config.fit_head and saved is None:
        start_head(group, model, dataset, config, progress, None if frozen is None else frozen.training)
    strategy = create_strategy(accelerator, group, model, config)
    if saved is not None:
        _restore(strategy, saved, lock.folder)
    if state.step > batches.steps or state.epoch > config.epochs:
        raise WildcatError(
            f"{lock.folder / STATE} is of another run: it is in epoch {state.epoch + 1}, step {state.step} of "
            f"{config.epochs} epochs of {batches.steps} steps"
        )

    def finish(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        if not config.fit_maps:
            return weights
        progress.stage("maps")
        whole = build_model(config, len(dataset.classes), pretrained=False).to(accelerator.device)
        whole.set_normalization(model.backbone.mean, model.backbone.std)
        return with_fitted_maps(weights, whole, dataset, config, None if frozen is None else frozen.training)

    guessing = math.log(2 if dataset.multi_label else len(dataset.classes))  # the loss of scores that are all 0
    context = TrainContext(
        config=config,
        lock=lock,
        group=group,
        strategy=strategy,
        batches=batches,
        criterion=criterion_for(dataset, config),
        loss_monitor=LossMonitor(guessing, state.first_loss),
        progress=progress,
        work=IMAGES if frozen is None else FEATURES,
        finish=finish,
    )
    train_epochs(context, state, validation, None if frozen is None else frozen.validation)


def _score_held_out(
    folder: Path,
    held_out: HeldOutImages,
    device: torch.device,
    progress: RunProgress,
    frozen: FrozenFeatures | None,
) -> None:
    """Score the held-out images with the weights that were written; a failure does not spoil the training."""
    progress.stage("held-out images")
    try:
        if frozen is None:
            score = score_held_out(folder, held_out, device, after_image=lambda: progress.add(held_out.work))
        elif frozen.held_out_images is None:
            return
        else:
            probabilities = frozen.held_out_probabilities().numpy()
            score = save_score(folder, held_out, frozen.held_out_images, probabilities)
    except WildcatError as error:
        logger.warning("the held-out images could not be scored: %s", error)
        return
    if score is not None:
        logger.info("%s", score)


def _restore(strategy: SingleProcess, saved: dict[str, Any], folder: Path) -> None:
    """Load a saved state into model and optimizer, and empty it: it holds the weights once more."""
    try:
        strategy.load_state(saved)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WildcatError(
            f"{folder / STATE} is of another model or optimizer: {first_line(error).rstrip(':')}; delete it and "
            f"{PREVIOUS_STATE} to start the run again from its beginning"
        ) from error
    saved.clear()


def _undo_start(lock: FolderLock) -> None:
    """Remove the files of a start whose first step failed, so that the corrected command finds an empty folder."""
    with suppress(WildcatError, OSError):
        lock.check()
        for name in (CONFIG, RECORD):
            (lock.folder / name).unlink(missing_ok=True)


def _open_data(config: TrainConfig, run: Run | None, folder: Path, download: bool) -> tuple[Dataset, Dataset | None]:
    """Training and validation images; those of a run that is resumed must be the ones with which it was started."""
    try:
        dataset, validation = open_training_data(config, download)
    except WildcatError as error:
        hint = missing_data_hint(run, folder) if run is not None else ""
        raise WildcatError(f"{error}{hint}") from error
    if len(dataset) < 2:
        raise WildcatError(f"{config.data} has {len(dataset)} usable training images; at least 2 are needed")
    if config.background_class and not dataset.multi_label:
        raise WildcatError(
            f"background_class is for images that may have several classes; those of {config.data} have one each"
        )
    if run is not None:
        check_same_data(run, folder, dataset, validation)
        warn_of_other_threads(run)
        if read_run(folder).config.data != config.data:  # the same images at another place
            save_config(folder, run)
    return dataset, validation
