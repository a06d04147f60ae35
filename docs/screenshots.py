"""Make the documentation's screenshots of the report and the web page: python -m docs.screenshots RUN [OUT].

RUN is a model trained on the synthetic data, such as runs/quickstart/run; `make screenshots` trains it first. The
report shows synthetic images. The page shows the embedded ImageNet classifier and scikit-learn's two photographs (CC-BY
2.0, by danielle jaouich and Ronnie Jones).
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.apps.browser import DESKTOP, PHONE, chromium, page
from tests.tiny_runs import start
from wildcat.apps.report.build import write_report

IMAGES = Path(__file__).parent / "images"
REPORT = {  # file -> size, dark mode, the section at the top
    "report.jpg": (DESKTOP, False, "main"),
    "report-images.jpg": (DESKTOP, False, "images"),
    "report-dark.jpg": (DESKTOP, True, "classes"),
    "report-phone.jpg": (PHONE, False, "images"),
}
PAGE = {  # file -> size, dark mode, task
    "page.jpg": (DESKTOP, False, "point"),
    "page-dark.jpg": (DESKTOP, True, "segment"),
    "page-phone.jpg": (PHONE, False, "point"),
}


def shoot(tab: Any, file: Path) -> None:
    tab.screenshot(path=str(file), type="jpeg", quality=82)
    print(file)


def shoot_report(browser: Any, run: Path, out: Path, title: str, images: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.html"
        write_report(run, report, title=title, max_images=images)
        for name, (size, dark, part) in REPORT.items():
            with page(browser, size, dark=dark) as tab:
                tab.goto(report.as_uri())
                tab.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
                tab.wait_for_function("[...document.images].every(image => image.complete)")
                if part != "main":
                    tab.evaluate("part => document.getElementById(part).scrollIntoView({behavior: 'instant'})", part)
                shoot(tab, out / name)


@contextmanager
def served(run: str) -> Iterator[str]:
    """Serve a run; the address of its page."""
    server = start("serve", run, "--port", "0")
    try:
        yield server.stderr.readline().split()[1]
    finally:
        server.terminate()
        server.communicate()


def wait_for_image(tab: Any, before: str | None = None) -> str:
    """Wait until another image than ``before`` is shown and the page is idle; return the image's address."""
    tab.wait_for_function(
        """before => {
            const image = document.querySelector('#image img');
            return image && image.src !== before && [...document.images].every(image => image.complete);
        }""",
        arg=before,
    )
    tab.wait_for_function("!document.querySelector('.wrap.generating, .wrap.translucent, .eta-bar')")
    tab.wait_for_timeout(500)  # fading
    return str(tab.get_attribute("#image img", "src"))


def shoot_page(browser: Any, run: str, out: Path) -> None:
    with served(run) as address:
        for name, (size, dark, task) in PAGE.items():
            with page(browser, size, dark=dark) as tab:
                tab.goto(address)
                tab.click("#sample")
                first = wait_for_image(tab)
                if task != "point":  # the default
                    tab.click(f"#task input[value={task}]")
                    wait_for_image(tab, first)
                shoot(tab, out / name)


def main(run: str, out: str | Path = IMAGES, *, title: str = "Quickstart", images: int = 240) -> None:
    Path(out).mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        shoot_report(browser, Path(run), Path(out), title, images)
        shoot_page(browser, "imagenet", Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
