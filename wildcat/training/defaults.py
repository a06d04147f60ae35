"""The automatic settings of a training: chosen by the number of training images and the kind of their labels.

``experiments/small_data.py`` compares them with linear classifiers on few images. A setting that is given, in Python,
as an option or by a recipe, is never changed; config.json holds the resolved values.
"""

import math
from dataclasses import replace
from typing import Any

from wildcat.backbones.factory import has_known_weights
from wildcat.config import AUTOMATIC_SETTINGS, FORMER_DEFAULTS, TrainConfig

# A training has at least this many epochs and steps. The fitted head needs few steps; a random one needs many.
MIN_EPOCHS = 4
MIN_STEPS = 40
MIN_EPOCHS_RANDOM_HEAD = 10
MIN_STEPS_RANDOM_HEAD = 150
# On features of a frozen backbone a step is cheap, and with several labels the best rate is high.
FROZEN_LR, FROZEN_EPOCHS, FROZEN_STEPS = 0.4, 6, 300
# Up to this many images, the first stages of the backbone and its depthwise filters keep their ImageNet weights: they
# change little in a short training, and their gradients cost time.
FEW_IMAGES = 5000
# With one label per image, the rate grows with the number of images, up to this one.
FULL_RATE_IMAGES = 1000


def resolve_defaults(config: TrainConfig, images: int, multi_label: bool, stages: int | None = None) -> TrainConfig:
    """Choose the settings that are None.

    Args:
        config: the settings that the user asks for.
        images: number of training images.
        multi_label: whether an image may have several classes (sigmoid) or has exactly one (softmax).
        stages: number of stages of the backbone that can be frozen; ``freeze_stages`` stays None without it.

    Returns:
        The settings with a value for each of :data:`wildcat.config.AUTOMATIC_SETTINGS`.

    >>> few = resolve_defaults(TrainConfig("folder:my_images"), images=24, multi_label=False, stages=8)
    >>> few.freeze_batch_norm, few.fit_head, few.lr, few.epochs
    (True, True, 0.00024, 20)
    >>> resolve_defaults(TrainConfig("folder:my_images", lr=0.1), images=24, multi_label=False, stages=8).lr
    0.1
    """
    # Whether a backbone of the user's own has learned anything is not known: nothing of it is frozen.
    pretrained = config.weights is not None or (config.pretrained and has_known_weights(config.backbone))
    chosen: dict[str, Any] = {**FORMER_DEFAULTS, "drop_last": False}
    if config.pooling == "wildcat" and not multi_label:
        # The authors' setting for scenes: most of the image counts, and evidence against a class as much as for it.
        chosen |= {"kmax": 0.4, "alpha": 1.0}
    # With several labels, SGD on features finds a better head than it does from the fitted one, and in less time.
    chosen["fit_head"] = pretrained and config.solver == "sgd" and not (config.frozen and multi_label)
    if pretrained and not config.frozen:
        few = images <= FEW_IMAGES
        chosen |= {
            "freeze_batch_norm": True,
            "freeze_depthwise": few,
            "backbone_lr_factor": 0.2,
        }
        if stages is None:
            chosen["freeze_stages"] = None
        elif few:
            chosen["freeze_stages"] = stages * 5 // 8
    fit_head = chosen["fit_head"] if config.fit_head is None else config.fit_head
    # A softmax's gradient is not divided by the number of classes, as the mean of the logistic losses is.
    chosen["lr"] = 0.05 if multi_label else 0.01
    if fit_head and not multi_label:
        # The fitted head is regularized, for few images better than any that SGD reaches from it.
        chosen["lr"] = round(0.01 * min(1.0, images / FULL_RATE_IMAGES), 6)
    epochs, steps = (MIN_EPOCHS, MIN_STEPS) if fit_head else (MIN_EPOCHS_RANDOM_HEAD, MIN_STEPS_RANDOM_HEAD)
    if config.frozen and multi_label and not fit_head:
        chosen["lr"], epochs, steps = FROZEN_LR, FROZEN_EPOCHS, FROZEN_STEPS
    chosen["epochs"] = max(epochs, math.ceil(steps / steps_per_epoch(config, images)))
    return replace(config, **{name: chosen[name] for name in AUTOMATIC_SETTINGS if getattr(config, name) is None})


def steps_per_epoch(config: TrainConfig, images: int) -> int:
    """Steps in which an epoch uses the images: whole batches with ``drop_last``, else as many as hold all images."""
    batch_size = min(config.batch_size, images)
    return images // batch_size if config.drop_last else math.ceil(images / batch_size)


def describe_defaults(requested: TrainConfig, config: TrainConfig, images: int, multi_label: bool, stages: int) -> str:
    """The automatic choices of a training in one line.

    Args:
        requested: the settings that the user asks for.
        config: the same, resolved.
        images: number of training images.
        multi_label: whether an image may have several classes.
        stages: number of stages of the backbone.

    >>> requested = TrainConfig("folder:my_images", alpha=1.0, kmax=0.4)
    >>> resolved = resolve_defaults(requested, images=1200, multi_label=False, stages=8)
    >>> print(*describe_defaults(requested, resolved, images=1200, multi_label=False, stages=8).split(", "), sep="\\n")
    1,200 images
    one label each: BatchNorm
    depthwise filters and 5 of 8 stages of the backbone frozen
    head fitted on frozen features first
    learning rate 0.01 (backbone 0.002)
    4 epochs = 300 steps
    """
    automatic = {name for name in AUTOMATIC_SETTINGS if getattr(requested, name) is None}
    parts = []
    if config.frozen:
        parts.append(f"the whole backbone frozen, {_described_views(config)} computed once")
    frozen = ["BatchNorm"] if "freeze_batch_norm" in automatic and config.freeze_batch_norm else []
    frozen += ["depthwise filters"] if "freeze_depthwise" in automatic and config.freeze_depthwise else []
    frozen += (
        [f"{config.freeze_stages} of {stages} stages"] if "freeze_stages" in automatic and config.freeze_stages else []
    )
    if frozen:
        parts.append(f"{' and '.join(filter(None, (', '.join(frozen[:-1]), frozen[-1])))} of the backbone frozen")
    if "fit_head" in automatic and config.solver == "sgd":
        first = "head fitted on frozen features first"
        hint = "" if config.frozen else " (only for pretrained weights it is fitted first)"
        parts.append(first if config.fit_head else f"random head{hint}")
    if "kmax" in automatic and "alpha" in automatic and config.pooling == "wildcat":
        parts.append(f"pooling with k {config.kmax}, alpha {config.alpha:g}")
    if "lr" in automatic:
        backbone = "" if config.frozen else f" (backbone {config.lr * config.backbone_lr_factor:g})"
        parts.append(f"learning rate {config.lr:g}{backbone}")
    if "epochs" in automatic:
        steps = config.epochs * steps_per_epoch(config, images)
        parts.append(f"{config.epochs} epochs = {steps:,} steps")
    kind = "several labels each" if multi_label else "one label each"
    return f"{images:,} images, {kind}: {', '.join(parts) or 'every setting was given'}"


def _described_views(config: TrainConfig) -> str:
    """What is computed of each image with a frozen backbone."""
    if config.feature_views > 1:
        return f"features of {config.feature_views} views of each image"
    return "features" if config.crop_area == 1 else "features of whole images (crops need feature_views 3 or more)"
