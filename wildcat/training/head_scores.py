"""Scores of heads on cached features: the probabilities and points of ``wildcat evaluate``, without the backbone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from wildcat import metrics
from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.data.images import original_size
from wildcat.data.transforms import cell_centres
from wildcat.evaluation.scoring import headline
from wildcat.losses import probabilities
from wildcat.metrics import PointVerdicts, Scores
from wildcat.runs.training_set import split_off
from wildcat.training.feature_store import FeatureStore
from wildcat.training.many_heads import Head, batch_scores, blocks_of, stacked_class_maps, train_heads


@dataclass(frozen=True, eq=False)
class HeadPredictions:
    """The predictions of a head for N images.

    Attributes:
        probabilities: (N, C) in [0, 1]; NaN where the head diverged.
        cells: (N, C, 2), row and column of the highest cell of each class map.
        map_size: (h, w).
    """

    probabilities: npt.NDArray[np.float32]
    cells: npt.NDArray[np.int64]
    map_size: tuple[int, int]

    @property
    def diverged(self) -> bool:
        """Whether the head's weights became NaN or infinite."""
        return not bool(np.isfinite(self.probabilities).all())

    def points(self, sizes: Sequence[tuple[int, int]]) -> npt.NDArray[np.float64]:
        """(N, C, 2): x, y in pixels of the original images, whose sizes are (width, height)."""
        pairs = zip(self.cells, sizes, strict=True)
        return np.stack([cell_centres(cells, self.map_size, size) for cells, size in pairs])

    def scores(self, dataset: Dataset, sizes: Sequence[tuple[int, int]] | None = None) -> Scores:
        """The scores of the images, in per cent; of points only where the sizes of the images are given."""
        result = metrics.classification_result if dataset.multi_label else metrics.multi_class_result
        classification = result(self.probabilities, dataset.labels, dataset.classes).scores()
        if sizes is None:
            return Scores(classification=classification)
        pointing = metrics.pointing_result(self.points(sizes), self.probabilities, *boxes_of(dataset), dataset.classes)
        return Scores(classification=classification, pointing=pointing.scores())

    def verdicts(self, dataset: Dataset, sizes: Sequence[tuple[int, int]]) -> PointVerdicts:
        """Whether each point is correct."""
        return metrics.point_verdicts(self.points(sizes), self.probabilities, *boxes_of(dataset))


def boxes_of(
    dataset: Dataset,
) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.int64]], list[npt.NDArray[np.bool_]]]:
    """Boxes, their classes, and whether they are difficult, for each image."""
    samples = dataset.samples
    boxes = [np.empty((0, 4), np.float32) if sample.boxes is None else sample.boxes for sample in samples]
    classes = [np.empty(0, np.int64) if sample.box_classes is None else sample.box_classes for sample in samples]
    difficult = [np.empty(0, np.bool_) if sample.box_difficult is None else sample.box_difficult for sample in samples]
    return boxes, classes, difficult


def image_sizes(dataset: Dataset) -> list[tuple[int, int]]:
    """(width, height) of each image, upright."""
    return [original_size(dataset.image(index, draft_size=1)) for index in range(len(dataset))]


def predict_heads(
    features: FeatureStore,
    dataset: Dataset,
    heads: Sequence[Head],
    *,
    batch_size: int = 16,
    after_step: Callable[[int], object] = lambda work: None,
) -> list[HeadPredictions]:
    """Predict images with each of some heads, from their features.

    Args:
        features: of the images, of which only view 0 is read.
        dataset: the images, N.
        heads: from :func:`wildcat.training.many_heads.train_heads`.
        batch_size: images whose features are read at once.
        after_step: called after each batch with its number of images times heads.
    """
    blocks, classes = blocks_of(heads), len(dataset.classes)
    height, width = features.shape[3:]
    found: dict[int, tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.int64]]]] = {
        id(head): ([], []) for head in heads
    }
    for head in heads:
        head.pooling.eval()
    with torch.inference_mode():
        for start in range(0, len(dataset), batch_size):
            batch = features.read(range(start, min(start + batch_size, len(dataset))))
            for block in blocks:
                maps = stacked_class_maps(block, batch).flatten(2)  # (F, n, h * w)
                cells = maps.argmax(dim=2).split([head.transfer.num_classes for head in block])
                for head, scores, cell in zip(block, batch_scores(block, batch), cells, strict=True):
                    values = probabilities(scores, dataset.multi_label)
                    found[id(head)][0].append(values[:, :classes].numpy())
                    found[id(head)][1].append(cell[:classes].T.numpy())
            after_step(len(batch) * len(heads))
    predictions = []
    for head in heads:
        scores_of, cells_of = found[id(head)]
        places = np.stack(np.unravel_index(np.concatenate(cells_of), (height, width)), axis=-1)
        predictions.append(HeadPredictions(np.concatenate(scores_of), places, (height, width)))
    return predictions


def held_out_scores(
    features: FeatureStore,
    dataset: Dataset,
    configs: Sequence[TrainConfig],
    *,
    share: float,
    seed: int,
    after_step: Callable[[int], object] = lambda work: None,
) -> list[float]:
    """Train heads on a part of the training images, and score them on the rest.

    Args:
        features: of the training images.
        dataset: the training images.
        configs: the settings of each head, with every automatic setting resolved.
        share: of the images that are held out, chosen at random.
        seed: of that choice.
        after_step: called after each step and batch with its number of images times heads.

    Returns:
        mAP or accuracy of each head, in per cent; NaN where it diverged.
    """
    place = {sample.name: index for index, sample in enumerate(dataset.samples)}
    (seen, rest), (unseen, held_out) = (
        (features.subset([place[sample.name] for sample in part.samples]), part)
        for part in split_off(dataset, share, seed)
    )
    heads = train_heads(seen, rest, configs, after_step=after_step)
    found = predict_heads(unseen, held_out, heads, after_step=after_step)
    return [math.nan if each.diverged else headline(each.probabilities, held_out) for each in found]
