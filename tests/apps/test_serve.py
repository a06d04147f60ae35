"""The web page in a real browser, served by its own process, and under concurrent requests."""

import io
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.apps.browser import DESKTOP, PHONE, chromium, page
from tests.processes import ForkedProcess
from tests.tiny_runs import start, tiny
from wildcat.apps.serve.server import serve
from wildcat.cli import main
from wildcat.data.photographs import sample_photographs
from wildcat.errors import WildcatError
from wildcat.prediction.loading import load
from wildcat.training.launch import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed"),
]

TOKEN = "a-secret-token"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, run_and_image: Path) -> Path:
    """A folder with a run, two photographs, and files that cannot be read."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(run_and_image / "run", folder / "run")
    for name, image in sample_photographs().items():
        image.save(folder / f"{name}.jpg", quality=92)
    (folder / "cut.jpg").write_bytes((folder / "china.jpg").read_bytes()[:5000])
    (folder / "notes.jpg").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[tuple[str, ForkedProcess]]:
    """Address and process of ``wildcat serve``."""
    with serving(place / "run") as opened:
        yield opened


@pytest.fixture(scope="module")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page that other machines can reach, of a model with one map per class."""
    run = train(tiny(epochs=1, num_maps=1), tmp_path_factory.mktemp("other") / "run")
    with serving(run, "--host", "0.0.0.0", "--token", TOKEN) as (address, _):
        yield address


def local(address: str) -> str:
    """The address of a page for this machine."""
    return f"http://127.0.0.1:{address.partition('/?')[0].rpartition(':')[2]}"


@contextmanager
def serving(run: Path, *options: str) -> Iterator[tuple[str, ForkedProcess]]:
    process = start("serve", run, "--port", "0", *options)
    message = process.stderr.readline()
    assert message.startswith("open http://"), message + process.stderr.read()
    try:
        yield message.split()[1], process
    finally:
        process.terminate()
        out, err = process.communicate(timeout=60)
    # gradio prints a traceback for the file that it rejects, see test_only_uploaded_files_are_served
    assert process.returncode == 143 and "Warning" not in out + err, out + err
    assert (out + err).count("Traceback") == (out + err).count("it was not uploaded by a user"), out + err


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


def upload(tab: Any, *files: Path) -> None:
    tab.set_input_files("#upload input[type=file]", [str(file) for file in files])


def opened(file: Any) -> Image.Image:
    """The image of a file, which is closed again."""
    with Image.open(file) as image:
        image.load()
        return image


def shown(tab: Any) -> Image.Image:
    """The image shown on the page."""
    tab.wait_for_selector("#image img")
    return opened(io.BytesIO(tab.request.get(tab.get_attribute("#image img", "src")).body()))


def changed(tab: Any, before: str | None) -> None:
    """Wait until the page shows another image than that of the given address."""
    tab.wait_for_function("before => document.querySelector('#image img')?.src != before", arg=before)


def saved(tab: Any, kind: str, place: Path) -> Path:
    with tab.expect_download() as caught:
        tab.click(f"#save-{kind}")
    file = place / caught.value.suggested_filename
    caught.value.save_as(file)
    return file


def test_from_images_to_mask(server: tuple[str, ForkedProcess], browser: Any, place: Path, tmp_path: Path) -> None:
    with page(browser) as tab:
        tab.goto(server[0])
        tab.wait_for_selector("#welcome")
        upload(tab, place / "cut.jpg", place / "notes.jpg", place / "china.jpg")
        message = tab.inner_text("#notice p >> nth=0"), tab.inner_text("#notice p >> nth=1")
        assert message[0].startswith("cut.jpg: cannot be read: image file is truncated")
        assert message[1] == "notes.jpg: not an image in a format that can be read"
        assert not tab.is_visible("#welcome")

        # The readable image is shown, with its classes, those above the threshold ticked, and points.
        prediction = load(place / "run")(place / "china.jpg")
        ticked = prediction.candidates()
        labels = tab.locator("#classes label").all_inner_texts()
        assert (
            labels[0]
            == f"{next(iter(prediction.scores))} {100 * prediction.probabilities.max():.0f}\N{NO-BREAK SPACE}%"
        )
        assert tab.locator("#classes input:checked").count() == len(ticked)
        with_points = tab.get_attribute("#image img", "src")
        image, plain = (np.asarray(shown, int) for shown in (shown(tab), opened(place / "china.jpg")))
        assert image.shape == plain.shape and np.abs(image - plain).max() > 100  # the marker

        # The mask, and the files that are saved.
        tab.click("#task label >> nth=2")
        changed(tab, with_points)
        mask = opened(saved(tab, "mask", tmp_path))
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), prediction.mask(allowed=ticked))
        file = saved(tab, "json", tmp_path)
        assert file.name == "china.json"
        values = json.loads(file.read_text())
        assert values.pop("mask_labels")["0"] == "background"
        expected = prediction.to_dict(allowed=ticked)
        assert values == expected | {"file": "china.jpg"}
        overlay = opened(saved(tab, "image", tmp_path))
        assert overlay.width == 640 and overlay.height >= 427

        # The two maps of the class.
        tab.click("#maps-panel button >> nth=0")
        tab.wait_for_selector("#maps img >> nth=1")
        assert tab.inner_text("#maps .caption-label >> nth=1") == "map 2 of 2"

        # Other tasks and classes change the image; a second image is added to the thumbnails.
        for click in ("#task label >> nth=1", "#classes label >> nth=-1"):
            before = tab.get_attribute("#image img", "src")
            tab.click(click)
            changed(tab, before)
        upload(tab, place / "flower.jpg")
        tab.wait_for_selector("#thumbnails button >> nth=1")
        before = tab.get_attribute("#image img", "src")
        tab.click("#thumbnails button >> nth=0")
        changed(tab, before)
        assert tab.errors == [] and tab.outside == []


@pytest.mark.parametrize(("size", "dark"), [(DESKTOP, False), (PHONE, True)])
def test_file_names_and_the_full_screen_button_lie_on_the_images(
    server: tuple[str, ForkedProcess],
    browser: Any,
    place: Path,
    tmp_path: Path,
    size: tuple[int, int],
    dark: bool,
) -> None:
    high = tmp_path / "a high image with a long name.png"
    Image.new("RGB", (200, 500), "grey").save(high)
    with page(browser, size, dark=dark) as tab:
        tab.goto(server[0])
        upload(tab, high, place / "flower.jpg")
        for name in (high.name, "flower.jpg"):
            shown(tab)
            tab.wait_for_function("document.querySelector('#image img').complete")
            button, image = (tab.locator(f"#image {part}").bounding_box() for part in (".icon-button-wrapper", "img"))
            assert image["x"] < button["x"] < button["x"] + button["width"] < image["x"] + image["width"], name
            before = tab.get_attribute("#image img", "src")
            tab.click("#thumbnails button >> nth=1")
            if name == high.name:
                changed(tab, before)
        names = tab.locator("#thumbnails .caption-label")
        assert names.all_inner_texts() == [high.name, "flower.jpg"] and names.first.is_visible()
        cut = "label => label.scrollWidth > label.clientWidth"
        assert names.first.evaluate(cut)
        tab.hover("#thumbnails button >> nth=0")
        assert not names.first.evaluate(cut)  # the whole name
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert tab.errors == []


def test_sample_photographs_on_a_phone_and_no_panel_of_maps_where_each_class_has_one(
    other_server: str, browser: Any
) -> None:
    with page(browser, PHONE, dark=True) as tab:
        tab.goto(f"{local(other_server)}/?token={TOKEN}")
        tab.click("#sample")
        shown(tab)
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert tab.is_visible("#classes") and not tab.is_visible("#maps-panel")
        assert tab.errors == [] and tab.outside == []


def test_concurrent_requests_are_answered_in_constant_memory(
    server: tuple[str, ForkedProcess], place: Path, request: pytest.FixtureRequest
) -> None:
    from gradio_client import Client, handle_file

    address, process = server
    client = Client(address, verbose=False, analytics_enabled=False)
    request.addfinalizer(client.close)
    memory = []
    for _ in range(3):
        jobs = [
            client.submit(handle_file(place / f"{('china', 'flower')[n % 2]}.jpg"), n / 20, api_name="/predict")
            for n in range(20)
        ]
        answers = [job.result(timeout=120) for job in jobs]
        assert [Path(answer["file"]).stem for answer in answers] == ["china", "flower"] * 10
        assert all(len(answer["scores"]) == len(answers[0]["scores"]) for answer in answers)
        memory.append(psutil.Process(process.pid).memory_info().rss)
    assert answers[1] == load(place / "run")(place / "flower.jpg").to_dict(1 / 20) | {"file": "flower.jpg"}
    assert memory[-1] - memory[0] < 40e6, memory

    with pytest.raises(Exception, match=r"notes\.jpg: not an image"):
        client.predict(handle_file(place / "notes.jpg"), 0.5, api_name="/predict")
    with pytest.raises(Exception, match="no image was sent"):
        client.predict(None, 0.5, api_name="/predict")
    assert client.predict(handle_file(place / "china.jpg"), 0.5, api_name="/predict")["file"] == "china.jpg"


def test_a_page_for_other_machines_needs_its_token(other_server: str, browser: Any, place: Path) -> None:
    from gradio_client import Client, handle_file

    origin, _, query = other_server.partition("/?")
    assert query == f"token={TOKEN}" and not origin.startswith("http://127.")
    address = local(other_server)
    with page(browser) as tab:
        tab.context.clear_cookies()
        tab.goto(address)
        assert tab.inner_text("h1") == "Token needed"
        tab.fill("input", TOKEN)
        tab.click("button")
        upload(tab, place / "china.jpg")
        shown(tab)
        assert tab.url == f"{address}/" and tab.evaluate("document.cookie") == ""
        tab.click("#task label >> nth=2")
        assert opened(saved(tab, "mask", place)).size == (640, 427)
        assert tab.errors == [] and tab.outside == []
    client = Client(address, headers={"Authorization": f"Bearer {TOKEN}"}, verbose=False, analytics_enabled=False)
    assert client.predict(handle_file(place / "china.jpg"), 0.5, api_name="/predict")["file"] == "china.jpg"
    client.close()


def test_only_uploaded_files_are_served(server: tuple[str, ForkedProcess], place: Path) -> None:
    foreign = {"data": [{"path": str(place / "china.jpg"), "meta": {"_type": "gradio.FileData"}}, 0.5]}
    headers = {"Content-Type": "application/json"}
    end_point = f"{server[0]}/gradio_api/call/predict"
    with urlopen(Request(end_point, json.dumps(foreign).encode(), headers)) as answer:
        event = json.load(answer)["event_id"]
    with urlopen(f"{end_point}/{event}") as answer:
        message = answer.read().decode()
    assert "event: error" in message and "china.jpg" not in message
    with pytest.raises(HTTPError) as rejected, urlopen(f"{server[0]}/gradio_api/file={place / 'china.jpg'}"):
        pass
    rejected.value.close()
    assert rejected.value.code in (403, 404)


def test_errors_of_the_command_line(
    server: tuple[str, ForkedProcess], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = server[0].rpartition(":")[2]
    for arguments, message in (
        (["--port", taken], f"cannot listen on 127.0.0.1 port {taken}: Address already in use"),
        (["--port", "70000"], "--port is a number from 0 to 65535; got 70000"),
        (["--port", "http"], "--port must be a whole number; got 'http'"),
    ):
        assert main(["serve", str(place / "run"), *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main(["serve", str(place / "nowhere")]) == 2
    assert "no run in" in capsys.readouterr().err


def test_without_gradio(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(WildcatError, match=r"pip install 'wildcat-wsl\[app\]'"):
        serve(place / "run")
