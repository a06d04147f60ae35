"""Runs on the Hugging Face hub: the files that are shared, the model card, and the way there.

A shared model is config.json, model.safetensors, background.json and results.json of a run, and README.md, the card.
No pickle is written, and none is read back: :func:`wildcat.load` takes JSON and safetensors alone.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from wildcat.data.registry import without_path
from wildcat.errors import WildcatError, first_line
from wildcat.runs.folder import BACKGROUND, CONFIG, WEIGHTS, Run, read_run
from wildcat.system.files import read_json, write_atomically, write_json

RESULTS, CARD = "results.json", "README.md"
SCORES = {
    # task -> key in results.json -> its name in the card; the first that is there stands in the card's metadata too
    "classification": {"map_area": "mAP", "accuracy": "accuracy", "mean_class_accuracy": "mean accuracy of classes"},
    "pointing": {"map": "pointing mAP", "accuracy": "pointing accuracy"},
    "segmentation": {"miou": "mIoU", "miou_crf": "mIoU with CRF"},
}


def save_for_hub(run: str | Path, folder: str | Path, *, name: str | None = None, license: str = "unknown") -> Path:  # noqa: A002
    """Write a run in the hub's layout, card included; what is there already stays, but for files of the same name.

    Paths of this machine are left out: of a dataset only its kind and the last part of its path are told, and of
    warnings not the names of images, which may be paths.

    Args:
        run: the run's folder.
        folder: where to; made if needed.
        name: of the model, for the card; the run's folder name unless given.
        license: identifier of the hub, such as apache-2.0.

    Raises:
        WildcatError: if there is no finished run.
    """
    source, target = Path(run), Path(folder)
    info = read_run(source)
    if not (source / WEIGHTS).is_file():
        raise WildcatError(f"{source} has no {WEIGHTS}: training has not finished")
    target.mkdir(parents=True, exist_ok=True)
    values = read_json(source / CONFIG)
    values["config"]["data"] = without_path(values["config"]["data"])
    if values["config"]["weights"] is not None:
        values["config"]["weights"] = Path(values["config"]["weights"]).name
    write_json(target / CONFIG, values)
    results = read_json(source / RESULTS) if (source / RESULTS).is_file() else None
    if results is not None:
        results["data"] = without_path(results["data"])
        if "warnings" in results:
            results["warnings"] = [warning.partition(": ")[0] for warning in results["warnings"]]
        write_json(target / RESULTS, results)
    if (source / BACKGROUND).is_file():
        background = read_json(source / BACKGROUND)
        if "fitted_on" in background:
            spec, _, split = background["fitted_on"].rpartition(" ")
            background["fitted_on"] = f"{without_path(spec)} {split}"
        write_json(target / BACKGROUND, background)
    shutil.copyfile(source / WEIGHTS, target / WEIGHTS)
    card = model_card(info, results, name or source.resolve().name, license)
    write_atomically(target / CARD, card.encode())
    return target


def push_to_hub(
    run: str | Path,
    repo_id: str,
    *,
    license: str = "unknown",  # noqa: A002
    private: bool = False,
    token: str | None = None,
) -> str:
    """Share a run as ``owner/name`` on the hub; anyone can then ``wildcat.load("owner/name")``.

    Args:
        run: the run's folder.
        repo_id: owner/name; made if needed.
        license: see :func:`save_for_hub`.
        private: whether a model that is made is for its owner alone.
        token: of the hub; the one of ``hf auth login`` unless given.

    Returns:
        The model's address.

    Raises:
        WildcatError: if there is no finished run, or the hub rejects.
    """
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise WildcatError(f"a model of the hub is called owner/name; got {repo_id!r}")
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        save_for_hub(run, folder, name=repo_id, license=license)
        api = HfApi(token=token)
        try:
            address = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a wildcat model")
        except Exception as error:  # the hub's client raises many types
            reason = first_line(error)
            raise WildcatError(f"{repo_id} could not be uploaded: {reason}") from error
    return str(address)


def model_card(info: Run, results: dict[str, Any] | None, name: str, license: str) -> str:  # noqa: A002
    """The card of a run: Markdown with the hub's metadata in front."""
    from huggingface_hub import EvalResult, ModelCardData

    data = without_path(info.config.data)
    scores = _scores(results)
    measured = None
    if results is not None and scores:
        measured = [
            EvalResult(
                task_type="image-classification" if task == "classification" else task,
                dataset_type=without_path(results["data"]).partition(":")[0],
                dataset_name=without_path(results["data"]),
                dataset_split=results["split"],
                metric_type=key,
                metric_name=message,
                metric_value=round(value, 2),
            )
            for task, key, message, value in scores
        ]
    metadata = ModelCardData(
        license=license,
        library_name="wildcat",
        pipeline_tag="image-classification",
        tags=["weakly-supervised-learning", "localization", "segmentation", "wildcat"],
        model_name=name,
        eval_results=measured,
    ).to_yaml()
    config = info.config
    kind = "several classes in an image" if info.multi_label else "exactly one class in an image"
    trained = f"{info.images:,} images of `{data}`" if info.images else f"`{data}`: not trained by this package"
    table = "\n".join(f"| {message} | {value:.1f} |" for _, _, message, value in scores)
    warnings = "".join(f"\n\n**Warning:** {warning}." for warning in (results or {}).get("warnings", ()))
    measured_on = (
        f"Measured on `{without_path(results['data'])}`, split `{results['split']}`, {results['images']:,} images; "
        f"per cent.\n\n| | |\n|---|---|\n{table}{warnings}"
        if results is not None and scores
        else "Not measured: no results.json came with the run."
    )
    return f"""---
{metadata}
---

# {name}

A [WILDCAT](https://openaccess.thecvf.com/content_cvpr_2017/html/Durand_WILDCAT_Weakly_Supervised_CVPR_2017_paper.html)
model: it classifies images, points at what is in them and segments them, and has learnt from image tags alone, no
boxes and no masks.

```python
import wildcat  # pip install wildcat-wsl

found = wildcat.load("{name}")("image.jpg")
print(found.scores, found.points)
```

## Model

- Backbone `{config.backbone}`, {config.num_maps} maps per class, pooling `{config.pooling}` with k+ {config.kmax}, \
k- {config.kmax if config.kmin is None else config.kmin}, alpha {config.alpha}.
- {len(info.classes)} classes, {kind}: {_listed(info.classes)}.
- Images are read at {_listed(map(str, config.score_sizes))} pixels for scores and at \
{_listed(map(str, config.map_sizes))} for points and masks{", mirrored too" if config.mirror else ""}.

## Training data

{trained}.

## Scores

{measured_on}

## Limits

- A point or a mask shows what the class was recognised by. That may be a part of the object, or what usually
  surrounds it.
- Masks are coarse: a cell of the maps is many pixels. They were never compared with masks while training.
- Probabilities are those of images like the training data's. Elsewhere they may be far off, and a class that was not
  trained is never found.
- The scores above hold for the data named there and for no other.

## License

`{license}`. The license of the training images and of the backbone's first weights may bind the use of the model too.
"""


def _scores(results: dict[str, Any] | None) -> list[tuple[str, str, str, float]]:
    """(task, key, name, value) of each headline figure."""
    return [
        (task, key, message, float(value))
        for task, keys in SCORES.items()
        for key, message in keys.items()
        if (value := (results or {}).get(task, {}).get(key)) is not None
    ]


def _listed(names: Any) -> str:
    return ", ".join(names)
