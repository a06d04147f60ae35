"""Which images a run is scored on: the held-out part of its training data, or all of other data."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from wildcat.data import Dataset
from wildcat.data.checks import shared_image_warnings, shared_warning
from wildcat.data.registry import (
    available_splits,
    default_splits,
    open_dataset,
    options_of,
    path_of,
    with_options,
    without_path,
)
from wildcat.errors import WildcatError
from wildcat.runs.folder import CONFIG, read_run, read_settings
from wildcat.runs.image_record import ImageRecord, file_digest, read_record
from wildcat.runs.results import Part, read_results, results_file
from wildcat.runs.scales import SCALES, read_scales, scale_folder
from wildcat.runs.training_set import training_images

logger = logging.getLogger(__name__)

ALL = "all"  # the split that holds every image of data without splits of their own
_OF_THE_SPLIT = {"test", "seed", "balanced"}  # options that choose the images of a random split
_COMPARED = 100  # files of the training images whose content is compared, at most


@dataclass(frozen=True)
class ScoredData:
    """What is scored.

    Attributes:
        data: the dataset, kind:path.
        split: its split.
        part: what the split is to the training of the model.
    """

    data: str
    split: str
    part: Part


def choose_scored_data(run: Path | None, data: str | None, split: str | None = None) -> ScoredData:
    """The dataset and the split on which a model is scored.

    Of the data that a run was trained on, the held-out part is scored. Of other data that have no splits of their own,
    all images are: there is nothing to hold out. A split, or the options ``test`` and ``seed``, that are given are
    taken as they are. The data of the training are recognized by their images, wherever they are now.

    Args:
        run: the run directory; None for a model whose training is not known.
        data: the dataset, kind:path; unless given, that of the run's results.json, else the one of the training.
        split: the split, if one was chosen.

    Raises:
        WildcatError: if no dataset is given and none is known of the run, or the dataset has no such split.

    >>> choose_scored_data(Path("runs/mine"), "folder:new_images")  # doctest: +SKIP
    ScoredData(data='folder:new_images', split='all', part='other data')
    """
    if data is None:
        data, split = data_of_run(run, split)
    own = None if run is None else is_training_data(run, data)
    if own and run is not None:
        given, trained = options_of(data), options_of(read_settings(run).data)
        if path_of(data) is not None:
            data = with_options(data, trained | given)
        usual = default_splits(data)[1]
        same_split = all(given.get(name, trained.get(name)) == trained.get(name) for name in _OF_THE_SPLIT)
        held_out = same_split and split in (None, usual)
        return ScoredData(data, split or usual, "held out" if held_out else "training data")
    part: Part = "unknown" if own is None else "other data"
    if split is None:
        random = ALL in available_splits(data) and not _OF_THE_SPLIT & set(options_of(data))
        if random and own is None:
            logger.info(
                "what the model was trained on is not known: the part of %s that a training holds out is scored; "
                "the split %r is all of it",
                data,
                ALL,
            )
        split = ALL if random and own is not None else _usual_split(data)
    return ScoredData(data, split, part)


def data_of_run(run: Path | None, split: str | None = None) -> tuple[str, str | None]:
    """Dataset and split of a run's results.json, else the dataset of its training.

    Raises:
        WildcatError: if no dataset is known of the run.
    """
    file = None if run is None else results_file(run)
    if run is None or file is None:
        raise WildcatError(f"{run or 'the model'} has no dataset of its own; name the dataset to score on with --data")
    if file.is_file():
        before = read_results(file)
        data, split = before.data, split or before.split
    else:
        data = read_settings(run).data
    if data.startswith("converted:"):  # converted weights of the authors' code, see convert.py
        raise WildcatError(f"{run} has no dataset of its own; name the dataset to score on with --data")
    logger.info("data: %s, as none was given", data)
    return data, split


def _usual_split(data: str) -> str:
    """The split of a dataset that is scored by default; its only one where it has no other."""
    available = available_splits(data)
    return available[0] if len(available) == 1 else default_splits(data)[1]


def is_training_data(run: Path, data: str) -> bool:
    """Whether a dataset is the one that a run was trained on, under this or another path.

    It is if it has at least half of the training images, by their names and the content of their files. For a run
    without a record of them that are no longer where they were (an old one, or one from the hub), kind, name and number
    of images are compared.

    Args:
        run: the run directory.
        data: kind:path.
    """
    if not _is_run(run):
        return False
    config = read_settings(run)
    if data.partition(":")[0] != config.data.partition(":")[0]:
        return False
    try:
        if path_of(data) is None:
            return data == config.data
        other = {name: text for name, text in options_of(data).items() if name not in _OF_THE_SPLIT}
        moved = with_options(data, options_of(config.data) | other)
        split = config.train_split or default_splits(moved)[0]
        there = {sample.name: sample.path for sample in open_dataset(moved, split).samples}
    except WildcatError:
        return False  # no such split, or nothing to open: the error is that of scoring it
    trained = _trained_files(run)
    if trained is None:
        same_name = without_path(with_options(data, {})) == without_path(with_options(config.data, {}))
        trained_on = len(there) - round(config.val_fraction * len(there))
        return same_name and read_run(_first_scale(run)).images == trained_on
    common = [name for name in trained if name in there]
    if 2 * len(common) < len(trained) or not common:
        return False
    compared = common[:: -(-len(common) // _COMPARED)]
    equal = sum(_digest(there[name]) == _digest(trained[name]) for name in compared)
    return 2 * equal >= len(compared)


def _trained_files(run: Path) -> dict[str, Path | str | None] | None:
    """Name -> file, or its digest, of each training and validation image of a run; None where they are not known."""
    record = read_record(_first_scale(run))
    if record is not None:
        return {name: digest for part in record for name, digest in zip(part.names, part.files, strict=True)}
    config = read_settings(run)
    try:
        split = config.train_split or default_splits(config.data)[0]
        return {sample.name: sample.path for sample in open_dataset(config.data, split).samples}
    except WildcatError:
        return None


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or (folder / SCALES).is_file()


def _first_scale(run: Path) -> Path:
    """The run directory itself, or that of the first scale; all scales are trained on the same images."""
    return run / scale_folder(read_scales(run).scales[0]) if (run / SCALES).is_file() else run


def _digest(file: Path | str | None) -> str:
    """The digest of a file, or the one that is given."""
    if isinstance(file, str):
        return file
    try:
        return file_digest(file)
    except WildcatError:  # it is missing, which is an error only if it is to be scored
        return ""


def training_overlap(run: Path | None, dataset: Dataset, scored: ImageRecord) -> list[str]:
    """Warnings, with numbers, where images of a dataset were used to train a run.

    Images are compared with the run's record of the training images, and those without a file by their names, if they
    are of the same split. The training images are read only for a run of an earlier version, which has no record.

    Args:
        run: the run directory; None for a model whose training is not known.
        dataset: the images that are scored.
        scored: their record.

    Returns:
        Sentences; none for a model that is not a run, or whose training images are not known.
    """
    if run is None or not _is_run(run):
        return []
    config, record = read_settings(run), read_record(_first_scale(run))
    if record is None:
        try:
            return shared_image_warnings(training_images(config), dataset, "scored")
        except WildcatError:
            return []
    trained = record[0]
    by_file = dict(zip(trained.files, trained.names, strict=True))
    same_split = config.data == dataset.spec and dataset.split == (config.train_split or default_splits(config.data)[0])
    names = set(trained.names) if same_split else set()
    pairs = [
        (name, by_file[file] if file else name)
        for name, file in zip(scored.names, scored.files, strict=True)
        if (file in by_file if file else name in names)
    ]
    return shared_warning(pairs, len(dataset), "scored")
