"""Training from image labels alone: what is in the folder, the data, the model, and then the loop."""

import sys
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from wildcat.backbones.factory import check_backbone_name
from wildcat.config import RESUMABLE_SETTINGS, TrainConfig
from wildcat.data import Dataset
from wildcat.errors import WildcatError
from wildcat.model import Wildcat
from wildcat.pooling import check_pooling_name
from wildcat.runs import folder as checkpoint
from wildcat.runs.folder import Run
from wildcat.system.files import UNFINISHED, is_unfinished
from wildcat.system.lock import LOCK, locked
from wildcat.training.data import open_training_data
from wildcat.training.diagnostics import explained
from wildcat.training.distributed import Processes, create_accelerator
from wildcat.training.history import History, describe
from wildcat.training.linear_svm import fit_head
from wildcat.training.loop import Loop
from wildcat.training.setup import freeze_and_move, resolve
from wildcat.training.state import load_state
from wildcat.training.validation import criterion_for, validate


def continued(asked: TrainConfig, kept: TrainConfig, folder: Path) -> TrainConfig:
    """The settings of a run that resumes: its own, and nothing else may be asked for but how it is carried out.

    Raises:
        WildcatError: naming the first setting that differs.
    """
    automatic = {"precision": "auto", "workers": None}
    changed = {}
    for name in [field.name for field in fields(kept)]:
        new, old = getattr(asked, name), getattr(kept, name)
        if new == old or (name in automatic and new == automatic[name]):
            continue
        if name not in RESUMABLE_SETTINGS:
            message = f"a continued run keeps its settings; {name} is {old!r} in {folder}, not {new!r}"
            raise WildcatError(f"{message}: that is another run, with a folder of its own")
        changed[name] = new
    return replace(kept, **changed)


def check_new(folder: Path) -> None:
    """Reject a folder for a new run in which there is more than the lock and what a killed start left half-written.

    Raises:
        WildcatError: naming the first thing that is there.
    """
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.name != LOCK and not is_unfinished(file):
            raise WildcatError(f"{folder} holds {file.name} and is no run: give a new or an empty folder")


def train(config: TrainConfig, out: str | Path, *, resume: bool = False, download: bool = False) -> Path:
    """Train a model and write its run's folder.

    The weights of the last epoch are kept, whatever the validation says. The state is saved after each epoch, every
    ``save_minutes`` and on SIGTERM or SIGINT; on a CPU a run that was killed and continued ends with the weights of an
    uninterrupted one. In a process group (torchrun, ``accelerate launch``) each process calls this with the same
    arguments: they share every batch, and the first one alone writes.

    Args:
        config: the settings; when resuming they must be the run's own.
        out: the run's folder; must be new or empty, unless it holds a run to resume.
        resume: continue from the last saved state; a finished run stays as it is, and where there is none, one starts.
        download: fetch VOC, COCO, MIT67 or 15-Scene first, where the path does not hold it yet.

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
            processes.on_main(lambda: held.enter_context(locked(folder)))
            _train(accelerator, processes, config, folder, resume, download)
    except WildcatError as error:
        # An error in a worker process arrives as text that ends with its traceback, whose last line is the message.
        if "Original Traceback" not in str(error):
            raise
        last = str(error).rstrip().splitlines()[-1]
        raise WildcatError(last.removeprefix(f"{WildcatError.__module__}.{WildcatError.__name__}: ")) from error
    except (RuntimeError, ValueError, MemoryError) as error:
        reason = explained(error, accelerator.device, config.accumulate)
        if reason is None:
            raise
        kept = (folder / checkpoint.STATE).exists()
        raise WildcatError(reason + (f"; the last saved state is kept in {folder}" if kept else "")) from error
    return folder


def _train(
    accelerator: Accelerator, processes: Processes, config: TrainConfig, folder: Path, resume: bool, download: bool
) -> None:
    """Train in a folder that no other run can enter."""
    run, finished = processes.on_main(lambda: _what_is_there(folder, config, resume))
    if finished:
        if processes.main:
            print(f"{folder} has finished its training", file=sys.stderr)
        return
    state = processes.on_main(lambda: load_state(folder) if resume else None)
    if run is not None:
        config = run.config
    check_backbone_name(config.backbone)  # before all images are checked
    check_pooling_name(config.pooling)
    if config.solver == "svm" and processes.count > 1:
        raise WildcatError('the solver "svm" is one pass over the images, for one process')
    dataset, validation = processes.on_main(lambda: _data(config, run, folder, download))
    torch.manual_seed(config.seed % 2**63)
    with accelerator.local_main_process_first():  # weights are downloaded once
        model = checkpoint.build_model(config, len(dataset.classes), pretrained=state is None)
    freeze_and_move(model, config, accelerator.device)
    if run is None:
        config = processes.on_main(lambda: _begin(folder, config, model, dataset, accelerator.device))
    if config.solver == "svm":
        classify_features(processes, model, config, dataset, validation, folder)
        return
    if config.shard and processes.count == 1:
        print("shard: there is one process, so it keeps the whole model (start several with torchrun)", file=sys.stderr)
    loop = Loop(accelerator, processes, model, config, dataset, folder)
    if state is not None:
        loop.load(state)
        state = None  # it holds the weights once more
    loop.run(validation)


def _what_is_there(folder: Path, config: TrainConfig, resume: bool) -> tuple[Run | None, bool]:
    """The run of a folder, with the settings to go on with, and whether it has finished: weights are written last."""
    started = (folder / checkpoint.CONFIG).exists()
    if started and not resume:
        raise WildcatError(f"{folder} already holds a run: continue it with --resume, or give another folder")
    if not started:
        check_new(folder)
    for file in folder.glob(UNFINISHED):
        if is_unfinished(file):  # of a run that was killed while it saved, perhaps on another machine
            file.unlink(missing_ok=True)
    run = checkpoint.read_run(folder) if started else None
    if run is not None:
        run = replace(run, config=continued(config, run.config, folder))
    return run, run is not None and (folder / checkpoint.WEIGHTS).exists()


def _data(config: TrainConfig, run: Run | None, folder: Path, download: bool) -> tuple[Dataset, Dataset | None]:
    """Training and validation images, which must be those with which the run was started."""
    dataset, validation = open_training_data(config, download)
    if len(dataset) < 2:
        raise WildcatError(f"{config.data} has {len(dataset)} usable training images; at least 2 are needed")
    if config.background_class and not dataset.multi_label:
        raise WildcatError(
            f"background_class is for images that may hold several classes; those of {config.data} have one each"
        )
    if run is not None and (run.classes, run.images) != (dataset.classes, len(dataset)):
        raise WildcatError(
            f"{config.data} has changed since {folder} was started: {len(dataset)} usable training images of "
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
    """The solver "svm": one pass over the images, then the classifiers; nothing is saved before the end."""
    row = fit_head(model, dataset, config, model.transfer.weight.device)
    if validation is not None:
        row |= validate(processes, model, validation, config, criterion_for(dataset, config))
    with History(folder) as history:
        history.write([row])
    print(describe(row, 1), file=sys.stderr)
    checkpoint.save_weights(folder, model.state_dict())
