"""The protocol of a format's writer."""

from typing import Protocol

from wildcat.formats.predicted_image import PredictedImage


class Writer(Protocol):
    """Writes predictions in one format. See :mod:`wildcat.formats` for an example."""

    def add(self, image: PredictedImage) -> None:
        """Write one image."""

    def finish(self) -> None:
        """Complete the files, after the last image."""

    def discard(self) -> None:
        """Remove incomplete files. Called in any case at the end, also after an error and after :meth:`finish`."""
