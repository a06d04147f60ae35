"""Random splits of a user's own images: a share is held out for scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from wildcat.data.sample import shuffled
from wildcat.errors import WildcatError

RANDOM_SPLITS = ("train", "test", "all")
_MOST_TRIED = 50  # images of a class that are tried for the other part


def _check_share(test: float, spec: str) -> None:
    if not 0 < test < 1:
        raise WildcatError(f"{spec}: test must be a fraction between 0 and 1; got {test:g}")


def random_split(names: Sequence[str], split: str, test: float, seed: int, spec: str) -> list[str]:
    """The names of a random split: the same for the same names, fraction and seed on every machine."""
    _check_share(test, spec)
    if split == "all":
        return sorted(names)
    order = shuffled(names, seed)
    # At least one name in each of the two, if there are two names.
    held_out = min(max(round(test * len(order)), 1), len(order) - 1)
    return sorted(order[:held_out] if split == "test" else order[held_out:])


def split_by_labels(
    labels_of: Mapping[str, npt.NDArray[np.int8]], split: str, test: float, seed: int, spec: str
) -> set[str]:
    """The names of a random split that has every class in both parts, if the class has two images.

    The images held out are those of :func:`random_split`, except that images change places where a class with two
    images or more would be in one part alone: as few as possible, in an order that depends on names and seed only.

    Args:
        labels_of: name -> (C,) labels of the image, 1 where it has the class.
        split: "train", "test" or "all".
        test: fraction to hold out, between 0 and 1.
        seed: of the random order.
        spec: the specification, for messages.
    """
    _check_share(test, spec)
    if split == "all" or not labels_of:
        return set(labels_of)
    held_out = set(random_split(list(labels_of), "test", test, seed, spec))
    order = shuffled(labels_of, seed)
    positive = np.stack([labels_of[name] for name in order]) == 1
    held = _with_every_class(positive, np.array([name in held_out for name in order]))
    return {name for name, is_held in zip(order, held, strict=True) if is_held == (split == "test")}


def _with_every_class(positive: npt.NDArray[np.bool_], held: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Let images (N, C) change places until every class with two images is in both parts, or no exchange helps."""
    has = positive[:, positive.sum(axis=0) >= 2].astype(np.int32)
    while True:
        counts = np.stack([has[~held].sum(axis=0), has[held].sum(axis=0)])
        lacking = [(part, c) for part in (0, 1) for c in np.flatnonzero(counts[part] == 0)]
        if not any(_exchange(has, held, counts, part, int(c)) for part, c in lacking):
            return held


def _exchange(
    has: npt.NDArray[np.int32], held: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64], part: int, c: int
) -> bool:
    """Bring an image of class c into the part that has none, for the image whose leaving costs least; False if none."""
    inside, outside = np.flatnonzero(held == bool(part)), np.flatnonzero(held != bool(part))
    before = (counts == 0).sum()
    best, pair = before, None
    for image in outside[has[outside, c] == 1][:_MOST_TRIED]:
        here = counts[part] + has[image] - has[inside]
        there = counts[1 - part] - has[image] + has[inside]
        lacking = (here == 0).sum(axis=1) + (there == 0).sum(axis=1)
        if lacking.size and lacking.min() < best:
            best, pair = lacking.min(), (image, inside[int(lacking.argmin())])
    if pair is None:
        return False
    held[list(pair)] = ~held[list(pair)]
    return True
