"""The shapes of the synthetic dataset: eight classes of two parts each, and distractors that belong to no class.

A shape is a function of a random generator, so that proportions vary from one object to the next. It returns its parts
back to front: the fill of each, and a polygon (K, 2) in the frame of the shape, [-1, 1] with y downwards.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Rng = np.random.Generator
Points = npt.NDArray[np.float64]
Part = tuple[int, Points]
Shape = Callable[[Rng], list[Part]]

# Fills of the parts. One main and one accent colour are chosen for each object when it is rendered.
MAIN, MAIN_DARK, MAIN_LIGHT, ACCENT, ACCENT_DARK, ACCENT_LIGHT, WHITE, INK = range(8)


def _ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0.0, stop: float = 360.0) -> Points:
    """Arc of an ellipse, clockwise from ``start`` to ``stop`` degrees (0 is right, 90 is down)."""
    angle = np.radians(np.linspace(start, stop, 40))
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1)


def _polygon(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=np.float64)


def _box(x1: float, y1: float, x2: float, y2: float) -> Points:
    return _polygon((x1, y1), (x2, y1), (x2, y2), (x1, y2))


def _smooth(*points: tuple[float, float]) -> Points:
    """Closed Catmull-Rom curve through the points."""
    p: Points = np.array(points, dtype=np.float64)
    before, after, far = np.roll(p, 1, 0)[:, None], np.roll(p, -1, 0)[:, None], np.roll(p, -2, 0)[:, None]
    t = np.linspace(0, 1, 10, endpoint=False)[None, :, None]
    here = p[:, None]
    curve: Points = here + t / 2 * (
        (after - before) + t * (2 * before - 5 * here + 4 * after - far) + t**2 * (3 * here - before - 3 * after + far)
    )
    return curve.reshape(-1, 2)


def _stroke(points: Points, width: float) -> Points:
    """Outline of a thick line with butt ends through the points."""
    along = np.gradient(points, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.hypot(along[:, 0], along[:, 1])[:, None] * width / 2
    return np.concatenate([points + across, (points - across)[::-1]])


def _mirrored(points: Points) -> Points:
    return points * (-1.0, 1.0)


def _fish(rng: Rng) -> list[Part]:
    fat = rng.uniform(0.42, 0.6)
    spread = rng.uniform(0.4, 0.56)
    tail = _smooth((0.38, 0), (0.66, -0.2), (0.98, -spread), (0.84, 0), (0.98, spread), (0.66, 0.2))
    fin = _smooth((-0.3, -fat * 0.7), (0.05, -fat - 0.26), (0.34, -fat - 0.12), (0.26, -fat * 0.5))
    half = [(-0.98, 0.04), (-0.74, -fat * 0.7), (-0.2, -fat), (0.3, -fat * 0.6), (0.58, 0.0)]
    body = _smooth(*half, *((x, -y) for x, y in half[3:0:-1]))
    gill = _stroke(_ellipse(-0.52, 0, 0.3, fat, -50, 50), 0.07)
    side_fin = _smooth((-0.06, 0.08), (0.28, 0.02), (0.3, 0.2), (0.1, 0.26))
    eye = [(WHITE, _ellipse(-0.62, -0.12, 0.12, 0.12)), (INK, _ellipse(-0.65, -0.12, 0.062, 0.062))]
    return [(ACCENT, tail), (ACCENT, fin), (MAIN, body), (MAIN_DARK, gill), (ACCENT_LIGHT, side_fin), *eye]


def _mushroom(rng: Rng) -> list[Part]:
    cap, stem = rng.uniform(0.72, 0.98), rng.uniform(0.2, 0.34)
    brim = rng.uniform(0.0, 0.14)
    foot = _smooth(
        (-stem, 0.0), (stem, 0.0), (stem * 0.9, 0.5), (stem * 1.35, 0.92), (-stem * 1.35, 0.92), (-stem * 0.9, 0.5)
    )
    ring = _ellipse(0, 0.05 + brim, stem * 1.35, 0.13)
    dome = np.concatenate([_ellipse(0, brim, cap, 0.92 + brim, 180, 360), _ellipse(0, brim, cap, 0.16, 0, 180)])
    spots = [
        (MAIN_LIGHT, _ellipse(cap * x, brim + y, 0.17 * k, 0.15 * k))
        for x, y, k in ((-0.52, -0.26, 0.9), (0.02, -0.56, 1.15), (0.5, -0.3, 1.0), (0.0, -0.12, 0.6))
    ]
    return [(ACCENT, foot), (ACCENT_DARK, ring), (MAIN, dome), *spots]


def _lollipop(rng: Rng) -> list[Part]:
    radius, cy = rng.uniform(0.5, 0.6), -0.42
    turns = rng.uniform(0.25, 0.5) * 2 * np.pi * rng.choice((-1, 1))
    stick = _stroke(np.linspace((0, cy), (0, 0.98), 3), rng.uniform(0.1, 0.15))
    r = np.linspace(0, 1, 14)
    swirl = []
    for k in range(5):
        first, second = (turns * r + 2 * np.pi * (k + side) / 5 for side in (0.0, 0.5))
        angle = np.concatenate([first, np.linspace(first[-1], second[-1], 8), second[::-1]])
        reach = radius * np.concatenate([r, np.ones(8), r[::-1]])
        swirl.append((MAIN_LIGHT, np.stack([reach * np.cos(angle), cy + reach * np.sin(angle)], axis=1)))
    return [(ACCENT, stick), (MAIN, _ellipse(0, cy, radius, radius)), *swirl]


def _rocket(rng: Rng) -> list[Part]:
    w = rng.uniform(0.28, 0.38)
    hull = _smooth(
        (0, -1.0), (w * 0.62, -0.62), (w, -0.1), (w * 0.72, 0.6), (-w * 0.72, 0.6), (-w, -0.1), (-w * 0.62, -0.62)
    )
    fin = _polygon((w * 0.86, 0.05), (w + 0.36, 0.5), (w + 0.36, 0.95), (w * 0.6, 0.6))
    nozzle = _polygon((-w * 0.5, 0.55), (w * 0.5, 0.55), (w * 0.66, 0.8), (-w * 0.66, 0.8))
    window = [(ACCENT_DARK, _ellipse(0, -0.24, w * 0.58, w * 0.58)), (WHITE, _ellipse(0, -0.24, w * 0.4, w * 0.4))]
    band = _box(-w * 0.86, 0.27, w * 0.86, 0.38)
    return [(ACCENT_DARK, nozzle), (ACCENT, fin), (ACCENT, _mirrored(fin)), (MAIN, hull), *window, (MAIN_DARK, band)]


def _house(rng: Rng) -> list[Part]:
    w, eaves = rng.uniform(0.58, 0.78), rng.uniform(-0.2, 0.05)
    ridge = rng.uniform(0.0, 0.35)
    roof = _polygon((-w - 0.2, eaves), (-ridge, -0.86), (ridge, -0.86), (w + 0.2, eaves))
    chimney = _box(w * 0.42, -0.92, w * 0.42 + 0.2, eaves - 0.1)
    door_x = w * rng.choice((-0.45, 0.45))
    door = _box(door_x - 0.16, 0.32, door_x + 0.16, 0.86)
    pane = (-door_x - 0.2, eaves + 0.2, -door_x + 0.2, eaves + 0.56)
    cross = [_box(-door_x - 0.02, pane[1], -door_x + 0.02, pane[3]), _box(pane[0], eaves + 0.36, pane[2], eaves + 0.4)]
    return [
        (ACCENT_DARK, chimney),
        (MAIN, _box(-w, eaves - 0.02, w, 0.86)),
        (ACCENT, roof),
        (MAIN_DARK, door),
        (WHITE, _box(*pane)),
        *((MAIN_DARK, bar) for bar in cross),
    ]


def _tree(rng: Rng) -> list[Part]:
    stem_width = rng.uniform(0.1, 0.16)
    stem = _polygon((-stem_width * 0.8, 0), (stem_width * 0.8, 0), (stem_width * 1.3, 0.98), (-stem_width * 1.3, 0.98))
    if rng.random() < 0.5:  # a fir: three tiers
        w = rng.uniform(0.56, 0.72)
        tiers = ((-0.98, -0.3, 0.62), (-0.66, 0.14, 0.82), (-0.28, 0.58, 1.0))
        crown = [
            (
                fill,
                _smooth(
                    (0, top),
                    (w * k * 0.5, (top + low) / 2),
                    (w * k, low),
                    (0, low + 0.07),
                    (-w * k, low),
                    (-w * k * 0.5, (top + low) / 2),
                ),
            )
            for (top, low, k), fill in reversed(list(zip(tiers, (MAIN_LIGHT, MAIN, MAIN_DARK), strict=True)))
        ]
    else:  # a broad-leaved tree: a cloud of leaves
        lobes = [(0.0, -0.62), (0.4, -0.4), (0.42, 0.02), (0.0, 0.12), (-0.42, 0.02), (-0.4, -0.4)]
        k = rng.uniform(0.85, 1.1, len(lobes))
        crown = [(MAIN, _ellipse(x, y, 0.36 * s, 0.36 * s)) for (x, y), s in zip(lobes, k, strict=True)]
        crown += [
            (MAIN, _ellipse(0, -0.25, 0.5, 0.5)),
            (MAIN_LIGHT, _ellipse(-0.2, -0.5, 0.2, 0.16)),
            (MAIN_LIGHT, _ellipse(-0.42, -0.16, 0.1, 0.08)),
        ]
        crown += [(MAIN_DARK, _ellipse(0.3, 0.08, 0.16, 0.1))]
    return [(ACCENT, stem), *crown]


def _key(rng: Rng) -> list[Part]:
    r, hole, thick = rng.uniform(0.36, 0.44), rng.uniform(0.4, 0.55), rng.uniform(0.13, 0.18)
    cx = r - 0.98
    ring = np.concatenate(
        [_ellipse(cx, 0, r, r), _ellipse(cx, 0, r * hole, r * hole)[::-1]]
    )  # slit joins the two circles
    blade = _box(cx + r * 0.85, -thick / 2, 0.98, thick / 2)
    teeth = [_box(x, 0, x + 0.13, thick / 2 + depth) for x, depth in ((0.46, 0.18), (0.66, 0.26), (0.85, 0.2))]
    collar = _box(cx + r * 0.9, -thick * 0.8, cx + r * 0.9 + 0.1, thick * 0.8)
    return [(MAIN, blade), *((MAIN, tooth) for tooth in teeth), (ACCENT, ring), (ACCENT_DARK, collar)]


def _umbrella(rng: Rng) -> list[Part]:
    cy = rng.uniform(-0.1, 0.05)
    handle_line = np.concatenate([_polygon((0, -0.98), (0, 0.3), (0, 0.76)), _ellipse(-0.17, 0.78, 0.17, 0.17, 0, 190)])
    edges = np.linspace(-0.96, 0.96, 5)
    gores = []
    for k, (left, right) in enumerate(pairwise(edges)):
        rise = _ellipse(0, cy, abs(left) + 1e-6, cy + 0.86, 180 if left < 0 else 360, 270)
        fall = _ellipse(0, cy, abs(right) + 1e-6, cy + 0.86, 270, 180 if right < 0 else 360)
        scallop = _ellipse((left + right) / 2, cy, (right - left) / 2, 0.13, 360, 180)
        gores.append((MAIN if k % 2 else MAIN_LIGHT, np.concatenate([rise, fall, scallop])))
    return [(ACCENT, _stroke(handle_line, 0.09)), *gores]


def _star(rng: Rng) -> list[Part]:
    angle = np.radians(np.arange(10) * 36 - 90)
    reach = np.where(np.arange(10) % 2, rng.uniform(0.4, 0.5), 0.95)
    return [(MAIN, np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1))]


def _heart(rng: Rng) -> list[Part]:
    t = np.linspace(0, 2 * np.pi, 60)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [(MAIN, np.stack([x, y], axis=1) / 17)]


def _crescent(rng: Rng) -> list[Part]:
    return [(MAIN, np.concatenate([_ellipse(0, 0, 0.9, 0.9, 50, 310), _ellipse(0.28, 0, 0.72, 0.72, 292, 68)]))]


def _bolt(rng: Rng) -> list[Part]:
    return [(MAIN, _polygon((0.15, -0.95), (-0.55, 0.12), (-0.08, 0.12), (-0.2, 0.95), (0.55, -0.22), (0.06, -0.22)))]


def _gem(rng: Rng) -> list[Part]:
    girdle = _polygon((-0.9, -0.2), (-0.5, -0.66), (0.5, -0.66), (0.9, -0.2))
    facets = [
        (MAIN_LIGHT, _polygon((-0.35, -0.2), (0, -0.66), (0.35, -0.2))),
        (MAIN_DARK, _polygon((0.35, -0.2), (0.9, -0.2), (0, 0.85))),
    ]
    return [(MAIN, girdle), (MAIN, _polygon((-0.9, -0.2), (0.9, -0.2), (0, 0.85))), *facets]


def _cloud(rng: Rng) -> list[Part]:
    puffs = ((-0.5, 0.1, 0.38), (-0.1, -0.15, 0.45), (0.4, 0.02, 0.42), (0.0, 0.2, 0.42))
    return [(MAIN, _ellipse(x, y, r, r * 0.85)) for x, y, r in puffs]


def _ball(rng: Rng) -> list[Part]:
    return [(MAIN, _ellipse(0, 0, 0.85, 0.85)), (MAIN_LIGHT, _stroke(_ellipse(0, -0.62, 0.78, 0.5, 34, 146), 0.18))]


# Class name -> (shape, largest rotation in degrees either way): a house is nearly upright, a key has any direction.
CLASSES: dict[str, tuple[Shape, float]] = {
    "fish": (_fish, 35.0),
    "house": (_house, 8.0),
    "key": (_key, 180.0),
    "lollipop": (_lollipop, 60.0),
    "mushroom": (_mushroom, 20.0),
    "rocket": (_rocket, 60.0),
    "tree": (_tree, 8.0),
    "umbrella": (_umbrella, 40.0),
}
DISTRACTORS: tuple[Shape, ...] = (_star, _heart, _crescent, _bolt, _gem, _cloud, _ball)
