"""Two sample photographs that are installed with scikit-learn."""

from pathlib import Path

import numpy as np
from PIL import Image


def sample_photographs() -> dict[str, Image.Image]:
    """Name -> photograph: the two of scikit-learn (CC-BY 2.0, by danielle jaouich and Ronnie Jones)."""
    from sklearn.datasets import load_sample_images

    bunch = load_sample_images()
    return {
        Path(name).stem: Image.fromarray(np.asarray(image))
        for name, image in zip(bunch.filenames, bunch.images, strict=True)
    }
