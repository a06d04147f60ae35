"""Sharing a run on the Hugging Face hub: the files, the model card and the upload.

A shared model consists of config.json, model.safetensors, background.json and results.json of a run, and the model
card, README.md. No pickle is written or read: :func:`wildcat.load` reads JSON and safetensors only.
"""

import html
import json
import re
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from wildcat.data.registry import without_path
from wildcat.errors import WildcatError, first_line
from wildcat.metrics.metric_table import Detail, measured, not_scored
from wildcat.runs.folder import BACKGROUND, CONFIG, WEIGHTS, Run, read_run
from wildcat.runs.results import RESULTS, Results, read_results
from wildcat.system.files import json_bytes, read_json
from wildcat.system.json_object import JsonObject
from wildcat.system.output_folder import LIST, OutputFolder

CARD = "README.md"


def save_for_hub(
    run: str | Path,
    folder: str | Path,
    *,
    name: str | None = None,
    license: str = "unknown",  # noqa: A002
    overwrite: bool = False,
) -> Path:
    """Write the files of a run that are shared on the hub, model card included.

    Paths of this machine are left out: only the kind of a dataset and the last part of its path are written, and
    warnings do not name images. Files that were not written by this function, or were changed since, are not replaced
    (a model card that was completed by hand, for example).

    Args:
        run: the run directory.
        folder: where to write; created if needed.
        name: of the model, for the card; the name of the run directory unless given.
        license: identifier of the hub, such as apache-2.0.
        overwrite: replace other files of the same names, too.

    Returns:
        The folder.

    Raises:
        WildcatError: if the run is not finished, one of its files is damaged, or the folder has other files of these
            names.

    >>> save_for_hub("runs/mine", "to_share", license="apache-2.0")  # doctest: +SKIP
    """
    source, target = Path(run), Path(folder)
    info = read_run(source)
    if not (source / WEIGHTS).is_file():
        raise WildcatError(f"{source} has no {WEIGHTS}: training has not finished")
    out = OutputFolder(target, overwrite=overwrite)
    out.check([CONFIG, RESULTS, BACKGROUND, WEIGHTS, CARD])
    values = read_json(source / CONFIG)
    values["config"]["data"] = without_path(values["config"]["data"])
    if values["config"].get("weights") is not None:
        values["config"]["weights"] = Path(values["config"]["weights"]).name
    out.write(CONFIG, json_bytes(values))
    results = read_results(source / RESULTS) if (source / RESULTS).is_file() else None
    if results is not None:
        others = tuple(_without_paths(each) for each in results.others)
        results = replace(_without_paths(results), others=others)
        out.write(RESULTS, json_bytes(results.to_dict()))
    if (source / BACKGROUND).is_file():
        background = read_json(source / BACKGROUND)
        if "fitted_on" in background:
            spec, _, split = JsonObject(background, str(source / BACKGROUND)).text("fitted_on").rpartition(" ")
            background["fitted_on"] = f"{without_path(spec)} {split}"
        out.write(BACKGROUND, json_bytes(background))
    out.write(WEIGHTS, (source / WEIGHTS).read_bytes())
    card = model_card(info, results, name or source.resolve().name, license)
    out.write(CARD, card.encode("utf-8", "backslashreplace"))
    return target


def _without_paths(results: Results) -> Results:
    warnings = tuple(warning.partition(": ")[0] for warning in results.warnings)  # without the names of images
    return replace(results, data=without_path(results.data), warnings=warnings)


def push_to_hub(
    run: str | Path,
    repo_id: str,
    *,
    license: str = "unknown",  # noqa: A002
    private: bool = False,
    token: str | None = None,
) -> str:
    """Upload a run to the hub as ``owner/name``, so that others can use ``wildcat.load("owner/name")``.

    Args:
        run: the run directory.
        repo_id: owner/name; created if needed.
        license: as for :func:`save_for_hub`.
        private: whether a model that is created is visible to its owner only.
        token: of the hub; the one of ``hf auth login`` unless given.

    Returns:
        The address of the model.

    Raises:
        WildcatError: if the run is not finished, or the hub rejects the upload.

    >>> push_to_hub("runs/mine", "owner/name", license="mit")  # doctest: +SKIP
    'https://huggingface.co/owner/name'
    """
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise WildcatError(f"a model of the hub is called owner/name; got {repo_id!r}")
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        save_for_hub(run, folder, name=repo_id, license=license)
        Path(folder, LIST).unlink()  # of use on this machine only
        api = HfApi(token=token)
        try:
            address = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a wildcat model")
        except Exception as error:  # the hub's client raises many types
            reason = first_line(error)
            raise WildcatError(f"{repo_id} could not be uploaded: {reason}") from error
    return str(address)


def model_card(info: Run, results: Results | None, name: str, license: str) -> str:  # noqa: A002
    """The model card of a run: Markdown, with the hub's metadata at the top.

    Args:
        info: the run.
        results: its scores, if it was scored.
        name: of the model, owner/name for a model that is uploaded.
        license: identifier of the hub.
    """
    from huggingface_hub import EvalResult, ModelCardData

    scores = [] if results is None else measured(results, Detail.HEADLINE)
    entries = None
    if results is not None and scores:
        entries = [
            EvalResult(
                task_type="image-classification" if metric.task == "classification" else metric.task,
                dataset_type=without_path(results.data).partition(":")[0],
                dataset_name=without_path(results.data),
                dataset_split=results.split,
                metric_type=metric.key,
                metric_name=metric.name,
                metric_value=round(value, 2),
            )
            for metric, value in scores
        ]
    metadata = ModelCardData(
        license=license,
        library_name="wildcat",
        pipeline_tag="image-classification",
        tags=["weakly-supervised-learning", "localization", "segmentation", "wildcat"],
        model_name=name,
        eval_results=entries,
    ).to_yaml()
    config = info.config
    mirror = ", and mirrored too" if config.mirror else ""
    kind = "several classes in an image" if info.multi_label else "exactly one class in an image"
    shown = _code(without_path(info.config.data))
    trained = f"{info.images:,} images of {shown}" if info.images else f"{shown}: not trained by this package"
    measured_on = "Not measured: the run has no results.json."
    if results is not None and scores:
        table = "\n".join(f"| {metric.name} | {value:.1f} {metric.unit} |" for metric, value in scores)
        warnings = "".join(f"\n\n**Warning:** {_plain(warning)}." for warning in results.warnings)
        left_out = "".join(
            f"\n\n{task}: {_plain(text)}." for task in results.tasks if (text := not_scored(results, task))
        )
        measured_on = (
            f"Measured on {_code(without_path(results.data))}, split {_code(results.split)}, "
            f"{results.images:,} images.\n\n"
            f"| metric | score |\n|---|---|\n{table}{left_out}{warnings}"
        )
    return f"""---
{metadata}
---

# {_plain(name)}

A [WILDCAT](https://openaccess.thecvf.com/content_cvpr_2017/html/Durand_WILDCAT_Weakly_Supervised_CVPR_2017_paper.html)
model: it classifies images, locates objects by one point per class and segments them. It was trained on image-level
labels alone, without boxes or masks.

```python
import wildcat  # pip install wildcat-wsl

prediction = wildcat.load({json.dumps(name)})("image.jpg")
print(prediction.scores, prediction.points)
```

## Model

- Backbone {_code(config.backbone)}, {config.num_maps} maps per class, pooled by {_code(config.class_pooling)}; \
spatial pooling {_code(config.pooling)} with \
k+ {config.kmax}, k- {config.kmax if config.kmin is None else config.kmin}, alpha {config.alpha}.
- {len(info.classes)} classes, {kind}: {_listed(map(_plain, info.classes))}.
- Images are resized to a side of {_listed(map(str, config.score_sizes))} pixels for scores and of \
{_listed(map(str, config.map_sizes))} pixels for points and masks{mirror}.

## Training data

{trained}.

## Scores

{measured_on}

## Limits

- A point or a mask shows the evidence for a class. That may be a part of the object, or what usually surrounds it.
- Masks are coarse: a cell of the class maps covers many pixels. The model was never trained with masks.
- Probabilities are reliable only for images like the training data. The model cannot recognize classes that it was
  not trained on.
- The scores above are valid only for the dataset that they were measured on.

## License

{_code(license)}. The licenses of the training images and of the backbone's pretrained weights may restrict the use of
the model as well.
"""


def _plain(text: str) -> str:
    """Text from data as Markdown that shows it as it is: on one line, without links, HTML or control characters.

    >>> _plain("a_b <script>\\n# no title")
    'a\\\\_b &lt;script&gt; \\\\# no title'
    """
    text = html.escape(_one_line(text), quote=False)
    return re.sub(r"([\\`*_\[\]#|~])", r"\\\1", text)


def _code(text: str) -> str:
    """Text from data as a code span of Markdown.

    >>> _code("folder:a`b")
    '``folder:a`b``'
    """
    text = _one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", " ".join(text.split()))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
