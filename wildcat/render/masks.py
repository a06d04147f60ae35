"""Label maps as images: PNG files whose pixels are the labels, and overlays to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from wildcat.render.canvas import PAPER, TEXT, ImageLike, as_pil, rounded, scaled
from wildcat.render.colours import Colour, as_colour, class_colours
from wildcat.render.text import one_line

VOID = 255  # label of pixels that are ignored in scoring
LARGEST_SIDE = 1280  # mask_overlay reduces larger images to this
_SMALLEST_SIDE = 320  # mask_overlay enlarges smaller images to this, so that the legend has room


def voc_palette() -> npt.NDArray[np.uint8]:
    """The 256 colours of PASCAL VOC masks: (256, 3) uint8, one RGB row per label.

    Bits 0, 3, 6 of a label are the highest bits of red, bits 1, 4, 7 of green, bits 2, 5 of blue, as in the function
    ``VOClabelcolormap`` of the VOC development kit.

    >>> voc_palette()[[1, 15, 255]].tolist()
    [[128, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    labels = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for digit in range(3):
        for channel in range(3):
            bit = (labels >> (3 * digit + channel)) & 1
            palette[:, channel] |= (bit << (7 - digit)).astype(np.uint8)
    return palette


def mask_png(label_map: npt.ArrayLike) -> Image.Image:
    """A label map as an image whose pixel values are the labels.

    Args:
        label_map: (H, W), integers from 0 to 255, or uint16.

    Returns:
        An image of mode "P" with the PASCAL VOC palette; for uint16, a 16-bit greyscale image (mode "I;16").

    Raises:
        ValueError: another shape, type or value.

    >>> image = mask_png([[0, 1, 255]])
    >>> image.mode, image.getpixel((2, 0)), image.convert("RGB").getpixel((1, 0))
    ('P', 255, (128, 0, 0))
    """
    labels = _as_labels(label_map)
    image = Image.fromarray(labels)
    if labels.dtype == np.uint8:
        image.putpalette(voc_palette().tobytes())
    return image


def mask_overlay(
    image: ImageLike, label_map: npt.ArrayLike, classes: Sequence[str], *, opacity: float = 0.5
) -> Image.Image:
    """The image with the regions of a mask tinted and outlined, above a legend of their classes.

    Args:
        image: PIL image, or uint8 array (H, W, 3). It is scaled so that its longer side lies between 320 and
            ``LARGEST_SIDE`` pixels.
        label_map: (H, W), the size of the image: 0 background, 1 to C classes, 255 void (tinted grey). A uint16 map
            has no void.
        classes: the C names.
        opacity: of the tint, 0 to 1; outlines are always opaque.

    Returns:
        An RGB image; higher than the scaled image by the legend, if the mask has any class.

    Raises:
        ValueError: a mask of another size than the image, or a label without a name.

    >>> image = Image.new("RGB", (400, 300))
    >>> mask = np.zeros((300, 400), np.uint8)
    >>> mask[100:200, 100:300] = 2
    >>> overlay = mask_overlay(image, mask, ["cat", "dog"])
    >>> overlay.width, overlay.height > 300
    (400, True)
    """
    canvas = as_pil(image)
    labels = _as_labels(label_map)
    if labels.shape != (canvas.height, canvas.width):
        raise ValueError(f"label_map is {labels.shape} and the image {(canvas.height, canvas.width)}; they must agree")
    void = VOID if labels.dtype == np.uint8 else None
    present = [int(v) for v in np.unique(labels) if v != 0]
    unnamed = [v for v in present if v > len(classes) and v != void]
    if unnamed:
        raise ValueError(f"label_map holds the label {unnamed[0]}, but there are {len(classes)} classes")
    view = scaled(canvas, LARGEST_SIDE, smallest=_SMALLEST_SIDE)
    sigma = max(1.0, max(view.size) / 400)  # of the blur that smooths the outlines
    colours = class_colours(len(classes))
    legend = []
    for label in present:
        colour = (225, 225, 228) if label == void else as_colour(colours[label - 1])
        region = Image.fromarray(((labels == label) * 255).astype(np.uint8)).resize(
            view.size, Image.Resampling.BILINEAR
        )
        soft = region.filter(ImageFilter.GaussianBlur(sigma))
        view.paste(colour, (0, 0), soft.point(lambda v: v * opacity))
        if label != void:
            view.paste(colour, (0, 0), soft.point(lambda v: 255 * min(max(2.4 - abs(v / 255 - 0.5) * 7.5, 0), 1)))
            legend.append((classes[label - 1], colour))
    return _with_legend(view, legend)


def _with_legend(view: Image.Image, legend: Sequence[tuple[str, Colour]]) -> Image.Image:
    """The image above a legend: a chip of colour and a name per class, in as many rows as needed."""
    if not legend:
        return view
    size = round(min(max(max(view.size) / 40, 13), 22))
    chip, row = round(size * 0.9), round(size * 1.8)
    pad = round(size * 0.8)
    places, x, y = [], pad, pad // 2
    for name, colour in legend:
        text, font = one_line(name, size, view.width - 2 * pad - chip * 1.5)
        wide = round(chip * 1.5 + font.getlength(text))
        if x > pad and x + wide > view.width - pad:
            x, y = pad, y + row
        places.append((x, y, text, font, colour))
        x += wide + round(size * 1.4)
    sheet = Image.new("RGB", (view.width, view.height + y + row + pad // 2), PAPER)
    sheet.paste(view, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for x, y, text, font, colour in places:
        middle = view.height + y + row / 2
        sheet.paste(colour, (x, round(middle - chip / 2)), rounded((chip, chip), chip * 0.3))
        draw.text((x + chip * 1.5, middle), text, TEXT, font, anchor="lm")
    return sheet


def _as_labels(label_map: npt.ArrayLike) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """The label map as uint8; uint16 maps, of more than 254 classes, are returned as they are."""
    labels = np.asarray(label_map)
    if labels.ndim != 2 or labels.size == 0:
        raise ValueError(f"label_map must have the shape (H, W), not {labels.shape}")
    if labels.dtype == np.uint16:
        return labels
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() > 255:
        raise ValueError(
            f"label_map must hold whole numbers from 0 to 255, not {labels.dtype} {labels.min()}...{labels.max()}"
        )
    return labels.astype(np.uint8)
