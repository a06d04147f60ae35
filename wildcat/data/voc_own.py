"""Own images with annotations in VOC's XML (`voc:`): in VOC's layout, or beside the images, as many tools do."""

from __future__ import annotations

import logging
from pathlib import Path, PureWindowsPath

from wildcat.data.annotated import AnnotatedImage, Choices, Content, Shape, annotated_dataset, splits_of
from wildcat.data.class_list import find_class_list, read_class_list
from wildcat.data.files import image_files_below, is_user_path
from wildcat.data.names import usual_split
from wildcat.data.sample import Dataset, require_path
from wildcat.data.voc import open_voc
from wildcat.data.voc import splits as voc_splits
from wildcat.data.voc_annotations import Annotation, read_named_annotation
from wildcat.data.voc_folder import find_lists, find_own_root, listed_classes
from wildcat.errors import WildcatError, shorten

logger = logging.getLogger(__name__)

_WHAT = "give a folder in the layout of VOC, or one with images and XML files of VOC"


def _listed_root(path: Path) -> Path | None:
    """The folder with lists of images in ImageSets; None if there is none."""
    require_path(path, _WHAT)
    if not path.is_dir():
        raise WildcatError(f"{path}: is a file; {_WHAT}")
    if not any(
        next(path.glob(pattern), None) for pattern in ("ImageSets", "VOC*/ImageSets", "VOCdevkit/VOC*/ImageSets")
    ):
        return None
    root = find_own_root(path)
    return root if find_lists(root) or find_lists(root, "Segmentation") else None


def _image_folder(path: Path, images: str | None) -> Path | None:
    if images is None:
        return None
    given = Path(images).expanduser()
    folder = given if given.is_dir() or given.is_absolute() else path / given
    require_path(folder, "the option images names the folder of the images")
    return folder


def _read_folder(path: Path, image_folder: Path | None) -> Content:
    """Read all XML files of VOC below a folder, and find their images.

    An image is the file that the XML names, or one with the name of the XML; in the folder that the user names, in the
    XML's folder, or anywhere below the top folder. Images without an XML were not annotated, and are left out.

    Raises:
        WildcatError: if there is no such file, or an image has two.
    """
    found: dict[Path, tuple[str, Annotation]] = {}
    for file in sorted(path.rglob("*.xml")):
        if is_user_path(file.relative_to(path).as_posix()) and (named := read_named_annotation(file)) is not None:
            found[file] = named
    if not found:
        raise WildcatError(f"{path}: holds no XML file of VOC; {_WHAT}")
    top = image_folder or path
    files = [top / name for name in image_files_below(top)]
    by_key: dict[str, list[Path]] = {}
    for each in files:
        for key in {each.name, each.stem, each.relative_to(top).with_suffix("").as_posix()}:
            by_key.setdefault(key, []).append(each)
    places: dict[str, tuple[str, Path]] = {}
    content = Content(path, [], files=places)
    for file, (name, (size, objects)) in found.items():
        image = _image_of(file, PureWindowsPath(name).name, by_key, path)
        inside = file.relative_to(path).with_suffix("").as_posix()
        if inside in places:
            raise WildcatError(f"{path}: {inside} has two annotations")
        split = next((part for part in map(usual_split, file.relative_to(path).parts[:-1]) if part), None)
        places[inside] = (inside, image or top / (PureWindowsPath(name).name or f"{file.stem}.jpg"))
        shapes = [Shape(item.name, item.box, difficult=item.difficult) for item in objects]
        content.images.append(AnnotatedImage(inside, size, shapes=shapes, split=split or "", is_complete=True))
    used = [image for _, image in places.values()]
    if len(set(used)) < len(used):
        twice = next(image for image in used if used.count(image) > 1)
        raise WildcatError(f"{path}: several annotations are those of {twice}")
    if without := len(set(files) - set(used)):
        content.notes.append(f"{without} of {len(files)} images have no XML file: they are not annotated and left out")
    if not set(files) & set(used):
        names = shorten([name or file.stem for file, (name, _) in found.items()])
        raise WildcatError(
            f"{path}: none of its {len(found)} images is in {top}: {names}; name the folder that holds them: "
            f"voc:{path},images=FOLDER"
        )
    return content


def _image_of(file: Path, name: str, by_key: dict[str, list[Path]], path: Path) -> Path | None:
    """The image of an annotation: one of its folder, or of a folder of the same name elsewhere, or the only one."""
    inside = file.relative_to(path).with_suffix("").as_posix()
    for key in filter(None, (name, file.stem, inside)):
        candidates = by_key.get(key, [])
        beside = [image for image in candidates if image.parent == file.parent]
        alike = [image for image in candidates if image.parent.name == file.parent.name]
        for chosen in (beside, alike, candidates):
            if len(chosen) == 1:
                return chosen[0]
    return None


def own_splits(path: Path, images: str | None = None) -> tuple[str, ...]:
    """The lists of ImageSets, or folders named as splits; those of a random split if there are not two."""
    if _listed_root(path) is not None:
        return voc_splits(path, None)
    return splits_of(_one_split(_read_folder(path, _image_folder(path, images))))


def _one_split(content: Content) -> Content:
    """The content without splits unless there are two."""
    if len({image.split for image in content.images}) > 1:
        return content
    images = [AnnotatedImage(i.file, i.size, i.tags, i.shapes, is_complete=i.is_complete) for i in content.images]
    return Content(content.source, images, content.classes, content.notes, content.warnings, content.files)


def open_own(
    spec: str,
    path: Path,
    split: str,
    *,
    images: str | None = None,
    class_list: str | None = None,
    test: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Images with annotations in VOC's XML.

    With ImageSets, the folder is read as VOC is (:func:`wildcat.data.voc.open_voc`), with masks. Otherwise the XML
    files may lie beside the images, as LabelImg and Roboflow write them, or in a folder of their own (Label Studio,
    FiftyOne).

    Args:
        spec: the specification, as given.
        path: the folder.
        split: train, val, test; or train, test, all of a random split.
        images: the folder of the images.
        class_list: a file with the classes; of masks, in the order of their values.
        test: fraction to hold out.
        seed: of the random split.
    """
    folder = _image_folder(path, images)
    names = None
    if class_list is not None:
        names = read_class_list(find_class_list(class_list, path))
    if _listed_root(path) is not None:
        return open_voc(spec, path, split, year=None, test=test, seed=seed, image_folder=folder, class_names=names)
    content = _one_split(_read_folder(path, folder))
    content.classes = names or listed_classes(path)
    dataset = annotated_dataset(spec, split, content, Choices(test=test, seed=seed))
    dataset.upright = False  # as in VOC, annotations refer to the pixels as stored
    return dataset
