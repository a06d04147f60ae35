"""Learn from image-level tags alone to classify pictures, point at what is in them, and segment them.

>>> import wildcat
>>> predictor = wildcat.load("imagenet")

Names are imported when they are first used, so that ``import wildcat`` and ``wildcat --help`` cost next to nothing.
Training and scoring are functions of their modules: ``wildcat.train.train``, ``wildcat.evaluate.evaluate``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from wildcat._version import __version__
from wildcat.errors import WildcatError

if TYPE_CHECKING:
    from wildcat import crf, evaluate, masks, metrics, pooling, render, sheets, train
    from wildcat.config import TrainConfig
    from wildcat.data import open_dataset
    from wildcat.model import Wildcat, WildcatOutput, create_model
    from wildcat.predict import Predictor
    from wildcat.prediction import Prediction
    from wildcat.runs import load

__all__ = [
    "Prediction",
    "Predictor",
    "TrainConfig",
    "Wildcat",
    "WildcatError",
    "WildcatOutput",
    "__version__",
    "create_model",
    "crf",
    "evaluate",
    "load",
    "masks",
    "metrics",
    "open_dataset",
    "pooling",
    "render",
    "sheets",
    "train",
]

_HOME = {
    "Prediction": "prediction",
    "Predictor": "predict",
    "TrainConfig": "config",
    "Wildcat": "model",
    "WildcatOutput": "model",
    "create_model": "model",
    "load": "runs",
    "open_dataset": "data",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"wildcat.{_HOME[name]}"), name)
    elif name in __all__:
        value = importlib.import_module(f"wildcat.{name}")
    else:
        raise AttributeError(f"module 'wildcat' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
