"""Images of results: heatmaps, points, boxes and masks over an image, and contact sheets.

Arrays in, PIL images out. Inputs are not modified.
"""

from wildcat.render.canvas import scaled
from wildcat.render.masks import LARGEST_SIDE, mask_overlay, mask_png, voc_palette
from wildcat.render.overlays import class_overlay, draw_boxes, draw_points, heatmap_overlay, undecided
from wildcat.render.sheets import Entry, contact_sheet, prediction_overlay

__all__ = [
    "LARGEST_SIDE",
    "Entry",
    "class_overlay",
    "contact_sheet",
    "draw_boxes",
    "draw_points",
    "heatmap_overlay",
    "mask_overlay",
    "mask_png",
    "prediction_overlay",
    "scaled",
    "undecided",
    "voc_palette",
]
