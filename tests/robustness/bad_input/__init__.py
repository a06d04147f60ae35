"""What users get wrong, case by case: how to make it, what they type, and what they are told.

``python -m tests.robustness.bad_input`` writes docs/robustness.md from these; test_robustness.py tries each of them.
"""

import html

from tests.conftest import REPOSITORY
from tests.robustness.bad_input.annotations import COCO, VOC
from tests.robustness.bad_input.case import Case
from tests.robustness.bad_input.commands import COMMANDS
from tests.robustness.bad_input.images import IMAGES
from tests.robustness.bad_input.recipes import RECIPES
from tests.robustness.bad_input.runs import RUNS
from tests.robustness.bad_input.tables import TABLES
from tests.robustness.bad_input.web import REQUESTS

PAGE = REPOSITORY / "docs" / "robustness.md"

CASES: dict[str, list[Case]] = {
    "Command lines": COMMANDS,
    "Images": IMAGES,
    "Tables of tags (CSV)": TABLES,
    "PASCAL VOC (XML and text)": VOC,
    "COCO (JSON)": COCO,
    "Runs and checkpoints": RUNS,
    "Recipes (YAML)": RECIPES,
}

HEAD = """\
# Bad input

<!-- Written by `python -m tests.robustness.bad_input`: change the cases there, not this. -->

What is told about {count} mistakes in commands, files, settings and requests. Each line is tried by a test, word for
word; "..." stands for the words of the library that read the file. Every command ends with exit code 2 and one
sentence (`wildcat train` tells all it has found in the images), no traceback, and leaves no run behind. An image
that cannot be predicted is skipped: the others are predicted, and the exit code is 1. The web page resumes after each
request.

- Nothing in a file is executed: checkpoints are read as tensors and plain values alone, YAML and JSON as plain values,
  and XML that declares entities is rejected.
- Names from data (images, classes) never lead out of the folder that is written to.
"""


def _cell(content: str) -> str:
    return html.escape(content, quote=False).replace("|", "&#124;").replace("\n", "<br>")


def page() -> str:
    """docs/robustness.md."""
    parts = [HEAD.format(count=sum(map(len, CASES.values())) + len(REQUESTS))]
    for kind, cases in CASES.items():
        parts.append(f"\n## {kind}\n\n| What is wrong | Typed | ConsoleWriter |\n| --- | --- | --- |\n")
        parts += [f"| {_cell(c.what)} | <code>{_cell(c.shown)}</code> | {_cell(c.told)} |\n" for c in cases]
    parts.append("\n## Requests to the web page\n\n| What is wrong | Done | ConsoleWriter |\n| --- | --- | --- |\n")
    parts += [f"| {_cell(r.what)} | {_cell(r.done)} | {_cell(r.told)} |\n" for r in REQUESTS]
    return "".join(parts)
