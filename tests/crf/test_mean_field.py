"""The dense CRF against pydensecrf2, against loops over all pairs of pixels, and in limiting cases."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.nn import functional as F

from benchmarks import crf as benchmark
from tests.crf.slow_lattice import kernel
from wildcat.crf import lattice
from wildcat.crf import mean_field as crf
from wildcat.crf.mean_field import PRESETS, CRFSettings, dense_crf

MILD = CRFSettings(2.1, 1, 6.2, 20.3, 2, iterations=5)


def softmax_maps(labels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth random probabilities (C, H, W), none of them 0: 12 x 16 logits, upsampled."""
    logits = 2 * torch.randn(1, labels, 12, 16, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)[0].softmax(0).numpy()


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sample_photo(height: int, width: int, which: int = 0) -> np.ndarray:
    """Part of scikit-learn's sample photographs."""
    return load_sample_images().images[which][60 : 60 + height, 200 : 200 + width].copy()


def pydensecrf(probabilities, image, settings, compatibility=None) -> np.ndarray:
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    labels, height, width = probabilities.shape
    model = densecrf.DenseCRF2D(width, height, labels)
    model.setUnaryEnergy(-np.log(np.clip(probabilities, 1e-5, 1)).reshape(labels, -1).astype(np.float32))
    scale = 1 if compatibility is None else np.asarray(compatibility, dtype=np.float32)
    model.addPairwiseGaussian(settings.gaussian_sxy, scale * settings.gaussian_compat)
    model.addPairwiseBilateral(
        settings.bilateral_sxy, settings.bilateral_srgb, image, scale * settings.bilateral_compat
    )
    return np.array(model.inference(settings.iterations)).reshape(probabilities.shape)


def assert_same(actual, expected) -> None:
    assert (actual.argmax(0) == expected.argmax(0)).mean() >= 0.999
    assert np.abs(actual - expected).max() <= 1e-3


# ---- agreement with references


@pytest.mark.slow
@pytest.mark.parametrize("labels", [2, 4, 21])
@pytest.mark.parametrize("preset", PRESETS)
def test_photographs_equal_pydensecrf(real_data, labels, preset) -> None:
    files = sorted((real_data / "voc07-mini/VOCdevkit/VOC2007/JPEGImages").glob("*.jpg"))
    path = files[100 * labels + list(PRESETS).index(preset)]
    image = np.array(Image.open(path).convert("RGB"))
    probabilities = softmax_maps(labels, *image.shape[:2], seed=labels)
    assert_same(dense_crf(probabilities, image, preset), pydensecrf(probabilities, image, PRESETS[preset]))


@pytest.mark.parametrize(("height", "width"), [(200, 260), (97, 131), (1, 50), (50, 1), (1, 1)])
@pytest.mark.parametrize("labels", [2, 5])
def test_sample_photographs_equal_pydensecrf(height, width, labels) -> None:
    image, probabilities = sample_photo(height, width), softmax_maps(labels, height, width)
    assert_same(dense_crf(probabilities, image), pydensecrf(probabilities, image, PRESETS["krahenbuhl"]))


def test_a_compatibility_matrix_equals_pydensecrf() -> None:
    image, probabilities = sample_photo(120, 160), softmax_maps(4, 120, 160)
    penalty = np.array([[0, 1, 2, 0.5], [1, 0, 0.2, 1], [2, 0.2, 0.1, 1.5], [0.5, 1, 1.5, 0]], dtype=np.float32)
    actual = dense_crf(probabilities, image, compatibility=penalty)
    assert_same(actual, pydensecrf(probabilities, image, CRFSettings(), penalty))
    assert np.abs(actual - dense_crf(probabilities, image)).max() > 0.1


def mean_field(probabilities, kernels, settings, penalty) -> np.ndarray:
    """Algorithm 1 of Krähenbühl and Koltun by products with (N, N) matrices, float64."""
    labels = len(probabilities)
    log = np.log(np.clip(probabilities.reshape(labels, -1).astype(np.float64), 1e-5, 1))
    pairwise = settings.gaussian_compat * kernels[0] + settings.bilateral_compat * kernels[1]

    def softmax(logits):
        exponential = np.exp(logits - logits.max(0))
        return exponential / exponential.sum(0)

    marginals = softmax(log)
    for _ in range(settings.iterations):
        marginals = softmax(log - penalty @ (marginals @ pairwise.T))
    return marginals.reshape(probabilities.shape)


def features(image, settings) -> list[np.ndarray]:
    height, width, _ = image.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1).astype(np.float64)
    position, colour = np.stack([x, y], 1), image.reshape(-1, 3)
    bilateral = np.concatenate([position / settings.bilateral_sxy, colour / settings.bilateral_srgb], 1)
    return [position / settings.gaussian_sxy, bilateral]


def gaussian_kernel(points: np.ndarray) -> np.ndarray:
    matrix = np.exp(-((points[:, None] - points) ** 2).sum(2) / 2)
    norm = matrix.sum(1) ** -0.5
    return norm[:, None] * matrix * norm


@pytest.mark.slow
@pytest.mark.parametrize("settings", [*PRESETS.values(), MILD])
def test_all_pairs_of_pixels_on_the_slow_lattice(settings) -> None:
    # 24 x 24: the whole photograph reduced, so that it has as much structure as a large one
    image = np.array(Image.fromarray(load_sample_images().images[1]).resize((24, 24)))
    probabilities = softmax_maps(3, 24, 24)
    expected = mean_field(probabilities, [kernel(f) for f in features(image, settings)], settings, 1 - np.eye(3))
    np.testing.assert_allclose(dense_crf(probabilities, image, settings), expected, atol=1e-3)


def test_all_pairs_of_pixels_with_gaussian_kernels() -> None:
    # The lattice approximates a Gaussian: its tails are wider, and it is not exactly isotropic. With kernels that cover
    # many pixels and do not dominate the probabilities the results are close. With the presets on 576 pixels single
    # marginals may differ by up to 1 (those of pydensecrf2 as well), although nine labels of ten agree.
    for which in (0, 1):
        image = np.array(Image.fromarray(load_sample_images().images[which]).resize((24, 24)))
        probabilities = softmax_maps(4, 24, 24, seed=which)
        for settings, mean, agreement in ((MILD, 0.01, 0.97), (CRFSettings(), 0.08, 0.85)):
            kernels = [gaussian_kernel(f) for f in features(image, settings)]
            expected = mean_field(probabilities, kernels, settings, 1 - np.eye(4))
            actual = dense_crf(probabilities, image, settings)
            assert np.abs(actual - expected).mean() < mean
            assert (actual.argmax(0) == expected.argmax(0)).mean() > agreement


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("labels", [2, 5])
def test_a_gpu_gives_the_same_marginals(labels) -> None:
    image, probabilities = sample_photo(97, 131), torch.from_numpy(softmax_maps(labels, 97, 131))
    actual = dense_crf(probabilities.cuda(), torch.from_numpy(image).cuda())
    assert actual.is_cuda
    assert_same(actual.cpu().numpy(), dense_crf(probabilities, image).numpy())


# ---- invariances


def test_a_batch_equals_its_images() -> None:
    images = np.stack([sample_photo(40, 50, which) for which in (0, 1)])
    probabilities = np.stack([softmax_maps(3, 40, 50, seed) for seed in (0, 1)])
    probabilities[1, 2] = 0  # present in one image only
    actual = dense_crf(probabilities, images)
    assert actual.shape == probabilities.shape
    for one, image, expected in zip(probabilities, images, actual, strict=True):
        np.testing.assert_array_equal(dense_crf(one, image), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_type_and_dtype_are_kept(dtype) -> None:
    image, probabilities = sample_photo(30, 40), torch.from_numpy(softmax_maps(3, 30, 40)).to(dtype)
    actual = dense_crf(probabilities, torch.from_numpy(image), MILD)
    assert isinstance(actual, torch.Tensor)
    assert actual.dtype == dtype
    expected = dense_crf(probabilities.double().numpy(), image, MILD)
    assert isinstance(expected, np.ndarray)
    assert expected.dtype == np.float64
    assert torch.allclose(actual.double(), torch.from_numpy(expected), atol=1e-2 if dtype.itemsize == 2 else 1e-6)


def test_inputs_of_any_layout_are_accepted_and_not_modified() -> None:
    image, probabilities = sample_photo(30, 41), softmax_maps(3, 30, 41)
    expected = dense_crf(probabilities, image)
    strided = np.ascontiguousarray(probabilities.transpose(1, 2, 0)).transpose(2, 0, 1)
    mirrored, mirrored_image = probabilities[..., ::-1].copy()[..., ::-1], image[:, ::-1].copy()[:, ::-1]
    frozen, frozen_image = probabilities.copy(), image.copy()
    frozen.setflags(write=False)
    frozen_image.setflags(write=False)
    for one, pixels in ((strided, image), (mirrored, mirrored_image), (frozen, frozen_image)):
        before = one.copy()
        np.testing.assert_array_equal(dense_crf(one, pixels), expected)
        np.testing.assert_array_equal(one, before)
    leaf = torch.from_numpy(probabilities).requires_grad_()
    assert torch.equal(dense_crf(leaf, image), torch.from_numpy(expected))
    with torch.inference_mode():  # a lattice cached here can be used in other modes
        first = dense_crf(torch.from_numpy(softmax_maps(2, 31, 17)), random_image(31, 17))
    assert torch.equal(dense_crf(torch.from_numpy(softmax_maps(2, 31, 17)), random_image(31, 17)), first)


def test_chunks_do_not_matter(monkeypatch) -> None:
    image, probabilities = sample_photo(60, 70), softmax_maps(4, 60, 70)
    expected = dense_crf(probabilities, image)
    monkeypatch.setattr(lattice, "_CHUNK", 512)
    monkeypatch.setattr(crf, "_CHUNK", 1000)
    np.testing.assert_allclose(dense_crf(probabilities, image), expected, atol=1e-5)


def test_the_order_of_labels_does_not_matter() -> None:
    # The last label is not filtered.
    image, probabilities = sample_photo(60, 80), softmax_maps(5, 60, 80)
    order = [3, 4, 0, 2, 1]
    np.testing.assert_allclose(
        dense_crf(probabilities[order], image), dense_crf(probabilities, image)[order], atol=1e-4
    )


def test_only_ratios_of_probabilities_matter() -> None:
    image, probabilities = sample_photo(40, 40), softmax_maps(3, 40, 40)
    np.testing.assert_allclose(
        dense_crf(probabilities * 0.25, image, clip=1e-6), dense_crf(probabilities, image, clip=1e-6), atol=1e-4
    )


def test_potts_is_one_minus_identity() -> None:
    image, probabilities = sample_photo(40, 60), softmax_maps(3, 40, 60)
    potts = dense_crf(probabilities, image, compatibility=1 - torch.eye(3))
    np.testing.assert_allclose(potts, dense_crf(probabilities, image), atol=1e-5)


# ---- limits


def test_absent_labels_are_ignored() -> None:
    image, probabilities = sample_photo(40, 60), softmax_maps(3, 40, 60)
    wide = np.zeros((7, 40, 60), dtype=np.float32)
    wide[[1, 4, 6]] = probabilities
    actual = dense_crf(wide, image)
    np.testing.assert_array_equal(actual[[1, 4, 6]], dense_crf(probabilities, image))
    assert not actual[[0, 2, 3, 5]].any()
    penalty = np.add.outer(np.arange(7.0), np.arange(7.0))
    np.testing.assert_array_equal(
        dense_crf(wide, image, compatibility=penalty)[[1, 4, 6]],
        dense_crf(probabilities, image, compatibility=penalty[np.ix_([1, 4, 6], [1, 4, 6])]),
    )


def test_one_label_is_certain() -> None:
    actual = dense_crf(np.stack([np.full((5, 6), 0.1), np.zeros((5, 6))]), random_image(5, 6))
    assert (actual[0] == 1).all() and (actual[1] == 0).all()
    assert dense_crf(np.full((1, 1, 1), 0.5), random_image(1, 1)).item() == 1


def test_zero_iterations_return_the_given_probabilities() -> None:
    probabilities = softmax_maps(3, 8, 9)
    np.testing.assert_allclose(
        dense_crf(probabilities, random_image(8, 9), CRFSettings(iterations=0)), probabilities, atol=1e-6
    )


def test_kernels_without_weight_are_the_given_probabilities() -> None:
    probabilities = softmax_maps(3, 8, 9)
    actual = dense_crf(probabilities, random_image(8, 9), CRFSettings(gaussian_compat=0, bilateral_compat=0))
    np.testing.assert_allclose(actual, probabilities, atol=1e-6)


def test_certain_probabilities_stay_finite_and_are_followed() -> None:
    truth = np.zeros((2, 40, 40), dtype=np.float32)
    truth[0, :, :20] = truth[1, :, 20:] = 1
    image = np.where(truth[0, :, :, None] > 0, 250, 5).astype(np.uint8).repeat(3, axis=2)
    actual = dense_crf(truth, image)
    assert np.isfinite(actual).all()
    np.testing.assert_array_equal(actual.argmax(0), truth.argmax(0))
    # a certain but wrong pixel in a uniform region is outvoted: 11.5 nats against compatibilities of 13
    truth[:, 20, 5] = (0, 1)
    assert dense_crf(truth, image, replace(CRFSettings(), gaussian_compat=10))[0, 20, 5] > 0.5


@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("compat", [1e3, 1e6, 1e20])
def test_huge_compatibilities_stay_finite(labels, compat) -> None:
    settings = CRFSettings(gaussian_compat=compat, bilateral_compat=compat)
    actual = dense_crf(softmax_maps(labels, 40, 50), sample_photo(40, 50), settings)
    assert np.isfinite(actual).all() and actual.min() >= 0
    np.testing.assert_allclose(actual.sum(0), 1, atol=1e-5)


def test_a_huge_compatibility_makes_a_uniform_image_one_label() -> None:
    probabilities = softmax_maps(3, 40, 40)
    probabilities[1] += 0.5
    probabilities /= probabilities.sum(0)
    actual = dense_crf(probabilities, np.full((40, 40, 3), 90, np.uint8), CRFSettings(bilateral_compat=1e4))
    assert (actual[1] > 0.999).all()


@pytest.mark.parametrize("sigma", [0.15, 0.1, 1e-3, 1e-30])
def test_tiny_sigmas_leave_pixels_alone(sigma) -> None:
    # Every pixel then hears itself alone, with weight 1: the fixed point iteration of a single variable.
    probabilities = softmax_maps(3, 20, 30)
    actual = dense_crf(probabilities, random_image(20, 30), CRFSettings(sigma, 3, sigma, sigma, 10))
    logits = np.log(probabilities.astype(np.float64))
    expected = probabilities.astype(np.float64)
    for _ in range(10):
        expected = np.exp(logits + 13 * expected)
        expected /= expected.sum(0)
    np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_tiny_colour_sigmas_join_equal_colours_only() -> None:
    # A chequerboard of two grey levels, one apart: what is said of the light squares does not reach the dark ones.
    light = np.indices((30, 30)).sum(0) % 2 == 1
    image = light[:, :, None].repeat(3, axis=2).astype(np.uint8)
    first, second = softmax_maps(2, 30, 30), softmax_maps(2, 30, 30, seed=1)
    for srgb, apart in ((1e-3, True), (1, False)):
        settings = CRFSettings(gaussian_compat=0, bilateral_sxy=5, bilateral_srgb=srgb)
        alone = dense_crf(first, image, settings)
        mixed = dense_crf(np.where(light, second, first), image, settings)
        assert np.allclose(alone[:, ~light], mixed[:, ~light], atol=1e-5) == apart
        assert not np.allclose(alone[:, light], mixed[:, light], atol=1e-2)


@pytest.mark.slow
def test_a_large_image_with_tiny_sigmas_is_finite() -> None:
    image, probabilities = random_image(200, 300), softmax_maps(2, 200, 300)
    actual = dense_crf(probabilities, image, CRFSettings(0.5, 3, 0.3, 0.1, 10, iterations=2))
    assert np.isfinite(actual).all()


def test_lattices_of_large_images_are_not_cached(monkeypatch) -> None:
    crf._cached_lattice.cache_clear()
    monkeypatch.setattr(crf, "_CACHED_PIXELS", 100)
    for height in (10, 11):
        dense_crf(softmax_maps(2, height, 10), random_image(height, 10))
    assert crf._cached_lattice.cache_info().currsize == 1


# ---- errors


@pytest.mark.parametrize(
    ("probabilities", "image", "message"),
    [
        (np.full((2, 4, 5), np.nan), random_image(4, 5), "without NaN, got nan"),
        (np.full((2, 4, 5), 1.5), random_image(4, 5), r"lie in \[0, 1\]"),
        (np.full((2, 4, 5), -0.1), random_image(4, 5), r"lie in \[0, 1\]"),
        (np.zeros((2, 4, 5)), random_image(4, 5), "no label has a probability above 0"),
        (np.ones((2, 4, 5), dtype=int), random_image(4, 5), "floating point, not torch.int64"),
        (np.ones((2, 4, 5)), random_image(5, 4), "differ in size"),
        (np.ones((2, 4, 5)), random_image(4, 5) / 255, "image must be uint8, not torch.float64"),
        (np.ones((2, 4, 5)), random_image(4, 5)[:, :, :2], r"must be \(C, H, W\) with an image \(H, W, 3\)"),
        (np.ones((4, 5)), random_image(4, 5), r"must be \(C, H, W\)"),
        (np.ones((1, 2, 4, 5)), random_image(4, 5), r"\(N, C, H, W\) with \(N, H, W, 3\)"),
        (np.ones((2, 0, 5)), np.zeros((0, 5, 3), np.uint8), "are empty"),
        (np.ones((0, 4, 5)), random_image(4, 5), "are empty"),
    ],
)
def test_wrong_input_is_rejected(probabilities, image, message) -> None:
    with pytest.raises(ValueError, match=message):
        dense_crf(probabilities, image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"settings": "none"}, "unknown CRF preset 'none'; known: krahenbuhl, irn, mctformer, deeplab"),
        ({"clip": 0.0}, "clip must lie between 0 and 1"),
        ({"compatibility": np.eye(3)}, r"must be \(2, 2\).*not \(3, 3\)"),
        ({"compatibility": np.array([[0, 1], [2, 0.0]])}, "finite and symmetric"),
        ({"compatibility": np.array([[0, np.nan], [np.nan, 0]])}, "finite and symmetric"),
    ],
)
def test_wrong_options_are_rejected(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        dense_crf(np.ones((2, 4, 5)), random_image(4, 5), **arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gaussian_sxy", 0),
        ("bilateral_sxy", -1),
        ("bilateral_srgb", float("nan")),
        ("gaussian_sxy", float("inf")),
        ("gaussian_compat", -1),
        ("bilateral_compat", float("nan")),
        ("iterations", -1),
        ("iterations", 2.5),
    ],
)
def test_wrong_settings_are_rejected(name, value) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        CRFSettings(**{name: value})


def test_the_presets_are_the_published_settings() -> None:
    kernels = {
        name: (s.gaussian_sxy, s.gaussian_compat, s.bilateral_sxy, s.bilateral_srgb, s.bilateral_compat)
        for name, s in PRESETS.items()
    }
    assert kernels == {
        "krahenbuhl": (3, 3, 80, 13, 10),
        "irn": (3, 3, 50, 5, 10),
        "mctformer": (4, 3, 83, 5, 3),
        "deeplab": (1, 3, 67, 3, 4),
    }
    assert {s.iterations for s in PRESETS.values()} == {10}


# ---- the benchmark


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads a process's peak memory from /proc")
def test_memory_of_an_image_with_all_classes_of_voc() -> None:
    """At 500 x 375 with 21 labels the peak of a fresh process rises by less than 300 MB."""
    pytest.importorskip("pydensecrf.densecrf")
    image = load_sample_images().images[1][:375, :500].copy()
    assert benchmark.measure_memory("wildcat", 21, image, PRESETS["krahenbuhl"], threads=1) < 300


@pytest.mark.slow
@pytest.mark.usefixtures("no_new_python")
def test_the_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pydensecrf.densecrf")
    threads = torch.get_num_threads()
    benchmark.main(["--smoke"])
    torch.set_num_threads(threads)
    message = capsys.readouterr().out
    row = message.splitlines()[-1].split()
    assert row[:2] == ["krahenbuhl", "3"]
    assert "100.000 %" in message
