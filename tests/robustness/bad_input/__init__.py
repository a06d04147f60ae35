"""Mistakes of users, case by case: how to produce the situation, the command, and the expected message.

``python -m tests.robustness.bad_input`` writes tests/robustness/TABLE.md from these; test_robustness.py runs each.
"""

import html

from tests.conftest import REPOSITORY
from tests.robustness.bad_input.annotations import COCO, VOC
from tests.robustness.bad_input.case import Case
from tests.robustness.bad_input.commands import COMMANDS
from tests.robustness.bad_input.folders import FOLDERS
from tests.robustness.bad_input.images import IMAGES
from tests.robustness.bad_input.recipes import RECIPES
from tests.robustness.bad_input.runs import RUNS
from tests.robustness.bad_input.tables import TABLES
from tests.robustness.bad_input.tools import TOOLS
from tests.robustness.bad_input.web import REQUESTS

PAGE = REPOSITORY / "tests" / "robustness" / "TABLE.md"

CASES: dict[str, list[Case]] = {
    "Command lines": COMMANDS,
    "Images": IMAGES,
    "Folders of images": FOLDERS,
    "Tables of tags (CSV)": TABLES,
    "PASCAL VOC (XML and text)": VOC,
    "COCO (JSON)": COCO,
    "Annotation tools": TOOLS,
    "Runs and checkpoints": RUNS,
    "Recipes (YAML)": RECIPES,
}

HEAD = """\
# Bad input

<!-- Written by `python -m tests.robustness.bad_input`: change the cases there, not this. -->

The messages for {count} mistakes in commands, files, settings and requests. A test runs each line and compares the
message word for word; "..." stands for text of the library that opened the file. Every command ends with exit code 2
and one sentence (`wildcat train` lists every problem of the images), without a traceback, and leaves no run behind. An
image that cannot be predicted is skipped: the others are predicted, and the exit code is 1. The web page keeps working
after each request.

- Nothing in a file is executed: checkpoints are read as tensors and plain values only, YAML and JSON as plain values,
  and XML that declares entities is rejected.
- Names from data (images, classes) cannot lead outside the output folder.
"""


def _cell(content: str) -> str:
    return html.escape(content, quote=False).replace("|", "&#124;").replace("\n", "<br>")


def page() -> str:
    """The content of tests/robustness/TABLE.md."""
    parts = [HEAD.format(count=sum(map(len, CASES.values())) + len(REQUESTS))]
    for kind, cases in CASES.items():
        parts.append(f"\n## {kind}\n\n| Mistake | Command | Message |\n| --- | --- | --- |\n")
        parts += [f"| {_cell(c.what)} | <code>{_cell(c.shown)}</code> | {_cell(c.message)} |\n" for c in cases]
    parts.append("\n## Requests to the web page\n\n| Mistake | Request | Message |\n| --- | --- | --- |\n")
    parts += [f"| {_cell(r.what)} | {_cell(r.done)} | {_cell(r.message)} |\n" for r in REQUESTS]
    return "".join(parts)
