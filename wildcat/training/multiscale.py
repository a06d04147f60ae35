"""Training at several scales and combining them, as for the paper's best results: one model per scale.

>>> config = TrainConfig(data="voc07:data", val_fraction=0.1)
>>> train_scales(config, [224, 320, 448], "runs/voc07")  # doctest: +SKIP
>>> results = evaluate(load("runs/voc07"), "voc07:data")  # doctest: +SKIP
>>> results.scales["224"], results.combinations["mean"]  # as of single runs  # doctest: +SKIP
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.data.registry import default_splits
from wildcat.errors import WildcatError
from wildcat.evaluation.scoring import headline
from wildcat.multiscale import fit_object_bank
from wildcat.prediction.ensemble import Ensemble
from wildcat.prediction.items import dataset_items
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor
from wildcat.runs.folder import CONFIG
from wildcat.runs.scales import (
    MEAN,
    OBJECT_BANK,
    SCALES,
    Combination,
    ScaleRuns,
    read_scales,
    save_bank,
    save_scales,
    scale_folder,
)
from wildcat.system.files import is_unfinished
from wildcat.training.data import open_training_data
from wildcat.training.distributed import ProcessGroup, create_accelerator
from wildcat.training.launch import train
from wildcat.training.resume import has_progress, require_empty, resumed_config
from wildcat.training.setup import with_precision

logger = logging.getLogger(__name__)

_CELL = 32  # pixels per map cell of most backbones: other sizes are rounded to whole cells


def at_scale(config: TrainConfig, scale: int) -> TrainConfig:
    """The settings of one scale: its image size, and the inference sizes in proportion.

    Settings that train at 256 px and score at 384 px score at 480 px for the scale 320.

    Args:
        config: the settings of all scales.
        scale: side of the training images in pixels.
    """

    def scaled(sizes: list[int]) -> list[int]:
        return [
            scale if size == config.image_size else max(_CELL, round(size * scale / config.image_size / _CELL) * _CELL)
            for size in sizes
        ]

    return replace(
        config,
        image_size=scale,
        score_sizes=scaled(config.score_sizes),
        map_sizes=scaled(config.map_sizes),
    )


def train_scales(
    config: TrainConfig, scales: Sequence[int], out: str | Path, *, resume: bool = False, download: bool = False
) -> Path:
    """Train one model per scale into subfolders of a folder, and combine them (Section 4).

    With held-out images (``val_fraction`` or ``val_split``), the same for all scales, an Object Bank is fitted on the
    models' probabilities for them. It combines the scales if its cross-validated score there is higher than that of the
    mean of probabilities. Without held-out images the mean combines the scales. Training images never fit the
    combination.

    Args:
        config: the settings; see :func:`at_scale` for what changes with the scale.
        scales: sides of the training images in pixels, at least two different ones.
        out: the folder: new or empty, unless it holds runs to resume.
        resume: skip finished scales, and continue the others from their last saved state.
        download: as for :func:`wildcat.train`.

    Returns:
        The folder, for :func:`wildcat.load` and :func:`wildcat.evaluate`, like that of a single run.

    Raises:
        WildcatError: for mistakes in the scales or the folder, and as :func:`wildcat.train`.
        SystemExit, KeyboardInterrupt: as :func:`wildcat.train`.

    >>> config = TrainConfig(data="voc07:data", val_fraction=0.1)
    >>> train_scales(config, [224, 320, 448], "runs/voc07")  # doctest: +SKIP
    """
    scales = sorted(scales)
    if len(set(scales)) != len(scales) or len(scales) < 2 or scales[0] < 1:
        raise WildcatError(f"scales are two or more different image sizes; got {', '.join(map(str, scales)) or 'none'}")
    folder = Path(out)
    accelerator = create_accelerator()
    group = ProcessGroup(accelerator)
    requested = ScaleRuns(config, tuple(scales))
    runs = group.on_main(lambda: _find_runs(folder, requested, resume, accelerator.device))
    for scale in scales:
        if group.is_main:
            logger.info("scale %d: %s", scale, folder / scale_folder(scale))
        train(at_scale(runs.config, scale), folder / scale_folder(scale), resume=True, download=download)
    if runs.combination is None:
        group.on_main(lambda: save_scales(folder, replace(runs, combination=_combine(folder, runs))))
    return folder


def _find_runs(folder: Path, requested: ScaleRuns, resume: bool, device: torch.device) -> ScaleRuns:
    """Find the runs that a folder holds, or start new ones; all scales train in the precision of the largest."""
    if folder.exists() and not folder.is_dir():
        raise WildcatError(f"{folder} is a file; give a folder for the runs")
    if (folder / CONFIG).exists():
        raise WildcatError(f"{folder} holds a single run; give another folder for runs at several scales")
    started = (folder / SCALES).exists()
    if not started or _is_failed_start(folder):
        if not started:
            require_empty(folder)
        precision = with_precision(at_scale(requested.config, requested.scales[-1]), device).precision
        runs = replace(requested, config=replace(requested.config, precision=precision))
        folder.mkdir(parents=True, exist_ok=True)
        save_scales(folder, runs)
        return runs
    if not resume:
        raise WildcatError(f"{folder} already holds runs: continue them with --resume, or give another folder")
    runs = read_scales(folder)
    if runs.scales != requested.scales:
        raise WildcatError(
            f"cannot change scales from {list(runs.scales)} to {list(requested.scales)} when resuming {folder}; "
            "use a new run directory"
        )
    return replace(runs, config=resumed_config(requested.config, runs.config, folder))


def _is_failed_start(folder: Path) -> bool:
    """Whether a folder holds runs at several scales of which none has saved a state, and nothing else."""
    parts = [scale_folder(scale) for scale in read_scales(folder).scales]
    if any(has_progress(folder / part) for part in parts):
        return False
    if not {file.name for file in folder.iterdir() if not is_unfinished(file)} <= {SCALES, *parts}:
        return False
    logger.info("%s holds runs that have saved no state: they are started again", folder)
    return True


def _combine(folder: Path, runs: ScaleRuns) -> Combination:
    """Fit the Object Bank on held-out images, and choose between it and the mean."""
    config = runs.config
    if not (config.val_fraction or config.val_split):
        logger.info("no held-out images (val_fraction, val_split): the mean combines the scales")
        return Combination(MEAN)
    _, dataset = open_training_data(config)
    assert dataset is not None  # one of the two settings is given
    parts = {name: load(folder / name).single for name in map(scale_folder, runs.scales)}
    *of_scales, mean = _held_out_probabilities(Predictor(parts, Ensemble()), dataset)
    try:
        bank, cross_validated = fit_object_bank(
            of_scales, dataset.labels, multi_label=dataset.multi_label, seed=config.seed
        )
    except WildcatError as error:
        logger.info("%s: the mean combines the scales", error)
        return Combination(MEAN)
    save_bank(folder, bank)
    scores = {MEAN: headline(mean.numpy(), dataset), OBJECT_BANK: headline(cross_validated, dataset)}
    split = config.val_split or config.train_split or default_splits(config.data)[0]
    chosen = max(scores, key=lambda name: scores[name])  # the mean where they are equal
    listed = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
    logger.info("%d held-out images of %s: %s; %s combines the scales", len(dataset), split, listed, chosen)
    return Combination(chosen, len(dataset), scores, (config.data, split))


def _held_out_probabilities(predictor: Predictor, dataset: Dataset) -> list[torch.Tensor]:
    """Probabilities (N, C) of each of :attr:`Predictor.outputs`, in order: the scales, then their mean."""
    parts = list(predictor.outputs)
    probabilities = np.empty((len(parts), len(dataset), len(dataset.classes)), dtype=np.float32)
    stream = predictor.stream_each(dataset_items(dataset), maps=False)
    for index, each in enumerate(tqdm(stream, "held-out images", len(dataset), unit=" images", disable=None)):
        probabilities[:, index] = [each[part].probabilities for part in parts]
    return list(torch.from_numpy(probabilities))
