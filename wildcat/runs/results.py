"""``results.json`` of a run: the scores of a model on a dataset, and how they were measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

from wildcat.metrics.scores import Scores, read_sections
from wildcat.system.files import write_json
from wildcat.system.json_object import JsonObject

RESULTS = "results.json"
MAX_OTHERS = 100  # evaluations on other data that are kept beside the first

Part: TypeAlias = Literal["held out", "training data", "other data", "unknown"]
"""What the scored images are to the training of the model: the part that was held out of it, another part of the same
data, other data, or not known."""


@dataclass(frozen=True)
class Inference:
    """How images were processed for the scores.

    Attributes:
        score_sizes: sides in pixels at which images were processed for the scores of classes.
        map_sizes: sides at which they were processed for points and masks; None where no task needed them.
        mirror: whether the mirror image was processed too.
        precision: of the backbone, "fp32" or "bf16"; "" where it is not known.
        runtime: "torch", "onnx" or "openvino"; "" where it is not known.
    """

    score_sizes: tuple[int, ...] = ()
    map_sizes: tuple[int, ...] | None = None
    mirror: bool = False
    precision: str = ""
    runtime: str = ""

    @classmethod
    def read(cls, values: JsonObject) -> Inference:
        """From the part "inference" of results.json."""
        return cls(
            score_sizes=values.sizes("score_sizes", ()),
            map_sizes=values.sizes("map_sizes") if "map_sizes" in values else None,
            mirror=values.flag("mirror", False),
            precision=values.text("precision", ""),
            runtime=values.text("runtime", ""),
        )

    def to_dict(self) -> dict[str, Any]:
        """The part "inference" of results.json."""
        return {
            "score_sizes": list(self.score_sizes),
            **({} if self.map_sizes is None else {"map_sizes": list(self.map_sizes)}),
            "mirror": self.mirror,
            "precision": self.precision,
            "runtime": self.runtime,
        }


@dataclass(frozen=True, kw_only=True)
class Results(Scores):
    """The scores of a model on a dataset, in per cent, and how they were measured: the content of results.json.

    A model of several scales has the scores of each scale and of each combination as well; ``classification``,
    ``pointing`` and ``segmentation`` are those of the combination that is used for predictions.

    Attributes:
        classification: scores of the classification; None where that was not scored, as for the other tasks.
        pointing: scores of the pointwise localization.
        segmentation: scores of the masks.
        data: the dataset, kind:path.
        split: the split that was scored.
        images: how many images were scored.
        inference: sizes, precision and runtime of the model.
        combination: "mean" or "object_bank", the combination that is used for predictions; None for a single model.
        scales: the scores of each scale, by its size; empty for a single model.
        combinations: the scores of each combination by name; empty for a single model.
        seconds: how long scoring took.
        versions: of wildcat and the packages that the scores may depend on.
        warnings: sentences about the scores, such as that images were trained on.
        part: what the scored images are to the training of the model; "unknown" in files of earlier versions.
        model: fingerprint of weights and structure of the model; "" where it is not known.
        images_digest: digest of names, labels and files of the images; "" where it is not known.
        others: the results of the same model on other data and other splits, the latest first; their own ``others`` are
            empty.

    >>> results = Results.from_dict({"data": "folder:cats", "split": "test", "images": 3, "pointing": {"map": 70.25}})
    >>> results.pointing.map, results.classification
    (70.25, None)
    """

    data: str
    split: str
    images: int
    inference: Inference = Inference()
    combination: str | None = None
    scales: Mapping[str, Scores] = field(default_factory=dict)
    combinations: Mapping[str, Scores] = field(default_factory=dict)
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    part: Part = "unknown"
    model: str = ""
    images_digest: str = ""
    others: tuple[Results, ...] = ()

    @property
    def scored_images(self) -> str:
        """How many images of what data and split were scored, and what these are to the training.

        >>> Results(data="folder:new", split="all", images=206, part="other data").scored_images
        '206 images of folder:new, all of them: it is not the training data'
        >>> Results(data="folder:mine", split="test", images=41, part="held out").scored_images
        '41 held-out images of folder:mine, split test'
        """
        return describe_scored(self.images, self.data, self.split, self.part)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str = RESULTS) -> Results:
        """From plain values, as :meth:`to_dict` gives them or an earlier version wrote them; checks every value.

        Args:
            values: the content of results.json. Keys that are not known are ignored.
            file: name of the file that they come from, for error messages.

        Raises:
            WildcatError: naming the file, the key and what is allowed, if an entry is missing or not of the format.
        """
        return cls._read(JsonObject(values, file))

    @classmethod
    def _read(cls, values: JsonObject, nested: bool = False) -> Results:
        inference = "inference" if "inference" in values else "reading"  # the key of the first versions
        return cls(
            **read_sections(values),
            data=values.text("data"),
            split=values.text("split"),
            images=values.count("images"),
            inference=Inference.read(values.child(inference)),
            combination=values.text("combination") if "combination" in values else None,
            scales=_read_parts(values, "scales"),
            combinations=_read_parts(values, "combinations"),
            seconds=0.0 if values.values.get("seconds") is None else values.number("seconds", 0.0, 0),
            versions={name: values.child("versions").text(name) for name in values.child("versions").values},
            warnings=values.texts("warnings", ()),
            part=_read_part(values),
            model=values.text("model", ""),
            images_digest=values.text("images_digest", ""),
            others=() if nested else tuple(cls._read(each, True) for each in values.objects("others", MAX_OTHERS)),
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of results.json: plain values; a score that is not defined is None."""
        content: dict[str, Any] = {"data": self.data, "split": self.split, "images": self.images}
        if self.part != "unknown":
            content["part"] = self.part
        content |= super().to_dict()
        content["inference"] = self.inference.to_dict()
        if self.combination is not None:
            content["combination"] = self.combination
            content["scales"] = {name: scores.to_dict() for name, scores in self.scales.items()}
            content["combinations"] = {name: scores.to_dict() for name, scores in self.combinations.items()}
        content |= {"seconds": self.seconds, "versions": dict(self.versions)}
        if self.warnings:
            content["warnings"] = list(self.warnings)
        content |= {key: text for key in ("model", "images_digest") if (text := getattr(self, key))}
        if self.others:
            content["others"] = [each.to_dict() for each in self.others]
        return content


def describe_scored(images: int, data: str, split: str, part: Part) -> str:
    """How many images of what data and split are scored, as :attr:`Results.scored_images` says it."""
    count = f"{images:,} image{'' if images == 1 else 's'} of {data}"
    if part == "held out":
        return f"{count}, split {split}".replace(" image", " held-out image", 1)
    if part == "training data":
        return f"{count}, split {split} of the training data"
    which = "all of them" if split == "all" else f"split {split}"
    return f"{count}, {which}: it is not the training data" if part == "other data" else f"{count}, {which}"


def _read_part(values: JsonObject) -> Part:
    part = values.text("part", "unknown")
    if part not in get_args(Part):
        raise values.error("part", f"one of {', '.join(get_args(Part))}")
    return cast(Part, part)


def _read_parts(values: JsonObject, key: str) -> dict[str, Scores]:
    return {name: Scores(**read_sections(part)) for name, part in values.child(key).children().items()}


def results_file(run: str | Path) -> Path | None:
    """Where the results of a run belong: ``results.json`` in its folder; None for a model that is not in a folder."""
    return Path(run) / RESULTS if Path(run).is_dir() else None


def read_results(file: Path) -> Results:
    """Read a results.json, of this or any earlier version.

    Raises:
        WildcatError: if the file is missing or damaged; the message names the file and the key.

    >>> read_results(Path("runs/mine/results.json")).classification.map_area  # doctest: +SKIP
    """
    return Results._read(JsonObject.read(file))


def write_results(file: Path, results: Results) -> None:
    """Write a results.json; a crash leaves the old file or the new one, whole.

    Raises:
        WildcatError: if the file cannot be written.

    >>> write_results(Path("results.json"), results)  # doctest: +SKIP
    """
    write_json(file, results.to_dict())
