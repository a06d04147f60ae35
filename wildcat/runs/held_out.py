"""The score of held-out images at the end of a training, which its run directory keeps as held_out.json."""

from dataclasses import asdict, dataclass
from pathlib import Path

from wildcat.errors import WildcatError
from wildcat.system.files import write_json
from wildcat.system.json_object import JsonObject

HELD_OUT = "held_out.json"


@dataclass(frozen=True)
class HeldOutScore:
    """A score of images that were not used for training; ``wildcat evaluate`` scores all of them, in all ways.

    Attributes:
        metric: "mAP" or "accuracy".
        score: in per cent.
        low: lower bound of the 95 % interval (bootstrap over images), in per cent.
        high: upper bound.
        images: number of images scored.
        available: number of images of the split, of which those scored are a random choice.
        split: their split.
    """

    metric: str
    score: float
    low: float
    high: float
    images: int
    available: int
    split: str

    def __str__(self) -> str:
        """The score in words.

        >>> str(HeldOutScore("accuracy", 85.0, 75.0, 93.3, 60, 60, "test"))
        'accuracy 85.0 % of 60 held-out images (95 % interval: 75.0 to 93.3)'
        """
        number = f"{self.images:,} held-out images"
        if self.images < self.available:
            number = f"{self.images:,} of {self.available:,} held-out images"
        return f"{self.metric} {self.score:.1f} % of {number} (95 % interval: {self.low:.1f} to {self.high:.1f})"


def save_held_out(folder: Path, score: HeldOutScore) -> None:
    """Write ``held_out.json``."""
    write_json(folder / HELD_OUT, {"format": 1, **asdict(score)})


def read_held_out(folder: Path) -> HeldOutScore | None:
    """Read ``held_out.json``; None if the run has none, or a damaged one."""
    file = folder / HELD_OUT
    if not file.is_file():
        return None
    try:
        values = JsonObject.read(file)
        score, low, high = (values.number(name) for name in ("score", "low", "high"))
        images, available = values.count("images"), values.count("available")
        return HeldOutScore(values.text("metric"), score, low, high, images, available, values.text("split"))
    except WildcatError:
        return None
