"""Synthetic images, rendered from a seed: no files, and every box and mask is known exactly.

Each image shows one to four objects of eight classes on a textured background, among smaller shapes that belong to no
class. A class is a shape of two parts (cap and stem, hull and fins, ...); the colours of every object are random: only
its shape shows its class. Image i of (seed, split) depends on these three alone: not on the number of images, nor on
those rendered before. The scene is laid out in fractions of the side, so it is the same at every size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from wildcat.data import synthetic_shapes as shapes
from wildcat.data.sample import Dataset, Parts, Sample
from wildcat.data.synthetic_shapes import Part, Points, Rng, Shape
from wildcat.errors import WildcatError
from wildcat.render.colours import Colour, as_colour, oklch

CLASSES = tuple(shapes.CLASSES)
COUNTS = {"train": 480, "val": 120, "test": 240}  # images of each split
SIZES = (32, 2048)  # smallest and largest side, in pixels
DIFFICULT_BELOW = 0.25  # an object with less than this fraction visible is "difficult"

_SEED, _SIZE = 0, 256  # defaults
_OBJECTS = (0.30, 0.35, 0.23, 0.12)  # probability of one, two, three, four objects
_DISTRACTORS = (0.30, 0.35, 0.25, 0.10)  # of none, one, two, three
_SUPERSAMPLING = 3
_SHADOW: Colour = (24, 20, 40)
_PLAIN: list[Colour] = [(0, 0, 0)] * 8  # for masks, where colours do not matter
_LAYOUT, _COLOURS = 0, 1  # two random streams for each image: boxes and masks do not need the colours


# ---- Scene layout -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _PlacedShape:
    """One shape placed in the image; ``label`` 0 means no class. Lengths are fractions of the side."""

    label: int
    parts: list[Part]  # polygons in fractions of the side, around the centre
    centre: tuple[float, float]
    radius: float


def _place(label: int, shape: Shape, turn: float, radius: float, centre: Points, rng: Rng) -> _PlacedShape:
    angle = math.radians(rng.uniform(-turn, turn))
    stretch = rng.uniform(0.88, 1.0)
    mirror = rng.choice((-1.0, 1.0))
    linear = radius * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    linear *= np.array([[mirror * stretch], [1.0]])
    parts = [(fill, points @ linear) for fill, points in shape(rng)]
    return _PlacedShape(label, parts, (float(centre[0]), float(centre[1])), float(radius))


def _free_centre(taken: list[tuple[Points, float]], radius: float, spacing: float, rng: Rng) -> Points:
    """A centre at least ``spacing`` times the summed radii from every other, else the best of 20 random ones."""
    best, best_gap = np.zeros(2), -math.inf
    for _ in range(20):
        centre = rng.uniform(0.8 * radius, 1 - 0.8 * radius, 2)
        gap = min((math.dist(centre, other) / (radius + r) for other, r in taken), default=math.inf)
        if gap > best_gap:
            best, best_gap = centre, gap
        if gap >= spacing:
            break
    return best


def _covering_centre(taken: list[tuple[Points, float]], radius: float, rng: Rng) -> Points:
    """A centre where the shape hides much of an earlier one."""
    other, other_radius = taken[rng.integers(len(taken))]
    angle, away = rng.uniform(0, 2 * math.pi), rng.uniform(0.15, 0.6) * (radius + other_radius)
    centre = other + away * np.array([math.cos(angle), math.sin(angle)])
    return np.clip(centre, 0.8 * radius, 1 - 0.8 * radius)


def _layout(rng: Rng) -> list[_PlacedShape]:
    """The shapes back to front: distractors first, so that they never hide an object."""
    count = 1 + int(rng.choice(len(_OBJECTS), p=_OBJECTS))
    largest = {1: 0.36, 2: 0.32, 3: 0.27, 4: 0.24}[count]
    radii = np.exp(rng.uniform(math.log(0.12), math.log(largest), count))
    taken: list[tuple[Points, float]] = []
    objects = []
    for radius in radii:
        covers = bool(taken) and rng.random() < 0.15
        if covers:
            centre = _covering_centre(taken, radius, rng)
        else:
            centre = _free_centre(taken, radius, rng.uniform(0.6, 1.0), rng)
        taken.append((centre, radius))
        label = int(rng.integers(len(CLASSES)))
        shape, turn = shapes.CLASSES[CLASSES[label]]
        objects.append(_place(label + 1, shape, turn, radius, centre, rng))
    distractors = []
    for _ in range(int(rng.choice(len(_DISTRACTORS), p=_DISTRACTORS))):
        radius = rng.uniform(0.05, 0.11)
        centre = _free_centre(taken, radius, 0.9, rng)
        taken.append((centre, radius))
        shape = shapes.DISTRACTORS[rng.integers(len(shapes.DISTRACTORS))]
        distractors.append(_place(0, shape, 25.0, radius, centre, rng))
    return distractors + objects


# ---- From polygons to pixels --------------------------------------------------------------------------------------


def _rasterise(item: _PlacedShape, size: int, fills: list[Colour]) -> tuple[Image.Image, Image.Image, int, int]:
    """Render one shape: its coverage (L), its colours (RGB), and left and top of both in the image.

    The colours lie on a canvas of the main colour, so that the rim has no fringe of another colour.
    """
    side = math.ceil(2.1 * item.radius * size) + 2
    left, top = (math.floor(c * size) - side // 2 for c in item.centre)
    canvas = (side * _SUPERSAMPLING, side * _SUPERSAMPLING)
    coverage, colours = Image.new("L", canvas), Image.new("RGB", canvas, fills[shapes.MAIN])
    draw_coverage, draw_colours = ImageDraw.Draw(coverage), ImageDraw.Draw(colours)
    corner = np.array(item.centre) * size - (left, top)
    for fill, points in item.parts:
        outline = ((points * size + corner) * _SUPERSAMPLING - 0.5).ravel().tolist()
        draw_coverage.polygon(outline, fill=255)
        draw_colours.polygon(outline, fill=fills[fill])
    return coverage.reduce(_SUPERSAMPLING), colours.reduce(_SUPERSAMPLING), left, top


def _instances(placed: list[_PlacedShape], size: int) -> tuple[npt.NDArray[np.uint8], list[float]]:
    """The shape in front at each pixel (index + 1, 0 for the background), and the visible fraction of each shape."""
    front = np.zeros((size, size), np.uint8)
    areas = []
    for index, item in enumerate(placed):
        coverage, _, left, top = _rasterise(item, size, _PLAIN)
        inside = np.asarray(coverage) >= 128
        areas.append(int(inside.sum()))
        y1, x1 = max(top, 0), max(left, 0)
        cut = inside[y1 - top : size - top, x1 - left : size - left]
        front[y1 : y1 + cut.shape[0], x1 : x1 + cut.shape[1]][cut] = index + 1
    visible_areas = np.bincount(front.ravel(), minlength=len(placed) + 1)[1:]
    return front, [float(s / max(a, 1)) for s, a in zip(visible_areas, areas, strict=True)]


def _part_boxes(item: _PlacedShape, size: int) -> list[tuple[str, Points]]:
    """The two parts of a shape, "main" and "accent": names, and boxes in pixels, at most the image's.

    What has the main colours is one part, a tier of a tree or a gore of an umbrella; of the accent colours the outer
    polygons count, each for itself: a rocket's two fins, but not its window.
    """
    low, high = (np.array(corner) for corner in ((0, 0), (size, size)))
    main = [points for fill, points in item.parts if fill in (shapes.MAIN, shapes.MAIN_DARK, shapes.MAIN_LIGHT)]
    accents = [points for fill, points in item.parts if fill == shapes.ACCENT]
    found = []
    for name, points in (("main", np.concatenate(main)), *(("accent", points) for points in accents)):
        placed = np.clip((points + item.centre) * size, low, high)
        found.append((name, np.concatenate([placed.min(axis=0), placed.max(axis=0)])))
    return found


# ---- Colours ------------------------------------------------------------------------------------------------------


def _fills(dark_background: bool, rng: Rng) -> list[Colour]:
    """Main and accent colours, each with a darker and a lighter one, in the order of the fills."""
    hue = rng.uniform(0, 360)
    hues = [[hue], [hue + rng.choice((-1, 1)) * rng.uniform(70, 180)]]
    low, high = (0.64, 0.8) if dark_background else (0.52, 0.72)
    lightness = rng.uniform(low, high, (2, 1)) + np.array([0.0, -0.13, 0.14])
    chroma = rng.uniform(0.1, 0.17, (2, 1)) * np.array([1.0, 1.0, 0.6])
    shades = oklch(lightness, chroma, hues).reshape(6, 3)
    return [*(as_colour(rgb) for rgb in shades), (252, 250, 245), (38, 36, 46)]


def _noise(cells: int, size: int, rng: Rng) -> npt.NDArray[np.float32]:
    """Smooth noise in about [-1, 1]: random cells, enlarged."""
    grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))


def _pattern(size: int, rng: Rng) -> npt.NDArray[np.floating]:
    """The share of the second background colour at each pixel: (size, size), about [0, 1]."""
    kind = rng.integers(6)
    pitch = rng.uniform(0.06, 0.16)  # of the repeat, in fractions of the side
    angle = rng.uniform(0, np.pi)
    steps = (np.arange(size, dtype=np.float32) + 0.5) / (size * pitch)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    along = cos * steps[None, :] + sin * steps[:, None]  # in repeats
    across = cos * steps[:, None] - sin * steps[None, :]
    sharpness = np.float32(size * pitch / 1.5)  # edges 1.5 pixels wide
    if kind == 0:  # washes of water colour
        return 0.5 + 0.5 * _noise(6, size, rng)
    if kind == 1:  # stripes
        return 0.5 + (0.25 - np.abs(along % 1 - 0.5)) * sharpness
    if kind == 2:  # dots, every other row shifted
        u, v = along % 1 - 0.5, (across + np.floor(along) / 2) % 1 - 0.5
        return 0.5 + (0.24 - np.sqrt(u * u + v * v)) * sharpness
    if kind == 3:  # wavy stripes
        bent = along + 0.25 * np.sin(across * np.float32(2 * np.pi / 2.2))
        return 0.5 + (0.25 - np.abs(bent % 1 - 0.5)) * sharpness
    if kind == 4:  # gingham
        warp, weft = (0.5 + (0.25 - np.abs(line % 1 - 0.5)) * sharpness for line in (along, across))
        return (np.clip(warp, 0, 1) + np.clip(weft, 0, 1)) / 2
    wood: npt.NDArray[np.floating] = np.sin(2 * np.pi * (along + 0.9 * _noise(4, size, rng)))
    return 0.5 + 0.4 * wood


def _background(size: int, rng: Rng) -> tuple[Image.Image, bool]:
    """A textured background of low contrast, and whether it is dark."""
    dark = bool(rng.random() < 0.25)
    lightness = rng.uniform(0.34, 0.44) if dark else rng.uniform(0.8, 0.93)
    step = rng.choice((-1, 1)) * rng.uniform(0.04, 0.07)
    chroma, hue, turn = rng.uniform(0.02, 0.065), rng.uniform(0, 360), rng.uniform(-50, 50)
    first, second = (
        Image.new("RGB", (size, size), as_colour(rgb))
        for rgb in oklch([lightness, lightness + step], chroma, [hue, hue + turn])
    )
    mix = (np.clip(_pattern(size, rng), 0, 1) * 255).astype(np.uint8)
    return Image.composite(second, first, Image.fromarray(mix)), dark


def _relief(coverage: Image.Image, radius: float) -> npt.NDArray[np.floating]:
    """Change of brightness of a softly raised shape lit from the upper left; about [-1, 1]."""
    soft = np.asarray(coverage.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255
    step = max(1, round(radius))
    relief: npt.NDArray[np.floating] = np.roll(soft, (-step, -step), (0, 1)) - np.roll(soft, (step, step), (0, 1))
    return relief


def _cast_shadow(image: Image.Image, coverage: Image.Image, left: int, top: int, unit: float) -> None:
    """Darken ``image`` softly below and to the right of a shape of radius ``unit`` pixels."""
    margin = math.ceil(0.3 * unit)
    shadow = Image.new("L", (coverage.width + 2 * margin, coverage.height + 2 * margin))
    shadow.paste(87, (margin, margin), coverage)  # 87 / 255: a third of full strength
    shadow = shadow.filter(ImageFilter.GaussianBlur(0.08 * unit))
    image.paste(_SHADOW, (left - margin + round(0.05 * unit), top - margin + round(0.09 * unit)), shadow)


def _render(placed: list[_PlacedShape], size: int, rng: Rng) -> Image.Image:
    image, dark = _background(size, rng)
    for item in placed:
        fills = _fills(dark, rng)
        coverage, colours, left, top = _rasterise(item, size, fills)
        unit = item.radius * size
        _cast_shadow(image, coverage, left, top, unit)
        raised = np.asarray(colours, dtype=np.float32) + 40 * _relief(coverage, 0.07 * unit)[..., None]
        image.paste(Image.fromarray(np.clip(raised, 0, 255).astype(np.uint8)), (left, top), coverage)
    # Light falls from above, a little unevenly; then the grain of paper.
    light = 1 + np.linspace(0.035, -0.035, size, dtype=np.float32)[:, None] + 0.035 * _noise(4, size, rng)
    grain = 2.2 * rng.standard_normal((size, size), dtype=np.float32)
    planes = [np.clip(np.asarray(p, dtype=np.float32) * light + grain, 0, 255).astype(np.uint8) for p in image.split()]
    return Image.merge("RGB", [Image.fromarray(plane) for plane in planes])


# ---- The dataset -------------------------------------------------------------------------------------------------


class Synthetic(Dataset):
    """Images that are rendered when they are read; see :func:`synthetic`."""

    def __init__(self, split: str, count: int, seed: int, size: int) -> None:
        """Lay out every scene for its labels and boxes; no image is rendered."""
        self.seed, self.size = seed, size
        self._split_number = tuple(COUNTS).index(split)
        options = {"count": (count, COUNTS[split]), "seed": (seed, _SEED), "size": (size, _SIZE)}
        given = ",".join(f"{name}={value}" for name, (value, default) in options.items() if value != default)
        super().__init__(f"synthetic:{given}" if given else "synthetic", split, CLASSES, [])
        self.samples = [self._sample(number) for number in range(count)]

    def _stream(self, number: int, purpose: int) -> Rng:
        return np.random.default_rng([self.seed, self._split_number, number, purpose])

    def _number(self, index: int) -> int:
        return int(self.samples[index].name)  # the name, not the index: images stay the same in a subset

    def _sample(self, number: int) -> Sample:
        placed = _layout(self._stream(number, _LAYOUT))
        front, visible = _instances(placed, self.size)
        labels = np.full(len(CLASSES), -1, np.int8)
        boxes: list[tuple[float, float, float, float]] = []
        box_classes, box_difficult = [], []
        kinds, part_boxes, part_objects = [], [], []
        for index, (item, fraction) in enumerate(zip(placed, visible, strict=True)):
            if item.label == 0 or fraction == 0:
                continue
            rows, columns = np.nonzero(front == index + 1)
            difficult = fraction < DIFFICULT_BELOW
            for kind, box in _part_boxes(item, self.size):
                kinds.append(kind)
                part_boxes.append(box)
                part_objects.append(len(boxes))
            boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
            box_classes.append(item.label - 1)
            box_difficult.append(difficult)
            labels[item.label - 1] = max(labels[item.label - 1], 0 if difficult else 1)
        return Sample(
            name=f"{number:06d}",
            path=None,
            labels=labels,
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            box_classes=np.array(box_classes, np.int64),
            box_difficult=np.array(box_difficult, np.bool_),
            parts=Parts(
                np.array(part_boxes, np.float32).reshape(-1, 4), tuple(kinds), np.array(part_objects, np.int64)
            ),
        )

    @property
    def has_masks(self) -> bool:
        """True: every image has a mask."""
        return True

    def image(self, index: int, draft_size: int | None = None) -> Image.Image:
        """RGB image (size, size); ``draft_size`` has no effect."""
        number = self._number(index)
        return _render(_layout(self._stream(number, _LAYOUT)), self.size, self._stream(number, _COLOURS))

    def mask(self, index: int) -> npt.NDArray[np.uint8]:
        """Label map (size, size): 0 background and shapes of no class, 1 ... C classes; no pixel is void."""
        placed = _layout(self._stream(self._number(index), _LAYOUT))
        front, _ = _instances(placed, self.size)
        return np.array([0, *(item.label for item in placed)], np.uint8)[front]


def synthetic(split: str, count: int | None = None, seed: int = _SEED, size: int = _SIZE) -> Synthetic:
    """The synthetic dataset: rendered from a seed, multi-label, with boxes and masks.

    Labels, boxes and masks are those of the visible parts. An object with less than a quarter visible is "difficult";
    one that is completely hidden is left out. The images repeat exactly with the same versions of NumPy and Pillow on
    the same kind of machine.

    Args:
        split: "train", "val" or "test"; no image is in two of them.
        count: number of images; 480, 120 and 240 by default. A larger number adds images after the same first ones.
        seed: 0 or more; each seed gives other images.
        size: side of the square images in pixels, 32 to 2048. The scenes are the same at every size.

    Raises:
        WildcatError: an unknown split, or a number outside its range.
    """
    if split not in COUNTS:
        raise WildcatError(f"synthetic: there is no split {split!r}; allowed are {', '.join(COUNTS)}")
    if count is None:
        count = COUNTS[split]
    if not 1 <= count <= 1_000_000:
        raise WildcatError(f"synthetic: count={count} is not allowed; it must be 1 to 1000000")
    if seed < 0:
        raise WildcatError(f"synthetic: seed={seed} is not allowed; it must be 0 or more")
    if not SIZES[0] <= size <= SIZES[1]:
        raise WildcatError(f"synthetic: size={size} is not allowed; it must be {SIZES[0]} to {SIZES[1]}")
    return Synthetic(split, count, seed, size)
