"""Settings for a dataset of one's own: many heads on cached features, judged by held-out images.

The backbone stays frozen, so its features are computed once, and a grid of poolings, numbers of maps and learning rates
takes little more time than one training.
"""

import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from wildcat.config import TrainConfig, read_recipe
from wildcat.data import Dataset
from wildcat.errors import WildcatError
from wildcat.runs.folder import build_model
from wildcat.system.files import write_atomically
from wildcat.training.data import open_training_data
from wildcat.training.defaults import resolve_defaults
from wildcat.training.feature_store import FeatureStore, open_feature_store
from wildcat.training.head_scores import held_out_scores

KMAX = (1, 0.1, 0.2, 0.4)
ALPHA = (0.0, 0.7, 1.0)
RATES = (1 / 16, 1 / 4, 1.0, 4.0, 16.0)
"""Learning rates, as multiples of the default of a head that starts at random."""
FITTED_RATES = (1.0, 4.0)
"""The same for one that starts from a fitted classifier, the default with one label per image."""
HELD_OUT = 0.25
"""Share of the training images that judge."""
FEW_IMAGES, FEW_SPLITS = 1000, 3
"""Up to so many images the scores are means over so many random splits; above, one split is enough."""
SHOWN = 5
"""Lines of the result."""

SETTINGS = (
    *("backbone", "image_size", "frozen", "fit_head", "epochs", "lr", "drop_last"),
    *("num_maps", "class_pooling", "map_dropout", "kmax", "alpha"),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """Settings that were tried.

    Attributes:
        config: the settings.
        scores: mAP or accuracy of each split, in per cent; NaN where the training diverged.
    """

    config: TrainConfig
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        """The mean over splits; -inf where a training diverged."""
        mean = statistics.fmean(self.scores)
        return mean if math.isfinite(mean) else -math.inf

    def __str__(self) -> str:
        """Return the settings and the score in one line."""
        config, score = self.config, "diverged"
        if math.isfinite(self.score):
            spread = f" ± {statistics.stdev(self.scores):.1f}" if len(self.scores) > 1 else ""
            score = f"{self.score:5.1f}{spread}"
        head = f"k {config.kmax}, alpha {config.alpha:g}, M {config.num_maps}"
        head += "" if config.class_pooling == "mean" else f" by {config.class_pooling} with map dropout"
        start = ", starts from a fitted classifier" if config.fit_head else ""
        return f"{score}  {head}, learning rate {config.lr:g}, {config.epochs} epochs{start}"


@dataclass(frozen=True)
class Tuned:
    """The result of :func:`tune`.

    Attributes:
        candidates: all settings that were tried, the best first.
        metric: "mAP" or "accuracy".
        images: number of images that were held out in each split.
        recipe: the settings of the best, for ``wildcat train --recipe``.
    """

    candidates: tuple[Candidate, ...]
    metric: str
    images: int
    recipe: dict[str, Any]

    @property
    def best(self) -> Candidate:
        """The settings with the highest mean score."""
        return self.candidates[0]

    def __str__(self) -> str:
        """Return the best settings, a line each."""
        splits = len(self.best.scores)
        how = f", mean ± standard deviation over {splits} random splits" if splits > 1 else ""
        lines = [f"{self.metric} on {self.images} held-out images{how}:"]
        return "\n".join([*lines, *(f"  {each}" for each in self.candidates[:SHOWN])])


def tune(config: TrainConfig) -> Tuned:
    """Find pooling, number of maps and learning rate for a dataset with a frozen backbone.

    First k and alpha with coarse learning rates, then for the best of them finer rates, one map per class instead of M,
    and log-sum-exp with map dropout as class-wise pooling. All are trained on one part of the training images and
    judged by the other; the test images are not used.

    Args:
        config: dataset, backbone, image size, and what else all candidates share.

    Raises:
        WildcatError: for mistakes in the settings or the data, and if every candidate diverged.

    >>> tuned = tune(TrainConfig("folder:my_images"))  # doctest: +SKIP
    >>> tuned.best.config.alpha, tuned.best.score  # doctest: +SKIP
    (0.7, 91.3)
    """
    config = replace(config, frozen=True, drop_last=False)
    dataset, _ = open_training_data(config)
    if len(dataset) < 4:
        raise WildcatError(f"{config.data} has {len(dataset)} usable training images; tuning needs at least 4")
    held = round(HELD_OUT * len(dataset))
    images, multi_label = len(dataset) - held, dataset.multi_label
    torch.manual_seed(config.seed % 2**63)
    start = resolve_defaults(replace(config, fit_head=False), images, multi_label)
    model = build_model(start, len(dataset.classes), pretrained=True)
    starts: list[tuple[TrainConfig, Sequence[float]]] = [(start, RATES)]
    if not multi_label:
        starts.append((resolve_defaults(replace(config, fit_head=True), images, multi_label), FITTED_RATES))
    with tqdm(desc="features", unit=" images", disable=None) as bar:
        features = open_feature_store(dataset, model, start, progress=bar.update)

    splits = FEW_SPLITS if len(dataset) <= FEW_IMAGES else 1
    coarse = [
        replace(settings, kmax=k, alpha=alpha, lr=_rounded(settings.lr * rate))
        for settings, rates in starts
        for k in KMAX
        for alpha in ALPHA
        for rate in rates
    ]
    tried = _judge(coarse, features, dataset, splits)
    best = max(tried, key=lambda each: each.score).config
    # The M filters of a class share its gradient, so their mean learns like one filter at an M-th of the rate.
    finer = [replace(best, lr=_rounded(best.lr * factor)) for factor in (0.5, 2.0)]
    finer += [replace(best, num_maps=1, lr=_rounded(best.lr / best.num_maps * factor)) for factor in (0.5, 1.0, 2.0)]
    # What lets the maps of a class specialize
    finer.append(replace(best, class_pooling="lse", map_dropout=0.5))
    tried += _judge(finer, features, dataset, splits)
    tried.sort(key=lambda each: -each.score)
    if not math.isfinite(tried[0].score):
        raise WildcatError(f"every candidate diverged; the lowest learning rate was {min(c.lr for c in coarse):g}")
    found = tried[0].config.to_dict()
    recipe = {name: found[name] for name in SETTINGS}
    return Tuned(tuple(tried), "mAP" if multi_label else "accuracy", held, recipe)


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


def _judge(configs: Sequence[TrainConfig], features: FeatureStore, dataset: Dataset, splits: int) -> list[Candidate]:
    """Train each of some heads on the rest of each split, and score the images that the split holds out."""
    scores: list[list[float]] = [[] for _ in configs]
    held = round(HELD_OUT * len(dataset))
    work = splits * len(configs) * (configs[0].epochs * (len(dataset) - held) + held)
    with tqdm(total=work, desc=f"{len(configs)} heads", unit=" heads x images", unit_scale=True, disable=None) as bar:
        for seed in range(splits):
            seeded = [replace(config, seed=seed) for config in configs]
            judged = held_out_scores(features, dataset, seeded, share=HELD_OUT, seed=seed, after_step=bar.update)
            for found, score in zip(scores, judged, strict=True):
                found.append(score)
    return [Candidate(config, tuple(found)) for config, found in zip(configs, scores, strict=True)]


def write_recipe(file: Path, tuned: Tuned, data: str) -> None:
    """Write the best settings as a recipe, with how they were found in its first lines.

    Raises:
        WildcatError: if the file exists, or cannot be written.
    """
    if file.exists():
        raise WildcatError(f"{file} exists; give the name of a new file")
    name = " ".join(data.split())
    header = [f"Found by wildcat tune for {name}.", *str(tuned).splitlines()]
    text = "".join(f"# {line}\n" for line in header) + yaml.safe_dump(tuned.recipe, sort_keys=False)
    write_atomically(file, text.encode("utf-8", "backslashreplace"))
    read_recipe(str(file))  # it is valid
