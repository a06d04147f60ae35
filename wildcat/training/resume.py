"""What the folder of a run holds, and whether a training may start or resume in it."""

from dataclasses import fields, replace
from pathlib import Path

from wildcat.config import RESUMABLE_SETTINGS, TrainConfig
from wildcat.errors import WildcatError
from wildcat.runs.folder import CONFIG, WEIGHTS, Run, read_run
from wildcat.system.files import UNFINISHED, is_unfinished
from wildcat.system.lock import LOCK

# Settings whose automatic value means that of the run that is resumed.
_AUTOMATIC = {"precision": "auto", "workers": None}


def resumed_config(requested: TrainConfig, saved: TrainConfig, folder: Path) -> TrainConfig:
    """The settings with which a run resumes: its own, but for those that do not change the result.

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
        if name not in RESUMABLE_SETTINGS:
            raise WildcatError(
                f"cannot change {name} from {old!r} to {new!r} when resuming {folder}; use a new run directory"
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


def find_run(folder: Path, config: TrainConfig, resume: bool) -> tuple[Run | None, bool]:
    """Find the run that a folder holds, and remove half-written files from the folder.

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
    if started and not resume:
        raise WildcatError(f"{folder} already holds a run: continue it with --resume, or give another folder")
    if not started:
        require_empty(folder)
    for file in folder.glob(UNFINISHED):
        if is_unfinished(file):  # left by a process that was killed, perhaps on another machine; the folder is locked
            file.unlink(missing_ok=True)
    if not started:
        return None, False
    run = read_run(folder)
    run = replace(run, config=resumed_config(config, run.config, folder))
    return run, (folder / WEIGHTS).exists()  # the weights are written last
