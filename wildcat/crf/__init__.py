"""Fully connected CRF (Section 4.3 of the paper): refines the borders of masks.

:func:`dense_crf` runs mean-field inference with Gaussian filters on the permutohedral lattice.
"""

from wildcat.crf.mean_field import PRESETS, CRFSettings, dense_crf

__all__ = ["PRESETS", "CRFSettings", "dense_crf"]
