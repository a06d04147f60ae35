"""What the folder of a run holds, and whether a training may start or resume in it."""

import logging
from dataclasses import fields, replace
from pathlib import Path

import torch

from wildcat.config import AUTOMATIC_SETTINGS, RESUMABLE_SETTINGS, TrainConfig
from wildcat.data import Dataset
from wildcat.data.registry import path_of
from wildcat.errors import WildcatError
from wildcat.runs.folder import CONFIG, METRICS, PREVIOUS_STATE, STATE, TENSORBOARD, WEIGHTS, Run, read_run
from wildcat.runs.image_record import RECORD, ImageRecord, read_record
from wildcat.system.files import UNFINISHED, is_unfinished
from wildcat.system.lock import LOCK

logger = logging.getLogger(__name__)

# Settings whose automatic value means that of the run that is resumed.
_AUTOMATIC = {"precision": "auto", "workers": None, **dict.fromkeys(AUTOMATIC_SETTINGS)}
# What a training writes before its first state.
_OF_A_START = (CONFIG, RECORD, METRICS, TENSORBOARD)


def resumed_config(requested: TrainConfig, saved: TrainConfig, folder: Path) -> TrainConfig:
    """The settings with which a run resumes: its own, but for those that do not change the result.

    The data may be elsewhere: :func:`check_same_data` compares them with those of the start.

    Args:
        requested: what the user asks for.
        saved: the run's settings.
        folder: named in the error.

    Raises:
        WildcatError: naming the first setting that differs and may not.
    """
    changes = {}
    for name in [each.name for each in fields(saved)]:
        new, old = getattr(requested, name), getattr(saved, name)
        if new == old or (name in _AUTOMATIC and new == _AUTOMATIC[name]):
            continue
        if name not in (*RESUMABLE_SETTINGS, "data"):
            cause = f" (its learning rates were planned for {old} epochs)" if name == "epochs" else ""
            raise WildcatError(
                f"cannot change {name} from {old!r} to {new!r} when resuming {folder}{cause}; use a new run directory"
            )
        changes[name] = new
    return replace(saved, **changes)


def require_empty(folder: Path) -> None:
    """Check that a folder for a new run is new or empty; a lock and half-written files of a killed start may be in it.

    Raises:
        WildcatError: naming the first other file.
    """
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.name != LOCK and not is_unfinished(file):
            raise WildcatError(f"{folder} holds {file.name} and is not a run: give a new or an empty folder")


def has_progress(folder: Path) -> bool:
    """Whether a run directory holds weights or a state, the result of at least one step."""
    return any((folder / name).exists() for name in (STATE, PREVIOUS_STATE, WEIGHTS))


def find_run(folder: Path, config: TrainConfig, resume: bool) -> tuple[Run | None, bool]:
    """Find the run that a folder holds, and remove half-written files from the folder.

    A run that was started and has saved no state, because its first steps failed or it was killed, does not count: a
    new one replaces it, with or without ``resume``.

    Args:
        folder: locked by this process.
        config: the settings that the user asks for.
        resume: whether a run may be there.

    Returns:
        The run with the settings to resume with, or None; and whether it has finished.

    Raises:
        WildcatError: if there is a run that shall not be resumed, or cannot be with these settings; if the folder holds
            anything else.
    """
    started = (folder / CONFIG).exists()
    if started and _is_failed_start(folder):
        logger.info("%s holds a run that has saved no state: it is started again", folder)
        started = False
    elif started and not resume:
        raise WildcatError(f"{folder} already holds a run: continue it with --resume, or give another folder")
    elif not started:
        require_empty(folder)
    for file in folder.glob(UNFINISHED):
        if is_unfinished(file):  # left by a process that was killed, perhaps on another machine; the folder is locked
            file.unlink(missing_ok=True)
    if not started:
        return None, False
    run = read_run(folder)
    finished = (folder / WEIGHTS).exists()  # the weights are written last
    resumed = resumed_config(config, run.config, folder)
    if finished and resumed.data != run.config.data:
        logger.warning(
            "%s has finished its training on %s: nothing is trained on %s (a new run directory starts a new training)",
            folder,
            run.config.data,
            resumed.data,
        )
    return replace(run, config=resumed), finished


def _is_failed_start(folder: Path) -> bool:
    """Whether a folder holds a run that has saved no state, and nothing else."""
    names = {file.name for file in folder.iterdir() if file.name != LOCK and not is_unfinished(file)}
    if not names <= set(_OF_A_START):
        return False
    read_run(folder)  # raises for a config.json that is damaged or of another program
    return True


def check_same_data(run: Run, folder: Path, dataset: Dataset, validation: Dataset | None) -> None:
    """Check that a run resumes with the images and labels with which it was started.

    Args:
        run: with the settings to resume with.
        folder: of the run.
        dataset: the training images as they are now.
        validation: the validation images as they are now.

    Raises:
        WildcatError: saying how many images differ, in what, and the first names.
    """
    found = ""
    if (run.classes, run.images) != (dataset.classes, len(dataset)):
        found = (
            f"{len(dataset)} usable training images of {len(dataset.classes)} classes instead of {run.images} of "
            f"{len(run.classes)}, or other names"
        )
    before = read_record(folder)  # runs of earlier versions have none
    if before is not None:
        for name, old, now in zip(("training", "validation"), before, (dataset, validation), strict=True):
            changes = old.changes(ImageRecord.of(now))
            if changes:
                found += f"{'; ' if found else ''}{name}: {changes}"
    if found:
        raise WildcatError(
            f"{run.config.data} has changed since {folder} was started: {found}; resume with the data of the start, or "
            "train in a new run directory"
        )


def missing_data_hint(run: Run, folder: Path) -> str:
    """The end of a message: where the data of a run that is resumed are looked for; "" if they are there."""
    try:
        path = path_of(run.config.data)
    except WildcatError:
        return ""
    if path is None or path.exists():
        return ""
    kind = run.config.data.partition(":")[0]
    relative = "" if path.is_absolute() else ", relative to the folder in which the training was started"
    return f"; {path} is what {folder / CONFIG} names{relative}: if the data are elsewhere, give --data {kind}:PATH"


def warn_of_other_threads(run: Run) -> None:
    """Log a warning if PyTorch computes with another number of threads than when the run was started."""
    threads = torch.get_num_threads()
    if run.threads not in (None, threads):
        logger.warning(
            "resuming with %d threads instead of %d: sums are rounded otherwise, so the weights may differ in their "
            "last bits from those of an uninterrupted run (OMP_NUM_THREADS=%d keeps them)",
            threads,
            run.threads,
            run.threads,
        )
