"""Pseudo-masks: label maps of images from their labels and the class maps of a model, to train other networks on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm import tqdm

from wildcat.crf.mean_field import CRFSettings, dense_crf
from wildcat.data import Dataset
from wildcat.errors import WildcatError
from wildcat.evaluation.scoring import open_scored
from wildcat.formats.images import encoded
from wildcat.formats.names import UniqueNames, label_names
from wildcat.masks import MAX_CUE_EXPONENT, Background, label_map, pixel_probabilities, strengths
from wildcat.prediction.items import dataset_items
from wildcat.prediction.predictor import Predictor
from wildcat.prediction.result import MAX_BYTE_LABELS, Prediction
from wildcat.render.masks import VOID, mask_png
from wildcat.system.output_folder import OutputFolder

LABELS = "labels.txt"
SIDE = 256  # larger images are reduced to this for the CRF; masks are scaled back
PRESET_SIDE = 500  # of the images for which the CRF's standard deviations were published


@dataclass(frozen=True)
class PseudoMaskSettings:
    """How certain a pixel must be to get a label.

    Attributes:
        low: constant of the background with which a pixel must be background to be labelled so; above 0.
        high: constant with which it must still be an object to be labelled so; at least ``low``.
        cue_exponent: of the background cue, 0 to 10, see :class:`wildcat.masks.Background`.

    Raises:
        WildcatError: for other values.
    """

    low: float = 0.03
    high: float = 0.1
    cue_exponent: float = 0.75

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 < self.low <= self.high <= 1:
            raise WildcatError(f"pseudo-masks need 0 < low <= high <= 1; got low {self.low}, high {self.high}")
        if not 0 <= self.cue_exponent <= MAX_CUE_EXPONENT:
            raise WildcatError(f"cue_exponent must be 0 to {MAX_CUE_EXPONENT:g}; got {self.cue_exponent}")


@dataclass(frozen=True)
class PseudoMasks:
    """What :func:`write_pseudo_masks` did.

    Attributes:
        folder: of the masks.
        written: how many masks were written.
        kept: how many were there already.
        background: share of the written pixels that are labelled as background, 0 to 1; NaN if none was written.
        objects: share that is labelled as a class.
        void: share without a label (255).
    """

    folder: Path
    written: int
    kept: int
    background: float
    objects: float
    void: float


def pseudo_mask(
    prediction: Prediction, allowed: Sequence[int], settings: PseudoMaskSettings | None = None
) -> npt.NDArray[np.uint8]:
    """The pseudo-mask of one image.

    A mask of its classes is made with a low and with a high constant of the background, and both are refined by the
    dense CRF. Pixels to which they give the same label have it; all others are void, and not trained on.

    Args:
        prediction: for the image.
        allowed: indices of the classes that its labels name; there are at most 254.
        settings: unless given, the defaults.

    Returns:
        (H, W) of the original image: 0 background, 1 + class, 255 void. Without classes it is 0.

    >>> import wildcat
    >>> prediction = wildcat.load("runs/mine")("dog.jpg")  # doctest: +SKIP
    >>> pseudo_mask(prediction, [11])  # doctest: +SKIP
    """
    settings = settings or PseudoMaskSettings()
    width, height = prediction.size
    if not len(allowed):
        return np.zeros((height, width), np.uint8)
    small = prediction.reduced(SIDE)
    pixels = np.array(small.image)
    size = (pixels.shape[0], pixels.shape[1])
    background = Background("threshold", settings.low, settings.cue_exponent)
    cue = torch.from_numpy(small.background_cue) if background.uses_cue else None
    strength = strengths(small.mask_maps, allowed, size, background, cue)
    scale = max(size) / PRESET_SIDE
    crf = CRFSettings(gaussian_sxy=3 * scale, bilateral_sxy=80 * scale)
    masks = []
    for constant in (settings.low, settings.high):
        strength[0] = constant
        masks.append(label_map(dense_crf(pixel_probabilities(strength), pixels, crf), allowed))
    agreed = np.where(masks[0] == masks[1], masks[0], VOID).astype(np.uint8)
    return np.asarray(Image.fromarray(agreed).resize((width, height), Image.Resampling.NEAREST))


def write_pseudo_masks(
    predictor: Predictor,
    data: str,
    split: str,
    folder: str | Path,
    *,
    settings: PseudoMaskSettings | None = None,
    on_bad_image: str = "error",
    overwrite: bool = False,
) -> PseudoMasks:
    """Write the pseudo-masks of the images of a split, which any network for segmentation can be trained on.

    ``FOLDER/NAME.png`` is a palette PNG like the masks of VOC: 0 background, 1 + class, 255 void. ``FOLDER/labels.txt``
    names the labels. Masks that are there are kept, so a call after an interruption writes those that are missing, and
    masks that somebody has corrected stay.

    Args:
        predictor: from :func:`wildcat.load`.
        data: the dataset, kind:path; its classes are matched with the model's by name.
        split: the split, usually the one of the training. The masks hold the classes of its labels, difficult ones too.
            Where labels are unknown, what is not an object is void instead of background.
        folder: of the masks.
        settings: unless given, the defaults.
        on_bad_image: "error", "skip" or "partial", as for :func:`wildcat.evaluation.scoring.open_scored`.
        overwrite: replace masks of another model or of other settings, and files that wildcat has not written.

    Raises:
        WildcatError: if the model has more than 254 classes, an image cannot be read, or the folder holds pseudo-masks
            of another model, other data or settings, or other files with these names.

    >>> import wildcat
    >>> predictor = wildcat.load("runs/voc12")  # doctest: +SKIP
    >>> write_pseudo_masks(predictor, "voc12:data", "train", "pseudo").written  # doctest: +SKIP
    5717
    """
    settings = settings or PseudoMaskSettings()
    classes = predictor.settings.classes
    if len(classes) > MAX_BYTE_LABELS:
        raise WildcatError(f"pseudo-masks hold at most {MAX_BYTE_LABELS} classes; the model has {len(classes)}")
    dataset = open_scored(data, split, classes, on_bad_image)
    names = UniqueNames(None)
    files = [f"{names.stem(sample.name)}.png" for sample in dataset.samples]
    out = OutputFolder(Path(folder), overwrite=overwrite)
    about = {
        "pseudo-masks": {"data": data, "split": split, **asdict(settings)},
        "model": predictor.model_fingerprint,
        "map_sizes": list(predictor.settings.map_sizes),
        "mirror": predictor.settings.mirror,
    }
    if any(out.own()) and out.about != about:
        if not overwrite:
            raise WildcatError(
                f"{folder} holds results of another model, other data or other settings: choose another folder, or "
                "replace them with overwrite"
            )
        out.clear()
    if out.about != about:  # a new folder: files with these names are nobody's corrected masks
        out.check([*files, LABELS])
        out.begin(about)
        out.write(LABELS, label_names(classes).encode())
        missing = list(range(len(files)))
    else:
        missing = [i for i, file in enumerate(files) if not (out.path / file).exists()]
    pixels = _write(predictor, dataset, files, missing, out, settings)
    total = sum(pixels)
    background, objects, void = (count / total if total else float("nan") for count in pixels)
    return PseudoMasks(out.path, len(missing), len(files) - len(missing), background, objects, void)


def _write(
    predictor: Predictor,
    dataset: Dataset,
    files: Sequence[str],
    missing: Sequence[int],
    out: OutputFolder,
    settings: PseudoMaskSettings,
) -> tuple[int, int, int]:
    """Write the masks of some images; the number of pixels that are background, object and void."""
    counts = np.zeros(256, np.int64)
    items = dataset_items(dataset.subset(list(missing)))
    stream = predictor.stream(items, multi_maps=False)
    shown = tqdm(stream, "pseudo-masks", len(items), unit=" images", disable=None)
    for index, prediction in zip(missing, shown, strict=True):
        labels = dataset.samples[index].labels
        unknown = dataset.zeros_unknown & (labels == 0)
        mask = pseudo_mask(prediction, [int(c) for c in np.flatnonzero((labels >= 0) & ~unknown)], settings)
        if unknown.any():  # what looks like background may be of an unknown class
            mask = np.where(mask == 0, VOID, mask).astype(np.uint8)
        out.write(files[index], encoded(mask_png(mask), files[index]))
        counts += np.bincount(mask.ravel(), minlength=256)
    return int(counts[0]), int(counts[1:VOID].sum()), int(counts[VOID])
