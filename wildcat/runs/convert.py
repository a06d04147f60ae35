"""Converting checkpoints of the authors' code (durandtibo/wildcat.pytorch) to run directories with the same scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wildcat.config import Regions, TrainConfig
from wildcat.errors import WildcatError
from wildcat.runs.folder import CONFIG, Run, build_model, save_config, save_weights

# The authors' backbone is one sequence of these parts; 2 and 3 are the activation and the pooling of the stem.
PARTS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
# Blocks per stage, and whether a block has three convolutions.
DEPTHS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}


def convert(
    file: Path,
    out: Path,
    classes: list[str],
    *,
    kmax: Regions,
    kmin: Regions | None = None,
    alpha: float,
    image_size: int = 448,
    multi_label: bool = True,
) -> Run:
    """Write a run directory whose model gives the same scores as the checkpoint in the authors' code.

    Their code divides the score by 2 if the k- term is used, but Equation 3 does not; therefore the filters and biases
    of the transfer layer are halved, which is exact. Class maps are half of theirs; points, ranks and masks are equal.

    Args:
        file: the checkpoint, read as tensors and plain values only; no code in it is executed.
        out: the new run directory.
        classes: names in the order of the scores; their number gives the number of maps per class.
        kmax: k+ of the training (``--k`` in the authors' code); the file does not hold it, nor the next two.
        kmin: k-; equal to kmax unless given.
        alpha: weight of the k- term (``--alpha`` in the authors' code).
        image_size: side of the images in pixels (``--image-size`` in the authors' code).
        multi_label: whether an image may have several classes, or has exactly one as in MIT67.

    Returns:
        The run.

    Raises:
        WildcatError: if the file is not such a checkpoint or does not fit the classes, or the folder holds a run.
    """
    if (out / CONFIG).exists():
        raise WildcatError(f"{out} already holds a run")
    state = read_checkpoint(file)
    backbone = _depth(state, file)
    filters = state["classifier.0.weight"].shape[0]
    num_maps, rest = divmod(filters, len(classes))
    if rest:
        raise WildcatError(f"{file} has {filters} maps, which {len(classes)} classes cannot share equally")
    config = TrainConfig(
        data=f"converted:{file.name}",
        backbone=backbone,
        pretrained=False,
        num_maps=num_maps,
        kmax=kmax,
        kmin=kmin,
        alpha=alpha,
        image_size=image_size,
    )
    model = build_model(config, len(classes), pretrained=False)
    # This includes --alpha 0: they test `alpha is not 0`, which is true for the 0.0 that their parser returns.
    factor = 1.0 if (kmax if kmin is None else kmin) == 0 else 0.5
    own = model.state_dict()
    converted = {
        "transfer.weight": factor * state["classifier.0.weight"],
        "transfer.bias": factor * state["classifier.0.bias"],
        **{
            f"backbone.net.{PARTS[part]}.{rest}": value
            for key, value in state.items()
            for _, part, rest in [key.split(".", 2)]
            if key.startswith("features.")
        },
    }
    # PyTorch 0.3 had no `num_batches_tracked` in BatchNorm.
    missing = [key for key in own if key not in converted and not key.endswith("num_batches_tracked")]
    wrong = [key for key in converted if key not in own or own[key].shape != converted[key].shape]
    if missing or wrong:
        raise WildcatError(f"{file} does not fit {backbone}: first of {len(missing + wrong)}: {(missing + wrong)[0]}")
    model.load_state_dict(own | converted)
    run = Run(config, tuple(classes), multi_label, model.backbone.mean, model.backbone.std, images=0)
    out.mkdir(parents=True, exist_ok=True)
    save_weights(out, model.state_dict())
    save_config(out, run)
    return run


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint of the authors' code, without the prefix of DataParallel.

    Raises:
        WildcatError: if it cannot be read without executing code in it, or is not such a checkpoint.
    """
    if not file.is_file():
        raise WildcatError(f"{file} does not exist")
    try:
        # Their best score may be a NumPy number; these constructors only make plain values.
        number: Any = np._core.multiarray.scalar  # type: ignore[attr-defined]
        harmless: list[Any] = [
            (number, "numpy.core.multiarray.scalar"),
            (number, "numpy._core.multiarray.scalar"),
            np.dtype,
            *(type(np.dtype(kind)) for kind in ("float32", "float64", "int64")),
        ]
        with torch.serialization.safe_globals(harmless):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file, or a pickle of other objects
        raise WildcatError(f"{file} cannot be read as a checkpoint of tensors and plain values alone") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WildcatError(f"{file} holds no state dict")
    tensors = {str(key).removeprefix("module."): value for key, value in state.items()}
    layers = {f"features.{part}" for part in PARTS}
    unknown = [key for key in tensors if ".".join(key.split(".")[:2]) not in layers | {"classifier.0"}]
    needed = ["classifier.0.weight", "classifier.0.bias", "features.0.weight"]
    if unknown or any(key not in tensors for key in needed):
        example = unknown[0] if unknown else next(key for key in needed if key not in tensors)
        raise WildcatError(
            f"{file} is no checkpoint of the authors' code: {'it holds' if unknown else 'it lacks'} {example}"
        )
    return tensors


def _depth(state: Mapping[str, Tensor], file: Path) -> str:
    """The name of the ResNet with these numbers of blocks."""
    blocks = tuple(len({key.split(".")[2] for key in state if key.startswith(f"features.{i}.")}) for i in (4, 5, 6, 7))
    depth = DEPTHS.get((blocks, "features.4.0.conv3.weight" in state))
    if depth is None:
        raise WildcatError(f"{file} has stages of {', '.join(map(str, blocks))} blocks, which no known ResNet has")
    return depth


def read_classes(given: str) -> list[str]:
    """Parse class names: "voc", a file with one name per line, or names separated by commas.

    Raises:
        WildcatError: for an empty name, or one that occurs twice.
    """
    if given == "voc":
        from wildcat.data.voc import CLASSES

        return list(CLASSES)
    names = Path(given).read_text(encoding="utf-8").splitlines() if Path(given).is_file() else given.split(",")
    names = [name.strip() for name in names]
    while names and not names[-1]:
        names.pop()
    twice = [name for name in names if names.count(name) > 1]
    if not names or not all(names) or twice:
        raise WildcatError(
            f"class names must not be empty, nor occur twice{': ' + twice[0] if twice else ''}; got {given}"
        )
    return names
