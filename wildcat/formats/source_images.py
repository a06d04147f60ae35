"""Links to the predicted images, for formats whose readers expect images in their own folder."""

import logging

from wildcat.formats.predicted_image import PredictedImage
from wildcat.system.output_folder import OutputFolder

logger = logging.getLogger(__name__)


def link_image(out: OutputFolder, name: str, image: PredictedImage) -> None:
    """Link an image from the output folder. A file that is there already, such as a copy of the image, stays.

    Where links are not possible (some file systems, and images that are no files), the image is missing: to be copied.
    """
    if image.source is not None and not out.link(name, image.source):
        logger.debug("no link can be made at %s: copy the image there", out.path / name)
