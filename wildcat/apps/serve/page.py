"""The web page: classify, localize and segment uploaded images, and download masks and points."""

import html
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from wildcat import render
from wildcat.apps.serve.uploads import SAMPLES
from wildcat.apps.serve.viewer import Task, Viewer
from wildcat.data.photographs import sample_photographs
from wildcat.errors import WildcatError, shorten
from wildcat.runs.settings import InferenceSettings

MAX_IMAGES = 100  # in one browser tab
MAX_QUEUED_REQUESTS = 200  # gradio answers further requests with an error
MAX_CONCURRENT_REQUESTS = 4  # the network itself processes one image at a time
CLASSES_SHOWN = 20  # the most probable ones


class Page:
    """The components of the page and their event handlers. A session's state is the list of its uploaded files."""

    def __init__(self, gradio: Any, viewer: Viewer, name: str) -> None:
        self.gr = gradio
        self.viewer = viewer
        with gradio.Blocks(
            title=f"wildcat: {name}",
            analytics_enabled=False,
            fill_width=True,
        ) as self.blocks:
            self._layout(name)
            self._connect_events()
            self._add_api()
        self.blocks.queue(max_size=MAX_QUEUED_REQUESTS, default_concurrency_limit=MAX_CONCURRENT_REQUESTS)

    # ---- Components -----------------------------------------------------------------------------------------------

    def _layout(self, name: str) -> None:
        gr = self.gr
        self.paths, self.current = gr.State([]), gr.State("")
        gr.HTML(_header(name, self.viewer.predictor.settings), elem_id="header", padding=False)
        with gr.Row(elem_id="layout"):
            with gr.Column(scale=1, min_width=260):
                self.upload = gr.File(
                    show_label=False, file_count="multiple", type="filepath", height=130, elem_id="upload"
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
                self.sample = gr.Button("Try sample photographs", size="md", elem_id="sample")
            with gr.Column(scale=4, min_width=320):
                self.welcome = gr.HTML(_WELCOME, elem_id="welcome", padding=False)
                with gr.Column(visible=False, elem_id="work") as self.work:
                    self._result_area()

    def _result_area(self) -> None:
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
                    label="Classes",
                    info="Most probable first. The ticked classes are shown and saved.",
                    elem_id="classes",
                )
                self.threshold = gr.Slider(
                    0,
                    100,
                    50,
                    step=1,
                    label="Threshold (%)",
                    info="Ticks the classes with at least this probability.",
                    buttons=[],
                    visible=self.viewer.predictor.settings.multi_label,
                    elem_id="threshold",
                )
                self.opacity = gr.Slider(0, 100, 70, step=1, label="Opacity (%)", buttons=[], elem_id="opacity")
                self.crf = gr.Checkbox(
                    False,
                    label="Refine with CRF",
                    info="Aligns mask borders with edges of the image; slower.",
                    visible=False,
                    elem_id="crf",
                )
                with gr.Row(elem_id="saves"):
                    self.saves = {
                        kind: gr.Button(label, size="sm", min_width=60, elem_id=f"save-{kind}")
                        for kind, label in _SAVES.items()
                    }
                self.file = gr.DownloadButton("file", visible="hidden", elem_id="file")
        self.maps_panel = gr.Accordion("Maps of each class", open=False, visible=False, elem_id="maps-panel")
        with self.maps_panel:
            self.map_class = gr.Dropdown(label="Class", elem_id="map-class")
            self.maps = gr.Gallery(
                show_label=False,
                columns=4,
                height="auto",
                object_fit="contain",
                interactive=False,
                buttons=[],
                format="jpeg",
                elem_id="maps",
            )

    # ---- Events ---------------------------------------------------------------------------------------------------

    def _connect_events(self) -> None:
        import gradio as gr

        settings = [self.task, self.threshold, self.opacity, self.crf]
        drawing = [self.current, self.task, self.chosen, self.opacity, self.crf]
        result = [self.current, self.image, self.chosen, self.map_class, self.maps_panel]
        page = [self.upload, self.paths, self.thumbnails, self.notice, self.sample, self.welcome, self.work]
        private: dict[str, Any] = {"api_visibility": "private"}
        quiet: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", **private}
        maps: dict[str, Any] = {
            "fn": self._maps,
            "inputs": [self.current, self.map_class],
            "outputs": self.maps,
            **quiet,
        }

        def select(event: gr.SelectData, paths: list[str], *values: Any) -> list[Any]:
            return self._show(paths[event.index], *values)

        self.upload.upload(self._add, [self.upload, self.paths, *settings], [*page, *result], **private).then(**maps)
        self.sample.click(self._add_samples, [self.paths, *settings], [*page, *result], **private).then(**maps)
        self.thumbnails.select(select, [self.paths, *settings], result, **private).then(**maps)
        self.threshold.input(self._apply_threshold, [self.current, *settings], [self.chosen, self.image], **quiet)
        self.task.input(self._toggle_crf, self.task, self.crf, queue=False, **private)
        for control in (self.task, self.crf):
            control.input(self._draw, drawing, self.image, **private)
        for control in (self.chosen, self.opacity):
            control.input(self._draw, drawing, self.image, **quiet)
        self.map_class.input(**maps)
        for kind, button in self.saves.items():
            saved = button.click(partial(self._save, kind), drawing, self.file, **private)
            saved.then(None, js="() => document.querySelector('#file').click()", **private)

    def _add_api(self) -> None:
        """The end point for programs: takes an image and a threshold, returns the prediction as JSON."""
        gr = self.gr
        image = gr.File(label="image", type="filepath", visible=False)
        threshold = gr.JSON("0.5", label="threshold", visible=False)  # the errors of gr.Number do not reach the caller
        prediction = gr.JSON(visible=False)
        gr.Button(visible=False).click(self._predict, [image, threshold], prediction, api_name="predict")

    def _add(self, new: list[str] | None, paths: list[str], *settings: Any) -> list[Any]:
        """Add uploaded files to the thumbnails and show the first one that can be read."""
        readable: list[str] = []
        messages: list[str] = []
        for path in dict.fromkeys(new or []):
            if path not in paths and len(paths) + len(readable) == MAX_IMAGES:
                messages.append(f"the page holds at most {MAX_IMAGES} images; use the command wildcat predict for more")
                break
            try:
                self.viewer.thumbnail(path)
                readable.append(path)
            except WildcatError as error:
                messages.append(str(error))
        paths = list(dict.fromkeys([*paths, *readable]))
        return [
            None,
            paths,
            self._thumbnail_row(paths, readable),
            self._notice(messages),
            self.gr.update(visible=not paths),
            self.gr.update(visible=not paths),
            self.gr.update(visible=bool(paths)),
            *(self._show(readable[0], *settings) if readable else [self.gr.skip()] * 5),
        ]

    def _add_samples(self, paths: list[str], *settings: Any) -> list[Any]:
        folder = Path(os.environ["GRADIO_TEMP_DIR"], SAMPLES)
        folder.mkdir(exist_ok=True)
        for name, image in sample_photographs().items():
            image.save(folder / f"{name}.jpg", quality=92)
        return self._add([str(file) for file in sorted(folder.iterdir())], paths, *settings)

    def _thumbnail_row(self, paths: list[str], new: list[str]) -> Any:
        if not new:
            return self.gr.skip()
        images = [(self.viewer.thumbnail(path), Path(path).name) for path in paths]
        return self.gr.update(value=images, visible=len(paths) > 1, selected_index=paths.index(new[0]))

    def _notice(self, messages: list[str]) -> Any:
        lines = "".join(f"<p>{html.escape(message)}</p>" for message in messages)
        return self.gr.update(value=lines, visible=bool(messages))

    def _show(self, path: str, task: Task, threshold: float, opacity: float, crf: bool) -> list[Any]:
        """Values of the components for an image.

        The classes above the threshold are ticked; the maps are those of the most probable class, and their panel is
        hidden where a class has one map.
        """
        with self._error_messages():
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

    def _apply_threshold(self, path: str, task: Task, threshold: float, opacity: float, crf: bool) -> list[Any]:
        if not path:
            return [self.gr.skip()] * 2
        _, image, chosen, *_ = self._show(path, task, threshold, opacity, crf)
        return [chosen, image]

    def _toggle_crf(self, task: Task) -> Any:
        return self.gr.update(visible=task == "segment")

    def _draw(self, path: str, task: Task, chosen: list[int], opacity: float, crf: bool) -> Any:
        if not path:
            return self.gr.skip()
        with self._error_messages():
            return self.viewer.draw(path, task, chosen, opacity / 100, crf)

    def _maps(self, path: str, label: int | None) -> Any:
        if not path or label is None or self.viewer.num_maps(path) == 1:
            return self.gr.skip()
        with self._error_messages():
            maps = self.viewer.maps(path, label)
            return [(image, f"map {number} of {len(maps)}") for number, image in enumerate(maps, start=1)]

    def _save(self, kind: str, path: str, task: Task, chosen: list[int], opacity: float, crf: bool) -> str:
        """Write a file for download. Each one has its own folder, as several users may save the same image."""
        with self._error_messages():
            folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
            file = folder / f"{Path(path).stem}{_FILE_ENDINGS[kind]}"
            if kind == "image":
                self.viewer.draw(path, task, chosen, opacity / 100, crf).save(file, quality=92)
            elif kind == "mask":
                render.mask_png(self.viewer.mask(path, chosen, crf)).save(file)
            else:
                file.write_text(self.viewer.to_json(path, chosen), encoding="utf-8")
            return str(file)

    def _predict(self, path: str | None, threshold: float) -> dict[str, Any]:
        if path is None:
            raise self.gr.Error("no image was sent", print_exception=False)
        if not (isinstance(threshold, int | float) and 0 <= threshold <= 1):
            message = f"the threshold must be a probability from 0 to 1; got {threshold!r}"
            raise self.gr.Error(message, print_exception=False)
        with self._error_messages():
            return self.viewer.prediction(path).to_dict(threshold)

    @contextmanager
    def _error_messages(self) -> Iterator[None]:
        """Show a WildcatError as a message on the page, without a traceback there or in the log."""
        try:
            yield
        except WildcatError as error:
            raise self.gr.Error(str(error), print_exception=False) from error


def _per_cent(probability: float) -> str:
    return f"{100 * probability:.0f}\N{NO-BREAK SPACE}%"


def _header(name: str, settings: InferenceSettings) -> str:
    classes = settings.classes
    known = shorten(classes, 6)
    return (
        "<h1>Classify, localize and segment images</h1>"
        f"<p>Model: <b>{html.escape(name)}</b>. Classes: {html.escape(known)}"
        f"{'' if settings.multi_label else ' (exactly one class per image)'}.</p>"
    )


_TASKS = [("Heatmap", "classify"), ("Points", "point"), ("Mask", "segment")]
_SAVES = {"image": "↓ Image", "mask": "↓ Mask", "json": "↓ JSON"}
_FILE_ENDINGS = {"image": "-image.jpg", "mask": "-mask.png", "json": ".json"}
_WELCOME = """
<ol>
<li><b>Upload</b> Images, of up to 64 MB each and 512 MB at once, are sent only to the machine that runs this page, and
deleted when its server stops.</li>
<li><b>Inspect</b> A heatmap shows the evidence for a class, a ring its point, a mask its pixels.</li>
<li><b>Save</b> The image as shown, the mask as PNG, points and scores as JSON.</li>
</ol>
"""
