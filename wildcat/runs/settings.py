"""How a trained model is applied to images."""

from __future__ import annotations

from dataclasses import dataclass

from wildcat.errors import WildcatError
from wildcat.masks import Background, Mode


@dataclass(frozen=True)
class InferenceSettings:
    """How images are processed for a model, and how its masks are made.

    Attributes:
        classes: names in the order of the scores.
        multi_label: whether an image may have several classes (sigmoid) or has exactly one (softmax).
        score_sizes: sides in pixels to which images are resized for scores.
        map_sizes: sides to which they are resized for points and masks.
        mirror: whether the mirror image is processed too and averaged.
        background: mode and constants of the background of masks.
        background_class: whether the model has an additional last class, the background.
    """

    classes: tuple[str, ...]
    multi_label: bool
    score_sizes: tuple[int, ...]
    map_sizes: tuple[int, ...]
    mirror: bool = False
    background: Background = Background()  # noqa: RUF009 - it is frozen
    background_class: bool = False

    def __post_init__(self) -> None:
        """Check the background.

        Raises:
            WildcatError: if its mode needs a background class that the model does not have.
        """
        self.check_background(self.background.mode)

    def check_background(self, mode: Mode) -> None:
        """Check that the model allows a mode of the background.

        Raises:
            WildcatError: for the mode "class" if the model has no background class.
        """
        if mode == "class" and not self.background_class:
            raise WildcatError("the model has no background class for masks: train it with --background-class")
