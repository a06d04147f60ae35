"""Images that show results: heatmaps, points and masks on an image, and contact sheets."""

from wildcat.render.overlays import (
    LARGEST_SIDE,
    draw_points,
    heatmap_overlay,
    mask_overlay,
    mask_png,
    undecided,
    voc_palette,
)
from wildcat.render.sheets import Entry, contact_sheet, prediction_overlay

__all__ = [
    "LARGEST_SIDE",
    "Entry",
    "contact_sheet",
    "draw_points",
    "heatmap_overlay",
    "mask_overlay",
    "mask_png",
    "prediction_overlay",
    "undecided",
    "voc_palette",
]
