"""The lattice against loops, and independence of chunk sizes and key lengths."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crf.slow_lattice import kernel
from wildcat.crf import lattice
from wildcat.crf.lattice import Lattice, Readout


def dense(features: torch.Tensor) -> np.ndarray:
    """K' (N, N) of a lattice: its response to each unit vector."""
    built = Lattice(features)
    pixels = features.shape[1]
    return Readout([built], [1.0])(built.filter(torch.eye(pixels)), slice(0, pixels)).numpy()


def features_of(seed: int, dims: int, pixels: int, spread: float) -> torch.Tensor:
    return torch.randn(dims, pixels, generator=torch.Generator().manual_seed(seed)) * spread


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6), dims=st.integers(1, 5), pixels=st.integers(1, 60), spread=st.sampled_from([0.2, 2, 20])
)
def test_any_features_equal_the_loops(seed, dims, pixels, spread) -> None:
    features = features_of(seed, dims, pixels, spread)
    np.testing.assert_allclose(dense(features), kernel(features.T.double().numpy()), atol=2e-4)


def test_a_smooth_kernel_is_nearly_gaussian() -> None:
    # 40 x 40 pixels at 4 pixels a sigma: the middle row against exp(-r^2 / 2), both normalised to their maximum
    side, sigma = 40, 4.0
    y, x = torch.meshgrid(torch.arange(side) / sigma, torch.arange(side) / sigma, indexing="ij")
    built = Lattice(torch.stack([x.flatten(), y.flatten()]))
    impulse = torch.zeros(side * side, 1)
    impulse[side // 2 * side + side // 2] = 1
    actual = Readout([built], [1.0])(built.filter(impulse), slice(0, side * side)).view(side, side)
    distance = (x - x[side // 2, side // 2]) ** 2 + (y - y[side // 2, side // 2]) ** 2
    assert torch.allclose(actual / actual.max(), torch.exp(-distance / 2), atol=0.12)  # linear interpolation twice


@pytest.mark.slow
def test_points_six_sigmas_apart_do_not_interact() -> None:
    rng = torch.Generator().manual_seed(1)
    for dims in (2, 5):
        directions = torch.nn.functional.normalize(torch.randn(150, dims, generator=rng), dim=1)
        for start, direction in zip(torch.randn(150, dims, generator=rng), directions, strict=True):
            assert dense(torch.stack([start, start + 6 * direction], 1))[0, 1] == 0


def test_the_chunk_size_does_not_matter(monkeypatch) -> None:
    features = features_of(2, 5, 1000, 2)
    whole = dense(features)
    monkeypatch.setattr(lattice, "_CHUNK", 64)
    np.testing.assert_allclose(dense(features), whole, atol=1e-6)


def test_long_keys_are_replaced_by_ranks_and_longer_ones_rejected() -> None:
    # Two clusters so far apart that key and pixel index together need more than 63 bits.
    near = features_of(3, 5, 50, 1)
    far = torch.cat([near, near + 1000], 1)
    assert lattice._KeyLayout(far).bits + int(math.log2(lattice._CHUNK)) > 63
    np.testing.assert_allclose(dense(far), kernel(far.T.double().numpy()), atol=5e-3)  # float32 at 1000 sigmas
    with pytest.raises(ValueError, match=r"sigmas are too small for an image of this size.* 63 "):
        Lattice(near * 1e5)


def test_keys_have_63_bits_at_most() -> None:
    near, accepted, rejected = features_of(3, 5, 50, 1), set(), set()
    for step in range(100):
        scale = 2 ** (9 + step / 20)
        try:
            accepted.add(lattice._KeyLayout(near * scale).bits)
        except ValueError as error:
            rejected.add(int(str(error).split("would need ")[1].split()[0]))
    assert max(accepted) == 63 and {64, 65, 66} <= rejected and not accepted & rejected


def test_keys_that_differ_in_their_highest_bits_alone_are_not_confused(monkeypatch) -> None:
    # Two pixels in two dimensions, whose keys differ by 2**34. A key and the index of a pixel among 2**30 take 64 bits.
    monkeypatch.setattr(lattice, "_CHUNK", 2**30)
    elevation = torch.tensor(lattice._elevation(2))[:, None]

    def features(x: int, y: int) -> torch.Tensor:
        """The first pixel at the lattice's origin, the second x and y lattice points away in coordinates 0 and 1."""
        return torch.tensor([[0, 1.5 * (x - y)], [0, 1.5 * (x + y)]]) / elevation

    for x in range(2**17 - 10, 2**17):
        y = 2**34 - x * lattice._KeyLayout(features(x, 0)).strides[0]
        far = features(x, y)
        layout = lattice._KeyLayout(far)
        keys = lattice._simplices(far, layout)[0]
        if int(keys[1] - keys[0]) == 2**34:
            break
    else:
        pytest.fail("no such pair")
    assert layout.bits + 30 > 63
    assert dense(far)[0, 1] == 0
