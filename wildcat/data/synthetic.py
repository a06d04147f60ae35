"""Images drawn from a seed: no files, and every box and mask is known exactly.

Each image shows one to four objects of eight classes on a textured ground, among smaller shapes that belong to no
class. A class is a shape of two parts (cap and stem, hull and fins, ...); colours are drawn at random for every object,
so that only the shape decides. Image i of (seed, split) depends on these three alone: not on how many images there
are, nor on which were drawn before. The scene is laid out in fractions of the side, so it is the same at every size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from wildcat.data import drawings
from wildcat.data.drawings import Drawing, Part, Points, Rng
from wildcat.data.sample import Dataset, Sample
from wildcat.errors import WildcatError
from wildcat.render.colours import Colour, as_colour, oklch

CLASSES = tuple(drawings.CLASSES)
COUNTS = {"train": 480, "val": 120, "test": 240}  # images of each split
SIZES = (32, 2048)  # smallest and largest side, in pixels
DIFFICULT_BELOW = 0.25  # an object of which less than this fraction is visible is "difficult"

_SEED, _SIZE = 0, 256  # defaults
_OBJECTS = (0.30, 0.35, 0.23, 0.12)  # probability of one, two, three, four objects
_DISTRACTORS = (0.30, 0.35, 0.25, 0.10)  # of none, one, two, three
_SUPERSAMPLING = 3
_SHADOW: Colour = (24, 20, 40)
_PLAIN: list[Colour] = [(0, 0, 0)] * 8  # for masks, where colours do not matter
_SCENE, _PAINT = 0, 1  # two random streams for each image: boxes and masks need no colours


# ---- The scene: what lies where -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Thing:
    """One drawing placed in the image; ``label`` 0 belongs to no class. Lengths are fractions of the side."""

    label: int
    parts: list[Part]  # polygons in fractions of the side, around the thing's centre
    centre: tuple[float, float]
    radius: float


def _place(label: int, drawing: Drawing, turn: float, radius: float, centre: Points, rng: Rng) -> _Thing:
    angle = math.radians(rng.uniform(-turn, turn))
    stretch = rng.uniform(0.88, 1.0)
    mirror = rng.choice((-1.0, 1.0))
    linear = radius * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    linear *= np.array([[mirror * stretch], [1.0]])
    parts = [(fill, points @ linear) for fill, points in drawing(rng)]
    return _Thing(label, parts, (float(centre[0]), float(centre[1])), float(radius))


def _find_room(taken: list[tuple[Points, float]], radius: float, spacing: float, rng: Rng) -> Points:
    """A centre at least ``spacing`` of the summed radii from every other, or the roomiest of 20 tried."""
    best, best_gap = np.zeros(2), -math.inf
    for _ in range(20):
        centre = rng.uniform(0.8 * radius, 1 - 0.8 * radius, 2)
        gap = min((math.dist(centre, other) / (radius + r) for other, r in taken), default=math.inf)
        if gap > best_gap:
            best, best_gap = centre, gap
        if gap >= spacing:
            break
    return best


def _find_cover(taken: list[tuple[Points, float]], radius: float, rng: Rng) -> Points:
    """A centre where a thing hides much of an earlier one."""
    other, other_radius = taken[rng.integers(len(taken))]
    angle, away = rng.uniform(0, 2 * math.pi), rng.uniform(0.15, 0.6) * (radius + other_radius)
    centre = other + away * np.array([math.cos(angle), math.sin(angle)])
    return np.clip(centre, 0.8 * radius, 1 - 0.8 * radius)


def _scene(rng: Rng) -> list[_Thing]:
    """Things back to front: distractors first, so that they never hide an object."""
    count = 1 + int(rng.choice(len(_OBJECTS), p=_OBJECTS))
    largest = {1: 0.36, 2: 0.32, 3: 0.27, 4: 0.24}[count]
    radii = np.exp(rng.uniform(math.log(0.12), math.log(largest), count))
    taken: list[tuple[Points, float]] = []
    objects = []
    for radius in radii:
        covers = bool(taken) and rng.random() < 0.15
        centre = _find_cover(taken, radius, rng) if covers else _find_room(taken, radius, rng.uniform(0.6, 1.0), rng)
        taken.append((centre, radius))
        label = int(rng.integers(len(CLASSES)))
        drawing, turn = drawings.CLASSES[CLASSES[label]]
        objects.append(_place(label + 1, drawing, turn, radius, centre, rng))
    distractors = []
    for _ in range(int(rng.choice(len(_DISTRACTORS), p=_DISTRACTORS))):
        radius = rng.uniform(0.05, 0.11)
        centre = _find_room(taken, radius, 0.9, rng)
        taken.append((centre, radius))
        drawing = drawings.DISTRACTORS[rng.integers(len(drawings.DISTRACTORS))]
        distractors.append(_place(0, drawing, 25.0, radius, centre, rng))
    return distractors + objects


# ---- From polygons to pixels --------------------------------------------------------------------------------------


def _rasterise(thing: _Thing, size: int, fills: list[Colour]) -> tuple[Image.Image, Image.Image, int, int]:
    """One thing in pixels: its coverage (L), its colours (RGB), and where their corner lies in the image.

    The colours are drawn over a canvas of the main colour, so that the rim has no fringe of another.
    """
    side = math.ceil(2.1 * thing.radius * size) + 2
    left, top = (math.floor(c * size) - side // 2 for c in thing.centre)
    canvas = (side * _SUPERSAMPLING, side * _SUPERSAMPLING)
    coverage, colours = Image.new("L", canvas), Image.new("RGB", canvas, fills[drawings.MAIN])
    draw_coverage, draw_colours = ImageDraw.Draw(coverage), ImageDraw.Draw(colours)
    corner = np.array(thing.centre) * size - (left, top)
    for fill, points in thing.parts:
        outline = ((points * size + corner) * _SUPERSAMPLING - 0.5).ravel().tolist()
        draw_coverage.polygon(outline, fill=255)
        draw_colours.polygon(outline, fill=fills[fill])
    return coverage.reduce(_SUPERSAMPLING), colours.reduce(_SUPERSAMPLING), left, top


def _instances(things: list[_Thing], size: int) -> tuple[npt.NDArray[np.uint8], list[float]]:
    """Which thing is seen at each pixel (index + 1, 0 for the ground), and how much of each is visible."""
    front = np.zeros((size, size), np.uint8)
    areas = []
    for index, thing in enumerate(things):
        coverage, _, left, top = _rasterise(thing, size, _PLAIN)
        inside = np.asarray(coverage) >= 128
        areas.append(int(inside.sum()))
        y1, x1 = max(top, 0), max(left, 0)
        cut = inside[y1 - top : size - top, x1 - left : size - left]
        front[y1 : y1 + cut.shape[0], x1 : x1 + cut.shape[1]][cut] = index + 1
    seen = np.bincount(front.ravel(), minlength=len(things) + 1)[1:]
    return front, [float(s / max(a, 1)) for s, a in zip(seen, areas, strict=True)]


# ---- Paint --------------------------------------------------------------------------------------------------------


def _fills(dark_ground: bool, rng: Rng) -> list[Colour]:
    """Main and accent colours, each with a darker and a lighter one, in the order of the fills of ``drawings``."""
    hue = rng.uniform(0, 360)
    hues = [[hue], [hue + rng.choice((-1, 1)) * rng.uniform(70, 180)]]
    low, high = (0.64, 0.8) if dark_ground else (0.52, 0.72)
    lightness = rng.uniform(low, high, (2, 1)) + np.array([0.0, -0.13, 0.14])
    chroma = rng.uniform(0.1, 0.17, (2, 1)) * np.array([1.0, 1.0, 0.6])
    shades = oklch(lightness, chroma, hues).reshape(6, 3)
    return [*(as_colour(rgb) for rgb in shades), (252, 250, 245), (38, 36, 46)]


def _noise(cells: int, size: int, rng: Rng) -> npt.NDArray[np.float32]:
    """Smooth noise in about [-1, 1]: random cells, enlarged."""
    grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))


def _pattern(size: int, rng: Rng) -> npt.NDArray[np.floating]:
    """How much of the second ground colour each pixel takes: (size, size), about [0, 1]."""
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


def _ground(size: int, rng: Rng) -> tuple[Image.Image, bool]:
    """A calm textured ground, and whether it is dark."""
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
    """How a softly raised shape lit from the upper left would differ in brightness; about [-1, 1]."""
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


def _paint(things: list[_Thing], size: int, rng: Rng) -> Image.Image:
    image, dark = _ground(size, rng)
    for thing in things:
        fills = _fills(dark, rng)
        coverage, colours, left, top = _rasterise(thing, size, fills)
        unit = thing.radius * size
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
    """Images drawn when asked for; see ``synthetic``."""

    def __init__(self, split: str, count: int, seed: int, size: int) -> None:
        """Lay out every scene, for its labels and boxes; paint none."""
        self.seed, self.size = seed, size
        self._split_number = tuple(COUNTS).index(split)
        options = {"count": (count, COUNTS[split]), "seed": (seed, _SEED), "size": (size, _SIZE)}
        given = ",".join(f"{name}={value}" for name, (value, default) in options.items() if value != default)
        super().__init__(f"synthetic:{given}" if given else "synthetic", split, CLASSES, [])
        self.samples = [self._sample(number) for number in range(count)]

    def _stream(self, number: int, purpose: int) -> Rng:
        return np.random.default_rng([self.seed, self._split_number, number, purpose])

    def _number(self, index: int) -> int:
        return int(self.samples[index].name)  # the name, not the index: a subset shows the same images

    def _sample(self, number: int) -> Sample:
        things = _scene(self._stream(number, _SCENE))
        front, visible = _instances(things, self.size)
        labels = np.full(len(CLASSES), -1, np.int8)
        boxes, box_classes, box_difficult = [], [], []
        for index, (thing, fraction) in enumerate(zip(things, visible, strict=True)):
            if thing.label == 0 or fraction == 0:
                continue
            rows, columns = np.nonzero(front == index + 1)
            difficult = fraction < DIFFICULT_BELOW
            boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
            box_classes.append(thing.label - 1)
            box_difficult.append(difficult)
            labels[thing.label - 1] = max(labels[thing.label - 1], 0 if difficult else 1)
        return Sample(
            name=f"{number:06d}",
            path=None,
            labels=labels,
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            box_classes=np.array(box_classes, np.int64),
            box_difficult=np.array(box_difficult, np.bool_),
        )

    @property
    def has_masks(self) -> bool:
        """Every image has its mask."""
        return True

    def image(self, index: int, draft_size: int | None = None) -> Image.Image:
        """RGB image (size, size); ``draft_size`` has no effect."""
        number = self._number(index)
        return _paint(_scene(self._stream(number, _SCENE)), self.size, self._stream(number, _PAINT))

    def mask(self, index: int) -> npt.NDArray[np.uint8]:
        """Label map (size, size): 0 the ground and what belongs to no class, 1 ... C; no pixel is void."""
        things = _scene(self._stream(self._number(index), _SCENE))
        front, _ = _instances(things, self.size)
        return np.array([0, *(thing.label for thing in things)], np.uint8)[front]


def synthetic(split: str, count: int | None = None, seed: int = _SEED, size: int = _SIZE) -> Synthetic:
    """The synthetic dataset: drawn from a seed, multi-label, with boxes and masks.

    Labels, boxes and masks tell what stays visible. An object of which less than a quarter does is "difficult", one of
    which nothing does is left out. The images repeat exactly with the same versions of NumPy and Pillow on the same
    kind of machine.

    Args:
        split: "train", "val" or "test": other images each.
        count: how many images; 480, 120 and 240 by default. More keep the ones there were and add to them.
        seed: 0 or more; another seed, other images.
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
