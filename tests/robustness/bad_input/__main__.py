"""Write the page."""

from tests.robustness.bad_input import PAGE, page

PAGE.write_text(page(), encoding="utf-8")
