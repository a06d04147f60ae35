"""Finds images, labels and class names of a YOLO dataset where Ultralytics, CVAT, Label Studio and others put them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from wildcat.data.class_list import check_classes, find_class_list, names_in, read_class_list
from wildcat.data.files import image_files_below, is_user_folder
from wildcat.data.hold_out import RANDOM_SPLITS
from wildcat.data.sample import require_path
from wildcat.errors import WildcatError, shorten

_WHAT = "give a data.yaml of YOLO, or the folder that holds it"
_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_NAME_FILES = ("classes.txt", "obj.names", "classes.names", "labels.txt")
_YAML = (".yaml", ".yml")


@dataclass
class YoloFiles:
    """Where the files of a dataset are.

    Attributes:
        source: the file, or folder, that describes it.
        root: to which its paths are relative.
        classes: in the order of their numbers.
        by_split: split -> paths of folders, of lists of images, or of images, as they are written.
        has_points: lines are boxes with key points behind them.
        note: how it was read, "" if there is nothing to say.
    """

    source: Path
    root: Path
    classes: list[str]
    by_split: dict[str, list[str]]
    has_points: bool = False
    note: str = ""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, if there are two or more; else those of a random split."""
        return tuple(self.by_split) if len(self.by_split) > 1 else RANDOM_SPLITS

    def entries(self, split: str) -> list[str]:
        """The paths of a split as they are written; all of them for ""."""
        return [entry for name, entries in self.by_split.items() if split in ("", name) for entry in entries]

    def images(self, split: str) -> dict[str, Path]:
        """Name -> file of the images of a split, or of all for ""; files may be missing.

        Raises:
            WildcatError: for a path that is not there.
        """
        files: dict[Path, None] = {}
        for entry in self.entries(split):
            path = self._resolve(entry)
            if path.is_dir():
                files.update(dict.fromkeys(path / name for name in image_files_below(path)))
            elif path.suffix.lower() == ".txt":
                files.update(dict.fromkeys(self._listed(path)))
            else:
                files[path] = None
        names: dict[str, Path] = {}
        for path in files:
            try:
                name = path.relative_to(self.root).as_posix()
            except ValueError:
                name = path.as_posix()
            names[name] = path
        return names

    def _resolve(self, entry: str) -> Path:
        """The file or folder that an entry of the description names.

        Roboflow writes "../train/images" for "train/images", and "path" may be that of another machine.
        """
        plain = entry.replace("\\", "/")
        steps = [part for part in PurePath(plain).parts if part != ".."]
        bases = (self.root, self.source if self.source.is_dir() else self.source.parent)
        candidates = [Path(plain) if PurePath(plain).is_absolute() else base / plain for base in bases]
        candidates += [base.joinpath(*steps) for base in bases]
        found = next((path for path in candidates if path.exists()), None)
        # Without its first folders, a relative path to a folder could be that of another split.
        shorter = [base.joinpath(*steps[start:]) for start in range(1, len(steps)) for base in bases]
        is_elsewhere = PurePath(plain).is_absolute()
        found = found or next((path for path in shorter if path.is_file() or (is_elsewhere and path.is_dir())), None)
        if found is None:
            raise WildcatError(f"{self.source}: {entry!r} is not there; looked for {shorten([str(candidates[0])])}")
        return found

    def _listed(self, path: Path) -> list[Path]:
        """The images that a text file lists, one a line."""
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise WildcatError(f"{path}: cannot be read as text in UTF-8: {error}") from None
        return [self._listed_image(path, line.replace("\\", "/")) for line in lines if line]

    def _listed_image(self, path: Path, line: str) -> Path:
        """A line is relative to the list or to the root; its first folders may be those of another machine."""
        steps = [part for part in PurePath(line).parts if part not in ("/", "..")]
        first = Path(line) if PurePath(line).is_absolute() else path.parent / line
        rest = (base.joinpath(*steps[start:]) for start in range(len(steps)) for base in (path.parent, self.root))
        return next((file for file in (first, *rest) if file.is_file()), first)

    def expected_labels(self, image: Path) -> Path:
        """Where the labels of an image belong: in labels beside images, or else beside the image."""
        parts = list(image.parts)
        for index in range(len(parts) - 2, -1, -1):
            if parts[index] == "images":
                parts[index] = "labels"
                break
        return Path(*parts).with_suffix(".txt")

    def labels_of(self, image: Path) -> Path | None:
        """The file with the labels of an image; None if there is none."""
        return next((file for file in (self.expected_labels(image), image.with_suffix(".txt")) if file.is_file()), None)


def is_class_folders(path: Path) -> bool:
    """Whether a folder is one of classification: neither a description nor labels, but folders of classes."""
    if not path.is_dir() or _description(path) is not None:
        return False
    if any((path / name).exists() for name in ("labels", *_NAME_FILES)):
        return False
    inner = [entry.name for entry in path.iterdir() if entry.is_dir() and is_user_folder(entry.name)]
    return bool(inner) and not any((path / name / "labels").is_dir() for name in inner)


def _description(folder: Path) -> Path | None:
    """The data.yaml, or another one that names classes, or obj.data, of a folder."""
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if (folder / name).is_file():
            return folder / name
    files = sorted(file for suffix in _YAML for file in folder.glob(f"*{suffix}"))
    files = [file for file in files if b"names" in file.read_bytes()[:100_000]]
    if len(files) == 1:
        return files[0]
    return folder / "obj.data" if (folder / "obj.data").is_file() else None


def find_yolo(path: Path, class_list: str | None = None) -> YoloFiles:
    """Find what belongs to a dataset.

    Args:
        path: data.yaml, obj.data or a folder.
        class_list: a file of classes, where no other file names them.

    Raises:
        WildcatError: if the path is none of these, or no file names the classes.
    """
    require_path(path, _WHAT)
    source = path
    if path.is_dir():
        source = _description(path) or path
    given = None
    if class_list is not None:
        given = read_class_list(find_class_list(class_list, source if source.is_dir() else source.parent))
    if source.is_dir():
        return _from_folders(source, given)
    if source.suffix.lower() in _YAML:
        return _from_yaml(source, given)
    if source.suffix.lower() == ".data":
        return _from_darknet(source, given)
    raise WildcatError(f"{path}: is no YAML file; {_WHAT}")


def _from_yaml(file: Path, classes: list[str] | None) -> YoloFiles:
    import yaml

    try:
        values: Any = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise WildcatError(f"{file}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise WildcatError(f"{file}: is no data.yaml of YOLO, which has names, train and val")
    if classes is None:
        classes = names_in({"names": values.get("names")})
        if not classes:
            raise WildcatError(f"{file}: has no list of names, which are its classes; class_list=FILE names them")
        classes = check_classes(file, classes)
    by_split: dict[str, list[str]] = {}
    for split, keys in _KEYS.items():
        entries = next((values[key] for key in keys if values.get(key)), None)
        if entries is None:
            continue
        entries = [entries] if isinstance(entries, str) else entries
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise WildcatError(f"{file}: {keys[0]} must be a path, or a list of paths; got {entries!r}")
        by_split[split] = entries
    if not by_split:
        return _from_folders(file.parent, classes)
    own_root = Path(str(values.get("path") or "")).expanduser()
    root = next((place for place in (file.parent / own_root, own_root) if place.is_dir()), file.parent)
    note = ""
    if by_split.get("train") == by_split.get("val"):
        del by_split["val"]
        note = "train and val are the same images: some are held out at random"
    found = YoloFiles(file, root, classes, by_split, bool(values.get("kpt_shape")), note)
    _drop_missing(found)
    return found


def _drop_missing(found: YoloFiles) -> None:
    """Leave out splits whose paths are not there, such as the test split that Roboflow names always."""
    missing = []
    for split in list(found.by_split):
        try:
            for entry in found.by_split[split]:
                found._resolve(entry)
        except WildcatError:
            missing.append(split)
    if missing and len(missing) < len(found.by_split):
        for split in missing:
            del found.by_split[split]
        found.note = "; ".join(filter(None, [found.note, f"the images of {', '.join(missing)} are not there"]))


def _from_darknet(file: Path, classes: list[str] | None) -> YoloFiles:
    """A file of Darknet: lines "names = data/obj.names" and "train = data/train.txt"."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WildcatError(f"{file}: cannot be read as text in UTF-8: {error}") from None
    values = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    by_split = {split: [values[key]] for split, keys in _KEYS.items() for key in keys if values.get(key)}
    found = YoloFiles(file, file.parent, classes or [], by_split)
    if not found.classes:
        found.classes = read_class_list(found._resolve(values.get("names", "obj.names")))
    if not by_split:
        raise WildcatError(f"{file}: names no images: it has no line train = FILE")
    _drop_missing(found)
    return found


def _from_folders(folder: Path, classes: list[str] | None) -> YoloFiles:
    """Folders of images and labels without a description, as Label Studio exports them."""
    if classes is None:
        names = next((folder / name for name in _NAME_FILES if (folder / name).is_file()), None)
        if names is None:
            raise WildcatError(
                f"{folder}: holds no data.yaml, obj.data or classes.txt that names the classes; class_list=FILE does"
            )
        classes = read_class_list(names)
    by_split: dict[str, list[str]] = {}
    for split, keys in _KEYS.items():
        for place in (f"{start}{key}{end}" for key in keys for start, end in (("images/", ""), ("", "/images"))):
            if (folder / place).is_dir():
                by_split.setdefault(split, []).append(place)
    if not by_split:
        by_split = {"train": ["images" if (folder / "images").is_dir() else "."]}
    return YoloFiles(folder, folder, classes, by_split)
