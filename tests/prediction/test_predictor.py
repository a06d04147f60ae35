"""The predictor: any source, original pixels, any batch, lazily."""

import gc
import itertools
import random
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests import unusual
from tests.tiny_runs import ColourModel, spots, tiny
from wildcat.background_cue import background_cue
from wildcat.crf.mean_field import dense_crf
from wildcat.data.images import load_image
from wildcat.data.transforms import warp
from wildcat.errors import WildcatError
from wildcat.masks import Background, label_map, pixel_probabilities, strengths
from wildcat.prediction.ensemble import Ensemble
from wildcat.prediction.items import Failure, Item, image_items
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Part, Predictor
from wildcat.prediction.result import Prediction, Threshold
from wildcat.runs.folder import build_model
from wildcat.runs.settings import InferenceSettings
from wildcat.training.launch import train

COLOURS = ("red", "green", "blue")


def colour_predictor(score_sizes=(320,), map_sizes=(320,), mirror=False, multi_label=True) -> Predictor:
    settings = InferenceSettings(COLOURS, multi_label, tuple(score_sizes), tuple(map_sizes), mirror)
    return Predictor(Part(ColourModel(), settings))


@pytest.fixture(scope="module")
def trained() -> Predictor:
    """A real network with its random weights, three maps a class."""
    torch.manual_seed(0)
    model = build_model(tiny(num_maps=3), 5, pretrained=False)
    return Predictor.from_model(model, InferenceSettings(tuple("abcde"), True, (64,), (64, 96)))


def same(first: Prediction, second: Prediction, tolerance: float = 0.0) -> None:
    for name in ("probabilities", "class_maps", "multi_maps"):
        np.testing.assert_allclose(getattr(first, name), getattr(second, name), rtol=0, atol=tolerance)
    assert first.size == second.size


# Sources


@pytest.mark.slow
def test_the_same_image_from_any_source(trained: Predictor, tmp_path: Path) -> None:
    rgb = unusual.photo(90, 60)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    path = tmp_path / "a.png"
    with Image.open(path) as opened:
        predictions = [trained(source) for source in (path, str(path), path.read_bytes(), opened, rgb)]
    for other in predictions[1:]:
        same(predictions[0], other)
        assert np.array_equal(np.asarray(other.image), rgb)
    assert [prediction.name for prediction in predictions] == [str(path), str(path), *["image 0"] * 3]
    assert predictions[0].size == (90, 60)


@pytest.mark.slow
def test_a_jpeg_upright_and_a_large_one_decoded_small(trained: Predictor, tmp_path: Path) -> None:
    upright = unusual.photo(1200, 800)
    path = unusual.oriented(tmp_path / "turned.jpg", 6, upright)
    small, whole = trained(path), trained(load_image(path))  # the path's decoder may reduce, the image is whole
    assert small.size == whole.size == (1200, 800)
    np.testing.assert_allclose(small.probabilities, whole.probabilities, atol=0.02)
    assert small.image.size == (1200, 800)
    assert np.abs(np.asarray(small.image).astype(int) - upright).mean() < 3


def test_the_callers_image_is_untouched(trained: Predictor, tmp_path: Path) -> None:
    rgb = unusual.photo()
    array = rgb.copy()
    array.setflags(write=False)
    trained(array)
    with Image.open(unusual.oriented(tmp_path / "turned.png", 6, rgb)) as image:
        size, mode, exif = image.size, image.mode, dict(image.getexif())
        prediction = trained(image)
        prediction.overlay()
        assert (image.size, image.mode, dict(image.getexif())) == (size, mode, exif)
        assert prediction.size == (60, 40) != image.size
    assert np.array_equal(array, rgb)


def test_files_that_cannot_be_read_are_named(trained: Predictor, tmp_path: Path) -> None:
    with pytest.raises(WildcatError, match=r"nowhere\.jpg: no such file"):
        trained(tmp_path / "nowhere.jpg")
    with pytest.raises(TypeError):
        trained(3)


# Points


@pytest.mark.parametrize(("width", "height"), [(500, 250), (150, 420)])
@pytest.mark.parametrize("sizes", [(320,), (320, 480)])
@pytest.mark.parametrize("mirror", [False, True])
def test_points_lie_in_original_pixels(width: int, height: int, sizes: tuple[int, ...], mirror: bool) -> None:
    places = {0: (0.22 * width, 0.72 * height), 2: (0.81 * width, 0.13 * height)}
    predictor = colour_predictor(map_sizes=sizes, mirror=mirror)
    prediction = predictor(spots(width, height, places))
    finest = max(sizes) // ColourModel.cell
    for colour, (x, y) in places.items():
        px, py = prediction.points[COLOURS[colour]]
        assert abs(px - x) <= 0.6 * width / finest and abs(py - y) <= 0.6 * height / finest
        # a cell's centre
        assert ((px * finest / width) % 1, (py * finest / height) % 1) == pytest.approx((0.5, 0.5))


def test_a_point_is_the_centre_of_the_highest_cell() -> None:
    settings = InferenceSettings(("a", "b"), True, (1,), (1,))
    maps = np.zeros((2, 2, 5), np.float32)
    maps[0, 1, 3] = maps[1, 0, 0] = 1
    prediction = Prediction("x", (100, 60), settings, np.array([0.2, 0.9], np.float32), maps, None, lambda: None)
    assert prediction.points == {"b": (10.0, 15.0), "a": (70.0, 45.0)}
    assert prediction.point_array.tolist() == [[70.0, 45.0], [10.0, 15.0]]
    assert list(prediction.scores) == ["b", "a"] == list(prediction.points)


def test_scores_and_classes_of_a_prediction() -> None:
    prediction = colour_predictor()(spots(400, 200, {0: (100, 50), 2: (300, 150)}, spread=0.3))
    assert prediction.scores["red"] > 0.95 and prediction.scores["blue"] > 0.95 and prediction.scores["green"] < 0.05
    assert set(prediction.present()) == {0, 2} and prediction.present(0.999999) == []
    message = prediction.to_dict()
    assert (message["file"], message["width"], message["height"]) == ("image 0", 400, 200)
    assert {entry["class"] for entry in message["predicted"]} == {"red", "blue"}
    assert all(
        entry["score"] == pytest.approx(prediction.scores[entry["class"]], abs=1e-6) for entry in message["predicted"]
    )
    assert list(message["scores"]) == list(prediction.scores)
    assert prediction.overlay(0.999999).size[0] > 400  # no class is present: the best one is shown


def test_a_threshold_for_each_class() -> None:
    prediction = colour_predictor()(spots(400, 200, {0: (100, 50), 2: (300, 150)}, spread=0.3))
    red, green = prediction.scores["red"], prediction.scores["green"]
    assert set(prediction.present({"green": green - 1e-6})) == {0, 1, 2}
    assert set(prediction.present({"green": green})) == {0, 1, 2}  # exactly the threshold
    assert set(prediction.present({"red": red + 1e-6})) == {2}
    assert prediction.candidates({"red": 1.0, "blue": 1.0}) == prediction.candidates(1.0)
    assert set(np.unique(prediction.mask(threshold={"red": red + 1e-6}))) == {0, 3}
    assert [entry["class"] for entry in prediction.to_dict({"red": 1.0})["predicted"]] == ["blue"]
    with pytest.raises(WildcatError, match="'rde', which is not a class of the model"):
        prediction.present({"rde": 0.5})


@pytest.mark.parametrize("threshold", [50, 1.01, -0.1, float("nan"), {"red": 40}, {"red": 0.5, "blue": float("inf")}])
def test_a_threshold_is_a_probability(threshold: Threshold) -> None:
    prediction = colour_predictor()(spots(40, 20, {0: (10, 5)}))
    for use in (prediction.present, prediction.candidates, prediction.to_dict, lambda t: prediction.mask(threshold=t)):
        with pytest.raises(WildcatError, match=r"a threshold is a probability, 0\.\.1 \(0\.5 for 50 %\); got "):
            use(threshold)
    assert prediction.present(np.float32(0.5)) == prediction.present(0.5)


@pytest.mark.parametrize("mirror", [False, True])
def test_masks_use_the_maps_of_all_sizes_and_mirrored_images(trained: Predictor, mirror: bool) -> None:
    settings = replace(trained.settings, mirror=mirror, background=Background("threshold", 0.3))
    prediction = trained.with_settings(settings)(unusual.photo(90, 60))
    views = []
    for side in (64, 96):
        pixels = torch.from_numpy(warp(Image.fromarray(unusual.photo(90, 60)), side).copy()).permute(2, 0, 1)[None]
        for turned in (False, True) if mirror else (False,):
            with torch.inference_mode():
                maps = trained.model(trained.model.normalize(pixels.flip(3) if turned else pixels)).class_maps
            views.append(maps.flip(3) if turned else maps)
    fused = torch.stack(
        [torch.nn.functional.interpolate(v, views[-1].shape[2:], mode="bilinear", align_corners=False) for v in views]
    ).mean(0)[0]
    strength = strengths(fused, [0, 3], (60, 90), settings.background)
    best, second = strength.topk(2, dim=0).values
    clear = (best - second > 1e-5).numpy()
    assert np.array_equal(prediction.mask(allowed=[0, 3])[clear], label_map(strength, [0, 3])[clear])
    alone = strengths(views[0][0], [0, 3], (60, 90), settings.background)
    assert not np.array_equal(prediction.mask(allowed=[0, 3]), label_map(alone, [0, 3])), "not of one size alone"


@pytest.mark.parametrize("crf", [False, True])
def test_masks_use_the_cue_of_the_original_image(crf: bool) -> None:
    predictor = colour_predictor()
    image = spots(60, 40, {0: (30, 20)})
    image[:, 45:, 0] = 200  # as red as the object, and connected to the border
    settings = replace(predictor.settings, background=Background("threshold", 0.3, 1.0))
    prediction = predictor.with_settings(settings)(image)
    strength = strengths(
        prediction.mask_maps, [0], (40, 60), settings.background, torch.from_numpy(background_cue(image))
    )
    scores = dense_crf(pixel_probabilities(strength), image) if crf else strength
    assert np.array_equal(prediction.mask(crf=crf), label_map(scores, [0]))
    without = replace(prediction, settings=replace(settings, background=Background("threshold", 0.3)))
    assert crf or not np.array_equal(prediction.mask(), without.mask())
    assert set(np.unique(prediction.reduced(30).mask(crf=crf))) <= {0, 1}
    assert np.array_equal(prediction.only([0]).mask(crf=crf, allowed=[0]), prediction.mask(crf=crf, allowed=[0]))


def test_exclusive_classes() -> None:
    prediction = colour_predictor(multi_label=False)(spots(400, 200, {1: (100, 50)}))
    assert sum(prediction.scores.values()) == pytest.approx(1, abs=1e-6)
    assert prediction.present(0.9999999) == [1]


# Batches, sizes, merging


def test_a_batch_of_one_is_a_batch_of_many(trained: Predictor) -> None:
    images = [unusual.photo(40 + 7 * i, 50, seed=i) for i in range(7)]
    single = [trained(image) for image in images]
    for batch_size in (1, 3, 7, 50):
        many = list(trained.stream(image_items(images), batch_size=batch_size))
        assert [p.name for p in many] == [f"image {i}" for i in range(7)]
        for one, other in zip(single, many, strict=True):
            same(one, other, 1e-5)


def test_merged_maps_are_the_mean_of_multi_maps(trained: Predictor) -> None:
    images = [unusual.photo(seed=i) for i in range(3)]
    whole = list(trained.stream(image_items(images)))
    merged = list(trained.stream(image_items(images), multi_maps=False))
    for one, other in zip(whole, merged, strict=True):
        assert other.multi_maps is None and one.multi_maps is not None
        assert one.multi_maps.shape == (15, *one.class_maps.shape[1:])
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
        np.testing.assert_allclose(one.class_maps, other.class_maps, atol=1e-5)
        grid = one.multi_maps.reshape(5, 3, *one.class_maps.shape[1:])  # class-major
        np.testing.assert_allclose(grid.mean(axis=1), one.class_maps, atol=1e-5)
    assert trained.model.num_maps == 3  # the model of the predictor is not merged


def test_sizes_of_scores_and_maps() -> None:
    predictor = colour_predictor((64, 128), (320, 480))
    prediction = predictor(np.full((300, 300, 3), 255, np.uint8))
    assert prediction.class_maps.shape == (3, 15, 15)
    assert sorted(shape[2] for shape in predictor.single.network.batches) == [64, 128, 320, 480]
    np.testing.assert_allclose(prediction.class_maps[0], 1, atol=1e-6)


def test_probabilities_are_the_same_without_the_map_sizes(tmp_path: Path) -> None:
    Image.fromarray(unusual.photo(1200, 800)).save(tmp_path / "large.jpg")  # decoded smaller for the scores alone
    predictor = colour_predictor((64,), (64, 512), mirror=True)
    (whole,) = predictor.stream(image_items([tmp_path / "large.jpg"]))
    predictor.single.network.batches.clear()
    (alone,) = predictor.stream(image_items([tmp_path / "large.jpg"]), maps=False)
    assert [shape[2] for shape in predictor.single.network.batches] == [64, 64]
    np.testing.assert_array_equal(alone.probabilities, whole.probabilities)
    assert alone.class_maps.shape == (3, 2, 2) and whole.class_maps.shape == (3, 16, 16)


def test_a_mirrored_image_has_the_same_prediction() -> None:
    image = spots(320, 320, {0: (70, 60), 2: (250, 200)})
    one, other = (colour_predictor(mirror=True)(p) for p in (image, np.ascontiguousarray(image[:, ::-1])))
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
    np.testing.assert_allclose(one.class_maps, other.class_maps[:, :, ::-1], atol=1e-6)


def test_a_model_in_training_mode_predicts_in_evaluation_mode() -> None:
    model = build_model(tiny(), 2, pretrained=False).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Predictor.from_model(model, InferenceSettings(("a", "b"), True, (64,), (64,)))(unusual.photo())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_that_is_not_finite() -> None:
    model = build_model(tiny(), 2, pretrained=False)
    torch.nn.init.constant_(model.transfer.bias, torch.nan)
    with pytest.raises(WildcatError, match="NaN or infinit"):
        Predictor.from_model(model, InferenceSettings(("a", "b"), True, (64,), (64,)))(unusual.photo())


# Parts


def test_a_predictor_of_one_part(trained: Predictor) -> None:
    settings = replace(trained.settings, map_sizes=(64,))
    other = trained.with_settings(settings)
    assert other.single.network is trained.single.network and other.settings == settings
    assert trained.settings.map_sizes == (64, 96)
    assert list(other.outputs) == list(other.parts) == [other.chosen] == ["model"]
    assert (other.runtime, other.precision, other.device.type) == ("torch", "fp32", "cpu")
    assert other.fingerprint == Predictor.from_model(trained.model, settings).fingerprint != trained.fingerprint
    assert trained.at_sizes() is trained
    assert trained.at_sizes(map_sizes=[64]).settings == settings
    for sizes in ([], [0]):
        with pytest.raises(WildcatError, match="score_sizes and map_sizes must be above 0"):
            trained.at_sizes(sizes)


def test_the_mean_of_two_parts(trained: Predictor) -> None:
    small, large = (trained.at_sizes([size], [size]).single for size in (64, 96))
    both = Predictor({"small": small, "large": large}, Ensemble())
    assert list(both.outputs) == ["small", "large", "mean"] and both.chosen == "mean"
    assert (both.settings.score_sizes, both.settings.map_sizes) == ((64, 96), (64, 96))
    image = unusual.photo(90, 60)
    alone = [Predictor(part)(image).probabilities for part in (small, large)]
    np.testing.assert_allclose(both(image).probabilities, np.mean(alone, axis=0), atol=1e-6)
    (each,) = both.stream_each(image_items([image]), outputs=["large"])
    assert list(each) == ["large"]
    np.testing.assert_allclose(each["large"].probabilities, alone[1], atol=1e-6)
    with pytest.raises(WildcatError, match="give the folder of one of them: small, large"):
        _ = both.single


def test_parts_that_make_no_predictor(trained: Predictor) -> None:
    for parts in ({}, {"a": trained.single, "b": trained.single}):
        with pytest.raises(ValueError, match=f"has one part, or several and a combination; got {len(parts)} parts"):
            Predictor(parts)


# Streams


def black(_: int | None = None) -> Image.Image:
    return Image.new("RGB", (32, 32))


def test_a_stream_is_lazy_and_bounded() -> None:
    asked = 0

    def endless() -> Iterator[Item]:
        nonlocal asked
        for number in itertools.count():
            asked += 1
            yield Item(str(number), black)

    stream = colour_predictor((32,), (32,)).stream(endless(), batch_size=4)
    assert asked == 0
    for number, prediction in enumerate(itertools.islice(stream, 50)):
        assert prediction.name == str(number)
        assert asked <= number + 1 + 3 * 4 + 1  # its own batch, and two more under way
    stream.close()
    assert asked < 70


@pytest.mark.slow
def test_memory_does_not_grow() -> None:
    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    class Photo(Image.Image):
        pass

    def load_one(_: int | None) -> Image.Image:
        nonlocal alive, most
        image = black()
        image.__class__ = Photo
        weakref.finalize(image, gone)
        alive += 1
        most = max(most, alive)
        return image

    seen: list[weakref.ref] = []
    for number, prediction in enumerate(
        colour_predictor((32,), (32,)).stream((Item(str(i), load_one) for i in range(200)), batch_size=4)
    ):
        seen.append(weakref.ref(prediction))
        if number % 50 == 49:
            gc.collect()
            assert sum(ref() is not None for ref in seen) <= 2 * 4
    assert most <= 4  # two decoding threads, and images not yet released


def test_order_does_not_depend_on_duration() -> None:
    rng = random.Random(0)
    delays = [rng.random() / 50 for _ in range(30)]

    def slow(number: int) -> Item:
        def load_one(_: int | None) -> Image.Image:
            time.sleep(delays[number])
            return black()

        return Item(str(number), load_one)

    predictions = colour_predictor((32,), (32,)).stream(map(slow, range(30)), batch_size=4)
    assert [prediction.name for prediction in predictions] == [str(number) for number in range(30)]


def test_failures_stand_in_their_places(tmp_path: Path) -> None:
    unusual.write_all(tmp_path)
    names = sorted([*unusual.GOOD, *unusual.BAD])
    predictor = colour_predictor((32,), (32,))
    predictions = list(predictor.stream(image_items(tmp_path / name for name in names), batch_size=3, on_error="yield"))
    assert [Path(entry.name).name for entry in predictions] == names
    failed = [entry for entry in predictions if isinstance(entry, Failure)]
    assert [Path(entry.name).name for entry in failed] == sorted(unusual.BAD)
    assert all(entry.name in entry.message for entry in failed)
    with pytest.raises(WildcatError, match=r"empty\.jpg: the file is empty"):
        list(predictor.stream(image_items(tmp_path / name for name in names)))


def test_a_batch_of_nothing_but_failures() -> None:
    predictions = list(colour_predictor().stream(image_items([b"", b"x"]), batch_size=1, on_error="yield"))
    assert all(isinstance(entry, Failure) for entry in predictions) and len(predictions) == 2
    assert list(colour_predictor().stream([])) == []


def test_an_error_of_the_items_is_raised() -> None:
    def broken() -> Iterator[Item]:
        yield Item("a", black)
        raise RuntimeError("the list ended early")

    with pytest.raises(RuntimeError, match="ended early"):
        list(colour_predictor().stream(broken()))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_sizes(batch_size: int) -> None:
    with pytest.raises(WildcatError, match="batch size must be at least 1"):
        list(colour_predictor().stream([], batch_size=batch_size))


# Loading


@pytest.mark.slow
def test_load_a_run(tmp_path: Path) -> None:
    folder = train(tiny(epochs=1, score_sizes=[64], map_sizes=[64, 96], mirror=True), tmp_path / "run")
    predictor = load(folder)
    assert predictor.settings == InferenceSettings(predictor.settings.classes, True, (64,), (64, 96), True)
    assert len(predictor.settings.classes) == 8
    prediction = predictor(unusual.photo())
    assert prediction.class_maps.shape == (8, 3, 3)
    same(prediction, load(str(folder))(unusual.photo()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no run in nowhere: give a run's folder, a hub name"),
        ("./runs/x/y", "no run in"),
        ("imagenett", "no run in imagenett"),
    ],
)
def test_names_that_are_no_run(name: str, message: str) -> None:
    with pytest.raises(WildcatError, match=message):
        load(name)


@pytest.mark.slow
def test_a_model_of_the_hub(run_and_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_and_image / "run"
    asked = []

    def download(name: str, **_: object) -> str:
        asked.append(name)
        if name == "owner/gone":
            raise RuntimeError("404\nfor a reason")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    same(load("owner/model")(unusual.photo()), load(folder)(unusual.photo()))
    with pytest.raises(
        WildcatError, match=r"there is no folder owner/gone, and no model of that name on the hub: 404$"
    ):
        load("owner/gone")
    assert asked == ["owner/model", "owner/gone"]


# The embedded classifier


@pytest.mark.slow
def test_imagenet_is_the_classifier_itself() -> None:
    """Its scores are those of timm's classifier with its own pooling and linear layer."""
    from sklearn.datasets import load_sample_image

    from wildcat.backbones import embedded_classifier
    from wildcat.data.transforms import warp

    flower = load_sample_image("flower.jpg")
    prediction = load("imagenet")(flower)
    pixels = torch.from_numpy(warp(np.ascontiguousarray(flower), 224)).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = embedded_classifier("lite0").eval()((pixels / 255 - 0.5) / 0.5)
    np.testing.assert_allclose(prediction.probabilities, torch.softmax(logits, 1)[0], atol=1e-5)
    best = next(iter(prediction.scores))
    assert best == "daisy" and len(prediction.scores) == 1000
    x, y = prediction.points[best]
    assert flower[int(y), int(x), 0] > 150  # the flower is bright, what is behind it dark green


@pytest.mark.slow
def test_imagenet_points_at_single_animals(real_data: Path) -> None:
    from wildcat.data.registry import open_dataset

    spec = f"voc07:{real_data / 'voc07-mini'}"
    chosen: dict[str, list] = {name: [] for name in ("cat", "dog", "bird", "sheep")}
    for split in ("test", "trainval"):
        dataset = open_dataset(spec, split)
        for index, sample in enumerate(dataset.samples):
            (clear,) = np.nonzero(~sample.box_difficult)
            if len(clear) == 1:
                images = chosen.get(dataset.classes[sample.box_classes[clear[0]]])
                if images is not None and len(images) < 15:
                    images.append((dataset.image, index, sample.boxes[clear[0]]))
    images = list(itertools.chain(*chosen.values()))
    assert len(images) == 60

    items = [Item("", lambda size, image=image, index=index: image(index, size)) for image, index, _ in images]
    hits = 0
    for (*_, (x1, y1, x2, y2)), prediction in zip(images, load("imagenet").stream(items), strict=True):
        x, y = prediction.points[next(iter(prediction.scores))]
        hits += x1 <= x <= x2 and y1 <= y <= y2
    assert hits / 60 >= 0.85
