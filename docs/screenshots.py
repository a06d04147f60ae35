"""Make the pictures of the web page for the documentation: python -m docs.screenshots [RUN].

They show scikit-learn's two photographs (CC-BY 2.0, by danielle jaouich and Ronnie Jones).
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.browser import DESKTOP, PHONE, chromium, page

IMAGES = Path(__file__).parent / "images"


def shoot(tab: Any, address: str, task: int, file: str, *, full_page: bool = False) -> None:
    tab.goto(address)
    tab.click("#sample")
    tab.wait_for_selector("#picture img")
    tab.click(f"#task label >> nth={task}")
    tab.wait_for_timeout(5000)  # until everything has been drawn
    tab.screenshot(path=str(IMAGES / file), type="jpeg", quality=85, full_page=full_page)
    print(IMAGES / file)


def main(run: str) -> None:
    command = [sys.executable, "-u", "-m", "wildcat.cli", "serve", run, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[1]
        with chromium() as browser:
            with page(browser, DESKTOP) as tab:
                shoot(tab, address, 1, "page.jpg")
            with page(browser, DESKTOP, dark=True) as tab:
                shoot(tab, address, 2, "page-dark.jpg")
            with page(browser, PHONE) as tab:
                shoot(tab, address, 1, "page-phone.jpg")
        server.terminate()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "imagenet")
