"""How a trained model is applied to images."""

from __future__ import annotations

from dataclasses import dataclass

from wildcat.errors import WildcatError
from wildcat.masks import Background, Mode


@dataclass(frozen=True)
class InferenceSettings:
    """How a model reads images.

    Attributes:
        classes: names in the order of the scores.
        multi_label: several classes in an image (sigmoid), or exactly one (softmax).
        score_sizes: sides in pixels at which images are read for scores.
        map_sizes: sides at which they are read for points and masks.
        mirror: also read the mirror image.
        background: where masks have their background.
        background_class: whether the model has a further class, the last: the background.
    """

    classes: tuple[str, ...]
    multi_label: bool
    score_sizes: tuple[int, ...]
    map_sizes: tuple[int, ...]
    mirror: bool = False
    background: Background = Background()  # noqa: RUF009 - it is frozen
    background_class: bool = False

    def __post_init__(self) -> None:
        """Reject a background that the model cannot give.

        Raises:
            WildcatError: saying which.
        """
        self.check_background(self.background.mode)

    def check_background(self, mode: Mode) -> None:
        """Reject the mode "class" where the model has no background class.

        Raises:
            WildcatError: saying how to get one.
        """
        if mode == "class" and not self.background_class:
            raise WildcatError("the model has no background class for masks: train it with --background-class")
