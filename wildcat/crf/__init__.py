"""Fully connected CRF (Section 4.3): mean-field inference with filtering on the permutohedral lattice."""

from wildcat.crf.mean_field import PRESETS, CRFSettings, dense_crf

__all__ = ["PRESETS", "CRFSettings", "dense_crf"]
