"""Two photographs that are on every machine, for first looks."""

from pathlib import Path

import numpy as np
from PIL import Image


def sample_photographs() -> dict[str, Image.Image]:
    """The two photographs that come with scikit-learn (CC-BY 2.0, by danielle jaouich and Ronnie Jones)."""
    from sklearn.datasets import load_sample_images

    found = load_sample_images()
    return {
        Path(name).stem: Image.fromarray(np.asarray(image))
        for name, image in zip(found.filenames, found.images, strict=True)
    }
