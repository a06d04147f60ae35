"""The web page: drop images, see what is in them and where, take masks and points away."""

import html
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from wildcat import render
from wildcat.apps.serve.viewer import Task, Viewer
from wildcat.data.photographs import sample_photographs
from wildcat.errors import WildcatError, shorten
from wildcat.runs.settings import InferenceSettings

MAX_IMAGES = 100  # on one page
MAX_WAITING = 200  # requests in the queue; who comes after is told so
WORKING = 4  # requests at work at once; the network itself takes one image after the other
SECONDS_KEPT = 12 * 3600  # of what was uploaded
CLASSES_SHOWN = 20  # the most probable ones


class Page:
    """Components and what they do; all that a session keeps is the list of its files."""

    def __init__(self, gradio: Any, viewer: Viewer, name: str) -> None:
        self.gr = gradio
        self.viewer = viewer
        with gradio.Blocks(
            title=f"wildcat: {name}", analytics_enabled=False, fill_width=True, delete_cache=(600, SECONDS_KEPT)
        ) as self.blocks:
            self._layout(name)
            self._wire()
            self._programs()
        self.blocks.queue(max_size=MAX_WAITING, default_concurrency_limit=WORKING)

    # ---- What is on the page --------------------------------------------------------------------------------------

    def _layout(self, name: str) -> None:
        gr = self.gr
        self.paths, self.current = gr.State([]), gr.State("")
        gr.HTML(_head(name, self.viewer.predictor.settings), elem_id="head", padding=False)
        with gr.Row(elem_id="layout"):
            with gr.Column(scale=1, min_width=260):
                self.drop = gr.File(
                    show_label=False, file_count="multiple", type="filepath", height=130, elem_id="drop"
                )
                self.notice = gr.HTML(visible=False, elem_id="notice", padding=False)
                self.thumbnails = gr.Gallery(
                    show_label=False,
                    visible=False,
                    columns=3,
                    height="auto",
                    object_fit="cover",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="thumbnails",
                )
                self.sample = gr.Button("Try it with a sample photograph", size="md", elem_id="sample")
            with gr.Column(scale=4, min_width=320):
                self.welcome = gr.HTML(_WELCOME, elem_id="welcome", padding=False)
                with gr.Column(visible=False, elem_id="work") as self.work:
                    self._workplace()

    def _workplace(self) -> None:
        gr = self.gr
        self.task = gr.Radio(_TASKS, value="point", show_label=False, container=False, elem_id="task")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                self.image = gr.Image(
                    format="jpeg",
                    show_label=False,
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="image",
                )
            with gr.Column(scale=1, min_width=230):
                self.chosen = gr.CheckboxGroup(
                    label="Classes", info="The most likely first. Tick what to show and save.", elem_id="found"
                )
                self.threshold = gr.Slider(
                    0,
                    100,
                    50,
                    step=1,
                    label="Sure enough (%)",
                    buttons=[],
                    visible=self.viewer.predictor.settings.multi_label,
                    elem_id="threshold",
                )
                self.opacity = gr.Slider(0, 100, 70, step=1, label="Opacity (%)", buttons=[], elem_id="opacity")
                self.crf = gr.Checkbox(
                    False,
                    label="Follow the outlines",
                    info="Masks keep to edges of the image (CRF); takes longer.",
                    visible=False,
                    elem_id="crf",
                )
                with gr.Row(elem_id="saves"):
                    self.saves = {
                        kind: gr.Button(label, size="sm", min_width=60, elem_id=f"save-{kind}")
                        for kind, label in _SAVES.items()
                    }
                self.file = gr.DownloadButton("file", visible="hidden", elem_id="file")
        self.closer = gr.Accordion("What each map of a class looks at", open=False, visible=False, elem_id="closer")
        with self.closer:
            self.of = gr.Dropdown(label="Class", elem_id="of")
            self.maps = gr.Gallery(
                show_label=False, columns=4, height="auto", object_fit="contain", interactive=False, buttons=[],
                format="jpeg", elem_id="maps",
            )  # fmt: skip

    # ---- What happens ---------------------------------------------------------------------------------------------

    def _wire(self) -> None:
        import gradio as gr

        look = [self.task, self.threshold, self.opacity, self.crf]
        draw = [self.current, self.task, self.chosen, self.opacity, self.crf]
        found = [self.current, self.image, self.chosen, self.of, self.closer]
        place = [self.drop, self.paths, self.thumbnails, self.notice, self.sample, self.welcome, self.work]
        private: dict[str, Any] = {"api_visibility": "private"}
        quiet: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", **private}
        maps: dict[str, Any] = {"fn": self._maps, "inputs": [self.current, self.of], "outputs": self.maps, **quiet}

        def pick(event: gr.SelectData, paths: list[str], *settings: Any) -> list[Any]:
            return self._shown(paths[event.index], *settings)

        self.drop.upload(self._add, [self.drop, self.paths, *look], [*place, *found], **private).then(**maps)
        self.sample.click(self._add_samples, [self.paths, *look], [*place, *found], **private).then(**maps)
        self.thumbnails.select(pick, [self.paths, *look], found, **private).then(**maps)
        self.threshold.input(self._tick, [self.current, *look], [self.chosen, self.image], **quiet)
        self.task.input(self._crf_offered, self.task, self.crf, queue=False, **private)
        for control in (self.task, self.crf):
            control.input(self._draw, draw, self.image, **private)
        for control in (self.chosen, self.opacity):
            control.input(self._draw, draw, self.image, **quiet)
        self.of.input(**maps)
        for kind, button in self.saves.items():
            saved = button.click(partial(self._save, kind), draw, self.file, **private)
            saved.then(None, js="() => document.querySelector('#file').click()", **private)

    def _programs(self) -> None:
        """The end point for programs: an image in, what the page's JSON holds out."""
        gr = self.gr
        image = gr.File(label="image", type="filepath", visible=False)
        threshold = gr.JSON("0.5", label="threshold", visible=False)  # a Number's own errors say nothing to the caller
        found = gr.JSON(visible=False)
        gr.Button(visible=False).click(self._predict, [image, threshold], found, api_name="predict")

    def _add(self, new: list[str] | None, paths: list[str], *look: Any) -> list[Any]:
        """Uploaded files join the row of images; the first one that can be read is shown."""
        good: list[str] = []
        message: list[str] = []
        for path in dict.fromkeys(new or []):
            if path not in paths and len(paths) + len(good) == MAX_IMAGES:
                message.append(f"a page holds {MAX_IMAGES} images; for more there is the command wildcat predict")
                break
            try:
                self.viewer.thumbnail(path)
                good.append(path)
            except WildcatError as error:
                message.append(str(error))
        paths = list(dict.fromkeys([*paths, *good]))
        return [
            None,
            paths,
            self._row(paths, good),
            self._message(message),
            self.gr.update(visible=not paths),
            self.gr.update(visible=not paths),
            self.gr.update(visible=bool(paths)),
            *(self._shown(good[0], *look) if good else [self.gr.skip()] * 5),
        ]

    def _add_samples(self, paths: list[str], *look: Any) -> list[Any]:
        folder = Path(os.environ["GRADIO_TEMP_DIR"], "samples")
        folder.mkdir(exist_ok=True)
        for name, image in sample_photographs().items():
            image.save(folder / f"{name}.jpg", quality=92)
        return self._add([str(file) for file in sorted(folder.iterdir())], paths, *look)

    def _row(self, paths: list[str], good: list[str]) -> Any:
        if not good:
            return self.gr.skip()
        images = [(self.viewer.thumbnail(path), Path(path).name) for path in paths]
        return self.gr.update(value=images, visible=len(paths) > 1, selected_index=paths.index(good[0]))

    def _message(self, messages: list[str]) -> Any:
        lines = "".join(f"<p>{html.escape(message)}</p>" for message in messages)
        return self.gr.update(value=lines, visible=bool(messages))

    def _shown(self, path: str, task: Task, threshold: float, opacity: float, crf: bool) -> list[Any]:
        """Another image: its classes, those ticked that the model is sure of, the first of them for the maps, and
        whether a class has several maps to compare."""
        with self._clearly():
            view = self.viewer.view(path)
            ticked = view.candidates(threshold / 100)
            ranked = [self.viewer.classes.index(name) for name in list(view.scores)[: max(CLASSES_SHOWN, len(ticked))]]
            choices = [(f"{self.viewer.classes[c]} {_per_cent(view.probabilities[c])}", c) for c in ranked]
            return [
                path,
                self.viewer.draw(path, task, ticked, opacity / 100, crf),
                self.gr.update(choices=choices, value=ticked),
                self.gr.update(choices=[(self.viewer.classes[c], c) for c in ranked], value=ranked[0]),
                self.gr.update(visible=self.viewer.num_maps(path) > 1),
            ]

    def _tick(self, path: str, task: Task, threshold: float, opacity: float, crf: bool) -> list[Any]:
        if not path:
            return [self.gr.skip()] * 2
        _, image, chosen, *_ = self._shown(path, task, threshold, opacity, crf)
        return [chosen, image]

    def _crf_offered(self, task: Task) -> Any:
        return self.gr.update(visible=task == "segment")

    def _draw(self, path: str, task: Task, chosen: list[int], opacity: float, crf: bool) -> Any:
        if not path:
            return self.gr.skip()
        with self._clearly():
            return self.viewer.draw(path, task, chosen, opacity / 100, crf)

    def _maps(self, path: str, c: int | None) -> Any:
        if not path or c is None or self.viewer.num_maps(path) == 1:
            return self.gr.skip()
        with self._clearly():
            maps = self.viewer.maps(path, c)
            return [(image, f"map {number} of {len(maps)}") for number, image in enumerate(maps, start=1)]

    def _save(self, kind: str, path: str, task: Task, chosen: list[int], opacity: float, crf: bool) -> str:
        """A file for the browser to fetch, in a folder of its own: two people may look at the same image."""
        with self._clearly():
            folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
            file = folder / f"{Path(path).stem}{_ENDINGS[kind]}"
            if kind == "image":
                self.viewer.draw(path, task, chosen, opacity / 100, crf).save(file, quality=92)
            elif kind == "mask":
                render.mask_png(self.viewer.mask(path, chosen, crf)).save(file)
            else:
                file.write_text(self.viewer.to_json(path, chosen), encoding="utf-8")
            return str(file)

    def _predict(self, path: str | None, threshold: float) -> dict[str, Any]:
        if path is None:
            raise self.gr.Error("an image is missing", print_exception=False)
        if not (isinstance(threshold, int | float) and 0 <= threshold <= 1):
            message = f"a threshold is a probability, from 0 to 1; got {threshold!r}"
            raise self.gr.Error(message, print_exception=False)
        with self._clearly():
            return self.viewer.prediction(path).to_dict(threshold)

    @contextmanager
    def _clearly(self) -> Iterator[None]:
        """Mistakes of the user's become a message on the page, with no traceback here or there."""
        try:
            yield
        except WildcatError as error:
            raise self.gr.Error(str(error), print_exception=False) from error


def _per_cent(probability: float) -> str:
    return f"{100 * probability:.0f}\N{NO-BREAK SPACE}%"


def _head(name: str, settings: InferenceSettings) -> str:
    classes = settings.classes
    known = shorten(classes, 6)
    return (
        "<h1>What is in your images, and where?</h1>"
        f"<p>The model <b>{html.escape(name)}</b> knows {html.escape(known)}"
        f"{'' if settings.multi_label else '; it takes every image for exactly one of them'}.</p>"
    )


_TASKS = [("What is in it", "classify"), ("Where it is", "point"), ("Which pixels", "segment")]
_SAVES = {"image": "↓ Image", "mask": "↓ Mask", "json": "↓ JSON"}
_ENDINGS = {"image": "-image.jpg", "mask": "-mask.png", "json": ".json"}
_WELCOME = """
<ol>
<li><b>Drop images</b> They go to the machine that runs this page and nowhere else, and are deleted when it ends.</li>
<li><b>Look</b> Colour shows the evidence for a class, a ring the best point, a mask its pixels.</li>
<li><b>Save</b> The image as you see it, the mask as PNG, points and scores as JSON.</li>
</ol>
"""
