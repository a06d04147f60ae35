"""Training at several scales and combining them, as the paper's best figures were made: one model per scale.

>>> train_scales(TrainConfig(data="voc07:data", val_fraction=0.1), [224, 320, 448], "runs/voc07")  # doctest: +SKIP
>>> results = evaluate(load("runs/voc07"), "voc07:data")  # doctest: +SKIP
>>> results.scales["224"], results.combinations["mean"]  # as of single runs  # doctest: +SKIP
"""

import sys
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
from wildcat.runs import folder as checkpoint
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
from wildcat.training.data import open_training_data
from wildcat.training.distributed import Processes, create_accelerator
from wildcat.training.launch import check_new, continued, train
from wildcat.training.setup import with_precision

_CELL = 32  # sizes are rounded to whole cells of the usual backbone


def at_scale(config: TrainConfig, scale: int) -> TrainConfig:
    """The settings of one scale: its image size, and the sizes at which it reads in proportion.

    Settings that train at 256 and read scores at 384 read them, for the scale 320, at 480.
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
    """Train one model per scale into subfolders of ``out``, and combine them.

    With held-out images, the same for all scales (``val_fraction``, or ``val_split``), an Object Bank is fitted on
    the scores that the models give them; it reads images if, cross-validated, it does better there than the mean of
    probabilities. Without them the scales are combined by the mean. Training images never fit the combination.

    Args:
        config: the settings; see :func:`at_scale` for what changes with the scale.
        scales: at least two different image sizes.
        out: the folder; must be new or empty, unless it holds runs to resume.
        resume: leave finished scales as they are, and continue the others from their last saved state.
        download: as for :func:`wildcat.training.launch.train`.

    Returns:
        The folder, which :func:`wildcat.load` and :func:`wildcat.evaluate` read like that of a single run.

    Raises:
        WildcatError: for mistakes in settings, scales, data or folder.
    """
    scales = sorted(scales)
    if len(set(scales)) != len(scales) or len(scales) < 2 or scales[0] < 1:
        raise WildcatError(f"scales are two or more different image sizes; got {', '.join(map(str, scales)) or 'none'}")
    folder = Path(out)
    accelerator = create_accelerator()
    processes = Processes(accelerator)
    asked = ScaleRuns(config, tuple(scales))
    runs = processes.on_main(lambda: _started(folder, asked, resume, accelerator.device))
    for scale in scales:
        if processes.main:
            print(f"scale {scale}: {folder / scale_folder(scale)}", file=sys.stderr)
        train(at_scale(runs.config, scale), folder / scale_folder(scale), resume=True, download=download)
    if runs.combination is None:
        processes.on_main(lambda: save_scales(folder, replace(runs, combination=_combine(folder, runs))))
    return folder


def _started(folder: Path, asked: ScaleRuns, resume: bool, device: torch.device) -> ScaleRuns:
    """What the folder holds, or is to hold from now on; all scales are trained in the precision of the largest."""
    if folder.exists() and not folder.is_dir():
        raise WildcatError(f"{folder} is a file; give a folder for the runs")
    if (folder / checkpoint.CONFIG).exists():
        raise WildcatError(f"{folder} holds a single run; give another folder for runs at several scales")
    if not (folder / SCALES).exists():
        check_new(folder)
        precision = with_precision(at_scale(asked.config, asked.scales[-1]), device).precision
        runs = replace(asked, config=replace(asked.config, precision=precision))
        folder.mkdir(parents=True, exist_ok=True)
        save_scales(folder, runs)
        return runs
    if not resume:
        raise WildcatError(f"{folder} already holds runs: continue them with --resume, or give another folder")
    runs = read_scales(folder)
    if runs.scales != asked.scales:
        raise WildcatError(f"{folder} was started with the scales {runs.scales}, not {asked.scales}")
    return replace(runs, config=continued(asked.config, runs.config, folder))


def _combine(folder: Path, runs: ScaleRuns) -> Combination:
    """Fit the Object Bank on held-out images, and choose between it and the mean."""
    config = runs.config
    if not (config.val_fraction or config.val_split):
        print("no held-out images (val_fraction, val_split): the mean combines the scales", file=sys.stderr)
        return Combination(MEAN)
    _, dataset = open_training_data(config)
    assert dataset is not None  # one of the two settings is there
    parts = {name: load(folder / name).single for name in map(scale_folder, runs.scales)}
    found = _held_out_probabilities(Predictor(parts, Ensemble()), dataset)  # of each scale, then their mean
    try:
        bank, unseen = fit_object_bank(found[:-1], dataset.labels, multi_label=dataset.multi_label, seed=config.seed)
    except WildcatError as error:
        print(f"{error}: the mean combines the scales", file=sys.stderr)
        return Combination(MEAN)
    save_bank(folder, bank)
    scores = {MEAN: headline(found[-1].numpy(), dataset), OBJECT_BANK: headline(unseen, dataset)}
    split = config.val_split or config.train_split or default_splits(config.data)[0]
    chosen = max(scores, key=lambda name: scores[name])  # the mean where they are equal
    shown = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
    print(f"{len(dataset)} held-out images of {split}: {shown}; {chosen} combines the scales", file=sys.stderr)
    return Combination(chosen, len(dataset), scores, (config.data, split))


def _held_out_probabilities(predictor: Predictor, dataset: Dataset) -> list[torch.Tensor]:
    """Probabilities (N, C) of each part, in the order of :attr:`Predictor.outputs`."""
    parts = list(predictor.outputs)
    found = np.empty((len(parts), len(dataset), len(dataset.classes)), dtype=np.float32)
    stream = predictor.stream_each(dataset_items(dataset), maps=False)
    for index, each in enumerate(tqdm(stream, "held-out images", len(dataset), unit=" images", disable=None)):
        found[:, index] = [each[part].probabilities for part in parts]
    return list(torch.from_numpy(found))
