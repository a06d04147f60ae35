"""Make the pictures of the report for the documentation: python -m docs.report_pictures RUN.

RUN is a model trained on the synthetic data, such as runs/quickstart/run, so that every picture shown is drawn.
"""

import sys
import tempfile
from pathlib import Path

from tests.browser import DESKTOP, PHONE, chromium, page
from wildcat.report import write_report

IMAGES = Path(__file__).parent / "images"
SHOTS = {  # file -> size, dark, the part of the page at the top
    "report.jpg": (DESKTOP, False, "main"),
    "report-pictures.jpg": (DESKTOP, False, "pictures"),
    "report-dark.jpg": (DESKTOP, True, "classes"),
    "report-phone.jpg": (PHONE, False, "pictures"),
}


def main(run: str, pictures: str = "240") -> None:
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        report = Path(folder) / "report.html"
        write_report(Path(run), report, data="synthetic", split="test", most_pictures=int(pictures))
        for name, (size, dark, part) in SHOTS.items():
            with page(browser, size, dark=dark) as tab:
                tab.goto(report.as_uri())
                tab.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
                tab.wait_for_function("[...document.images].every(image => image.complete)")
                if part != "main":
                    tab.evaluate("part => document.getElementById(part).scrollIntoView({behavior: 'instant'})", part)
                tab.screenshot(path=str(IMAGES / name), type="jpeg", quality=82)
                print(IMAGES / name)


if __name__ == "__main__":
    main(*sys.argv[1:])
