"""A reader of Label Studio's brushes, written from the description of thi.ng's "rle-pack", bit by bit."""

import numpy as np


def read_brush(data: list[int], height: int, width: int) -> np.ndarray:
    """The alpha channel (H, W) of a brush's RGBA pixels."""
    bits = "".join(f"{byte:08b}" for byte in data)
    position = 0

    def take(count: int) -> int:
        nonlocal position
        position += count
        return int(bits[position - count : position], 2)

    words = take(32)
    word_size = take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < words:
        repeated = take(1)
        length = take(sizes[take(2)]) + 1
        values += [take(word_size)] * length if repeated else [take(word_size) for _ in range(length)]
    assert len(values) == words and len(bits) - position < 8
    pixels = np.array(values, np.uint8).reshape(height, width, 4)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 3]
